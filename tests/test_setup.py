"""The set-up says in one sentence what is missing, before it touches anything, and installs what was asked for."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

BASIC = ("sh", "id", "df", "awk", "dirname", "cat")
Preflight = Callable[..., "subprocess.CompletedProcess[str]"]


def script(path: Path, text: str) -> None:
    path.write_text("#!/bin/sh\n" + text)
    path.chmod(0o755)


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    """A folder to be all of PATH: the shell's own tools, a good Python and a compiler that finds every header."""
    folder = tmp_path / "programs"
    folder.mkdir()
    for name in BASIC:
        (folder / name).symlink_to(str(shutil.which(name)))
    script(folder / "python3", f'exec "{sys.executable}" "$@"\n')
    script(folder / "c++", "exit 0\n")
    script(folder / "chromium", "exit 0\n")
    return folder


@pytest.fixture
def preflight(root: Path, programs: Path, tmp_path: Path) -> Preflight:
    def run(stamp: Path = tmp_path / "no-stamp", **settings: str) -> subprocess.CompletedProcess[str]:
        environment = {"PATH": str(programs), "TORCH": "cpu", **settings}
        command = [str(root / "tools" / "preflight"), str(stamp)]
        return subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=60)

    return run


def sentences(done: subprocess.CompletedProcess[str]) -> list[str]:
    assert done.returncode == 1
    assert "download" not in done.stdout, "nothing is announced that will not happen"
    return done.stderr.splitlines()


def test_a_good_machine_is_told_how_much_it_will_download(preflight: Preflight) -> None:
    for torch, amount in (("none", "MB"), ("cpu", "MB"), ("cuda", "GB")):
        done = preflight(TORCH=torch)
        assert done.returncode == 0, done.stderr
        assert re.search(rf"about \d+ {amount} to download with TORCH={torch}", done.stdout)


def test_a_machine_that_is_set_up_hears_nothing(preflight: Preflight, tmp_path: Path) -> None:
    stamp = tmp_path / "stamp"
    stamp.touch()
    done = preflight(stamp)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_missing_python(preflight: Preflight, programs: Path) -> None:
    (programs / "python3").unlink()
    assert sentences(preflight()) == ["Python is missing: install Python 3.11 or newer, or name one with PYTHON=."]


def test_old_python(preflight: Preflight, programs: Path) -> None:
    script(programs / "python3", 'case "$1" in --version) echo Python 3.9.2 ;; *) exit 1 ;; esac\n')
    assert sentences(preflight()) == ["Python 3.9.2 is too old: install Python 3.11 or newer, or name one with PYTHON=."]


def test_missing_venv_module(preflight: Preflight, programs: Path) -> None:
    script(programs / "python3", f'case "$2" in *ensurepip*) exit 1 ;; esac\nexec "{sys.executable}" "$@"\n')
    (sentence,) = sentences(preflight())
    assert "venv module is missing" in sentence and "python3-venv" in sentence


def test_missing_compiler_and_python_at_once(preflight: Preflight, programs: Path) -> None:
    (programs / "c++").unlink()
    (programs / "python3").unlink()
    first, second = sentences(preflight())
    assert "Python is missing" in first and "C++ compiler is missing" in second


def test_missing_python_headers(preflight: Preflight, programs: Path) -> None:
    script(programs / "c++", "read -r line\ncase $line in *Python.h*) exit 1 ;; esac\n")
    (sentence,) = sentences(preflight())
    assert "headers are missing" in sentence and "python3-dev" in sentence


def test_full_disk(preflight: Preflight, programs: Path) -> None:
    (programs / "df").unlink()
    script(programs / "df", "echo header; echo /dev/disk 9999999 8000000 1999999 80% /\n")
    assert sentences(preflight()) == ["Only 1 GB of disk are free here, and TORCH=cpu needs about 4 GB."]
    assert preflight(TORCH="none").returncode == 0


def test_apt_installs_what_is_missing_only_when_asked(preflight: Preflight, programs: Path, tmp_path: Path) -> None:
    log = tmp_path / "apt.log"
    (programs / "chromium").unlink()
    script(programs / "apt-get", f'echo "$@" >> "{log}"\n')
    script(programs / "sudo", 'exec "$@"\n')
    script(programs / "c++", "read -r line\ncase $line in *hwy*) exit 1 ;; esac\n")
    assert preflight().returncode == 0
    assert not log.exists()
    assert preflight(APT="1").returncode == 0
    assert [line.split()[-1] for line in log.read_text().splitlines()] == ["libhwy-dev", "chromium"]


def test_apt_that_fails_is_reported(preflight: Preflight, programs: Path) -> None:
    script(programs / "apt-get", "exit 100\n")
    script(programs / "sudo", 'exec "$@"\n')
    (programs / "chromium").unlink()
    assert "apt-get could not install chromium; install it by hand." in sentences(preflight(APT="1"))


def dry_run(root: Path, *settings: str, tmp_path: Path) -> str:
    """What ``make report`` would run in a checkout that was never set up."""
    for name in ("Makefile", "constraints.txt", "pyproject.toml", "impls", "benchmarks"):
        (tmp_path / name).symlink_to(root / name)
    command = ["make", "--dry-run", "report", *settings]
    environment = {name: value for name, value in os.environ.items() if name not in ("TORCH", "CI", "MAKEFLAGS", "MAKELEVEL")}
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


def release(root: Path) -> str:
    (pin,) = re.findall(r"^torch==(.+)$", (root / "constraints.txt").read_text(), re.MULTILINE)
    return pin


def test_the_cpu_build_of_torch_is_named_exactly(root: Path, tmp_path: Path) -> None:
    planned = dry_run(root, "TORCH=cpu", "TORCH_INDEX=file:///elsewhere", tmp_path=tmp_path)
    (line,) = (line for line in planned.splitlines() if "torch==" in line)
    assert f"torch=={release(root)}+cpu" in line and "--extra-index-url 'file:///elsewhere'" in line
    assert planned.index("torch==") < planned.index("--editable '.[all]'"), "torch first, so that nothing else chooses it"


def test_the_cuda_build_brings_its_own_triton(root: Path, tmp_path: Path) -> None:
    planned = dry_run(root, "TORCH=cuda", tmp_path=tmp_path)
    (line,) = (line for line in planned.splitlines() if "torch==" in line)
    assert re.search(rf"--constraint \.venv/constraints\.txt +torch=={re.escape(release(root))} ", line)


def test_none_installs_no_torch(root: Path, tmp_path: Path) -> None:
    planned = dry_run(root, "TORCH=none", tmp_path=tmp_path)
    assert "torch==" not in planned and "[all]" not in planned
    assert "--editable '.'" in planned


def test_an_unknown_torch_is_refused(root: Path) -> None:
    done = subprocess.run(["make", "--dry-run", "report", "TORCH=gpu"], cwd=root, capture_output=True, text=True)
    assert done.returncode == 2
    assert "TORCH=gpu is unknown; it is cpu, cuda or none" in done.stderr


def test_every_dependency_is_pinned_within_its_range(root: Path) -> None:
    requirements = pytest.importorskip("packaging.requirements")
    canonical = pytest.importorskip("packaging.utils").canonicalize_name
    lines = [line for line in (root / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", line) for line in lines)
    pins = {canonical(name): version for name, _, version in (line.partition("==") for line in lines)}
    assert len(pins) == len(lines)
    project = tomllib.loads((root / "pyproject.toml").read_text())
    wanted = [
        *project["build-system"]["requires"],
        *project["project"]["dependencies"],
        *(each for extra in project["project"]["optional-dependencies"].values() for each in extra),
        *(each for group in project["dependency-groups"].values() for each in group),
    ]
    for requirement in map(requirements.Requirement, wanted):
        if requirement.name != "ulproof":
            assert requirement.specifier.contains(pins[canonical(requirement.name)]), requirement


def test_ci_only_calls_make_test(root: Path) -> None:
    assert (root / ".ci" / "run").read_text().splitlines()[-1] == "exec make test APT=1"

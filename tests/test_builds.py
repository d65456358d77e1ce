"""Sides of a comparison: what git says of them, builds that are made once, and the code that an implementation rests on."""

from __future__ import annotations

import runpy
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ulproof.benchmarks import builds
from ulproof.benchmarks.measure import environment

PROJECT: dict[str, Any] = runpy.run_path(str(Path(__file__).with_name("project.py")))


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, root: Path) -> Any:
    return PROJECT["Project"](tmp_path_factory.mktemp("project"), root)


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("cache")
        patch.setenv("ULPROOF_CACHE", str(folder))
        yield folder


def test_base_and_head_are_commits_by_any_name(project: Any, tmp_path: Path) -> None:
    base, head = builds.sources(project.root, "start..main", tmp_path)
    assert base.commit == head.commit == project.git("rev-parse", "main")
    assert base.tree == project.git("rev-parse", "main^{tree}")
    assert (base.name, head.name) == ("start", "main")
    assert base.commit and base.label == f"start ({base.commit[:10]})"


def test_without_a_head_it_is_the_working_tree(project: Any, tmp_path: Path) -> None:
    objects = project.git("count-objects")
    _, clean = builds.sources(project.root, "start", tmp_path / "clean")
    assert clean.commit == project.git("rev-parse", "HEAD") and clean.tree == project.git("rev-parse", "HEAD^{tree}")
    (project.root / "impls" / "untracked.py").write_text("1\n")
    (project.root / "runs").mkdir(exist_ok=True)
    (project.root / "runs" / "ignored").write_text("2\n")
    try:
        status = project.git("status", "--porcelain")
        _, dirty = builds.sources(project.root, "start", tmp_path / "dirty")
        listed = dirty.git("ls-tree", "-r", "--name-only", dirty.tree).splitlines()
        assert dirty.commit is None and dirty.tree != clean.tree
        assert "impls/untracked.py" in listed and "runs/ignored" not in listed
        assert (project.git("status", "--porcelain"), project.git("count-objects")) == (status, objects)
    finally:
        (project.root / "impls" / "untracked.py").unlink()


@pytest.mark.parametrize("spec", ["..main", "start..", "start...main", ""])
def test_half_a_range_is_refused(project: Any, tmp_path: Path, spec: str) -> None:
    with pytest.raises(ValueError, match="give BASE or BASE..HEAD, commits, branches or tags"):
        builds.sources(project.root, spec, tmp_path)


def test_an_unknown_base_is_named(project: Any, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="'nowhere': no commit, branch or tag here"):
        builds.sources(project.root, "nowhere..main", tmp_path)
    with pytest.raises(ValueError, match="'--all': no commit, branch or tag here"):
        builds.sources(project.root, "--all", tmp_path)


def test_a_shallow_clone_is_told_how_to_get_the_rest(project: Any, tmp_path: Path) -> None:
    first = project.git("rev-parse", "main")
    project.git("checkout", "--quiet", "-b", "later")
    project.commit("later")
    project.git("checkout", "--quiet", "main")
    clone = tmp_path / "clone"
    project.git("clone", "--quiet", "--depth", "1", "--branch", "later", f"file://{project.root}", str(clone))
    with pytest.raises(ValueError, match="this clone is shallow: `git fetch --unshallow` brings the rest"):
        builds.sources(clone, first, tmp_path)


def test_outside_of_git_there_is_nothing_to_compare(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not in a git checkout"):
        builds.checkout(tmp_path)


def test_a_build_is_made_once_and_its_native_part_is_reused(project: Any, tmp_path: Path, cache: Path) -> None:
    changed = project.variant("comment", "impls/softmax/numpy.py", lambda text: text + "\n# changed\n")
    said: list[str] = []
    base, head = builds.sources(project.root, f"start..{changed}", tmp_path)
    one = builds.build(base, said.append)
    assert [line for line in said if "building" in line], "the first build runs the project's own"
    assert builds.build(base, said.append) == one
    other = builds.build(head, said.append)
    assert len(said) == 1, "what is native did not change"
    assert other != one and (other / "softmax" / "numpy.py").read_text().endswith("# changed\n")
    assert not list(one.rglob("*.cpp")) and (one / "softmax" / "kernel.cu").exists()
    apart = builds.build(base, said.append, "base")
    assert apart != one and len(said) == 2, "a build of its own is really built"
    assert not list((cache / "builds").glob("*.part"))


def test_native_sources_and_flags_decide_whether_a_build_is_reused(
    project: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = builds.natives(project.root)
    (project.root / "impls" / "softmax" / "kernel.h").write_text("// native\n")
    changed = builds.natives(project.root)
    (project.root / "impls" / "softmax" / "kernel.h").unlink()
    assert changed != before == builds.natives(project.root)
    tools = builds.toolchain()
    monkeypatch.setenv("CXXFLAGS", "-O1")
    assert builds.toolchain() != tools


def test_a_side_that_does_not_build_says_why_and_leaves_its_log(project: Any, tmp_path: Path, cache: Path) -> None:
    broken = project.variant(
        "broken", "impls/CMakeLists.txt", lambda text: text + 'message(FATAL_ERROR "error: no such thing")\n'
    )
    source, _ = builds.sources(project.root, f"{broken}..start", tmp_path)
    with pytest.raises(builds.BuildError, match=r"(?s)broken.* does not build: .*log: .*no such thing") as failure:
        builds.build(source)
    log = Path(str(failure.value).partition("log: ")[2].splitlines()[0])
    assert "no such thing" in log.read_text()
    assert not list((cache / "builds").glob("*.part"))


def test_a_side_without_the_package_does_not_build(project: Any, tmp_path: Path) -> None:
    project.git("checkout", "--quiet", "--orphan", "empty")
    project.git("rm", "-rfq", "--cached", ".")
    project.git("commit", "--quiet", "--allow-empty", "-m", "empty")
    project.git("checkout", "--quiet", "--force", "main")
    source, _ = builds.sources(project.root, "empty..start", tmp_path)
    with pytest.raises(builds.BuildError, match="it has no impls/ or no pyproject.toml"):
        builds.build(source)


def test_copies_of_a_build_are_files_of_their_own(tmp_path: Path) -> None:
    (tmp_path / "built").mkdir()
    (tmp_path / "built" / "kernels.so").write_text("binary")
    one, other = (builds.placed(tmp_path / "built", tmp_path / name) for name in ("one", "other"))
    assert (one / "kernels.so").stat().st_ino != (other / "kernels.so").stat().st_ino


def test_a_lock_is_waited_for(tmp_path: Path) -> None:
    waiting, entered = threading.Event(), threading.Event()

    def second() -> None:
        with builds.locked(tmp_path / "lock", waiting.set):
            entered.set()

    with builds.locked(tmp_path / "lock", lambda: pytest.fail("nobody holds it")):
        thread = threading.Thread(target=second)
        thread.start()
        assert waiting.wait(60)
        assert not entered.is_set()
    thread.join(60)
    assert entered.is_set()


def test_nothing_of_a_build_outlives_an_interruption(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pids = tmp_path / "pids"
    command = ["sh", "-c", f"sleep 1000 & echo $$ $! > {pids}.part; mv {pids}.part {pids}; wait"]
    wait = subprocess.Popen.wait

    def interrupted(process: Any, timeout: float | None = None) -> int:
        if process.args == command and process.returncode is None and timeout is None and not interrupts:
            while not pids.exists():
                pass
            interrupts.append(1)
            raise KeyboardInterrupt
        return wait(process, timeout)

    interrupts: list[int] = []
    monkeypatch.setattr(subprocess.Popen, "wait", interrupted)
    with pytest.raises(KeyboardInterrupt):
        builds._in_a_group(command, {"PATH": "/usr/bin:/bin"}, subprocess.DEVNULL)

    def alive(pid: str) -> bool:
        return environment.read(f"/proc/{pid}/stat").partition(") ")[2][:1] not in ("", "Z", "X")

    left = pids.read_text().split()
    for _ in range(1000):  # a kill takes a moment on a busy machine
        left = list(filter(alive, left))
        if not left:
            break
        time.sleep(0.02)
    assert not left


@pytest.fixture
def impls(project: Any, tmp_path: Path) -> Path:
    import shutil

    folder = Path(shutil.copytree(project.root / "impls", tmp_path / "impls"))
    (folder / "softmax" / "_simd.so").write_text("binary")
    return folder


BACKENDS = {"numpy": "numpy", "simd": "simd", "triton": "triton", "cuda": "cuda", "reference": "reference", "peers": "peer"}


@pytest.mark.parametrize(
    ("path", "changed"),
    [
        ("softmax/numpy.py", {"numpy"}),
        ("softmax/_simd.so", {"simd", "peers"}),
        ("softmax/kernel.cu", {"cuda", "peers"}),
        ("softmax/triton_kernels.py", {"triton"}),
        ("_backends/nvrtc.py", {"cuda"}),
        ("_backends/arrays.py", set(BACKENDS)),
        ("registry.py", set(BACKENDS)),
        ("softmax/__init__.py", set()),
        ("CMakeLists.txt", set()),
        ("_backends/stress.py", set()),
    ],
)
def test_a_change_concerns_the_implementations_that_rest_on_it(impls: Path, path: str, changed: set[str]) -> None:
    def all_of_them() -> dict[str, str]:
        return {module: builds.code(impls, "softmax", module, backend) for module, backend in BACKENDS.items()}

    before = all_of_them()
    with open(impls / path, "a") as file:
        file.write("# changed\n")
    after = all_of_them()
    assert {module for module in BACKENDS if before[module] != after[module]} == changed

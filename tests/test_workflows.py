"""The workflows run nothing that can't be run by hand, and no exit code is lost on the way."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from ulproof.benchmarks import cli

ROOT = Path(__file__).resolve().parent.parent
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
SCRIPTS = sorted(path for path in (ROOT / ".ci").iterdir())


def parsed(path: Path) -> dict[Any, Any]:
    return yaml.safe_load(path.read_text())


def steps() -> Iterator[tuple[str, dict[str, Any], dict[str, Any]]]:
    """Workflow, job and step, of each step."""
    for path in WORKFLOWS:
        for job in parsed(path)["jobs"].values():
            for step in job["steps"]:
                yield path.name, job, step


def test_every_kind_of_run_has_its_workflow() -> None:
    assert {path.stem for path in WORKFLOWS} == {"tests", "compare", "nightly"}
    on = {path.stem: parsed(path)[True] for path in WORKFLOWS}  # YAML 1.1 reads `on` as true
    assert "pull_request" in on["tests"] and "pull_request" in on["compare"] and "schedule" in on["nightly"]
    assert "pull_request_target" not in "".join(path.read_text() for path in WORKFLOWS), (
        "it runs a stranger's code with our rights"
    )


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_rights_are_the_least(path: Path) -> None:
    document = parsed(path)
    assert document["permissions"] == {"contents": "read"}
    wider = [job["permissions"] for job in document["jobs"].values() if "permissions" in job]
    assert wider == ([{"contents": "write"}] if path.stem == "nightly" else [])
    for name, _, step in steps():
        if "checkout" in step.get("uses", "") and name != "nightly.yml":
            assert step["with"]["persist-credentials"] is False


def test_actions_are_pinned_by_commit() -> None:
    lines = [line.strip() for path in WORKFLOWS for line in path.read_text().splitlines() if "uses:" in line]
    assert len(lines) > 5
    assert [line for line in lines if not re.fullmatch(r"- uses: [\w-]+/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", line)] == []


def test_every_command_is_ours_and_whole() -> None:
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.M)
    commands = [step["run"] for _, _, step in steps() if "run" in step]
    assert commands
    for command in commands:
        assert "\n" not in command and not re.search(r"[|;]|&&|\bGITHUB_|\$\{\{", command), command
        program, *arguments = command.split()
        if program == "make":
            assert arguments[0] in targets, command
        else:
            assert os.access(ROOT / program, os.X_OK) and Path(program).parent == Path(".ci"), command


def test_what_needs_history_has_it() -> None:
    for path in WORKFLOWS:
        for job in parsed(path)["jobs"].values():
            if any(step.get("run", "").startswith((".ci/gate", ".ci/continuous", ".ci/nightly")) for step in job["steps"]):
                [checkout] = [step for step in job["steps"] if "checkout" in step.get("uses", "")]
                assert checkout["with"]["fetch-depth"] == 0


def test_only_asv_is_advisory() -> None:
    lenient = [name for path in WORKFLOWS for name, job in parsed(path)["jobs"].items() if job.get("continue-on-error")]
    assert lenient == ["asv"]


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_scripts_are_bash_and_use_options_that_exist(path: Path) -> None:
    subprocess.run(["bash", "-n", path], check=True)
    text = re.sub(r"\\\n\s*|^#.*$", "", path.read_text(), flags=re.M)
    for program, command, rest in re.findall(r"\.venv/bin/(ulproof|asv) (\w+)(.*)", text):
        used = set(re.findall(r"(?<!\S)(--?[a-z][\w-]*)", rest))
        if program == "ulproof":
            [commands] = [action for action in cli.parser()._actions if action.choices]
            assert isinstance(commands.choices, dict)
            known = set(commands.choices[command]._option_string_actions)
        else:
            done = subprocess.run([sys.executable, "-m", "asv", command, "--help"], capture_output=True, text=True, check=True)
            known = set(re.findall(r"--?[a-z][\w-]*", done.stdout))
        assert used <= known, f"{program} {command}: {used - known}"


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A git repository with the scripts and, for programs, what ``program`` writes; its origin is a bare one."""
    folder = tmp_path / "checkout"
    shutil.copytree(ROOT / ".ci", folder / ".ci")
    (folder / ".venv" / "bin").mkdir(parents=True)
    (folder / ".gitignore").write_text("build/\n.venv/\n.asv/\n")
    git(tmp_path, "init", "-q", "--bare", "-b", "main", "origin")
    git(folder, "init", "-q", "-b", "main")
    git(folder, "remote", "add", "origin", str(tmp_path / "origin"))
    git(folder, "add", ".")
    commit(folder, "first")
    return folder


def git(folder: Path, *command: str) -> str:
    return subprocess.run(["git", *command], cwd=folder, check=True, capture_output=True, text=True).stdout.strip()


def commit(folder: Path, name: str) -> None:
    git(folder, "-c", "user.name=a", "-c", "user.email=a@b", "commit", "-q", "--allow-empty", "-m", name)


def program(checkout: Path, name: str, body: str) -> None:
    path = checkout / ".venv" / "bin" / name
    path.write_text(f"#!/bin/bash\n{body}\n")
    path.chmod(0o755)


def script(checkout: Path, name: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, **environment}
    return subprocess.run([checkout / ".ci" / name, *arguments], cwd="/", capture_output=True, text=True, env=env, timeout=60)


COMPARE = """
case $1 in
compare) while [ $# -gt 0 ]; do case $1 in --markdown) echo '| verdicts |' > "$2";; esac; shift; done; exit {code};;
report) echo page > build/gate/report.html;;
esac
"""


@pytest.mark.parametrize(("code", "left"), [(0, 0), (1, 1), (2, 2), (3, 0), (4, 4), (64, 64)])
def test_the_gate_keeps_exit_codes_but_warns_on_what_is_inconclusive(checkout: Path, code: int, left: int) -> None:
    program(checkout, "ulproof", COMPARE.format(code=code))
    summary = checkout / "summary"
    done = script(checkout, "gate", "main", GITHUB_STEP_SUMMARY=str(summary))
    assert done.returncode == left
    assert ("::warning::" in done.stdout) == (code == 3)
    assert summary.read_text() == "| verdicts |\n"
    assert (checkout / "build" / "gate" / "report.html").exists()


def test_the_gate_says_why_there_is_no_verdict(checkout: Path) -> None:
    program(checkout, "ulproof", "echo 'ulproof: main: does not build: no such header' >&2; exit 4")
    done = script(checkout, "gate", "main", GITHUB_STEP_SUMMARY=str(checkout / "summary"))
    assert done.returncode == 4
    assert "exit code 4" in (checkout / "summary").read_text() and "no such header" in (checkout / "summary").read_text()


RESULT = """
for commit in {commits}; do
    mkdir -p .asv/results/box
    echo '{{"commit_hash": "'$(git rev-parse $commit)'", "result_columns": ["result", "params"],
        "results": {{"bench_operators.SoftmaxCpu.time_forward": [[{value}], [["1"]]]}}}}' > .asv/results/box/$commit-e.json
done
exit {code}
"""


@pytest.mark.parametrize(
    ("commits", "value", "code", "left"),
    [
        ("main HEAD~1", 1.0, 0, 0),
        ("main HEAD~1", 1.0, 1, 1),
        ("main HEAD~1", 1.0, 2, 2),
        ("HEAD", 1.0, 1, 4),
        ("", 1.0, 1, 4),
        ("main HEAD~1", "NaN", 0, 4),
    ],
)
def test_asv_is_not_believed_where_it_measured_nothing(
    checkout: Path, commits: str, value: object, code: int, left: int
) -> None:
    commit(checkout, "second")
    program(checkout, "python", f'exec {sys.executable} "$@"')
    program(checkout, "asv", '[ "$1" != machine ] || exit 0' + RESULT.format(commits=commits, value=value, code=code))
    done = script(checkout, "continuous", "HEAD~1")
    assert done.returncode == left, done.stderr


@pytest.mark.parametrize("name", ["gate", "continuous"])
def test_a_base_must_be_named(checkout: Path, name: str) -> None:
    done = script(checkout, name)
    assert done.returncode == 64 and f".ci/{name} BASE" in done.stderr


def test_nights_add_up_on_their_branch(checkout: Path, tmp_path: Path) -> None:
    program(checkout, "ulproof", 'while [ "$1" != -o ]; do shift; done; ls .asv/results > "$2"')
    for night in ("first", "second"):
        program(
            checkout, "asv", f'[ "$1" = machine ] || {{ mkdir -p .asv/results; echo 1 > .asv/results/{night}.json; exit 2; }}'
        )
        commit(checkout, night)
        assert script(checkout, "nightly").returncode == 2, "a benchmark that failed is told"
        shutil.rmtree(checkout / ".asv")
        done = script(checkout, "publish")
        assert done.returncode == 0, done.stderr
    assert git(tmp_path / "origin", "ls-tree", "-r", "--name-only", "history").split() == [
        "index.html",
        "results/first.json",
        "results/second.json",
    ]
    assert git(tmp_path / "origin", "show", "history:index.html").split() == ["first.json", "second.json"]
    assert git(tmp_path / "origin", "rev-list", "--count", "history") == "2"
    assert script(checkout, "publish").returncode == 0, "nothing new is no failure"

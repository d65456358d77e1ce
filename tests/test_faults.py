"""What can go wrong in a comparison costs its own row, is said in a line, has its exit code, and leaves nothing running.

Sides are copies of ``impls`` whose NumPy kernels misbehave; they are built by copying (``fake_sides.py``). Limits are injected,
and outcomes asserted, never durations; ``DEADLINE`` only ends a test that would hang.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
DEADLINE = 120.0
NARROW = ("--dtype", "float32", "--pass", "forward", "--shape", "1x1024")
SOFTMAX = ("softmax:numpy/three-pass", *NARROW)

# Appended to softmax/numpy.py: `misbehave` runs in the kernels of some operators, only where they are timed unless `always`.
FAULT = """

_good = bind


def bind(implementation, pass_, inputs, outputs, **options):
    import os, signal, sys, time
    call = _good(implementation, pass_, inputs, outputs, **options)
    always = {always}
    name = implementation.operator.name

    def run():
        call()
        if always or inputs[0].shape == (1, 1024):
            misbehave(name, outputs)

    def misbehave(name, outputs):
{body}

    return run
"""


def fault(body: str, always: bool = False) -> str:
    return FAULT.format(always=always, body="".join(f"        {line}\n" for line in body.strip().splitlines()))


def git(folder: Path, *command: str) -> str:
    return subprocess.run(["git", *command], cwd=folder, check=True, capture_output=True, text=True).stdout.strip()


def commit(folder: Path, message: str) -> None:
    git(folder, "add", "--all")
    git(folder, "-c", "user.name=a", "-c", "user.email=a@b", "commit", "--quiet", "--allow-empty", "-m", message)


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository of two commits that holds what a side needs, and nothing compiled."""
    folder = tmp_path_factory.mktemp("original") / "repository"
    shutil.copytree(ROOT / "impls", folder / "impls", ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    (folder / ".gitignore").write_text("runs/\n*.json\n")
    git(folder.parent, "init", "--quiet", "--initial-branch", "main", str(folder))
    commit(folder, "zeroth")
    commit(folder, "first")
    return folder


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


class Checkout:
    """A clone, and what is run in it; ``mark`` in the environment tells its processes from all others."""

    def __init__(self, folder: Path, cache: Path) -> None:
        self.folder, self.mark = folder, uuid.uuid4().hex
        self.environment = {**os.environ, "ULPROOF_CACHE": str(cache), "FAKE_MARK": self.mark, "FAKE_FOLDER": str(folder)}

    def append(self, text: str, path: str = "impls/softmax/numpy.py") -> None:
        with (self.folder / path).open("a") as file:
            file.write(text)

    def start(self, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        command = [sys.executable, str(ROOT / "tests" / "fake_sides.py"), *arguments]
        env = {**self.environment, **environment}
        pipe = subprocess.PIPE
        return subprocess.Popen(command, cwd=self.folder, env=env, stdout=pipe, stderr=pipe, text=True, start_new_session=True)

    def compare(self, *arguments: str, **environment: str) -> tuple[int, str, str]:
        process = self.start("compare", *arguments, **environment)
        out, err = process.communicate(timeout=DEADLINE)
        assert "Traceback" not in err, err
        return process.returncode, out, err

    def judged(self, *arguments: str, **environment: str) -> dict[str, Any]:
        """The JSON of a comparison that came to an end, after a look at its run folder: no record is lost."""
        options = ("--json", "verdict.json", "--output", "runs/it", "--budget", "1000")
        code, out, err = self.compare(*options, *arguments, **environment)
        assert (self.folder / "verdict.json").exists(), err
        document = json.loads((self.folder / "verdict.json").read_text())
        assert document["exit_code"] == code
        kept = [json.loads(line) for line in (self.folder / "runs/it/records.jsonl").read_text().splitlines()]
        assert kept == document["rows"]
        assert document["headline"] in out
        return document

    def running(self) -> list[int]:
        """Processes that this checkout's commands left."""
        found = []
        for path in Path("/proc").glob("[0-9]*/environ"):
            try:
                if f"FAKE_MARK={self.mark}".encode() in path.read_bytes() and state(path.parent) != "Z":
                    found.append(int(path.parent.name))
            except OSError:
                continue
        return found

    def wait_for(self, what: Callable[[], object]) -> None:
        end = time.monotonic() + DEADLINE
        while not what():
            assert time.monotonic() < end, f"still running: {self.running()}"
            time.sleep(0.05)


def state(process: Path) -> str:
    return (process / "stat").read_text().rpartition(") ")[2][:1]


@pytest.fixture
def checkout(original: Path, cache: Path, tmp_path: Path) -> Iterator[Checkout]:
    git(tmp_path, "clone", "--quiet", str(original), "checkout")
    found = Checkout(tmp_path / "checkout", cache)
    yield found
    for process in found.running():
        os.kill(process, signal.SIGKILL)


def test_each_fault_costs_its_own_row(checkout: Checkout) -> None:
    """While timed: softmax crashes, log_softmax hangs, logsumexp takes memory without end; in one comparison."""
    checkout.append(
        fault("""
if name == "softmax":
    os.kill(os.getpid(), signal.SIGSEGV)
if name == "log_softmax":
    time.sleep(1000)
held = []
while name == "logsumexp":
    held.append(bytearray(b"1") * (32 << 20))
""")
    )
    names = ("softmax:numpy/three-pass", "log_softmax:numpy/three-pass", "logsumexp:numpy/three-pass")
    document = checkout.judged("HEAD", *names, *NARROW, "--patience", "6", FAKE_MEMORY=str(1 << 30))
    rows = {row["operator"]: row for row in document["rows"]}
    assert {name: row["status"] for name, row in rows.items()} == {
        "softmax": "crashed",
        "log_softmax": "timeout",
        "logsumexp": "crashed",
    }
    assert "SIGSEGV" in rows["softmax"]["reason"] and "no result within" in rows["log_softmax"]["reason"]
    assert "out of memory" in rows["logsumexp"]["reason"]
    assert all(row["fails"] and row["reason"].startswith("head: ") for row in rows.values())
    assert document["exit_code"] == 2 and document["counts"]["failed"] == 3
    assert not checkout.running()


def test_a_crash_while_checked_costs_its_own_row(checkout: Checkout) -> None:
    checkout.append(fault("if name == 'softmax': os.kill(os.getpid(), signal.SIGSEGV)", always=True))
    document = checkout.judged("HEAD", "softmax:numpy/three-pass", "log_softmax:numpy/three-pass", *NARROW)
    rows = {row["operator"]: row for row in document["rows"]}
    assert rows["softmax"]["status"] == "crashed" and rows["softmax"]["fails"] and "SIGSEGV" in rows["softmax"]["reason"]
    assert rows["log_softmax"]["status"] == "ok" and rows["log_softmax"]["ratio"]
    assert document["exit_code"] == 2


def test_printing_disturbs_nothing(checkout: Checkout) -> None:
    checkout.append(
        fault("print('done'); os.write(1, b'}{'); sys.stdout.flush()", always=True) + "\nprint('{\"done\": true}')\n"
    )
    document = checkout.judged("HEAD", *SOFTMAX)
    [row] = document["rows"]
    assert row["status"] == "ok" and row["ratio"] and document["exit_code"] in (0, 1, 3)


def test_another_protocol_is_refused(checkout: Checkout) -> None:
    registry = checkout.folder / "impls" / "registry.py"
    registry.write_text(registry.read_text().replace("PROTOCOL = 1 ", "PROTOCOL = 77 "))
    code, _, err = checkout.compare("HEAD", *SOFTMAX)
    assert code == 64 and "working tree speaks protocol 77" in err


def test_a_registry_that_cannot_be_imported_is_no_slowdown(checkout: Checkout) -> None:
    checkout.append("\nraise RuntimeError('half an edit')\n", "impls/registry.py")
    code, _, err = checkout.compare("HEAD", *SOFTMAX)
    assert code == 4 and "working tree" in err and "half an edit" in err


def test_a_deleted_operator_is_listed(checkout: Checkout) -> None:
    shutil.rmtree(checkout.folder / "impls" / "activations")
    document = checkout.judged("HEAD", "relu", "softmax:numpy/three-pass", *NARROW)
    verdicts = {f"{row['operator']}:{row['implementation']}": row["verdict"] for row in document["rows"]}
    assert verdicts["relu:numpy/direct"] == "removed" and verdicts["softmax:numpy/three-pass"] == "same"
    assert document["exit_code"] == 0


def test_a_side_that_does_not_build(checkout: Checkout) -> None:
    (checkout.folder / "backend.py").write_text("def build_wheel(*arguments):\n    raise SystemExit('error: no such header')\n")
    pyproject = checkout.folder / "pyproject.toml"
    text = pyproject.read_text().split("[project]", 1)[1]
    pyproject.write_text('[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n[project]' + text)
    commit(checkout.folder, "broken")
    code, out, err = checkout.compare("HEAD..HEAD~1", *SOFTMAX, FAKE_BUILD="real")
    assert code == 4 and "does not build" in err and "no such header" in err and "slower" not in out
    log = next(word for word in err.split() if word.endswith(".log"))
    assert "no such header" in Path(log).read_text()
    assert not checkout.running()


def test_a_base_that_is_not_there(checkout: Checkout) -> None:
    code, _, err = checkout.compare("of-tomorrow", *SOFTMAX)
    assert code == 64 and "'of-tomorrow': no commit, branch or tag here" in err


def test_a_shallow_clone_says_so(original: Path, cache: Path, tmp_path: Path) -> None:
    git(tmp_path, "clone", "--quiet", "--depth", "1", original.as_uri(), "shallow")
    code, _, err = Checkout(tmp_path / "shallow", cache).compare("HEAD~1", *SOFTMAX)
    assert code == 64 and "git fetch --unshallow" in err


def test_a_changed_working_tree_is_compared_and_left_alone(checkout: Checkout) -> None:
    checkout.append("\nUNUSED = 1\n")
    (checkout.folder / "impls" / "softmax" / "untracked.py").write_text("")
    before = git(checkout.folder, "status", "--porcelain"), git(checkout.folder, "count-objects")
    document = checkout.judged("HEAD", *SOFTMAX)
    assert (git(checkout.folder, "status", "--porcelain"), git(checkout.folder, "count-objects")) == before
    assert document["head"] == {"name": "working tree", "commit": None, "tree": document["head"]["tree"]}
    assert document["head"]["tree"] != document["base"]["tree"] and document["counts"]["measured"] == 1


def test_two_comparisons_in_one_checkout(checkout: Checkout) -> None:
    checkout.append("\nUNUSED = 2\n")
    both = [checkout.start("compare", "HEAD", *SOFTMAX, "--budget", "1000") for _ in range(2)]
    for process in both:
        _, err = process.communicate(timeout=DEADLINE)
        assert process.returncode in (0, 1, 3), err
    runs = sorted((checkout.folder / "runs").iterdir())
    assert len(runs) == 2
    for run in runs:
        [row] = [json.loads(line) for line in (run / "records.jsonl").read_text().splitlines()]
        assert row["ratio"] and json.loads((run / "run.json").read_text())["comparison"]["counts"]["measured"] == 1


HANGS = "open(os.path.join(os.environ['FAKE_FOLDER'], 'reached.json'), 'w').close(); time.sleep(1000)"


def hanging(checkout: Checkout, always: bool) -> subprocess.Popen[str]:
    """A comparison whose head hangs, in its checks or while it is timed, once it does."""
    checkout.append(fault(HANGS, always))
    process = checkout.start("compare", "HEAD", *SOFTMAX, "--patience", "1000", "--budget", "1000")
    checkout.wait_for(lambda: (checkout.folder / "reached.json").exists() or process.poll() is not None)
    assert process.poll() is None
    return process


def usable(checkout: Checkout) -> None:
    """The caches serve the next comparison."""
    git(checkout.folder, "checkout", "--quiet", "impls")
    checkout.append("\nUNUSED = 3\n")
    assert checkout.judged("HEAD", *SOFTMAX)["counts"]["measured"] == 1


@pytest.mark.parametrize("always", [True, False], ids=["while checking", "while timing"])
def test_ctrl_c_leaves_no_worker(checkout: Checkout, always: bool) -> None:
    process = hanging(checkout, always)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to all of them
    _, err = process.communicate(timeout=DEADLINE)
    assert process.returncode == 130 and "Traceback" not in err and err.splitlines()[-1].startswith("ulproof: stopped")
    checkout.wait_for(lambda: not checkout.running())
    if not always:
        usable(checkout)


@pytest.mark.parametrize("always", [True, False], ids=["while checking", "while timing"])
def test_kill_9_leaves_no_worker(checkout: Checkout, always: bool) -> None:
    process = hanging(checkout, always)
    assert len(checkout.running()) > 1
    process.kill()
    process.communicate(timeout=DEADLINE)
    checkout.wait_for(lambda: not checkout.running())
    if not always:
        usable(checkout)


def test_kill_9_ends_a_build(checkout: Checkout) -> None:
    (checkout.folder / "backend.py").write_text(f"import os, time\ndef build_wheel(*arguments):\n    {HANGS}\n")
    pyproject = checkout.folder / "pyproject.toml"
    text = pyproject.read_text().split("[project]", 1)[1]
    pyproject.write_text('[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n[project]' + text)
    commit(checkout.folder, "slow")
    process = checkout.start("compare", "HEAD..HEAD~1", *SOFTMAX, FAKE_BUILD="real")
    checkout.wait_for(lambda: (checkout.folder / "reached.json").exists() or process.poll() is not None)
    assert process.poll() is None
    process.kill()
    process.communicate(timeout=DEADLINE)
    checkout.wait_for(lambda: not checkout.running())

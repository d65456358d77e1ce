"""Whole runs of an invented family whose implementations crash, hang, take all memory, talk and err, in real processes."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import ulproof.impls
from ulproof.benchmarks import compile, presets, run, supervise, worker
from ulproof.benchmarks.measure import caches, ceilings, environment
from ulproof.benchmarks.measure.ceilings import Ceilings
from ulproof.benchmarks.presets import Job, Machine, plan, spend
from ulproof.benchmarks.record import key, read, whole
from ulproof.benchmarks.supervise import Died, Setting, Worker
from ulproof.impls import registry

CARD = """
from ..registry import Argument, Implementation, Operator, Pass

X, Y = Argument("x", ("rows", "n")), Argument("y", ("rows", "n"))
NAMES = ("steady", "segfault", "hang", "greedy", "talker", "wrong", "raises", "exits", "picky")


def refuses(pass_, axes, dtype):
    return "only takes short rows" if axes["n"] > 100 else None


def one(name):
    limits = refuses if name == "picky" else None
    bound = {("forward", "float32"): 0.5}
    return Implementation("numpy", name, "code", dtypes=("float32",), bound=bound, limits=limits)


OPERATORS = (
    Operator(
        name="twice",
        summary="twice as much",
        formula="y = 2 x",
        source="invented",
        passes={"forward": Pass((X,), (Y,), "twice", {"float32": 4.0}, lambda a: a["rows"] * a["n"], lambda a: 0)},
        nan_policy="kept",
        valid_range="all",
        dtypes=("float32",),
        variants=(*map(one, NAMES), Implementation("cuda", "gone", "code", dtypes=("float32",), targets=("cuda",))),
        priority=tuple(({"rows": 2, "n": n}, "float32", "forward") for n in (1000, 64)),
        stress=("normal", "equal"),
    ),
)
"""

CODE = """
import os, time

import numpy as np


def unavailable(implementation, target):
    return None


def bind(implementation, pass_, inputs, outputs, *, target, isa, threads, params):
    (x,), (y,) = inputs, outputs
    timed = x.shape[0] == 2  # checks use other shapes

    def steady():
        np.multiply(x, 2, out=y)

    def segfault():
        os.kill(os.getpid(), 11) if timed else steady()

    def hang():
        time.sleep(1000) if timed else steady()

    def greedy():
        held = [np.ones(1 << 22) for _ in range(100 if timed else 0)]  # 3 GB
        time.sleep(1000 if timed else 0)
        steady()

    def talker():
        os.write(1, b'{"done": true}\\n')
        os.write(2, b"noise\\n")
        steady()

    def wrong():
        np.multiply(x, 3, out=y)

    def raises():
        if timed:
            raise ZeroDivisionError("on purpose")
        steady()

    def exits():
        os.write(2, b"assertion failed in line 7\\n")
        os._exit(3) if timed else steady()

    return {**locals(), "picky": steady}[implementation.variant]
"""

REFERENCE = """
def twice(x):
    return (2 * x,)
"""

START = "import ulproof.impls as i; i.__path__.append({path!r}); from ulproof.benchmarks.worker import main; main()"


@pytest.fixture
def family(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The family ``trouble``, known to this process and to its workers."""
    folder = tmp_path / "families" / "trouble"
    folder.mkdir(parents=True)
    for name, text in (("__init__", CARD), ("code", CODE), ("reference", REFERENCE)):
        (folder / f"{name}.py").write_text(text)
    monkeypatch.setattr(ulproof.impls, "__path__", [*ulproof.impls.__path__, str(folder.parent)])
    monkeypatch.setattr(registry, "_OPERATORS", {})
    monkeypatch.setattr(registry, "_LOADED", {})
    start = START.format(path=str(folder.parent))
    monkeypatch.setattr(supervise, "COMMAND", (sys.executable, "-P", "-c", start))
    monkeypatch.setattr(run.Runner, "measure_ceilings", lambda self, targets, threads: None)
    yield folder.parent
    for name in [name for name in sys.modules if name.startswith("ulproof.impls.trouble")]:
        del sys.modules[name]


def options(*variants: str, **fields: Any) -> run.Options:
    fields = {"patience": 4.0, "budget": 8.0, **fields}
    return run.Options(("twice",), tuple(f"twice:numpy/{each}" for each in variants), filters={"threads": ("1",)}, **fields)


def rows_of(folder: Path, kind: str = "time") -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {}
    for each in read(folder)[1]:
        if each["kind"] == kind:
            found.setdefault(each["variant"], []).append(each)
    return found


def test_whatever_breaks_costs_its_own_rows_and_nothing_else(
    family: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        presets, "workloads", lambda operator, preset, filters: [({"rows": 2, "n": 1000}, "float32", "forward")]
    )
    limit = (200 << 20) + 4 * caches.last()
    monkeypatch.setattr(supervise, "SHARE", limit / environment.memory()["available"])
    folder = run.new(tmp_path / "run", options())
    counts = run.Runner(folder, options()).run()
    rows = rows_of(tmp_path / "run")
    said = {variant: {(each["status"], each["reason"]) for each in found} for variant, found in rows.items()}

    for variant in ("steady", "talker"):
        assert said[variant] == {("ok", None)}
        assert all(each["seconds"]["samples"] >= 8 and each["noise"] is not None for each in rows[variant])
        assert all(each["seconds"]["low"] <= each["seconds"]["median"] <= each["seconds"]["high"] for each in rows[variant])
    assert {status for status, _ in said["segfault"]} == {"crashed"}
    assert all("SIGSEGV" in reason for _, reason in said["segfault"])
    assert said["exits"] == {("crashed", "the process ended with exit code 3: assertion failed in line 7")}
    assert said["raises"] == {("crashed", "ZeroDivisionError: on purpose")}
    assert said["hang"] == {("timeout", "no result within 4 s"), ("not measured", "crashed or hung before in this run")}
    assert all(status == "crashed" and reason.startswith("out of memory: ") for status, reason in said["greedy"])
    assert {status for status, _ in said["wrong"]} == {"wrong"}
    assert {"equal", "normal"} & {reason.partition(":")[0] for _, reason in said["wrong"]}
    assert said["picky"] == {("unavailable", "only takes short rows")}
    assert {status for status, _ in said["gone"]} == {"unavailable"} or run.gpus()
    assert {len(found) for variant, found in rows.items() if variant != "gone"} == {2}  # hot and cold

    assert counts.measured == 4
    assert counts.exit_code() == 2  # one that we vouch for is wrong
    assert {each["implementation"] for each in counts.failing} == {"numpy/wrong"}
    assert read(tmp_path / "run")[0]["finished"]


def test_a_run_where_nothing_can_be_measured_says_so(family: Path, tmp_path: Path) -> None:
    folder = run.new(tmp_path / "run", options("raises"))
    counts = run.Runner(folder, options("raises")).run()
    assert counts.exit_code() == 4


def test_too_little_memory_is_a_row(family: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    huge = [({"rows": 2, "n": 1 << 40}, "float32", "forward"), ({"rows": 2, "n": 64}, "float32", "forward")]
    monkeypatch.setattr(presets, "workloads", lambda operator, preset, filters: huge)
    folder = run.new(tmp_path / "run", options("steady"))
    run.Runner(folder, options("steady")).run()
    [lacking] = [each for each in rows_of(tmp_path / "run")["steady"] if each["status"] != "ok"]
    assert lacking["status"] == "not measured"
    assert lacking["reason"].startswith("too little memory: needs ")
    assert len(rows_of(tmp_path / "run")["steady"]) == 3


def test_kill_9_and_resume_lose_nothing(family: Path, tmp_path: Path) -> None:
    path = tmp_path / "run"
    begin = f"""
import sys, ulproof.impls
ulproof.impls.__path__.append({str(family)!r})
from ulproof.benchmarks import run, supervise
supervise.COMMAND = {supervise.COMMAND!r}
run.Runner.measure_ceilings = lambda self, targets, threads: None
options = run.Options(("twice",), ("twice:numpy/steady", "twice:numpy/talker"), filters={{"threads": ("1",)}}, budget=8.0)
run.Runner(run.new({str(path)!r}, options), options).run()
"""
    with subprocess.Popen([sys.executable, "-c", begin]) as process:
        for _ in range(3000):
            if (path / "records.jsonl").exists() and b'"time"' in (path / "records.jsonl").read_bytes():
                break
            time.sleep(0.01)
        workers = children(process.pid)
        os.kill(process.pid, signal.SIGKILL)
    assert workers
    for _ in range(500):
        if not any(alive(each) for each in workers):
            break
        time.sleep(0.01)
    assert not any(alive(each) for each in workers), "a worker outlived its parent"

    before = read(path)
    kept = [key(each) for each in before[1]]
    assert before[0].get("finished") is None
    assert any(each["kind"] == "time" for each in before[1])
    counts = run.Runner(*run.resumed(path)).run()
    header, after = read(path)
    keys = [key(each) for each in after]
    assert keys[: len(kept)] == kept
    assert len(keys) == len(set(keys))
    times = [each for each in after if each["kind"] == "time" and each["backend"] == "numpy"]
    assert len(times) == counts.measured == 8  # two implementations, two workloads, hot and cold
    assert header["finished"]
    assert header["plan"]["used_seconds"] > before[0]["plan"].get("used_seconds", 0.0)
    assert {each["group"] for each in times} == set(header["watch"])
    assert counts.exit_code() == 0


def test_a_resumed_run_has_what_is_left_of_its_budget(family: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[float] = []

    def spend(planned: Any, budget: float | None, *_: Any) -> float:
        given.append(budget or 0.0)
        return 0.0

    monkeypatch.setattr(presets, "spend", spend)
    monkeypatch.setattr(run.Runner, "check", lambda self, items: None)
    folder = run.new(tmp_path / "run", options("steady", budget=8.0))
    folder.update(plan={**folder.run["plan"], "used_seconds": 5.5})
    folder.close()
    run.Runner(*run.resumed(tmp_path / "run")).run()
    run.Runner(run.new(tmp_path / "another", options("steady")), options("steady")).run()
    assert given == [2.5, 8.0]


def test_a_finished_run_that_is_resumed_measures_what_it_left_out(
    family: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run.Runner, "measure_ceilings", lambda self, targets, threads: None)
    chosen, measure = options("steady", budget=4.0), run.Runner.measure
    with monkeypatch.context() as nothing_left:
        nothing_left.setattr(run.Runner, "measure", lambda self, job, seconds, limit: self.skip(job) or 4.0)
        run.Runner(run.new(tmp_path / "run", chosen), chosen).run()

    def free(runner: run.Runner, job: Any, seconds: float, limit: float) -> float:
        measure(runner, job, 0.2, math.inf)
        return 0.0

    monkeypatch.setattr(run.Runner, "measure", free)
    put_off = [each for each in read(tmp_path / "run")[1] if each["kind"] == "time"]
    assert put_off and all(each["reason"] == "budget" for each in put_off)
    assert run.Runner(*run.resumed(tmp_path / "run")).run().measured == len(put_off)
    rows = [each for each in whole(read(tmp_path / "run")[1]) if each["kind"] == "time"]
    assert [key(each) for each in rows] == [key(each) for each in put_off]
    assert all(each["status"] == "ok" for each in rows)
    before = read(tmp_path / "run")[1]
    run.Runner(*run.resumed(tmp_path / "run")).run()
    assert read(tmp_path / "run")[1] == before, "nothing is measured twice"


def test_getting_ready_counts_as_measuring(family: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By an invented clock that only goes on while a side is bound: the seconds used, and the limit left for sampling."""
    now, limits = [100.0], []
    monkeypatch.setattr(worker, "time", SimpleNamespace(perf_counter=lambda: now[0]))
    bind = worker.Timing.bind

    def turns(sides: dict[str, Any], effort: Any, **_: Any) -> dict[str, Any]:
        limits.append(effort.limit)
        return dict.fromkeys(sides, {"median": 1.0})

    monkeypatch.setattr(worker, "take_turns", turns)

    def slow(timing: worker.Timing, *arguments: Any) -> Any:
        now[0] += 2.0
        return bind(timing, *arguments)

    monkeypatch.setattr(worker.Timing, "bind", slow)
    job: dict[str, Any] = {
        "operator": "twice",
        "pass": "forward",
        "dtype": "float32",
        "axes": {"rows": 2, "n": 64},
        "target": "cpu",
    }
    job |= {"threads": 1, "cache": "hot", "twin": "numpy/steady", "seed": 0, "precision": 0.01, "as_called": False}
    job |= {"sides": {"numpy/steady": None, "numpy/talker": None}, "seconds": 1.0, "limit": 20.0}
    with tempfile.TemporaryFile() as shared:
        shared.truncate(worker.PULSE)
        *_, last = worker.timing(job, worker.Pulse(shared.fileno()))
    assert last["used"] == 6.0  # two sides and the twin
    assert limits == [14.0]


@pytest.mark.parametrize(
    ("limit", "measured"),
    [
        (1000.0, {"numpy/steady", "numpy/raises", "numpy/talker"}),
        (200.0, {"numpy/steady", "numpy/talker"}),
        (30.0, {"numpy/talker"}),
    ],
)
def test_sides_that_are_too_slow_do_not_cost_the_others_their_rows(
    family: Path, monkeypatch: pytest.MonkeyPatch, limit: float, measured: set[str]
) -> None:
    """A first call takes 1, 4 and 0.5 s by an invented clock. Of hot sides the fewest rounds are 18 calls, the twin's too."""
    now = [0.0]
    costs = {"numpy/steady": 1.0, "numpy/raises": 4.0, "numpy/talker": 0.5}
    monkeypatch.setattr(worker, "time", SimpleNamespace(perf_counter=lambda: now[0]))
    monkeypatch.setattr(worker, "take_turns", lambda sides, effort, **_: dict.fromkeys(sides, {"median": 1.0}))

    def bind(timing: worker.Timing, name: str, *arrays: Any) -> Any:
        return lambda: now.__setitem__(0, now[0] + costs[name])

    monkeypatch.setattr(worker.Timing, "bind", bind)
    job: dict[str, Any] = {"operator": "twice", "pass": "forward", "dtype": "float32", "axes": {"rows": 2, "n": 64}}
    job |= {"target": "cpu", "threads": 1, "cache": "hot", "twin": "numpy/steady", "seed": 0, "precision": 0.01}
    job |= {"as_called": False, "sides": dict.fromkeys(costs), "seconds": 1.0, "limit": limit}
    with tempfile.TemporaryFile() as shared:
        shared.truncate(worker.PULSE)
        *answers, _ = worker.timing(job, worker.Pulse(shared.fileno()))
    assert {each["side"] for each in answers if "seconds" in each} == measured
    assert {each.get("reason") for each in answers} - {None} <= {"budget: too slow for its share"}
    assert {each["side"] for each in answers} == set(costs)


@pytest.mark.parametrize(
    ("limit", "kept"),
    [
        (1000.0, {"simd/auto", "peer/torch-eager", "simd/two-pass"}),
        (780.0, {"simd/auto", "peer/torch-eager"}),
        (100.0, {"simd/auto"}),
    ],
)
def test_what_everything_is_compared_with_is_left_out_last(limit: float, kept: set[str]) -> None:
    timing = worker.Timing.__new__(worker.Timing)
    known: dict[str, Any] = {"gpu": False, "beyond": True, "failures": {}, "job": {"limit": limit, "twin": "simd/auto"}}
    timing.__dict__.update(known, begin=time.perf_counter())
    timing.costs = {"simd/auto": 1.0, "peer/torch-eager": 40.0, "numpy/direct": 30.0, "simd/two-pass": 2.0}
    assert set(timing.affordable(dict.fromkeys(timing.costs, lambda: None))) == kept
    assert set(timing.failures) == set(timing.costs) - kept


def test_the_last_workers_are_kept() -> None:
    runner = run.Runner(run.Unsaved(), run.Options())
    settings = [Setting((0,), threads) for threads in range(1, run.KEPT + 2)]
    first, *others = [runner.worker(setting) for setting in settings[: run.KEPT]]
    assert runner.worker(settings[0]) is first
    runner.worker(settings[run.KEPT])
    assert runner.worker(settings[0]) is first, "used last but one"
    assert runner.worker(settings[1]) is not others[0], "its place was needed"
    assert len(runner.workers) == run.KEPT


def test_kernels_that_were_compiled_are_in_every_run(family: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ULPROOF_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(presets, "workloads", lambda operator, preset, filters: [])
    job = compile.Job("twice", "cuda/gone", "forward", "float32", "sm_90")
    needs = {"registers": 40, "shared_bytes": 0, "spills": 0, "compile_seconds": 0.5}
    row = compile.record(job, [{**needs, "registers": 24}, needs])

    def run_into(name: str, **filters: Any) -> list[dict[str, Any]]:
        options_ = run.Options(("twice",), filters=filters)
        run.Runner(run.new(tmp_path / name, options_), options_).run()
        return [each for each in read(tmp_path / name)[1] if each["kind"] == "compile"]

    assert run_into("before") == []
    compile.keep([row])
    compile.keep([{**row, "target": "sm_80"}])
    found = run_into("after")
    assert [(each["target"], each["registers"], each["compile_seconds"]) for each in found] == [
        ("sm_90", 40, 1.0),
        ("sm_80", 40, 1.0),
    ]
    run.Runner(*run.resumed(tmp_path / "after")).run()
    assert len(read(tmp_path / "after")[1]) == len({key(each) for each in read(tmp_path / "after")[1]})
    assert (
        run_into("cpu", target=("cpu",))
        == run_into("numpy", backend=("numpy",))
        == run_into("other", dtype=("bfloat16",))
        == []
    )
    (family / "trouble" / "kernel.cu").write_text("// changed")
    assert compile.kept("twice") == [], "other sources, other kernels"


def children(pid: int) -> list[int]:
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(each) for each in found]


def alive(pid: int) -> bool:
    try:
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_a_worker_is_pinned_and_starts_again_after_a_death(family: Path) -> None:
    core = sorted(os.sched_getaffinity(0))[-1:]
    mine = os.sched_getaffinity(0)
    worker = Worker(Setting(tuple(core)))
    job = {"do": "time", "operator": "nothing", "sides": {}, "target": "cpu"}
    try:
        [answer] = list(worker.ask({**job, "pass": "forward"}, 30))
        assert "KeyError" in answer["error"]
        assert worker.process
        first = worker.process.pid
        assert os.sched_getaffinity(first) == set(core)
        assert os.sched_getaffinity(0) == mine
        os.kill(first, signal.SIGKILL)
        with pytest.raises(Died) as death:
            for _ in range(2):
                list(worker.ask({**job, "pass": "forward"}, 30))
        assert "SIGKILL, most likely for lack of memory" in death.value.reason
        assert list(worker.ask({**job, "pass": "forward"}, 30))
        assert worker.process.pid != first
    finally:
        worker.close()
    assert worker.process is None


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        (Setting((0,), 3), {"OMP_NUM_THREADS": "3", "MKL_NUM_THREADS": "3"}),
        (Setting((0,), 1, "avx2", torch=True), {"ATEN_CPU_CAPABILITY": "avx2"}),
        (Setting((0,), interpreter=True), {"TRITON_INTERPRET": "1"}),
    ],
)
def test_a_setting_becomes_an_environment(setting: Setting, expected: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATEN_CPU_CAPABILITY", "default")
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    found = setting.environment()
    assert expected.items() <= found.items()
    assert setting.interpreter == ("TRITON_INTERPRET" in found)
    assert setting.torch == ("ATEN_CPU_CAPABILITY" in found)


# The budget, with invented operators and an invented clock.


def invented(count: int, each: int = 30) -> dict[str, list[Job]]:
    axes = (("rows", 1), ("n", 8))
    return {
        f"op{number}": [
            Job(f"op{number}", "forward", "float32", (*axes, ("place", place)), "cpu", None, 1, "hot", (("simd/auto", None),))
            for place in range(each)
        ]
        for number in range(count)
    }


@pytest.mark.parametrize("count", [1, 3, 60])
@pytest.mark.parametrize("cost", [0.01, 0.4, 5.0])
def test_the_budget_holds_however_many_operators_there_are(count: int, cost: float) -> None:
    planned, budget = invented(count), 90.0
    measured: list[Job] = []
    skipped: list[Job] = []

    def measure(job: Job, seconds: float, limit: float) -> float:
        if cost > limit:
            skipped.append(job)
            return 0.0
        measured.append(job)
        return max(cost, min(seconds, 2 * cost))

    used = spend(planned, budget, measure, skipped.append)
    assert used <= budget + 1e-6
    assert sorted(measured + skipped, key=repr) == sorted((job for jobs in planned.values() for job in jobs), key=repr)
    fair = budget / count
    for name, jobs in planned.items():
        done = [job for job in measured if job.operator == name]
        assert done == jobs[: len(done)], "the list is measured from its beginning"
        assert bool(done) == (cost <= fair) or count == 60
    if cost <= fair:
        assert {job.operator for job in measured} == set(planned)


def test_what_one_operator_leaves_goes_to_those_after_it() -> None:
    planned = {"short": invented(1, 1)["op0"], "long": invented(1, 100)["op0"]}
    given: list[float] = []

    def measure(job: Job, seconds: float, limit: float) -> float:
        given.append(limit)
        return 1.0

    assert spend(planned, 11.0, measure, lambda job: None) == pytest.approx(11.0)
    assert given[:2] == [5.5, 10.0]


def test_without_a_budget_everything_is_measured() -> None:
    seen: list[float] = []

    def measure(job: Job, seconds: float, limit: float) -> float:
        seen.append(seconds)
        return 100.0

    assert spend(invented(2, 5), None, measure, lambda job: pytest.fail("skipped"), most=3.0) == 1000
    assert seen == [3.0] * 10


# Plans.

HERE = Machine(("cpu",), ("avx512", "avx2"), 4)


def test_the_quick_plan_follows_the_card_hot_before_cold() -> None:
    jobs = plan(["softmax"], (), "quick", {}, HERE)["softmax"]
    first = next(iter(registry.operators()["softmax"].priority))
    assert (dict(jobs[0].axes), jobs[0].dtype, jobs[0].pass_) == (dict(first[0]), first[1], first[2])
    states = [job.cache for job in jobs if not job.reason]
    assert states == sorted(states, reverse=True)
    assert {job.threads for job in jobs} == {1, 4}
    assert len({(job.axes, job.dtype, job.pass_) for job in jobs if job.threads == 4}) == 2
    assert {job.isa for job in jobs} == {"avx512"}
    names = {name for job in jobs for name, _ in job.sides}
    assert "peer/torch-compile" not in names
    assert "reference/float64" not in names
    assert {"simd/auto", "peer/torch-eager", "numpy/three-pass"} <= names


def test_beyond_the_last_level_cold_and_hot_are_one_row() -> None:
    jobs = plan(["softmax"], (), "standard", {}, HERE)["softmax"]
    for job in jobs:
        nbytes = registry.operators()["softmax"].passes[job.pass_].nbytes(dict(job.axes), job.dtype)
        assert bool(job.reason) == caches.beyond(nbytes)
        assert job.cache == "cold" or not job.reason


@pytest.mark.parametrize("preset", presets.PRESETS)
def test_every_job_is_planned_once(preset: str) -> None:
    for jobs in plan([], (), preset, {}, HERE).values():
        assert len(set(jobs)) == len(jobs) > 0


def test_the_larger_presets_hold_the_smaller() -> None:
    quick, standard, full = (
        {(job.axes, job.dtype, job.pass_) for job in plan(["logsumexp"], (), preset, {}, HERE)["logsumexp"]}
        for preset in presets.PRESETS
    )
    assert quick < standard < full


def test_filters_narrow_a_plan() -> None:
    wanted = {"backend": ("simd",), "isa": ("avx2",), "threads": ("2",), "dtype": ("float32",), "pass": ("forward",)}
    jobs = plan(["softmax"], (), "quick", wanted, HERE)["softmax"]
    assert jobs
    sides = {side for job in jobs for side in job.sides}
    assert ("simd/auto", "avx2") in sides
    assert {(name.partition("/")[0], isa) for name, isa in sides} == {("simd", "avx2")}
    assert {(job.threads, job.isa, job.dtype, job.pass_) for job in jobs} == {(2, "avx2", "float32", "forward")}


def test_filters_that_leave_nothing_of_the_list_borrow_its_shapes() -> None:
    jobs = plan(["softmax"], (), "quick", {"dtype": ("float16",), "pass": ("backward",)}, HERE)["softmax"]
    assert {(job.dtype, job.pass_) for job in jobs} == {("float16", "backward")}
    assert len({job.axes for job in jobs}) > 5


def test_gpus_are_measured_cold_hot_and_as_graphs() -> None:
    jobs = plan(["softmax"], (), "quick", {"target": ("cuda:0",)}, Machine(("cuda:0",), ("avx512",), 4))["softmax"]
    assert {job.cache for job in jobs} == {"cold", "hot", "graph"}
    assert {name.partition("/")[0] for job in jobs for name, _ in job.sides} == {"triton", "cuda", "peer"}


# Roofs.


def ceiling(name: str, rate: float, level: str | None = None, threads: int = 1, **fields: Any) -> dict[str, Any]:
    row = {"kind": "ceiling", "status": "ok", "target": "cpu", "isa": "avx512", "dtype": "float32", "reason": None}
    return {**row, "ceiling": name, "level": level, "rate": rate, "threads": threads, **fields}


MEASURED = [
    *(ceiling(name, rate * speed, level) for level, speed in (("L1", 8.0), ("L2", 4.0), ("L3", 2.0), ("DRAM", 1.0))
      for name, rate in (("read", 12e9), ("copy", 8e9), ("stream-copy", 10e9))),
    ceiling("exp", 1e9),
    ceiling("exp", 5e8, isa="avx2"),
    ceiling("fma", 1e11),
]  # fmt: skip
CACHES = {"L1": 32 << 10, "L2": 1 << 20, "L3": 32 << 20}


@pytest.fixture
def known_caches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(caches, "sizes", lambda: CACHES)


def roof(n: int, cache: str, operator: str = "softmax", pass_: str = "forward", isa: str = "avx512") -> dict[str, Any]:
    card = registry.operators()[operator].passes[pass_]
    found = Ceilings(MEASURED).roof(card, {"rows": 1, "n": n}, "float32", "cpu", isa, 1, cache)
    assert found
    return found


def test_the_roof_is_what_binds_most(known_caches: None) -> None:
    assert roof(1000, "hot") == {"seconds": pytest.approx(1e-6), "binds": "exps", "level": "L1"}
    assert roof(1000, "hot", isa="avx2")["seconds"] == pytest.approx(2e-6)
    assert roof(1 << 16, "cold")["level"] == "DRAM"
    assert roof(1 << 16, "cold", pass_="backward")["binds"] == "bytes"
    assert roof(1 << 16, "cold", pass_="backward")["seconds"] == pytest.approx(2 * 4 * 65536 / 10e9 + 4 * 65536 / 12e9)
    assert roof(1 << 20, "cold", "logsumexp")["binds"] == "exps"


def test_what_the_smaller_cache_can_keep_counts_at_its_rate(known_caches: None) -> None:
    n = 1 << 24
    nbytes = 2 * 4 * n
    share = CACHES["L3"] / nbytes
    found = roof(n, "cold", isa="avx512")
    expected = share * nbytes / 20e9 + (1 - share) * nbytes / 10e9
    assert found["seconds"] == pytest.approx(max(expected, n / 1e9))


def test_without_ceilings_there_is_no_roof() -> None:
    card = registry.operators()["softmax"].passes["forward"]
    assert Ceilings(()).roof(card, {"rows": 1, "n": 8}, "float32", "cpu", None, 1, "hot") is None


@pytest.mark.parametrize(("reason", "status"), [(None, "suspect"), ("a substitute", "ok")])
def test_faster_than_the_roof_is_suspect(reason: str | None, status: str) -> None:
    runner = run.Runner(run.Unsaved(), run.Options())
    runner.ceilings = Ceilings([{**each, "reason": reason} for each in MEASURED])
    job = Job(
        "softmax", "forward", "float32", (("rows", 1), ("n", 1000)), "cpu", "avx512", 1, "hot", (("simd/auto", "avx512"),)
    )
    for seconds, expected in ((0.9e-6, status), (0.97e-6, "ok"), (2e-6, "ok")):
        measured = {"median": seconds, "low": seconds, "high": seconds, "samples": 9}
        row = runner._finished(job, {"side": "simd/auto", "seconds": measured}, 0.001)
        assert row["status"] == expected
    assert runner._finished(job, {"side": "simd/auto", "seconds": {**measured, "high": 0.9e-6}}, 0.2)["status"] == "ok"


def test_ceilings_are_measured_for_every_level_and_isa() -> None:
    runner = run.Runner(run.Unsaved(), run.Options(filters={"isa": tuple(run.environment.cpu()["isas"][:1])}))
    try:
        runner.measure_ceilings(["cpu"], [1])
        runner.measure_ceilings(["cpu"], [1])  # once is enough
    finally:
        runner.close()
    rows = runner.folder.records
    assert {row["status"] for row in rows} == {"ok"}
    assert len({key(row) for row in rows}) == len(rows)
    levels = {*caches.sizes(), "DRAM"}
    assert {(row["ceiling"], row["level"]) for row in rows} >= {(name, level) for name in ("read", "copy") for level in levels}
    assert {row["ceiling"] for row in rows} >= {"exp"}
    for row in rows:
        assert row["rate"] > 0
        assert row["unit"] in ("bytes/s", "flop/s", "exp/s")


def test_without_native_kernels_ceilings_come_from_numpy_and_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ceilings, "native", lambda: None)
    monkeypatch.setattr(caches, "sizes", lambda: {"L1": 16 << 10, "L2": 64 << 10})
    rows = list(ceilings.measure("cpu", seconds=0.01))
    assert {(row["ceiling"], row["level"]) for row in rows} == {
        *((name, level) for name in ("read", "copy") for level in ("L1", "L2", "DRAM")),
        ("exp", None),
    }
    assert {row["reason"] for row in rows} == {ceilings.FALLBACK}
    assert not Ceilings(rows).trusted("cpu")
    assert list(ceilings.measure("cpu", threads=2, seconds=0.01)) == []


def test_what_happened_during_a_run_joins_the_findings() -> None:
    quiet = {"others": 0.02, "steal": 0.0, "mhz": 3000.0}
    assert list(run.disturbances({"a": quiet, "b": quiet})) == []
    found = list(run.disturbances({"a": quiet, "b": {"others": 0.7, "steal": 0.1, "mhz": 2000.0}}))
    assert [each["severity"] for each in found] == ["warning"] * 3
    assert found[0]["what"] == "other programs took up to 0.70 cores while 1 of 2 groups were measured"
    assert "hypervisor took up to 0.10 cores" in found[1]["what"]
    assert "between 2000 and 3000 MHz" in found[2]["what"]


@pytest.mark.parametrize(("status", "implementation", "code"), [("crashed", "simd/auto", 2), ("timeout", "peer/scipy", 0)])
def test_a_crash_of_ours_in_a_check_decides_the_exit_code(status: str, implementation: str, code: int) -> None:
    runner = run.Runner(run.Unsaved(), run.Options())
    backend, _, variant = implementation.partition("/")
    row: dict[str, Any] = {
        "operator": "softmax",
        "implementation": implementation,
        "backend": backend,
        "variant": variant,
        "target": "cpu",
    }
    row |= {"dtype": "float32", "pass": "forward", "stress": "normal", "isa": None, "reason": "died"}
    runner.write({**row, "kind": "accuracy", "status": status})
    runner.write({**row, "kind": "time", "status": "ok"})
    assert runner.counts.exit_code() == code


def test_a_run_checks_what_it_times_and_interprets_what_no_gpu_can_run() -> None:
    options = run.Options(("softmax",))
    here = Machine(("cpu",), tuple(run.environment.cpu()["isas"]), 2)
    jobs = plan(options.operators, (), "quick", {}, here)["softmax"]
    items = run.check_items(options, [job for job in jobs if job.dtype == "float32"])
    assert {(item.dtype, item.pass_) for item in items} == {("float32", "forward"), ("float32", "backward")}
    assert "reference/float64" not in {item.implementation for item in items}
    assert {(item.dtype, item.pass_) for item in items if item.target == "interpreter"} <= {("float32", "forward")}
    asked_for = run.Options(("softmax",), ("softmax:numpy/three-pass",), filters={"target": ("cpu",)})
    assert {item.implementation for item in run.check_items(asked_for, jobs)} == {"numpy/three-pass"}

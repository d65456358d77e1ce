"""The study of ``ulproof compare``: its plants, its bookkeeping and its arithmetic, with invented gates and clocks."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest


@pytest.fixture(scope="module")
def study(root: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("study_compare", root / "tools" / "study_compare.py")
    assert spec and spec.loader
    module = sys.modules["study_compare"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def small(study: ModuleType, **fields: Any) -> dict[str, Any]:
    """One experiment of two workloads and three invocations."""
    workloads = study.several(("softmax",), ("1x1024", "1x4096"))
    given = {"head": "slower-5", "what": "", "target": "", "workloads": workloads, "least": 6, "runs": (3, 1), "seconds": 1}
    return {"slower-5": study.Experiment(**given | fields)}


@pytest.fixture
def place(study: ModuleType, tmp_path: Path) -> Any:
    return study.Place(tmp_path, tmp_path / "trials.jsonl")


def gates(study: ModuleType, calls: list[int], verdict: str = "slower") -> dict[str, Any]:
    def gate(place: Any, experiment: Any, seed: int) -> tuple[int, list[dict[str, Any]]]:
        calls.append(seed)
        return 1, [{"workload": str(each), "verdict": verdict} for each in experiment.workloads]

    return {"ulproof": gate}


@pytest.mark.parametrize("name", ["identical", "slower-5", "slower-5-two", "inaccurate"])
def test_plants_fit_the_commit_they_are_for(study: ModuleType, root: Path, tmp_path: Path, name: str) -> None:
    """An edit whose place is gone must fail here, not after an hour of trials."""
    edits = study.PLANTS[name]
    before = {}
    for path in {edit.path for edit in edits}:
        try:
            before[path] = study.git(root, "show", f"{study.BASE}:{path}") + "\n"
        except RuntimeError:
            pytest.skip(f"this clone has no commit {study.BASE[:7]}")
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(before[path])
    for edit in edits:
        edit.apply(tmp_path)
    assert all((tmp_path / path).read_text() != text for path, text in before.items())


def test_a_plant_without_its_place_is_refused(study: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "kernel.cpp").write_text("sum(); sum();\n")
    with pytest.raises(ValueError, match=r"kernel\.cpp has 2 times 'sum\(\);'; the plant needs 1"):
        study.Edit("kernel.cpp", "sum();", "again();").apply(tmp_path)
    assert (tmp_path / "kernel.cpp").read_text() == "sum(); sum();\n"


def test_the_same_plants_give_the_same_commits(study: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    origin = tmp_path / "origin"
    origin.mkdir()
    (origin / "kernel.cpp").write_text("sum();\n")
    for command in (("init", "-q"), ("add", "."), ("commit", "-qm", "all")):
        study.git(origin, *command)
    monkeypatch.setattr(study, "ROOT", origin)
    plants = {"twice": (study.Edit("kernel.cpp", "sum();", "again();\n"),)}
    commit = study.git(origin, "rev-parse", "HEAD")
    hashes = []
    for clone in (tmp_path / "one", tmp_path / "two", tmp_path / "two"):
        study.plant(clone, commit, plants)
        hashes.append(study.git(clone, "rev-parse", "twice"))
        assert study.git(clone, "show", "twice:kernel.cpp") == "again();\nsum();"
        assert study.git(clone, "rev-parse", "plain") == study.git(clone, "rev-parse", "HEAD") == commit
    assert len(set(hashes)) == 1 and hashes[0] != commit


def test_a_study_goes_on_where_it_was_stopped(study: ModuleType, place: Any) -> None:
    calls: list[int] = []
    experiments = small(study)
    trials = study.planned(experiments, ("ulproof",), quick=False, beside=1)
    assert len(trials) == 3
    study.carry_out(trials[:1], experiments, place, "abc", gates(study, calls))
    whole = place.trials.read_text()
    place.trials.write_text(whole + '{"experiment": "slower-5", "arm"')  # killed while it wrote
    study.carry_out(trials, experiments, place, "abc", gates(study, calls))
    lines = study.read(place.trials)
    assert sorted(calls) == [1, 2, 3]
    assert [line["number"] for line in lines] == [trial.number for trial in trials]
    assert place.trials.read_text().startswith(whole)
    study.carry_out(trials, experiments, place, "abc", gates(study, calls))
    assert len(calls) == 3
    study.carry_out(trials, experiments, place, "def", gates(study, calls))
    assert len(calls) == 6, "another commit is another study"


def test_no_trial_begins_after_the_deadline(study: ModuleType, place: Any, capsys: pytest.CaptureFixture[str]) -> None:
    calls: list[int] = []
    experiments = small(study)
    now = iter(range(100))
    trials = study.planned(experiments, ("ulproof",), quick=False, beside=1)
    study.carry_out(trials, experiments, place, "abc", gates(study, calls), deadline=1, clock=lambda: float(next(now)))
    assert len(calls) == 1
    assert "2 trials are left" in capsys.readouterr().out


def test_a_gate_that_fails_is_recorded_and_gives_no_verdict(study: ModuleType, place: Any) -> None:
    def broken(place: Any, experiment: Any, seed: int) -> Any:
        raise RuntimeError("exit code 4: does not build")

    experiments = small(study)
    study.carry_out([study.Trial("slower-5", "ulproof", 0)], experiments, place, "abc", {"ulproof": broken})
    (line,) = study.read(place.trials)
    assert line["error"] == "exit code 4: does not build" and line["rows"] == []
    assert study.verdicts([line], "slower-5", "ulproof", "") == []
    assert "1 more failed" in study.conditions([line, {**line, "error": None}, {"plant": "slower-5", "error": 0.001}])
    calls: list[int] = []
    study.carry_out([study.Trial("slower-5", "ulproof", 0)], experiments, place, "abc", gates(study, calls))
    assert calls == [1], "what failed is tried again"


def test_the_order_is_mixed_and_always_the_same(study: ModuleType) -> None:
    trials = study.planned(study.EXPERIMENTS, study.ARMS, quick=False, beside=3)
    assert trials == study.planned(study.EXPERIMENTS, study.ARMS, quick=False, beside=3)
    assert len({trial.key for trial in trials}) == len(trials)
    assert [trial.arm for trial in trials] != sorted(trial.arm for trial in trials)
    assert max(trial.number for trial in trials if trial.arm == "asv") == 2


def test_no_gate_is_asked_for_what_it_does_not_drive(study: ModuleType) -> None:
    for arms in (study.ARMS, ("asv", "pytest-benchmark")):
        trials = study.planned(study.EXPERIMENTS, arms, quick=False, beside=2)
        beside = {trial.experiment for trial in trials if trial.arm != "ulproof"}
        assert beside == {name for name, experiment in study.EXPERIMENTS.items() if experiment.driven}


def test_the_full_study_has_as_many_verdicts_as_it_promises(study: ModuleType) -> None:
    for name, experiment in study.EXPERIMENTS.items():
        verdicts = sum(len(experiment.part(number).workloads) for number in range(experiment.runs[0]))
        assert verdicts >= experiment.least, name
        assert experiment.driven or all(each.threads > 1 for each in experiment.workloads), name
    identical = study.EXPERIMENTS["identical"]
    parts = [identical.part(number).workloads for number in range(3)]
    assert sorted(map(str, sum(parts, ()))) == sorted(map(str, identical.workloads)), "the parts make the whole"
    for each in parts:
        shapes, threads = {one.shape for one in each}, {one.threads for one in each}
        assert len(each) == len(study.OPERATORS) * len(shapes) * len(threads), "filters can ask for this part alone"
    sizes = [each.nbytes for each in study.EXPERIMENTS["identical"].workloads]
    assert (min(sizes), max(sizes)) == (4 << 10, 64 << 20)
    assert {each.threads for each in study.EXPERIMENTS["identical"].workloads} == {1, 2}
    assert max(each.nbytes for each in study.EXPERIMENTS["slower-1"].workloads) == 1 << 20


def test_every_workload_is_one_that_a_comparison_measures(study: ModuleType) -> None:
    from ulproof.benchmarks import presets
    from ulproof.impls import operators

    for each in study.EXPERIMENTS["identical"].workloads:
        filters = {"shape": (each.shape,), "dtype": ("float32",), "pass": ("forward",)}
        listed = presets.workloads(operators()[each.operator], "quick", filters)
        assert [presets.shape(axes) for axes, _, _ in listed] == [each.shape]


@pytest.mark.parametrize(
    ("found", "trials", "low", "high"), [(0, 10, 0.0, 0.2775), (10, 10, 0.7225, 1.0), (298, 300, 0.9760, 0.9982)]
)
def test_wilson(study: ModuleType, found: int, trials: int, low: float, high: float) -> None:
    """Against the closed form's roots: |p - found/n| = z sqrt(p (1 - p) / n)."""
    z, interval = 1.959963984540054, study.wilson(found, trials)
    assert interval == pytest.approx((low, high), abs=1e-4)
    for p in interval:
        assert abs(p - found / trials) == pytest.approx(z * (p * (1 - p) / trials) ** 0.5, abs=1e-7)


def test_verdicts_are_counted_as_the_targets_say(study: ModuleType) -> None:
    def line(experiment: str, *said: str) -> dict[str, Any]:
        rows = [{"workload": "softmax 1x1024 t1", "verdict": each} for each in said]
        return {"experiment": experiment, "arm": "ulproof", "rows": rows, "load": 1.0}

    lines = [line("identical", "same", "not measured", "faster"), line("slower-5", "slower", "inconclusive", "same", "faster")]
    table = {
        row.split(" | ")[1]: row for row in study.trusted(lines).splitlines() if "`ulproof" in row and "not run" not in row
    }
    rows = [row.split(" | ") for row in study.trusted(lines).splitlines() if "`ulproof" in row and "not run" not in row]
    assert table
    identical, slower = rows
    assert (identical[2].split(",")[0], identical[3:5]) == ("2 of 3", ["1", "1"])
    assert (slower[2].split(",")[0], slower[3:5]) == ("1 of 4", ["2", "1"])
    assert "1 of 3" in study.same(lines)
    assert "| 1/3 | 1/4 |" in study.by_workload(lines)


def test_trials_of_a_busy_machine_stand_apart(study: ModuleType) -> None:
    lines = [{"arm": "asv", "load": 1.5, "number": 1}, {"arm": "asv", "load": 9.0, "number": 2}, {"plant": "slower-5"}]
    assert [line.get("number") for line in study.calm(lines)] == [1, None]
    assert [line.get("number") for line in study.calm(lines, False)] == [2, None]


def test_asvs_table_is_read(study: ModuleType) -> None:
    text = (
        "| Change   | Before [0] <plain>    | After [1] <slower-5>    |   Ratio | Benchmark (Parameter)    |\n"
        "|----------|-----------------------|-------------------------|---------|--------------------------|\n"
        "| +        | 1.00±0ms              | 1.10±0ms                |    1.1  | "
        "bench_operators.SoftmaxCpu.time_forward('softmax:simd/auto', 'cpu', 'float32', '1x1024') |\n"
        "|          | 1.00±0ms              | 1.02±0ms                |    1.02 | "
        "bench_operators.LogSoftmaxCpu.time_forward('log_softmax:simd/auto', 'cpu', 'float32', '4096x1024') |\n"
        "|          | n/a                   | n/a                     | n/a     | "
        "bench_operators.SoftmaxCpu.time_forward('softmax:simd/auto', 'cpu', 'float32', '1x65536') |\n"
        "| -        | 9.00±0ms              | 1.00±0ms                | 0.11    | "
        "bench_operators.SoftmaxCpu.time_forward('softmax:simd/two-pass', 'cpu', 'float32', '1x1024') |\n"
    )
    assert [(row["workload"], row["verdict"]) for row in study.asv_rows(text)] == [
        ("softmax 1x1024 t1", "slower"),
        ("log_softmax 4096x1024 t1", "same"),
    ]


def test_asv_is_asked_for_what_the_study_compares_alone(study: ModuleType) -> None:
    pattern = study.asv_bench(study.several(("softmax",), ("1x1024",)))
    row = "{}.time_forward('softmax:simd/{}', 'cpu', 'float32', '{}')"
    assert re.search(pattern, row.format("bench_operators.SoftmaxCpu", "auto", "1x1024"))
    for other in (("LogSoftmaxCpu", "auto", "1x1024"), ("SoftmaxCpu", "two-pass", "1x1024"), ("SoftmaxCpu", "auto", "1x10240")):
        assert not re.search(pattern, row.format(f"bench_operators.{other[0]}", *other[1:]))


def test_a_comparisons_answer_is_read(study: ModuleType, place: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows of workloads that were not asked for, as 1x1024 with two threads, don't count."""

    def run(self: Any, command: list[Any], **options: Any) -> Any:
        rows = [
            {"operator": "softmax", "axes": {"rows": 1, "n": n}, "threads": threads, "verdict": verdict, "status": status}
            for n, threads, verdict, status in (
                (1024, 1, "slower", "ok"),
                (4096, 1, None, "crashed"),
                (1024, 2, "faster", "ok"),
            )
        ]
        Path(command[command.index("--json") + 1]).write_text(json.dumps({"rows": rows}))
        assert command[command.index("--shape") + 1] == "1x1024,1x4096"
        return SimpleNamespace(returncode=1, stdout="", stderr="")

    monkeypatch.setattr(study.Place, "run", run)
    code, rows = study.ulproof(place, small(study)["slower-5"], 7)
    assert code == 1
    assert [(row["workload"], row["verdict"]) for row in rows] == [
        ("softmax 1x1024 t1", "slower"),
        ("softmax 1x4096 t1", "crashed"),
    ]


def test_only_the_marked_parts_of_the_page_are_written(study: ModuleType) -> None:
    page = "before\n<!-- study: conditions -->\nold\n<!-- end -->\nafter\n"
    assert study.fill(page, []) == "before\n<!-- study: conditions -->\nNo trial has run.\n<!-- end -->\nafter\n"
    with pytest.raises(ValueError, match="'weather'"):
        study.fill("<!-- study: weather -->\n<!-- end -->", [])


def test_the_page_has_every_part(study: ModuleType, root: Path) -> None:
    text = (root / "docs" / "trust.md").read_text()
    for name in study.PARTS:
        assert f"<!-- study: {name} -->" in text
    study.fill(text, [])

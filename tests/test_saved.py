"""Verdicts on results that were saved before they were compared: never surer than what was saved allows."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ulproof.benchmarks import cli, compare, saved

Change = Callable[[str, int], float]
SHAPES = tuple(1 << power for power in range(8, 18))
ENVIRONMENT = {"cpu": {"model": "Synthetic", "cores": 2}, "versions": {"torch": "2.13", "numpy": "2.4", "scipy": "1.17"}}


def run_folder(
    folder: Path,
    change: Change = lambda name, n: 1.0,
    drift: float = 0.0,
    width: float = 0.002,
    seed: int = 0,
    names: tuple[str, ...] = ("simd/auto", "numpy/three-pass", "peer/torch-eager"),
    extra: tuple[dict[str, Any], ...] = (),
    versions: dict[str, str] | None = None,
) -> Path:
    """A run of softmax. ``change`` is a factor on the time of ours, ``drift`` the deviation between runs, of everything."""
    draw = random.Random(seed)
    folder.mkdir()
    header = {"format": 1, "started": "2026-01-01T00:00:00Z", "commit": folder.name, "plan": {}}
    environment = ENVIRONMENT | ({"versions": versions} if versions else {})
    (folder / "run.json").write_text(json.dumps(header | {"environment": environment}))
    rows: list[dict[str, Any]] = []
    for name in names:
        for n in SHAPES:
            time = 1e-9 * n * (1 + drift * draw.gauss(0, 1)) * (1 if name.startswith("peer") else change(name, n))
            seconds = {"median": time, "low": time * (1 - width), "high": time * (1 + width), "samples": 20}
            row = {"kind": "time", "status": "ok", "operator": "softmax", "implementation": name, "target": "cpu", "threads": 1}
            row |= {"backend": name.split("/")[0], "dtype": "float32", "pass": "forward", "axes": {"rows": 1, "n": n}}
            rows.append(row | {"cache": "hot", "seconds": seconds, "ulp": {"max": 1.5}, "noise": 0.001})
    rows += extra
    (folder / "records.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def verdicts(found: compare.Comparison) -> dict[str, set[str | None]]:
    by_name: dict[str, set[str | None]] = {}
    for row in found.rows:
        by_name.setdefault(row["implementation"], set()).add(row["verdict"])
    return by_name


def both(base: Path, head: Path) -> compare.Comparison:
    return saved.compare(saved.load(base), saved.load(head))


def test_quiet_runs_show_a_change_and_what_stayed(tmp_path: Path) -> None:
    base = run_folder(tmp_path / "base")
    head = run_folder(tmp_path / "head", lambda name, n: 1.2 if name == "simd/auto" else 1.0)
    found = both(base, head)
    assert verdicts(found) == {"simd/auto": {"slower"}, "numpy/three-pass": {"same"}, "peer/torch-eager": {"same"}}
    assert found.exit_code() == 1
    assert all(saved.APART in row["reason"] for row in found.rows)
    assert not found.took_turns and saved.APART in compare.table(found) and saved.APART in compare.markdown(found)
    assert verdicts(both(head, base))["simd/auto"] == {"faster"}


def test_what_cannot_have_changed_says_how_far_runs_lie_apart(tmp_path: Path) -> None:
    """Each side is sure of itself to 0.2%; that their controls differ by far more is what counts."""
    for seed in range(20):
        base = run_folder(tmp_path / f"base-{seed}", drift=0.1, seed=seed)
        head = run_folder(tmp_path / f"head-{seed}", drift=0.1, seed=1000 + seed)
        found = both(base, head)
        assert {verdict for each in verdicts(found).values() for verdict in each} == {"inconclusive"}
    assert found.exit_code() == 3
    assert "what 10 times and roofs differ by" in found.notes[0]


def test_a_run_that_was_slower_as_a_whole_makes_no_verdict(tmp_path: Path) -> None:
    peers = {f"peer/{name}": 1.1e-5 for name in ("torch-eager", "scipy", "xnnpack")}
    base = results(tmp_path / "base.json", {"simd/auto": 1e-5, **dict.fromkeys(peers, 1e-05)})
    head = results(tmp_path / "head.json", {"simd/auto": 1.1e-5, **peers})
    assert verdicts(both(base, head))["simd/auto"] == {"inconclusive"}


def test_noise_that_a_side_recorded_counts_where_it_is_more(tmp_path: Path) -> None:
    noisy = run_folder(tmp_path / "noisy")
    text = (noisy / "records.jsonl").read_text()
    (noisy / "records.jsonl").write_text(text.replace('"noise": 0.001', '"noise": 0.3'))
    found = both(run_folder(tmp_path / "base", lambda name, n: 1.2), noisy)
    assert verdicts(found)["simd/auto"] == {"inconclusive"}


@pytest.mark.parametrize("how", ["few", "another torch"])
def test_without_controls_only_a_large_change_is_a_change(tmp_path: Path, how: str) -> None:
    names = ("simd/auto", "numpy/three-pass") if how == "few" else ("simd/auto", "numpy/three-pass", "peer/torch-eager")
    versions = None if how == "few" else {"torch": "3.0", "numpy": "2.4", "scipy": "1.17"}
    base = run_folder(tmp_path / "base", names=names)
    factors = {"simd/auto": 1.4, "numpy/three-pass": 2.0}
    head = run_folder(tmp_path / "head", lambda name, n: factors[name], names=names, versions=versions)
    found = verdicts(both(base, head))
    assert found["simd/auto"] == {"inconclusive"} and found["numpy/three-pass"] == {"slower"}


def test_intervals_are_shared_out_over_the_rows() -> None:
    seconds = {"median": 1.0, "low": 0.99, "high": 1.01, "samples": 20}
    one, many = saved.interval(seconds, 0.99), saved.interval(seconds, 0.99999)
    assert one and many and one == pytest.approx((0.99, 1.01)) and many[0] < 0.985 and many[1] > 1.015


def test_samples_and_quartiles_give_intervals_that_hold() -> None:
    """Of 300 normal samples' medians, at most a few miss the truth at 99%."""
    draw = random.Random(0)
    missed = {"data": 0, "iqr": 0}
    for _ in range(300):
        data = [draw.gauss(1.0, 0.1) for _ in range(25)]
        ordered = sorted(data)
        quartiles = {"median": ordered[12], "iqr": ordered[18] - ordered[6], "samples": 25}
        for kind, seconds in (("data", {"median": ordered[12], "data": data}), ("iqr", quartiles)):
            found = saved.interval(seconds, 0.99)
            assert found
            missed[kind] += not found[0] <= 1.0 <= found[1]
    assert missed["data"] <= 8 and missed["iqr"] <= 12


@pytest.mark.parametrize(
    "seconds",
    [{"median": 1.0, "samples": 20}, {"median": 1.0, "samples": 3, "iqr": 0.1}, {"median": 1.0, "data": [1.0, 1.1, 0.9]}],
)
def test_too_little_gives_no_interval(seconds: dict[str, Any]) -> None:
    assert saved.interval(seconds, 0.99) is None


def test_wrong_numerics_outweigh_any_speed(tmp_path: Path) -> None:
    row: dict[str, Any] = {
        "kind": "accuracy",
        "operator": "softmax",
        "implementation": "simd/auto",
        "backend": "simd",
        "target": "cpu",
    }
    row |= {"dtype": "float32", "pass": "forward", "axes": {"rows": 1, "n": 4096}, "stress": "normal-100"}
    wrong = row | {"status": "wrong", "reason": "1e6 ULP, beyond the gate", "ulp": {"max": 1e6}}
    head = run_folder(tmp_path / "head", lambda name, n: 0.5, extra=(wrong,))
    found = both(run_folder(tmp_path / "base"), head)
    assert found.exit_code() == 2
    assert all(row["fails"] for row in found.rows if row["implementation"] == "simd/auto")
    assert "normal-100" in compare.table(found)
    assert not any(row["fails"] for row in found.rows if row["implementation"] != "simd/auto")


def test_what_only_one_side_has_is_listed_and_not_judged(tmp_path: Path) -> None:
    base = run_folder(tmp_path / "base", names=("simd/auto", "peer/torch-eager", "simd/two-pass"))
    row = json.loads((base / "records.jsonl").read_text().splitlines()[0])
    lost = row | {"axes": {"rows": 7, "n": 7}, "status": "crashed", "reason": "signal 11", "seconds": None}
    head = run_folder(tmp_path / "head", names=("simd/auto", "peer/torch-eager", "simd/online"), extra=(lost,))
    ok = row | {"axes": {"rows": 7, "n": 7}}
    with (base / "records.jsonl").open("a") as lines:
        lines.write(json.dumps(ok) + "\n")
    found = both(base, head)
    assert verdicts(found)["simd/two-pass"] == {"removed"} and verdicts(found)["simd/online"] == {"new"}
    [crashed] = [each for each in found.rows if each["status"] == "crashed"]
    assert crashed["verdict"] is None and crashed["reason"] == "in head: signal 11"
    assert found.counts()["failed"] == 1 and found.exit_code() == 3


def results(path: Path, times: dict[str, float], data: bool = True, ulp: float = 1.5) -> Path:
    """A file of pytest-benchmark with our cases, and one benchmark that is not ours."""
    draw = random.Random(path.name)
    benchmarks = []
    for name, time in times.items():
        for shape in ("1x1024", "1x4096", "1x8192"):
            samples = sorted(time * (1 + abs(draw.gauss(0, 0.001))) for _ in range(60))
            stats: dict[str, Any] = {"median": samples[30], "rounds": 60, "iqr": samples[45] - samples[15]}
            extra = {
                "implementation": f"softmax:{name}",
                "target": "cpu",
                "dtype": "float32",
                "pass": "forward",
                "max_ulp": ulp,
            }
            one: dict[str, Any] = {"name": f"test_latency[{name}-{shape}]", "fullname": f"x::test_latency[{name}-{shape}]"}
            one |= {"group": "softmax", "params": {"shape": shape}, "extra_info": extra}
            benchmarks.append(one | {"stats": stats | ({"data": samples} if data else {})})
    path.write_text(json.dumps({"machine_info": {}, "commit_info": {"id": path.stem}, "benchmarks": benchmarks}))
    return path


@pytest.mark.parametrize("data", [True, False])
def test_files_of_pytest_benchmark(tmp_path: Path, data: bool) -> None:
    peers = {f"peer/{name}": 1e-5 for name in ("torch-eager", "scipy", "xnnpack")}
    base = results(tmp_path / "base.json", {"simd/auto": 1e-5, "numpy/three-pass": 1e-4, **peers}, data)
    head = results(tmp_path / "head.json", {"simd/auto": 1.1e-5, "numpy/three-pass": 1e-4, **peers}, data)
    found = both(base, head)
    assert verdicts(found)["simd/auto"] == {"slower"} and verdicts(found)["numpy/three-pass"] == {"same"}
    assert (found.base["commit"], found.head["commit"]) == ("base", "head")
    assert found.exit_code() == 1


def test_an_error_beyond_its_bound_in_a_file_of_pytest_benchmark(tmp_path: Path) -> None:
    base = results(tmp_path / "base.json", {"simd/auto": 1e-5})
    head = results(tmp_path / "head.json", {"simd/auto": 1e-5}, ulp=900.0)
    found = both(base, head)
    assert found.exit_code() == 2 and "900 ULP, beyond its bound" in compare.table(found)


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = run_folder(tmp_path / "base")
    head = run_folder(tmp_path / "head", lambda name, n: 1.2 if name == "simd/auto" else 1.0)
    written = [tmp_path / name for name in ("out.json", "out.md")]
    options = ["--json", str(written[0]), "--markdown", str(written[1])]
    assert cli.main(["compare", str(base), str(head), *options]) == cli.SLOWER
    assert "slower: " in capsys.readouterr().out.splitlines()[-1]
    document = json.loads(written[0].read_text())
    assert document["took_turns"] is False and document["exit_code"] == 1 and document["counts"]["measured"] == 30
    assert written[1].read_text().startswith("**slower")
    assert cli.main(["compare", str(base), str(head), "--backend", "numpy"]) == cli.OK
    assert cli.main(["compare", str(base), str(head), "--shape", "1x1024", "--json", str(written[0])]) == cli.SLOWER
    assert json.loads(written[0].read_text())["counts"]["planned"] == 3
    assert cli.main(["compare", str(base), str(head), "--margin", "50%"]) == cli.OK


def test_what_cannot_be_compared_is_said_in_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base, file = run_folder(tmp_path / "base"), results(tmp_path / "file.json", {"simd/auto": 1e-5})
    assert cli.main(["compare", str(base), str(file)]) == cli.USAGE
    assert "name two of a kind" in capsys.readouterr().err
    other = run_folder(tmp_path / "other", names=("simd/two-pass",))
    (tmp_path / "empty.json").write_text('{"benchmarks": []}')
    assert cli.main(["compare", str(base), str(other)]) == cli.NOTHING
    assert cli.main(["compare", str(tmp_path / "empty.json"), str(tmp_path / "empty.json")]) == cli.NOTHING
    (tmp_path / "not.json").write_text("[]")
    assert cli.main(["compare", str(tmp_path / "not.json"), str(file)]) == cli.USAGE
    assert cli.main(["compare", str(file), str(tmp_path / "missing.json")]) == cli.USAGE
    assert "missing.json" in capsys.readouterr().err

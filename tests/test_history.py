"""Steps in time and error over commits: what is found, what is left alone, and how the page shows it."""

from __future__ import annotations

import json
import math
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from ulproof.reports import history, load, looks, render

WORKLOAD: dict[str, Any] = {
    "operator": "softmax",
    "target": "cpu",
    "dtype": "float32",
    "pass": "forward",
    "axes": {"rows": 1, "n": 4096},
}
HEADER = {"format": 1, "environment": {"cpu": {"model": "Synthetic", "cores": 2}}, "plan": {}}
Level = Callable[[int], float]


def write(
    folder: Path, count: int, times: dict[str, Level], errors: dict[str, Level] | None = None, model: str = "Synthetic"
) -> list[Path]:
    """Runs of ``count`` commits, newest first, of implementations whose time and error the commit's number gives."""
    draw = random.Random(0)
    made = []
    for number in range(count):
        run = folder / f"run-{model}-{count - number:02}"
        run.mkdir(parents=True)
        header: dict[str, Any] = HEADER | {"started": f"2026-01-{number + 1:02}T00:00:00Z", "commit": f"c{number:02}"}
        (run / "run.json").write_text(json.dumps(header | {"environment": {"cpu": {"model": model, "cores": 2}}}))
        rows: list[dict[str, Any]] = []
        for name, level in times.items():
            time = 1e-5 * level(number) * (1 + draw.gauss(0, 0.01))
            seconds = {"median": time, "low": time * 0.999, "high": time * 1.001, "samples": 20}
            fields = {"implementation": name, "backend": name.split("/")[0], "commit": f"c{number:02}", "status": "ok"}
            rows.append(WORKLOAD | fields | {"kind": "time", "threads": 1, "cache": "hot", "seconds": seconds, "noise": 1e-3})
        for name, level in (errors or {}).items():
            for stress, share in (("normal", 1.0), ("uniform", 0.5), *([("new", 50.0)] if number > 6 else [])):
                ulp = level(number) * share
                fields = {"implementation": name, "backend": name.split("/")[0], "commit": f"c{number:02}", "status": "ok"}
                error = {"max": None if math.isinf(ulp) else ulp}
                rows.append(WORKLOAD | fields | {"kind": "accuracy", "stress": stress, "ulp": error})
        (run / "records.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        made.append(run)
    return made[::-1]


def steps(frame: pd.DataFrame) -> dict[tuple[str, str], list[tuple[str, str]]]:
    """What the page lists: (commit, change) by implementation and quantity."""
    found: dict[tuple[str, str], list[tuple[str, str]]] = {}
    for row in history.steps(list(history.histories(frame))):
        found.setdefault((row["implementation"], row["quantity"]), []).append((row["commit"], row["change"]))
    return found


def test_noise_has_no_step_and_a_step_of_five_deviations_is_found_where_it_is() -> None:
    draw = random.Random(0)
    quiet = hit = 0
    for _ in range(200):
        noise = [draw.gauss(0, 0.01) for _ in range(20)]
        quiet += history.segments(noise, 0.01) == [20]
        hit += history.segments([value + 0.05 * (place >= 12) for place, value in enumerate(noise)], 0.01) == [12, 20]
    assert quiet >= 198 and hit >= 190


@pytest.mark.parametrize(
    ("values", "least", "ends"),
    [
        ([], 2, []),
        ([1.0], 2, [1]),
        ([1.0, 2.0, 2.0], 2, [3]),  # one commit is no level, in time
        ([1.0, 1.0, 2.0, 2.0], 2, [2, 4]),
        ([1.0, 1.0, 9.0, 1.0, 1.0], 2, [5]),  # an outlier is none either
        ([1.0, 1.0, 1.0, 2.0], 1, [3, 4]),
        ([1.0, 2.0, 2.0, 1.0, 1.0, 1.0], 1, [1, 3, 6]),
    ],
)
def test_segments(values: list[float], least: int, ends: list[int]) -> None:
    assert history.segments(values, 0.01, least) == ends


def test_steps_of_time_and_error_are_listed_with_their_commits(tmp_path: Path) -> None:
    runs = write(
        tmp_path,
        12,
        {
            "simd/auto": lambda k: 1.2 if k >= 8 else 1.0,
            "numpy/three-pass": lambda k: 3.0 if k < 5 else 1.0,
            "simd/two-pass": lambda k: 1.5,
        },
        {"simd/auto": lambda k: 2.0 if k >= 10 else 1.0, "numpy/three-pass": lambda k: 1.5},
    )
    found = steps(load(runs))
    assert found.keys() == {("simd/auto", "time"), ("numpy/three-pass", "time"), ("simd/auto", "ulp")}
    [(commit, percent)] = found["simd/auto", "time"]
    assert commit == "c08" and 18 < float(percent.removesuffix(" %")) < 22
    [(commit, factor)] = found["numpy/three-pass", "time"]
    assert commit == "c05" and factor.startswith("× 0.33")
    assert found["simd/auto", "ulp"] == [("c10", "× 2.00")], "an input that only later commits checked makes no step"


def test_an_error_that_stops_being_finite_is_a_step(tmp_path: Path) -> None:
    frame = load(write(tmp_path, 6, {}, {"simd/auto": lambda k: math.inf if k >= 4 else 1.5}))
    [row] = history.steps(list(history.histories(frame)))
    assert (row["commit"], row["before"], row["after"], row["worse"]) == ("c04", "1.50", "NaN/∞", True)
    assert "NaN/∞" in render(frame)


def test_machines_never_share_a_line(tmp_path: Path) -> None:
    fast = write(tmp_path, 6, {"simd/auto": lambda k: 1.0})
    slow = write(tmp_path, 6, {"simd/auto": lambda k: 2.0}, model="Other")
    found = list(history.histories(load(fast + slow)))
    assert [each.where for each in found] == ["ulproof on Synthetic, 2 cores", "ulproof on Other, 2 cores"]
    assert not any(series.steps for each in found for series in each.series)


def test_one_commit_has_no_history(tmp_path: Path) -> None:
    frame = load(write(tmp_path, 1, {"simd/auto": lambda k: 1.0}))
    assert list(history.histories(frame)) == []
    assert 'id="history"' not in render(frame)


def test_the_page_shows_few_lines_and_those_that_changed(tmp_path: Path) -> None:
    names = [f"simd/variant-{place}" for place in range(9)]
    times: dict[str, Level] = {name: lambda k: 1.0 for name in names}
    times["simd/variant-8"] = lambda k: 2.0 if k >= 4 else 1.0
    frame = load(write(tmp_path, 8, times))
    look = looks.looks(names)
    [figure] = history.figures(list(history.histories(frame)), look)
    assert len(figure["lines"]) == 6 and "simd/variant-8" in figure["lines"]
    svg = figure["svg"]
    assert f"var(--c{look['simd/variant-8'].colour})" in svg and not re.search(r"#[0-9a-f]{6}", svg)
    assert "+100%" in svg or re.search(r">\+(9|10)\d(\.\d)?%<", svg)
    page = render(frame)
    assert 'href="#history"' in page and page.count("<figure>") == 1


def asv_results(folder: Path, commits: int) -> Path:
    """What ``asv run`` leaves of one benchmark in seconds and one in ULPs; dates are in milliseconds."""
    machine = folder / "results" / "box"
    machine.mkdir(parents=True)
    names = {"param_names": ["implementation", "target", "dtype", "shape"]}
    time, error = "bench_operators.SoftmaxCpu.time_forward", "bench_operators.SoftmaxCpu.track_max_ulp"
    metadata = {time: {**names, "unit": "seconds"}, error: {**names, "unit": "ULP"}, "version": 2}
    (folder / "results" / "benchmarks.json").write_text(json.dumps(metadata))
    params = [["'softmax:simd/auto'"], ["'cpu'"], ["'float32'"], ["'1x1024'"]]
    for number in range(commits):
        results = {time: [[2e-6 * (1.3 if number >= 5 else 1) * (1 + 0.001 * (-1) ** number)], params], error: [[1.5], params]}
        document = {"commit_hash": f"{9 - number}eed", "date": 1767225600000 + 86400000 * number, "results": results}
        document |= {"result_columns": ["result", "params"], "version": 2}
        (machine / f"{9 - number}eed-e.json").write_text(json.dumps(document))
    return machine


def test_asv_results_have_a_history(tmp_path: Path) -> None:
    frame = load(asv=[asv_results(tmp_path, 9)])
    assert list(frame["commit"].unique()) == [f"{9 - number}eed" for number in range(9)], "oldest first, whatever their names"
    found = list(history.histories(frame))
    assert {(each.quantity, each.where) for each in found} == {("time", "asv on box"), ("ulp", "asv on box")}
    [row] = history.steps(found)
    assert (row["commit"], row["change"], row["date"]) == ("4eed", "+30.0 %", "2026-01-06")
    assert "4eed" in render(frame)

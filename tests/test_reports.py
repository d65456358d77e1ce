"""Records in, a page, a picture or a file out: on invented runs and on results of other drivers."""

from __future__ import annotations

import base64
import gzip
import json
import math
import re
import runpy
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from ulproof.benchmarks.record import RunError
from ulproof.reports import drivers, export, load, render, roofline, tables, units
from ulproof.reports.looks import looks
from ulproof.reports.sweeps import LINES, RIVALS, crossover, sweeps

SYNTHETIC: dict[str, Any] = runpy.run_path(str(Path(__file__).with_name("synthetic_run.py")))
WRITE: Callable[..., Path] = SYNTHETIC["write_run"]
HOSTILE: str = SYNTHETIC["HOSTILE"]
BUDGET = 3_000_000


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    return load(WRITE(tmp_path_factory.mktemp("runs") / "invented"))


@pytest.fixture(scope="module")
def page(runs: pd.DataFrame) -> str:
    return render(runs)


class Outline(HTMLParser):
    """Element ids, in-page links and sources of a page, its scripts' texts, and tags left open."""

    VOID = {"meta", "link", "br", "input", "img", "hr"}

    def __init__(self, page: str) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.links: list[str] = []
        self.outside: list[str] = []
        self.scripts: list[str] = []
        self.open: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attributes}
        assert not any(name.startswith("on") for name in found), f"<{tag}> carries an event handler"
        self.ids += [found["id"]] if "id" in found else []
        for name in ("src", "href", "action", "xlink:href"):
            if found.get(name, "").startswith("#"):
                self.links.append(found[name][1:])
            elif found.get(name, "data:").startswith("data:") is False:
                self.outside.append(found[name])
        if tag == "script":
            self.scripts.append("")
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open[-1] == tag, f"</{tag}> closes <{self.open[-1:]}>"
        self.open.pop()

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attributes)
        if tag not in self.VOID:
            self.open.pop()

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "script":
            self.scripts[-1] += data


def unpacked(page: str) -> dict[str, Any]:
    found = re.search(r'id="data">([^<]*)<', page)
    assert found
    return json.loads(gzip.decompress(base64.b64decode(found[1])))


def test_load_flattens_and_keeps_what_the_run_says(runs: pd.DataFrame) -> None:
    row = runs[(runs["implementation"] == "simd/auto") & (runs["cache"] == "cold")].iloc[0]
    assert (row["run"], row["source"], row["axes.rows"], row["axes.n"]) == ("invented", "ulproof", 1, 64)
    assert 0 < row["seconds.low"] < row["seconds.median"] < row["seconds.high"]
    [header] = runs.attrs["runs"]
    assert header["id"] == "invented" and header["preset"] == "quick"


def test_an_error_that_is_not_finite_is_infinite(runs: pd.DataFrame) -> None:
    published = runs[(runs["variant"] == "two-pass-as-published") & (runs["stress"] == "at-3e38")]
    assert (published["ulp.max"] == math.inf).all() and len(published) == 2
    assert runs[runs["kind"] == "time"]["ulp.max"].isna().all()


def test_a_broken_run_is_one_line(tmp_path: Path) -> None:
    folder = WRITE(tmp_path / "broken")
    lines = (folder / "records.jsonl").read_text().splitlines()
    (folder / "records.jsonl").write_text("\n".join(["{not json", *lines]) + "\n")
    with pytest.raises(RunError) as error:
        load(folder)
    assert "\n" not in str(error.value)
    with pytest.raises(RunError):
        load(tmp_path / "nowhere")


def test_the_page_is_well_formed_and_asks_for_nothing(page: str) -> None:
    outline = Outline(page)
    assert outline.open == [] or set(outline.open) <= {"p", "li"}
    assert outline.outside == []
    assert len(set(outline.ids)) == len(outline.ids)
    assert set(outline.links) <= set(outline.ids)
    assert not re.search(r"url\((?!#)|@import", page)


def test_labels_cannot_break_out(page: str, runs: pd.DataFrame) -> None:
    assert (runs["implementation"] == f"peer/{HOSTILE}").any()
    assert "<script>alert" not in page and "<img" not in page
    assert len(Outline(page).scripts) == 3
    names = unpacked(page)["time"][0]["words"]
    assert f"peer/{HOSTILE}" in names


def test_every_record_is_in_the_page(page: str, runs: pd.DataFrame) -> None:
    document = unpacked(page)
    for kind in ("accuracy", "compile", "ceiling"):
        assert len(document[kind][0]["codes"]) == (runs["kind"] == kind).sum()
    names = [name for name, *_ in tables.KINDS["time"]]
    times = [sum(value is not None for value in document["time"][names.index(cache)]) for cache in ("cold", "hot", "graph")]
    assert sum(times) == (runs["seconds.median"].notna() & (runs["kind"] == "time")).sum()


def test_sections_follow_the_records(runs: pd.DataFrame, page: str) -> None:
    expected = [
        "findings",
        "overview",
        "problems",
        "op-softmax",
        "op-log_softmax",
        "op-logsumexp",
        "records",
        "ceilings",
        "noise",
    ]
    expected += ["compiled", "environment", "missing"]
    shown = [each for each in Outline(page).ids if each in expected]
    assert shown == expected
    few = render(runs[runs["kind"] == "ceiling"])
    assert not {"noise", "compiled", "missing", "problems", "op-softmax"} & set(Outline(few).ids)


def test_nothing_to_report_is_an_error(runs: pd.DataFrame) -> None:
    with pytest.raises(ValueError, match="no record"):
        render(runs.iloc[:0])


def test_rendering_is_deterministic(runs: pd.DataFrame) -> None:
    part = runs[runs["operator"].isna() | (runs["operator"] == "logsumexp")]
    assert render(part) == render(part)


def test_eleven_thousand_records_stay_below_the_budget(tmp_path: Path) -> None:
    operators = ("softmax", *(f"softmax_{index}" for index in range(3)), *(f"operator_{index}" for index in range(4)))
    many = load(WRITE(tmp_path / "many", operators, threads=(1, 2, 4, 8)))
    assert len(many) > 11_000
    text = render(many)
    assert len(text.encode()) < BUDGET
    assert text.count("<figure>") == 4 * 4 + 2 * 3 + 2 * 1, "all kinds of charts for six operators alone"


def test_overview_states_the_fastest_against_torch(runs: pd.DataFrame) -> None:
    rows = tables.overview(runs)
    assert [row["operator"] for row in rows] == ["softmax", "log_softmax", "logsumexp"]
    softmax = rows[0]
    assert (softmax["implementation"], softmax["isa"], softmax["shape"]) == ("simd/auto", "avx512", "1 × 2²⁴")
    here = runs[(runs["operator"] == "softmax") & (runs["axes.n"] == 1 << 24) & (runs["cache"] == "cold")]
    times = here.set_index(["implementation", "isa"])["seconds.median"]
    torch = here[here["implementation"] == "peer/torch-eager"]["seconds.median"].iloc[0]
    assert softmax["seconds"] == times["simd/auto", "avx512"]
    assert softmax["ratio"] == pytest.approx(torch / times["simd/auto", "avx512"])
    assert softmax["rivals"] == 11
    assert dict(softmax["status"])["wrong"] == 4 and dict(softmax["status"])["suspect"] == 1


def test_overview_sets_every_implementation_of_a_workload_on_the_roof(runs: pd.DataFrame) -> None:
    softmax = tables.overview(runs)[0]
    shares = dict(softmax["shares"])
    assert len(shares) == softmax["rivals"] and list(shares.values()) == sorted(shares.values(), reverse=True)
    assert shares["simd/auto"] == pytest.approx(softmax["roof"])
    here = runs[(runs["operator"] == "softmax") & (runs["axes.n"] == 1 << 24) & (runs["cache"] == "cold")]
    torch = here[here["implementation"] == "peer/torch-eager"].iloc[0]
    assert shares["peer/torch-eager"] == pytest.approx(torch["roof.seconds"] / torch["seconds.median"])


def test_sixty_operators_stay_below_the_budget(tmp_path: Path) -> None:
    names = SYNTHETIC["ELEMENTWISE"]
    operators = ("softmax", "log_softmax", "logsumexp", *(f"{names[place % 8]}_{place}" for place in range(57)))
    text = render(load(WRITE(tmp_path / "sixty", operators)))
    assert len(text.encode()) < BUDGET
    assert text.count("<details open>") == 0
    assert text.count("<figure>") == 4 + 3 + 3 + 57, "elementwise operators get their bandwidth alone"


def test_every_number_of_a_type_is_a_table_of_its_own(tmp_path: Path) -> None:
    runs = load(WRITE(tmp_path / "flat", ("gelu",)))
    rows = tables.exhaustive(runs)
    assert {(row["implementation"], row["pass"], row["dtype"]) for row in rows} == {
        (name, pass_, dtype)
        for name in ("simd/auto", "numpy/direct", "peer/torch-eager")
        for pass_ in ("forward", "backward")
        for dtype in ("float16", "bfloat16")
    }
    recorded = runs[(runs["implementation"] == "peer/torch-eager") & (runs["stress"] == "all-float16")].set_index("pass")
    [torch] = [
        row for row in rows if (row["implementation"], row["pass"], row["dtype"]) == ("peer/torch-eager", "forward", "float16")
    ]
    assert (torch["ulp"], torch["misrounded"]) == tuple(recorded.loc["forward", ["ulp.max", "ulp.misrounded"]])
    assert torch["outputs"] == 65536 and torch["worst_input"] == recorded.loc["forward", "ulp.worst_input"]
    assert {row["misrounded"] for row in rows if row["implementation"] == "simd/auto"} == {0}
    assert tables.exhaustive(runs[runs["kind"] == "time"]) == []


def test_places_of_errors_are_kept_where_they_tell_something(runs: pd.DataFrame) -> None:
    columns = [name for name, *_ in tables.KINDS["accuracy"]]
    found = tables.records(runs)["accuracy"]
    places, statuses = (found[columns.index(name)] for name in ("ulp.worst_input", "status"))
    kept = [places["words"][code] != "" for code in places["codes"]]
    poor = [statuses["words"][code] != "ok" for code in statuses["codes"]]
    assert all(one for one, other in zip(kept, poor, strict=True) if other)
    sound = [one for one, other in zip(kept, poor, strict=True) if not other]
    assert 0 < sum(sound) < 0.2 * len(sound)


def test_compiled_kernels_stand_by_architecture(runs: pd.DataFrame) -> None:
    found = tables.compiled(runs)
    assert found["where"] == ["sm_80", "sm_90", "sm_100"]
    assert len(found["rows"]) == 3 * len(SYNTHETIC["GPU"])
    fused = next(row for row in found["rows"] if row["implementation"] == "triton/fused")
    assert [fused["cells"][where]["spills"] for where in found["where"]] == [8, 0, 0]


def test_a_suspect_result_is_never_the_fastest(runs: pd.DataFrame) -> None:
    suspects = set(runs[runs["status"] == "suspect"]["implementation"])
    assert suspects
    named = {row["implementation"] for rows in tables.headline(runs).values() for row in rows}
    assert named and not suspects & named


def test_an_inaccurate_result_is_the_fastest_only_without_an_accurate_one(runs: pd.DataFrame) -> None:
    whole = runs[(runs["operator"] == "softmax") & (runs["pass"] == "forward")].copy()
    winner = tables.overview(whole)[0]["implementation"]
    whole.loc[(whole["kind"] == "time") & (whole["implementation"] == winner), "status"] = "inaccurate"
    second = tables.overview(whole)[0]
    assert second["implementation"] != winner and winner in dict(second["shares"])
    assert winner not in {row["implementation"] for row in tables.headline(whole)["softmax"]}
    whole.loc[(whole["kind"] == "time") & (whole["status"] == "ok"), "status"] = "inaccurate"
    assert tables.overview(whole)[0]["implementation"] == winner


def test_torch_of_the_same_isa_is_the_baseline() -> None:
    columns = {
        "kind": "time",
        "status": "ok",
        "operator": "softmax",
        "backend": "x",
        "target": "cpu",
        "cache": "hot",
        "axes": {"n": 8},
    }
    rows = [("peer/torch-eager", "avx2", 6.0), ("peer/torch-eager", "avx512", 4.0), ("simd/auto", "avx2", 2.0)]
    from ulproof.reports.load import flat, frame_of

    frame = frame_of(
        [flat({**columns, "implementation": name, "isa": isa, "seconds": {"median": time}}) for name, isa, time in rows], []
    )
    assert tables.Baseline(frame).ratio(frame.iloc[2].to_dict()) == 3.0


def test_stability_map_sets_published_beside_ours(runs: pd.DataFrame) -> None:
    [found] = tables.stability(runs[runs["operator"] == "softmax"])
    names = [(column["implementation"], column["where"]) for column in found["columns"]]
    assert names[:3] == [("peer/torch-eager", ""), ("peer/scipy", ""), ("numpy/three-pass", "")]
    rows = {row["stress"]: dict(zip(names, row["cells"], strict=True)) for row in found["rows"]}
    published = rows["masked-one"]["simd/two-pass-as-published", "avx2"]
    assert (published["text"], published["grade"], published["wrong"]) == ("NaN/∞", "gx", True)
    assert rows["masked-one"]["simd/two-pass-as-published", "avx512"]["grade"] == "g2"
    assert rows["masked-one"]["simd/auto", "avx2"]["grade"] == "g1"
    assert set(found["combinations"]) == {("forward", "float32"), ("backward", "float32")}


@pytest.mark.parametrize(
    "error, grade", [(0.0, "g0"), (1.0, "g0"), (1.01, "g1"), (8, "g2"), (64.5, "g4"), (5e3, "g5"), (math.inf, "gx")]
)
def test_grades(error: float, grade: str) -> None:
    assert tables.grade(error) == grade


def test_missing_gives_each_reason_once(runs: pd.DataFrame) -> None:
    reasons = {row["reason"]: row for row in tables.missing(runs)}
    assert set(reasons) == {"no NVIDIA GPU or driver here", "budget"}
    assert len(reasons["no NVIDIA GPU or driver here"]["names"]) == 18


def test_charts_hold_few_lines_and_both_rivals(runs: pd.DataFrame) -> None:
    found = [sweep for sweep in sweeps(runs) if sweep.operator == "softmax"]
    assert [sweep.isa for sweep in found] == ["avx512", "avx2"]
    for sweep in found:
        lines = sweep.lines("hot")
        assert len(lines) == LINES
        assert {*RIVALS[0], "peer/torch-eager", "simd/auto"} <= set(lines)
        assert sweep.axis == "axes.n" and sweep.fixed == {"rows": 1}


def test_crossover_lies_where_the_times_cross(runs: pd.DataFrame) -> None:
    wide, narrow = (sweep for sweep in sweeps(runs) if sweep.operator == "softmax")
    found = crossover(wide, RIVALS[0], "hot")
    assert found and 4096 < found.length < 65536
    rows = wide.frame[wide.frame["cache"] == "hot"]
    reload, two = (rows[rows["implementation"] == name].set_index("axes.n")["seconds.median"] for name in RIVALS[0])
    assert (two < reload)[two.index > found.length].all()
    last = max(n for n in two.index if n < found.length)
    assert two[last] >= reload[last]
    swapped = crossover(narrow, (RIVALS[0][1], "simd/auto"), "hot")
    assert swapped and swapped.length == 0


def test_colours_stay_with_their_implementation(runs: pd.DataFrame) -> None:
    names = list(runs["implementation"].dropna().unique())
    whole, part = looks(names), looks(names[:5])
    assert all(whole[name] == part[name] for name in names[:5])
    assert len(set(whole.values())) == len(whole)


def test_roofline_stands_alone(runs: pd.DataFrame) -> None:
    assert roofline(runs, ["softmax"], "png").startswith(b"\x89PNG\r\n")
    picture = roofline(runs, ["softmax"]).decode()
    assert "var(--" not in picture and picture == roofline(runs, ["softmax"]).decode()
    for label in ("simd/two-pass", "DRAM 33.0 GB/s", "exp 9.00 Gexp/s", "FMA 118 Gflop/s"):
        assert label in picture
    with pytest.raises(ValueError, match="softmin"):
        roofline(runs, ["softmin"])
    with pytest.raises(ValueError, match="svg and png"):
        roofline(runs, ["softmax"], "pdf")


def test_export(runs: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    export(runs, tmp_path / "records.csv")
    back = pd.read_csv(tmp_path / "records.csv")
    assert len(back) == len(runs) and back["seconds.median"].max() == runs["seconds.median"].max()
    with pytest.raises(ValueError, match=r"\.csv or \.parquet"):
        export(runs, tmp_path / "records.xlsx")
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(ValueError, match="pyarrow"):
        export(runs, tmp_path / "records.parquet")
    assert not (tmp_path / "records.parquet").exists()


def asv_folder(folder: Path) -> Path:
    machine = folder / "results" / "box"
    machine.mkdir(parents=True)
    names = {"param_names": ["implementation", "target", "dtype", "shape"]}
    metadata = {
        "bench_operators.SoftmaxCpu.time_forward": {**names, "unit": "seconds"},
        "bench_operators.SoftmaxCpuBackward.time_backward": {**names, "unit": "seconds"},
        "bench_operators.SoftmaxCpu.track_max_ulp": {**names, "unit": "ULP"},
        "bench_operators.SoftmaxCpu.track_seconds_per_gigabyte": {**names, "unit": "seconds/GB"},
        "version": 2,
    }
    (folder / "results" / "benchmarks.json").write_text(json.dumps(metadata))
    params = [["'softmax:simd/auto'", "'softmax:peer/torch-eager'"], ["'cpu'"], ["'float32'"], ["'1x1024'", "'1x4096'"]]
    columns = ["result", "params", "version", "started_at", "duration", "stats_ci_99_a", "stats_ci_99_b", "stats_repeat"]
    ends = [["1", 0, 1.0, [1e-7, 4e-7, 9e-7], [3e-7, 6e-7, 2e-6], [10, 10, 10]]]
    results = {
        "bench_operators.SoftmaxCpu.time_forward": [[2e-7, 5e-7, 1e-6, math.nan], params, *ends[0]],
        "bench_operators.SoftmaxCpuBackward.time_backward": [[None, 5e-7, 1e-6, 2e-6], params],
        "bench_operators.SoftmaxCpu.track_max_ulp": [[1.5, 1.6, 15.0, math.nan], params],
        "bench_operators.SoftmaxCpu.track_seconds_per_gigabyte": [[0.1, 0.1, 0.2, 0.2], params],
    }
    document = {"commit_hash": "feed", "env_name": "e", "result_columns": columns, "results": results, "version": 2}
    (machine / "feed-e.json").write_text(json.dumps(document))
    (machine / "machine.json").write_text("{}")
    return machine


def test_asv_results_become_records(tmp_path: Path) -> None:
    frame = load(asv=[asv_folder(tmp_path)])
    forward = frame[(frame["kind"] == "time") & (frame["pass"] == "forward")]
    assert list(forward["implementation"]) == ["simd/auto", "simd/auto", "peer/torch-eager"]
    first = forward.iloc[0]
    assert (first["operator"], first["backend"], first["axes.rows"], first["axes.n"]) == ("softmax", "simd", 1, 1024)
    assert (first["seconds.low"], first["seconds.median"], first["seconds.high"]) == (1e-7, 2e-7, 3e-7)
    backward = frame[frame["pass"] == "backward"]
    assert list(backward["status"]) == ["crashed", "ok", "ok", "ok"]
    assert list(frame[frame["kind"] == "accuracy"]["ulp.max"]) == [1.5, 1.6, 15.0]
    assert "simd/auto" in render(frame)
    with pytest.raises(ValueError, match="no asv results"):
        load(asv=[tmp_path / "empty"])


def test_sparse_asv_results_can_be_shown(tmp_path: Path) -> None:
    """Few samples have an infinite interval, and an older result's benchmark may have lost its metadata."""
    folder = tmp_path / "machine"
    folder.mkdir()
    columns = ["result", "params", "stats_ci_99_a", "stats_ci_99_b"]
    rows = {"bench_operators.Old.time_call": [[2e-7], [["'softmax:simd/auto'"]], [float("-inf")], [float("inf")]]}
    (folder / "feed-e.json").write_text(json.dumps({"commit_hash": "feed", "result_columns": columns, "results": rows}))
    frame = load(asv=[folder])
    assert frame[["target", "seconds.low", "seconds.high"]].isna().all(axis=None)
    assert "time_call" in render(frame)


def test_pytest_benchmark_results_become_records(tmp_path: Path) -> None:
    extra: dict[str, Any] = {"implementation": "softmax:simd/auto", "target": "cpu", "dtype": "float32", "pass": "forward"}
    extra |= {"axes": {"rows": 1, "n": 1024}, "max_ulp": 1.5, "bytes": 8192}
    params = {"implementation": "softmax:simd/auto", "target": "cpu", "shape": "1x1024", "dtype": "float32", "pass_": "forward"}
    benchmark: dict[str, Any] = {"name": "test_latency[x]", "group": "softmax", "params": params, "extra_info": extra}
    benchmark["stats"] = {"median": 3e-7, "rounds": 20}
    path = tmp_path / "0001_x.json"
    path.write_text(json.dumps({"machine_info": {"system": "Linux"}, "commit_info": {"id": "feed"}, "benchmarks": [benchmark]}))
    frame = load(pytest_benchmark=[path])
    [row] = frame.to_dict("records")
    assert (row["operator"], row["implementation"], row["axes.n"], row["seconds.median"]) == (
        "softmax",
        "simd/auto",
        1024,
        3e-7,
    )
    assert (row["bytes"], row["ulp.max"], row["source"]) == (8192, 1.5, "pytest-benchmark")
    assert {name for name in frame.columns if name.startswith("axes.")} == {"axes.rows", "axes.n"}
    path.write_text("{}")
    with pytest.raises(ValueError, match="benchmarks"):
        load(pytest_benchmark=[path])


def test_a_driver_that_names_nothing_known_still_gives_a_record() -> None:
    assert drivers.described({"size": 8, "mode": "a"}) == {"axes": {"size": 8}}


@pytest.mark.parametrize(
    "text, expected",
    [
        (units.seconds(5.76e-3), "5.76 ms"),
        (units.seconds(9.999e-7), "1.00 µs"),
        (units.seconds(3e-10), "0.300 ns"),
        (units.seconds(12.0), "12.0 s"),
        (units.seconds(math.nan), "–"),
        (units.rate(33e9, "B/s"), "33.0 GB/s"),
        (units.rate(999.9e6, "flop/s"), "1.00 Gflop/s"),
        (units.size(8 << 20), "8 MiB"),
        (units.size(1500), "1.46 KiB"),
        (units.percent(0.7063), "70.6 %"),
        (units.percent(0.0045), "0.45 %"),
        (units.ulp(math.inf), "NaN/∞"),
        (units.ulp(1.701), "1.70"),
        (units.ulp(1633.4), "1633"),
        (units.ulp(4.2e8), "4.2·10⁸"),
        (units.length(1 << 24), "2²⁴"),
        (units.length(65536), "65,536"),
    ],
)
def test_quantities(text: str, expected: str) -> None:
    assert text == expected

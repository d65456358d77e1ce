"""The command line as a user meets it: what it prints, what it says of bad input, and its exit codes."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ulproof import reports
from ulproof.benchmarks import cli, run, tables
from ulproof.benchmarks.record import RunFolder, key, read
from ulproof.impls import load, operators

Python = Callable[..., str]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every command runs in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def fails(capsys: pytest.CaptureFixture[str], code: int, *arguments: str) -> str:
    """The one line that a command says when it fails with that code."""
    assert cli.main(arguments) == code
    said = capsys.readouterr()
    assert "Traceback" not in said.err
    lines = [line for line in said.err.splitlines() if line.startswith("ulproof: ")]
    assert len(lines) == 1
    return lines[0]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("list", "softmx"), "unknown operator 'softmx'; did you mean softmax"),
        (("check", "nothing-like-it"), "unknown operator 'nothing-like-it'; there are "),
        (("run", "softmax:simd/auo"), "unknown implementation of softmax 'simd/auo'; did you mean simd/auto"),
        (("run", "--backend", "simdd"), "unknown backend 'simdd'; did you mean simd?"),
        (("run", "--backend", "fortran"), "unknown backend 'fortran'; there are reference, numpy, simd, triton, cuda, peer"),
        (("run", "--isa", "sse2"), "unknown isa 'sse2'; there are avx512, avx2, neon"),
        (("run", "--dtype", "float32,float8"), "unknown dtype 'float8'; did you mean float"),
        (("check", "--pass", "sideways"), "unknown pass 'sideways'; there are forward, backward"),
        (("run", "--target", "tpu"), "unknown target 'tpu'; there are cpu, interpreter and cuda:0"),
        (("run", "--target", "cuda:x"), "unknown target 'cuda:x'"),
        (("ceilings", "--threads", "0"), "--threads takes whole numbers from 1, not '0'"),
        (("run", "--threads", "many"), "--threads takes whole numbers from 1, not 'many'"),
        (("run", "--shape", "1x"), "--shape takes sizes such as 4096x1024, not '1x'"),
        (("run", "--preset", "fast"), "invalid choice: 'fast' (choose from 'quick', 'standard', 'full')"),
        (("run", "--budget", "-1"), "must be above 0, not -1"),
        (("run", "--budget", "soon"), "invalid positive value: 'soon'"),
        (("measure",), "invalid choice: 'measure'"),
        ((), "the following arguments are required: COMMAND"),
        (("run", "--resume", "nowhere"), "nowhere: not a run folder, it has no run.json"),
        (("report", "nowhere"), "nowhere: not a run folder"),
        (("roofline", "-o", "roof.pdf"), "unknown kind of picture 'pdf'; there are svg, png"),
    ],
)
def test_bad_usage_is_one_line_that_says_what_is_allowed(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], said: str
) -> None:
    assert said in fails(capsys, cli.USAGE, *arguments)
    assert not list(Path().iterdir())


def test_nothing_that_fits_is_an_error_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    assert "nothing fits these filters" in fails(capsys, cli.NOTHING, "list", "softmax:simd/auto", "--backend", "numpy")
    assert "there is none in runs/" in fails(capsys, cli.NOTHING, "report")
    assert "nothing to check" in fails(capsys, cli.NOTHING, "check", "--backend", "cuda", "--target", "cpu")


@pytest.mark.skipif(bool(run.gpus()), reason="a GPU is here")
def test_a_target_that_is_not_there_measures_nothing_and_says_why(capsys: pytest.CaptureFixture[str]) -> None:
    said = fails(capsys, cli.NOTHING, "run", "softmax", "--target", "cuda:0", "--output", "out")
    assert said == "ulproof: nothing was measured: unavailable: no NVIDIA GPU or driver here"
    rows = [row for row in read("out")[1] if row["kind"] != "compile"]  # of which a cache may hold some
    assert {row["status"] for row in rows} == {"unavailable"}
    assert {row["implementation"] for row in rows} >= {"triton/fused", "cuda/block-per-row", "peer/torch-eager"}
    assert "not there; here are cpu" in fails(capsys, cli.NOTHING, "ceilings", "--target", "cuda:7")


def test_a_run_is_not_overwritten_and_an_unwritable_folder_is_told(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    RunFolder.create("kept", {"started": "now", "environment": {}, "plan": {}}).close()
    assert "holds a run already; continue it with --resume kept" in fails(capsys, cli.USAGE, "run", "--output", "kept")
    Path("file").write_text("")
    assert "can't be made: Not a directory" in fails(capsys, cli.USAGE, "run", "--output", "file/run")
    assert "can't be written" in fails(capsys, cli.USAGE, "list", "--json", "missing/list.json")


def test_a_run_of_another_version_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    folder = RunFolder.create("old", {"started": "now", "environment": {}, "plan": {}})
    folder.update(format=0)
    folder.close()
    for command in (("report", "old"), ("export", "old"), ("run", "--resume", "old")):
        assert "old/run.json: has format 0, this version of ulproof reads 1" in fails(capsys, cli.USAGE, *command)


def test_list_names_every_implementation_and_why_it_can_not_run(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["list", "--json", "list.json"]) == 0
    said = capsys.readouterr().out
    content = json.loads(Path("list.json").read_text())
    assert [each["operator"] for each in content] == list(operators())
    for each in content:
        assert f"{each['operator']}: {operators()[each['operator']].summary}" in said
        assert [one["name"] for one in each["implementations"]] == list(load(each["operator"]))
        for one in each["implementations"]:
            assert one["name"] in said
            assert one["targets"]
            for reason in one["targets"].values():
                assert reason is None or reason in said


@pytest.mark.parametrize(
    ("filters", "names"),
    [
        (("softmax", "logsumexp", "--backend", "numpy"), {"numpy/three-pass"}),
        (("softmax:peer/scipy",), {"peer/scipy"}),
        (("softmax", "--isa", "avx2", "--pass", "backward", "--backend", "simd"), {"simd/auto"}),
        (("softmax", "--target", "interpreter"), {"triton/fused", "triton/online", "triton/two-pass"}),
    ],
)
def test_list_is_filtered(capsys: pytest.CaptureFixture[str], filters: tuple[str, ...], names: set[str]) -> None:
    assert cli.main(["list", *filters, "--json", "list.json"]) == 0
    found = json.loads(Path("list.json").read_text())
    assert {one["name"] for each in found for one in each["implementations"]} == names


def test_an_operator_beside_an_implementation_of_it_means_all_of_it() -> None:
    every = {each.full_name for each in load("softmax").values()}
    assert cli.named(["softmax:simd/auto"]) == (("softmax",), ("softmax:simd/auto",))
    assert cli.named(["softmax"]) == (("softmax",), ())
    which, full = cli.named(["softmax:simd/auto", "softmax"])
    assert (which, set(full)) == (("softmax",), every)
    which, full = cli.named(["logsumexp", "softmax:simd/auto"])
    assert which == ("logsumexp", "softmax")
    assert set(full) == {"softmax:simd/auto", *(each.full_name for each in load("logsumexp").values())}


def test_listing_imports_no_toolchain(python: Python) -> None:
    code = "import sys; from ulproof.benchmarks.cli import main; main(['list']); print(*sys.modules)"
    imported = {name.partition(".")[0] for name in python(code).splitlines()[-1].split()}
    assert not imported & {"torch", "triton", "cuda", "pandas", "scipy", "matplotlib", "rich", "jinja2", "jsonschema"}
    assert {"numpy", "ulproof"} <= imported


def test_check_prints_the_worst_of_each_implementation(capsys: pytest.CaptureFixture[str]) -> None:
    code = cli.main(
        [
            "check",
            "logsumexp:numpy/three-pass",
            "--dtype",
            "float32",
            "--pass",
            "forward",
            "--preset",
            "quick",
            "--json",
            "c.json",
        ]
    )
    said = capsys.readouterr()
    records = json.loads(Path("c.json").read_text())
    assert code == 0
    assert {each["stress"] for each in records} == set(operators()["logsumexp"].stress)
    [line] = [line for line in said.out.splitlines() if "numpy/three-pass" in line]
    worst = max(each["ulp"]["max"] for each in records)
    assert f"{worst:.3g}" in line.split()
    assert str(len(records)) in line.split()
    assert not list(Path().glob("runs"))


def test_doctor_prints_findings_and_their_fixes(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["doctor", "--json", "doctor.json"]) == 0
    said = capsys.readouterr().out
    for each in json.loads(Path("doctor.json").read_text()):
        assert each["what"] in said
        assert each["fix"] in said


SECONDS = {"median": 2.5e-5, "low": 2.4e-5, "high": 2.6e-5, "samples": 9}


def timed(implementation: str, status: str = "ok", **fields: Any) -> dict[str, Any]:
    backend, _, variant = implementation.partition("/")
    row: dict[str, Any] = {
        "kind": "time",
        "status": status,
        "reason": None,
        "operator": "softmax",
        "implementation": implementation,
    }
    row |= {"backend": backend, "variant": variant, "target": "cpu", "isa": "avx2", "threads": 1, "dtype": "float32"}
    row |= {"pass": "forward", "axes": {"rows": 1, "n": 64}, "cache": "hot", "seconds": SECONDS, "noise": 0.01, "group": "g"}
    row |= {"seconds_as_called": SECONDS, "roof": {"seconds": 1e-5, "binds": "exps"}, "ulp": {"max": 1.25}}
    return {**row, **fields}


def test_the_table_shows_time_roof_and_ulps_on_one_line() -> None:
    rows = [
        timed("simd/auto"),
        timed("peer/scipy", "inaccurate", ulp={"max": None}),
        timed("numpy/three-pass", "wrong", seconds=None, reason="normal: no"),
    ]
    text = tables.run_table(rows)
    [line] = [line for line in text.splitlines() if "simd/auto" in line]
    assert re.split(r"\s{2,}", line.strip()) == ["simd/auto avx2", "25 us", "4.0%", "25 us", "40% (exps)", "1.25"]
    assert "not finite" in text
    assert text.splitlines()[-1] == "wrong: softmax:numpy/three-pass: normal: no"


def test_the_summary_has_five_lines_and_ends_with_the_page() -> None:
    rows = [timed("simd/auto"), timed("peer/scipy", noise=0.05), timed("cuda/online", "unavailable", seconds=None)]
    counts = run.Counts(measured=2)
    text = cli.summary(
        rows, counts, {"plan": {"used_seconds": 88.0}, "watch": {"g": {"others": 0.25}}}, Path("runs/x"), Path("report.html")
    )
    lines = text.splitlines()
    assert len(lines) == 5
    assert lines[0] == "Measured 2 of 3 rows in 88 s of measuring: 1 unavailable."
    assert "5.0% at worst: softmax forward float32 1x64 hot, 1 thread(s);" in lines[1]
    assert "0.25 cores" in lines[1]
    assert lines[4] == f"Page: {Path('report.html').resolve()}"


@pytest.mark.parametrize(
    ("counts", "code"),
    [
        (run.Counts(measured=0), cli.NOTHING),
        (run.Counts(measured=0, failing=[{}]), cli.NOTHING),
        (run.Counts(measured=3, failing=[{}]), cli.WRONG),
        (run.Counts(measured=3), cli.OK),
    ],
)
def test_the_worst_decides_the_exit_code(counts: run.Counts, code: int) -> None:
    assert counts.exit_code() == code


def test_export_and_roofline_read_the_newest_run(capsys: pytest.CaptureFixture[str]) -> None:
    for name, rows in (
        ("1", [timed("simd/auto")]),
        ("2", [timed("simd/auto"), timed("peer/scipy"), timed("simd/auto", isa="avx512")]),
    ):
        folder = RunFolder.create(Path("runs", name), {"started": "now", "environment": {}, "plan": {}})
        for row in rows:
            folder.append(row)
        folder.close()
    assert cli.main(["export", "-o", "all.csv"]) == 0
    assert cli.main(["export", "--isa", "avx2", "-o", "some.csv"]) == 0
    assert (len(Path("all.csv").read_text().splitlines()), len(Path("some.csv").read_text().splitlines())) == (4, 3)
    assert "must end in .csv or .parquet" in fails(capsys, cli.USAGE, "export", "-o", "all.xls")
    assert len(reports.load(cli.newest_run([]))) == 3


def test_a_whole_run_leaves_a_page_and_can_be_resumed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "CEILING_SECONDS", 0.1)
    measure, spent, limits = run.Runner.measure, [0.0], []

    def counted(runner: run.Runner, job: Any, seconds: float, limit: float) -> float:
        limits.append((limit, 3.0 - sum(spent)))
        spent.append(measure(runner, job, seconds, limit))
        return spent[-1]

    monkeypatch.setattr(run.Runner, "measure", counted)
    arguments = [
        "run",
        "logsumexp:numpy/three-pass",
        "--dtype",
        "float32",
        "--pass",
        "forward",
        "--threads",
        "1",
        "--budget",
        "3",
    ]
    assert cli.main([*arguments, "--output", "out", "--json", "rows.json"]) == 0
    said = capsys.readouterr()
    header, records = read("out")
    assert json.loads(Path("rows.json").read_text()) == records
    assert {each["kind"] for each in records} >= {"accuracy", "ceiling", "time"}
    measured = [each for each in records if each["kind"] == "time" and each.get("seconds")]
    assert measured
    assert all(each["reason"].startswith("budget") for each in records if each["status"] == "not measured")
    assert all(each["roof"] and each["ulp"]["max"] is not None and each["noise"] is not None for each in measured)
    assert all(each["seconds"]["stopped"] in ("interval", "budget") for each in measured)
    assert header["finished"]
    assert header["findings"]
    assert header["watch"]
    assert len(spent) > 1
    assert header["plan"]["used_seconds"] == pytest.approx(sum(spent), abs=1e-3)
    assert all(limit == pytest.approx(left) for limit, left in limits)
    assert said.out.rstrip().splitlines()[-1] == f"Page: {Path('report.html').resolve()}"
    assert "measuring: " in said.err
    assert Path("report.html").read_text() == Path("out/report.html").read_text()

    assert cli.main(["run", "--resume", "out"]) == 0
    after = read("out")[1]
    assert after[: len(records)] == records
    assert {key(each) for each in after[len(records) :]} <= {key(each) for each in records if each["reason"] == "budget"}

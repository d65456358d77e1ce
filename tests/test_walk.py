"""The walk over every float32 number: its pieces, what a stopped one loses, whom a crash costs, and how it is shown."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ulproof import reports
from ulproof.benchmarks import run, walk
from ulproof.benchmarks.check import Item
from ulproof.benchmarks.record import RunFolder, problem, read, whole
from ulproof.benchmarks.tables import check_table
from ulproof.benchmarks.walk import CHUNK, NUMBERS, PIECE, Piece

pytestmark = pytest.mark.skipif(not walk.judged(), reason="built without C++")
NATIVE = (("simd/sweep", "avx2"), ("numpy/direct", None))
HEADER = {
    "format": 1,
    "started": "2026-01-01T00:00:00+00:00",
    "environment": {"cpu": {"model": "a processor", "cores": 2}, "versions": {"numpy": "2"}},
    "plan": {},
}


def pieces(count: int, operator: str = "tanh", sides: tuple[tuple[str, str | None], ...] = NATIVE) -> list[Piece]:
    return [Piece(operator, "forward", 0x3F800000 + number * CHUNK, CHUNK, sides) for number in range(count)]


def walked(folder: Path, planned: list[Piece]) -> list[dict[str, Any]]:
    """What walking them adds to a run folder, which is made or continued."""
    kept = RunFolder.resume(folder) if folder.exists() else RunFolder.create(folder, HEADER)
    before = len(kept.records)
    runner = run.Runner(kept, run.Options(preset="full"))
    try:
        runner.walk(planned)
    finally:
        runner.close()
        kept.close()
    return kept.records[before:]


def test_only_the_full_preset_walks_and_only_what_is_compiled() -> None:
    planned = run.walk_pieces(run.Options(preset="full"))
    assert {piece.operator for piece in planned} == set(walk.judged())
    for pass_ in ("forward", "backward"):
        mine = [piece for piece in planned if piece.pass_ == pass_ and piece.operator == "gelu"]
        assert [piece.first for piece in mine] == list(range(0, NUMBERS, PIECE))
        assert {name for piece in mine for name, _ in piece.sides} == {"simd/sweep"}
    assert run.walk_pieces(run.Options(preset="standard")) == []
    assert run.walk_pieces(run.Options(("softmax",), preset="full")) == []
    assert run.walk_pieces(run.Options(preset="full", filters={"dtype": ("float16",)})) == []


def test_backends_that_are_named_are_walked_beside_each_other() -> None:
    named = walk.plan(["gelu"], {"backend": ("simd", "numpy", "peer"), "pass": ("backward",)})
    assert {piece.pass_ for piece in named} == {"backward"}
    assert (
        {"simd/sweep", "numpy/direct"}
        <= {name for name, _ in named[0].sides}
        <= {*("simd/sweep", "numpy/direct", "peer/torch-eager")}
    )
    [only] = {piece.sides for piece in walk.plan(["gelu"], {}, ["gelu:numpy/direct"])}
    assert only == (("numpy/direct", None),)


@pytest.mark.parametrize("pass_", ["forward", "backward"])
@pytest.mark.parametrize("operator", ["gelu", "hermite_act", "rational_group"])
def test_a_walk_finds_what_a_check_finds(operator: str, pass_: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same numbers as a stress input of a check, judged by NumPy's float64 against the oracle."""
    from ulproof.benchmarks import check
    from ulproof.impls._backends import stress

    monkeypatch.setitem(
        stress.CATALOGUE,
        "these",
        lambda rng, rows, n, info: np.arange(0x3F000000, 0x3F000000 + CHUNK, dtype=np.uint32).view(np.float32).reshape(rows, n),
    )
    monkeypatch.setitem(stress.CATALOGUE, "clipped", lambda rng, rows, n, info: np.ones((rows, n), np.float32))
    check.workload.cache_clear()
    [row] = walk.walk(Piece(operator, pass_, 0x3F000000, CHUNK, NATIVE[:1]))
    axes = (("rows", CHUNK // 1024), ("n", 1024)) if operator == "rational_group" else (("n", CHUNK),)
    record = Item(operator, "simd/sweep", pass_, axes, "float32", isa="avx2", stress="these").check()
    check.workload.cache_clear()
    assert problem(row) is None
    if pass_ == "forward" or operator != "rational_group":  # whose sums count in a check
        assert row["ulp"]["max"] == pytest.approx(record["ulp"]["max"], rel=1e-6)
        assert (row["ulp"]["misrounded"], row["ulp"]["flushed"]) == (record["ulp"]["misrounded"], record["ulp"]["flushed"])
    assert row["status"] == "ok" and row["ulp"]["outputs"] == CHUNK


def test_a_walk_that_was_stopped_goes_on_with_the_pieces_that_it_lacks(tmp_path: Path) -> None:
    first = walked(tmp_path / "run", pieces(2))
    assert [
        (each["implementation"], each["axes"]["first"]) for each in sorted(first, key=lambda each: each["axes"]["first"])
    ] == [(name, 0x3F800000 + number * CHUNK) for number in range(2) for name, _ in NATIVE]
    lines = (tmp_path / "run" / "records.jsonl").read_bytes().splitlines(keepends=True)
    (tmp_path / "run" / "records.jsonl").write_bytes(b"".join(lines[:3]) + lines[3][:40])  # killed in the midst of the last
    again = walked(tmp_path / "run", pieces(3))
    assert len(again) == 3 and len(read(tmp_path / "run")[1]) == 6
    assert walked(tmp_path / "run", pieces(3)) == []


def test_a_crash_costs_its_own_side(tmp_path: Path) -> None:
    planned = pieces(2, sides=(("numpy/no-such", None), *NATIVE))
    with pytest.raises(ValueError, match="no-such"):
        list(walk.walk(planned[0]))
    found = walked(tmp_path / "run", pieces(4, "gelu", (("simd/sweep", "neon"), NATIVE[1])))
    assert [each["status"] for each in found if each["backend"] == "numpy"] == ["ok"] * 4
    broken = [each for each in found if each["backend"] == "simd"]
    assert {each["status"] for each in broken} == {"crashed"} and "neon" in broken[0]["reason"]
    assert len(broken) <= 2, "one a core, then it is left out"


def test_the_pieces_of_a_walk_are_one_line(tmp_path: Path) -> None:
    records = walked(tmp_path / "run", pieces(3))
    lines = whole(records)
    assert {each["implementation"]: each["axes"] for each in lines} == {name: {"n": 3 * CHUNK} for name, _ in NATIVE}
    for line in lines:
        mine = [each["ulp"] for each in records if each["implementation"] == line["implementation"]]
        assert problem(line) is None
        assert line["ulp"]["max"] == max(ulp["max"] for ulp in mine)
        assert line["ulp"]["misrounded"] == sum(ulp["misrounded"] for ulp in mine)
        assert line["ulp"]["worst_input"] in {ulp["worst_input"] for ulp in mine if ulp["max"] == line["ulp"]["max"]}
    assert "all-float32" in check_table(records)
    later = {**records[0], "commit": "b" * 40, "ulp": {**records[0]["ulp"], "max": None}}
    [bad] = [each for each in whole([*records, later]) if each["implementation"] == later["implementation"]]
    assert bad["ulp"]["max"] is None and bad["ulp"]["outputs"] == 3 * CHUNK and "b" * 40 in bad["commit"]


def test_the_report_shows_walks_as_whole_lines(tmp_path: Path) -> None:
    walked(tmp_path / "run", pieces(3))
    frame = reports.load(tmp_path / "run")
    assert "axes.first" not in frame
    assert sorted(frame["ulp.outputs"]) == [3 * CHUNK] * 2
    from ulproof.reports import tables

    assert {row["outputs"] for row in tables.exhaustive(frame)} == {3 * CHUNK}


def test_the_table_says_where_and_of_which_commit(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    records = walked(tmp_path / "run", pieces(2))
    assert walk.main(["--output", str(tmp_path / "run"), "--table"]) == 0
    assert "| `tanh` |" not in capsys.readouterr().out, "it has not come to its end"
    monkeypatch.setattr(walk, "NUMBERS", 2 * CHUNK)
    assert walk.main(["--output", str(tmp_path / "run"), "--table"]) == 0
    printed = capsys.readouterr().out
    [line] = [line for line in printed.splitlines() if line.startswith("| `tanh` | `simd/sweep`")]
    [row] = [each for each in whole(records) if each["backend"] == "simd"]
    assert f"| {row['ulp']['max']:.3f} |" in line and f"| {row['ulp']['misrounded']:,} (" in line
    assert f"(`{row['ulp']['worst_input'].rpartition(', ')[2].rstrip(')')}`)" in line
    assert "a processor" in printed and "## Not walked" in printed


def test_what_is_asked_for_is_walked_into_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    planned: Callable[..., list[Piece]] = lambda *asked: pieces(1)  # noqa: E731
    monkeypatch.setattr(run, "plan_walks", planned)
    asked = ["tanh", "--output", str(tmp_path / "run")]
    assert walk.main(asked) == 0 and "tanh:simd/sweep" in capsys.readouterr().out
    assert walk.main([*asked, "--again"]) == 0
    assert len(read(tmp_path / "run")[1]) == 4 and len(whole(read(tmp_path / "run")[1])) == 2

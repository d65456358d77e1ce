"""The page's section on comparisons: verdicts first, failures before all, and a plot of the paired ratios."""

from __future__ import annotations

import json
import re
import runpy
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from ulproof.reports import load, render, verdicts

HERE = Path(__file__).parent
CHROMIUM: dict[str, Any] = runpy.run_path(str(HERE / "chromium.py"))
Row = dict[str, Any]


def row(
    implementation: str, verdict: str | None, estimate: float | None = None, n: int = 1024, **fields: Any
) -> dict[str, Any]:
    made: dict[str, Any] = {"kind": "verdict", "status": "ok", "reason": None, "operator": "softmax", "target": "cpu"}
    made |= {"implementation": implementation, "backend": implementation.split("/")[0], "verdict": verdict, "fails": False}
    if estimate:
        made |= {"axes": {"rows": 1, "n": n}, "dtype": "float32", "pass": "forward", "threads": 1, "cache": "hot"}
        made |= {"ratio": {"estimate": estimate, "low": estimate * 0.99, "high": estimate * 1.01, "confidence": 0.99}}
        made |= {"twin": {"estimate": 1.0, "low": 0.995, "high": 1.005}, "ratios": [estimate * 0.998, estimate * 1.002]}
        made |= {"twin_ratios": [0.999, 1.001], "base_seconds": 1e-6, "head_seconds": estimate * 1e-6, "margin": 0.02}
        made |= {"base_ulp": 1.5, "head_ulp": 1.5, "restarts": 5, "rounds": 100, "dropped": 0}
    return made | fields


ROWS = [
    row("simd/auto", "same", 1.0),
    row("simd/two-pass", "slower", 1.05, head_ulp=2.5),
    row("simd/two-pass", "slower", 1.25, n=4096),
    row("simd/online", "faster", 0.9),
    row("numpy/three-pass", "same", reason="identical code"),
    row("simd/new-one", "new"),
    row("simd/broken", "faster", 0.5, fails=True, status="wrong", reason="normal: 1e6 ULP", head_ulp=None),
    row("simd/gone", None, status="crashed", reason="signal 11 <script>"),
]


def compared(folder: Path, rows: list[dict[str, Any]] = ROWS, **fields: Any) -> pd.DataFrame:
    folder.mkdir()
    comparison: dict[str, Any] = {"headline": "wrong numerics: work against main: 1 WRONG, 2 slower", "exit_code": 2}
    comparison |= {"base": {"name": "main", "commit": "b" * 40}, "head": {"name": "work", "commit": None}, "margin": 0.02}
    comparison |= {"counts": {"planned": 7, "measured": 5, "identical": 1, "skipped": {"unavailable: no GPU": 3}, "failed": 2}}
    comparison |= {"budget": 120, "spent": 34.5, "took_turns": True, "contracts": ["softmax: forward gate"], "notes": []}
    comparison |= {"more": "60 s more would settle 1"}
    header = {"format": 1, "started": "2026-01-01T00:00:00Z", "environment": {}, "plan": {}, "comparison": comparison | fields}
    (folder / "run.json").write_text(json.dumps(header))
    (folder / "records.jsonl").write_text("".join(json.dumps(each) + "\n" for each in rows))
    return load(folder)


def test_verdicts_come_first_and_failures_before_all(tmp_path: Path) -> None:
    page = render(compared(tmp_path / "run"))
    assert page.index('id="verdicts"') < page.index('id="findings"')
    assert 'href="#verdicts"' in page and 'id="overview"' not in page
    section = page[page.index('id="verdicts"') : page.index('id="findings"')]
    order = re.findall(r'class="badge [\w-]+">(\w+)<.*?mark-\d+"/></svg>([\w/-]+)<', section)
    assert order == [
        ("WRONG", "simd/broken"),
        ("slower", "simd/two-pass"),
        ("slower", "simd/two-pass"),
        ("faster", "simd/online"),
        ("same", "simd/auto"),
        ("new", "simd/new-one"),
        ("crashed", "simd/gone"),
    ]
    for said in ("contract changed: softmax: forward gate", "60 s more would settle 1", "3: unavailable: no GPU", "+25.00 %"):
        assert said in section
    assert "work against main (bbbbbbbbbb)" in section and "1 rest on identical code" in section
    assert "1.50 → 2.50" in section and "1.50 → NaN/∞" in section
    assert "<script>" not in section and "signal 11 &lt;script&gt;" in section


def test_the_plot_shows_what_was_measured(tmp_path: Path) -> None:
    page = render(compared(tmp_path / "run"))
    svg = page[page.index('<figure class="wide">') :]
    svg = svg[: svg.index("</figure>")]
    assert svg.count("<title>") == 5 and "softmax:simd/broken" in svg and "simd/new-one" not in svg
    assert re.search(r"softmax:simd/two-pass, 1 × 4,096.*: \+25 % \(\+23\.\d to \+26\.\d\), slower</title>", svg)
    assert not re.search(r"#[0-9a-f]{6}\b", svg)


def test_a_comparison_without_measurements_has_no_plot(tmp_path: Path) -> None:
    page = render(compared(tmp_path / "run", [row("simd/auto", "same", reason="identical code")]))
    assert "<figure" not in page and "1 rest on identical code" in page


def test_many_workloads_leave_some_to_the_table(tmp_path: Path) -> None:
    rows = [row("simd/auto", "same", 1.0 + 1e-4 * n, n=n) for n in range(64, 64 + verdicts.DRAWN + 5)]
    page = render(compared(tmp_path / "run", rows))
    assert "5 more are in the table" in page and len(page) < 300_000


@pytest.mark.parametrize("ratio", [0.02, 60.0])
def test_a_huge_change_stays_on_the_plot(tmp_path: Path, ratio: float) -> None:
    page = render(compared(tmp_path / "run", [row("simd/auto", "slower", ratio)]))
    x = [float(each) for each in re.findall(r"translate\((-?[\d.]+)", page)]
    assert all(-1 <= each <= 605 for each in x)


@pytest.mark.skipif(CHROMIUM["PROGRAM"] is None, reason="Chromium is not installed")
def test_verdicts_and_history_fit_a_browser(tmp_path: Path) -> None:
    compared(tmp_path / "comparison")
    runs = runpy.run_path(str(HERE / "test_history.py"))["write"](tmp_path, 6, {"simd/auto": lambda number: 1.0 + (number > 2)})
    file = tmp_path / "report.html"
    file.write_text(render(load([tmp_path / "comparison", *runs])))
    with CHROMIUM["browser"]() as page:
        for width in (400, 1400):
            page.show(width)
            page.open(file)
            assert page.run("document.scrollingElement.scrollWidth") <= width
            assert page.run("document.querySelectorAll('#verdicts svg text, #history svg text').length") > 10
        assert set(page.requests) == {file.as_uri()} and page.errors == []

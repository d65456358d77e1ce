"""The report in a real browser: it loads nothing, complains of nothing, sorts, filters, fits and follows the colour scheme."""

from __future__ import annotations

import json
import runpy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ulproof.reports import load, render

HERE = Path(__file__).parent
CHROMIUM: dict[str, Any] = runpy.run_path(str(HERE / "chromium.py"))
SYNTHETIC: dict[str, Any] = runpy.run_path(str(HERE / "synthetic_run.py"))

pytestmark = pytest.mark.skipif(CHROMIUM["PROGRAM"] is None, reason="Chromium is not installed")

TABLE = "document.querySelector('#table')"
ROWS = f"[...{TABLE}.tBodies[0].rows].map(row => [...row.cells].map(cell => cell.textContent))"
HEADINGS = f"[...{TABLE}.tHead.rows[0].cells].map(cell => cell.textContent)"


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    path = folder / "report.html"
    path.write_text(render(load(SYNTHETIC["write_run"](folder / "run"))))
    return path


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page of more operators than are open at first."""
    folder = tmp_path_factory.mktemp("many")
    path = folder / "report.html"
    path.write_text(render(load(SYNTHETIC["write_run"](folder / "run", ("softmax", *SYNTHETIC["ELEMENTWISE"])))))
    return path


@pytest.fixture(scope="module")
def tab() -> Iterator[Any]:
    with CHROMIUM["browser"]() as page:
        yield page


@pytest.fixture
def page(tab: Any, file: Path) -> Any:
    tab.requests.clear()
    tab.errors.clear()
    tab.show(1400)
    tab.open(file)
    tab.run(
        "new Promise(done => (function wait() { document.querySelector('#table tbody tr') ? done() : setTimeout(wait, 10) })())"
    )
    return tab


def choose(page: Any, name: str, value: str) -> None:
    field = f"document.forms.filters.elements[{json.dumps(name)}]"
    page.run(f"{field}.value = {json.dumps(value)}, {field}.dispatchEvent(new Event('input', {{bubbles: true}}))")


def column(page: Any, heading: str) -> list[str]:
    place = page.run(HEADINGS).index(heading)
    return [row[place] for row in page.run(ROWS)]


def sort(page: Any, heading: str) -> None:
    place = page.run(HEADINGS).index(heading)
    page.run(f"{TABLE}.tHead.rows[0].cells[{place}].querySelector('button').click()")


def seconds(text: str) -> float:
    number, unit = text.split()
    return float(number) * {"s": 1.0, "ms": 1e-3, "µs": 1e-6, "ns": 1e-9}[unit]


def test_no_request_and_no_complaint(page: Any, file: Path) -> None:
    assert page.requests == [file.as_uri()]
    assert page.errors == []


def test_hostile_labels_stay_text(page: Any) -> None:
    assert page.run("document.querySelectorAll('script').length") == 3
    assert page.run("document.images.length") == 0
    choose(page, "words", "onerror suspect")
    assert column(page, "implementation") == [f"peer/{SYNTHETIC['HOSTILE']}"]


def test_a_click_sorts_and_another_turns_round(page: Any) -> None:
    sort(page, "cold")
    rising = [seconds(text) for text in column(page, "cold")]
    assert len(rising) == 200 and rising == sorted(rising)
    assert page.run(f"{TABLE}.querySelector('[aria-sort]').ariaSort") == "ascending"
    sort(page, "cold")
    falling = [seconds(text) for text in column(page, "cold") if text]
    assert falling == sorted(falling, reverse=True) and falling[0] > rising[0]


def test_shapes_sort_by_size(page: Any) -> None:
    sort(page, "shape")
    first = column(page, "shape")[0]
    assert first == "1 × 64"
    sort(page, "shape")
    assert column(page, "shape")[0] == "4,096 × 1,024"


def test_an_error_without_bound_sorts_above_all(page: Any) -> None:
    choose(page, "kind", "accuracy")
    sort(page, "max ULP")
    sort(page, "max ULP")
    errors = column(page, "max ULP")
    assert errors[:4] == ["NaN/∞"] * 4 and "NaN/∞" not in errors[4:]
    assert column(page, "status")[:4] == ["wrong"] * 4


def test_filters_combine(page: Any) -> None:
    everything = page.run("document.querySelector('#shown').textContent")
    choose(page, "operator", "softmax")
    choose(page, "isa", "avx2")
    choose(page, "words", "two-pass published")
    assert set(column(page, "implementation")) == {"simd/two-pass-as-published"}
    assert set(column(page, "ISA")) == {"avx2"}
    assert len(column(page, "ISA")) == len(SYNTHETIC["LENGTHS"]) + 2
    choose(page, "words", "no such thing")
    assert page.run(ROWS) == []
    for name in ("words", "operator", "isa"):
        choose(page, name, "")
    assert page.run("document.querySelector('#shown').textContent") == everything


def test_hot_and_cold_stand_side_by_side(page: Any) -> None:
    choose(page, "implementation", "simd/auto")
    headings = page.run(HEADINGS)
    assert headings.index("hot") == headings.index("cold") + 1 and "graph" in headings and "as called" in headings
    assert all(column(page, "cold")) and all(column(page, "hot")) and not any(column(page, "graph"))


def test_more_rows_come_on_request(page: Any) -> None:
    before = len(page.run(ROWS))
    page.run("document.querySelector('#more').click()")
    assert before == 200 and len(page.run(ROWS)) == 400


OPERATORS = "[...document.querySelectorAll('.operator')]"
OVERVIEW = "[...document.querySelectorAll('#overview table.sortable tbody tr')]"


def shown(tab: Any, elements: str) -> list[str]:
    return tab.run(f"{elements}.filter(each => each.getClientRects().length).map(each => each.dataset.operator)")


def test_many_operators_are_closed_until_one_asks_for_them(tab: Any, many: Path) -> None:
    tab.show(1400)
    tab.open(many)
    opened = f"{OPERATORS}.filter(each => each.firstElementChild.open).map(each => each.dataset.operator)"
    assert len(shown(tab, OPERATORS)) == 9 and tab.run(opened) == []
    link = "document.querySelector('#overview a[href=\"#op-gelu\"]')"
    tab.run(f"new Promise(done => {{ addEventListener('hashchange', () => setTimeout(done)); {link}.click() }})")
    assert tab.run(opened) == ["gelu"]
    tab.run("document.querySelector('#op-gelu > details').open = false")
    tab.run(f"{link}.click()")
    assert tab.run(opened) == ["gelu"], "a second click on the same link, too"
    tab.run("document.querySelector('#unfold').click()")
    assert len(tab.run(opened)) == 9
    tab.run("document.querySelector('#fold').click()")
    assert tab.run(opened) == []


def test_operators_are_found_by_their_names(tab: Any, many: Path) -> None:
    tab.open(many)
    find = "document.querySelector('#find')"

    def words(text: str) -> str:
        tab.run(f"{find}.value = {json.dumps(text)}, {find}.dispatchEvent(new Event('input', {{bubbles: true}}))")
        return tab.run("document.querySelector('#found').textContent")

    assert words("ELU sig") == "4 of 9"
    assert shown(tab, OPERATORS) == shown(tab, OVERVIEW) == ["relu", "gelu", "sigmoid", "crrelu"]
    assert words("nothing") == "0 of 9" and shown(tab, OVERVIEW) == []
    assert words("") == "" and len(shown(tab, OPERATORS)) == len(shown(tab, OVERVIEW)) == 9


def test_the_overview_sorts_by_value(tab: Any, many: Path) -> None:
    tab.open(many)
    heads = "[...document.querySelectorAll('#overview table.sortable thead th')]"
    place = tab.run(f"{heads}.findIndex(each => each.textContent === 'Share of roof')")
    click = f"{heads}[{place}].querySelector('button').click()"
    values = f"{OVERVIEW}.map(row => Number(row.cells[{place}].dataset.value))"
    before = tab.run(values)
    tab.run(click)
    assert tab.run(values) == sorted(before) != before
    tab.run(click)
    assert tab.run(values) == sorted(before, reverse=True)
    tab.run(f"{heads}[0].querySelector('button').click()")
    assert shown(tab, OVERVIEW) == sorted(shown(tab, OVERVIEW))


@pytest.mark.parametrize("width", [400, 1400])
@pytest.mark.parametrize("which", ["page", "many"])
def test_nothing_overflows(page: Any, many: Path, which: str, width: int) -> None:
    if which == "many":
        page.open(many)
    page.show(width)
    page.run("document.querySelectorAll('details').forEach(each => each.open = true)")
    assert page.run("document.scrollingElement.scrollWidth") <= width
    outside = """[...document.querySelectorAll('body *')].filter(each => {
        if (each.closest('.scroll, nav, svg, select')) return false;
        const box = each.getBoundingClientRect();
        return box.width && box.right > innerWidth + 1;
    }).map(each => each.outerHTML.slice(0, 80))"""
    assert page.run(outside) == []


def test_light_and_dark_differ_and_can_be_read(page: Any) -> None:
    luminance = """(() => {
        const level = text => { const [r, g, b] = text.match(/[\\d.]+/g).map(Number).map(value => {
            value /= 255; return value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4; });
            return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
        const ground = element => { for (; element; element = element.parentElement) {
            const colour = getComputedStyle(element).backgroundColor;
            if (colour !== 'rgba(0, 0, 0, 0)') return colour; } };
        const contrast = (front, back) => { const [a, b] = [level(front), level(back)];
            return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05); };
        const texts = 'p, td, th, li, a, small, code, .badge, figcaption, dt, .scale i, figure text';
        const worst = {};
        for (const one of document.querySelectorAll(texts)) {
            if (!one.textContent.trim() || !one.getClientRects().length) continue;
            const style = getComputedStyle(one);
            const value = contrast(one.tagName === 'text' ? style.fill : style.color, ground(one));
            const name = one.tagName + '.' + (one.getAttribute('class') || '');
            worst[name] = Math.min(worst[name] ?? 99, value);
        }
        for (const one of document.querySelectorAll('figure path[style*="--c"]'))
            worst.line = Math.min(worst.line ?? 99, contrast(getComputedStyle(one).stroke, ground(one)));
        return {background: getComputedStyle(document.body).backgroundColor, worst};
    })()"""
    found = {}
    for scheme in ("light", "dark"):
        page.show(1400, scheme=scheme)
        found[scheme] = page.run(luminance)
        worst = found[scheme]["worst"]
        assert worst.pop("line") >= 3.0
        assert len(worst) > 10
        assert {name: value for name, value in worst.items() if value < 4.5} == {}, scheme
    assert found["light"]["background"] != found["dark"]["background"]


def test_without_scripts_the_results_remain(tab: Any, file: Path) -> None:
    tab.call("Emulation.setScriptExecutionDisabled", value=True)
    try:
        tab.open(file)
    finally:
        tab.call("Emulation.setScriptExecutionDisabled", value=False)
    assert tab.run("document.querySelector('#browser').hidden")
    assert tab.run("document.querySelectorAll('#overview tbody tr').length") > 3
    assert tab.run("document.querySelectorAll('figure > svg').length") == 10
    assert tab.run(
        "[...document.querySelectorAll('#op-softmax tbody td')].some(cell => cell.textContent.includes('simd/auto'))"
    )

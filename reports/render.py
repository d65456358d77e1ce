"""The report: one self-contained HTML page from a frame of records."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from . import history, tables, units, verdicts
from .charts import ORDER, chart, rounded
from .looks import DARK, LIGHT, MARKS, Look, looks
from .sweeps import RIVALS, Crossover, Sweep, caches_of, crossover, isas_of, sweeps

TEMPLATES = Path(__file__).with_name("templates")
OPEN = 5  # operators whose sections are open at first; of more all are closed
WHOLE = 6  # operators that get every kind of chart; the others get their bandwidth
SHORT = 12  # rows that a table shows before it scrolls


def render(runs: pd.DataFrame, *, title: str = "ulproof report") -> str:
    """The whole report on the records that ``load`` gives, as one HTML page that asks nothing of any network.

    Raises ``ValueError`` when there is no record at all.
    """
    if not len(runs):
        raise ValueError("nothing to report: the runs hold no record")
    headers = runs.attrs.get("runs", [])
    runs = runs.copy(deep=False)
    runs.attrs = {}  # pandas copies them deeply with every slice
    look = looks(tables.ranked(runs))
    data, judged = packed(tables.records(runs)), runs[runs["kind"] == "verdict"]
    counts, runs = tables.counts(runs), runs[runs["kind"] != "verdict"]
    histories = list(history.histories(runs))
    operators = sections(runs, headers, look)
    script = (TEMPLATES / "page.js").read_text()
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(
        quoted=quoted,
        number=lambda value: "" if not units.known(value) else f"{value:.6g}",
        seconds=units.seconds,
        size=units.size,
        percent=units.percent,
        ratio=units.ratio,
        ulp=units.ulp,
        rate=units.rate,
    )
    return environment.get_template("page.html").render(
        title=title,
        style=(TEMPLATES / "style.css").read_text(),
        script=script,
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        palette=list(zip(LIGHT, DARK, strict=True)),
        look=look,
        marks=MARKS,
        places={name: place for place, name in enumerate(look)},
        machines=tables.machines(headers),
        findings=[finding for header in headers for finding in header.get("findings") or []],
        comparisons=verdicts.comparisons(judged, headers, look),
        overview=tables.overview(runs),
        problems=tables.problems(runs),
        operators=operators,
        sections={operator["name"] for operator in operators},
        open=len(operators) <= OPEN,
        short=SHORT,
        history=history.figures(histories, look),
        steps=history.steps(histories),
        most_steps=history.STEPS,
        ceilings=tables.ceilings(runs),
        noise=tables.noise(runs, headers),
        compiled=tables.compiled(runs),
        missing=tables.missing(runs),
        environment=tables.environment(headers),
        counts=counts,
        data=data,
        columns=embedded(tables.KINDS),
    )


def quoted(text: str) -> Markup:
    """Plain text with what stands between backquotes as code."""
    parts = (
        escape(part) if place % 2 == 0 else Markup("<code>{}</code>").format(part) for place, part in enumerate(text.split("`"))
    )
    return Markup("").join(parts)


def embedded(document: Any) -> str:
    """JSON that may stand inside a script element: no ``<`` is left to end it."""
    return json.dumps(document, separators=(",", ":")).replace("<", "\\u003c")


def packed(document: Mapping[str, Any]) -> str:
    """JSON, compressed and in base64: nothing in it can end a script element."""
    text = json.dumps(document, separators=(",", ":"), allow_nan=False)
    return base64.b64encode(gzip.compress(text.encode(), 9, mtime=0)).decode()


def sections(runs: pd.DataFrame, headers: Sequence[Mapping[str, Any]], look: Mapping[str, Look]) -> list[dict[str, Any]]:
    """What the page says of each operator: its charts, what they show in words, and its stability map."""
    ceilings = runs[runs["kind"] == "ceiling"]
    by_operator: dict[str, list[Sweep]] = {}
    for sweep in sweeps(runs):
        by_operator.setdefault(sweep.operator, []).append(sweep)
    whole = drawn_whole(by_operator)
    fastest = tables.headline(runs)
    found = []
    for operator, mine in runs[runs["operator"].notna()].groupby("operator", sort=False):
        figures = []
        for sweep in by_operator.get(operator, []):
            others = pd.concat([each.frame[["isa"]] for each in by_operator[operator] if each.target == sweep.target])
            kinds = kinds_of(sweep, operator in whole, first=sweep.isa == isas_of(others)[0])
            figures += [figure(kind, sweep, cache_sizes(headers, sweep), ceilings, look) for kind in kinds]
        maps, exhaustive = tables.stability(mine), tables.exhaustive(mine)
        if figures or maps or operator in fastest:
            tabled = {"maps": maps, "exhaustive": exhaustive, "fastest": fastest.get(operator, [])}
            found.append({"name": operator, "figures": figures, **tabled})
    return found


def drawn_whole(by_operator: Mapping[str, Sequence[Sweep]]) -> set[str]:
    """Of the operators along rows, those with the most records. Elementwise ones have no length but the working set's, which
    the bandwidth's chart is drawn over."""
    records = {
        name: sum(len(sweep.frame) for sweep in found)
        for name, found in by_operator.items()
        if any(each.fixed for each in found)
    }
    return set(sorted(records, key=lambda name: -records[name])[:WHOLE])


def kinds_of(sweep: Sweep, whole: bool, first: bool) -> list[str]:
    """The charts of a sweep: every kind for the first ISA of an operator that gets them all; where one algorithm overtakes
    another, bandwidth for the other ISAs too."""
    kinds = ["throughput"] if sweep.frame["bytes"].notna().any() else []
    if not first:
        return kinds if any(crossover(sweep, pair) for pair in RIVALS) else []
    if whole and (sweep.frame["flops"].notna() & sweep.frame["bytes"].notna()).any():
        kinds.insert(0, "roofline")
    return [*kinds, "latency"] if whole or not kinds else kinds


def figure(
    kind: str, sweep: Sweep, caches: Mapping[str, int], ceilings: pd.DataFrame, look: Mapping[str, Look]
) -> dict[str, Any]:
    """One chart with its caption, legend, and what it shows in words."""
    lines = sweep.lines(*ORDER[kind])
    return {
        "kind": kind,
        "svg": chart(kind, sweep, caches, ceilings, look),
        "label": sweep.label,
        "lines": list(lines),
        "words": crossings(sweep) if kind == "throughput" else [],
        "data": data_in_words(lines, ORDER[kind]),
    }


def data_in_words(lines: Mapping[str, pd.DataFrame], order: Sequence[str]) -> str:
    """Where the data of a chart's points lay before each call."""
    names = {"hot": "data in the cache that holds it", "cold": "data out of cache", "graph": "replayed as a CUDA graph"}
    shown = [names[cache] for cache in order if cache in caches_of(lines)]
    return ", else ".join(shown).capitalize() + "." if shown else ""


def cache_sizes(headers: Sequence[Mapping[str, Any]], sweep: Sweep) -> Mapping[str, int]:
    """Bytes of each cache level where the sweep ran, from its run's description."""
    mine = set(sweep.frame["run"])
    header = next((header for header in headers if header["id"] in mine), {})
    environment = header.get("environment") or {}
    if sweep.target.startswith("cuda"):
        gpus: Sequence[Any] = environment.get("gpus") or []
        gpu = gpus[int(sweep.target.partition(":")[2] or 0)] if gpus else None
        return (gpu.get("caches") or {}) if isinstance(gpu, Mapping) else {}
    caches = (environment.get("cpu") or {}).get("caches") or {}
    return {level: int(size) for level, size in caches.items() if isinstance(size, int | float)}


def crossings(sweep: Sweep) -> list[str]:
    """Where one algorithm overtakes its rival, in words."""
    found = [crossover(sweep, pair, *ORDER["throughput"]) for pair in RIVALS]
    return [in_words(each) for each in found if each]


def in_words(found: Crossover) -> str:
    later, earlier = (name.partition("/")[2] for name in (found.later, found.earlier))
    if found.length == 0:
        return f"{later} is ahead of {earlier} at every length measured."
    if found.length == float("inf"):
        return f"{later} does not overtake {earlier} at any length measured."
    return f"{later} overtakes {earlier} at n ≈ {rounded(found.length)} ({units.size(float(f'{found.bytes:.2g}'))} in and out)."

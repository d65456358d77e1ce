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

from . import history, tables, units
from .charts import ORDER, chart, rounded
from .looks import DARK, LIGHT, MARKS, Look, looks
from .sweeps import RIVALS, Crossover, Sweep, caches_of, crossover, isas_of, sweeps

TEMPLATES = Path(__file__).with_name("templates")


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
    histories = list(history.histories(runs))
    script = (TEMPLATES / "page.js").read_text()
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(
        quoted=quoted,
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
        overview=tables.overview(runs),
        problems=tables.problems(runs),
        operators=sections(runs, headers, look),
        history=history.figures(histories, look),
        steps=history.steps(histories),
        most_steps=history.STEPS,
        ceilings=tables.ceilings(runs),
        noise=tables.noise(runs, headers),
        compiled=tables.compiled(runs),
        missing=tables.missing(runs),
        environment=tables.environment(headers),
        counts=tables.counts(runs),
        data=packed(tables.records(runs)),
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
    fastest = tables.headline(runs)
    found = []
    for operator in dict.fromkeys(runs["operator"].dropna()):
        figures = []
        for sweep in by_operator.get(operator, []):
            caches = cache_sizes(headers, sweep)
            first = (
                sweep.isa
                == isas_of(pd.concat([each.frame for each in by_operator[operator] if each.target == sweep.target]))[0]
            )
            rivals = any(crossover(sweep, pair) for pair in RIVALS)
            for kind in ("roofline", "throughput", "latency") if first else ("throughput",) if rivals else ():
                if kind == "roofline" and not (sweep.frame["flops"].notna() & sweep.frame["bytes"].notna()).any():
                    continue
                if kind == "throughput" and not sweep.frame["bytes"].notna().any():
                    continue
                lines = sweep.lines(*ORDER[kind])
                figures.append(
                    {
                        "kind": kind,
                        "svg": chart(kind, sweep, caches, ceilings, look),
                        "label": sweep.label,
                        "lines": list(lines),
                        "words": crossings(sweep) if kind == "throughput" else [],
                        "data": data_in_words(lines, ORDER[kind]),
                    }
                )
        maps = tables.stability(runs[runs["operator"] == operator])
        if figures or maps or operator in fastest:
            found.append({"name": operator, "figures": figures, "maps": maps, "fastest": fastest.get(operator, [])})
    return found


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

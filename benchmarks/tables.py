"""Records as plain text for the terminal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from .presets import shape
from .record import badness, whole

Record = Mapping[str, Any]
BAD = ("wrong", "crashed", "timeout")


def columns(rows: Sequence[Sequence[str]], gap: str = "  ") -> str:
    """Rows of text as aligned columns; the first is the heading."""
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))] if rows else []
    lines = (gap.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows)
    return "\n".join(lines)


def quantity(value: float | None, unit: str) -> str:
    """A number with three digits and a prefix: ``22.1 us``, ``37.2 GB/s``."""
    if value is None:
        return ""
    prefixes = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, ""), (1e-3, "m"), (1e-6, "u"), (1e-9, "n"))
    factor, prefix = next((each for each in prefixes if abs(value) >= each[0]), prefixes[-1])
    return f"{value / factor:.3g} {prefix}{unit}"


def ulps(ulp: Mapping[str, Any] | None) -> str:
    if not ulp:
        return ""
    return "not finite" if ulp["max"] is None else f"{ulp['max']:.3g}"


def check_table(records: Iterable[Record]) -> str:
    """The worst of each implementation, by dtype and pass, and what is wrong."""
    worst: dict[tuple[str, ...], list[Record]] = {}
    for each in whole(records):
        name: tuple[str, ...] = (
            f"{each['operator']}:{each['implementation']}",
            each["pass"],
            each["dtype"],
            each["target"],
            each["isa"] or "",
        )
        worst.setdefault(name, []).append(each)
    rows: list[tuple[str, ...]] = [("implementation", "pass", "dtype", "target", "ISA", "checks", "max ULP", "on", "status")]
    for name, each_of in worst.items():
        top = max(each_of, key=badness)
        bad = [each for each in each_of if each["status"] != "ok"]
        said = f"{top['status']}: {top['reason']}" if bad else "ok"
        rows.append((*name, str(len(each_of)), ulps(top.get("ulp")), top["stress"] or "", said))
    return columns(rows)


def ceiling_table(records: Iterable[Record]) -> str:
    """Each roof, a column for each thread count."""
    records = [each for each in records if each.get("rate")]
    counts = sorted({each["threads"] for each in records})
    by_name: dict[tuple[str, ...], dict[int, str]] = {}
    for each in records:
        name = tuple(str(each[field] or "") for field in ("target", "ceiling", "level", "dtype", "isa"))
        by_name.setdefault(name, {})[each["threads"]] = quantity(each["rate"], each["unit"].replace("bytes", "B"))
    rows = [("target", "ceiling", "level", "dtype", "ISA", *(f"{count} thread(s)" for count in counts))]
    rows += [(*name, *(found.get(count, "") for count in counts)) for name, found in sorted(by_name.items())]
    notes = {each["reason"] for each in records if each.get("reason")}
    return "\n".join([columns(rows), *sorted(notes)])


def run_table(records: Iterable[Record], most: int = 3) -> str:
    """Times of each operator's first ``most`` workloads, then every row that went wrong."""
    timed = [each for each in records if each["kind"] == "time"]
    groups: dict[str, dict[tuple[Any, ...], list[Record]]] = {}
    for each in timed:
        if each.get("seconds"):
            workload = (each["pass"], each["dtype"], shape(each["axes"]), each["target"], each["threads"], each["cache"])
            groups.setdefault(each["operator"], {}).setdefault(workload, []).append(each)
    rows: list[tuple[str, ...]] = [("implementation", "time", "+-", "as called", "roof", "max ULP", "")]
    for operator, workloads in groups.items():
        for (pass_, dtype, axes, target, threads, cache), found in list(workloads.items())[:most]:
            where = f"{target}, {threads} thread(s), {cache}" if target == "cpu" else f"{target}, {cache}"
            rows.append((f"{operator} {pass_} {dtype} {axes} ({where})", *[""] * 6))
            for each in sorted(found, key=lambda each: each["seconds"]["median"]):
                rows.append(_timed(each))
    text = columns(rows) if len(rows) > 1 else ""
    bad = {
        (f"{each['operator']}:{each['implementation']}", each["status"], str(each["reason"]))
        for each in timed
        if each["status"] in BAD
    }
    more = [f"{status}: {name}: {reason}" for name, status, reason in sorted(bad)]
    return "\n".join([text, *more])


def _timed(each: Record) -> tuple[str, ...]:
    seconds, called, roof = each["seconds"], each.get("seconds_as_called"), each.get("roof")
    return (
        f"  {each['implementation']}" + (f" {each['isa']}" if each["isa"] else ""),
        quantity(seconds["median"], "s"),
        f"{(seconds['high'] - seconds['low']) / 2 / seconds['median']:.1%}",
        quantity(called["median"], "s") if called else "",
        f"{roof['seconds'] / seconds['median']:.0%} ({roof['binds']})" if roof else "",
        ulps(each.get("ulp")),
        "" if each["status"] == "ok" else each["status"],
    )

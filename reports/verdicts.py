"""What comparisons of two builds found: the verdict first, then every workload with its interval, and the ratios behind it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from . import units
from .charts import verdict_chart
from .looks import Look
from .sweeps import axes_of
from .tables import shape

ORDER = ("slower", "faster", "inconclusive", "same", "new", "removed")
DRAWN = 40  # workloads at most, in one chart
IDENTICAL = "identical code"
Row = dict[str, Any]


def comparisons(runs: pd.DataFrame, headers: Iterable[Mapping[str, Any]], look: Mapping[str, Look]) -> list[Row]:
    """What the page shows of each run that is a comparison; ``runs`` are its records of kind ``verdict``."""
    found = []
    for place, header in enumerate(header for header in headers if header.get("comparison")):
        told = header["comparison"]
        rows = [row_of(record, axes_of(runs)) for record in runs[runs["run"] == header["id"]].to_dict("records")]
        rows.sort(key=importance)
        drawn = [row for row in rows if row["ratio"]][:DRAWN]
        counts = told["counts"]
        skipped = sum(counts["skipped"].values())
        found.append(
            {
                "id": header["id"],
                "headline": told["headline"],
                "good": told["exit_code"] == 0,
                "sides": " against ".join(named(told[side]) for side in ("head", "base")),
                "rows": [row for row in rows if not row["identical"]],
                "identical": [row["name"] for row in rows if row["identical"]],
                "counts": f"Planned {counts['planned']}, measured {counts['measured']}, identical {counts['identical']}, "
                f"skipped {skipped}, failed {counts['failed']}.",
                "skipped": counts["skipped"],
                "spent": f"{told['spent']:.0f} of {told['budget']:.0f} s spent measuring." if told.get("budget") else "",
                "margin": told["margin"],
                "took_turns": told["took_turns"],
                "remarks": [*(f"contract changed: {each}" for each in told["contracts"]), *told["notes"]]
                + ([told["more"]] if told["more"] else []),
                "svg": verdict_chart(drawn, told["margin"], look, f"verdicts-{place}") if drawn else "",
                "undrawn": sum(row["ratio"] is not None for row in rows) - len(drawn),
            }
        )
    return found


def named(side: Mapping[str, Any]) -> str:
    commit = side["commit"]
    return side["name"] + (f" ({commit[:10]})" if commit and not commit.startswith(side["name"]) else "")


def row_of(record: Mapping[Any, Any], axes: Sequence[str]) -> Row:
    """A record of kind ``verdict`` as the page shows it."""
    threads = record["threads"]
    parts = (
        shape(record, axes),
        record["dtype"],
        record["pass"],
        record["isa"],
        record["target"] if record["target"] != "cpu" else None,
        f"{threads:.0f} threads" if threads > 1 else None,
        record["cache"] if record["cache"] != "hot" else None,
    )
    errors = [units.ulp(record[f"{side}_ulp"]) for side in ("base", "head")]
    verdict, status = record["verdict"], record["status"]
    return {
        "name": f"{record['operator']}:{record['implementation']}",
        "implementation": record["implementation"],
        "operator": record["operator"],
        "where": ", ".join(part for part in parts if part),
        "base": units.seconds(record["base_seconds"]),
        "head": units.seconds(record["head_seconds"]),
        "ratio": interval_of(record, "ratio"),
        "twin": interval_of(record, "twin"),
        "ratios": record["ratios"] if isinstance(record["ratios"], list) else [],
        "twin_ratios": record["twin_ratios"] if isinstance(record["twin_ratios"], list) else [],
        "ulp": errors[0] if errors[0] == errors[1] else " → ".join(errors),
        "verdict": verdict,
        "fails": bool(record["fails"]) and record["fails"] == record["fails"],
        "said": "WRONG" if record["fails"] is True else verdict or status,
        "reason": record["reason"] or "",
        "identical": verdict == "same" and record["reason"] == IDENTICAL,
    }


def interval_of(record: Mapping[Any, Any], name: str) -> Row | None:
    """A ratio with its interval, and as words: +5.1 % (+4.8 to +5.4)."""
    estimate, low, high = (record[f"{name}.{each}"] for each in ("estimate", "low", "high"))
    if not units.known(estimate):
        return None
    words = f"{100 * (estimate - 1):+.2f} %", f"{100 * (low - 1):+.2f} to {100 * (high - 1):+.2f}"
    return {"estimate": estimate, "low": low, "high": high, "words": words[0], "range": words[1]}


def importance(row: Row) -> tuple[bool, int, float]:
    """Failures first, then by verdict, the largest change first."""
    place = ORDER.index(row["verdict"]) if row["verdict"] in ORDER else len(ORDER)
    return not row["fails"], place, -abs(math.log(row["ratio"]["estimate"])) if row["ratio"] else 0.0

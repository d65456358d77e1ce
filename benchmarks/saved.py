"""Verdicts on two saved results: run folders, or JSON files of pytest-benchmark. Their sides did not take turns.

Each side's own interval says how sure it is of itself; it can't say how far two runs of the same code lie apart, which on a
shared machine is far more. That comes from the *controls*: what the two sides have in common and neither commit can have
changed, which is other people's code at the same version, and measured roofs. The largest distance among them, or the noise
that the sides recorded where that is more, widens every interval; with too few controls, ``ELSEWHERE`` does.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import NormalDist
from typing import Any

from .check import fails
from .lookup import load as implementations
from .lookup import operators
from .measure.statistics import CONFIDENCE, LEAST, ranks
from .record import RUN, Record, key, read

APART = "the sides did not take turns"
ELSEWHERE = 0.43  # identical code, two processes on a shared 2-core machine, each where the scheduler put it
FIELDS = ("operator", "implementation", "target", "isa", "threads", "dtype", "pass", "axes", "cache")
TIMED = ("ok", "inaccurate")


@dataclass(frozen=True)
class Side:
    """One saved result: its time records by what they measured, its roofs, and what it was measured with."""

    path: Path
    commit: str | None
    times: Mapping[str, Record]
    checks: Sequence[Record] = ()
    roofs: Mapping[str, float] = field(default_factory=dict)
    versions: Mapping[str, Any] = field(default_factory=dict)


def is_saved(path: str | Path) -> bool:
    """Whether ``path`` is a run folder or a file, so that it can't be meant as a commit."""
    return (Path(path) / RUN).is_file() or Path(path).is_file()


def load(path: str | Path) -> Side:
    """A run folder or a pytest-benchmark JSON file. Raises ``RunError`` or ``ValueError`` where it is neither."""
    path = Path(path)
    if path.is_dir():
        run, records = read(path)
        times = {key(each): each for each in records if each["kind"] == "time"}
        roofs = {key(each): each["rate"] for each in records if each["kind"] == "ceiling" and each.get("rate")}
        checks = [each for each in records if each["kind"] == "accuracy"]
        return Side(path, run.get("commit"), times, checks, roofs, run["environment"].get("versions") or {})
    from ulproof.reports import drivers

    header, records = drivers.pytest_benchmark(path)
    document = json.loads(path.read_text())
    times = {}
    for benchmark, each in zip(document["benchmarks"], records, strict=True):
        stats = benchmark["stats"]
        kept = {name: stats[name] for name in ("data", "iqr") if stats.get(name)}
        times[benchmark.get("fullname") or key(each)] = each | {"seconds": {**each["seconds"], **kept}}
    return Side(path, (document.get("commit_info") or {}).get("id"), times)


def interval(seconds: Mapping[str, Any], confidence: float) -> tuple[float, float] | None:
    """An interval of a side's median: from its samples, of any distribution; else from its 99% interval or its quartiles,
    as if the error were normal; else ``None``."""
    median, count = seconds["median"], seconds.get("samples") or 1
    if data := seconds.get("data"):
        if 1 - 2 ** (1 - len(data)) < confidence:
            return None
        ordered = sorted(data)
        low, high = ranks(len(ordered), confidence)
        return ordered[low], ordered[high]
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    if seconds.get("low") and seconds.get("high"):
        wider = z / NormalDist().inv_cdf((1 + CONFIDENCE) / 2)
        return median * (seconds["low"] / median) ** wider, median * (seconds["high"] / median) ** wider
    if seconds.get("iqr") and count >= LEAST:
        # 1.2533 s / sqrt(n) is the standard error of a median, iqr / 1.349 a standard deviation that outliers leave alone.
        error = 1.2533 * seconds["iqr"] / 1.349 / math.sqrt(count)
        return max(median - z * error, median / 1e3), median + z * error
    return None


def controls(base: Side, head: Side) -> list[float]:
    """How far what can't have changed lies apart, as |ln(ratio)|."""
    same = all(base.versions.get(name) == head.versions.get(name) for name in ("torch", "numpy", "scipy"))
    found = []
    for name in base.times.keys() & head.times.keys() if same else ():
        one, other = base.times[name], head.times[name]
        if one.get("backend") == "peer" and one.get("seconds") and other.get("seconds"):
            found.append(abs(math.log(other["seconds"]["median"] / one["seconds"]["median"])))
    found += [abs(math.log(head.roofs[name] / rate)) for name, rate in base.roofs.items() if name in head.roofs]
    return found


def compare(base: Side, head: Side, margin: float = 0.02) -> list[Record]:
    """A row for each workload that either side has: what is said of it, why, and both sides' times and errors.

    ``ratio`` is the head's median time over the base's with an interval at 99%, shared out over the rows that are judged and
    widened by ``noise``. Raises ``ValueError`` where the sides are not of a kind.
    """
    if base.path.is_dir() != head.path.is_dir():
        raise ValueError(f"{base.path} and {head.path}: can't compare a run folder with a file; name two of a kind")
    both = base.times.keys() & head.times.keys()
    pairs = {name: (base.times[name], head.times[name]) for name in both}
    judged = [name for name, pair in pairs.items() if all(each.get("seconds") and each["status"] in TIMED for each in pair)]
    confidence = 1 - (1 - CONFIDENCE) / (2 * max(1, len(judged)))  # of one side's interval
    drift = controls(base, head)
    broken = wrong(head)
    rows = []
    for name in dict.fromkeys([*head.times, *base.times]):
        one, other = base.times.get(name), head.times.get(name)
        row: Record = {field: (other or one or {}).get(field) for field in FIELDS}
        row |= {"base": shown(one), "head": shown(other), "ratio": None, "noise": None}
        if name in judged:
            assert one and other
            row |= judge(one, other, drift, confidence, margin)
        elif not one or not other:
            row |= {"verdict": "new" if other else "removed", "reason": None}
        else:
            worse = other if other["status"] not in TIMED else one
            reason = f"{worse['status']} in {'head' if worse is other else 'base'}: {worse.get('reason')}"
            lost = worse is other and other["status"] in ("crashed", "timeout") and one.get("seconds")
            row |= {"verdict": "failed" if lost else "skipped", "reason": reason}
        if other and (fault := broken.get(tuple(other.get(each) for each in ("operator", "implementation", "pass", "dtype")))):
            row |= {"verdict": "wrong", "reason": fault}
        rows.append(row)
    return rows


def shown(record: Record | None) -> Record | None:
    """What a row keeps of a side: no samples."""
    if record is None:
        return None
    seconds = {name: value for name, value in (record.get("seconds") or {}).items() if name not in ("data", "iqr")}
    return {"status": record["status"], "seconds": seconds or None, "ulp": record.get("ulp"), "commit": record.get("commit")}


def judge(base: Record, head: Record, drift: Sequence[float], confidence: float, margin: float) -> Record:
    """The verdict on one workload that both sides timed."""
    recorded = max(each.get("noise") or 0.0 for each in (base, head))
    if len(drift) >= LEAST:
        noise, source = max(*drift, math.log1p(recorded)), f"{len(drift)} things that can't have changed"
    else:
        noise, source = math.log1p(max(ELSEWHERE, recorded)), "what identical code may differ by in two processes"
    one, other = interval(base["seconds"], confidence), interval(head["seconds"], confidence)
    median = head["seconds"]["median"] / base["seconds"]["median"]
    row: Record = {"noise": math.expm1(noise), "ratio": {"median": median, "low": None, "high": None}}
    if one is None or other is None:
        return row | {"verdict": "inconclusive", "reason": f"{APART}; too few samples for an interval"}
    low, high = other[0] / one[1] / math.exp(noise), other[1] / one[0] * math.exp(noise)
    row["ratio"] |= {"low": low, "high": high}
    return row | {"verdict": verdict(low, high, margin), "reason": f"{APART}; noise from {source}"}


def verdict(low: float, high: float, margin: float) -> str:
    """What an interval of the head's time over the base's says at a margin; both directions by the same factor."""
    if low > 1 + margin:
        return "slower"
    if high < 1 / (1 + margin):
        return "faster"
    return "same" if high <= 1 + margin and low >= 1 / (1 + margin) else "inconclusive"


def wrong(side: Side) -> dict[tuple[Any, ...], str]:
    """By operator, implementation, pass and dtype: what is wrong with the numerics of what we vouch for."""
    found: dict[tuple[Any, ...], str] = {}
    for each in (*side.checks, *side.times.values()):
        if each["operator"] not in operators() or each["implementation"] not in implementations(each["operator"]):
            continue
        reason = None
        if each["kind"] == "accuracy" and fails(each):
            reason = f"{each['status']} on {each['stress']}: {each['reason']}"
        elif each["kind"] == "time" and side.path.is_file() and (ulp := (each.get("ulp") or {}).get("max")) is not None:
            mine = implementations(each["operator"])[each["implementation"]]
            bound = (mine.bound or {}).get((each["pass"], each["dtype"]))
            if mine.vouched and bound is not None and ulp > bound:
                reason = f"{ulp:.3g} ULP, beyond its bound of {bound:g}"
        if reason:
            found.setdefault(tuple(each.get(name) for name in ("operator", "implementation", "pass", "dtype")), reason)
    return found

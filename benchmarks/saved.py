"""Verdicts on two saved results: run folders, or JSON files of pytest-benchmark. Their sides did not take turns.

Each side's own interval says how sure it is of itself; it can't say how far two runs of the same code lie apart, which on a
shared machine is far more. That comes from the *controls*: what the two sides have in common and neither commit can have
changed, which is other people's code at the same version, and measured roofs. If their log-ratios are normal about zero, one
more lies within Student's t times their root mean square; every interval is widened by that, or by the noise that a side
recorded where that is more. With too few controls ``ELSEWHERE`` stands for it.
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
from .compare import NEW, REMOVED, Comparison, plain
from .lookup import load as implementations
from .lookup import operators
from .measure.statistics import CONFIDENCE, LEAST, ranks
from .measure.verdict import INCONCLUSIVE, Interval, quantile
from .presets import Filters, asked, shape
from .record import RUN, Record, key, read

APART = "the sides did not take turns"
ELSEWHERE = 0.43  # identical code, two processes on a shared 2-core machine, each where the scheduler put it
WORKLOAD = ("target", "isa", "threads", "dtype", "pass", "axes", "cache")
TIMED = ("ok", "inaccurate")


@dataclass(frozen=True)
class Side:
    """One saved result: its time records by what they measured, its roofs, and what it was measured with."""

    path: Path
    commit: str | None
    times: Mapping[str, Record]
    checks: Sequence[Record] = ()
    roofs: Mapping[str, Record] = field(default_factory=dict)
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
        roofs = {key(each): each for each in records if each["kind"] == "ceiling" and each.get("rate")}
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


def controls(base: Side, head: Side) -> dict[Any, list[float]]:
    """How far what can't have changed lies apart, as ln(ratio), by the number of threads."""
    same = all(base.versions.get(name) == head.versions.get(name) for name in ("torch", "numpy", "scipy"))
    pairs = []
    for name, one in base.times.items() if same else ():
        other = head.times.get(name)
        if one.get("backend") == "peer" and other and measured(one) and measured(other):
            pairs.append((one, one["seconds"]["median"], other["seconds"]["median"]))
    pairs += [(one, one["rate"], head.roofs[name]["rate"]) for name, one in base.roofs.items() if name in head.roofs]
    found: dict[Any, list[float]] = {}
    for record, before, after in pairs:
        found.setdefault(record.get("threads"), []).append(math.log(after / before))
    return found


def apart(drift: Sequence[float], error: float) -> float:
    """The |ln(ratio)| that identical code in two runs exceeds with probability ``error``, as far as controls tell."""
    if len(drift) < LEAST:
        return math.log1p(ELSEWHERE)
    return quantile(error, len(drift)) * math.sqrt(sum(each**2 for each in drift) / len(drift))


def compare(base: Side, head: Side, margin: float = 0.02, filters: Filters | None = None) -> Comparison:
    """A row for each workload that either side timed and the filters leave, and one for numerics that are wrong in head.

    ``ratio`` is of median times, its interval at 99% for all rows together and widened by what the controls differ by.
    Raises ``ValueError`` where the sides are not of a kind.
    """
    if base.path.is_dir() != head.path.is_dir():
        raise ValueError(f"{base.path} and {head.path}: a run folder and a file can't be compared; name two of a kind")
    every = {**base.times, **head.times}
    names = [name for name in dict.fromkeys([*head.times, *base.times]) if passes(every[name], filters or {})]
    judged = {
        name: (base.times[name], head.times[name])
        for name in names
        if all(name in side.times and measured(side.times[name]) for side in (base, head))
    }
    drift = controls(base, head)
    error = (1 - CONFIDENCE) / max(1, len(judged))
    broken, told = wrong(head), set()
    rows = []
    for name in names:
        one, other = base.times.get(name), head.times.get(name)
        known = every[name]
        row = plain(known["operator"], known["implementation"], None, **{each: known.get(each) for each in WORKLOAD})
        if name in judged:
            row |= judge(*judged[name], drift.get(known.get("threads"), ()), error, margin)
        elif one is None or other is None:
            row["verdict"] = NEW if other else REMOVED
        else:
            less = other if not measured(other) else one
            row |= {"status": less["status"], "reason": f"in {'head' if less is other else 'base'}: {less.get('reason')}"}
        if other and (reason := broken.get(mark(other))):
            told.add(mark(other))
            row |= {"status": "wrong", "fails": True, "reason": reason}
        rows.append(row | {"margin": margin})
    for place, reason in broken.items():
        operator, implementation, pass_, dtype = place
        fields = {"backend": implementation.partition("/")[0], "pass": pass_, "dtype": dtype}
        if place in told or not passes(fields, filters or {}):
            continue
        fields = {"pass": pass_, "dtype": dtype, "status": "wrong", "fails": True, "reason": reason, "margin": margin}
        rows.append(plain(operator, implementation, None, **fields))
    count = sum(map(len, drift.values()))
    said = f"{APART}: their intervals are widened by what {count} times and roofs differ by which can't have changed"
    if count < LEAST:
        said = f"{APART}, and too little here can't have changed: their intervals are widened by {ELSEWHERE:.0%}"
    one_side, other_side = ({"name": str(side.path), "commit": side.commit, "tree": None} for side in (base, head))
    return Comparison(one_side, other_side, rows, margin, took_turns=False, notes=[said])


def passes(record: Mapping[str, Any], filters: Filters) -> bool:
    """Whether the filters leave a record; what it doesn't state can't be asked for."""
    stated = {**record, "shape": shape(record["axes"]) if record.get("axes") else None}
    return all(asked(filters, name, stated.get(name)) for name in filters)


def measured(record: Record) -> bool:
    return bool(record.get("seconds")) and record["status"] in TIMED


def mark(record: Record) -> tuple[Any, ...]:
    return tuple(record.get(name) for name in ("operator", "implementation", "pass", "dtype"))


def judge(base: Record, head: Record, drift: Sequence[float], error: float, margin: float) -> Record:
    """The verdict on one workload that both sides timed, to be wrong with probability ``error``."""
    noise = max(apart(drift, error / 2), *(math.log1p(each.get("noise") or 0.0) for each in (base, head)))
    row: Record = {f"{side}_seconds": each["seconds"]["median"] for side, each in (("base", base), ("head", head))}
    for side, each in (("base", base), ("head", head)):
        if each.get("ulp"):
            row[f"{side}_ulp"] = each["ulp"]["max"]
    one, other = (interval(each["seconds"], 1 - error / 4) for each in (base, head))
    if one is None or other is None:
        return row | {"verdict": INCONCLUSIVE, "reason": f"{APART}; too few samples for an interval"}
    low, high = other[0] / one[1] / math.exp(noise), other[1] / one[0] * math.exp(noise)
    found = Interval(row["head_seconds"] / row["base_seconds"], low, high, 1 - error)
    ratio = {"estimate": found.ratio, "low": low, "high": high, "confidence": found.confidence}
    return row | {"verdict": found.verdict(margin), "ratio": ratio, "reason": f"{APART}; noise {math.expm1(noise):.1%}"}


def wrong(side: Side) -> dict[tuple[Any, ...], str]:
    """By ``mark``: what is wrong with the numerics of what we vouch for."""
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
            found.setdefault(mark(each), reason)
    return found

"""The report's tables, as plain lists and dicts for the template."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from . import units
from .sweeps import BASELINE, ISAS, axes_of, prefer, timed, workload

STATUSES = ("wrong", "crashed", "timeout", "suspect", "inaccurate", "not measured", "unavailable", "ok")  # worst first
ABSENT = ("not measured", "unavailable")
TROUBLE = ("wrong", "crashed", "timeout", "suspect")
BACKENDS = ("peer", "numpy", "simd", "triton", "cuda")
LEVELS = ("L1", "L2", "L3", "DRAM")

Row = dict[str, Any]


def ranked(frame: pd.DataFrame) -> list[str]:
    """Implementations in order of appearance."""
    return list(dict.fromkeys(frame["implementation"].dropna()))


def _some(value: Any) -> Any:
    """``None`` for what pandas calls missing."""
    return None if value is None or value != value else value


def shape(row: Mapping[Any, Any], axes: Sequence[str]) -> str:
    """The extents of a workload's axes: 4,096 × 1,024."""
    return " × ".join(units.length(row[name]) for name in axes if _some(row[name]) is not None)


def counts(frame: pd.DataFrame) -> Row:
    found = Counter(frame["status"])
    return {"records": len(frame), "status": [(status, found[status]) for status in reversed(STATUSES) if found[status]]}


class Accuracy:
    """The largest errors of each implementation, from the accuracy records; by any ISA where its own is not recorded."""

    def __init__(self, frame: pd.DataFrame) -> None:
        self.errors: dict[tuple[Any, ...], list[tuple[float, str]]] = {}
        rows = frame[(frame["kind"] == "accuracy") & frame["ulp.max"].notna() & (frame["target"] != "interpreter")]
        columns = ["operator", "implementation", "dtype", "pass", "isa", "stress", "ulp.max"]
        for operator, implementation, dtype, pass_, isa, stress, error in rows[columns].itertuples(index=False):
            for key in ((operator, implementation, dtype, pass_, isa), (operator, implementation, dtype, pass_)):
                self.errors.setdefault(key, []).append((error, stress or ""))

    def _of(self, row: Mapping[Any, Any]) -> list[tuple[float, str]]:
        key = tuple(_some(row[name]) for name in ("operator", "implementation", "dtype", "pass"))
        return self.errors.get((*key, _some(row["isa"]))) or self.errors.get(key) or []

    def worst(self, row: Mapping[Any, Any]) -> tuple[float | None, str]:
        """The largest error over all stress inputs, and the input that gives it; without accuracy records, the row's own."""
        return max(self._of(row), default=(_some(row["ulp.max"]), row["ulp.worst_input"] or ""))

    def ordinary(self, row: Mapping[Any, Any]) -> float | None:
        """The error on the ``normal`` input; without accuracy records, the row's own."""
        errors = self._of(row)
        return max((error for error, stress in errors if stress == "normal"), default=None) if errors else _some(row["ulp.max"])


class Baseline:
    """Times of torch eager, to divide by: same workload and cache, the same ISA where both name one."""

    def __init__(self, frame: pd.DataFrame) -> None:
        self.keys = [*workload(frame), "cache"]
        self.times: dict[tuple[Any, ...], dict[str | None, float]] = {}
        rows = timed(frame)
        for row in rows[rows["implementation"] == BASELINE].to_dict("records"):
            self.times.setdefault(self._key(row), {})[_some(row["isa"])] = row["seconds.median"]

    def _key(self, row: Mapping[Any, Any]) -> tuple[Any, ...]:
        return tuple(_some(row[name]) for name in self.keys)

    def ratio(self, row: Mapping[Any, Any]) -> float | None:
        """How many times faster than torch eager; ``None`` when that was not measured."""
        times = self.times.get(self._key(row), {})
        time = times.get(_some(row["isa"]), times.get(None))
        if time is None and _some(row["isa"]) is None and len(times) == 1:
            time = next(iter(times.values()))
        return time / row["seconds.median"] if time and row["seconds.median"] else None


def _result(row: Row, axes: Sequence[str], accuracy: Accuracy, baseline: Baseline) -> Row:
    """What the overview and the headline table say of one timed record."""
    worst, stress = accuracy.worst(row)
    half = (row["seconds.high"] - row["seconds.low"]) / 2 / row["seconds.median"]
    roof = _some(row["roof.seconds"])
    return {
        "operator": row["operator"],
        "target": row["target"] or "",
        "implementation": row["implementation"],
        "isa": row["isa"] or "",
        "threads": int(row["threads"]) if _some(row["threads"]) is not None else None,
        "dtype": row["dtype"] or "",
        "pass": row["pass"] or "",
        "shape": shape(row, axes),
        "cache": row["cache"] or "",
        "seconds": row["seconds.median"],
        "spread": _some(half),
        "rate": row["bytes"] / row["seconds.median"] if _some(row["bytes"]) is not None else None,
        "roof": roof / row["seconds.median"] if roof else None,
        "binds": row["roof.binds"] or "",
        "ulp": accuracy.ordinary(row),
        "worst": worst,
        "worst_input": stress,
        "ratio": baseline.ratio(row),
    }


def _contests(frame: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """All timed records with the number of their workload in ``contest``, and the fastest of each workload, accurate ones
    first, with the number of implementations that it was compared with in ``rivals``."""
    rows = prefer(timed(frame), "cold", "graph", "hot")
    if not len(rows):
        return rows.assign(contest=0), rows.assign(contest=0, rivals=0)
    groups = rows.groupby(workload(rows), dropna=False, sort=False)
    rows = rows.assign(contest=groups.ngroup())
    rivals = groups["implementation"].nunique().to_numpy()
    order = rows.assign(_poor=rows["status"] != "ok").sort_values(["contest", "_poor", "seconds.median"], kind="stable")
    best = order.drop_duplicates("contest").drop(columns="_poor")
    return rows, best.assign(rivals=rivals)


def _shares(rows: pd.DataFrame) -> list[tuple[str, float]]:
    """Of one workload, the implementations with the share of their roof that they reach, best first."""
    share = (rows["roof.seconds"] / rows["seconds.median"]).groupby(rows["implementation"]).max().dropna()
    return [(str(name), float(value)) for name, value in share.sort_values(ascending=False).items()]


def overview(frame: pd.DataFrame) -> list[Row]:
    """A row an operator and target: the fastest implementation on the workload that most were timed on, and the largest."""
    accuracy, baseline, axes = Accuracy(frame), Baseline(frame), axes_of(frame)
    every, fastest = _contests(frame)
    rows: list[Row] = []
    for operator in dict.fromkeys(frame["operator"].dropna()):
        here = frame[frame["operator"] == operator]
        status = Counter(here["status"])
        shown = [(name, status[name]) for name in reversed(STATUSES) if status[name] and name not in ABSENT]
        mine = fastest[fastest["operator"] == operator]
        # dropna: another driver's results may name no target.
        for place, (_, candidates) in enumerate(mine.groupby("target", dropna=False, sort=False)):
            order = candidates.assign(
                _forward=candidates["pass"] == "forward",
                _single=candidates["threads"] == 1,
                _float32=candidates["dtype"] == "float32",
            ).sort_values(["_forward", "_single", "_float32", "rivals", "bytes"], kind="stable")
            row = order.iloc[-1].to_dict()
            result = _result(row, axes, accuracy, baseline)
            shares = _shares(every[every["contest"] == row["contest"]])
            rows.append({**result, "rivals": int(row["rivals"]), "shares": shares, "status": shown if place == 0 else []})
        if not len(mine):
            rows.append({"operator": operator, "implementation": None, "status": shown})
    return rows


def headline(frame: pd.DataFrame, most: int = 12) -> dict[str, list[Row]]:
    """By operator, the fastest implementation of each workload: at most ``most``, forward and float32 first."""
    accuracy, baseline, axes = Accuracy(frame), Baseline(frame), axes_of(frame)
    found: dict[str, list[Row]] = {}
    for operator, part in _contests(frame)[1].groupby("operator", sort=False):
        order = part.assign(_other=(part["pass"] != "forward") * 1 + (part["dtype"] != "float32") * 1)
        order = order.sort_values(["_other", "target", "threads", *axes], kind="stable").head(most)
        found[str(operator)] = [_result(row, axes, accuracy, baseline) for row in order.to_dict("records")]
    return found


def _grouped(rows: pd.DataFrame, columns: Sequence[str]) -> list[tuple[tuple[Any, ...], pd.DataFrame]]:
    return [(key, part) for key, part in rows.groupby(list(columns), dropna=False, sort=False)]


def problems(frame: pd.DataFrame) -> list[Row]:
    """What is wrong, crashed, hung or too fast to be true: a row for each implementation, worst first, peers last."""
    rows = []
    columns = ("status", "operator", "implementation", "backend", "isa", "dtype", "pass")
    for key, part in _grouped(frame[frame["status"].isin(TROUBLE)], columns):
        named = dict(zip(columns, map(_some, key), strict=True))
        if part["stress"].notna().any():  # its timed rows only repeat what the checks found
            part = part[part["stress"].notna()]
        shapes = (shape(row, axes_of(frame)) for row in part.to_dict("records"))
        where = list(dict.fromkeys(part["stress"].dropna())) or list(dict.fromkeys(shapes))
        reasons = list(dict.fromkeys(part["reason"].dropna()))
        rows.append({**named, "count": len(part), "where": _listed(where, ", "), "reason": _listed(reasons, "; ", 1)})
    return sorted(rows, key=lambda row: (STATUSES.index(row["status"]), row["backend"] == "peer"))


def _listed(words: Sequence[str], between: str, most: int = 6) -> str:
    return between.join(words[:most]) + (f"{between}and {len(words) - most} more" if len(words) > most else "")


def missing(frame: pd.DataFrame) -> list[Row]:
    """What was not measured and why: a row a reason, with the implementations that it holds for."""
    rows = []
    for (status, reason), part in _grouped(frame[frame["status"].isin(ABSENT)], ("status", "reason")):
        names = Counter(
            f"{row['operator']}:{row['implementation']}" if row["operator"] else "" for row in part.to_dict("records")
        )
        rows.append(
            {"status": status, "reason": _some(reason) or "no reason recorded", "names": sorted(names), "count": len(part)}
        )
    return sorted(rows, key=lambda row: -row["count"])


def grade(error: float | None) -> str:
    """The colour class of an error in ULPs: g0 to g5, gx where a result is not finite and should be."""
    if error is None:
        return ""
    if math.isinf(error):
        return "gx"
    return f"g{sum(error > bound for bound in GRADES)}"


GRADES = (1, 2, 8, 64, 4096)


def _column_order(name: str, where: str) -> tuple[Any, ...]:
    backend, _, variant = name.partition("/")
    group = BACKENDS.index(backend) if backend in BACKENDS else len(BACKENDS)
    special = (name == BASELINE, name == "simd/two-pass-as-published", name == "simd/auto")
    isa = -ISAS.index(where) if where in ISAS else 1
    return group, [not each for each in special], variant, isa


def stability(frame: pd.DataFrame) -> list[Row]:
    """For one operator: the largest error by stress input and implementation, and its worst by pass and dtype.

    Empty without accuracy records. The map is of the forward pass in float32, or of whatever came first.
    """
    rows = frame[(frame["kind"] == "accuracy") & (frame["backend"] != "reference") & frame["stress"].notna()]
    rows = rows[~rows["status"].isin(ABSENT)]
    if not len(rows):
        return []
    where = rows["isa"].where(rows["isa"].notna(), rows["target"].where(rows["target"] != "cpu", "")).fillna("")
    rows = rows.assign(where=where)
    combinations = list(dict.fromkeys(zip(rows["pass"], rows["dtype"], strict=True)))
    shown = ("forward", "float32") if ("forward", "float32") in combinations else combinations[0]
    mine = rows[(rows["pass"] == shown[0]) & (rows["dtype"] == shown[1])]
    columns = sorted(set(zip(mine["implementation"], mine["where"], strict=True)), key=lambda key: _column_order(*key))
    cells: dict[tuple[str, str, str], Row] = {}
    for row in mine.to_dict("records"):
        key = (row["stress"], row["implementation"], row["where"])
        if key not in cells or _severity(row) > _severity(cells[key]):
            cells[key] = row
    lines = [
        {"stress": stress, "cells": [_cell(cells.get((stress, *column))) for column in columns]}
        for stress in dict.fromkeys(mine["stress"])
    ]
    worst: dict[tuple[Any, ...], Row] = {}
    for row in rows.to_dict("records"):
        whole = (row["implementation"], row["where"], row["pass"], row["dtype"])
        if whole not in worst or _severity(row) > _severity(worst[whole]):
            worst[whole] = row
    every = sorted({key[:2] for key in worst}, key=lambda key: _column_order(*key))
    summary = [
        {
            "implementation": name,
            "where": isa,
            "cells": [_cell(worst.get((name, isa, *each)), stress=True) for each in combinations],
        }
        for name, isa in every
    ]
    return [
        {
            "pass": shown[0],
            "dtype": shown[1],
            "columns": [{"implementation": name, "where": isa} for name, isa in columns],
            "rows": lines,
            "combinations": combinations,
            "summary": summary,
        }
    ]


def _severity(row: Mapping[Any, Any]) -> tuple[int, float]:
    error = _some(row["ulp.max"])
    return (1 if error is None else 0, 0.0 if error is None else float(error))


def _cell(row: Mapping[Any, Any] | None, stress: bool = False) -> Row:
    if row is None:
        return {"text": "", "grade": "", "wrong": False, "title": ""}
    error = _some(row["ulp.max"])
    words = [row["stress"]] if stress else []
    if row["status"] != "ok":
        words += [str(row[name]) for name in ("status", "reason") if _some(row[name])]
    text = units.ulp(error) if error is not None else row["status"]
    return {"text": text, "grade": grade(error) or "gx", "wrong": row["status"] == "wrong", "title": ": ".join(words)}


def exhaustive(frame: pd.DataFrame) -> list[Row]:
    """For one operator, what came of every number of a type as input: a row an implementation, target, pass and dtype, of all
    ISAs the worst."""
    rows = frame[(frame["kind"] == "accuracy") & frame["ulp.outputs"].notna() & (frame["backend"] != "reference")]
    rows = rows[rows["stress"].fillna("").str.startswith("all-")]
    found: dict[tuple[Any, ...], Row] = {}
    names = ("pass", "dtype", "implementation", "target")
    for row in rows.to_dict("records"):
        key = tuple(row[name] for name in names)
        if key not in found or (row["ulp.max"], _some(row["ulp.misrounded"]) or 0) > found[key]["order"]:
            found[key] = {
                **dict(zip(names, key, strict=True)),
                "order": (row["ulp.max"], _some(row["ulp.misrounded"]) or 0),
                "ulp": row["ulp.max"],
                "grade": grade(row["ulp.max"]),
                "misrounded": _some(row["ulp.misrounded"]),
                "outputs": int(row["ulp.outputs"]),
                "worst_input": row["ulp.worst_input"] if row["ulp.max"] else "",
                "status": row["status"],
            }
    return list(found.values())


def ceilings(frame: pd.DataFrame) -> list[Row]:
    """The measured roofs: a row for each kind, a column for each memory level, by target, ISA and threads."""
    rows = frame[(frame["kind"] == "ceiling") & frame["rate"].notna()]
    tables = []
    for (target, isa, threads), part in _grouped(rows, ("target", "isa", "threads")):
        memory = part[part["level"].notna()]
        levels = [level for level in LEVELS if (memory["level"] == level).any()]
        levels += sorted(set(memory["level"]) - set(LEVELS))
        kinds = {
            kind: {
                row["level"]: units.rate(row["rate"], (row["unit"] or "").replace("bytes", "B"))
                for row in each.to_dict("records")
            }
            for kind, each in memory.groupby("ceiling", sort=False)
        }
        flat = [
            {
                "name": " ".join(str(part) for part in (row["ceiling"], _some(row["dtype"])) if part),
                "rate": units.rate(row["rate"], (row["unit"] or "").replace("bytes", "B")),
            }
            for row in part[part["level"].isna()].to_dict("records")
        ]
        label = ", ".join(str(each) for each in (target, _some(isa)) if each)
        label += (
            f", {int(threads)} thread{'s' if threads > 1 else ''}" if _some(threads) is not None and target == "cpu" else ""
        )
        notes = list(dict.fromkeys(part["reason"].dropna()))
        tables.append({"label": label, "levels": levels, "kinds": kinds, "flat": flat, "notes": notes})
    return tables


def noise(frame: pd.DataFrame, headers: Iterable[Mapping[str, Any]]) -> list[Row]:
    """The A/A floor of each group, noisiest first, with what else the machine did meanwhile, where the run says so."""
    rows = frame[(frame["kind"] == "time") & frame["noise"].notna()]
    watched = {(header["id"], group): seen for header in headers for group, seen in (header.get("watch") or {}).items()}
    found = []
    for (run, group), part in _grouped(rows, ("run", "group")):
        results = part[part["seconds.median"].notna()]
        stopped = Counter(part["seconds.stopped"].dropna())
        found.append(
            {
                "group": _some(group) or "(no group)",
                "records": len(part),
                "typical": float(part["noise"].median()),
                "largest": float(part["noise"].max()),
                "spread": _some(((results["seconds.high"] - results["seconds.low"]) / 2 / results["seconds.median"]).median()),
                "stopped": ", ".join(f"{name} {count}" for name, count in stopped.most_common()),
                "watch": watched.get((run, group), {}),
            }
        )
    return sorted(found, key=lambda row: -row["largest"])


def compiled(frame: pd.DataFrame) -> Row:
    """Compile records: a row an implementation, a column an architecture, of all its kernels the most that one needs."""
    rows = frame[frame["kind"] == "compile"]
    rows = rows.assign(where=rows["isa"].fillna(rows["target"]).fillna(""))
    found: dict[tuple[str, str], Row] = {}
    for (operator, name, where), part in _grouped(rows, ("operator", "implementation", "where")):
        status = min(part["status"], key=lambda status: STATUSES.index(status))
        largest = {column: _some(part[column].max()) for column in ("registers", "shared_bytes", "spills", "compile_seconds")}
        reason = next((reason for reason in part["reason"] if _some(reason)), "")
        row = found.setdefault((operator, name), {"operator": _some(operator), "implementation": _some(name), "cells": {}})
        row["cells"][where] = {"status": status, "reason": reason, "count": len(part), **largest}
    return {"where": sorted(set(rows["where"]), key=lambda where: (len(where), where)), "rows": list(found.values())}


def machines(headers: Iterable[Mapping[str, Any]]) -> list[str]:
    """The processor and the GPUs of each machine that the runs name."""
    found = []
    for header in headers:
        environment = header.get("environment") or {}
        gpus = (gpu.get("name") if isinstance(gpu, Mapping) else gpu for gpu in environment.get("gpus") or [])
        found.append(", ".join(str(name) for name in ((environment.get("cpu") or {}).get("model"), *gpus) if name))
    return list(dict.fromkeys(filter(None, found)))


def environment(headers: Iterable[Mapping[str, Any]]) -> list[Row]:
    """What each run says of its machine, as (name, value) pairs, nesting written with dots."""
    found = []
    for header in headers:
        parts = [header["id"]]
        if header.get("preset"):
            parts.append(f"preset {header['preset']}")
        if header.get("commit"):
            parts.append(f"commit {header['commit'][:10]}{' with changes' if header['commit'].endswith('+') else ''}")
        if header.get("started"):
            parts.append(str(header["started"]).replace("T", " ").replace("+00:00", " UTC").replace("Z", " UTC"))
        found.append({"id": header["id"], "source": header["source"], "title": ", ".join(parts), "facts": list(_facts(header))})
    return found


def _facts(header: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    for name in ("started", "finished", "commit", "preset"):
        if header.get(name):
            yield name, str(header[name])
    for group in ("environment", "plan"):
        yield from _leaves(header.get(group) or {}, "" if group == "environment" else "plan.")


def _leaves(value: Mapping[str, Any], prefix: str) -> Iterable[tuple[str, str]]:
    for name, each in value.items():
        if isinstance(each, Mapping):
            yield from _leaves(each, f"{prefix}{name}.")
        elif name.endswith("bytes") or prefix in ("cpu.caches.", "memory."):
            yield prefix + name, units.size(each) if isinstance(each, int | float) else str(each)
        elif isinstance(each, list):
            yield prefix + name, ", ".join(map(str, each)) or "none"
        else:
            yield (
                prefix + name,
                "not installed" if each is None and "versions" in prefix else units.MISSING if each is None else str(each),
            )


# The columns of the table of all records, by kind: (name, label, how to show it).
IDENTITY = (
    ("implementation", "implementation", "text"),
    ("operator", "operator", "text"),
    ("shape", "shape", "text"),
    ("dtype", "dtype", "text"),
    ("pass", "pass", "text"),
    ("target", "target", "text"),
    ("isa", "ISA", "text"),
    ("threads", "threads", "int"),
)
VERDICT = (("status", "status", "text"), ("reason", "reason", "text"), ("run", "run", "text"))
KINDS: Mapping[str, tuple[tuple[str, str, str], ...]] = {
    "time": (
        *IDENTITY,
        ("cold", "cold", "time"),
        ("hot", "hot", "time"),
        ("graph", "graph", "time"),
        ("called", "as called", "time"),
        ("spread", "±", "percent"),
        ("rate", "GB/s", "rate"),
        ("roof_cold", "of roof, cold", "percent"),
        ("roof_hot", "of roof, hot", "percent"),
        ("ratio_cold", "× torch, cold", "ratio"),
        ("ratio_hot", "× torch, hot", "ratio"),
        ("ulp", "max ULP", "ulp"),
        ("worst", "worst ULP", "ulp"),
        ("worst_input", "worst input", "text"),
        ("noise", "noise", "percent"),
        ("peak", "peak memory", "bytes"),
        *VERDICT,
    ),
    "accuracy": (
        *IDENTITY,
        ("stress", "input", "text"),
        ("ulp.max", "max ULP", "ulp"),
        ("ulp.p999", "p99.9 ULP", "ulp"),
        ("ulp.mean", "mean ULP", "ulp"),
        ("ulp.misrounded", "not nearest", "int"),
        ("ulp.worst_input", "at", "text"),
        *VERDICT,
    ),
    "compile": (
        *IDENTITY,
        ("registers", "registers", "int"),
        ("shared_bytes", "shared", "bytes"),
        ("spills", "spills", "int"),
        ("compile_seconds", "compile time", "time"),
        *VERDICT,
    ),
    "verdict": (
        *IDENTITY,
        ("cache", "cache", "text"),
        ("verdict", "verdict", "text"),
        ("base_seconds", "base", "time"),
        ("head_seconds", "head", "time"),
        ("ratio.estimate", "head over base", "ratio"),
        ("ratio.low", "from", "ratio"),
        ("ratio.high", "to", "ratio"),
        ("base_ulp", "base ULP", "ulp"),
        ("head_ulp", "head ULP", "ulp"),
        ("restarts", "restarts", "int"),
        ("rounds", "rounds", "int"),
        *VERDICT,
    ),
    "ceiling": (
        ("ceiling", "ceiling", "text"),
        ("level", "level", "text"),
        ("target", "target", "text"),
        ("isa", "ISA", "text"),
        ("threads", "threads", "int"),
        ("dtype", "dtype", "text"),
        ("rate", "rate", "rate"),
        ("unit", "unit", "text"),
        *VERDICT,
    ),
}


def records(frame: pd.DataFrame) -> dict[str, Any]:
    """All records for the page's script, as columns: texts as codes into a sorted list, numbers to five digits.

    Timed records of one workload and implementation share a row: hot, cold and graph side by side. An infinite error is -1.
    """
    axes = axes_of(frame)
    document = {}
    for kind, columns in KINDS.items():
        part = frame[frame["kind"] == kind]
        rows = _side_by_side(frame, part, axes) if kind == "time" else part.to_dict("records")
        if kind == "accuracy":
            _only_telling_places(rows)
        for row in rows:
            row["shape"] = shape(row, axes)
        size = {row["shape"]: [_some(row[name]) or 0 for name in axes] for row in rows}
        document[kind] = [
            _packed([row.get(name) for row in rows], form, size if name == "shape" else None) for name, _, form in columns
        ]
    return document


def _only_telling_places(rows: Sequence[Row]) -> None:
    """Forget where the largest error lay but for results that are amiss and the worst of each implementation: no two places
    are alike, and they would make up most of the page."""
    worst: dict[tuple[Any, ...], Row] = {}
    for row in rows:
        key = tuple(row[name] for name in ("operator", "implementation", "target", "isa", "dtype", "pass"))
        if key not in worst or _severity(row) > _severity(worst[key]):
            worst[key] = row
    kept = {id(row) for row in worst.values()}
    for row in rows:
        if row["status"] == "ok" and id(row) not in kept:
            row["ulp.worst_input"] = None


def _side_by_side(frame: pd.DataFrame, part: pd.DataFrame, axes: Sequence[str]) -> list[Row]:
    accuracy, baseline = Accuracy(frame), Baseline(frame)
    keys = ["run", "operator", "implementation", "target", "isa", "threads", "dtype", "pass", *axes]
    found: dict[tuple[Any, ...], Row] = {}
    for record in part.to_dict("records"):
        row = found.setdefault(
            tuple(_some(record[name]) for name in keys), {**{name: record[name] for name in keys}, "status": "ok"}
        )
        if STATUSES.index(record["status"]) < STATUSES.index(row["status"]):
            row["status"] = record["status"]
        for name, column in (
            ("reason", "reason"),
            ("noise", "noise"),
            ("called", "seconds_as_called.median"),
            ("peak", "peak_bytes"),
        ):
            if (value := _some(record[column])) is not None:
                row[name] = value
        median = _some(record["seconds.median"])
        if median is None:
            continue
        cache = record["cache"] or "hot"
        row[cache] = median
        row["worst"], row["worst_input"] = accuracy.worst(record)
        row["ulp"] = accuracy.ordinary(record)
        row[f"ratio_{cache}"] = baseline.ratio(record)
        row[f"roof_{cache}"] = record["roof.seconds"] / median
        if cache == "cold" or "rate" not in row:
            row["rate"] = record["bytes"] / median
            row["spread"] = (record["seconds.high"] - record["seconds.low"]) / 2 / median
    return sorted(found.values(), key=lambda row: not {"cold", "hot", "graph"} & set(row))  # what has a time comes first


def _packed(values: list[Any], form: str, size: Mapping[str, Sequence[float]] | None) -> Row | list[float | None]:
    if form == "text":
        texts = ["" if _some(value) is None else str(value) for value in values]
        words = sorted(set(texts), key=str.casefold)
        if size:
            words.sort(key=lambda text: tuple(size[text]))
        place = {word: index for index, word in enumerate(words)}
        return {"words": words, "codes": [place[text] for text in texts]}
    return [None if _some(value) is None else -1 if math.isinf(value) else _short(value) for value in values]


def _short(value: float) -> float | int:
    number = float(f"{value:.5g}")
    return int(number) if number.is_integer() and abs(number) < 1e15 else number

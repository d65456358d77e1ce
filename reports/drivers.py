"""Results of asv and of pytest-benchmark as records, so that one report shows them beside ours."""

from __future__ import annotations

import itertools
import json
import math
from ast import literal_eval
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

Header = dict[str, Any]
Record = dict[str, Any]

FIELDS = ("operator", "implementation", "target", "isa", "threads", "dtype", "pass", "cache", "stress")
ALIASES = {"op": "operator", "pass_": "pass", "direction": "pass", "impl": "implementation"}


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ValueError(f"can't read {path}: {error}") from None


def described(parameters: Mapping[str, Any]) -> Record:
    """The fields of a record that a driver's parameters name; a ``shape`` such as 4096x1024 gives rows and n."""
    record: Record = {}
    axes: dict[str, int] = {}
    for name, value in parameters.items():
        name = ALIASES.get(name, name)
        if name == "shape" and isinstance(value, str):
            extents = [int(extent) for extent in value.split("x")]
            names = ("rows", "n") if len(extents) == 2 else ("n",) if len(extents) == 1 else range(len(extents))
            axes.update({str(axis): extent for axis, extent in zip(names, extents, strict=True)})
        elif name == "axes" and isinstance(value, Mapping):
            axes.update(value)
        elif name in FIELDS:
            record[name] = value
        elif isinstance(value, int) and not isinstance(value, bool):
            axes[name] = value
    if ":" in str(record.get("implementation")):
        record["operator"], _, record["implementation"] = record["implementation"].partition(":")
    if "/" in str(record.get("implementation")):
        record["backend"], _, record["variant"] = record["implementation"].partition("/")
    return {**record, "axes": axes}


def asv(path: Path) -> tuple[Header, list[Record]]:
    """A machine's asv results (``.asv/results/<machine>``, or the ``results`` folder above it) as time and accuracy records.

    A benchmark in seconds becomes a time record, one in ULPs an accuracy record; other units have no place in a record. The
    interval is asv's own 99% one. Raises ``ValueError`` when there is no result or a file can't be read.
    """
    found = sorted(file for file in path.glob("**/*.json") if file.name not in ("machine.json", "benchmarks.json"))
    if not found:
        raise ValueError(f"no asv results in {path}: give the folder .asv/results/<machine>")
    metadata_file = next(
        (folder / "benchmarks.json" for folder in (path, *path.parents) if (folder / "benchmarks.json").exists()), None
    )
    metadata = _read(metadata_file) if metadata_file else {}
    results = sorted(((_read(file), file.parent.name) for file in found), key=lambda each: each[0].get("date") or 0)
    records = [record | {"machine": name} for result, name in results for record in _asv_results(result, metadata)]
    machines = sorted({file.parent.name for file in found})
    header = {
        "id": f"asv {', '.join(machines)}",
        "source": "asv",
        "started": "",
        "environment": {},
        "plan": {"files": len(found)},
    }
    return header, records


def _asv_results(result: Mapping[str, Any], metadata: Mapping[str, Any]) -> Iterator[Record]:
    columns = result.get("result_columns", [])
    date = datetime.fromtimestamp((result.get("date") or 0) / 1000, UTC).isoformat(timespec="seconds")
    for benchmark, row in result.get("results", {}).items():
        card = metadata.get(benchmark, {})
        unit = card.get("unit", "seconds" if "time_" in benchmark else "")
        values = dict(zip(columns, row, strict=False))
        names = card.get("param_names") or [f"param{index}" for index in range(len(values.get("params") or []))]
        cells = list(itertools.product(*(values.get("params") or [])))
        for index, cell in enumerate(cells):
            measured = _at(values.get("result"), index)
            if isinstance(measured, float) and math.isnan(measured):
                continue  # skipped
            record = _named_like(benchmark) | described(dict(zip(names, map(_literal, cell), strict=False)))
            record |= {"status": "ok", "commit": result.get("commit_hash"), "date": date, "group": benchmark}
            if measured is None:
                yield record | {"kind": "time", "status": "crashed", "reason": "failed in asv"}
            elif unit == "seconds":
                ends = (_at(values.get(f"stats_ci_99_{end}"), index) for end in "ab")
                # asv's interval of a few samples is infinite: as good as none.
                low, high = (end if end is not None and math.isfinite(end) else None for end in ends)
                samples = _at(values.get("stats_repeat"), index) or 1
                seconds = {"median": measured, "low": low, "high": high, "samples": samples}
                yield record | {"kind": "time", "seconds": seconds}
            elif "ulp" in unit.lower():
                yield record | {"kind": "accuracy", "ulp": {"max": measured}}


def _at(column: Sequence[Any] | None, index: int) -> Any:
    return column[index] if column is not None and index < len(column) else None


def _literal(text: str) -> Any:
    """A parameter, which asv stores as its ``repr``."""
    try:
        return literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def _named_like(benchmark: str) -> Record:
    """What a benchmark's own name says, where its parameters don't: the implementation, and a pass if it names one."""
    record: Record = {"operator": benchmark.split(".")[0].removeprefix("bench_"), "implementation": benchmark.split(".")[-1]}
    record["pass"] = "backward" if "backward" in benchmark else "forward"
    return record


def pytest_benchmark(path: Path) -> tuple[Header, list[Record]]:
    """A pytest-benchmark JSON file as time records; it states no interval, so there is none. Raises ``ValueError``."""
    document = _read(path)
    if not isinstance(document, Mapping) or "benchmarks" not in document:
        raise ValueError(f"{path} is not a pytest-benchmark result: it has no 'benchmarks'")
    records = []
    for benchmark in document["benchmarks"]:
        stats = benchmark["stats"]
        extra = dict(benchmark.get("extra_info") or {})
        error, nbytes = extra.pop("max_ulp", None), extra.pop("bytes", None)
        named = {"operator": benchmark.get("group") or "", "implementation": benchmark["name"], "pass": "forward"}
        record = named | described({**(benchmark.get("params") or {}), **extra})
        record |= {"bytes": nbytes, "ulp": None if error is None else {"max": error}}
        record |= {"kind": "time", "status": "ok", "group": benchmark.get("group")}
        record |= {"commit": (document.get("commit_info") or {}).get("id"), "date": document.get("datetime")}
        record["machine"] = (document.get("machine_info") or {}).get("node")
        seconds = {"median": stats["median"], "samples": stats.get("rounds", 1)}
        records.append(record | {"seconds": seconds})
    machine = document.get("machine_info") or {}
    environment = {"cpu": {"model": (machine.get("cpu") or {}).get("brand_raw")}, "os": machine.get("system")}
    header = {"id": path.name, "source": "pytest-benchmark", "started": document.get("datetime", ""), "plan": {}}
    return {**header, "environment": environment}, records

"""Run folders into one pandas DataFrame, a row a record, and that frame into a file."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from . import drivers

# fmt: off
TEXT = (
    "run", "source", "machine", "date", "kind", "status", "reason", "operator", "implementation", "backend", "variant",
    "target", "isa", "dtype", "pass", "cache", "stress", "commit", "group", "roof.binds", "roof.level", "ulp.worst_input",
    "ceiling", "level", "unit", "seconds.stopped", "verdict", "fails", "ratios", "twin_ratios",
)
NUMBERS = (
    "threads", "seed", "bytes", "moved_bytes", "flops", "exps", "roof.seconds", "noise", "rate", "peak_bytes",
    "compile_seconds", "registers", "shared_bytes", "spills", "seconds.median", "seconds.low", "seconds.high",
    "seconds.samples", "seconds_as_called.median", "seconds_as_called.low", "seconds_as_called.high",
    "ulp.max", "ulp.p999", "ulp.mean", "ulp.flushed", "ulp.outputs", "ulp.misrounded", "margin", "base_seconds",
    "head_seconds", "base_ulp", "head_ulp", "ratio.estimate", "ratio.low", "ratio.high", "twin.estimate", "twin.low",
    "twin.high", "restarts", "rounds", "dropped",
)
# fmt: on

Paths = Iterable[str | os.PathLike[str]]


def load(runs: str | os.PathLike[str] | Paths = (), *, asv: Paths = (), pytest_benchmark: Paths = ()) -> pd.DataFrame:
    """One row a record of all these runs; nested fields flattened with dots (``axes.n``, ``seconds.median``, ``ulp.max``).

    ``runs`` are run folders, ``asv`` result folders (``.asv/results/<machine>``), ``pytest_benchmark`` JSON files. Times are
    in seconds, sizes in bytes. ``ulp.max`` is infinite where a result is not finite but the oracle is, or the other way.
    ``frame.attrs["runs"]`` lists what each run says of itself: ``run.json``, plus its ``id`` and ``source``.

    Raises ``ulproof.benchmarks.record.RunError`` for a run folder, and ``ValueError`` for another result, that can't be read.
    """
    if isinstance(runs, str | os.PathLike):
        runs = [runs]
    headers: list[dict[str, Any]] = []
    rows: list[dict[str, Any]] = []
    for folder in runs:
        from ..benchmarks.record import read, whole

        header, records = read(folder)
        identity = Path(folder).resolve().name
        headers.append({**header, "id": identity, "source": "ulproof"})
        here = {"run": identity, "source": "ulproof", "machine": machine(header), "date": header["started"]}
        rows += [{**flat(record), **here} for record in whole(records)]
    for reader, paths in ((drivers.asv, asv), (drivers.pytest_benchmark, pytest_benchmark)):
        for path in paths:
            header, records = reader(Path(path))
            headers.append(header)
            rows += [{**flat(record), "run": header["id"], "source": header["source"]} for record in records]
    return frame_of(rows, headers)


def machine(header: Mapping[str, Any]) -> str | None:
    """The processor and its cores: numbers of two machines never share a line."""
    cpu = header["environment"].get("cpu") or {}
    return f"{cpu['model']}, {cpu.get('cores', '?')} cores" if cpu.get("model") else None


def flat(record: Mapping[str, Any]) -> dict[str, Any]:
    """A record without nesting. A maximum error of ``null`` (not finite where it should be) becomes infinity."""
    row: dict[str, Any] = {}
    for name, value in record.items():
        if isinstance(value, Mapping):
            row.update({f"{name}.{inner}": each for inner, each in value.items()})
        else:
            row[name] = value
    for name in ("ulp.max", "base_ulp", "head_ulp"):
        if name in row and row[name] is None:
            row[name] = float("inf")
    return row


def frame_of(rows: list[dict[str, Any]], headers: list[dict[str, Any]]) -> pd.DataFrame:
    """The frame with every column that a report needs, whether or not a record has it."""
    axes = list(dict.fromkeys(name for row in rows for name in row if name.startswith("axes.")))
    frame = pd.DataFrame(rows, columns=pd.Index([*TEXT, *axes, *NUMBERS]))
    for name in TEXT:
        frame[name] = frame[name].astype(object).where(frame[name].notna(), None)
    for name in (*axes, *NUMBERS):
        frame[name] = pd.to_numeric(frame[name]).astype(float)
    frame.attrs["runs"] = headers
    return frame


def export(runs: pd.DataFrame, path: str | os.PathLike[str]) -> None:
    """Write the records to ``path``: CSV, or Parquet where pyarrow is installed. Raises ``ValueError`` for another ending."""
    ending = Path(path).suffix.lower()
    frame = runs.dropna(axis="columns", how="all")
    frame.attrs = {}
    if ending == ".csv":
        frame.to_csv(path, index=False)
    elif ending == ".parquet":
        try:
            import pyarrow  # noqa: F401
        except ImportError:
            raise ValueError("Parquet needs pyarrow, which is not installed: pip install pyarrow, or export to .csv") from None
        frame.to_parquet(path, index=False)
    else:
        raise ValueError(f"can't export to {str(path)!r}: the name must end in .csv or .parquet")

"""Runs on disk: a folder with ``run.json`` and ``records.jsonl``. Written record by record, checked when read.

Times are in seconds, sizes in bytes, errors in ULPs; rates are derived when shown. ``record.schema.json`` beside this file
is the contract of both files.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

FORMAT = 1  # of run folders; a folder with another number is refused
RUN, RECORDS = "run.json", "records.jsonl"

Record = dict[str, Any]


class RunError(Exception):
    """A run folder that can't be read or written; the message says which file, what is wrong and what to do."""


@cache
def schema() -> Mapping[str, Any]:
    return json.loads(Path(__file__).with_name("record.schema.json").read_text())


WORDS = {"$ref", "anyOf", "type", "enum", "const", "minimum", "exclusiveMinimum", "required", "properties", "items"}
WORDS |= {"additionalProperties", "description"}
TYPES: dict[str, Any] = {
    "object": dict,
    "array": list,
    "string": str,
    "integer": int,
    "number": (int, float),
    "null": type(None),
}


def _sound(value: Any, rule: Mapping[str, Any]) -> bool:
    """Whether a value certainly passes a rule of the schema, in a tenth of the time; for what it does not vouch for
    jsonschema has the last word."""
    if "$ref" in rule:
        return _sound(value, schema()["$defs"][rule["$ref"].rpartition("/")[2]])
    if not rule.keys() <= WORDS or isinstance(value, bool):
        return False
    if "anyOf" in rule and not any(_sound(value, each) for each in rule["anyOf"]):
        return False
    kinds = rule.get("type", ())
    if kinds and not any(isinstance(value, TYPES[kind]) for kind in ((kinds,) if isinstance(kinds, str) else kinds)):
        return False
    if ("enum" in rule and value not in rule["enum"]) or ("const" in rule and value != rule["const"]):
        return False
    if isinstance(value, int | float):
        return value >= rule.get("minimum", value) and not value <= rule.get("exclusiveMinimum", float("-inf"))
    if isinstance(value, list):
        return all(_sound(each, rule.get("items", {})) for each in value)
    if not isinstance(value, dict):
        return True
    named, others = rule.get("properties", {}), rule.get("additionalProperties", {})
    fits = (_sound(each, named.get(name, others)) for name, each in value.items() if name in named or others)
    return all(name in value for name in rule.get("required", ())) and all(fits)


@cache
def _validator(definition: str) -> Any:
    from jsonschema import Draft202012Validator

    return Draft202012Validator({"$defs": schema()["$defs"], "$ref": f"#/$defs/{definition}"})


def problem(value: Any, definition: str = "record") -> str | None:
    """What the schema has against a ``record`` or a ``run``, in one line; ``None`` when it is valid."""
    if _sound(value, {"$ref": definition}):
        return None
    from jsonschema.exceptions import best_match

    if (error := best_match(_validator(definition).iter_errors(value))) is None:
        return None
    while error.context:  # "this or null": null was not meant
        error = next(each for each in error.context if each.schema != {"type": "null"})
    where = error.json_path.removeprefix("$").lstrip(".")
    return f"{where}: {error.message}" if where else error.message


def key(record: Mapping[str, Any]) -> str:
    """What a record measured: two records with one key are two measurements of the same thing."""
    fields: tuple[str, ...] = (
        "kind",
        "operator",
        "implementation",
        "target",
        "isa",
        "threads",
        "dtype",
        "pass",
        "axes",
        "cache",
        "stress",
    )
    fields += ("ceiling", "level")
    return json.dumps([record.get(field) for field in fields], sort_keys=True)


STATUSES = ("ok", "unavailable", "not measured", "suspect", "inaccurate", "timeout", "crashed", "wrong")  # the worst last


def whole(records: Iterable[Mapping[str, Any]]) -> list[Record]:
    """The records, but one for each walk over the float32 line instead of one for each of its pieces, which ``axes.first``
    tells apart. Of two records of one piece the later one counts; the commits of all pieces are kept. What was put off for
    want of budget and measured later counts as measured."""
    found: list[Record] = []
    put_off: dict[str, int] = {}
    walks: dict[str, dict[int, Mapping[str, Any]]] = {}
    for each in records:
        first = (each.get("axes") or {}).get("first")
        if first is None:
            place = put_off.pop(key(each), len(found)) if put_off else len(found)
            if was_put_off(each):
                put_off[key(each)] = place
            found[place : place + 1] = [dict(each)]
        else:
            walks.setdefault(key({**each, "axes": {}}), {})[first] = each
    for pieces in walks.values():
        worst = max(pieces.values(), key=badness)
        measured: list[Record] = [each["ulp"] for each in pieces.values() if each.get("ulp")]
        sums = {name: sum(each[name] for each in measured) for name in ("flushed", "outputs", "misrounded")}
        line: Record = {**worst, "axes": {"n": sum(each["axes"]["n"] for each in pieces.values())}}
        line["commit"] = ", ".join(dict.fromkeys(each["commit"] for each in pieces.values() if each.get("commit"))) or None
        line["ulp"] = {**max(measured, key=largest), **sums} if measured else None
        found.append(line)
    return found


def was_put_off(record: Mapping[str, Any]) -> bool:
    return record["status"] == "not measured" and record["reason"] == "budget"


def largest(ulp: Any) -> float:
    """A record's largest error in ULPs, infinite where it is not finite."""
    return float("inf") if ulp["max"] is None else float(ulp["max"])


def badness(record: Mapping[str, Any]) -> tuple[int, float]:
    """What sorts records by how bad they are."""
    return STATUSES.index(record["status"]), largest(record["ulp"]) if record.get("ulp") else 0.0


def read(folder: str | os.PathLike[str]) -> tuple[dict[str, Any], list[Record]]:
    """``run.json`` and the records of a run folder, both checked against the schema. Raises ``RunError``.

    A last line of ``records.jsonl`` without its end is the record that was being written when the run was killed: it is
    left out. Any other line that is no valid record is an error.
    """
    folder = Path(folder)
    run = _read_run(folder / RUN)
    path = folder / RECORDS
    try:
        lines = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        return run, []
    except OSError as error:
        raise RunError(f"{path}: can't be read: {error.strerror}") from error
    found = []
    for number, line in enumerate(lines[:-1], 1):
        try:
            record = json.loads(line)
        except ValueError as error:
            raise RunError(f"{path}, line {number}: not JSON ({error}); remove the line or measure again") from error
        if reason := problem(record):
            raise RunError(f"{path}, line {number}: {reason}")
        found.append(record)
    return run, found


def _read_run(path: Path) -> dict[str, Any]:
    try:
        run = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise RunError(f"{path.parent}: not a run folder, it has no {RUN}; `ulproof run` writes one") from None
    except OSError as error:
        raise RunError(f"{path}: can't be read: {error.strerror}") from error
    except ValueError as error:
        raise RunError(f"{path}: not JSON ({error})") from error
    if not isinstance(run, dict) or "format" not in run:
        raise RunError(f"{path}: not written by ulproof, it states no format; a run of this version states {FORMAT}")
    if run["format"] != FORMAT:
        raise RunError(f"{path}: has format {run['format']!r}, this version of ulproof reads {FORMAT}; measure again")
    if reason := problem(run, "run"):
        raise RunError(f"{path}: {reason}")
    return run


def records(folder: str | os.PathLike[str]) -> Iterator[Record]:
    yield from read(folder)[1]


class RunFolder:
    """A run being written. Each record is handed to the operating system before ``append`` returns, so that a killed run
    keeps all of them; ``run.json`` is replaced as a whole. Raises ``RunError`` where writing fails."""

    SYNC = 1.0  # seconds between two fsyncs: what a power failure may cost

    def __init__(self, path: Path, run: dict[str, Any], done: list[Record]) -> None:
        self.path, self.run, self.records = path, run, done
        self._synced = 0.0
        try:
            self._file = open(path / RECORDS, "ab", buffering=0)  # noqa: SIM115 - closed by close()
        except OSError as error:
            raise self._failed(error) from error

    @classmethod
    def create(cls, path: str | os.PathLike[str], run: Mapping[str, Any]) -> RunFolder:
        """Start a run in a new or empty folder."""
        path = Path(path)
        if (path / RUN).exists():
            raise RunError(f"{path}: holds a run already; continue it with --resume {path} or name another folder")
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunError(f"{path}: can't be made: {error.strerror}; name another folder with --output") from error
        folder = cls(path, {"format": FORMAT, **run}, [])
        folder.update()
        return folder

    @classmethod
    def resume(cls, path: str | os.PathLike[str]) -> RunFolder:
        """Go on with a run that was cut short; the record that was being written is cut off."""
        path = Path(path)
        run, done = read(path)
        lines = path / RECORDS
        try:
            if lines.exists():
                os.truncate(lines, lines.read_bytes().rfind(b"\n") + 1)
        except OSError as error:
            raise RunError(f"{lines}: can't be written: {error.strerror}") from error
        return cls(path, run, done)

    def append(self, record: Record) -> None:
        """Write one record. A record against the schema raises ``ValueError``: that is a defect of the caller."""
        if reason := problem(record):
            raise ValueError(f"invalid record: {reason}: {record}")
        line = json.dumps(record, allow_nan=False).encode() + b"\n"
        try:
            if self._file.write(line) != len(line):
                raise OSError(28, "No space left on device")
            if time.monotonic() - self._synced > self.SYNC:
                os.fsync(self._file.fileno())
                self._synced = time.monotonic()
        except OSError as error:
            raise self._failed(error) from error
        self.records.append(record)

    def update(self, **fields: Any) -> None:
        """Change fields of ``run.json`` and replace the file."""
        self.run.update(fields)
        draft = self.path / (RUN + ".new")
        try:
            draft.write_text(json.dumps(self.run, indent=1, allow_nan=False) + "\n")
            os.replace(draft, self.path / RUN)
        except OSError as error:
            raise self._failed(error) from error

    def close(self) -> None:
        try:
            os.fsync(self._file.fileno())
            self._file.close()
        except OSError as error:
            raise self._failed(error) from error

    def _failed(self, error: OSError) -> RunError:
        return RunError(f"{self.path}: can't be written: {error.strerror}; free some space or name another folder (--output)")

"""Runs on disk: a folder with ``run.json`` and ``records.jsonl``. Written record by record, checked when read.

Times are in seconds, sizes in bytes, errors in ULPs; rates are derived when shown. ``record.schema.json`` beside this file
is the contract of both files.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

FORMAT = 1  # of run folders; a folder with another number is refused

Record = dict[str, Any]


class RunError(Exception):
    """A run folder that can't be read or written; the message says which file, what is wrong and what to do."""


@cache
def schema() -> Mapping[str, Any]:
    return json.loads(Path(__file__).with_name("record.schema.json").read_text())


def key(record: Mapping[str, Any]) -> str:
    """What a record measured: two records with one key are two measurements of the same thing."""
    fields = ("kind", "operator", "implementation", "target", "isa", "threads", "dtype", "pass", "axes", "cache", "stress")
    return json.dumps([record.get(field) for field in fields], sort_keys=True)


def read(folder: str | os.PathLike[str]) -> tuple[dict[str, Any], list[Record]]:
    """``run.json`` and the records of a run folder, both checked against the schema. Raises ``RunError``."""
    raise NotImplementedError


def records(folder: str | os.PathLike[str]) -> Iterator[Record]:
    yield from read(folder)[1]

"""What this machine can do at most, measured, and the least time that a workload can therefore take: its roof."""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from . import caches, environment
from .sampling import Call, Effort, Sampler, hot, take_turns

Record = dict[str, Any]
SWEEPS = ("read", "copy", "stream-copy")
FALLBACK = "measured with NumPy, as the native kernels are not built: lower than what the machine can do"
PAGE = 4096
PLACES = 4  # of a destination, in pages after each other
L1_PART = 12 * 1024  # bytes of the arrays that arithmetic kernels work on: whole blocks that stay in every L1


@dataclass(frozen=True)
class Side:
    """One ceiling to measure: ``call`` does ``work`` units (bytes, operations) of it."""

    ceiling: str
    level: str | None
    dtype: str
    isa: str | None
    unit: str
    work: float
    call: Callable[[], Any]
    reason: str | None = None

    @property
    def name(self) -> str:
        return " ".join(filter(None, (self.ceiling, self.level, self.dtype, self.isa)))


def sizes(threads: int, found: Mapping[str, int] | None = None) -> dict[str, int]:
    """Bytes of a working set that lies in each level: half of each cache, and four times the last for DRAM."""
    found = found or caches.sizes()
    outermost = max(found, key=lambda name: found[name])
    inside = {name: size // 2 * (1 if name == outermost else threads) for name, size in found.items()}
    return {**inside, "DRAM": 4 * found[outermost]}


def memory(nbytes: int, dtype: str = "float32") -> np.ndarray:
    """Memory of whole pages that begins on one, touched, full of small numbers."""
    nbytes = max(nbytes // PAGE, 1) * PAGE
    whole = np.empty(nbytes + PAGE, np.uint8)
    start = -whole.ctypes.data % PAGE
    part = whole[start : start + nbytes].view(dtype)
    part.fill(0.5)
    return part


def fastest(calls: Sequence[Call], rounds: int = 3, clock: Callable[[], int] = time.perf_counter_ns) -> Call:
    """Of calls that do the same work, the one with the best time, the first of equals; each is warmed, then they take turns."""
    if len(calls) == 1:
        return calls[0]
    for call in calls:
        call()
    best = [float("inf")] * len(calls)
    for _ in range(rounds):
        for place, call in enumerate(calls):
            begin = clock()
            call()
            best[place] = min(best[place], clock() - begin)
    return calls[best.index(min(best))]


def places(memory: np.ndarray, size: int) -> list[np.ndarray]:
    """Where in ``memory`` a destination of so many elements may lie: at the beginning, and one, two, three pages further on.

    A cache may look lines up by a hash of their virtual address (AMD's way predictor does): a source and a destination whose
    pages share a hash evict each other, and a copy within L1 drops from 234 to 93 GB/s. Which pages do is luck from process
    to process; of four in a row at most one did.
    """
    step = PAGE // memory.itemsize
    return [memory[begin : begin + size] for begin in range(0, min(memory.size - size, (PLACES - 1) * step) + 1, step)]


def native() -> Any:
    """The native kernels, or ``None`` where they are not built."""
    try:
        return importlib.import_module("._ceilings", __package__)
    except ImportError:
        return None


def native_sides(kernels: Any, isas: Sequence[str], threads: int) -> Iterator[Side]:
    each_call = (4 if threads == 1 else 256) << 20  # bytes: starting threads costs tens of microseconds a call
    largest = memory(max(sizes(threads).values()))
    other = memory(largest.nbytes // 2)
    for isa in (name for name in isas if name in kernels.isas()):
        for level, size in sizes(threads).items():
            for kind in SWEEPS:
                writes = kind != "read"
                part = size // (2 if writes else 1) // PAGE * PAGE // 4
                source, sweeps = largest[:part], max(1, each_call // size)
                destinations = places(other, part) if writes else [None]
                call = fastest([kernels.bind(kind, isa, each, source, threads, sweeps) for each in destinations])
                yield Side(kind, level, "float32", isa, "bytes/s", sweeps * kernels.work(kind, source.nbytes), call)
        for kind in kernels.kinds():
            if kind in SWEEPS:
                continue
            what, _, dtype = kind.partition("-")
            source = memory(L1_PART * threads, dtype or "float32")
            sweeps = 16 if threads == 1 else 1024
            call = kernels.bind(kind, isa, None, source, threads, sweeps)
            unit = "exp/s" if what == "exp" else "flop/s"
            yield Side(what, None, dtype or "float32", isa, unit, sweeps * kernels.work(kind, source.nbytes), call)


def numpy_sides() -> Iterator[Side]:
    for level, size in sizes(1).items():
        source, destination = memory(size // 2), memory(size // 2)

        def copy(source: np.ndarray = source, destination: np.ndarray = destination) -> None:
            np.copyto(destination, source)

        yield Side("read", level, "float32", None, "bytes/s", source.nbytes, source.max, FALLBACK)
        yield Side("copy", level, "float32", None, "bytes/s", 2 * source.nbytes, copy, FALLBACK)
    small, result = memory(L1_PART), memory(L1_PART)

    def exp() -> None:
        np.exp(small, out=result)

    yield Side("exp", None, "float32", None, "exp/s", small.size, exp, FALLBACK)


def measure(
    target: str,
    isas: Sequence[str] | None = None,
    threads: int = 1,
    seconds: float = 3.0,
    announce: Callable[[str], None] = lambda name: None,
) -> Iterator[Record]:
    """Ceiling records of a target, all kinds of work taking turns for about ``seconds``."""
    if target.startswith("cuda"):
        gpu = importlib.import_module(".gpu", __package__)
        yield from gpu.ceilings(target)
        return
    kernels = native()
    isas = list(isas or environment.cpu()["isas"])
    sides = list(native_sides(kernels, isas, threads) if kernels else numpy_sides() if threads == 1 else ())
    samplers: dict[str, Sampler] = {side.name: hot(side.call) for side in sides}
    taken = take_turns(samplers, Effort(seconds, precision=0.01, shortest=5e-4), announce=announce) if sides else {}
    for side in sides:
        yield {
            "kind": "ceiling",
            "status": "ok",
            "reason": side.reason,
            "target": target,
            "isa": side.isa,
            "threads": threads,
            "dtype": side.dtype,
            "ceiling": side.ceiling,
            "level": side.level,
            "rate": side.work / taken[side.name]["median"],
            "unit": side.unit,
            "seconds": taken[side.name],
        }


class Ceilings:
    """The ceiling records of a run, asked for roofs."""

    def __init__(self, records: Iterable[Record]) -> None:
        self.records = [record for record in records if record["kind"] == "ceiling" and record.get("rate")]

    def rate(self, names: Sequence[str], target: str, threads: int, **wanted: str | None) -> float | None:
        """The best of the ceilings of these names; ``None`` for a field asks for nothing. Of a thread count that was not
        measured the next higher one counts."""
        fitting = [
            record
            for record in self.records
            if record["ceiling"] in names
            and record["target"] == target
            and all(value is None or record.get(name) in (value, None) for name, value in wanted.items())
        ]
        if target == "cpu" and fitting:
            counts = {record["threads"] for record in fitting}
            count = min((each for each in counts if each >= threads), default=max(counts))
            fitting = [record for record in fitting if record["threads"] == count]
        return max((record["rate"] for record in fitting), default=None)

    def trusted(self, target: str) -> bool:
        """Whether nothing can be faster than these ceilings; not so where they are a substitute's."""
        return all(record.get("reason") is None for record in self.records if record["target"] == target)

    def roof(
        self, card: Any, axes: Mapping[str, int], dtype: str, target: str, isa: str | None, threads: int, cache: str
    ) -> Record | None:
        """The least seconds of a pass, what binds it, and the level that holds its working set.

        Bytes: what is written is copied from as many bytes read, at the better copy rate; further input is read. What the
        next smaller cache can hold from call to call counts at that cache's rates. Exponentials and operations: at the
        rates of the ISA, or of the best one for an implementation that states none.
        """
        read, written = (sum(each.nbytes(axes, dtype) for each in some) for some in (card.inputs, card.outputs))
        gpu, cold = target.startswith("cuda"), cache == "cold"
        level = ("DRAM" if cold else "L2") if gpu else "DRAM" if cold else caches.level(read + written, threads)

        def moving(level: str) -> float:
            place = {"isa": isa, "level": level}
            copying = self.rate(("copy", "stream-copy"), target, threads, **place)
            reading = self.rate(("read",), target, threads, **place) or copying
            if not copying or not reading:
                return 0.0
            less, more = sorted((read, written))
            return 2 * less / copying + (more - less) / (reading if read > written else copying / 2)

        seconds = moving(level)
        if not gpu and (not cold or caches.beyond(read + written)):
            kept, inner = caches.kept(read + written, threads)
            seconds = kept * moving(inner) + (1 - kept) * seconds if kept else seconds
        compute = "float64" if dtype == "float64" else "float32"
        exp = self.rate(("exp",), target, threads, isa=isa)
        fma = self.rate(("fma",), target, threads, isa=isa, dtype=compute)
        launch = self.rate(("launch",), target, threads)
        bounds = {
            "bytes": seconds,
            "exps": card.exps(axes) / exp if exp else 0.0,
            "flops": card.flops(axes) / fma if fma else 0.0,
            "launch": 1 / launch if launch else 0.0,
        }
        binds = max(bounds, key=lambda name: bounds[name])
        return {"seconds": bounds[binds], "binds": binds, "level": level} if bounds[binds] else None

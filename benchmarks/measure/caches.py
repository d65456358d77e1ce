"""The data caches of this machine's cores, from sysfs, and what lies in which."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import cache
from importlib import import_module
from pathlib import Path

import numpy as np

KIB = 1024
UNKNOWN = {"L1": 32 * KIB, "L2": 1024 * KIB, "L3": 32 * KIB * KIB}  # where the system doesn't say
MOST_COPIES = 64


@cache
def sizes(cpu: str = "/sys/devices/system/cpu/cpu0") -> Mapping[str, int]:
    """Bytes of each data cache as one core sees it, ``{"L1": 32768, ...}``, smallest first."""
    found: dict[str, int] = {}
    for index in sorted(Path(cpu, "cache").glob("index*")):
        try:
            kind, level, size = ((index / name).read_text().strip() for name in ("type", "level", "size"))
        except OSError:
            continue
        if kind != "Instruction":
            found[f"L{level}"] = int(size.rstrip("KMG")) * {"K": KIB, "M": KIB**2, "G": KIB**3}.get(size[-1], 1)
    return dict(sorted(found.items())) or dict(UNKNOWN)


def last(caches: Mapping[str, int] | None = None) -> int:
    """Bytes of the last-level cache."""
    return max((caches or sizes()).values())


def capacities(threads: int = 1, caches: Mapping[str, int] | None = None) -> dict[str, int]:
    """Bytes of each level for so many threads: each has an L1 and an L2 of its own, the last level is shared."""
    caches = caches or sizes()
    outermost = max(caches, key=lambda name: caches[name])
    return {name: size * (1 if name == outermost else threads) for name, size in caches.items()}


def level(nbytes: int, threads: int = 1, caches: Mapping[str, int] | None = None) -> str:
    """The smallest level that holds a working set: ``L1``, ``L2``, ``L3`` or ``DRAM``."""
    return next((name for name, size in capacities(threads, caches).items() if nbytes <= size), "DRAM")


def kept(nbytes: int, threads: int = 1, caches: Mapping[str, int] | None = None) -> tuple[float, str]:
    """The share of a working set that at best stays in the largest level too small for it, and that level."""
    smaller = [(size, name) for name, size in capacities(threads, caches).items() if size < nbytes]
    size, name = max(smaller, default=(0, ""))
    return size / nbytes, name


def beyond(nbytes: int, caches: Mapping[str, int] | None = None) -> bool:
    """Whether a working set is so far beyond the last level that nothing of it stays from one call to the next."""
    return nbytes >= 2 * last(caches)


def copies(nbytes: int, caches: Mapping[str, int] | None = None) -> tuple[int, bool]:
    """How many copies of a working set to rotate, and whether they must be evicted besides, because so many still fit."""
    wanted = -(-2 * last(caches) // max(nbytes, 1)) + 1
    return min(wanted, MOST_COPIES), wanted > MOST_COPIES


@cache
def sweeper() -> Callable[[], object]:
    """A function that fills the last-level cache with memory of its own."""
    memory = np.ones(2 * last() // 8, np.float64)
    return memory.sum


def evictor(arrays: Iterable[np.ndarray]) -> Callable[[], object]:
    """A function that drops these contiguous arrays from every cache, and nothing else where the CPU can; else the sweeper."""
    try:
        flush = import_module("._ceilings", __package__).flush
    except (ImportError, AttributeError):
        return sweeper()
    lines = [each.reshape(-1).view(np.uint8) for each in arrays]

    def evict() -> None:
        for each in lines:
            flush(each)

    return evict

"""How ceilings are measured: where buffers lie, and that an unlucky place lowers no roof."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from ulproof.benchmarks.measure import caches, ceilings


class Clock:
    """Stands still but for the calls that it hands out."""

    def __init__(self) -> None:
        self.now, self.calls = 0, 0

    def __call__(self) -> int:
        return self.now

    def call(self, *costs: int) -> Callable[[], None]:
        """A call that takes these times one after the other, then the last of them again."""
        left = list(costs)

        def run() -> None:
            self.calls += 1
            self.now += left.pop(0) if len(left) > 1 else left[0]

        return run


def test_the_fastest_call_is_the_one_with_the_best_time_once_warm() -> None:
    clock = Clock()
    steady, disturbed, slow_at_first = clock.call(100), clock.call(90, 500, 95, 500), clock.call(900, 80)
    assert ceilings.fastest([steady, disturbed], 3, clock) is disturbed
    assert ceilings.fastest([steady, disturbed, slow_at_first], 3, clock) is slow_at_first
    assert ceilings.fastest([steady, clock.call(100)], 3, clock) is steady
    before = clock.calls
    assert ceilings.fastest([disturbed], 3, clock) is disturbed
    assert clock.calls == before, "one alone needs no trial"


def test_places_begin_on_pages_and_stay_inside() -> None:
    memory = ceilings.memory(8 * ceilings.PAGE)
    page = ceilings.PAGE // 4
    for size, count in ((page, 4), (5 * page, 4), (6 * page, 3), (7 * page, 2), (8 * page, 1)):
        found = ceilings.places(memory, size)
        assert len(found) == count
        assert all(each.size == size and each.ctypes.data % ceilings.PAGE == 0 for each in found)
        assert [each.ctypes.data - memory.ctypes.data for each in found] == [ceilings.PAGE * n for n in range(count)]


class Kernels:
    """In place of the native ones: every sweep over a destination that begins ``unlucky`` pages into its buffer is slow."""

    def __init__(self, clock: Clock, unlucky: int) -> None:
        self.clock, self.unlucky, self.first = clock, unlucky, 0

    def isas(self) -> tuple[str, ...]:
        return ("avx2",)

    def kinds(self) -> tuple[str, ...]:
        return ceilings.SWEEPS

    def work(self, kind: str, nbytes: int) -> int:
        return nbytes if kind == "read" else 2 * nbytes

    def bind(self, kind: str, isa: str, destination: np.ndarray | None, source: np.ndarray, threads: int, sweeps: int) -> Any:
        if destination is None:
            return self.clock.call(source.nbytes * sweeps)
        self.first = self.first or destination.ctypes.data
        slow = destination.ctypes.data - self.first == self.unlucky * ceilings.PAGE
        return self.clock.call(2 * source.nbytes * sweeps * (3 if slow else 1))


@pytest.mark.parametrize("unlucky", range(4))
def test_an_unlucky_place_lowers_no_roof(monkeypatch: pytest.MonkeyPatch, unlucky: int) -> None:
    monkeypatch.setattr(caches, "sizes", lambda: {"L1": 32 << 10, "L2": 64 << 10})
    clock = Clock()
    monkeypatch.setattr(ceilings.fastest, "__defaults__", (3, clock))
    sides = list(ceilings.native_sides(Kernels(clock, unlucky), ["avx2"], 1))
    copies = [side for side in sides if side.ceiling != "read" and side.level != "DRAM"]
    assert {(side.ceiling, side.level) for side in copies} == {(k, v) for k in ("copy", "stream-copy") for v in ("L1", "L2")}
    for side in copies:
        before = clock.now
        side.call()
        assert side.work == clock.now - before, side.name

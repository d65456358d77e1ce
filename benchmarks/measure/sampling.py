"""Taking turns: every side of a comparison is sampled in every round, in an order drawn anew each time.

A side is a function from a number of calls to the mean seconds of one call. What disturbs the machine for a while then
disturbs all sides alike, and their ratio stays.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import cycle, islice, repeat
from typing import Any

from . import environment
from .statistics import LEAST, summary, width

Sampler = Callable[[int], float]
Call = Callable[[], Any]


class OverBudget(Exception):
    """Even the fewest samples of these sides cost more than there is."""


def hot(call: Call, clock: Callable[[], int] = time.perf_counter_ns) -> Sampler:
    """Time a bound call over and over on the same buffers; one call, untimed, brings them back into the cache."""

    def sample(calls: int) -> float:
        call()
        begin = clock()
        for _ in repeat(None, calls):
            call()
        return (clock() - begin) / calls / 1e9

    return sample


def running(
    call: Call, warm: Sequence[Call], waited: Callable[[], int], clock: Callable[[], int] = time.perf_counter_ns
) -> Sampler:
    """As ``hot``, after the untimed calls ``warm``; less the time in which the thread was ready to run and another had its
    core. ``waited`` counts that, in nanoseconds."""

    def sample(calls: int) -> float:
        for each in warm:
            each()
        before = waited()
        begin = clock()
        for _ in repeat(None, calls):
            call()
        taken = clock() - begin
        return max(1, taken - (waited() - before)) / calls / 1e9

    return sample


def settled(
    side: Sampler,
    busy: Callable[[], bool] = environment.busy,
    sleep: Callable[[float], None] = time.sleep,
) -> Sampler:
    """The same side, sampled once the other threads of this process rest; they get 50 naps of a millisecond to come to it.

    The threads of OpenMP, torch's among them, spin for some 8 ms after their work. They would take the cores that the next
    side's threads need: a softmax on two of two cores took 1.14 ms in place of 0.61.
    """

    def sample(calls: int) -> float:
        for _ in range(50):
            if not busy():
                break
            sleep(1e-3)
        return side(calls)

    return sample


@dataclass
class Rotation:
    """Copies of a workload that the sides of a group share, so that each call meets buffers that left the cache.

    The copies are used in turn by all sides. Where all of them together don't exceed the cache, ``evict`` empties it of them
    before each sample, and a sample takes each copy at most once, in an order of its own: a prefetcher would learn another.
    """

    copies: int
    evict: Call | None = None
    position: int = 0
    order: random.Random = field(default_factory=lambda: random.Random(0), repr=False)

    @property
    def most(self) -> int | None:
        """The most calls of one sample, where there is such a limit."""
        return self.copies if self.evict else None

    def sampler(self, calls: Sequence[Call], clock: Callable[[], int] = time.perf_counter_ns) -> Sampler:
        """Time the bound calls of one side, one per copy."""

        def sample(count: int) -> float:
            if self.evict:
                turn = self.order.sample(calls, count)
                self.evict()
            else:
                turn = list(islice(cycle(calls), self.position, self.position + count))
                self.position = (self.position + count) % self.copies
            begin = clock()
            for call in turn:
                call()
            return (clock() - begin) / count / 1e9

        return sample


@dataclass(frozen=True)
class Effort:
    """How long to sample: until every interval is narrower than plus or minus ``precision``, or ``seconds`` are spent;
    never fewer than ``LEAST`` rounds, unless those cost more than ``limit`` seconds, which raises ``OverBudget``.
    A sample lasts at least ``shortest`` seconds, far above the clock's own grain."""

    seconds: float = 1.0
    limit: float = float("inf")
    precision: float = 0.005
    shortest: float = 1e-3
    rounds: int = 1000
    clock: Callable[[], float] = field(default=time.perf_counter, repr=False)


def calibrate(side: Sampler, shortest: float, most: int | None = None) -> tuple[int, float]:
    """Calls per sample such that it lasts ``shortest`` seconds, and the seconds of one call."""
    calls = 1
    while True:
        seconds = side(calls)
        if calls * seconds >= shortest or calls == most:
            return calls, seconds
        wanted = max(2 * calls, min(64 * calls, int(1.2 * shortest / max(seconds, 1e-9))))
        calls = min(wanted, most) if most else wanted


def rounds(
    sides: Mapping[str, Sampler],
    calls: Mapping[str, int],
    generator: random.Random,
    announce: Callable[[str], None] = lambda name: None,
) -> Iterator[dict[str, float]]:
    """Round after round without end: seconds per call of each side, sampled next to each other in an order drawn anew.
    ``announce`` hears whose turn it is, before it begins."""
    order = list(sides)
    while True:
        generator.shuffle(order)
        found = {}
        for name in order:
            announce(name)
            found[name] = sides[name](calls[name])
        yield found


def take_turns(
    sides: Mapping[str, Sampler],
    effort: Effort,
    *,
    seed: int = 0,
    most: int | None = None,
    announce: Callable[[str], None] = lambda name: None,
) -> dict[str, dict[str, Any]]:
    """Seconds per call of each side, as a record holds them. ``announce`` hears whose turn it is, before it begins."""
    clock, begin = effort.clock, effort.clock()
    calls: dict[str, int] = {}
    one_round = 0.0
    for name, side in sides.items():
        announce(name)
        before = clock()
        calls[name], seconds = calibrate(side, effort.shortest, most)
        one_round += calls[name] * seconds
        if clock() - begin + LEAST * one_round > effort.limit:
            raise OverBudget(
                f"{LEAST} rounds take more than the {effort.limit:.1f} s left; {name} alone {clock() - before:.1f} s"
            )
    samples: dict[str, list[float]] = {name: [] for name in sides}
    turns = rounds(sides, calls, random.Random(seed), announce)
    for done, turn in enumerate(islice(turns, max(effort.rounds, LEAST)), 1):
        for name, seconds in turn.items():
            samples[name].append(seconds)
        if done < LEAST:
            continue
        if all(width(summary(each)) <= effort.precision for each in samples.values()):
            return {name: summary(each, "interval") for name, each in samples.items()}
        if clock() - begin >= effort.seconds:
            break
    return {name: summary(each, "budget") for name, each in samples.items()}

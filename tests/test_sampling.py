"""The ruler, on a clock that only moves when a call moves it."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ulproof.benchmarks.duel import warming
from ulproof.benchmarks.measure import caches, environment
from ulproof.benchmarks.measure.sampling import (
    Effort,
    OverBudget,
    Rotation,
    Sampler,
    calibrate,
    hot,
    running,
    settled,
    take_turns,
)
from ulproof.benchmarks.measure.statistics import LEAST


class Clock:
    """Time in seconds; ``work`` makes a call that takes ``seconds(now)`` of it."""

    def __init__(self) -> None:
        self.now = 0.0

    def work(
        self, seconds: float | Callable[[float], float], heard: list[Any] | None = None, name: Any = None
    ) -> Callable[[], None]:
        def call() -> None:
            if heard is not None:
                heard.append(name)
            self.now += seconds if isinstance(seconds, float) else seconds(self.now)

        return call

    def nanoseconds(self) -> int:
        return round(self.now * 1e9)

    def effort(self, **fields: Any) -> Effort:
        return Effort(clock=lambda: self.now, **fields)

    def side(self, seconds: float | Callable[[float], float]) -> Sampler:
        return hot(self.work(seconds), self.nanoseconds)


def test_a_quiet_machine_is_measured_in_the_fewest_rounds() -> None:
    clock = Clock()
    found = take_turns({"a": clock.side(2e-5), "b": clock.side(3e-5)}, clock.effort())
    assert found["a"]["median"] == pytest.approx(2e-5)
    assert found["b"]["median"] == pytest.approx(3e-5)
    assert {each["stopped"] for each in found.values()} == {"interval"}
    assert {each["samples"] for each in found.values()} == {LEAST}


def test_a_drifting_machine_keeps_the_ratio() -> None:
    clock = Clock()

    def slowing(seconds: float) -> Sampler:
        return clock.side(lambda now: seconds * (1 + now))

    slower = {"a": slowing(1e-4), "b": slowing(2e-4)}
    found = take_turns(slower, clock.effort(seconds=2.0, precision=0.0))
    assert found["a"]["median"] > 1.5e-4
    assert found["b"]["median"] / found["a"]["median"] == pytest.approx(2, rel=0.01)


def test_noise_goes_on_until_the_budget_is_spent_and_says_so() -> None:
    clock = Clock()
    ticks = iter(range(10**9))
    side = clock.side(lambda now: 1e-3 * (1 + next(ticks) % 7))
    found = take_turns({"a": side}, clock.effort(seconds=0.5))
    assert found["a"]["stopped"] == "budget"
    assert found["a"]["samples"] > LEAST
    assert clock.now == pytest.approx(0.5, abs=0.02)


def test_the_fewest_rounds_are_taken_even_beyond_the_budget() -> None:
    clock = Clock()
    found = take_turns({"slow": clock.side(1.0)}, clock.effort(seconds=2.0, precision=-1.0))
    assert found["slow"]["samples"] == LEAST
    assert found["slow"]["stopped"] == "budget"


def test_what_can_not_fit_costs_little() -> None:
    clock = Clock()
    with pytest.raises(OverBudget):
        take_turns({"slow": clock.side(1.0), "slower": clock.side(100.0)}, clock.effort(limit=5.0))
    assert clock.now < 5


def test_each_round_has_every_side_in_an_order_of_its_own() -> None:
    clock = Clock()
    heard: list[str] = []
    sides = {name: clock.side(1e-3) for name in "abcd"}
    take_turns(sides, clock.effort(rounds=50, seconds=1e9, precision=-1.0), announce=heard.append)
    rounds = [tuple(heard[start : start + 4]) for start in range(4, len(heard), 4)]
    assert len(rounds) == 50
    assert all(sorted(each) == list("abcd") for each in rounds)
    firsts = Counter(each[0] for each in rounds)
    assert len(set(rounds)) > 10
    assert min(firsts[name] for name in "abcd") >= 5


def test_the_seed_decides_the_orders() -> None:
    def orders(seed: int) -> list[str]:
        clock = Clock()
        heard: list[str] = []
        sides = {name: clock.side(1e-3) for name in "abc"}
        take_turns(sides, clock.effort(rounds=20, precision=-1.0), seed=seed, announce=heard.append)
        return heard

    assert orders(1) == orders(1) != orders(2)


@pytest.mark.parametrize("seconds", [1e-8, 1e-6, 1e-4, 0.1])
def test_a_sample_is_long_against_the_clock(seconds: float) -> None:
    clock = Clock()
    calls, one = calibrate(clock.side(seconds), 1e-3)
    assert one == pytest.approx(seconds)
    assert calls * seconds >= 1e-3 or calls == 1
    assert calls == 1 or (calls - 1) * seconds < 1e-2


def test_calibration_stops_at_the_most_calls() -> None:
    assert calibrate(Clock().side(1e-9), 1e-3, most=64)[0] == 64


def test_hot_calls_once_before_the_clock_starts() -> None:
    clock = Clock()
    heard: list[Any] = []
    sampler = hot(clock.work(lambda now: 5.0 if len(heard) == 1 else 1.0, heard), clock.nanoseconds)
    assert sampler(3) == pytest.approx(1.0)
    assert len(heard) == 4


def test_rotation_gives_every_call_a_copy_that_was_not_used_for_longest() -> None:
    clock = Clock()
    heard: list[Any] = []
    rotation = Rotation(5)
    one = rotation.sampler([clock.work(1.0, heard, place) for place in range(5)], clock.nanoseconds)
    two = rotation.sampler([clock.work(1.0, heard, place) for place in range(5)], clock.nanoseconds)
    one(3)
    two(4)
    one(2)
    assert heard == [0, 1, 2, 3, 4, 0, 1, 2, 3]
    assert rotation.most is None


def test_eviction_comes_before_a_sample_and_is_not_timed() -> None:
    clock = Clock()
    heard: list[Any] = []
    rotation = Rotation(8, clock.work(100.0, heard, "evict"))
    sampler = rotation.sampler([clock.work(1.0, heard, place) for place in range(8)], clock.nanoseconds)
    assert rotation.most == 8
    orders = []
    for count in (8, 8, 5):
        heard.clear()
        assert sampler(count) == pytest.approx(1.0)
        assert heard[0] == "evict"
        orders.append(heard[1:])
        assert len(set(heard[1:])) == count, "each copy once at most"
    assert sorted(orders[0]) == sorted(orders[1]) and orders[0] != orders[1], "no order that a prefetcher could learn"


def test_a_side_waits_until_other_threads_rest() -> None:
    clock = Clock()
    side = settled(clock.side(1e-3), lambda: clock.now < 4.5e-3, lambda seconds: clock.work(seconds)())
    assert side(2) == pytest.approx(1e-3)
    assert clock.now == pytest.approx(5e-3 + 3e-3), "five naps, then three calls"
    assert side(2) == pytest.approx(1e-3)
    assert clock.now == pytest.approx(8e-3 + 3e-3), "nothing to wait for"
    never = settled(clock.side(1e-3), lambda: True, lambda seconds: clock.work(seconds)())
    assert never(1) == pytest.approx(1e-3)
    assert clock.now == pytest.approx(11e-3 + 50e-3 + 2e-3), "what never rests is not waited for"


def test_a_thread_at_work_is_seen(tmp_path: Path) -> None:
    own = threading.get_native_id()
    for name, state in ((own, "R"), (own + 1, "S"), (own + 2, "D")):
        (tmp_path / str(name)).mkdir()
        (tmp_path / str(name) / "stat").write_text(f"{name} (a) R b) {state} 1 2 3\n")
    assert not environment.busy(tmp_path)
    (tmp_path / str(own + 2) / "stat").write_text(f"{own + 2} (python) R 1 2 3\n")
    assert environment.busy(tmp_path)
    assert not environment.busy(tmp_path / "nowhere")


CACHES = {"L1": 32 << 10, "L2": 1 << 20, "L3": 32 << 20}


def test_a_working_set_lies_in_the_smallest_level_that_holds_it() -> None:
    assert [caches.level(size, 1, CACHES) for size in (1, 32 << 10, 33 << 10, 2 << 20, 33 << 20)] == [
        "L1",
        "L1",
        "L2",
        "L3",
        "DRAM",
    ]
    assert caches.level(2 << 20, 2, CACHES) == "L2"
    assert caches.level(64 << 20, 8, CACHES) == "DRAM"


def test_copies_exceed_the_last_level_or_are_swept_from_it() -> None:
    count, sweep = caches.copies(8 << 20, CACHES)
    assert count * (8 << 20) > CACHES["L3"]
    assert not sweep
    count, sweep = caches.copies(8 << 10, CACHES)
    assert count == caches.MOST_COPIES
    assert sweep
    assert caches.beyond(64 << 20, CACHES)
    assert not caches.beyond(63 << 20, CACHES)


def test_caches_are_read_from_sysfs(tmp_path: Any) -> None:
    for index, (kind, level, size) in enumerate(
        (("Data", 1, "48K"), ("Instruction", 1, "32K"), ("Unified", 2, "2M"), ("Unified", 3, "1G"))
    ):
        folder = tmp_path / "cache" / f"index{index}"
        folder.mkdir(parents=True)
        for name, text in (("type", kind), ("level", level), ("size", size)):
            (folder / name).write_text(f"{text}\n")
    assert caches.sizes(str(tmp_path)) == {"L1": 48 << 10, "L2": 2 << 20, "L3": 1 << 30}
    assert caches.sizes(str(tmp_path / "nowhere")) == caches.UNKNOWN


def test_untimed_calls_come_before_a_sample_and_waiting_is_taken_off() -> None:
    clock = Clock()
    heard: list[Any] = []
    waits = iter([0, 0, 0, 1_000_000_000])
    work = clock.work(lambda now: 2.0, heard)
    sampler = running(work, [work] * 3, lambda: next(waits), clock.nanoseconds)
    assert sampler(2) == 2.0 and len(heard) == 5
    assert sampler(1) == 1.0 and len(heard) == 9


@pytest.mark.parametrize(("nbytes", "calls"), [(8 << 10, 1), (512 << 10, 1), (1 << 20, 4), (32 << 20, 4), (64 << 20, 1)])
def test_what_the_second_level_cannot_hold_is_warmed_up_for_longer(nbytes: int, calls: int) -> None:
    assert warming(nbytes, {"L1": 32 << 10, "L2": 1 << 20, "L3": 32 << 20}) == calls

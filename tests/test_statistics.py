"""Medians and their intervals, against the binomial distribution and against distributions whose median is known."""

from __future__ import annotations

import math
import random

import pytest

from ulproof.benchmarks.measure.statistics import LEAST, distance, ranks, summary, width


def confidence(count: int, low: int, high: int) -> float:
    """The chance that the median lies between the order statistics of these ranks (from 0)."""
    return sum(math.comb(count, below) for below in range(low + 1, high + 1)) / 2**count


@pytest.mark.parametrize("count", [*range(LEAST, 60), 100, 101, 999, 1000])
def test_the_ranks_are_the_tightest_that_hold_99_percent(count: int) -> None:
    low, high = ranks(count)
    assert high == count - 1 - low
    assert confidence(count, low, high) >= 0.99
    assert confidence(count, low + 1, high - 1) < 0.99


def test_large_counts_agree_with_the_exact_ones_within_a_rank() -> None:
    for count in (1001, 1500, 4000):
        low, high = ranks(count)
        assert confidence(count, low - 1, high + 1) >= 0.99
        assert confidence(count, low + 2, high - 2) < 0.99


def test_few_samples_give_their_extremes() -> None:
    assert ranks(1) == (0, 0)
    assert ranks(LEAST - 1) == (0, LEAST - 2)
    assert confidence(LEAST, 0, LEAST - 1) >= 0.99 > confidence(LEAST - 1, 0, LEAST - 2)


@pytest.mark.parametrize("draw", ["lognormvariate", "paretovariate", "expovariate"])
@pytest.mark.parametrize("count", [8, 15, 40])
def test_the_interval_holds_the_true_median_of_skewed_samples(draw: str, count: int) -> None:
    generator = random.Random(count)
    median = {"lognormvariate": 1.0, "paretovariate": 2 ** (1 / 3), "expovariate": math.log(2)}[draw]
    arguments = {"lognormvariate": (0, 1), "paretovariate": (3,), "expovariate": (1,)}[draw]
    held = 0
    for _ in range(1000):
        found = summary([getattr(generator, draw)(*arguments) for _ in range(count)])
        held += found["low"] <= median <= found["high"]
    assert held >= 980


def test_a_summary_is_a_median_and_never_a_minimum() -> None:
    found = summary([9.0, 1.0, 2.0, 3.0, 100.0], "budget")
    assert found == {"median": 3.0, "low": 1.0, "high": 100.0, "samples": 5, "stopped": "budget"}
    assert summary([1.0, 2.0, 4.0, 8.0])["median"] == 3.0


def test_width_and_distance_are_relative() -> None:
    assert width({"low": 0.9, "high": 1.1, "median": 1.0}) == pytest.approx(0.1)
    assert distance({"median": 2.0}, {"median": 2.5}) == distance({"median": 2.5}, {"median": 2.0}) == pytest.approx(0.25)

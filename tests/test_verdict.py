"""Verdicts on simulated restarts: intervals cover what they claim, peeking included, and slowdowns are found."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from ulproof.benchmarks.measure.verdict import (
    CONFIDENCE,
    FASTER,
    INCONCLUSIVE,
    SAME,
    SLOWER,
    Interval,
    Trial,
    interval,
    look_error,
    looks,
    outside,
    quantile,
)

TRIALS, RESTARTS, ROUNDS = 600, 28, 21
Effects = Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]


@pytest.mark.parametrize(
    ("freedom", "t", "error"),
    [(1, 12.7062, 0.05), (2, 9.92484, 0.01), (4, 4.60409, 0.01), (4, 8.61030, 0.001), (9, 3.24984, 0.01), (30, 3.64596, 0.001)],
)
def test_quantiles_are_those_of_the_tables(freedom: int, t: float, error: float) -> None:
    assert quantile(error, freedom) == pytest.approx(t, rel=1e-5)
    assert outside(t, freedom) == pytest.approx(error, rel=1e-4)


def test_far_quantiles_agree_with_scipy() -> None:
    stats = pytest.importorskip("scipy.stats")
    for freedom in range(1, 60):
        for error in (1e-2, 1e-3, 1e-5, 1e-7):
            assert quantile(error, freedom) == pytest.approx(stats.t.isf(error / 2, freedom), rel=1e-6)


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (1.021, 1.05, SLOWER),
        (1.019, 1.05, INCONCLUSIVE),
        (0.99, 1.01, SAME),
        (0.97, 1.01, INCONCLUSIVE),
        (0.90, 0.97, FASTER),
        (0.90, 0.985, INCONCLUSIVE),
        (0.90, 1.10, INCONCLUSIVE),
    ],
)
def test_a_verdict_needs_the_whole_interval(low: float, high: float, verdict: str) -> None:
    assert Interval(1.0, low, high, CONFIDENCE).verdict(0.02) == verdict


def test_swapping_the_sides_swaps_the_verdict() -> None:
    swapped = {SLOWER: FASTER, FASTER: SLOWER, SAME: SAME, INCONCLUSIVE: INCONCLUSIVE}
    for ratio in np.linspace(0.9, 1.1, 41):
        one, other = Interval(1, ratio, ratio, 0.99), Interval(1, 1 / ratio, 1 / ratio, 0.99)
        assert other.verdict(0.02) == swapped[one.verdict(0.02)]


def test_all_looks_together_spend_no_more_than_the_chance_to_err() -> None:
    assert sum(look_error(look) for look in range(1, 10_000)) < 1 - CONFIDENCE
    assert look_error(3, 10) == pytest.approx(look_error(3) / 10)
    assert [looks(number) for number in range(1, 7)] == [5, 7, 10, 14, 19, 27]


# Effects of a restart on the log-ratio of two sides, of the size that was measured: 0.2% of a standard deviation.
def normal(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return 0.002 * rng.standard_normal(shape)


def heavy(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return 0.002 * rng.standard_t(3, shape)


def unlucky(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Now and then a side lands badly and is up to 10% slower in that restart, either side as often."""
    landed = np.where(rng.random(shape) < 0.1, 0.1 * rng.random(shape), 0.0)
    return normal(rng, shape) + landed * rng.choice((-1, 1), shape)


def wild(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Two modes 6% apart, as when a buffer does or doesn't collide in a cache."""
    return 0.03 * rng.choice((-1.0, 1.0), shape) + normal(rng, shape)


def log_ratios(rng: np.random.Generator, effects: Effects, slowdown: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Of (trial, restart): what head and twin say, from rounds with bursts, drift and noise that lasts from round to round."""
    shape = (TRIALS, RESTARTS, ROUNDS)
    drift = 0.1 * np.cumsum(rng.standard_normal(shape[:2]), 1)[..., None] + np.linspace(0, 0.05, ROUNDS)
    sides = []
    for effect in (0.0, math.log1p(slowdown), 0.0):
        noise = 0.003 * rng.standard_normal(shape)
        noise[..., 1:] = 0.6 * noise[..., :-1] + 0.8 * noise[..., 1:]
        bursts = np.where(rng.random(shape) < 0.1, rng.exponential(0.5, shape), 0.0)
        sides.append(drift + noise + bursts + effect)
    base, head, twin = sides
    return tuple(np.median(each - base, 2) + effects(rng, shape[:2]) for each in (head, twin))  # type: ignore[return-value]


def judge(heads: np.ndarray, twins: np.ndarray, margin: float, workloads: int = 1) -> list[Trial]:
    """Every trial to its end: looking whenever a look is due, until it is settled or restarts have run out."""
    found = []
    for head, twin in zip(heads.tolist(), twins.tolist(), strict=True):
        trial = Trial(margin, workloads)
        for one, other in zip(head, twin, strict=True):
            trial.add(one, other)
            if trial.due:
                trial.take_look()
                if trial.settled:
                    break
        else:
            if trial.fresh:
                trial.take_look()
        found.append(trial)
    return found


@pytest.mark.parametrize("effects", [normal, heavy, unlucky, wild])
def test_intervals_cover_however_often_one_looks(effects: Effects) -> None:
    """The truth escapes any of the looks' intervals in at most 1% of the trials."""
    missed = 0
    for heads, twins in zip(*log_ratios(np.random.default_rng(1), effects), strict=True):
        trial, escaped = Trial(0.02), False
        for head, twin in zip(heads.tolist(), twins.tolist(), strict=True):
            trial.add(head, twin)
            if trial.due:
                trial.take_look()
                assert trial.ratio
                escaped |= not trial.ratio.low <= 1 <= trial.ratio.high
        missed += escaped
    assert missed <= (1 - CONFIDENCE) * TRIALS


def test_a_look_at_a_fixed_number_of_restarts_misses_as_often_as_it_says() -> None:
    """Not wider than need be: normal effects, one look, 10% error, so that there is something to count."""
    heads, _ = log_ratios(np.random.default_rng(2), normal)
    missed = sum(not each.low <= 1 <= each.high for each in (interval(logs[:8], 0.1) for logs in heads.tolist()))
    assert missed / TRIALS == pytest.approx(0.1, abs=0.03)


@pytest.mark.parametrize("effects", [normal, heavy, unlucky, wild])
def test_identical_code_is_never_called_slower_or_faster(effects: Effects) -> None:
    found = [trial.verdict for trial in judge(*log_ratios(np.random.default_rng(3), effects), margin=0.02)]
    assert found.count(SLOWER) + found.count(FASTER) <= TRIALS / 300
    if effects in (normal, heavy):
        assert found.count(SAME) >= 0.98 * TRIALS


@pytest.mark.parametrize("margin", [0.003, 0.01])
def test_a_slowdown_of_the_margin_itself_is_rarely_called_anything_else(margin: float) -> None:
    """On the edge both `slower` and `same` are wrong; at most 1% of the verdicts may be either, looks and all."""
    heads, twins = log_ratios(np.random.default_rng(4), normal, slowdown=margin)
    found = [trial.verdict for trial in judge(heads, twins, margin)]
    assert found.count(SLOWER) + found.count(FASTER) + found.count(SAME) <= 0.01 * TRIALS


@pytest.mark.parametrize(
    ("slowdown", "margin", "effects", "share"),
    [
        (0.05, 0.02, normal, 0.999),
        (0.05, 0.02, heavy, 0.99),
        (0.03, 0.01, normal, 0.99),
        (0.01, 0.003, normal, 0.90),
    ],
)
def test_slowdowns_are_found_among_ten_workloads(slowdown: float, margin: float, effects: Effects, share: float) -> None:
    heads, twins = log_ratios(np.random.default_rng(5), effects, slowdown)
    found = [trial.verdict for trial in judge(heads, twins, margin, workloads=10)]
    assert found.count(SLOWER) >= share * TRIALS
    assert FASTER not in found and SAME not in found


def test_a_speedup_is_found_too() -> None:
    heads, twins = log_ratios(np.random.default_rng(6), normal, -0.05)
    assert {trial.verdict for trial in judge(heads, twins, 0.02)} == {FASTER}


def test_nothing_is_settled_while_identical_code_differs() -> None:
    """A copy of base that comes out 5% slower says that this group can't tell."""
    heads, _ = log_ratios(np.random.default_rng(7), normal, 0.10)
    _, twins = log_ratios(np.random.default_rng(8), normal)
    for trial in judge(heads[:50], twins[:50] + 0.05, 0.02):
        assert not trial.steady and trial.verdict == INCONCLUSIVE
        assert trial.ratio and trial.ratio.verdict(0.02) == SLOWER


def test_what_more_restarts_would_settle() -> None:
    def trial(*logs: float) -> Trial:
        made = Trial(0.02, heads=list(logs), twins=[0.0001, -0.0001, 0.0002, -0.0002, 0.0])
        made.take_look()
        return made

    noisy, noisier = trial(0.02, -0.02, 0.01, -0.01, 0.0), trial(0.2, -0.2, 0.1, -0.1, 0.0)
    assert noisy.wanted and noisier.wanted and 5 < noisy.wanted < noisier.wanted / 50
    edge = math.log1p(0.02)
    assert trial(edge + 0.01, edge - 0.01, edge, edge, edge).wanted is None
    assert Trial(0.02).wanted == 5

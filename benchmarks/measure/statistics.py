"""What a list of samples says: a median with a 99% interval that assumes nothing of the distribution."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

CONFIDENCE = 0.99
LEAST = 8  # the fewest samples whose extremes enclose the median with 99% confidence: 1 - 2 / 2**8


@cache
def ranks(count: int, confidence: float = CONFIDENCE) -> tuple[int, int]:
    """Ranks, from 0, of the order statistics that enclose the median of any distribution with that confidence.

    The number of samples below the median is binomial(count, 1/2). With too few samples it is the extremes, which then
    enclose it with less confidence: never report fewer than ``LEAST``.
    """
    outside = (1 - confidence) / 2
    if count > 1000:  # the normal approximation is within one rank here
        low = int(count / 2 - 2.5758293035489004 * math.sqrt(count) / 2)
        return low, count - 1 - low
    below, low = 0, -1
    while True:
        below += math.comb(count, low + 1)
        if below / 2**count > outside:
            low = max(low, 0)
            return low, count - 1 - low
        low += 1


def summary(samples: Sequence[float], stopped: str = "fixed") -> dict[str, Any]:
    """A record's ``seconds``: median, its 99% interval, how many samples, and why sampling stopped."""
    ordered = sorted(samples)
    count = len(ordered)
    low, high = ranks(count)
    median = (ordered[(count - 1) // 2] + ordered[count // 2]) / 2
    return {"median": median, "low": ordered[low], "high": ordered[high], "samples": count, "stopped": stopped}


def width(seconds: Mapping[str, Any]) -> float:
    """Half the interval over the median: 0.01 reads as plus or minus 1%."""
    return (seconds["high"] - seconds["low"]) / 2 / seconds["median"]


def distance(one: Mapping[str, Any], other: Mapping[str, Any]) -> float:
    """How far two medians lie apart, relative to the smaller."""
    low, high = sorted((one["median"], other["median"]))
    return high / low - 1

"""Slower, faster, same, or can't tell: what two builds that took turns allow to say.

The unit of evidence is a restart: new processes, libraries mapped elsewhere, buffers elsewhere. What a restart says is one
number, the median of log(head / base) over rounds in which both sides were sampled next to each other; a burst or a drift
hits both, and what is left of it is no more than an outlier. What differs from restart to restart (layout luck) is what an
interval must cover, and samples within a restart know nothing of it; so the interval is Student's over restarts, exact for
normal effects and wide of it for heavier tails. A bootstrap over five restarts covers far less than it claims. Five may
also happen to look alike, as when each landed in the same one of two modes: so no interval of fewer than ten is narrower than
the scatter of base against its own copy makes it. (Of more it may be: the copy has buffers of its own, whose pages collide in
large caches as luck will have it; base and head share theirs.)

Looking again after more restarts is another chance to err: look k may err with probability A / (k (k + 1)), which
sums to A however many looks there are. A is 1% over the number of workloads in the comparison.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from statistics import fmean, stdev

CONFIDENCE = 0.99
GUARD = 0.95  # confidence that identical code comes out the same: a condition of a verdict, not the verdict
FIRST = 5  # restarts before the first look
ALIKE = 10  # restarts from which their own scatter is believed
GROWTH = 1.4  # of restarts from look to look
SLOWER, FASTER, SAME, INCONCLUSIVE = "slower", "faster", "same", "inconclusive"


def outside(t: float, freedom: int) -> float:
    """P(|T| > t) of Student's t with so many degrees of freedom (Abramowitz and Stegun 26.7.3 and 26.7.4)."""
    angle = math.atan2(t, math.sqrt(freedom))
    sine, cosine = math.sin(angle), math.cos(angle)
    odd = freedom % 2
    term = cosine if odd else 1.0
    total = 0.0 if freedom == 1 else term
    for k in range(2 + odd, freedom - 1, 2):
        term *= (k - 1) / k * cosine**2
        total += term
    return max(0.0, 1 - (2 / math.pi * (angle + sine * total) if odd else sine * total))


@cache
def quantile(error: float, freedom: int) -> float:
    """The t beyond which, on both sides together, Student's t falls with probability ``error``."""
    low, high = 0.0, 1.0
    while outside(high, freedom) > error:
        low, high = high, 2 * high
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if outside(middle, freedom) > error else (low, middle)
    return high


@dataclass(frozen=True)
class Interval:
    """The ratio of head's time to base's, and where it lies with ``confidence``."""

    ratio: float
    low: float
    high: float
    confidence: float

    def verdict(self, margin: float) -> str:
        """``slower`` or ``faster`` when all of it lies beyond the margin, ``same`` when all of it lies within."""
        edge = 1 + margin
        if self.low > edge:
            return SLOWER
        if self.high < 1 / edge:
            return FASTER
        return SAME if 1 / edge <= self.low and self.high <= edge else INCONCLUSIVE


def interval(logs: Sequence[float], error: float, scatter: float = 0.0) -> Interval:
    """The mean of log-ratios, one of each restart, two at least, with an interval that misses with probability ``error``.
    ``scatter`` is a standard deviation known to be there, whatever these few show."""
    middle = fmean(logs)
    half = quantile(error, len(logs) - 1) * max(stdev(logs), scatter) / math.sqrt(len(logs))
    return Interval(math.exp(middle), math.exp(middle - half), math.exp(middle + half), 1 - error)


def look_error(look: int, workloads: int = 1, confidence: float = CONFIDENCE) -> float:
    """What look number ``look``, from 1, may spend of the chance to err, for each of so many workloads."""
    return (1 - confidence) / workloads / (look * (look + 1))


def looks(number: int) -> int:
    """After how many restarts look ``number``, from 1, is taken: 5, 7, 10, 14, 20, ..."""
    return round(FIRST * GROWTH ** (number - 1))


@dataclass
class Trial:
    """What is known of one workload. ``add`` one restart after the other; ``settled`` tells when no more is needed.

    ``heads`` are log(head / base), ``twins`` log(base's copy / base). The verdict on head counts only while identical
    code comes out the same; a group in which it doesn't needs more restarts, and ends as ``inconclusive``.
    """

    margin: float
    workloads: int = 1
    heads: list[float] = field(default_factory=list)
    twins: list[float] = field(default_factory=list)
    look: int = 0
    seen: int = 0
    ratio: Interval | None = None
    twin: Interval | None = None

    def add(self, head: float, twin: float) -> None:
        self.heads.append(head)
        self.twins.append(twin)

    @property
    def due(self) -> bool:
        return len(self.heads) >= looks(self.look + 1)

    @property
    def fresh(self) -> bool:
        """Whether a last look may tell more than the one before."""
        return len(self.heads) > max(2, self.seen)

    def take_look(self) -> None:
        """Judge what there is; needs two restarts. Each look costs confidence, so take one when ``due``, and a last one."""
        self.look += 1
        self.seen = len(self.heads)
        scatter = stdev(self.twins) if self.seen < ALIKE else 0.0
        self.ratio = interval(self.heads, look_error(self.look, self.workloads), scatter)
        self.twin = interval(self.twins, look_error(self.look, confidence=GUARD))

    @property
    def steady(self) -> bool:
        """Whether identical code came out as the same."""
        return self.twin is not None and self.twin.verdict(self.margin) == SAME

    @property
    def verdict(self) -> str:
        return self.ratio.verdict(self.margin) if self.ratio and self.steady else INCONCLUSIVE

    @property
    def settled(self) -> bool:
        return self.verdict != INCONCLUSIVE

    @property
    def wanted(self) -> int | None:
        """About how many restarts would settle this, as far as its noise stays as it is; ``None`` if it lies on the edge."""
        if self.ratio is None or self.twin is None:
            return FIRST
        most = 0.0
        for each, middle in ((self.twin, 0.0), (self.ratio, math.log(self.ratio.ratio))):
            room = abs(abs(middle) - math.log1p(self.margin))
            if room < 1e-4:
                return None
            most = max(most, (math.log(each.high / each.low) / 2 / room) ** 2)
        return math.ceil(1.3 * most * len(self.heads))  # a later look has less to spend

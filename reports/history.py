"""Time and error over commits: series, the steps in them, and what the page says of both.

A series is one implementation on one workload, on one machine, from one source: numbers of two machines or two harnesses don't
belong on one line. Times are judged by their logarithm, so that a step is a ratio.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from statistics import NormalDist, median
from typing import Any

import pandas as pd

from . import units
from .charts import history_chart
from .looks import Look
from .sweeps import LINES, TIMED, axes_of, isas_of
from .tables import shape

FIGURES = 24  # at most, in one page
STEPS = 60  # rows at most
LEAST_ULP = 1 / 64  # what an exact result is drawn at
NOT_FINITE = 1e30
INSIDE = NormalDist().inv_cdf(0.995)  # standard deviations on either side that hold 99%


def segments(values: Sequence[float], deviation: float = 0.0, least: int = 2) -> list[int]:
    """Where the pieces of the best piecewise constant fit end: ``[len(values)]`` when there is no step.

    Least squares by dynamic programming (Jackson et al., IEEE Signal Processing Letters 12, 2005), a piece no shorter than
    ``least``. The standard deviation is that of the series, and no less than ``deviation``; a further piece costs
    3 ln(n) + 6 of its squares, which pure noise of known size pays in no more than one series of a hundred. (asv's detection,
    of absolute deviations, misses a third of steps that are five times the noise.)
    """
    count = len(values)
    if count < 2 * least:
        return [count] if count else []
    scale = max(scatter(values), deviation, 1e-9)
    price = 3 * math.log(count) + 6
    sums, squares = [0.0], [0.0]
    for value in values:
        centred = (value - values[0]) / scale
        sums.append(sums[-1] + centred)
        squares.append(squares[-1] + centred**2)
    best, begins = [0.0] + [math.inf] * count, [0] * (count + 1)
    for end in range(least, count + 1):
        for begin in (0, *range(least, end - least + 1)):
            spread = squares[end] - squares[begin] - (sums[end] - sums[begin]) ** 2 / (end - begin)
            if best[begin] + spread + price < best[end]:
                best[end], begins[end] = best[begin] + spread + price, begin
    ends, end = [], count
    while end:
        ends.append(end)
        end = begins[end]
    return ends[::-1]


def scatter(values: Sequence[float]) -> float:
    """The standard deviation about a level that may change, from the median of neighbours' differences."""
    differences = [abs(after - before) for before, after in zip(values, values[1:], strict=False)]
    return median(differences) / 0.954 if differences else 0.0  # of normal values that median is 0.954 deviations


@dataclass(frozen=True)
class Step:
    """A change from one level to the next at a commit (its place in the history), in seconds or ULPs."""

    place: int
    before: float
    after: float

    @property
    def change(self) -> float:
        """|ln| of the ratio."""
        return abs(math.log(max(self.after, LEAST_ULP**9) / max(self.before, LEAST_ULP**9)))


@dataclass(frozen=True)
class Series:
    """``values`` by their places among the commits; ``noise`` is the least relative standard deviation to assume."""

    implementation: str
    places: Sequence[int]
    values: Sequence[float]
    noise: float
    error: bool = False

    @cached_property
    def _logs(self) -> list[float]:
        least = LEAST_ULP if self.error else 0.0
        return [math.log(min(max(value, least), NOT_FINITE)) for value in self.values]

    @cached_property
    def levels(self) -> list[tuple[int, int, float]]:
        """(first, last, level) of each piece, by place in ``places``. Errors hardly vary, so one commit makes a step."""
        ends = segments(self._logs, self.noise, 1 if self.error else 2)
        return [
            (begin, end - 1, math.exp(sum(self._logs[begin:end]) / (end - begin)))
            for begin, end in zip([0, *ends], ends, strict=False)
        ]

    @cached_property
    def deviation(self) -> float:
        """Of one point about its level: as recorded, or as seen where that is more."""
        rest = [abs(log - math.log(level)) for begin, end, level in self.levels for log in self._logs[begin : end + 1]]
        return max(self.noise, median(rest) / 0.6745)

    @property
    def band(self) -> float:
        """The factor that 99% of points stay within when nothing changes."""
        return math.exp(INSIDE * self.deviation)

    @property
    def steps(self) -> list[Step]:
        return [
            Step(self.places[begin], before, after)
            for (_, _, before), (begin, _, after) in zip(self.levels, self.levels[1:], strict=False)
        ]

    @property
    def largest(self) -> float:
        return max((step.change for step in self.steps), default=0.0)


@dataclass(frozen=True)
class History:
    """The series of one workload over one list of commits, oldest first."""

    operator: str
    quantity: str  # time or ulp
    label: str
    where: str
    commits: Sequence[tuple[str, str]] = field(repr=False)  # with dates
    series: Sequence[Series]

    @property
    def largest(self) -> float:
        return max((each.largest for each in self.series), default=0.0)

    def lines(self, order: Sequence[str]) -> list[Series]:
        """What one chart shows: what changed most, then in the page's order of implementations."""
        chosen = sorted(self.series, key=lambda each: (-each.largest, order.index(each.implementation)))[:LINES]
        return sorted(chosen, key=lambda each: order.index(each.implementation))


def histories(runs: pd.DataFrame) -> Iterator[History]:
    """Of every workload that was measured at two commits at least."""
    runs = runs.copy(deep=False)
    runs.attrs = {}  # pandas copies them deeply with every slice
    frame = runs[runs["operator"].notna() & runs["implementation"].notna() & (runs["backend"] != "reference")]
    frame = frame.assign(commit=frame["commit"].fillna(frame["run"]), machine=frame["machine"].fillna(""))
    for (source, machine), rows in frame.groupby(["source", "machine"], sort=False):
        dates = rows.groupby("commit", sort=False)["date"].min().fillna("").sort_values(kind="stable")
        commits = [(str(commit), str(date)) for commit, date in dates.items()]
        if len(commits) < 2:
            continue
        rows = rows.assign(place=rows["commit"].map({commit: place for place, (commit, _) in enumerate(commits)}))
        where = f"{source} on {machine}" if machine else str(source)
        yield from _times(rows, where, commits)
        yield from _errors(rows, where, commits)


def _times(rows: pd.DataFrame, where: str, commits: Sequence[tuple[str, str]]) -> Iterator[History]:
    axes = axes_of(rows)
    timed = rows[(rows["kind"] == "time") & rows["status"].isin(TIMED) & rows["seconds.median"].notna()]
    keys = ["operator", "target", "dtype", "pass", "threads", "cache", *axes]
    found = []
    for _, group in timed.groupby(keys, dropna=False, sort=False):
        every = []
        for name, part in _widest(group).groupby("implementation", sort=False):
            points = part.groupby("place")["seconds.median"].median()
            halves = (part["seconds.high"] - part["seconds.low"]) / 2 / part["seconds.median"] / INSIDE
            noise = max((value for value in (part["noise"].median(), halves.median()) if value == value), default=0.0)
            if len(points) > 1:
                every.append(Series(str(name), list(points.index), list(points), noise))
        if every:
            found.append((group.iloc[0], every))
    # A run's own noise knows nothing of how runs differ; a dozen commits say little of it, all series of a machine much.
    scatters = [scatter([math.log(value) for value in series.values]) for _, every in found for series in every]
    common = median(scatters) if scatters else 0.0
    for first, every in found:
        every = [replace(series, noise=max(series.noise, common)) for series in every]
        threads = f"{first['threads']:.0f} thread{'s' if first['threads'] > 1 else ''}" if first["threads"] > 0 else None
        words = (shape(first, axes), first["dtype"], first["pass"], first["target"], threads, first["cache"])
        yield History(first["operator"], "time", ", ".join(word for word in words if word), where, commits, every)


def _errors(rows: pd.DataFrame, where: str, commits: Sequence[tuple[str, str]]) -> Iterator[History]:
    """The largest error over the inputs that were checked at every commit of a series."""
    axes = axes_of(rows)
    checked = rows[(rows["kind"] == "accuracy") & rows["ulp.max"].notna()]
    for _, group in checked.groupby(["operator", "target", "dtype", "pass"], dropna=False, sort=False):
        found = []
        for name, part in _widest(group).groupby("implementation", sort=False):
            together = part.groupby(["stress", *axes], dropna=False)["place"].transform("nunique")
            points = part[together == part["place"].nunique()].groupby("place")["ulp.max"].max()
            if len(points) > 1:
                found.append(Series(str(name), list(points.index), list(points), 0.002, error=True))
        if found:
            first = group.iloc[0]
            label = ", ".join(word for word in (first["dtype"], first["pass"], first["target"]) if word)
            yield History(first["operator"], "ulp", label, where, commits, found)


def _widest(group: pd.DataFrame) -> pd.DataFrame:
    """Each implementation's rows of the widest ISA that it has."""
    rank = {isa: place for place, isa in enumerate(isas_of(group))}
    places = group["isa"].map(lambda isa: rank.get(isa, 0))
    return group[places == places.groupby(group["implementation"]).transform("min")]


def figures(found: Sequence[History], look: Mapping[str, Look]) -> list[dict[str, Any]]:
    """One chart for each operator, source and quantity: the workload with the longest history, then the largest step."""
    chosen: dict[tuple[str, str, str], History] = {}
    for each in found:
        name = (each.operator, each.where, each.quantity)
        if name not in chosen or _weight(each) > _weight(chosen[name]):
            chosen[name] = each
    kept = sorted(chosen.values(), key=lambda each: -each.largest)[:FIGURES]
    return [
        {
            "quantity": each.quantity,
            "operator": each.operator,
            "label": each.label,
            "where": each.where,
            "lines": [series.implementation for series in each.lines(list(look))],
            "svg": history_chart(each, look, f"history-{place}"),
        }
        for place, each in enumerate(each for each in chosen.values() if each in kept)
    ]


def _weight(history: History) -> tuple[int, float]:
    return max(len(each.places) for each in history.series), history.largest


def steps(found: Sequence[History]) -> list[dict[str, Any]]:
    """The steps of all series, the largest first: one row for what an implementation's workloads did at one commit."""
    together: dict[tuple[Any, ...], list[tuple[Step, History]]] = {}
    for each in found:
        for series in each.series:
            for step in series.steps:
                commit = each.commits[step.place]
                name = (each.operator, series.implementation, each.quantity, each.where, *commit, step.after > step.before)
                together.setdefault(name, []).append((step, each))
    rows = []
    for (operator, implementation, quantity, where, commit, date, worse), members in together.items():
        step, history = max(members, key=lambda member: member[0].change)
        before, after = (math.inf if value > 0.99 * NOT_FINITE else value for value in (step.before, step.after))
        show = units.seconds if quantity == "time" else units.ulp
        row = {"operator": operator, "implementation": implementation, "quantity": quantity, "where": where}
        row |= {"commit": commit[:10], "date": date[:10], "label": history.label, "more": len(members) - 1}
        row |= {"before": show(before), "after": show(after), "change": change(before, after), "worse": worse}
        rows.append((step.change, row))
    return [row for _, row in sorted(rows, key=lambda pair: -pair[0])]


def change(before: float, after: float) -> str:
    """A step in percent; by a factor from twice on."""
    if math.isinf(before) or math.isinf(after):
        return ""
    ratio = after / before
    return f"{100 * (ratio - 1):+.1f} %" if 0.5 < ratio < 2 else f"× {units.digits(ratio)}"

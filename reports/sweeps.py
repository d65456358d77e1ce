"""Which records a chart shows: timed results of one operator on one target over one growing axis."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import pandas as pd

BASELINE = "peer/torch-eager"
TIMED = ("ok", "inaccurate")
ISAS = ("avx512", "avx2", "neon")  # widest first
LINES = 6  # at most, in one chart
DRAWN = ("implementation", "isa", "cache", "run", "seconds.median", "roof.seconds", "bytes", "moved_bytes", "flops", "exps")
# Where the second overtakes the first as rows grow is what the paper is about.
RIVALS = tuple((f"simd/three-pass-reload{kind}", f"simd/two-pass{kind}") for kind in ("", "-stream", "-as-published"))


def axes_of(frame: pd.DataFrame) -> list[str]:
    return [name for name in frame.columns if name.startswith("axes.")]


def workload(frame: pd.DataFrame) -> list[str]:
    """The columns that say what was measured, the implementation and its ISA apart."""
    return ["operator", "target", "dtype", "pass", "threads", *axes_of(frame)]


def timed(frame: pd.DataFrame) -> pd.DataFrame:
    """Results with a time, the oracle apart; of several runs of one thing, the last."""
    chosen = frame[
        (frame["kind"] == "time")
        & frame["status"].isin(TIMED)
        & frame["seconds.median"].notna()
        & (frame["backend"] != "reference")
        & frame["operator"].notna()
        & frame["implementation"].notna()
    ]
    return chosen.drop_duplicates([*workload(frame), "implementation", "isa", "cache"], keep="last")


def prefer(frame: pd.DataFrame, *caches: str) -> pd.DataFrame:
    """One row for each thing measured: the first of ``caches`` that it has, else any."""
    rank = {cache: place for place, cache in enumerate(caches)}
    order = frame.assign(_rank=frame["cache"].map(lambda cache: rank.get(cache, len(rank))))
    kept = order.sort_values("_rank", kind="stable").drop_duplicates([*workload(frame), "implementation", "isa"])
    return kept.drop(columns="_rank").sort_index()


@dataclass(frozen=True)
class Sweep:
    """Timed records of one operator on one target and ISA, over ``axis``; the other axes stay as ``fixed`` says."""

    operator: str
    target: str
    isa: str | None
    dtype: str
    pass_: str
    threads: int
    axis: str
    fixed: Mapping[str, int]
    frame: pd.DataFrame
    _preferred: dict[tuple[str, ...], pd.DataFrame] = field(default_factory=dict, repr=False, compare=False)

    @property
    def name(self) -> str:
        return "-".join(part for part in (self.operator, self.target.replace(":", ""), self.isa) if part)

    @property
    def label(self) -> str:
        where = f"{self.target}, {self.isa}" if self.isa else self.target
        threads = "" if self.target.startswith("cuda") else f", {self.threads} thread{'s' if self.threads > 1 else ''}"
        fixed = "".join(f", {name} = {value:,}" for name, value in self.fixed.items())
        return f"{self.operator} {self.pass_}, {self.dtype}, {where}{threads}{fixed}"

    def preferred(self, *caches: str) -> pd.DataFrame:
        """One row for each thing measured: see ``prefer``."""
        if caches not in self._preferred:
            self._preferred[caches] = prefer(self.frame, *caches)
        return self._preferred[caches]

    def lines(self, *caches: str, limit: int = LINES) -> dict[str, pd.DataFrame]:
        """The implementations to draw, each sorted by length: rivals, the baseline, the automatic choice, the best of each
        backend, then the fastest."""
        rows = self.preferred(*caches)
        by_name = {name: part.sort_values(self.axis) for name, part in rows.groupby("implementation", sort=False)}
        best = rows.groupby(self.axis)["seconds.median"].transform("min")
        slowness = (rows["seconds.median"] / best).map(math.log).groupby(rows["implementation"]).mean()
        ranked = sorted(by_name, key=lambda name: (slowness[name], name))
        wanted = [name for pair in RIVALS[:1] if set(pair) <= set(by_name) for name in pair]
        wanted += [BASELINE, "simd/auto"]
        leaders = {name.partition("/")[0]: name for name in reversed(ranked)}
        wanted += [name for name in ranked if name in leaders.values()] + ranked
        chosen = [name for name in dict.fromkeys(wanted) if name in by_name and len(by_name[name]) > 1][:limit]
        return {name: by_name[name] for name in chosen}


def caches_of(lines: Mapping[str, pd.DataFrame]) -> list[str]:
    """Which of cold, hot and graph these lines show."""
    return sorted({cache for part in lines.values() for cache in part["cache"].dropna()})


def isas_of(frame: pd.DataFrame) -> list[str | None]:
    found = sorted(frame["isa"].dropna().unique(), key=lambda isa: (ISAS.index(isa) if isa in ISAS else len(ISAS), isa))
    return list(found) or [None]


def sweeps(frame: pd.DataFrame) -> Iterator[Sweep]:
    """For each operator and target, its longest sweep of one axis (three lengths at least), once for each ISA."""
    drawn = timed(frame)[[*workload(frame), *DRAWN]]  # slices of few columns are quick
    for (operator, target), rows in drawn.groupby(["operator", "target"], sort=False):
        rows = rows.drop(columns=[name for name in axes_of(rows) if rows[name].isna().all()])
        best: tuple[int, int, str, pd.DataFrame] | None = None
        for _, group in rows.groupby(["dtype", "pass", "threads"], dropna=False, sort=False):
            for axis in (name for name in axes_of(group) if group[name].nunique() >= 3):
                others = [name for name in axes_of(group) if name != axis]
                parts = [part for _, part in group.groupby(others, dropna=False, sort=False)] if others else [group]
                for part in parts:
                    size = (part[axis].nunique(), len(part))
                    if best is None or size > best[:2]:
                        best = (*size, axis, part)
        if best is None or best[0] < 3:  # three lengths, but of different shapes
            continue
        _, _, axis, part = best
        first = part.iloc[0]
        fixed = {name[5:]: int(first[name]) for name in axes_of(part) if name != axis and first[name] == first[name]}
        for isa in isas_of(part):
            with_isa = set(part[part["isa"] == isa]["implementation"])
            rows_here = part[(part["isa"] == isa) | (part["isa"].isna() & ~part["implementation"].isin(with_isa))]
            threads = int(first["threads"]) if first["threads"] == first["threads"] else 1
            yield Sweep(operator, target, isa, first["dtype"], first["pass"], threads, axis, fixed, rows_here)


@dataclass(frozen=True)
class Crossover:
    """From ``length`` on ``later`` is faster than ``earlier``; both ends when one is ahead at every length measured."""

    earlier: str
    later: str
    length: float
    bytes: float


def crossover(sweep: Sweep, pair: tuple[str, str], *caches: str) -> Crossover | None:
    """Where the second of ``pair`` overtakes the first for good, interpolated between lengths on logarithmic scales.

    The length is 0 when it is ahead throughout, infinite when it never is; ``None`` unless both were measured.
    """
    if not set(pair) <= set(sweep.frame["implementation"]):
        return None
    rows = sweep.preferred(*caches)
    earlier, later = (rows[rows["implementation"] == name].set_index(sweep.axis) for name in pair)
    both = sorted(set(earlier.index) & set(later.index))
    if not both:
        return None
    gain = [math.log(earlier.loc[n, "seconds.median"] / later.loc[n, "seconds.median"]) for n in both]
    behind = [place for place, value in enumerate(gain) if value <= 0]
    if not behind:
        return Crossover(*pair, 0.0, 0.0)
    last = behind[-1]
    if last == len(both) - 1:
        return Crossover(*pair, math.inf, math.inf)
    share = -gain[last] / (gain[last + 1] - gain[last])

    def between(low: float, high: float) -> float:
        return math.exp(math.log(low) + share * (math.log(high) - math.log(low)))

    sizes = [float(earlier.loc[n, "bytes"]) for n in both[last : last + 2]]
    return Crossover(*pair, between(both[last], both[last + 1]), between(*sizes))

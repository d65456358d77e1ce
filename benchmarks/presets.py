"""What a run measures: jobs from the cards and the case table, and how a budget of seconds is shared out among them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import TYPE_CHECKING, Any

from .cases import CASES
from .lookup import load, operators
from .measure import caches

if TYPE_CHECKING:
    from ulproof.impls.registry import Implementation, Operator

PRESETS = ("quick", "standard", "full")
SLOW_ELEMENTS = 1 << 20  # up to which the quick preset times the slow, too
LARGE = 16 << 20  # bytes from which a workload is also worth several threads
FILTERS = ("backend", "target", "isa", "dtype", "pass", "shape", "threads")
# Where the noise floor comes from, the first of these that takes part: steady, and about as fast as what is compared.
TWINS = ("simd/auto", "simd/", "cuda/", "triton/", "peer/torch-eager", "numpy/")

Filters = Mapping[str, Collection[str]]


@dataclass(frozen=True)
class Machine:
    """What jobs depend on: targets that are there, ISAs (widest first), and how many cores may be used."""

    targets: tuple[str, ...] = ("cpu",)
    isas: tuple[str, ...] = ()
    cores: int = 1


@dataclass(frozen=True)
class Job:
    """One workload on one target and cache state, and the sides that take turns on it, each with the ISA it is bound to."""

    operator: str
    pass_: str
    dtype: str
    axes: tuple[tuple[str, int], ...]
    target: str
    isa: str | None
    threads: int
    cache: str
    sides: tuple[tuple[str, str | None], ...]
    reason: str | None = None

    @property
    def group(self) -> str:
        parts = (self.operator, self.pass_, self.dtype, self.target, self.isa, f"{self.threads} thread(s)")
        return " ".join(part for part in parts if part)

    @property
    def workload(self) -> str:
        return f"{self.operator} {self.pass_} {self.dtype} {shape(dict(self.axes))} {self.target} {self.cache}"

    @property
    def torch(self) -> bool:
        return self.target.startswith("cuda") or any(uses_torch(name) for name, _ in self.sides)

    @property
    def twin(self) -> str:
        names = [name for name, _ in self.sides]
        return next((name for start in TWINS for name in names if name.startswith(start)), names[0])

    def only(self, names: Collection[str]) -> Job:
        return replace(self, sides=tuple(side for side in self.sides if side[0] in names))


def shape(axes: Mapping[str, int]) -> str:
    return "x".join(map(str, axes.values()))


def uses_torch(name: str) -> bool:
    """Whether an implementation's process needs torch; those for NumPy, SIMD and SciPy get one without."""
    return name.startswith("peer/torch") or name.partition("/")[0] in ("reference", "triton", "cuda")


def asked(filters: Filters, field: str, value: Any) -> bool:
    return value is None or not filters.get(field) or str(value) in filters[field]


def workloads(operator: Operator, preset: str, filters: Filters) -> list[tuple[dict[str, int], str, str]]:
    """(axes, dtype, pass) in the order in which they are measured, the most telling first.

    ``quick`` is the card's list; ``standard`` adds the case table; ``full`` adds its long list and every dtype. Where the
    filters leave none of them, the listed shapes stand for the dtypes and passes that were asked for.
    """
    found = [(dict(axes), dtype, pass_) for axes, dtype, pass_ in operator.priority]
    case = CASES.get(operator.name)
    if preset != "quick" and case:
        shapes = [*case.shapes, *(case.full if preset == "full" else ())]
        dtypes = operator.dtypes if preset == "full" else case.dtypes
        found += [(dict(case.axes_of(each)), dtype, pass_) for pass_ in case.passes for dtype in dtypes for each in shapes]
    found = [each for each in found if asked(filters, "shape", shape(each[0]))]
    wanted = [each for each in found if asked(filters, "dtype", each[1]) and asked(filters, "pass", each[2])]
    if not wanted:
        pairs = [(dtype, pass_) for pass_ in operator.passes for dtype in operator.dtypes]
        pairs = [pair for pair in pairs if asked(filters, "dtype", pair[0]) and asked(filters, "pass", pair[1])]
        wanted = [(axes, dtype, pass_) for dtype, pass_ in pairs for axes, *_ in found]
    return [each for number, each in enumerate(wanted) if each not in wanted[:number]]


def thread_counts(nbytes: int, preset: str, filters: Filters, machine: Machine) -> list[int]:
    if filters.get("threads"):
        return sorted({min(int(each), machine.cores) for each in filters["threads"]})
    several = machine.cores > 1 and (preset != "quick" or nbytes >= LARGE)
    return [1, machine.cores] if several else [1]


def sides(
    chosen: Sequence[Implementation], target: str, isa: str | None, widest: bool, threads: int, preset: str
) -> list[tuple[Implementation, str | None]]:
    """The implementations that take part in a group, and the ISA that each is bound to.

    Those that choose their own ISA take part beside the widest.
    """
    found: list[tuple[Implementation, str | None]] = []
    for each in chosen:
        if target.split(":")[0] not in each.targets or (threads > 1 and not each.threaded):
            continue
        if each.variant == "torch-compile" and preset == "quick":
            continue
        if each.isas and target == "cpu":
            if isa in each.isas:
                found.append((each, isa))
        elif widest:
            found.append((each, None))
    return found


def jobs(
    operator: Operator, chosen: Sequence[Implementation], preset: str, filters: Filters, machine: Machine
) -> Iterator[Job]:
    """The jobs of one operator: with caches as they come first, then cold, each along the list of workloads."""
    listed = workloads(operator, preset, filters)
    isas: tuple[str | None, ...] = tuple(isa for isa in machine.isas if asked(filters, "isa", isa)) or (None,)
    if preset == "quick" and not filters.get("isa"):
        isas = isas[:1]
    several = 0
    first, later = [], []
    for axes, dtype, pass_ in listed:
        nbytes = operator.passes[pass_].nbytes(axes, dtype)
        for target in machine.targets:
            on_cpu = target == "cpu"
            for threads in thread_counts(nbytes, preset, filters, machine) if on_cpu else [1]:
                if threads > 1 and preset == "quick" and not filters.get("threads"):
                    several += 1
                    if several > 2:
                        continue
                for isa in isas if on_cpu else (None,):
                    taking = [
                        (implementation.name, its)
                        for implementation, its in sides(chosen, target, isa, isa in (None, isas[0]), threads, preset)
                        if dtype in implementation.dtypes and pass_ in implementation.passes
                        if not (implementation.slow and preset == "quick" and prod(axes.values()) > SLOW_ELEMENTS)
                    ]
                    if not taking:
                        continue
                    job = Job(operator.name, pass_, dtype, tuple(axes.items()), target, isa, threads, "hot", tuple(taking))
                    if not on_cpu:
                        first += [replace(job, cache=cache) for cache in ("cold", "hot", "graph")]
                    elif caches.beyond(nbytes):
                        first.append(replace(job, cache="cold", reason="beyond the last-level cache: cold and hot are one"))
                    else:
                        first.append(job)
                        later.append(replace(job, cache="cold"))
    yield from first
    yield from later


def plan(
    names: Sequence[str], implementations: Collection[str], preset: str, filters: Filters, machine: Machine
) -> dict[str, list[Job]]:
    """Jobs by operator. ``implementations`` are full names, empty for all but the oracle, which is timed only when named."""
    found = {}
    for name in names or operators():
        chosen = [
            each
            for each in load(name).values()
            if asked(filters, "backend", each.backend)
            and (not implementations or each.full_name in implementations)
            and (each.backend != "reference" or implementations or filters.get("backend"))
        ]
        found[name] = list(jobs(operators()[name], chosen, preset, filters, machine))
    return found


def spend(
    planned: Mapping[str, Sequence[Job]],
    budget: float | None,
    measure: Callable[[Job, float, float], float],
    skip: Callable[[Job], None],
    most: float = 3.0,
) -> float:
    """Measure jobs until the budget is spent, and skip the rest; returns the seconds used.

    The budget is shared out evenly by operator, and what one leaves goes to those after it. Within an operator it goes along
    its list: each job may take its part of what is left. ``measure`` gets a job, the seconds it may take, and the
    limit beyond which its fewest samples don't fit; it returns the seconds used. Without a budget each job gets ``most``.
    """
    used = 0.0
    for number, listed in enumerate(planned.values()):
        share = float("inf") if budget is None else (budget - used) / (len(planned) - number)
        for position, job in enumerate(listed):
            if share <= 0:
                skip(job)
                continue
            seconds = min(most, share / (len(listed) - position))
            taken = measure(job, seconds, share)
            share -= taken
            used += taken
    return used

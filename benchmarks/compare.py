"""Two builds compared: a verdict for each workload, numerics first.

``Comparison`` is what every kind of comparison ends in, and all that its table, its Markdown and its JSON are made from.

``Comparison.as_json`` (``ulproof compare --json FILE``) is::

    {"format": 1,
     "base": {"name", "commit", "tree"}, "head": {...},     as given; commit is null for a changed working tree
     "margin": 0.02, "confidence": 0.99,                    of all verdicts together
     "budget": 120, "spent": 34.5,                          seconds of measuring
     "took_turns": true,                                    false for results that were saved before they were compared
     "exit_code": 0, "headline": "...",                     one line
     "counts": {"planned", "measured", "identical", "skipped": {reason: n}, "failed"},
     "contracts": ["softmax: forward gate"],                cards that differ between the sides, and in what
     "notes": ["..."], "more": "what more time would settle, or null",
     "rows": [records of kind `verdict`]}

A record of kind ``verdict`` has the fields that name a workload (``operator`` to ``cache``) and

    verdict       slower, faster, same, inconclusive; new, removed; null when the workload was not judged
    status        ok, or why it was not judged or is a failure; reason says it in words
    fails         whether it is a failure of numerics, whatever the verdict
    ratio, twin   {estimate, low, high, confidence}: time of head over base, and of base's copy over base
    ratios, twin_ratios                                     the same of each restart: what the intervals are made from
    base_seconds, head_seconds                              median seconds of a call
    base_ulp, head_ulp                                      largest error in ULPs over all checks; null if not finite
    restarts, rounds, dropped                               how often all began anew, rounds in all, rounds thrown away
    margin
"""

from __future__ import annotations

import math
import statistics
import tempfile
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from random import Random
from threading import Event
from typing import Any

from . import builds, duel, presets
from .check import Item, plan
from .lookup import load, operators
from .measure import doctor, environment
from .measure.sampling import rounds
from .measure.verdict import CONFIDENCE, FASTER, FIRST, INCONCLUSIVE, SAME, SLOWER, Interval, Trial
from .presets import Filters, shape
from .progress import Progress
from .record import Record, RunFolder
from .run import machine, measuring_cores, started_at, unavailable
from .supervise import Died, Setting, Worker
from .tables import columns, quantity

FORMAT = 1
SLICE = (0.03, 0.3, 1.0)  # seconds of one workload in one restart: at least, at most, and at most where calls are slow
ENOUGH = 12  # rounds of a restart, where calls are slow
PASSES = 12  # restarts that a budget is shared out for
NEW, REMOVED = "new", "removed"
IDENTICAL = "identical code"
BAD = ("crashed", "timeout")


class Refused(Exception):
    """A comparison that can't be made; ``code`` is the exit code."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True)
class Options:
    """What was asked for. ``everything`` measures identical code too; ``rebuild`` gives each side a build that shares nothing
    with another, native code included; ``patience`` is after how many seconds without a sign of life a call hangs."""

    operators: tuple[str, ...] = ()
    implementations: tuple[str, ...] = ()
    filters: Filters = field(default_factory=dict)
    margin: float = 0.02
    budget: float = 120.0
    everything: bool = False
    rebuild: bool = False
    seed: int = 0
    patience: float = 60.0


@dataclass
class Comparison:
    """Two sides, the rules, and a ``verdict`` record for each workload."""

    base: Mapping[str, Any]
    head: Mapping[str, Any]
    rows: list[Record] = field(default_factory=list)
    margin: float = 0.02
    budget: float | None = None
    spent: float = 0.0
    took_turns: bool = True
    contracts: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    more: str | None = None

    def counts(self) -> dict[str, Any]:
        skipped: dict[str, int] = {}
        for row in self.rows:
            if row["verdict"] is None and row["status"] not in BAD and not row["fails"]:
                reason = f"{row['status']}: {row['reason']}"
                skipped[reason] = skipped.get(reason, 0) + 1
        return {
            "planned": sum(row["verdict"] not in (NEW, REMOVED) for row in self.rows),
            "measured": sum(row.get("ratio") is not None for row in self.rows),
            "identical": sum(identical(row) for row in self.rows),
            "skipped": skipped,
            "failed": sum(row["status"] in BAD or row["fails"] for row in self.rows),
        }

    def exit_code(self) -> int:
        """0 fine, 1 slower, 2 worse numerics, 3 inconclusive, 4 nothing was judged; the worst wins: 4, 2, 1, 3."""
        verdicts = {row["verdict"] for row in self.rows}
        if not any(row["fails"] for row in self.rows) and not verdicts & {SLOWER, FASTER, SAME, INCONCLUSIVE}:
            return 4
        if any(row["fails"] for row in self.rows):
            return 2
        if SLOWER in verdicts:
            return 1
        unsettled = INCONCLUSIVE in verdicts or any(row["status"] in (*BAD, "not measured") for row in self.rows)
        return 3 if unsettled else 0

    def headline(self) -> str:
        """The verdict in one line."""
        counted = [(name, sum(row["verdict"] == name and not identical(row) for row in self.rows)) for name in ORDER]
        said = [f"{number} {name}" for name, number in counted if number]
        counts = self.counts()
        if counts["identical"]:
            said.append(f"{counts['identical']} same (identical code)")
        if failing := sum(row["fails"] for row in self.rows):
            said.insert(0, f"{failing} WRONG")
        if skipped := sum(counts["skipped"].values()):
            said.append(f"{skipped} not judged")
        words = {0: "fine", 1: "slower", 2: "wrong numerics", 3: "inconclusive", 4: "nothing was measured"}[self.exit_code()]
        return f"{words}: {self.head['name']} against {self.base['name']}: {', '.join(said) or 'nothing to compare'}"

    def as_json(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "base": dict(self.base),
            "head": dict(self.head),
            "margin": self.margin,
            "confidence": CONFIDENCE,
            "budget": self.budget,
            "spent": self.spent,
            "took_turns": self.took_turns,
            "exit_code": self.exit_code(),
            "headline": self.headline(),
            "counts": self.counts(),
            "contracts": self.contracts,
            "notes": self.notes,
            "more": self.more,
            "rows": self.rows,
        }


ORDER = (SLOWER, FASTER, INCONCLUSIVE, SAME, NEW, REMOVED)


def identical(row: Record) -> bool:
    return row["verdict"] == SAME and row["reason"] == IDENTICAL


# Showing


def workload(row: Record) -> str:
    """What a row is about, in words."""
    parts = [f"{row['operator']}:{row['implementation']}", row.get("pass"), row.get("dtype")]
    parts.append(shape(row["axes"]) if row.get("axes") else None)
    parts += [row.get("isa"), row["target"] if row.get("target") not in (None, "cpu") else None]
    parts.append(f"{row['threads']} threads" if (row.get("threads") or 1) > 1 else None)
    parts.append(row["cache"] if row.get("cache") not in (None, "hot") else None)
    return " ".join(part for part in parts if part)


def change(ratio: Mapping[str, Any] | None) -> str:
    """A ratio as the change it is, with its interval: ``+5.1% (+4.8 .. +5.4)``."""
    if not ratio:
        return ""
    return f"{ratio['estimate'] - 1:+.2%} ({100 * (ratio['low'] - 1):+.2f} .. {100 * (ratio['high'] - 1):+.2f})"


def error(row: Record) -> str:
    """Both sides' errors: ``1.69`` or ``1.69 -> 2.4``."""
    if "base_ulp" not in row and "head_ulp" not in row:
        return ""
    both = ["not finite" if value is None else f"{value:.3g}" for value in (row.get("base_ulp"), row.get("head_ulp"))]
    return both[0] if both[0] == both[1] else " -> ".join(both)


def verdict(row: Record) -> str:
    said = row["verdict"] or ("" if row["fails"] else row["status"])
    if row["fails"]:
        said = f"WRONG{', ' if said else ''}{said}"
    return f"{said}: {row['reason']}" if row["reason"] else said


def importance(row: Record) -> tuple[int, int, float]:
    """The place of a row: failures first, then by verdict, the largest change first."""
    place = ORDER.index(row["verdict"]) if row["verdict"] in ORDER else len(ORDER)
    ratio = row.get("ratio")
    return (0 if row["fails"] else 1, place, -abs(math.log(ratio["estimate"])) if ratio else 0.0)


HEADING = ("workload", "base", "head", "change (99%)", "max ULP", "verdict")


def cells(row: Record) -> tuple[str, ...]:
    times = (quantity(row.get(f"{side}_seconds"), "s") for side in ("base", "head"))
    return (workload(row), *times, change(row.get("ratio")), error(row), verdict(row))


def remarks(found: Comparison) -> list[str]:
    """What a reader must know besides the rows."""
    said = [f"contract changed: {each}" for each in found.contracts]
    if found.took_turns:
        said.append(
            f"Margin {found.margin:.2g}; {100 * CONFIDENCE:.0f}% for all verdicts together; {found.spent:.0f} of "
            f"{found.budget or 0:.0f} s spent measuring."
        )
    counts = found.counts()
    skipped = "; ".join(f"{number} {reason}" for reason, number in counts["skipped"].items())
    said.append(
        f"Planned {counts['planned']}, measured {counts['measured']}, identical {counts['identical']}, "
        f"skipped {sum(counts['skipped'].values())}{f' ({skipped})' if skipped else ''}, failed {counts['failed']}."
    )
    return [*said, *found.notes, *([found.more] if found.more else [])]


def table(found: Comparison) -> str:
    """For the terminal: the rows by importance, those of identical code left out; then what there is to remark."""
    rows = [cells(row) for row in sorted(found.rows, key=importance) if not identical(row)]
    return "\n".join([*([columns([HEADING, *rows])] if rows else []), *remarks(found), found.headline()])


def markdown(found: Comparison) -> str:
    """For a pull request: the verdict, the rows that changed, the others folded, but for those of identical code."""
    changed = [row for row in found.rows if row["fails"] or row["verdict"] in (SLOWER, FASTER, NEW, REMOVED)]
    changed += [row for row in found.rows if row["status"] in BAD and not row["fails"]]
    rest = [row for row in found.rows if row not in changed and not identical(row)]
    lines = [f"**{found.headline()}**", ""]
    if changed:
        lines += [*_markdown_rows(changed), ""]
    if rest:
        lines += [f"<details><summary>{len(rest)} others</summary>", "", *_markdown_rows(rest), "", "</details>", ""]
    return "\n".join([*lines, *(f"- {each}" for each in remarks(found))]) + "\n"


def _markdown_rows(rows: Iterable[Record]) -> Iterator[str]:
    for line in (HEADING, ("---",) * len(HEADING), *(cells(row) for row in sorted(rows, key=importance))):
        yield "| " + " | ".join(" ".join(cell.replace("|", "\\|").replace("<", "&lt;").split()) for cell in line) + " |"


# Planning


@dataclass
class Contest:
    """One workload: what is compared, and what is known of it."""

    row: Record
    setting: Setting
    trial: Trial
    apart: bool = False
    seconds: list[Mapping[str, float]] = field(default_factory=list)
    rounds: int = 0
    dropped: int = 0
    used: float = 0.0
    done: bool = False

    @property
    def cost(self) -> float:
        """Seconds of one restart, as far as is known."""
        return self.used / len(self.trial.heads) if self.trial.heads else 0.0

    def fewest(self, known: Contest | None) -> float:
        """Seconds of the fewest rounds that a restart takes, by the calls of a contest that has been played."""
        if known is None or not known.seconds:
            return 0.0
        growth = self.row.get("bytes", 1) / max(1, known.row.get("bytes", 1))
        # On either set of buffers, and each sample is warmed up by as much again.
        return 2 * 2 * duel.ROUNDS * sum(known.seconds[-1].values()) * growth

    def slice(self, share: float) -> float:
        """Seconds that the next restart may take, if its share of what is left of the budget is so many."""
        most = max(SLICE[1], min(SLICE[2], ENOUGH * self.used / self.rounds)) if self.rounds else SLICE[1]
        return min(max(share, SLICE[0]), most)

    def learn(self, answer: Mapping[str, Any]) -> None:
        """Take in what a restart said."""
        self.rounds += answer["rounds"]
        self.dropped += answer["dropped"]
        self.used += answer["used"]
        if "head" in answer:
            self.trial.add(answer["head"], answer["twin"])
            self.seconds.append(answer["seconds"])

    def lose(self, side: str, status: str, reason: str) -> None:
        """A side crashed or hung while it was timed. Head's fault fails; base's leaves nothing to compare with."""
        fails = side == "head"
        self.row |= {"status": status, "reason": f"{side}: {reason}", "fails": fails or self.row["fails"]}
        self.done = True


def numbers(interval: Interval | None) -> Record | None:
    if interval is None:
        return None
    return {"estimate": interval.ratio, "low": interval.low, "high": interval.high, "confidence": interval.confidence}


def finished(contest: Contest) -> Record:
    """The record of a contest that goes no further."""
    row, trial = contest.row, contest.trial
    if trial.ratio is None or trial.twin is None or row["status"] in (*BAD, "unavailable"):
        if row["status"] not in (*BAD, "unavailable") and not row["fails"]:
            row |= {"status": "not measured", "reason": "budget" if not contest.dropped else "every round was throttled"}
        return row
    if trial.verdict == INCONCLUSIVE and row["reason"] is None:
        crosses = f"the interval crosses the margin of {trial.margin:.2g}"
        row["reason"] = crosses if trial.steady else f"identical code differs: {change(numbers(trial.twin))}"
    return row | {
        "verdict": trial.verdict,
        "ratio": numbers(trial.ratio),
        "twin": numbers(trial.twin),
        "ratios": [math.exp(each) for each in trial.heads],
        "twin_ratios": [math.exp(each) for each in trial.twins],
        "restarts": len(trial.heads),
        "rounds": contest.rounds,
        "dropped": contest.dropped,
        **{f"{side}_seconds": statistics.median(each[side] for each in contest.seconds) for side in ("base", "head")},
    }


def plain(operator: str, name: str, verdict: str | None, **fields: Any) -> Record:
    """A row for an implementation as a whole."""
    backend, _, variant = name.partition("/")
    return {
        "kind": "verdict",
        "status": "ok",
        "reason": None,
        "operator": operator,
        "implementation": name,
        "backend": backend,
        "variant": variant,
        "axes": {},
        "verdict": verdict,
        "fails": False,
        **fields,
    }


def wanted(options: Options, operator: str, name: str) -> bool:
    full = f"{operator}:{name}"
    return (
        (not options.operators or operator in options.operators)
        and (not options.implementations or full in options.implementations)
        and presets.asked(options.filters, "backend", name.partition("/")[0])
    )


class Match:
    """Base and head as their builds describe themselves, and what follows for each implementation."""

    def __init__(self, base: Mapping[str, Any], head: Mapping[str, Any], options: Options) -> None:
        self.base, self.head, self.options = base, head, options
        self.rows: list[Record] = []  # settled without a check or a measurement
        self.changed: list[tuple[str, str]] = []  # to be checked and measured
        for operator in dict.fromkeys((*base, *head)):
            here, there = (side.get(operator, {}).get("implementations", {}) for side in (base, head))
            for name in dict.fromkeys((*here, *there)):
                if wanted(options, operator, name):
                    self._sort(operator, name, here.get(name), there.get(name))

    def _sort(self, operator: str, name: str, here: Any, there: Any) -> None:
        if here is None or there is None:
            self.rows.append(plain(operator, name, NEW if here is None else REMOVED))
        elif operator not in operators() or name not in load(operator):
            reason = "the working tree, whose ruler measures, has no such implementation"
            self.rows.append(plain(operator, name, None, status="unavailable", reason=reason))
        elif here["code"] == there["code"] and not self.options.everything:
            self.rows.append(plain(operator, name, SAME, reason=IDENTICAL))
        else:
            self.changed.append((operator, name))

    def contracts(self) -> list[str]:
        """What differs between the sides' cards, of the operators and of the bounds that implementations state."""
        found = []
        for operator in self.base.keys() & self.head.keys():
            base, head = self.base[operator], self.head[operator]
            names = {**base["contract"], **head["contract"]}
            differ = [name for name in names if base["contract"].get(name) != head["contract"].get(name)]
            if differ:
                found.append(f"{operator}: {', '.join(differ)}")
            for name, each in base["implementations"].items():
                other = head["implementations"].get(name)
                if other and (each["bound"], each["vouched"]) != (other["bound"], other["vouched"]):
                    found.append(f"{operator}:{name}: bound")
        return sorted(found)

    def slack(self, operator: str, name: str) -> float:
        """The smaller of base's and the ruler's; base may be of before there was any."""
        known = load(operator)[name].slack
        listed = self.base[operator]["implementations"][name]["slack"]
        return known if listed is None else min(known, listed)

    def judged_by_base_too(self, operator: str, name: str, ruler: Mapping[str, str]) -> bool:
        """Whether base's card may be stricter than the ruler's."""
        listed, known = self.base[operator]["implementations"][name], load(operator)[name]
        bound = {f"{pass_} {dtype}": value for (pass_, dtype), value in (known.bound or {}).items()}
        return self.base[operator]["contract"] != ruler or (listed["bound"], listed["vouched"]) != (bound, known.vouched)

    def contests(self) -> Iterator[Contest]:
        """The workloads of what changed: the quick preset's on each target that is here, hot, or cold where they are cold
        anyway. Rows for what has none go to ``rows``."""
        here = machine(self.options.filters)
        for operator in dict.fromkeys(operator for operator, _ in self.changed):
            full = [f"{operator}:{name}" for each, name in self.changed if each == operator]
            found: dict[str, int] = {}
            for job in presets.plan([operator], full, "quick", self.options.filters, here)[operator]:
                if job.cache != "hot" and not (job.reason or (job.cache == "cold" and job.target != "cpu")):
                    continue
                for name, isa in job.sides:
                    known = load(operator)[name]
                    if unavailable(known, job.target) or known.refuses(job.pass_, dict(job.axes), job.dtype):
                        continue
                    found[name] = found.get(name, 0) + 1
                    torch = job.target != "cpu" or presets.uses_torch(name)
                    # Torch runs its operators for two builds as well as for one; compilers keep state by kernel.
                    apart = job.target != "cpu" or "compile" in name
                    row = plain(operator, name, None, axes=dict(job.axes), dtype=job.dtype, target=job.target, isa=isa)
                    row |= {"pass": job.pass_, "threads": job.threads, "cache": job.cache, "margin": self.options.margin}
                    row["bytes"] = known.operator.passes[job.pass_].nbytes(dict(job.axes), job.dtype)
                    setting = Setting(measuring_cores(job.threads), job.threads, isa, torch)
                    yield Contest(row, setting, Trial(self.options.margin), apart)
            for name in (name for each, name in self.changed if each == operator and name not in found):
                known = load(operator)[name]
                reasons = [reason for target in here.targets if (reason := unavailable(known, target))]
                status, reason = ("unavailable", reasons[0]) if len(reasons) == len(here.targets) else ("not measured", None)
                row = plain(operator, name, None, status=status, reason=reason or "no workload that these filters leave")
                self.rows.append(row)


# Numerics

Mark = tuple[Any, ...]


def mark(row: Mapping[str, Any]) -> Mark:
    return tuple(row.get(name) for name in ("operator", "implementation", "pass", "dtype", "target", "isa"))


@dataclass
class Judgement:
    """What the checks of one mark say: the worst of head's, and both sides' largest errors."""

    base_ulp: float | None = 0.0
    head_ulp: float | None = 0.0
    status: str = "ok"
    reason: str | None = None
    fails: bool = False

    def worst(self, status: str, reason: str, fails: bool) -> None:
        if fails > self.fails or self.status == "ok":
            self.status, self.reason, self.fails = status, reason, fails


def larger(one: float | None, record: Record | None) -> float | None:
    """The larger of two errors; not finite (``None``) is the largest."""
    if not record or not record.get("ulp"):
        return one
    other = record["ulp"]["max"]
    return None if one is None or other is None else max(one, other)


def judged(
    items: Sequence[Item],
    base: Sequence[Record],
    head: Sequence[Record],
    strict: Collection[str],
    slack: Mapping[str, float],
) -> dict[Mark, Judgement]:
    """Head's checks against base's, by mark. ``strict`` are full names of implementations that one side vouches for.

    A failure is: what is wrong or beyond its bound, of an implementation that we vouch for; what crashes, can't run or is
    wrong and wasn't at base; and an error that grew by more than the cards' ``slack``, by full name, allows.
    """
    found: dict[Mark, Judgement] = {}
    for item, before, after in zip(items, base, head, strict=True):
        one = found.setdefault(mark({**asdict(item), "pass": item.pass_}), Judgement())
        one.base_ulp, one.head_ulp = larger(one.base_ulp, before), larger(one.head_ulp, after)
        vouched = f"{item.operator}:{item.implementation}" in strict
        status = after["status"]
        if status == "ok" or status == "not measured":
            continue
        same = before["status"] == status
        if same and not vouched:
            continue  # known to be poor, and no poorer
        bounded = status == "inaccurate" and "its own bound" in str(after["reason"])
        fails = (vouched and (bounded or status in ("wrong", *BAD))) or (not same and status in ("wrong", "unavailable", *BAD))
        one.worst(status, f"{item.stress}: {after['reason']}{' (as at base)' if same else ''}", fails)
    for place, each in found.items():
        if each.fails or each.base_ulp is None or each.head_ulp is None:
            continue
        allowed = each.base_ulp + slack[f"{place[0]}:{place[1]}"] * max(1.0, each.base_ulp)
        if each.head_ulp > allowed:
            each.status, each.fails = "wrong", True
            each.reason = f"error grew from {each.base_ulp:.3g} to {each.head_ulp:.3g} ULP; the card allows {allowed:.3g}"
    return found


def worse(one: Record, other: Record) -> Record:
    """The worse of two judgements of one result."""
    order = ("ok", "not measured", "inaccurate", "unavailable", "wrong", "timeout", "crashed")
    return max(one, other, key=lambda each: order.index(each["status"]))


class Referee:
    """Carries out a comparison of two builds. ``sides`` are folders of ``impls``: base, head, and twin, base's copy."""

    def __init__(self, sides: Mapping[str, Path], options: Options, workspace: Path, progress: Progress | None = None) -> None:
        self.sides, self.options, self.workspace = dict(sides), options, workspace
        self.progress = progress or Progress()
        self.spent = 0.0

    def describe(self, names: Mapping[str, str]) -> Match:
        """Raises ``Refused`` for a build that speaks another protocol or can't be asked."""
        from ulproof.impls.registry import PROTOCOL

        found = {}
        for side in ("base", "head"):
            worker = Worker(Setting(measuring_cores(1)))
            try:
                job = {"do": "describe", "build": str(self.sides[side]), "protocol": PROTOCOL}
                (answer,) = worker.ask(job, self.options.patience)
            except Died as death:
                raise Refused(f"{names[side]}: built, but can't be imported: {death.reason}", 4) from None
            finally:
                worker.close()
            if "error" in answer:
                raise Refused(f"{names[side]}: built, but can't be asked what it has: {answer['error']}", 4)
            if answer["protocol"] != PROTOCOL:
                spoken = f"protocol {answer['protocol']}" if answer["protocol"] is not None else "no protocol"
                raise Refused(f"{names[side]} speaks {spoken} of the registry, the working tree's ruler {PROTOCOL}", 64)
            found[side] = answer["operators"]
        return Match(found["base"], found["head"], self.options)

    # Numerics

    def check(self, match: Match) -> dict[Mark, Judgement]:
        """Check both sides at once, each on a core of its own where there are two; head by base's card too where that is
        another."""
        changed = set(match.changed)
        items = check_items(self.options, changed)
        ruler = {name: duel.contract(operators()[name], builds_folder() / family(name)) for name, _ in changed}
        again = {pair for pair in changed if match.judged_by_base_too(*pair, ruler[pair[0]])}
        twice = [item for item in items if (item.operator, item.implementation) in again]
        self.progress.begin("checking", 2 * len(items) + len(twice))
        stop = Event()
        with ThreadPoolExecutor(2) as pool:
            futures = [pool.submit(self._check, side, items, None, stop) for side in ("base", "head")]
            try:
                results = [each.result() for each in futures]
            except BaseException:
                stop.set()
                raise
        strictly = dict(zip(twice, self._check("head", twice, self.sides["base"]), strict=True))
        results[1] = [worse(one, strictly.get(item, one)) for item, one in zip(items, results[1], strict=True)]
        self.progress.end()
        strict = {
            f"{operator}:{name}"
            for operator, name in changed
            if load(operator)[name].vouched or match.base[operator]["implementations"][name]["vouched"]
        }
        slack = {f"{operator}:{name}": match.slack(operator, name) for operator, name in changed}
        return judged(items, results[0], results[1], strict, slack)

    def _check(self, side: str, items: Sequence[Item], card: Path | None, stop: Event | None = None) -> list[Record]:
        """A record for each item. After a crash or a hang the rest of its kin is left out."""
        found: dict[Item, Record] = {}
        for kind in dict.fromkeys(item.worker for item in items):
            waiting = [item for item in items if item.worker == kind]
            threads = max(item.threads for item in waiting)
            setting = Setting(tuple(environment.cores()), threads, None, kind != "native", kind == "interpreter")
            worker = Worker(setting, stop)
            try:
                while waiting:
                    job: Record = {"do": "judge", "build": str(self.sides[side]), "card": str(card) if card else None}
                    job["items"] = [asdict(item) for item in waiting]
                    answered = 0
                    try:
                        with closing(worker.ask(job, self.options.patience)) as answers:
                            for answer in answers:
                                if "error" in answer:
                                    raise Died("crashed", "", answer["error"])
                                found[waiting[answered]] = answer["record"]
                                answered += 1
                                self.progress.step(f"{side}: {waiting[answered - 1].implementation}")
                        break
                    except Died as death:
                        item = waiting[answered]
                        found[item] = {"status": death.status, "reason": death.reason, "ulp": None}
                        later = waiting[answered + 1 :]
                        waiting = [each for each in later if kin(each) != kin(item)]
                        left_out = {"status": "not measured", "reason": f"{death.status} before", "ulp": None}
                        found |= {each: left_out for each in later if kin(each) == kin(item)}
            finally:
                worker.close()
        return [found[item] for item in items]

    # Timing

    def measure(self, contests: Sequence[Contest], write: Callable[[Record], None]) -> None:
        """Restart and take turns until all is settled or the budget is spent; ``write`` gets each record when it is final."""
        begin, generator = time.monotonic(), Random(self.options.seed)
        (self.workspace / "inputs").mkdir(exist_ok=True)
        self.progress.begin("taking turns", len(contests))
        # The cheap ones first: a verdict on each of them costs as much as a single look at the largest.
        playing, first = sorted(contests, key=lambda each: each.row.get("bytes", 0)), True
        share = 0.0
        try:
            while True:
                for each in playing:
                    if each.trial.due and not each.done:
                        each.trial.take_look()
                        each.done = each.trial.settled
                    if each.done:
                        self.progress.step(workload(each.row))
                        write(finished(each))
                playing = [each for each in playing if not each.done]
                left = self.options.budget - (time.monotonic() - begin)
                if not playing or left <= 0:
                    break
                share = max(share, left / PASSES / len(playing))  # shorter restarts towards the end would be outliers
                until = time.monotonic() + (left / FIRST if first else left)
                if not self._restart(playing, share, until, generator):
                    break  # what is left of the budget is too little for any of them
                if first:
                    playing = self._admitted(playing, self.options.budget - (time.monotonic() - begin))
                    first = False
            for each in playing:
                if each.trial.fresh:
                    each.trial.take_look()
        finally:
            self.spent = time.monotonic() - begin
            for each in contests:
                if each.row["verdict"] is None and not each.done:
                    write(finished(each))
            self.progress.end()

    @staticmethod
    def _admitted(playing: Sequence[Contest], left: float) -> list[Contest]:
        """After the first pass, those for which the time that is left suffices for a look; the verdict on each then allows
        for that many others. Those that a pass lost stay, to be written."""
        judging: list[Contest] = []
        needed = 0.0
        for each in playing:
            needed += (FIRST - 1) * max(each.slice(left / PASSES / len(playing)), each.fewest(each))
            if each.trial.heads and (needed <= left or not judging):
                judging.append(each)
        for each in judging:
            each.trial.workloads = len(judging)
        return judging + [each for each in playing if each.done]

    def _restart(self, playing: Sequence[Contest], share: float, until: float, generator: Random) -> int:
        """One restart of the processes that play these contests, one after the other as far as time goes; returns how many it
        was enough for."""
        played, last = 0, None
        for setting in dict.fromkeys(each.setting for each in playing):
            team = {side: Worker(setting) for side in self.sides}
            try:
                for each in (each for each in playing if each.setting == setting):
                    seconds = each.slice(share)
                    if time.monotonic() + (each.cost or max(seconds, each.fewest(last))) >= until:
                        continue
                    played, last = played + 1, each
                    if not each.apart:
                        self._together(each, team["base"], seconds, generator)
                    if each.apart and not each.done:
                        self._apart(each, team, seconds, generator)
            finally:
                for worker in team.values():
                    worker.close()
        return played

    def _job(self, contest: Contest, do: str, sides: Iterable[str], seconds: float, generator: Random) -> Record:
        names = ("operator", "implementation", "pass", "dtype", "axes", "target", "isa", "threads", "cache")
        builds = {side: str(self.sides[side]) for side in sides}
        fields = {"do": do, "builds": builds, "seconds": seconds, "seed": generator.getrandbits(48)}
        return {name: contest.row[name] for name in names} | fields | {"inputs": str(self.workspace / "inputs")}

    def _together(self, contest: Contest, worker: Worker, seconds: float, generator: Random) -> None:
        """All sides in one process. When it dies, the next try has a process for each side, to find out whose fault it is."""
        sides = generator.sample(list(self.sides), len(self.sides))  # the order in which libraries are mapped
        job = self._job(contest, "duel", sides, seconds, generator)
        try:
            with closing(worker.ask(job, self.options.patience)) as answers:
                (answer,) = answers
        except Died:
            contest.apart = True
            return
        if "rounds" in answer:
            contest.learn(answer)
        else:
            contest.lose(answer.get("side", ""), answer.get("status", "crashed"), answer.get("reason") or answer["error"])

    def _apart(self, contest: Contest, team: Mapping[str, Worker], seconds: float, generator: Random) -> None:
        """A process for each side, on the same cores; the one whose turn it is works, the others wait."""
        begin = time.monotonic()
        order = generator.sample(list(team), len(team))

        def ask(side: str, job: Record) -> Record:
            try:
                with closing(team[side].ask(job, self.options.patience)) as answers:
                    found = list(answers)
            except Died as death:
                raise _Lost(side, death.status, death.reason) from None
            for answer in found:
                if "error" in answer or "status" in answer:
                    raise _Lost(side, answer.get("status", "crashed"), answer.get("reason") or answer["error"])
            return found[-1] if found else {}

        def sampler(side: str) -> Callable[[int], float]:
            def sample(calls: int) -> float:
                seconds = ask(side, {"do": "sample", "calls": calls})["seconds"]
                return math.nan if seconds is None else float(seconds)

            return sample

        samples: list[dict[str, float]] = []
        samplers = {side: sampler(side) for side in order}
        try:
            held = {side: ask(side, self._job(contest, "hold", [side], seconds, generator)) for side in order}
            calls = dict.fromkeys(order, max(each["calls"] for each in held.values()))
            ready = time.monotonic()
            while not samples or time.monotonic() - ready < seconds:
                if samples:
                    for side in order:
                        ask(side, {"do": "place"})
                samples += islice(rounds(samplers, calls, generator), duel.ROUNDS)
        except _Lost as lost:
            contest.lose(*lost.args)
            return
        contest.learn(duel.summary(samples) | {"used": time.monotonic() - begin})


class _Lost(Exception):
    """A side, and what became of it: status and reason."""


def builds_folder() -> Path:
    import ulproof.impls

    return Path(str(ulproof.impls.__file__)).parent


def family(operator: str) -> str:
    return operators()[operator].package.rpartition(".")[2]


def kin(item: Item) -> tuple[str, ...]:
    return item.operator, item.implementation, item.pass_, item.dtype


def check_items(options: Options, changed: Collection[tuple[str, str]]) -> list[Item]:
    """The checks of what changed, one shape for each stress input; in the interpreter each operator's first dtype and pass
    alone, unless it is asked for, as it takes its time."""
    names = [name for name in operators() if any(name == operator for operator, _ in changed)]
    first = {name: operators()[name].priority[0][1:] for name in names}
    patient = bool(options.filters.get("target"))
    return [
        item
        for item in (plan(names, options.filters, thorough=False) if names else [])
        if (item.operator, item.implementation) in changed
        and (patient or item.target != "interpreter" or (item.dtype, item.pass_) == first[item.operator])
    ]


def more(contests: Sequence[Contest], options: Options) -> str | None:
    """What more time would settle."""
    open_ = [each for each in contests if each.row["status"] == "ok" and each.trial.heads and not each.trial.settled]
    if not open_:
        return None
    needs = []
    for each in open_:
        if (restarts := each.trial.wanted) is not None:
            needs.append(max(0, restarts - len(each.trial.heads)) * each.cost)
    said = [f"{len(open_)} inconclusive"]
    if needs:
        half = (len(needs) + 1) // 2
        for number in dict.fromkeys((half, len(needs))):
            seconds = sum(sorted(needs)[:number])
            total = math.ceil(options.budget + seconds)
            said.append(f"about {math.ceil(seconds)} s more (--budget {total}) would settle {number}")
    if len(needs) < len(open_):
        said.append(f"{len(open_) - len(needs)} lie on the margin, where no time helps")
    return "; ".join(said) + "."


def compare(
    spec: str,
    options: Options,
    output: Path | None = None,
    progress: Progress | None = None,
    say: Callable[[str], None] = lambda text: None,
    root: Path | None = None,
) -> Comparison:
    """Build the sides of ``BASE[..HEAD]``, check them, let them take turns. With ``output`` all is kept there as a run.

    Raises ``ValueError`` for a name that git doesn't know, ``builds.BuildError`` for a side that doesn't build, ``Refused`` for
    one that can't be compared.
    """
    root = root or builds.checkout()
    with ExitStack() as stack:
        workspace = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ulproof-")))
        base, head = builds.sources(root, spec, workspace)
        sides = {}
        for side, source in (("base", base), ("head", head)):
            built = builds.build(source, say, side if options.rebuild else "")
            sides[side] = builds.placed(built, workspace / side)
            if side == "base":
                sides["twin"] = builds.placed(built, workspace / "twin")
        lock = builds.cache() / "measuring.lock"
        stack.enter_context(builds.locked(lock, lambda: say("another comparison is measuring; waiting for it")))

        found = Comparison(told(base), told(head), margin=options.margin, budget=options.budget)
        referee = Referee(sides, options, workspace, progress)
        match = referee.describe({"base": base.label, "head": head.label})
        found.contracts = match.contracts()
        folder = new(output, options, found) if output else None

        def write(row: Record) -> None:
            found.rows.append(row)
            if folder:
                folder.append(row)

        try:
            contests = list(match.contests())
            for row in match.rows:
                write(row)
            judgements = referee.check(match) if match.changed else {}
            for row in weighed(contests, judgements):
                write(row)
            before = environment.state()
            referee.measure(contests, write)
            seen = environment.between(before, environment.state())
            found.spent = round(referee.spent, 1)
            if seen["others"] > 0.1 and contests:
                found.notes.append(f"Other programs took {seen['others']:.2f} cores meanwhile.")
            found.more = more(contests, options)
        finally:
            if folder:
                summary = {name: value for name, value in found.as_json().items() if name != "rows"}
                folder.update(finished=started_at(), comparison=summary)
                folder.close()
    return found


def weighed(contests: Sequence[Contest], judgements: Mapping[Mark, Judgement]) -> Iterator[Record]:
    """Give each contest what the checks say of it; yield rows for failures of what is not timed."""
    timed = set()
    for each in contests:
        timed.add(mark(each.row))
        # A check without a word on the ISA speaks for all of them.
        judgement = judgements.get(mark(each.row)) or judgements.get(mark({**each.row, "isa": None}))
        if judgement is None:
            continue
        each.row |= {"base_ulp": judgement.base_ulp, "head_ulp": judgement.head_ulp}
        each.row |= {"status": judgement.status, "reason": judgement.reason, "fails": judgement.fails}
        each.done = judgement.status in (*BAD, "unavailable")
    for place, judgement in judgements.items():
        if judgement.fails and place not in timed and (*place[:-1], None) not in timed:
            operator, name, pass_, dtype, target, isa = place
            fields = {"pass": pass_, "dtype": dtype, "target": target, "isa": isa, "threads": 1}
            fields |= {"base_ulp": judgement.base_ulp, "head_ulp": judgement.head_ulp}
            yield plain(operator, name, None, status=judgement.status, reason=judgement.reason, fails=True, **fields)


def told(source: builds.Source) -> Record:
    return {"name": source.name, "commit": source.commit, "tree": source.tree}


def new(output: Path, options: Options, found: Comparison) -> RunFolder:
    """The run folder of a comparison."""
    machine_ = environment.environment()
    header = {
        "started": started_at(),
        "finished": None,
        "commit": found.head["commit"],
        "preset": "compare",
        "environment": machine_,
        "findings": doctor.findings(machine=machine_),
        "plan": {**asdict(options), "base": dict(found.base), "head": dict(found.head)},
    }
    return RunFolder.create(output, header)

"""A run: check, measure the ceilings, time what takes turns, and write every record down at once."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Generator, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from queue import SimpleQueue
from threading import Event
from typing import TYPE_CHECKING, Any

from . import compile, presets
from .check import Item, fails
from .check import plan as plan_checks
from .lookup import gpus, load, operators
from .measure import doctor, environment
from .measure.ceilings import Ceilings
from .presets import Filters, Job, Machine, asked
from .progress import Progress
from .record import Record, RunFolder, key, largest, was_put_off
from .supervise import Died, Setting, Worker
from .walk import Piece
from .walk import plan as plan_walks

if TYPE_CHECKING:
    from ulproof.impls.registry import Implementation

BUDGETS = {"quick": 90.0, "standard": None, "full": None}  # seconds of measuring
CEILING_SECONDS = 3.0  # for each thread count
STRIKES = {"crashed": 1, "timeout": 3}  # at three, an implementation is not tried again in this run
KEPT = 4  # workers: one and several threads, on two ISAs
MARGIN = 0.05  # a result is suspect when it is faster than its roof by more than this and the noise


@dataclass(frozen=True)
class Options:
    """What was asked for. ``implementations`` are full names (``softmax:simd/auto``), empty for all."""

    operators: tuple[str, ...] = ()
    implementations: tuple[str, ...] = ()
    preset: str = "quick"
    filters: Filters = field(default_factory=dict)
    seed: int = 0
    budget: float | None = None
    patience: float = 60.0

    @property
    def seconds(self) -> float | None:
        return BUDGETS[self.preset] if self.budget is None else self.budget


@dataclass
class Counts:
    """What became of the rows of a run, and which failures are ours."""

    measured: int = 0
    failing: list[Record] = field(default_factory=list)

    def exit_code(self) -> int:
        return 4 if not self.measured else 2 if self.failing else 0


class Unsaved:
    """Records in memory, for commands that leave no run behind."""

    def __init__(self) -> None:
        self.run: Record = {"plan": {}, "commit": environment.commit()}
        self.records: list[Record] = []

    def append(self, record: Record) -> None:
        self.records.append(record)

    def update(self, **fields: Any) -> None:
        self.run.update(fields)

    def close(self) -> None: ...


def started_at() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def machine(filters: Filters) -> Machine:
    """The targets that are there and asked for, this CPU's ISAs and the cores that may be used."""
    there = ("cpu", *(f"cuda:{index}" for index in range(len(gpus()))))
    targets = tuple(each for each in there if asked(filters, "target", each))
    return Machine(targets, tuple(environment.cpu()["isas"]), len(environment.cores()))


def unavailable(implementation: Implementation, target: str) -> str | None:
    """Why an implementation can't run on a target here; code that can't be imported is a reason like others."""
    try:
        return implementation.unavailable(target)
    except ImportError as error:
        return f"can't be imported: {error}"


def chosen(options: Options) -> Iterator[Implementation]:
    for name in options.operators or operators():
        for each in load(name).values():
            named = not options.implementations or each.full_name in options.implementations
            if named and asked(options.filters, "backend", each.backend):
                yield each


def wanted_targets(implementation: Implementation, filters: Filters) -> list[str]:
    """The targets to time an implementation on, there or not: the CPU where it runs on one, else every GPU."""
    there = len(gpus())
    devices = [f"cuda:{index}" for index in range(max(1, there))]
    devices += [each for each in filters.get("target", ()) if each.startswith("cuda:") and each not in devices]
    listed = ["cpu"] if "cpu" in implementation.targets else []
    if "cuda" in implementation.targets and (there or not listed or filters.get("target")):
        listed += devices
    return [target for target in listed if asked(filters, "target", target)]


def base(implementation: Implementation, **fields: Any) -> Record:
    """What every record of an implementation says."""
    return {
        "kind": "time",
        "status": "ok",
        "reason": None,
        "operator": implementation.operator.name,
        "implementation": implementation.name,
        "backend": implementation.backend,
        "variant": implementation.variant,
        **fields,
    }


class Runner:
    """Carries out one run into a folder."""

    def __init__(self, folder: RunFolder | Unsaved, options: Options, progress: Progress | None = None) -> None:
        self.folder, self.options, self.progress = folder, options, progress or Progress()
        self.counts = Counts()
        self.commit = folder.run.get("commit")
        self.written = {key(record) for record in folder.records}
        self.done = {key(record) for record in folder.records if not was_put_off(record)}
        self.workers: dict[Setting, Worker] = {}
        self.wrong: dict[tuple[Any, ...], str] = {}
        self.poor: dict[tuple[Any, ...], str] = {}
        self.ulps: dict[tuple[Any, ...], Record] = {}
        self.strikes: dict[str, int] = {}
        self.ceilings = Ceilings(())
        for record in folder.records:
            self._learn(record)

    # Writing

    def write(self, record: Record) -> None:
        if was_put_off(record) and key(record) in self.written:
            return  # and again
        self.folder.append(record)
        self.written.add(key(record))
        self.done.add(key(record))
        self._learn(record)

    def _learn(self, record: Record) -> None:
        """Keep what later rows depend on: also from the records of a run that is resumed."""
        if record["kind"] == "time" and record["status"] in ("ok", "inaccurate", "suspect"):
            self.counts.measured += 1
        if record["kind"] == "ceiling":
            self.ceilings = Ceilings([*self.ceilings.records, record])
        if record["kind"] != "accuracy":
            return
        broke = record["status"] in ("crashed", "timeout") and load(record["operator"])[record["implementation"]].vouched
        if broke or fails(record):
            self.counts.failing.append(record)
        for mark in marks(record):
            if record["status"] == "wrong":
                vouched = load(record["operator"])[record["implementation"]].vouched
                kept = self.wrong if vouched or record["stress"] == "normal" else self.poor
                kept.setdefault(mark, f"{record['stress']}: {record['reason']}")
            elif record["status"] == "inaccurate":
                self.poor.setdefault(mark, f"{record['stress']}: {record['reason']}")
            if record.get("ulp"):
                worst = self.ulps.get(mark)
                if worst is None or largest(record["ulp"]) > largest(worst):
                    self.ulps[mark] = {**record["ulp"], "worst_input": record["stress"]}

    # Workers

    def worker(self, setting: Setting) -> Worker:
        """The worker of a setting. The last few are kept, asleep: each start imports torch again."""
        known = self.workers.pop(setting) if setting in self.workers else Worker(setting)
        self.workers[setting] = known
        while len(self.workers) > KEPT:
            self.workers.pop(next(iter(self.workers))).close()
        return known

    def close(self) -> None:
        for each in self.workers.values():
            each.close()
        self.workers.clear()

    # Steps

    def not_there(self) -> set[tuple[str, str]]:
        """Write a row for each implementation that can't run on a target it was to be timed on."""
        found = set()
        for each in chosen(self.options):
            for target in wanted_targets(each, self.options.filters):
                if (reason := unavailable(each, target)) is None:
                    continue
                found.add((each.full_name, target))
                listed = presets.workloads(each.operator, self.options.preset, self.options.filters)
                for dtype, pass_ in dict.fromkeys((dtype, pass_) for _, dtype, pass_ in listed):
                    if dtype in each.dtypes and pass_ in each.passes:
                        fields: Record = {"target": target, "dtype": dtype, "pass": pass_, "axes": {}, "commit": self.commit}
                        row = base(each, **fields) | {"status": "unavailable", "reason": reason}
                        if key(row) not in self.done:
                            self.write(row)
        return found

    def compiled(self) -> None:
        """Write what the GPU kernels need, where they have been compiled: nothing is compiled here."""
        filters = self.options.filters
        if filters.get("target") and not any(each.startswith("cuda") for each in filters["target"]):
            return
        known: dict[str, list[Record]] = {}
        for each in chosen(self.options):
            name = each.operator.name
            for row in known.setdefault(name, compile.kept(name)) if each.backend in compile.BACKENDS else ():
                mine = row["implementation"] == each.name and all(
                    asked(filters, field, row[field]) for field in ("dtype", "pass")
                )
                if mine and key(row) not in self.done:
                    self.write(row | {"commit": self.commit})

    def check(self, items: Sequence[Item]) -> None:
        """Numeric checks, on all cores at once. After a crash or a hang the rest of that implementation's checks of this
        kind are left out."""
        items = [item for item in items if key(self._check_row(item)) not in self.done]
        self.progress.begin("checking", len(items))
        cores = environment.cores()
        shares = []
        for kind in dict.fromkeys(item.worker for item in items):
            waiting = [item for item in items if item.worker == kind]
            size = -(-len(waiting) // len(cores))  # neighbours share their inputs, so a share is one stretch
            shares += [waiting[start : start + size] for start in range(0, len(waiting), size)]
        with closing(self._on_all_cores(self._check_share, shares)) as answers:
            for item, answer in answers:
                self._checked(item, answer)
        self.progress.end()

    def _on_all_cores(self, work: Callable[[Any, SimpleQueue[Any], Event], None], shares: Sequence[Any]) -> Generator[Any]:
        """What comes of all shares, in no order: ``work`` puts it into the queue, then ``None``, and ends when told to."""
        answers: SimpleQueue[Any] = SimpleQueue()
        stop = Event()
        with ThreadPoolExecutor(len(environment.cores())) as pool:
            futures = [pool.submit(work, share, answers, stop) for share in shares]
            try:
                for _ in futures:
                    while (answer := answers.get()) is not None:
                        yield answer
            except BaseException:
                stop.set()
                raise
            for future in futures:
                future.result()

    def _check_share(self, waiting: list[Item], answers: SimpleQueue[Any], stop: Event) -> None:
        kind, threads = waiting[0].worker, max(item.threads for item in waiting)
        worker = Worker(Setting(tuple(environment.cores()), threads, None, kind != "native", kind == "interpreter"), stop)
        try:
            while waiting:
                answered = 0
                try:
                    job = {"do": "check", "items": [asdict(item) for item in waiting]}
                    with closing(worker.ask(job, self.options.patience)) as found:
                        for answer in found:
                            answers.put((waiting[answered], answer["record"]))
                            answered += 1
                    return
                except Died as death:
                    item = waiting[answered]
                    answers.put((item, failure(death.status, death.reason)))
                    same = (item.operator, item.implementation, item.pass_, item.dtype)
                    later = waiting[answered + 1 :]
                    waiting = [each for each in later if (each.operator, each.implementation, each.pass_, each.dtype) != same]
        finally:
            worker.close()
            answers.put(None)

    def _check_row(self, item: Item) -> Record:
        names = ("target", "isa", "threads", "dtype", "stress", "seed")
        fields = {name: getattr(item, name) for name in names} | {"pass": item.pass_, "axes": dict(item.axes)}
        return base(load(item.operator)[item.implementation], **fields) | {"kind": "accuracy", "commit": self.commit}

    def _checked(self, item: Item, answer: Record) -> None:
        self.write(self._check_row(item) | answer | {"kind": "accuracy", "commit": self.commit})
        self.progress.step(f"{item.operator} {item.implementation} {item.dtype} {item.pass_} {item.stress}")

    def walk(self, pieces: Sequence[Piece]) -> None:
        """Every float32 number: each core takes the next piece. An implementation that crashes or hangs is left out from
        there on."""
        left = [piece.only([side for side in piece.sides if key(piece.row(side)) not in self.done]) for piece in pieces]
        waiting = deque(piece for piece in left if piece.sides)
        if not waiting:
            return
        self.progress.begin("walking every float32 number", len(waiting))
        with closing(self._on_all_cores(self._walk_share, [waiting] * len(environment.cores()))) as answers:
            for piece, records in answers:
                for record in records:
                    self.write(record | {"commit": self.commit})
                self.progress.step(f"{piece.operator} {piece.pass_} {piece.first:#010x}")
        self.progress.end()

    def _walk_share(self, waiting: deque[Piece], answers: SimpleQueue[Any], stop: Event) -> None:
        workers: dict[bool, Worker] = {}
        broken: set[tuple[str, str, str]] = set()
        try:
            while waiting and not stop.is_set():
                try:
                    piece = waiting.popleft()
                except IndexError:  # another core took it
                    break
                if piece.torch not in workers:
                    workers[piece.torch] = Worker(Setting(tuple(environment.cores()), 1, None, piece.torch), stop)
                records: list[Record] = []
                sides = [side for side in piece.sides if (piece.operator, piece.pass_, side[0]) not in broken]
                while sides:
                    try:
                        job = {"do": "walk", "piece": asdict(piece.only(sides))}
                        with closing(workers[piece.torch].ask(job, self.options.patience)) as found:
                            given = list(found)
                        if "error" in given[-1]:
                            raise Died("crashed", given[-1]["side"], given[-1]["error"])
                        records += [answer["record"] for answer in given]
                        break
                    except Died as death:
                        blamed = [side for side in sides if side[0] == death.side] or sides
                        records += [piece.row(side) | failure(death.status, death.reason) for side in blamed]
                        broken.update((piece.operator, piece.pass_, name) for name, _ in blamed)
                        sides = [side for side in sides if side not in blamed]
                answers.put((piece, records))
        finally:
            for worker in workers.values():
                worker.close()
            answers.put(None)

    def measure_ceilings(self, targets: Collection[str], threads: Collection[int]) -> None:
        wanted: list[tuple[str, int]] = [
            (target, count) for target in targets for count in (sorted(threads) if target == "cpu" else [1])
        ]
        have = self.folder.run.setdefault("ceilings", [])
        missing = [each for each in wanted if list(each) not in have]
        self.progress.begin("measuring the roofs", len(missing))
        for target, count in missing:
            worker = self.worker(Setting(measuring_cores(count), count, None, target != "cpu"))
            isas = [isa for isa in environment.cpu()["isas"] if asked(self.options.filters, "isa", isa)]
            job = {"do": "ceilings", "target": target, "isas": isas, "threads": count, "seconds": CEILING_SECONDS}
            row = {"kind": "ceiling", "target": target, "threads": count, "commit": self.commit}
            try:
                with closing(worker.ask(job, self.options.patience)) as answers:
                    for answer in answers:
                        found = answer["record"] | row if "record" in answer else row | failure("crashed", answer["error"])
                        if key(found) not in self.done:
                            self.write(found)
            except Died as death:
                self.write(row | failure(death.status, death.reason))
            self.folder.update(ceilings=[*have, [target, count]])
            have = self.folder.run["ceilings"]
            self.progress.step(f"{target}, {count} thread(s)")
        self.progress.end()

    def measure(self, job: Job, seconds: float, limit: float) -> float:
        """Time one job, write a row for each side, and return the seconds of measuring."""
        self.progress.step(job.workload)
        left = dict(job.sides)
        for name in list(left):
            if (row := self._settled(job, name)) is not None:
                del left[name]
                if row and key(row) not in self.done:
                    self.write(row)
        used = 0.0
        before = environment.state()
        while left:
            turn = job.only(left)
            setting = Setting(measuring_cores(job.threads), job.threads, job.isa, turn.torch)
            try:
                answers = self._ask(setting, turn, seconds, max(0.1, limit - used))
            except Died as death:
                blamed = [death.side] if death.side in left else list(left)
                for name in blamed:
                    self.write(self._row(job, name) | failure(death.status, death.reason))
                    self.strikes[name] = self.strikes.get(name, 0) + STRIKES.get(death.status, 1)
                    del left[name]
                continue
            last = answers.pop()
            used += last["used"]
            for answer in answers:
                self.write(self._finished(job, answer, last["noise"]))
            break
        self._watch(job, before)
        plan = self.folder.run["plan"]
        self.folder.update(plan={**plan, "used_seconds": round(plan.get("used_seconds", 0.0) + used, 6)})
        return used

    def _ask(self, setting: Setting, job: Job, seconds: float, limit: float) -> list[Record]:
        request = {
            "do": "time",
            "operator": job.operator,
            "pass": job.pass_,
            "dtype": job.dtype,
            "axes": dict(job.axes),
            "target": job.target,
            "threads": job.threads,
            "cache": job.cache,
            "sides": dict(job.sides),
            "twin": job.twin,
            "seed": self.options.seed,
            "seconds": seconds,
            "limit": limit if limit != float("inf") else 1e9,
            "precision": 0.01 if self.options.preset == "quick" else 0.005,
            "as_called": job.cache == "hot" or (job.target == "cpu" and job.reason is not None),
        }
        patience = self.options.patience * (5 if any("compile" in name for name, _ in job.sides) else 1)
        with closing(self.worker(setting).ask(request, patience)) as answers:
            found = list(answers)
        if "error" in found[-1]:
            raise Died("crashed", found[-1].get("side", ""), found[-1]["error"])
        return found

    def _settled(self, job: Job, name: str) -> Record | None:
        """The row of a side that is not to be timed, empty when a run that is resumed has it; ``None`` when it is."""
        row = self._row(job, name)
        implementation = load(job.operator)[name]
        if key(row) in self.done:
            return {}
        if reason := implementation.refuses(job.pass_, dict(job.axes), job.dtype):
            return row | failure("unavailable", reason)
        if reason := self.wrong.get(mark(row)):
            return row | failure("wrong", reason) | {"ulp": self.ulps.get(mark(row))}
        if self.strikes.get(name, 0) >= 3:
            return row | failure("not measured", "crashed or hung before in this run")
        return None

    def _row(self, job: Job, name: str) -> Record:
        implementation = load(job.operator)[name]
        axes, card = dict(job.axes), operators()[job.operator].passes[job.pass_]
        isa = dict(job.sides)[name]
        counted = implementation.exps(job.pass_, axes) if implementation.exps else card.exps(axes)
        return base(
            implementation,
            target=job.target,
            isa=isa,
            threads=job.threads,
            dtype=job.dtype,
            axes=axes,
            cache=job.cache,
            seed=self.options.seed,
            commit=self.commit,
            group=job.group,
            bytes=card.nbytes(axes, job.dtype),
            moved_bytes=implementation.moved(job.pass_, axes, job.dtype) if implementation.moved else None,
            flops=card.flops(axes),
            exps=counted,
            roof=self.ceilings.roof(card, axes, job.dtype, job.target, isa, job.threads, job.cache),
        ) | {"pass": job.pass_}

    def _finished(self, job: Job, answer: Record, noise: float | None) -> Record:
        row = self._row(job, answer["side"])
        row["ulp"] = self.ulps.get(mark(row))
        if "seconds" not in answer:
            return row | failure(answer["status"], answer["reason"])
        row |= {name: answer.get(name) for name in ("seconds", "seconds_as_called", "peak_bytes")} | {"noise": noise}
        row["reason"] = job.reason
        if row["backend"] in ("triton", "cuda") or row["variant"] == "torch-compile":
            row["compile_seconds"] = answer["first_seconds"]
        if poor := self.poor.get(mark(row)):
            row |= {"status": "inaccurate", "reason": poor}
        roof = row["roof"]
        if roof and self.ceilings.trusted(job.target):
            share = roof["seconds"] / row["seconds"]["high"]
            if share > 1 + max(MARGIN, noise or 0.0):
                row |= {"status": "suspect", "reason": f"{share:.2f} times as fast as its roof ({roof['binds']}) allows"}
        return row

    def skip(self, job: Job) -> None:
        """Rows for a job that the budget leaves no room for."""
        self.progress.step(f"{job.workload}: no budget left")
        for name, _ in job.sides:
            row = self._settled(job, name)
            row = self._row(job, name) | failure("not measured", "budget") if row is None else row
            if row and key(row) not in self.done:
                self.write(row)

    def _watch(self, job: Job, before: Record) -> None:
        """Keep in ``run.json`` what else the machine did, by group: the worst seen."""
        watch = self.folder.run.setdefault("watch", {})
        seen = environment.between(before, environment.state(), job.threads)
        worst = watch.setdefault(job.group, seen)
        for name, best in (("others", max), ("steal", max), ("celsius", max), ("load", max), ("mhz", min)):
            if seen[name] is not None:
                worst[name] = best(seen[name], worst[name] if worst[name] is not None else seen[name])

    def run(self) -> Counts:
        """The whole of it; whatever happens, what was measured is on disk."""
        options = self.options
        try:
            absent = self.not_there()
            self.compiled()
            here = machine(options.filters)
            planned = presets.plan(options.operators, options.implementations, options.preset, options.filters, here)
            planned = {name: [without(job, absent) for job in jobs] for name, jobs in planned.items()}
            planned = {name: [job for job in jobs if job.sides] for name, jobs in planned.items()}
            total = sum(map(len, planned.values()))
            self.folder.update(plan={**self.folder.run["plan"], "jobs": total})
            if total:
                jobs = [job for each in planned.values() for job in each]
                self.check(check_items(options, jobs))
                self.walk(walk_pieces(options))
                self.measure_ceilings({job.target for job in jobs}, {job.threads for job in jobs if job.target == "cpu"})
                self.progress.begin("measuring", total)
                left = options.seconds and max(0.0, options.seconds - self.folder.run["plan"].get("used_seconds", 0.0))
                presets.spend(planned, left, self.measure, self.skip)
                self.progress.end()
            found = [*disturbances(self.folder.run.get("watch", {})), *self.folder.run.get("findings", [])]
            self.folder.update(finished=started_at(), findings=found)
        finally:
            self.close()
            self.folder.close()
        return self.counts


def disturbances(watch: Mapping[str, Mapping[str, Any]]) -> Iterator[doctor.Finding]:
    """What doctor says of what happened while groups were measured."""
    for name, most, what in (("others", 0.1, "other programs took"), ("steal", 0.02, "the hypervisor took")):
        shares = [seen[name] for seen in watch.values() if seen[name] > most]
        if shares:
            what = f"{what} up to {max(shares):.2f} cores while {len(shares)} of {len(watch)} groups were measured"
            yield doctor.finding("warning", what, "measure again on a quiet machine: `ulproof run`")
    clocks = [seen["mhz"] for seen in watch.values() if seen["mhz"]]
    if clocks and min(clocks) < 0.9 * max(clocks):
        yield doctor.finding("warning", f"the clocks moved between {min(clocks):.0f} and {max(clocks):.0f} MHz during the run")


def failure(status: str, reason: str) -> Record:
    return {"status": status, "reason": reason}


def mark(row: Mapping[str, Any]) -> tuple[Any, ...]:
    """What a numeric check vouches for."""
    return tuple(row.get(name) for name in ("operator", "implementation", "target", "isa", "dtype", "pass"))


def marks(record: Record) -> list[tuple[Any, ...]]:
    """A check that was made without a word on the ISA counts for all of them."""
    isas = [record["isa"]] if record["isa"] or record["target"] != "cpu" else [None, *environment.ISAS]
    return [mark({**record, "isa": isa}) for isa in isas]


def without(job: Job, absent: Collection[tuple[str, str]]) -> Job:
    return job.only([name for name, _ in job.sides if (f"{job.operator}:{name}", job.target) not in absent])


def measuring_cores(threads: int) -> tuple[int, ...]:
    """The cores that a worker is pinned to: the last ones, as the system likes to interrupt the first."""
    return tuple(environment.cores()[-threads:])


def check_items(options: Options, jobs: Sequence[Job] | None = None) -> list[Item]:
    """The numeric checks that go with a run: of what its jobs time, or, without jobs, of everything asked for.

    Where no GPU can speak for the Triton kernels the interpreter does; in the quick preset for each operator's first dtype
    and pass alone, as it takes its time.
    """
    filters, quick = options.filters, options.preset == "quick"
    if jobs is not None:
        there = {job.target for job in jobs}
        if there == {"cpu"} and asked(filters, "target", "interpreter"):
            there.add("interpreter")
        filters = {**filters, "target": sorted(there), "threads": ()}
    timed = {(job.operator, name, job.dtype, job.pass_) for job in jobs or () for name, _ in job.sides}
    first = {name: operator.priority[0][1:] for name, operator in operators().items()}

    def wanted(item: Item) -> bool:
        if options.implementations and f"{item.operator}:{item.implementation}" not in options.implementations:
            return False
        if jobs is not None and item.target == "interpreter":
            return not quick or (item.dtype, item.pass_) == first[item.operator]
        return jobs is None or (item.operator, item.implementation, item.dtype, item.pass_) in timed

    return list(filter(wanted, plan_checks(options.operators, filters, thorough=not quick, long=options.preset == "full")))


def walk_pieces(options: Options) -> list[Piece]:
    """The walks over every float32 number: in the full preset alone."""
    wanted = options.preset == "full"
    return plan_walks(options.operators, options.filters, options.implementations) if wanted else []


def new(path: str | Path, options: Options) -> RunFolder:
    """A folder for a new run, with everything known before it begins."""
    machine_ = environment.environment()
    plan = {**asdict(options), "budget": options.seconds}
    header = {
        "started": started_at(),
        "finished": None,
        "commit": environment.commit(),
        "preset": options.preset,
        "environment": machine_,
        "findings": doctor.findings(machine=machine_),
        "plan": plan,
    }
    return RunFolder.create(path, header)


def resumed(path: str | Path) -> tuple[RunFolder, Options]:
    """A run that was cut short, or that left something out for want of budget, and what it was asked for. One that came to
    its end gets its budget once more."""
    folder = RunFolder.resume(path)
    if folder.run.get("finished"):
        folder.update(finished=None, plan={**folder.run["plan"], "used_seconds": 0.0})
    plan = folder.run["plan"]
    known: Record = {name: plan[name] for name in ("preset", "seed", "budget", "patience") if name in plan}
    known |= {name: tuple(plan.get(name, ())) for name in ("operators", "implementations")}
    filters = {name: tuple(values) for name, values in plan.get("filters", {}).items()}
    return folder, Options(**known, filters=filters)

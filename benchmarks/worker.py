"""The process that binds, checks and times, so that a crash, a hang or a lack of memory costs one row and not the run.

``python -m ulproof.benchmarks.worker JOBS ANSWERS PULSE`` takes file descriptors: it reads one job a line, writes its
answers one a line, JSON both, and keeps in PULSE, which is shared memory, whose turn it is. Standard output and error
belong to the kernels. It imports a toolchain only when a job's implementation does.
"""

from __future__ import annotations

import ctypes
import gc
import json
import mmap
import os
import re
import signal
import struct
import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from .measure import caches, environment, statistics
from .measure.sampling import Effort, OverBudget, Rotation, Sampler, hot, settled, take_turns
from .measure.statistics import LEAST

PULSE = 256  # bytes: a counter, then the name of the side at work
TWIN = " (twin)"
COMPARED = ("simd/auto", "peer/torch-eager")  # the last to be left out for want of time
PAGE = 4096
Answer = dict[str, Any]


class Pulse:
    """Whose turn it is, in memory that outlives a crash: the parent reads it to know whom to blame, and that it beats."""

    def __init__(self, descriptor: int) -> None:
        self._memory = mmap.mmap(descriptor, PULSE)

    def beat(self, name: str) -> None:
        count = struct.unpack_from("Q", self._memory)[0] + 1
        struct.pack_into(f"Q{PULSE - 8}s", self._memory, 0, count, name.encode()[: PULSE - 8])

    def read(self) -> tuple[int, str]:
        count, name = struct.unpack_from(f"Q{PULSE - 8}s", self._memory)
        return count, name.rstrip(b"\0").decode(errors="replace")


def die_with_parent() -> None:
    """Be killed when the parent is gone, however it went; and be the first that a system without memory kills."""
    if sys.platform != "linux":
        return
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    if os.getppid() == 1:  # the parent went before that call
        os._exit(1)
    try:
        Path("/proc/self/oom_score_adj").write_text("1000")
    except OSError as error:
        print(f"oom_score_adj: {error}", file=sys.stderr)


def aligned(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """A zeroed array that begins on a page and is in memory already."""
    dtype = np.dtype(dtype)
    size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    memory = np.empty(size + PAGE, np.uint8)
    start = -memory.ctypes.data % PAGE
    array = memory[start : start + size].view(dtype).reshape(shape)
    array.fill(0)
    return array


def aligned_copy(array: np.ndarray) -> np.ndarray:
    copy = aligned(array.shape, array.dtype)
    copy[...] = array
    return copy


def checks(job: Mapping[str, Any], pulse: Pulse) -> Iterator[Answer]:
    """Numeric checks, an accuracy record each."""
    from .check import Item

    for fields in job["items"]:
        item = Item(**{**fields, "axes": tuple(map(tuple, fields["axes"]))})
        pulse.beat(item.implementation)
        try:
            record = item.check()
        except Exception as error:
            record = {"status": "crashed", "reason": said(error)}
        yield {"record": record}


def walked(job: Mapping[str, Any], pulse: Pulse) -> Iterator[Answer]:
    """A piece of the float32 line, an accuracy record for each side."""
    from .walk import Piece, walk

    piece = Piece(**{**job["piece"], "sides": tuple(map(tuple, job["piece"]["sides"]))})
    for record in walk(piece, pulse.beat):
        yield {"record": record}


def said(error: BaseException) -> str:
    """An exception in one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:500]


class Timing:
    """One workload on one target: the sides' bound calls, and what timing them in turns gives."""

    def __init__(self, job: Mapping[str, Any], pulse: Pulse) -> None:
        self.begin = time.perf_counter()
        from ulproof.impls import load
        from ulproof.impls._backends import arrays, stress

        self.job, self.pulse, self.arrays = job, pulse, arrays
        self.lookup = load(job["operator"])
        operator = next(iter(self.lookup.values())).operator
        self.card = operator.passes[job["pass"]]
        self.gpu = job["target"].startswith("cuda")
        self.nbytes = self.card.nbytes(job["axes"], job["dtype"])
        self.beyond = job["cache"] != "hot" and caches.beyond(self.nbytes)
        self.failures: dict[str, Answer] = {}
        self.extra: dict[str, Answer] = {}
        self.costs: dict[str, float] = {}  # seconds of the first call
        drawn = stress.inputs(operator, job["pass"], job["axes"], job["dtype"], "normal", job["seed"])
        self.inputs = self.place(tuple(aligned_copy(array) for array in drawn))
        self.outputs = self.fresh_outputs()

    def place(self, arrays: tuple[np.ndarray, ...]) -> tuple[Any, ...]:
        return tuple(self.arrays.to_torch(array).to(self.job["target"]) for array in arrays) if self.gpu else arrays

    def fresh_outputs(self) -> tuple[Any, ...]:
        named = self.arrays.dtype_named
        return self.place(
            tuple(
                aligned(each.shape(self.job["axes"]), named(self.job["dtype"] if each.dtype == "io" else each.dtype))
                for each in self.card.outputs
            )
        )

    def fresh_inputs(self) -> tuple[Any, ...]:
        return tuple(array.clone() if self.gpu else aligned_copy(array) for array in self.inputs)

    def bind(self, name: str, inputs: tuple[Any, ...], outputs: tuple[Any, ...]) -> Callable[[], Any]:
        self.pulse.beat(name)
        options = {"pass_": self.job["pass"], "target": self.job["target"], "threads": self.job["threads"]}
        return self.lookup[name].bind(inputs, outputs, isa=self.job["sides"][name], **options)

    def bound(self) -> dict[str, Callable[[], Any]]:
        """Each side bound and called once. A side that raises is left out and answers with its error."""
        found = {}
        for name in self.job["sides"]:
            before, begin = reset_peak(), time.perf_counter()
            try:
                call = self.bind(name, self.inputs, self.outputs)
                bound = time.perf_counter()
                call()
                self.wait()
                self.costs[name] = time.perf_counter() - bound
            except Exception as error:
                self.fail(name, error)
                continue
            self.extra[name] = {"first_seconds": time.perf_counter() - begin, "peak_bytes": peak() - before if before else None}
            found[name] = call
        return found

    def affordable(self, calls: dict[str, Callable[[], Any]]) -> dict[str, Callable[[], Any]]:
        """Without the slowest sides, where the fewest rounds of all would take more than half of what is left for them: a slow
        one would cost the others their row, and the workloads after this one theirs. On a GPU first calls say nothing."""
        kept, each = dict(calls), (1 if self.beyond else 2) * (LEAST + 1)
        left = self.job["limit"] - self.used()
        while len(kept) > 1 and not self.gpu:
            if each * (sum(self.costs[name] for name in kept) + self.costs[self.twin(kept)]) <= left / 2:
                break
            slowest = max(kept, key=lambda name: (name not in COMPARED, self.costs[name]))
            del kept[slowest]
            self.failures[slowest] = {"status": "not measured", "reason": "budget: too slow for its share"}
        return kept

    def twin(self, calls: Collection[str]) -> str:
        """The side that is timed against itself: the one that was asked for, if it can be."""
        return str(self.job["twin"] if self.job["twin"] in calls else next(iter(calls)))

    def fail(self, name: str, error: Exception) -> None:
        status = "unavailable" if type(error) is RuntimeError and "can't run here" in str(error) else "crashed"
        self.failures[name] = {"status": status, "reason": said(error)}

    def wait(self) -> None:
        if self.gpu:
            import torch

            torch.cuda.synchronize(self.job["target"])

    def samplers(self, calls: Mapping[str, Callable[[], Any]], cache: str) -> tuple[dict[str, Sampler], int | None]:
        """A sampler per side, the twin's among them, and the most calls that one sample may take."""
        twin = self.twin(calls)
        if self.gpu:
            from .measure import gpu

            apart = self.bind(twin, self.fresh_inputs(), self.fresh_outputs())
            timers = {**calls, twin + TWIN: apart}
            return {name: gpu.sampler(call, cache, self.job["target"]) for name, call in timers.items()}, None
        if cache == "hot" or self.beyond:
            sides = dict(calls)
            sides[twin + TWIN] = self.bind(twin, self.fresh_inputs(), self.fresh_outputs())
            return {name: hot(call) if cache == "hot" else Rotation(1).sampler([call]) for name, call in sides.items()}, None
        count, evicted = caches.copies(self.nbytes)
        buffers, others = ([(self.fresh_inputs(), self.fresh_outputs()) for _ in range(count)] for _ in range(2))
        every = (array for inputs, outputs in (*buffers, *others) for array in (*inputs, *outputs))
        rotation = Rotation(count, caches.evictor(every) if evicted else None)
        found = {name: rotation.sampler([self.bind(name, *each) for each in buffers]) for name in calls}
        found[twin + TWIN] = rotation.sampler([self.bind(twin, *each) for each in others])
        return found, rotation.most

    def as_called(self, names: list[str]) -> dict[str, Sampler]:
        """The same through the implementation's own call on the user's arrays, allocation included."""
        found: dict[str, Sampler] = {}
        for name in names:
            implementation = self.lookup[name]
            arrays = self.inputs
            if not self.gpu and "torch" in implementation.variant:
                arrays = tuple(map(self.arrays.to_torch, arrays))
            options: dict[str, Any] = {"pass_": self.job["pass"]}  # what is the default goes unsaid, as users leave it
            if self.job["sides"][name] not in (None, *environment.cpu()["isas"][:1]):
                options["isa"] = self.job["sides"][name]
            if self.job["threads"] > 1:
                options["threads"] = self.job["threads"]

            def call(implementation: Any = implementation, arrays: Any = arrays, options: Any = options) -> None:
                implementation(*arrays, **options)

            try:
                self.pulse.beat(name)
                call()
            except Exception as error:
                self.extra[name]["as_called_reason"] = said(error)
                continue
            if self.gpu:
                from .measure import gpu

                found[name] = gpu.sampler(call, "hot", self.job["target"])
            else:
                found[name] = hot(call)
        return found

    def undisturbed(self, sides: dict[str, Sampler]) -> dict[str, Sampler]:
        """Several threads need all cores for themselves."""
        return {name: settled(side) for name, side in sides.items()} if self.job["threads"] > 1 else sides

    def used(self) -> float:
        """Seconds since this job came: making inputs, binding and warming up are part of what measuring costs."""
        return time.perf_counter() - self.begin

    def answers(self) -> Iterator[Answer]:
        job, taken, noise, reason = self.job, {}, None, None
        calls = self.affordable(self.bound())
        if calls:
            sides, most = self.samplers(calls, job["cache"])
            sides = self.undisturbed(sides)
            seconds = max(job["seconds"] / 3, 0.75 * job["seconds"] - self.used())
            effort = Effort(seconds, job["limit"] - self.used(), job["precision"])
            try:
                taken = take_turns(sides, effort, seed=job["seed"], most=most, announce=self.announce)
            except OverBudget:
                reason = "budget"
            twin = next(name for name in sides if name.endswith(TWIN))
            if taken:
                noise = statistics.distance(taken.pop(twin), taken[twin.removesuffix(TWIN)])
        called: dict[str, Any] = {}
        if taken and job["as_called"]:
            effort = Effort(
                0.25 * job["seconds"], min(max(1.0, job["seconds"]), job["limit"] - self.used()), 2 * job["precision"]
            )
            try:
                called = take_turns(
                    self.undisturbed(self.as_called(list(taken))), effort, seed=job["seed"], announce=self.announce
                )
            except OverBudget:
                called = {}
        for name in job["sides"]:
            if name in self.failures:
                yield {"side": name, **self.failures[name]}
            elif reason:
                yield {"side": name, "status": "not measured", "reason": reason}
            else:
                yield {"side": name, "seconds": taken[name], "seconds_as_called": called.get(name), **self.extra[name]}
        yield {"used": self.used(), "noise": noise}

    def announce(self, name: str) -> None:
        self.pulse.beat(name.removesuffix(TWIN))


def reset_peak() -> int:
    """Bytes resident now; from here on ``peak`` tells the most. 0 where the system can't say."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
        return _status("VmRSS")
    except OSError:
        return 0


def peak() -> int:
    return _status("VmHWM")


def _status(field: str) -> int:
    found = re.search(rf"^{field}:\s*(\d+) kB", environment.read("/proc/self/status"), re.MULTILINE)
    return int(found[1]) * 1024 if found else 0


def needed(job: Mapping[str, Any]) -> int:
    """Bytes that timing a workload takes at least: its copies, the twin's, and what drawing the inputs needs for a while."""
    from ulproof.impls import operators

    card = operators()[job["operator"]].passes[job["pass"]]
    nbytes = card.nbytes(job["axes"], job["dtype"])
    rotated = job["cache"] == "cold" and not caches.beyond(nbytes)
    copies = 2 * caches.copies(nbytes)[0] if rotated else 1
    elements = max(int(np.prod(each.shape(job["axes"]), dtype=np.int64)) for each in card.inputs)
    return (1 + copies) * nbytes + elements * (32 if card.derive else 8)


def timing(job: Mapping[str, Any], pulse: Pulse) -> Iterator[Answer]:
    """Time the sides of one workload in turns; one answer a side, then the seconds used and the noise."""
    free = environment.memory()["available"]
    if (least := needed(job)) > 0.9 * free:
        reason = f"too little memory: needs {least / 2**30:.1f} GiB, {free / 2**30:.1f} GiB are free"
        for name in job["sides"]:
            yield {"side": name, "status": "not measured", "reason": reason}
        yield {"used": 0.0, "noise": None}
        return
    pulse.beat("")
    yield from Timing(job, pulse).answers()


def ceilings(job: Mapping[str, Any], pulse: Pulse) -> Iterator[Answer]:
    """The roofs of this machine, a ceiling record each."""
    from .measure.ceilings import measure

    pulse.beat("ceilings")
    for record in measure(job["target"], job["isas"], job["threads"], job["seconds"], announce=pulse.beat):
        yield {"record": record}


def compared(job: Mapping[str, Any], pulse: Pulse) -> Iterator[Answer]:
    """What a comparison of builds asks for."""
    from . import duel

    yield from duel.WORK[job["do"]](job, pulse)


Work = Callable[[Mapping[str, Any], Pulse], Iterator[Answer]]
WORK: dict[str, Work] = {"check": checks, "walk": walked, "time": timing, "ceilings": ceilings}


def main() -> None:
    die_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent, which hears it too, decides
    gc.disable()  # a collection in the midst of a sample would be timed; there is one after each job
    jobs, answers, shared = (int(argument) for argument in sys.argv[1:4])
    pulse = Pulse(shared)
    with os.fdopen(jobs) as lines, os.fdopen(answers, "w", buffering=1) as out:
        for line in lines:
            job = json.loads(line)
            try:
                for answer in WORK.get(job["do"], compared)(job, pulse):
                    out.write(json.dumps(answer) + "\n")
            except Exception as error:  # of the job as a whole, no side's
                out.write(json.dumps({"error": said(error), "side": pulse.read()[1]}) + "\n")
            out.write(json.dumps({"done": True}) + "\n")
            gc.collect()


if __name__ == "__main__":
    main()

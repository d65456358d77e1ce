"""What a worker does for a comparison of builds: describe one, check one, and let several take turns on one workload.

A build is a folder, imported under a name of its own beside the ruler's ``ulproof.impls``; of it only ``PROTOCOL``,
``operators()``, ``implementations()`` and ``bind()`` are used. Inputs, oracle and thresholds come from the ruler's card.

Jobs: ``describe`` (a build's cards and code), ``judge`` (numeric checks of a build), ``duel`` (base, head and base's copy in
this process), and ``hold``, ``place``, ``sample`` (one build in this process, the others in theirs).
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import importlib
import importlib.util
import math
import random
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from types import CodeType, ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from . import builds, check
from .lookup import operators
from .measure import caches, environment
from .measure.sampling import Call, Sampler, calibrate, rounds, running
from .record import Record

if TYPE_CHECKING:
    from .worker import Answer, Pulse

SHORTEST = 2e-4  # seconds of a sample: many short ones, for the median of their ratios to shrug off interruptions
ROUNDS = 4  # before base's and head's buffers change places with twin's; a restart takes twice as many at least
LINE, SPREAD = 64, (2 << 20, 8 << 20)  # bytes: where buffers may begin, and how far they may move, at least and at most


def package(folder: str) -> ModuleType:
    """A build's ``impls`` package, imported once under a name made from its folder."""
    name = "ulproof_" + hashlib.sha256(folder.encode()).hexdigest()[:12]
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, Path(folder, "__init__.py"), submodule_search_locations=[folder])
        assert spec and spec.loader
        module = sys.modules[name] = importlib.util.module_from_spec(spec)
        try:
            spec.loader.exec_module(module)
        except BaseException:
            del sys.modules[name]
            raise
    return sys.modules[name]


# Describing


def fingerprint(value: Any) -> Any:
    """What a card says, comparable between builds: functions by their code, dataclasses by their fields."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {each.name: fingerprint(getattr(value, each.name)) for each in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return sorted((repr(fingerprint(key)), fingerprint(each)) for key, each in value.items())
    if isinstance(value, (tuple, list)):
        return [fingerprint(each) for each in value]
    if isinstance(value, (set, frozenset)):
        return sorted(repr(fingerprint(each)) for each in value)
    if isinstance(value, functools.partial):
        return [fingerprint(each) for each in (value.func, value.args, value.keywords)]
    if isinstance(value, CodeType):
        return [value.co_code.hex(), value.co_names, value.co_varnames, [fingerprint(each) for each in value.co_consts]]
    if hasattr(value, "__code__"):
        closed = [fingerprint(cell.cell_contents) for cell in value.__closure__ or ()]
        return [fingerprint(value.__code__), fingerprint(value.__defaults__), closed]
    return repr(value)


def digest(value: Any) -> str:
    return builds.digest(fingerprint(value))


# What decides how results are judged; the rest of a card is text, or what to measure.
CONTRACT = ("nan_policy", "stress", "params", "invariants", "dtypes")
PASS = ("inputs", "outputs", "oracle", "gate", "scale", "derive")


def contract(operator: Any, folder: Path) -> dict[str, str]:
    """Digests of what an operator's results are judged by, by name; the oracle's code among them."""
    found = {name: digest(getattr(operator, name, None)) for name in CONTRACT}
    for pass_, card in operator.passes.items():
        found |= {f"{pass_} {name}": digest(getattr(card, name, None)) for name in PASS}
    reference = folder / "reference.py"
    return found | {"oracle's code": builds.digest(reference.read_text() if reference.exists() else None)}


def describe(job: Mapping[str, Any], pulse: Pulse) -> Iterator[Answer]:
    """A build's protocol number; its operators with their contracts; their implementations, with digests of the code and of
    what the card says to ``bind``."""
    folder = Path(job["build"])
    pulse.beat("")
    built = package(job["build"])
    protocol = getattr(importlib.import_module(".registry", built.__name__), "PROTOCOL", None)
    if protocol != job["protocol"]:
        yield {"protocol": protocol}
        return
    found = {}
    for name, operator in built.operators().items():
        pulse.beat("")
        family = operator.package.rpartition(".")[2]
        listed = {}
        for each in built.implementations(name):
            module = each.module or each.backend
            told = (each.options, operator.params, each.isas, each.threaded, each.module)
            listed[each.name] = {
                "code": builds.digest(builds.code(folder, family, module, each.backend), digest(told)),
                "bound": {f"{pass_} {dtype}": value for (pass_, dtype), value in (each.bound or {}).items()},
                "vouched": each.vouched,
                "slack": getattr(each, "slack", None),
                "passes": each.passes,
                "dtypes": each.dtypes,
            }
        found[name] = {"contract": contract(operator, folder / family), "implementations": listed}
    yield {"protocol": protocol, "operators": found}


# Checking


class Guest:
    """A build's implementation behind another card: arguments, oracle, gate and bound are the card's, the code is its own."""

    def __init__(self, card: Any, listed: Any, foreign: Any) -> None:
        self.operator, self.foreign = card, foreign
        self.backend, self.variant, self.name, self.bound = listed.backend, listed.variant, listed.name, listed.bound
        self.refuses, self.unavailable, self.bind = foreign.refuses, foreign.unavailable, foreign.bind


def implementation(folder: str, operator: str, name: str) -> Any:
    found = {each.name: each for each in package(folder).implementations(operator)}
    if name not in found:
        raise ValueError(f"this build has no {operator}:{name}")
    return found[name]


def judge(job: Mapping[str, Any], pulse: Pulse) -> Iterator[Answer]:
    """Numeric checks of a build, an accuracy record each, by the ruler's card or, with ``card``, by another build's."""
    from .worker import said

    for fields in job["items"]:
        item = check.Item(**{**fields, "axes": tuple(map(tuple, fields["axes"]))})
        pulse.beat(item.implementation)
        try:
            foreign = implementation(job["build"], item.operator, item.implementation)
            if job["card"]:
                listed = implementation(job["card"], item.operator, item.implementation)
            else:
                from ulproof.impls import load

                listed = load(item.operator)[item.implementation]
            guest: Any = Guest(listed.operator, listed, foreign)
            record = check.check(
                guest, item.pass_, dict(item.axes), item.dtype, item.target, item.isa, item.threads, item.stress, item.seed
            )
        except Exception as error:
            record = {"status": "crashed", "reason": said(error), "ulp": None}
        yield {"record": {name: record[name] for name in ("status", "reason", "ulp")}}


# Taking turns


class Arena:
    """Memory for one array, which begins somewhere else each time it is placed."""

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype, device: str | None, generator: random.Random) -> None:
        self.shape, self.dtype, self.device, self.generator = shape, dtype, device, generator
        self.size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        self.room = min(max(self.size, SPREAD[0]), SPREAD[1])
        self.line = LINE if device is None else 4 * LINE
        if device is None:
            self.memory: Any = np.zeros(self.size + self.room, np.uint8)
            self.memory.fill(0)  # in memory from now on
            self.start = -self.memory.ctypes.data % self.line
        else:
            import torch

            self.memory = torch.zeros(self.size + self.room, dtype=torch.uint8, device=device)
            self.start = -self.memory.data_ptr() % self.line

    def place(self) -> Any:
        at = self.start + self.line * self.generator.randrange((self.room - self.start) // self.line)
        piece = self.memory[at : at + self.size]
        if self.device is None:
            return piece.view(self.dtype).reshape(self.shape)
        import torch

        return piece.view(getattr(torch, self.dtype.name)).reshape(self.shape)


class Ground:
    """The buffers of one workload: inputs drawn by the ruler, outputs by its card."""

    def __init__(self, job: Mapping[str, Any], values: tuple[np.ndarray, ...], generator: random.Random) -> None:
        from ulproof.impls._backends.arrays import dtype_named

        card = operators()[job["operator"]].passes[job["pass"]]
        self.device = job["target"] if job["target"].startswith("cuda") else None
        self.drawn = values

        def named(argument: Any) -> np.dtype:
            return np.dtype(dtype_named(job["dtype"] if argument.dtype == "io" else argument.dtype))

        self.inputs = [Arena(array.shape, array.dtype, self.device, generator) for array in self.drawn]
        self.outputs = [Arena(each.shape(job["axes"]), named(each), self.device, generator) for each in card.outputs]

    def place(self) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
        """Inputs and outputs, somewhere else than before."""
        inputs = tuple(arena.place() for arena in self.inputs)
        for array, values in zip(inputs, self.drawn, strict=True):
            if self.device is None:
                array[...] = values
            else:
                from ulproof.impls._backends.arrays import to_torch

                array.copy_(to_torch(values))
        return inputs, tuple(arena.place() for arena in self.outputs)


def drawn(job: Mapping[str, Any]) -> tuple[np.ndarray, ...]:
    """The inputs of a workload; drawing them takes longer than reading them, so they are kept in ``job["inputs"]``."""
    from ulproof.impls._backends import stress
    from ulproof.impls._backends.arrays import dtype_named

    kept = Path(job["inputs"], builds.digest(job["operator"], job["pass"], job["dtype"], sorted(job["axes"].items())))
    operator = operators()[job["operator"]]
    card = operator.passes[job["pass"]]
    if not kept.exists():
        arrays = stress.inputs(operator, job["pass"], job["axes"], job["dtype"], "normal")
        draft = kept.with_suffix(f".{random.getrandbits(64):x}")
        np.savez(draft.with_suffix(".npz"), *(np.ascontiguousarray(each).reshape(-1).view(np.uint8) for each in arrays))
        draft.with_suffix(".npz").replace(kept)
    with np.load(kept) as found:
        flat = [found[name] for name in found.files]
    shaped = []
    for argument, values in zip(card.inputs, flat, strict=True):
        dtype = dtype_named(job["dtype"] if argument.dtype == "io" else argument.dtype)
        shaped.append(values.view(dtype).reshape(argument.shape(job["axes"])))
    return tuple(shaped)


def bound(job: Mapping[str, Any], side: str, inputs: tuple[Any, ...], outputs: tuple[Any, ...]) -> Callable[[], Any]:
    """A side's call on these buffers, called once."""
    found = implementation(job["builds"][side], job["operator"], job["implementation"])
    options = {"pass_": job["pass"], "target": job["target"], "isa": job["isa"], "threads": job["threads"]}
    call: Callable[[], Any] = found.bind(inputs, outputs, **options)
    call()
    return call


@functools.cache
def waited() -> Callable[[], int]:
    return environment.waiting()


def sampler(job: Mapping[str, Any], call: Call, rival: Call | None = None) -> Sampler:
    """``rival`` is the call of a side on the other buffers."""
    if job["target"].startswith("cuda"):
        from .measure import gpu

        return gpu.sampler(call, job["cache"], job["target"])
    nbytes = operators()[job["operator"]].passes[job["pass"]].nbytes(job["axes"], job["dtype"])
    sizes = caches.sizes()
    warm = [call] * warming(nbytes, sizes)
    if rival and job["threads"] > 1 and caches.beyond(nbytes, sizes):
        warm.insert(0, rival)
    return running(call, warm, waited())


def warming(nbytes: int, sizes: Mapping[str, int]) -> int:
    """Untimed calls that bring a workload back into the caches.

    One is not enough beyond the second level: after it, twin, whose buffers the other sides have displaced, was still 6%
    slower than base, whose buffers head keeps warm; after four 0.7%. What exceeds the caches needs one as well: its last
    part stays in them, and without that twin was 3% slower than base, which often follows head on the same buffers. (Two
    threads leave more behind: twin was still 1.2% slower, so that a call on the other buffers goes before it; see ``sampler``.)
    """
    if caches.beyond(nbytes, sizes):
        return 1
    return 1 if 2 * nbytes <= sizes.get("L2", 0) else 4


class Lost(Exception):
    """A side raised; ``answer`` tells which and what."""

    def __init__(self, side: str, error: Exception) -> None:
        from .worker import said

        unavailable = type(error) is RuntimeError and "can't run here" in str(error)
        super().__init__(said(error))
        self.answer = {"side": side, "status": "unavailable" if unavailable else "crashed", "reason": said(error)}


def duel(job: Mapping[str, Any], pulse: Pulse) -> Iterator[Answer]:
    """Base, head and twin take turns in this process for ``seconds``, once all is loaded, and for twice ``ROUNDS`` rounds at
    least: base and head on the same buffers, twin on its own. After ``ROUNDS`` rounds the two sets of buffers are exchanged,
    and after as many more they move: some are luckier than others, and each side has its half of that luck. One answer:
    ``summary``'s with the seconds ``used`` in all, or the side that raised.
    """
    begin = time.perf_counter()
    generator = random.Random(job["seed"])
    sides = list(job["builds"])
    values = drawn(job)
    grounds = [Ground(job, values, generator) for _ in range(2)]
    calls: dict[str, int] = {}
    halves: tuple[list[dict[str, float]], ...] = ([], [])
    ready = 0.0
    try:
        while not halves[1] or time.perf_counter() - ready < job["seconds"]:
            placed = [ground.place() for ground in grounds]
            for half, (shared, own) in zip(halves, (placed, placed[::-1]), strict=True):
                buffers = {"base": shared, "head": shared, "twin": own}
                generator.shuffle(sides)
                called = {}
                for side in sides:
                    pulse.beat(side)
                    try:
                        called[side] = bound(job, side, *buffers[side])
                    except Exception as error:
                        raise Lost(side, error) from error
                rivals = {side: called["base" if side == "twin" else "twin"] for side in sides}
                samplers = {side: sampler(job, called[side], rivals[side]) for side in sides}
                if not calls:
                    for side, each in samplers.items():
                        pulse.beat(side)
                        calls[side] = calibrate(each, SHORTEST)[0]
                    calls = dict.fromkeys(calls, max(calls.values()))
                    ready = time.perf_counter()
                half += islice(rounds(samplers, calls, generator, pulse.beat), ROUNDS)
    except Lost as lost:
        yield lost.answer
        return
    pulse.beat("")
    yield summary(*halves) | {"used": time.perf_counter() - begin}


def summary(*parts: list[dict[str, float]]) -> dict[str, Any]:
    """What one restart says: the median log-ratios of ``head`` and ``twin`` to base, the median ``seconds`` of each side, how
    many rounds that is, and how many were ``dropped`` because a GPU was slowed down in them (nan). Parts are rounds that
    differ in whose buffers were whose: a ratio is the mean of theirs, so that what the buffers do to it cancels."""
    kept = [[each for each in part if not any(map(math.isnan, each.values()))] for part in parts]
    rounds_ = sum(map(len, kept))
    found: dict[str, Any] = {"rounds": rounds_, "dropped": sum(map(len, parts)) - rounds_}
    if all(kept):
        for side in ("head", "twin"):
            found[side] = statistics.fmean(
                statistics.median(math.log(each[side] / each["base"]) for each in part) for part in kept
            )
        found["seconds"] = {side: statistics.median(each[side] for part in kept for each in part) for side in kept[0][0]}
    return found


class Held:
    """The one build that this process keeps at hand between ``hold`` and ``sample``."""

    side: str
    job: Mapping[str, Any]
    ground: Ground
    sampler: Any


def hold(job: Mapping[str, Any], pulse: Pulse) -> Iterator[Answer]:
    """Bind the only build of this process; the answer is how many calls make a sample, and the seconds of one."""
    (Held.side,) = job["builds"]
    Held.job, Held.ground = job, Ground(job, drawn(job), random.Random(job["seed"]))
    yield from place(job, pulse)
    calls, seconds = calibrate(Held.sampler, SHORTEST)
    yield {"calls": calls, "seconds": seconds}


def place(job: Mapping[str, Any], pulse: Pulse) -> Iterator[Answer]:
    """Move the buffers, and bind anew."""
    pulse.beat(Held.side)
    try:
        Held.sampler = sampler(Held.job, bound(Held.job, Held.side, *Held.ground.place()))
    except Exception as error:
        yield Lost(Held.side, error).answer


def sample(job: Mapping[str, Any], pulse: Pulse) -> Iterator[Answer]:
    """One sample; ``null`` when the GPU was slowed down during it, however often it was taken again."""
    pulse.beat(Held.side)
    before = getattr(Held.sampler, "throttled", 0)
    seconds = Held.sampler(job["calls"])
    yield {"seconds": None if getattr(Held.sampler, "throttled", 0) > before else seconds}


WORK: Mapping[str, Callable[[Mapping[str, Any], Pulse], Iterator[Answer]]] = {
    "describe": describe,
    "judge": judge,
    "duel": duel,
    "hold": hold,
    "place": place,
    "sample": sample,
}
__all__ = ["WORK", "Record", "contract", "fingerprint", "package", "summary"]

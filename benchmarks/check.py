"""The numeric check: one implementation on one stress input, judged against the oracle and by the card's thresholds.

A result is ``wrong`` beyond the operator's gate, where NaN or infinity is amiss, where an invariant breaks, and where memory
outside the output was written. It is ``inaccurate`` beyond the implementation's own bound, or, where it states none,
beyond ``POOR``. An implementation we vouch for fails the check with either (``fails``); others are only marked.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache, partial
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np

from . import presets
from .lookup import load, operators
from .measure import environment, ulp

if TYPE_CHECKING:
    from ulproof.impls.registry import Argument, Axes, Implementation, Operator, Pass

Record = dict[str, Any]

POOR = {"float32": 4.0, "float16": 1.0, "bfloat16": 1.0}  # ULPs beyond which one that promises nothing is `inaccurate`
BLOCK = 1 << 22  # elements of the first input that are judged at a time: bounds the float64 memory
LARGEST = 3e38  # ULPs
MARGIN = 64  # guard elements before and after each output


@dataclass(frozen=True)
class Item:
    """One check of a plan. ``worker`` says which process may run it: items of one worker share imports and settings."""

    operator: str
    implementation: str
    pass_: str
    axes: tuple[tuple[str, int], ...]
    dtype: str
    target: str = "cpu"
    isa: str | None = None
    threads: int = 1
    stress: str = "normal"
    seed: int = 0

    @property
    def worker(self) -> str:
        """``native`` imports no torch, ``torch`` does, ``interpreter`` needs TRITON_INTERPRET=1, else the GPU's name."""
        if self.target != "cpu":
            return self.target
        return "native" if self.implementation.partition("/")[0] in ("numpy", "simd") else "torch"

    def check(self) -> Record:
        options = {name: value for name, value in asdict(self).items() if name not in ("operator", "implementation", "axes")}
        return check(load(self.operator)[self.implementation], axes=dict(self.axes), **options)


# Shapes: every stress input meets a row that fills vectors, an odd one and a short one; every length meets one spread.
SHAPES = ((16, 4096), (65, 1001), (33, 17))
INTERPRETED = ((3, 300),)
INTERPRETED_16_BIT = ("normal-10", "largest", "masked-random", "masked-all", "plus-infinity", "nan", "denormal")
THREADED = 1 << 16  # elements from which on several threads are checked too
SLOW = ("torch-compile",)  # compiles for every shape: seconds each, so it meets the first one only, and only when thorough
ELEMENTWISE = (7, 584)  # whole vectors, a tail, and room for every kind of input
ELEMENTWISE_INTERPRETED = (3, 104)
ELEMENTWISE_LENGTHS = (1, 3, 8, 15, 17, 33, 63, 64, 65, 129, 1000, 70_000, 70_001)
ELEMENTWISE_16_BIT = ("normal",)  # beside all 65,536 numbers
LENGTH_STRESS = "normal-10"
LONG = (("normal", 1 << 26), ("equal", 1 << 25), ("peak-over-low-bulk", 1 << 24), ("masked-leading", 1 << 22))


def plan(
    names: Collection[str] = (),
    filters: Mapping[str, Collection[str]] | None = None,
    *,
    thorough: bool = True,
    long: bool = False,
) -> list[Item]:
    """The checks of every implementation that can run here, those of one workload next to each other.

    ``names`` are operators (none: all). ``filters`` maps ``backend``, ``target``, ``isa``, ``dtype``, ``pass`` and
    ``threads`` to the values wanted. Not ``thorough`` is one shape for each stress input; ``long`` adds rows of up to 2^26.
    """
    asked = partial(presets.asked, filters or {})
    items = []
    for operator in (operators()[name] for name in names or operators()):
        runners = [
            (implementation, target, isa, threads)
            for implementation in load(operator.name).values()
            if asked("backend", implementation.backend)
            for target in targets(implementation)
            if asked("target", target) and asked("target", target.partition(":")[0])
            for isa in isas_of(implementation, target)
            if asked("isa", isa)
            for threads in ((1, 2) if implementation.threaded and implementation.vouched and target == "cpu" else (1,))
            if asked("threads", str(threads))
        ]
        for pass_ in operator.passes:
            for dtype in operator.dtypes:
                if not (asked("pass", pass_) and asked("dtype", dtype)):
                    continue
                for name, axes, interpreted in _workloads(operator, dtype, thorough, long):
                    items += [
                        Item(operator.name, runner.name, pass_, tuple(axes.items()), dtype, target, isa, threads, name)
                        for runner, target, isa, threads in runners
                        if interpreted is (target == "interpreter")
                        and (threads == 1 or np.prod(list(axes.values())) >= THREADED)
                        and (
                            runner.variant not in SLOW
                            or (
                                thorough
                                and tuple(axes.values()) in (SHAPES[0], ELEMENTWISE, (ELEMENTWISE[0] * ELEMENTWISE[1],))
                            )
                        )
                        and runner.refuses(pass_, axes, dtype) is None
                    ]
    return items


def _workloads(operator: Operator, dtype: str, thorough: bool, long: bool) -> Iterator[tuple[str, Axes, bool]]:
    """(stress name, axes, whether for the interpreter) of an operator's checks."""
    from ulproof.impls._backends import stress

    axes = next(iter(operator.passes.values())).inputs[0].axes

    def shape(rows: int, n: int) -> Axes:
        if len(axes) == 1:
            return {str(axes[0]): rows * n}
        return {str(axis): rows if axis == axes[0] else n if axis == axes[-1] else 2 for axis in axes}

    if operator.elementwise:
        names = operator.stress if dtype == "float32" else ELEMENTWISE_16_BIT
        yield from ((name, shape(*ELEMENTWISE), False) for name in names)
        yield from ((name, shape(*ELEMENTWISE_INTERPRETED), True) for name in names)
        if dtype != "float32":
            whole = shape(1 << 16, 1 if len(axes) == 1 else 8)
            yield from ((f"all-{dtype}", whole, interpreted) for interpreted in (False, True)[: 1 + long])
        if thorough:
            yield from ((LENGTH_STRESS, shape(1, n), False) for n in ELEMENTWISE_LENGTHS)
            yield from ((LENGTH_STRESS, shape(3, n), True) for n in (1, 40, 341))
        if long:
            yield "normal", shape(1 << 10, 1 << 16), False
        return

    for rows, n in SHAPES if thorough else SHAPES[:1]:
        yield from ((name, shape(rows, n), False) for name in operator.stress)
    for rows, n in INTERPRETED:
        yield from (
            (name, shape(rows, n), True) for name in operator.stress if dtype == "float32" or name in INTERPRETED_16_BIT
        )
    if dtype in ("float16", "bfloat16") and operator.exhaustive:
        yield f"all-{dtype}", shape(1 << 16, 2), False
    if thorough:
        for n in stress.LENGTHS + stress.LONGER:
            yield LENGTH_STRESS, shape(3 if n < 10_000 else 1, n), False
        for n in (1, 2, 127, 1025):
            yield LENGTH_STRESS, shape(3, n), True
    if long:
        yield from ((name, shape(1, n), False) for name, n in LONG if name in operator.stress)


def targets(implementation: Implementation) -> list[str]:
    """The targets that ``implementation`` can run on here, the interpreter in a worker process of its own."""
    found = []
    for kind in implementation.targets:
        target = "cuda:0" if kind == "cuda" else kind
        absent = interpreter_missing() if kind == "interpreter" else implementation.unavailable(target)
        if absent is None:
            found.append(target)
    return found


def interpreter_missing() -> str | None:
    """Why no worker could interpret Triton kernels; this process itself need not be one."""
    from ulproof.impls._backends import probe

    return probe.missing("torch") or probe.missing("triton")


def isas_of(implementation: Implementation, target: str) -> tuple[str | None, ...]:
    """The ISAs to check one by one; ``None`` for whatever the implementation picks itself."""
    if target != "cpu" or not implementation.vouched and implementation.backend == "peer":
        return (None,)
    return tuple(isa for isa in implementation.isas if isa in environment.cpu()["isas"]) or (None,)


def check(
    implementation: Implementation,
    pass_: str,
    axes: Axes,
    dtype: str,
    target: str = "cpu",
    isa: str | None = None,
    threads: int = 1,
    stress: str = "normal",
    seed: int = 0,
) -> Record:
    """Run ``implementation`` on poisoned outputs and judge it; an accuracy record, whatever happens short of a crash."""
    record: Record = {
        "kind": "accuracy",
        "status": "ok",
        "reason": None,
        "operator": implementation.operator.name,
        "implementation": implementation.name,
        "backend": implementation.backend,
        "variant": implementation.variant,
        "target": target,
        "isa": isa,
        "threads": threads,
        "dtype": dtype,
        "pass": pass_,
        "axes": dict(axes),
        "stress": stress,
        "seed": seed,
        "ulp": None,
    }
    if reason := implementation.refuses(pass_, axes, dtype) or implementation.unavailable(target):
        return record | {"status": "unavailable", "reason": reason}
    given = workload(implementation.operator, pass_, tuple(axes.items()), dtype, stress, seed)
    try:
        outputs, strayed = run(implementation, pass_, given.inputs, axes, dtype, target, isa, threads)
    except RuntimeError as error:
        return record | {"status": "unavailable", "reason": str(error)}
    return record | judge(implementation, pass_, given, outputs, dtype, strayed)


def run(
    implementation: Implementation,
    pass_: str,
    inputs: tuple[np.ndarray, ...],
    axes: Axes,
    dtype: str,
    target: str = "cpu",
    isa: str | None = None,
    threads: int = 1,
) -> tuple[list[np.ndarray], list[str]]:
    """Bind and call once; the outputs as NumPy arrays, and the names of outputs beside which memory was written."""
    from ulproof.impls._backends import arrays

    guarded = [
        _Guarded(argument.shape(axes), arrays.dtype_named(dtype if argument.dtype == "io" else argument.dtype))
        for argument in implementation.operator.passes[pass_].outputs
    ]
    options: dict[str, Any] = {"pass_": pass_, "target": target, "isa": isa, "threads": threads}
    if target == "cpu":
        implementation.bind(inputs, tuple(guard.array for guard in guarded), **options)()
    else:
        place = "cpu" if target == "interpreter" else target
        there = tuple(arrays.to_torch(guard.memory).to(place) for guard in guarded)
        views = tuple(guard.inside(memory) for guard, memory in zip(guarded, there, strict=True))
        implementation.bind(tuple(arrays.to_torch(array.copy()).to(place) for array in inputs), views, **options)()
        for guard, memory in zip(guarded, there, strict=True):
            guard.memory[...] = arrays.from_torch(memory.cpu())
    names = [argument.name for argument in implementation.operator.passes[pass_].outputs]
    strayed = [name for name, guard in zip(names, guarded, strict=True) if not guard.intact()]
    return [guard.array for guard in guarded], strayed


class _Guarded:
    """An output full of NaN (of -77, where it holds integers), between two margins of it that must stay as they are."""

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype) -> None:
        self.shape = shape
        self.poison = np.nan if dtype.kind not in "biu" else -77
        self.memory = np.full(int(np.prod(shape)) + 2 * MARGIN, self.poison, dtype)
        self.array = self.inside(self.memory)

    def inside(self, memory: Any) -> Any:
        return memory[MARGIN : len(memory) - MARGIN].reshape(self.shape)

    def intact(self) -> bool:
        margins = np.concatenate([self.memory[:MARGIN], self.memory[len(self.memory) - MARGIN :]])
        return bool((np.isnan(margins) if self.poison != -77 else margins == -77).all())


@dataclass(frozen=True)
class Workload:
    """A workload's inputs and, cut into blocks of rows, what the oracle makes of them."""

    operator: Operator
    pass_: str
    inputs: tuple[np.ndarray, ...]
    kept: list[_Block] | None

    def blocks(self) -> Iterator[_Block]:
        return iter(self.kept) if self.kept is not None else _blocks(self.operator, self.pass_, self.inputs)


@dataclass(frozen=True)
class _Block:
    """What the oracle makes of some rows, by the outputs' positions; ``rows`` is ``None`` for what is summed over them all."""

    rows: slice | None
    inputs: tuple[np.ndarray, ...]
    expected: dict[int, np.ndarray]
    scale: dict[int, np.ndarray | None]


@lru_cache(maxsize=2)
def workload(
    operator: Operator, pass_: str, axes: tuple[tuple[str, int], ...], dtype: str, stressed: str, seed: int
) -> Workload:
    """Inputs are read-only: an implementation that writes to them, or refuses such arrays, is caught here."""
    from ulproof.impls._backends import stress

    inputs = stress.inputs(operator, pass_, dict(axes), dtype, stressed, seed)
    for array in inputs:
        array.flags.writeable = False
    small = inputs[0].size <= BLOCK
    return Workload(operator, pass_, inputs, list(_blocks(operator, pass_, inputs)) if small else None)


def _by_rows(card: Pass, argument: Argument) -> bool:
    """Whether an argument has the pass's first axis, along which the oracle is asked piece by piece."""
    return argument.axes[:1] == card.inputs[0].axes[:1]


def _blocks(operator: Operator, pass_: str, inputs: tuple[np.ndarray, ...]) -> Iterator[_Block]:
    card = operator.passes[pass_]
    reference = import_module(".reference", operator.package)
    oracle = getattr(reference, card.oracle)
    summed = [position for position, argument in enumerate(card.outputs) if not _by_rows(card, argument)]
    totals = {position: [np.zeros(()), np.zeros(())] for position in summed}
    rows = len(inputs[0])
    step = max(1, BLOCK * rows // max(1, inputs[0].size))
    for start in range(0, rows, step):
        part = slice(start, start + step)
        named = zip(card.inputs, inputs, strict=True)
        wide = tuple(_wide(array[part] if _by_rows(card, argument) else array) for argument, array in named)
        expected = oracle(*wide, **operator.params)
        scale = getattr(reference, card.scale)(*wide, *expected, **operator.params) if card.scale else (None,) * len(expected)
        with np.errstate(all="ignore"):
            for position in summed:
                both = (expected[position], 0 if scale[position] is None else scale[position])
                totals[position] = [total + each for total, each in zip(totals[position], both, strict=True)]
        found = {position: expected[position] for position in range(len(expected)) if position not in totals}
        yield _Block(part, wide, found, dict(enumerate(scale)))
    if summed:
        scales = {position: total[1] if card.scale else None for position, total in totals.items()}
        yield _Block(None, (), {position: total[0] for position, total in totals.items()}, scales)


def _wide(array: np.ndarray) -> np.ndarray:
    """float64 of floating-point arrays, bfloat16 among them; targets and masks as they are."""
    return array if array.dtype.kind in "biu" else array.astype(np.float64)


def judge(
    implementation: Implementation, pass_: str, given: Workload, outputs: list[np.ndarray], dtype: str, strayed: list[str]
) -> Record:
    """``status``, ``reason`` and ``ulp`` of the outputs. ``ulp.max`` is over every output that was not legally flushed."""
    import ml_dtypes

    from ulproof.impls._backends import arrays

    card = given.operator.passes[pass_]
    eps = float(ml_dtypes.finfo(arrays.dtype_named(dtype)).eps)
    errors: list[np.ndarray] = []
    broken = [f"{name}: memory beside it was written" for name in strayed]
    worst, worst_at, flushed, misrounded = -1.0, "", 0, 0
    for block in given.blocks():
        results = {position: outputs[position][block.rows] if block.rows else outputs[position] for position in block.expected}
        for position, expected in block.expected.items():
            argument, actual, scale = card.outputs[position], results[position], block.scale[position]
            error = ulp.ulp_error(actual, expected, actual.dtype.name, scale)
            if block.rows is None and scale is not None:  # terms beyond the type's range have no sum to speak of
                error[scale > ulp.GRIDS[actual.dtype.name].largest] = 0
            if actual.dtype.kind in "iu" and error.any():
                broken.append(f"{argument.name} must be exact")
            flushed += int(ulp.flushed(actual, expected, actual.dtype.name).sum())
            if error.size and (largest := float(error.max())) > worst:
                worst = largest
                place = np.unravel_index(int(error.argmax()), error.shape)
                worst_at = _worst(argument.name, place, actual, expected, card, block)
            if worst > LARGEST:  # where a zero was to be: kept apart from infinity in float32
                error[(error > LARGEST) & (error < np.inf)] = LARGEST
            errors.append(error.astype(np.float32).reshape(-1))
            if block.rows is not None:  # sums over many elements round many times
                its = error if scale is None else ulp.ulp_error(actual, expected, actual.dtype.name)
                misrounded += ulp.misrounded(actual, expected, its)
        if pass_ == "forward" and block.rows:
            reference = import_module(".reference", given.operator.package)
            wide = [_wide(array) for array in results.values()]
            checked = (getattr(reference, name)(*block.inputs, *wide, eps) for name in given.operator.invariants)
            broken += [reason for reason in checked if reason]
    measured = ulp.summary(np.concatenate(errors) if errors else np.zeros(0))
    measured |= {"worst_input": worst_at or None, "flushed": flushed, "outputs": sum(error.size for error in errors)}
    measured |= {"misrounded": misrounded}
    status, reason = verdict(implementation, pass_, dtype, measured["max"], broken)
    return {"status": status, "reason": f"{reason}; {worst_at}" if reason and worst_at else reason, "ulp": measured}


def verdict(
    implementation: Implementation, pass_: str, dtype: str, largest: float | None, broken: Sequence[str] = ()
) -> tuple[str, str | None]:
    """``status`` and ``reason`` of a largest error in ULPs (``None``: not finite), and of what else is broken."""
    gate = implementation.operator.passes[pass_].gate[dtype]
    bound = (implementation.bound or {}).get((pass_, dtype))
    allowed = POOR[dtype] if bound is None else bound
    if largest is None:
        return "wrong", "NaN or infinity where the oracle has none, or the other way"
    if broken:
        return "wrong", broken[0]
    if largest > gate:
        return "wrong", f"{largest:.4g} ULP, beyond the gate of {gate:g}"
    if largest > allowed:
        return "inaccurate", f"{largest:.4g} ULP, beyond {'its own bound of ' if bound else ''}{allowed:g}"
    return "ok", None


def _worst(name: str, place: tuple[Any, ...], actual: np.ndarray, expected: np.ndarray, card: Pass, block: _Block) -> str:
    """Where the largest error lies and what went in there, in words."""
    row = int(place[0]) + (block.rows.start if block.rows else 0)
    index = ", ".join(map(str, (row, *map(int, place[1:]))))
    came = [
        f"{argument.name} = {array[place]:.9g}"
        for argument, array in zip(card.inputs, block.inputs, strict=False)
        if array.shape == actual.shape
    ]
    return f"{name}[{index}] is {actual[place]:.9g}, not {expected[place]:.9g}" + (f" ({', '.join(came)})" if came else "")


def fails(record: Record) -> bool:
    """Whether this record is a failure of ours: an implementation that we vouch for is wrong, or beyond its own bound."""
    if record["kind"] != "accuracy" or record["status"] not in ("wrong", "inaccurate"):
        return False
    implementation = load(record["operator"])[record["implementation"]]
    return implementation.vouched and (record["status"] == "wrong" or bool(implementation.bound))

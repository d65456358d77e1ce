"""What an operator and an implementation are, and how to look them up.

An operator is data: its arguments, costs, oracle and thresholds stand on its card (``impls/<family>/__init__.py``). An
implementation is data too, and names the module that holds its code; that module is imported when it is first used, so
listing everything imports neither torch nor Triton. A backend module defines

    unavailable(implementation, target) -> str | None        why it can't run here, in words
    bind(implementation, pass_, inputs, outputs, *, target, isa, threads, params) -> Callable[[], None]
    caller(implementation, pass_) -> Callable                 optional: a faster way from arrays to results; it gives
                                                              NotImplemented for arrays that it leaves to the others

and never imports a sibling.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import prod
from types import ModuleType
from typing import Any

PROTOCOL = 1  # of operators(), implementations() and bind(); a comparison of two builds insists on equal numbers

Axes = Mapping[str, int]

BACKENDS = ("reference", "numpy", "simd", "triton", "cuda", "peer")
ITEMSIZE = {"float64": 8, "float32": 4, "float16": 2, "bfloat16": 2, "int64": 8, "int32": 4, "bool": 1, "uint8": 1}


@dataclass(frozen=True)
class Argument:
    """One array that goes into or comes out of a pass.

    ``dtype`` is a NumPy dtype name, or ``"io"`` for the workload's own. ``kind`` is ``array``, ``target`` (integer class
    indices), ``mask``, ``parameter`` (learned, shared by all rows) or ``state``. An axis is a name, or a size that never
    changes. An output without the pass's first axis is a sum over it. ``draw`` names the stress input that checks and
    measurements draw from where this is not the first argument; ``values`` are what they give a parameter.
    """

    name: str
    axes: tuple[str | int, ...]
    dtype: str = "io"
    kind: str = "array"
    draw: str = "normal"
    values: tuple[float, ...] = ()

    def shape(self, axes: Axes) -> tuple[int, ...]:
        return tuple(axes[axis] if isinstance(axis, str) else axis for axis in self.axes)

    def nbytes(self, axes: Axes, dtype: str) -> int:
        return ITEMSIZE[dtype if self.dtype == "io" else self.dtype] * prod(self.shape(axes))


@dataclass(frozen=True)
class Pass:
    """One direction of an operator: arguments in order, the oracle, and what any implementation must at least spend.

    ``oracle`` and ``scale`` name functions of the family's ``reference`` module. The oracle takes the inputs as float64
    arrays, and the operator's ``params`` by name, and returns a tuple of float64 outputs. The scale function takes the same
    plus those outputs and returns, for each output, the magnitude whose ULP is the unit of error (``None``: the oracle's own
    value).
    ``gate`` is the largest error in ULPs, by dtype, with which an implementation is slow or fast rather than broken.
    ``derive`` names an oracle-side function that makes this pass's inputs from ``x``-like draws, where they depend on each
    other (a backward pass that reads the forward's result).
    """

    inputs: tuple[Argument, ...]
    outputs: tuple[Argument, ...]
    oracle: str
    gate: Mapping[str, float]
    flops: Callable[[Axes], int]
    exps: Callable[[Axes], int]
    scale: str | None = None
    derive: str | None = None

    def nbytes(self, axes: Axes, dtype: str) -> int:
        """The fewest bytes: every input read once, every output written once."""
        return sum(argument.nbytes(axes, dtype) for argument in self.inputs + self.outputs)


@dataclass(frozen=True, eq=False)
class Implementation:
    """One way to compute an operator, ``softmax:simd/two-pass`` being operator:backend/variant.

    ``bound`` is its own largest error in ULPs by (pass, dtype), tested; ``None`` means it promises nothing (a peer).
    ``vouched`` marks those whose wrongness is our fault and fails a check.
    ``slow`` ones are left out of the quick preset where a call would take a good part of its budget.
    ``slack`` is by how much of its error, of 1 ULP at least, that error may grow from one build to the next.
    ``moved`` gives the bytes the algorithm moves, ``exps`` the exponentials it evaluates, each from (pass, axes, dtype).
    """

    backend: str
    variant: str
    module: str = ""
    passes: tuple[str, ...] = ("forward",)
    dtypes: tuple[str, ...] = ("float32", "float16", "bfloat16")
    targets: tuple[str, ...] = ("cpu",)
    isas: tuple[str, ...] = ()
    threaded: bool = False
    slow: bool = False
    vouched: bool = True
    bound: Mapping[tuple[str, str], float] | None = None
    slack: float = 0.25
    moved: Callable[[str, Axes, str], int] | None = None
    exps: Callable[[str, Axes], int] | None = None
    limits: Callable[[str, Axes, str], str | None] | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    note: str = ""
    operator: Operator = None  # type: ignore[assignment]  # set by the operator that lists it

    @property
    def name(self) -> str:
        return f"{self.backend}/{self.variant}"

    @property
    def full_name(self) -> str:
        return f"{self.operator.name}:{self.backend}/{self.variant}"

    def code(self) -> ModuleType:
        """The module that holds the code; imports it, and with it its toolchain."""
        return importlib.import_module("." + (self.module or self.backend), self.operator.package)

    def unavailable(self, target: str = "cpu") -> str | None:
        """Why this can't run on ``target`` here, in words; ``None`` when it can."""
        kind = target.split(":")[0]
        if kind not in self.targets:
            return f"runs on {', '.join(self.targets)}, not on {target}"
        from ._backends import probe

        return probe.unavailable(self, target)

    def refuses(self, pass_: str, axes: Axes, dtype: str) -> str | None:
        """Why this can't run that workload anywhere, in words; ``None`` when it can."""
        if pass_ not in self.passes:
            return f"has no {pass_} pass"
        if dtype not in self.dtypes:
            return f"takes {', '.join(self.dtypes)}, not {dtype}"
        return self.limits(pass_, axes, dtype) if self.limits else None

    def bind(
        self,
        inputs: tuple[Any, ...],
        outputs: tuple[Any, ...],
        *,
        pass_: str = "forward",
        target: str = "cpu",
        isa: str | None = None,
        threads: int = 1,
        params: Mapping[str, Any] | None = None,
    ) -> Callable[[], None]:
        """Check, allocate, compile and plan, untimed; return the zero-argument callable that writes into ``outputs``.

        Arrays stand in the card's order: NumPy arrays on the CPU, torch tensors on a GPU. ``isa`` is ``None`` for the best
        one here. Raises ``ValueError`` or ``TypeError`` naming the argument, before anything is written, and
        ``RuntimeError`` with the reason when the implementation can't run here.
        """
        if reason := self.unavailable(target):
            raise RuntimeError(f"{self.full_name} can't run here: {reason}")
        if isa is not None and isa not in self.isas:
            raise ValueError(f"unknown isa {isa!r} of {self.full_name}; there are {', '.join(self.isas) or 'none to choose'}")
        if threads != 1 and (threads < 1 or not self.threaded):
            raise ValueError(f"threads is {threads}; {self.full_name} takes {'1 or more' if self.threaded else '1'}")
        for name in params or {}:
            if name not in self.operator.params and name not in self.options:
                known = ", ".join([*self.operator.params, *self.options]) or "none"
                raise ValueError(f"unknown parameter {name!r} of {self.full_name}; there are {known}")
        merged = {**self.operator.params, **self.options, **(params or {})}
        if self.operator.illegal and (reason := self.operator.illegal(merged)):
            raise ValueError(f"{self.full_name}: {reason}")
        return self.code().bind(self, pass_, inputs, outputs, target=target, isa=isa, threads=threads, params=merged)

    def __call__(self, *arrays: Any, pass_: str = "forward", **options: Any) -> Any:
        """Allocate, bind and run on the user's own arrays; returns the output, or a tuple of them."""
        if not options:
            caller = self._callers.get(pass_) or self._caller(pass_)
            if (result := caller(*arrays)) is not NotImplemented:
                return result
        from ._backends.arrays import call

        return call(self, arrays, pass_, options)

    @cached_property
    def _callers(self) -> dict[str, Callable[..., Any]]:
        return {}

    def _caller(self, pass_: str) -> Callable[..., Any]:
        """The backend's fast way from arrays to results, or one that always declines."""

        def decline(*arrays: Any) -> Any:
            return NotImplemented

        make = getattr(self.code(), "caller", None) if "cpu" in self.targets and pass_ in self.passes else None
        self._callers[pass_] = decline if make is None or self.unavailable() else make(self, pass_)
        return self._callers[pass_]


@dataclass(frozen=True, eq=False)
class Operator:
    """A mathematical function with a contract. ``params`` are scalar parameters with their defaults; ``illegal``
    says in words what is wrong with other ones.

    ``priority`` is the quick preset's list, most telling first: (axes, dtype, pass) triples.
    ``stress`` names the stress inputs of ``_backends.stress`` that this operator is fed; where it is ``exhaustive``, also all
    65,536 numbers of the 16-bit dtypes. ``elementwise`` ones are checked on fewer shapes: no element knows of the others.
    """

    name: str
    summary: str
    formula: str
    source: str
    passes: Mapping[str, Pass]
    nan_policy: str
    valid_range: str
    variants: tuple[Implementation, ...]
    priority: tuple[tuple[Axes, str, str], ...]
    stress: tuple[str, ...]
    dtypes: tuple[str, ...] = ("float32", "float16", "bfloat16")
    params: Mapping[str, Any] = field(default_factory=dict)
    illegal: Callable[[Mapping[str, Any]], str | None] | None = None
    invariants: tuple[str, ...] = ()
    elementwise: bool = False
    exhaustive: bool = True
    package: str = ""

    def implementations(self) -> tuple[Implementation, ...]:
        return tuple(replace(variant, operator=self) for variant in self.variants)


def _families() -> Iterator[str]:
    package = __package__ or ""
    for found in pkgutil.iter_modules(importlib.import_module(package).__path__):
        if found.ispkg and not found.name.startswith("_"):
            yield f"{package}.{found.name}"


_OPERATORS: dict[str, Operator] = {}


def operators() -> Mapping[str, Operator]:
    """Every operator by name, from the card of every family folder. A duplicate name raises ``ValueError``."""
    if not _OPERATORS:
        found: dict[str, Operator] = {}
        for family in _families():
            for operator in importlib.import_module(family).OPERATORS:
                if operator.name in found:
                    raise ValueError(f"operator {operator.name!r} stands on two cards")
                names = [variant.name for variant in operator.variants]
                if len(set(names)) != len(names):
                    raise ValueError(f"operator {operator.name!r} lists an implementation twice")
                found[operator.name] = replace(operator, package=family)
        _OPERATORS.update(found)
    return _OPERATORS


_LOADED: dict[str, Mapping[str, Implementation]] = {}


def load(operator: str) -> Mapping[str, Implementation]:
    """The implementations of an operator by ``backend/variant``. An unknown operator raises ``ValueError``."""
    if operator not in _LOADED:
        if operator not in operators():
            raise ValueError(f"unknown operator {operator!r}; there are {', '.join(operators())}")
        listed = operators()[operator].implementations()
        _LOADED[operator] = _Lookup(operator, {implementation.name: implementation for implementation in listed})
    return _LOADED[operator]


def implementations(operator: str) -> tuple[Implementation, ...]:
    """The implementations of an operator in the card's order."""
    return tuple(load(operator).values())


class _Lookup(dict[str, Implementation]):
    def __init__(self, operator: str, items: Mapping[str, Implementation]) -> None:
        super().__init__(items)
        self.operator = operator

    def __missing__(self, name: str) -> Implementation:
        raise ValueError(f"unknown implementation {name!r} of {self.operator}; there are {', '.join(self)}")

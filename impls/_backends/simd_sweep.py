"""From a card to the native kernels that work element by element: how arguments are sorted, for all families of such."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from . import simd

if TYPE_CHECKING:
    import numpy as np

    from ..registry import Argument, Implementation


def _learned(argument: Argument) -> bool:
    return argument.kind == "parameter"


def bind(
    implementation: Implementation,
    pass_: str,
    inputs: tuple[np.ndarray, ...],
    outputs: tuple[np.ndarray, ...],
    *,
    target: str,
    isa: str | None,
    threads: int,
    params: Mapping[str, Any],
) -> Callable[[], None]:
    """A callable that computes the pass into ``outputs``; the same bits for every number of ``threads``.

    Arrays are of the card's shapes, float32, float16 or bfloat16, parameters and their gradients float32. Raises
    ``ValueError`` or ``TypeError`` naming the argument, before anything is written.
    """
    module, isa, element = simd.prepare(implementation, pass_, inputs, outputs, isa, threads)
    card = implementation.operator.passes[pass_]

    def those(arguments: tuple[Argument, ...], arrays: tuple[np.ndarray, ...], learned: bool) -> list[np.ndarray]:
        return [array for argument, array in zip(arguments, arrays, strict=True) if _learned(argument) == learned]

    return module.bind(
        implementation.operator.name,
        pass_,
        isa,
        element,
        those(card.inputs, inputs, False),
        those(card.outputs, outputs, False),
        those(card.inputs, inputs, True),
        those(card.outputs, outputs, True),
        scalars(implementation, params),
        threads,
        simd.caches().last,
    )


def scalars(implementation: Implementation, params: Mapping[str, Any]) -> list[float]:
    """The operator's scalar parameters, in the card's order."""
    return [float(params[name]) for name in implementation.operator.params]


def caller(implementation: Implementation, pass_: str) -> Callable[..., Any]:
    """A callable from arrays to results that allocates and runs natively, or gives ``NotImplemented`` to decline."""
    module = simd.native(implementation.operator.package)
    card = implementation.operator.passes[pass_]
    learned = [argument.shape({"n": 0}) for argument in card.inputs if _learned(argument)]
    if implementation.limits and all(len(shape) < 2 for shape in learned):  # native code knows of whole groups alone
        return lambda *arrays: NotImplemented
    return module.caller(
        implementation.operator.name,
        pass_,
        module.isas()[0],
        simd.BFLOAT16_NUMBER,
        len(card.inputs) - len(learned),
        sum(argument.dtype == "io" for argument in card.outputs),
        sum(argument.dtype == "int64" for argument in card.outputs),
        [list(shape) for shape in learned],
        any(_learned(argument) for argument in card.outputs),
        scalars(implementation, implementation.operator.params),
        simd.caches().last,
    )

"""The softmax family in C++ over NumPy arrays; kernels in ``simd_*.cpp``, one extension for all of them.

The last axis is the row; leading axes may have any strides. Rows whose own stride is not one element are copied into a
buffer, and results out of one. The largest errors, in ULPs, stand on the card, as do the valid ranges.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from .._backends import simd
from .._backends.simd import unavailable  # noqa: F401  (part of a backend module's contract)

if TYPE_CHECKING:
    import numpy as np

    from ..registry import Implementation


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

    ``x``, ``y``, ``dy`` and ``dx`` are (rows, n), ``lse`` and ``dlse`` (rows,), float32, float16 or bfloat16; several
    leading axes count as one. Raises ``ValueError`` or ``TypeError`` naming the argument, before anything is written.
    """
    module, isa, element = simd.prepare(implementation, pass_, inputs, outputs, isa, threads)
    caches = simd.caches()
    operator = implementation.operator
    if (operator.name, pass_) != ("softmax", "forward"):
        card = operator.passes[pass_]
        pairs = zip(card.inputs + card.outputs, inputs + outputs, strict=True)
        arrays = [array if len(argument.axes) > 1 else array[..., None] for argument, array in pairs]
        return module.bind_pass(operator.name, pass_, isa, element, arrays, threads, caches.last)
    return module.bind(implementation.variant, isa, element, inputs[0], outputs[0], threads, caches.l2, caches.last)


def caller(implementation: Implementation, pass_: str) -> Callable[..., Any]:
    """A callable from arrays to results that allocates and runs natively, or gives ``NotImplemented`` to decline."""
    module = simd.native(implementation.operator.package)
    caches = simd.caches()
    operator = implementation.operator.name
    if (operator, pass_) != ("softmax", "forward"):
        return module.pass_caller(operator, pass_, module.isas()[0], simd.BFLOAT16_NUMBER, caches.last)
    return module.caller(implementation.variant, module.isas()[0], simd.BFLOAT16_NUMBER, caches.l2, caches.last)


def choose(rows: int, n: int, itemsize: int, caches: simd.Caches) -> str:
    """The variant that ``auto`` runs for rows of n elements of that many bytes, on a machine with such caches."""
    return simd.native(__package__).choose(rows, n, itemsize, caches.l2, caches.last)

"""topk_relu in C++ over NumPy arrays: exact, the first among equals, rows of any strides."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .._backends import simd_sweep
from .._backends.simd import unavailable
from .._backends.simd_sweep import caller

if TYPE_CHECKING:
    from ..registry import Implementation

__all__ = ["bind", "caller", "unavailable"]


def bind(implementation: Implementation, pass_: str, inputs: Any, outputs: Any, **options: Any) -> Callable[[], None]:
    """As of any sweep; ``k`` must be an integer of at least 1."""
    k = options["params"]["k"]
    if isinstance(k, bool) or not isinstance(k, int) or k < 1:
        raise ValueError(f"k is {k!r}; it must be an integer of at least 1")
    return simd_sweep.bind(implementation, pass_, inputs, outputs, **options)

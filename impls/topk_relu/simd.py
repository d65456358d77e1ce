"""topk_relu in C++ over NumPy arrays: exact, the first among equals, rows of any strides."""

from __future__ import annotations

from .._backends.simd import unavailable
from .._backends.simd_sweep import bind, caller

__all__ = ["bind", "caller", "unavailable"]

"""poly_norm in C++ over NumPy arrays: rows of any strides, in float32, float16 or bfloat16."""

from __future__ import annotations

from .._backends.simd import unavailable
from .._backends.simd_sweep import bind, caller

__all__ = ["bind", "caller", "unavailable"]

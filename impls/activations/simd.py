"""The activations in C++ over NumPy arrays; functors in ``_backends/activations-inl.h``, the sweep in ``elementwise-inl.h``.

An array of any shape and strides is its elements; rows whose own stride is not one element go through a buffer. The largest
errors, in ULPs, stand on the card, as do the valid ranges.
"""

from __future__ import annotations

from .._backends.simd import unavailable
from .._backends.simd_sweep import bind, caller

__all__ = ["bind", "caller", "unavailable"]

"""Gated units in C++ over NumPy arrays: the functors of ``_backends/activations-inl.h`` in the sweep of ``elementwise-inl.h``.

``gate`` and ``up`` may be the halves of one packed array: rows may lie any distance apart."""

from __future__ import annotations

from .._backends.simd import unavailable
from .._backends.simd_sweep import bind, caller

__all__ = ["bind", "caller", "unavailable"]

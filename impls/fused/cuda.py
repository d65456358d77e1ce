"""CUDA launchers of activations fused with a bias or a count of zeros.

Sums of columns are sums of tiles, added in a fixed order.

The kernels are those of ``cuda_elementwise.cuh``. Max 4 ULP in float32, 0.51 ULP in float16 and
bfloat16, in the units of the operator's card.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .._backends import cuda_elementwise as backend
from .._backends import nvrtc
from .._backends.cuda_elementwise import Plan
from ..registry import Implementation

call = backend.call
unavailable = backend.unavailable

# The activation of each operator.
NAMES = {"bias_gelu": "Gelu", "bias_silu": "Silu", "bias_relu2": "Relu2", "relu_zeros": "Relu", "fatrelu_zeros": "Fatrelu"}


def source() -> str:
    return nvrtc.common("math", "elementwise")


def plan(
    implementation: Implementation, pass_: str, rows: int, n: int, dtype: str, params: Mapping[str, Any] | None = None
) -> Plan:
    """The launches of a pass over non-empty matrices."""
    operator, name = implementation.operator.name, NAMES[implementation.operator.name]
    if operator.startswith("bias_"):
        wrapper, total = ("Biased", None) if pass_ == "forward" else ("BiasedBackward", "float")
        return backend.summed(f"{wrapper}<{name}>", dtype, rows, n, total)
    if pass_ == "forward":
        return backend.summed(f"Counted<{name}>", dtype, rows, n, "long long")
    return backend.mapped(f"Backward<{name}>", dtype, rows, n)


bind, compiled = backend.entry_points(plan, source)

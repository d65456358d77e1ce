"""CUDA launchers of gated units: the activations' own arithmetic, and one more factor.

Rows may be any distance apart, so that both halves of a packed array are read where they are.

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

# The activation of each operator's gate.
NAMES = {"swiglu": "Silu", "geglu": "Gelu", "reglu": "Relu", "fatrelu_and_mul": "Fatrelu"}


def source() -> str:
    return nvrtc.common("math", "elementwise")


def plan(
    implementation: Implementation, pass_: str, rows: int, n: int, dtype: str, params: Mapping[str, Any] | None = None
) -> Plan:
    """The launches of a pass over non-empty matrices."""
    wrapper = "Gated" if pass_ == "forward" else "GatedBackward"
    return backend.mapped(f"{wrapper}<{NAMES[implementation.operator.name]}>", dtype, rows, n)


bind, compiled = backend.entry_points(plan, source)

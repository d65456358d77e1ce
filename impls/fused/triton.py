"""Triton launchers of activations fused with a bias or a count of zeros.

Sums of columns are sums of tiles, added in a fixed order.

Max 4 ULP in float32, 0.51 ULP in float16 and bfloat16, in the units of the operator's card.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .._backends import triton_elementwise as shared
from .._backends.elementwise import Operands
from .._backends.triton import Step
from ..registry import Implementation

call = shared.call
unavailable = shared.unavailable

# The activation of each operator.
NAMES = {"bias_gelu": "gelu", "bias_silu": "silu", "bias_relu2": "relu2", "relu_zeros": "relu", "fatrelu_zeros": "fatrelu"}


def plan(implementation: Implementation, pass_: str, given: Operands, params: Mapping[str, Any]) -> list[Step]:
    """The launches of a pass over non-empty matrices."""
    name = implementation.operator.name
    if name.startswith("bias_"):
        return shared.summed(None, NAMES[name], pass_, given, given.parameters[0], (*given.gradients, None)[0])
    if pass_ == "forward":
        return shared.summed(None, NAMES[name], pass_, given, None, given.gradients[0])
    return shared.mapped(None, NAMES[name], pass_, given)


bind, compiled = shared.entry_points(plan)

"""Triton launchers of gated units: the activations' own arithmetic, and one more factor.

Rows may be any distance apart, so that both halves of a packed array are read where they are.

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

# The activation of each operator's gate.
NAMES = {"swiglu": "silu", "geglu": "gelu", "reglu": "relu", "fatrelu_and_mul": "fatrelu"}


def plan(implementation: Implementation, pass_: str, given: Operands, params: Mapping[str, Any]) -> list[Step]:
    """The launches of a pass over non-empty matrices."""
    return shared.gated(None, NAMES[implementation.operator.name], pass_, given)


bind, compiled = shared.entry_points(plan)

"""Triton launchers of poly_norm; the kernels and their numerics are in ``triton_kernels.py``.

A program holds a row, or several short ones, in registers; a longer one it reads twice, the second time from the L2 cache.
What rows add to the parameters' gradients is summed in float64, in a fixed order.

Max 4 ULP in float32, 0.51 ULP in float16 and bfloat16, in the units of the operator's card.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .._backends import triton as backend
from .._backends import triton_elementwise as shared
from .._backends.elementwise import Operands
from .._backends.triton import Step
from .._backends.triton_elementwise import Values, ceiling_power, strides
from ..registry import Implementation

call = shared.call
unavailable = shared.unavailable

MOST_HELD = {"forward": 1 << 14, "backward": 1 << 13}  # elements of a row that 16 warps hold
READ = 1 << 12  # elements of a longer one that 8 warps read at a time
LENGTHS = (1024, 8192, 1 << 17)


def plan(implementation: Implementation, pass_: str, given: Operands, params: Mapping[str, Any]) -> list[Step]:
    """The launches of a pass over non-empty matrices."""
    from . import triton_kernels as kernels

    x, (w, b) = given.inputs[0], given.parameters
    held = given.n <= MOST_HELD[pass_]
    block = ceiling_power(given.n) if held else READ
    height = max(1, min(2048 // block, ceiling_power(given.rows)))
    sizes = {"HELD": held, "ROWS": height, "BLOCK": block}
    warps = max(1, min(16, block * height // 512)) if held else 8
    programs = -(-given.rows // height)
    eps = shared.number(params["eps"], x)
    if pass_ == "forward":
        return [
            Step(
                kernels.forward, (programs,), (x, *given.outputs, w, b, eps, given.rows, given.n, *strides(given)), sizes, warps
            )
        ]
    work = backend.scratch("float64", (4, programs), x)
    arguments: Values = (*given.inputs, *given.outputs, w, eps, work, given.rows, given.n, *strides(given))
    return [
        Step(kernels.backward, (programs,), arguments, sizes, warps),
        shared.totals(work, 0, given.gradients[0], programs, 3, 1, programs, 1, 1),
        shared.totals(work, 3 * programs, given.gradients[1], programs, 1, 1, programs, 1, 1),
    ]


bind, compiled = shared.entry_points(plan, LENGTHS)

"""Triton launcher of topk_relu: the k-th largest of a row by bisection on the bits of its numbers. Exact.

A program holds a row, or several short ones, in registers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .._backends import triton_elementwise as shared
from .._backends.elementwise import Operands
from .._backends.triton import Step
from .._backends.triton_elementwise import ceiling_power
from ..registry import Implementation

call = shared.call
unavailable = shared.unavailable

LENGTHS = (1024, 11008)


def plan(implementation: Implementation, pass_: str, given: Operands, params: Mapping[str, Any]) -> list[Step]:
    """The launch of a pass over non-empty matrices."""
    from . import triton_kernels as kernels

    x, dy, out = given.inputs[0], given.inputs[-1], given.outputs[0]
    block = ceiling_power(given.n)
    height = max(1, min(2048 // block, ceiling_power(given.rows)))
    constants = {
        "LOWEST": {"float32": 0, "float16": 13, "bfloat16": 16}[given.dtype],
        "ROWS": height,
        "BLOCK": block,
    }
    arguments = (x, dy, out, params["k"], given.rows, given.n, *x.strides, *dy.strides, *out.strides)
    warps = max(1, min(32, block * height // 512))
    return [Step(kernels.topk_relu, (-(-given.rows // height),), arguments, constants, warps)]


bind, compiled = shared.entry_points(plan, LENGTHS)

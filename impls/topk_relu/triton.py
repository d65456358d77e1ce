"""Triton launchers of topk_relu and its kin: the k-th largest of a row by bisection on the bits of its numbers, or a threshold.

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
from . import buckets, deviations

call = shared.call
unavailable = shared.unavailable

LENGTHS = (1024, 11008)
READ = 4096  # elements that a program reads at once for a row's mean


def plan(implementation: Implementation, pass_: str, given: Operands, params: Mapping[str, Any]) -> list[Step]:
    """The launch of a pass over non-empty matrices."""
    from . import triton_kernels as kernels

    x, dy, out = given.inputs[0], given.inputs[-1], given.outputs[0]
    name, k = implementation.operator.name, params["k"]
    block = ceiling_power(given.n) if name != "topk_relu_stat" else min(ceiling_power(given.n), READ)
    height = max(1, min(2048 // block, ceiling_power(given.rows)))
    sizes = {"ROWS": height, "BLOCK": block}
    grid, warps = (-(-given.rows // height),), max(1, min(32, block * height // 512))
    lines = (given.rows, given.n, *x.strides, *dy.strides, *out.strides)
    if name == "topk_relu_stat":
        z = shared.number(deviations(k, given.n), x, "float64")
        return [Step(kernels.topk_relu_stat, grid, (x, dy, out, z, *lines), sizes, warps)]
    count = buckets(k, given.n, params["recall"]) if name == "topk_relu_approx" else 0
    constants = {"LOWEST": {"float32": 0, "float16": 13, "bfloat16": 16}[given.dtype], "BUCKETS": count}
    return [Step(kernels.topk_relu, grid, (x, dy, out, k, *lines), constants | sizes, warps)]


bind, compiled = shared.entry_points(plan, LENGTHS)

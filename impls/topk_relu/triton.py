"""Triton launcher of topk_relu: the k-th largest of a row by bisection on the bits of its numbers. Exact.

A program holds a row, or several short ones, in registers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from .._backends import elementwise, tensors
from .._backends import triton as backend
from .._backends.elementwise import Operands
from .._backends.triton import Step
from .._backends.triton_elementwise import ceiling_power
from ..registry import Axes, Implementation

unavailable = backend.unavailable
call = tensors.call

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


def bind(
    implementation: Implementation,
    pass_: str,
    inputs: tuple[Any, ...],
    outputs: tuple[Any, ...],
    *,
    target: str,
    isa: str | None,
    threads: int,
    params: Mapping[str, Any],
) -> Callable[[], None]:
    """Check the arrays and plan the launches; see ``registry``. ``isa`` and ``threads`` are not used.

    Arrays are torch tensors on ``target``, or on target ``interpreter`` torch CPU tensors or NumPy arrays, (..., n) with any
    strides, float32, float16 or bfloat16. Raises ``TypeError`` or ``ValueError`` naming the argument.
    """
    given = elementwise.operands(implementation, pass_, inputs, outputs, target, params, columns=True)
    return given.zero() if given.empty else backend.launcher(plan(implementation, pass_, given, params), target)


def compiled(
    implementation: Implementation, pass_: str, dtype: str, arch: str, axes: Axes | None = None
) -> list[dict[str, Any]]:
    """Compile a pass for ``sm_80``, ``sm_90`` or ``sm_100`` without a GPU, for arrays of ``axes`` or telling ones.

    Returns a dict for each kernel: kernel, arch, dtype, constants, registers, shared_bytes, spills (bytes a thread),
    compile_seconds.
    """
    found = []
    for n in [axes["n"]] if axes else LENGTHS:
        given = elementwise.aligned(implementation, pass_, dtype, axes or {"rows": 4096, "n": n})
        found += [backend.compiled(step, arch) for step in plan(implementation, pass_, given, implementation.operator.params)]
    return found

"""Triton launchers of the activations: ``triton_kernels.py`` holds their arithmetic.

A program sums the terms of a tile's parameter gradients in pairs of float32; a second kernel adds the tiles' sums in float64,
in an order that depends on the size alone: the same bits every time.

Max 4 ULP in float32 and 0.51 ULP in float16 and bfloat16, for every input, in the units of the operator's card.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from .._backends import elementwise, tensors
from .._backends import triton as backend
from .._backends import triton_elementwise as shared
from .._backends.elementwise import Operands
from .._backends.triton import Step
from ..registry import Axes, Implementation

unavailable = backend.unavailable
call = tensors.call

NAMES = {"hermite_act_1": "hermite_1", "hermite_act": "hermite", "rational_group": "rational"}  # where they differ


def plan(implementation: Implementation, pass_: str, given: Operands) -> list[Step]:
    """The launches of a pass over non-empty matrices."""
    from . import triton_kernels

    name = implementation.operator.name
    counts = elementwise.shape(implementation, pass_)
    return shared.mapped(triton_kernels, NAMES.get(name, name), pass_, given, counts)


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

    Arrays are torch tensors on ``target``, or on target ``interpreter`` torch CPU tensors or NumPy arrays, of any one shape,
    float32, float16 or bfloat16; leading dimensions need a common stride. Parameters are contiguous float32. Raises
    ``TypeError`` or ``ValueError`` naming the argument.
    """
    columns = elementwise.shape(implementation, pass_)[2] > 1
    given = elementwise.operands(implementation, pass_, inputs, outputs, target, params, columns=columns)
    return given.zero() if given.empty else backend.launcher(plan(implementation, pass_, given), target)


def compiled(
    implementation: Implementation, pass_: str, dtype: str, arch: str, axes: Axes | None = None
) -> list[dict[str, Any]]:
    """Compile a pass for ``sm_80``, ``sm_90`` or ``sm_100`` without a GPU, for contiguous arrays of ``axes``.

    Returns a dict for each kernel: kernel, arch, dtype, constants, registers, shared_bytes, spills (bytes a thread),
    compile_seconds.
    """
    given = elementwise.aligned(implementation, pass_, dtype, axes)
    return [backend.compiled(step, arch) for step in plan(implementation, pass_, given)]

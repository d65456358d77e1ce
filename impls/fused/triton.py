"""Triton launchers of activations fused with a bias or a count of zeros.

Sums of columns are sums of tiles, added in a fixed order.

Max 4 ULP in float32, 0.51 ULP in float16 and bfloat16, in the units of the operator's card.
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

# The activation of each operator.
NAMES = {"bias_gelu": "gelu", "bias_silu": "silu", "bias_relu2": "relu2", "relu_zeros": "relu", "fatrelu_zeros": "fatrelu"}


def plan(implementation: Implementation, pass_: str, given: Operands) -> list[Step]:
    """The launches of a pass over non-empty matrices."""
    name = implementation.operator.name
    if name.startswith("bias_"):
        return shared.summed(None, NAMES[name], pass_, given, given.parameters[0], (*given.gradients, None)[0])
    if pass_ == "forward":
        return shared.summed(None, NAMES[name], pass_, given, None, given.gradients[0])
    return shared.mapped(None, NAMES[name], pass_, given)


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
    strides, float32, float16 or bfloat16; the bias is float32. Raises ``TypeError`` or ``ValueError`` naming the argument.
    """
    given = elementwise.operands(implementation, pass_, inputs, outputs, target, params, columns=True)
    return given.zero() if given.empty else backend.launcher(plan(implementation, pass_, given), target)


def compiled(
    implementation: Implementation, pass_: str, dtype: str, arch: str, axes: Axes | None = None
) -> list[dict[str, Any]]:
    """Compile a pass for ``sm_80``, ``sm_90`` or ``sm_100`` without a GPU, for contiguous arrays of ``axes``.

    Returns a dict for each kernel: kernel, arch, dtype, registers, shared_bytes, spills (bytes a thread), compile_seconds.
    """
    given = elementwise.aligned(implementation, pass_, dtype, axes)
    return [backend.compiled(step, arch) for step in plan(implementation, pass_, given)]

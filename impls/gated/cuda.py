"""CUDA launchers of gated units: the activations' own arithmetic, and one more factor.

Rows may be any distance apart, so that both halves of a packed array are read where they are.

The kernels are those of ``cuda_elementwise.cuh``. Max 4 ULP in float32, 0.51 ULP in float16 and
bfloat16, in the units of the operator's card.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from .._backends import cuda_elementwise as backend
from .._backends import elementwise, nvrtc, tensors
from .._backends.cuda_elementwise import Plan
from ..registry import Axes, Implementation

call = tensors.call

# The activation of each operator's gate.
NAMES = {"swiglu": "Silu", "geglu": "Gelu", "reglu": "Relu", "fatrelu_and_mul": "Fatrelu"}


def source() -> str:
    return nvrtc.common("math", "elementwise")


def unavailable(implementation: Implementation, target: str) -> str | None:
    """Why CUDA kernels can't run on ``target``, in words."""
    return nvrtc.unavailable(target)


def plan(implementation: Implementation, pass_: str, rows: int, n: int, dtype: str) -> Plan:
    """The launches of a pass over non-empty matrices."""
    wrapper = "Gated" if pass_ == "forward" else "GatedBackward"
    return backend.mapped(f"{wrapper}<{NAMES[implementation.operator.name]}>", dtype, rows, n)


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
    """Check the arrays, compile and plan the launches; see ``registry``. ``isa`` and ``threads`` are not used.

    Arrays are torch tensors on ``target``, (..., n) with any strides, float32, float16 or bfloat16. Raises
    ``TypeError`` or ``ValueError`` naming the argument.
    """
    given = elementwise.operands(implementation, pass_, inputs, outputs, target, params)
    if given.empty:
        return given.zero()
    planned = plan(implementation, pass_, given.rows, given.n, given.dtype)
    return backend.launcher(planned, source(), given, target)


def compiled(
    implementation: Implementation, pass_: str, dtype: str, arch: str, axes: Axes | None = None
) -> list[dict[str, Any]]:
    """Compile a pass for ``sm_80``, ``sm_90`` or ``sm_100`` without a GPU, for contiguous arrays of ``axes``.

    Returns a dict for each kernel: kernel, arch, dtype, registers, shared_bytes, spills (bytes a thread), compile_seconds.
    """
    return backend.compiled(plan(implementation, pass_, 1024, 1024, dtype), source(), dtype, arch)

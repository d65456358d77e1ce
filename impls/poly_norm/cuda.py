"""CUDA launchers of poly_norm; the kernels are in ``kernel.cu``.

A block holds a row in registers; a longer one it reads twice, the second time from the L2 cache. What a row adds to the
parameters' gradients is summed over the rows in float64, in a fixed order.

Max 4 ULP in float32, 0.51 ULP in float16 and bfloat16, in the units of the operator's card.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np

from .._backends import cuda_elementwise as backend
from .._backends import elementwise, nvrtc, tensors
from .._backends.cuda_elementwise import Plan
from .._backends.nvrtc import Launch
from ..registry import Axes, Implementation

call = tensors.call

# (threads, vectors of 16 bytes a thread that registers hold), for ever longer rows; 0 reads the row again.
HELD = {
    "forward": ((128, 2), (128, 4), (256, 4), (512, 4), (512, 8), (512, 0)),
    "backward": ((128, 2), (256, 2), (256, 4), (512, 4), (512, 0)),
}


@cache
def source() -> str:
    return nvrtc.common("math", "elementwise", "rows") + files(__package__).joinpath("kernel.cu").read_text()


def unavailable(implementation: Implementation, target: str) -> str | None:
    """Why CUDA kernels can't run on ``target``, in words."""
    return nvrtc.unavailable(target)


def plan(
    implementation: Implementation, pass_: str, rows: int, n: int, dtype: str, params: Mapping[str, Any] | None = None
) -> Plan:
    """The launches of a pass over non-empty matrices."""
    threads, held = backend.fitting(HELD[pass_], n, dtype)
    kind = backend.TYPES[dtype]
    launches = [Launch(f"poly_norm_{pass_}<{kind}, {threads}, {held}>", rows, threads)]
    eps = int(np.float32((params or implementation.operator.params)["eps"]).view(np.uint32))
    if pass_ == "forward":
        return Plan(tuple(launches), rows, n, each=eps)
    launches.append(Launch(f"totals<{kind}, 3>", 4, backend.THREADS))
    return Plan(tuple(launches), rows, n, blocks=rows, each=eps, work=4 * rows)


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
    given = elementwise.operands(implementation, pass_, inputs, outputs, target, params, columns=True)
    if given.empty:
        return given.zero()
    planned = plan(implementation, pass_, given.rows, given.n, given.dtype, params)
    return backend.launcher(planned, source(), given, target)


def compiled(
    implementation: Implementation, pass_: str, dtype: str, arch: str, axes: Axes | None = None
) -> list[dict[str, Any]]:
    """Compile a pass for ``sm_80``, ``sm_90`` or ``sm_100`` without a GPU: every length's kernel.

    Returns a dict for each kernel: kernel, arch, dtype, registers, shared_bytes, spills (bytes a thread), compile_seconds.
    """
    return backend.every_length(plan, implementation, pass_, HELD[pass_], source(), dtype, arch)

"""CUDA launchers of topk_relu; the kernel, a radix select, is in ``kernel.cu``.

A block holds a row in registers; a longer one it reads once a digit and once more to write, from the L2 cache. Exact.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from importlib.resources import files
from typing import Any

from .._backends import cuda_elementwise as backend
from .._backends import elementwise, nvrtc, tensors
from .._backends.cuda_elementwise import Plan
from .._backends.nvrtc import Launch
from ..registry import Axes, Implementation

call = tensors.call

# (threads, vectors of 16 bytes a thread that registers hold), for ever longer rows; 0 reads the row again.
HELD = {
    "forward": ((256, 2), (256, 4), (512, 4), (512, 0)),
    "backward": ((256, 2), (512, 2), (512, 4), (512, 0)),
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
    kernel = f"topk_relu<{backend.TYPES[dtype]}, {threads}, {1 + (pass_ == 'backward')}, {held}>"
    return Plan((Launch(kernel, rows, threads),), rows, n, each=(params or implementation.operator.params)["k"])


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

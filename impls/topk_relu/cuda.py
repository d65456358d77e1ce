"""CUDA launchers of topk_relu; the kernel, a radix select, is in ``kernel.cu``.

A block holds a row in registers; a longer one it reads once a digit and once more to write, from the L2 cache. Exact.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any

from .._backends import cuda_elementwise as backend
from .._backends import nvrtc
from .._backends.cuda_elementwise import Plan
from .._backends.nvrtc import Launch
from ..registry import Implementation

call = backend.call
unavailable = backend.unavailable

# (threads, vectors of 16 bytes a thread that registers hold), for ever longer rows; 0 reads the row again.
HELD = {
    "forward": ((256, 2), (256, 4), (512, 4), (512, 0)),
    "backward": ((256, 2), (512, 2), (512, 4), (512, 0)),
}


@cache
def source() -> str:
    return nvrtc.common("math", "elementwise", "rows") + files(__package__).joinpath("kernel.cu").read_text()


def plan(
    implementation: Implementation, pass_: str, rows: int, n: int, dtype: str, params: Mapping[str, Any] | None = None
) -> Plan:
    """The launches of a pass over non-empty matrices."""
    threads, held = backend.fitting(HELD[pass_], n, dtype)
    kernel = f"topk_relu<{backend.TYPES[dtype]}, {threads}, {1 + (pass_ == 'backward')}, {held}>"
    return Plan((Launch(kernel, rows, threads),), rows, n, each=(params or implementation.operator.params)["k"])


bind, compiled = backend.entry_points(plan, source, HELD)

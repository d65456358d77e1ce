"""CUDA launchers of poly_norm; the kernels are in ``kernel.cu``.

A block holds a row in registers; a longer one it reads twice, the second time from the L2 cache. What a row adds to the
parameters' gradients is summed over the rows in float64, in a fixed order.

Max 4 ULP in float32, 0.51 ULP in float16 and bfloat16, in the units of the operator's card.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np

from .._backends import cuda_elementwise as backend
from .._backends import nvrtc
from .._backends.cuda_elementwise import Plan
from .._backends.nvrtc import Launch
from ..registry import Implementation

call = backend.call
unavailable = backend.unavailable

# (threads, vectors of 16 bytes a thread that registers hold), for ever longer rows; 0 reads the row again.
HELD = {
    "forward": ((128, 2), (128, 4), (256, 4), (512, 4), (512, 8), (512, 0)),
    "backward": ((128, 2), (256, 2), (256, 4), (512, 4), (512, 0)),
}


@cache
def source() -> str:
    return nvrtc.common("math", "elementwise", "rows") + files(__package__).joinpath("kernel.cu").read_text()


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


bind, compiled = backend.entry_points(plan, source, HELD)

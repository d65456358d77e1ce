"""CUDA launchers of topk_relu and its kin; the kernels are in ``kernel.cu``.

A block holds a row in registers; a longer one it reads once a digit and once more to write, from the L2 cache. Exact.
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
from . import buckets, deviations

call = backend.call
unavailable = backend.unavailable

# (threads, vectors of 16 bytes a thread that registers hold), for ever longer rows; 0 reads the row again.
HELD = {
    "forward": ((256, 2), (256, 4), (512, 4), (512, 0)),
    "backward": ((256, 2), (512, 2), (512, 4), (512, 0)),
}


MOST_BUCKETS = 1 << 14  # 128 KiB of shared memory


@cache
def source() -> str:
    return nvrtc.common("math", "elementwise", "rows") + files(__package__).joinpath("kernel.cu").read_text()


def plan(
    implementation: Implementation, pass_: str, rows: int, n: int, dtype: str, params: Mapping[str, Any] | None = None
) -> Plan:
    """The launches of a pass over non-empty matrices."""
    threads, held = backend.fitting(HELD[pass_], n, dtype)
    chosen, name = params or implementation.operator.params, implementation.operator.name
    shape = f"{backend.TYPES[dtype]}, {threads}, {1 + (pass_ == 'backward')}, {held}"
    if name == "topk_relu_stat":
        z = np.float64(deviations(chosen["k"], n)).view(np.int64)
        return Plan((Launch(f"topk_relu_stat<{shape}>", rows, threads),), rows, n, each=int(z))
    count = buckets(chosen["k"], n, chosen["recall"]) if name == "topk_relu_approx" else 0
    if count > MOST_BUCKETS:
        raise ValueError(
            f"recall = {chosen['recall']} with k = {chosen['k']} takes {count} buckets; {MOST_BUCKETS} fit a block"
        )
    return Plan((Launch(f"topk_relu<{shape}, {count}>", rows, threads, 8 * count),), rows, n, each=chosen["k"])


bind, compiled = backend.entry_points(plan, source, HELD)

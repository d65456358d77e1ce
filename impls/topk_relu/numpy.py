"""topk_relu in plain NumPy: a selection of each row's k-th largest, then a comparison with it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from .._backends import blocks

Arrays = tuple[np.ndarray, ...]


def kept(x: np.ndarray, k: int) -> np.ndarray:
    """Which are among the k largest of their row and above 0, or NaN; ``x`` is float32 and is overwritten."""
    positive = ~(x <= 0)
    if k >= x.shape[1]:
        return positive
    # The bits of positive floats rank as integers, NaN above infinity; all that becomes 0 anyway ranks last.
    np.copyto(x, 0, where=~positive)
    np.abs(x, out=x)
    rank = x.view(np.int32)
    np.copyto(rank, 0x7FC00000, where=np.isnan(x))
    kth = np.partition(rank, -k, axis=1)[:, -k, None]
    chosen = rank > kth
    tied = rank == kth
    room = k - chosen.sum(1, keepdims=True)
    chosen |= tied & (np.cumsum(tied, 1) <= room)
    chosen &= positive
    return chosen


def plan(name: str, pass_: str, inputs: Arrays, outputs: Arrays, params: Mapping[str, Any]) -> Callable[[], None]:
    k = params["k"]

    def run() -> None:
        for *given, result in blocks.rows([*inputs, outputs[0]]):
            chosen = kept(given[0].astype(np.float32), k)
            np.copyto(result, 0)
            np.copyto(result, given[-1], where=chosen)

    return run


bind = blocks.bind_to(plan)
unavailable = blocks.unavailable

"""topk_relu and its kin in plain NumPy: a selection of each row's k-th largest, or a threshold, then a comparison."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from .._backends import blocks
from . import buckets, deviations

Arrays = tuple[np.ndarray, ...]


def kept(x: np.ndarray, k: int, count: int = 0) -> np.ndarray:
    """Which are among the k largest of their row, or of what leads its ``count`` buckets, and above 0, or NaN; ``x`` is float32
    and is overwritten."""
    positive = ~(x <= 0)
    if k >= x.shape[1]:
        return positive
    # The bits of positive floats rank as integers, NaN above infinity; all that becomes 0 anyway ranks last.
    np.copyto(x, 0, where=~positive)
    np.abs(x, out=x)
    rank = x.view(np.int32)
    np.copyto(rank, 0x7FC00000, where=np.isnan(x))
    if count:
        rank[~leading(rank, count)] = 0
    kth = np.partition(rank, -k, axis=1)[:, -k, None]
    chosen = rank > kth
    tied = rank == kth
    room = k - chosen.sum(1, keepdims=True)
    chosen |= tied & (np.cumsum(tied, 1) <= room)
    chosen &= rank > 0
    return chosen


def leading(rank: np.ndarray, count: int) -> np.ndarray:
    """Which are the first largest of their bucket, element i being in bucket i mod ``count``."""
    rows, n = rank.shape
    folded = np.full((rows, -(-n // count) * count), -1, np.int32)
    folded[:, :n] = rank
    first = folded.reshape(rows, -1, count).argmax(1)
    leads = np.zeros(folded.shape, bool)
    np.put_along_axis(leads, first * count + np.arange(count), True, 1)
    return leads[:, :n]


def reaching(x: np.ndarray, k: int) -> np.ndarray:
    """Which reach their row's threshold and are above 0, or NaN."""
    n = x.shape[1]
    chosen: np.ndarray = ~(x <= 0)
    if k < n:
        wide = x.astype(np.float64)
        mean = wide.mean(1, keepdims=True)
        wide -= mean
        std = np.sqrt(np.einsum("ij,ij->i", wide, wide)[:, None] / n)
        chosen &= ~(x < (mean + std * deviations(k, n)).astype(np.float32))
    return chosen


def plan(name: str, pass_: str, inputs: Arrays, outputs: Arrays, params: Mapping[str, Any]) -> Callable[[], None]:
    k, n = params["k"], inputs[0].shape[-1]
    count = buckets(k, n, params["recall"]) if name == "topk_relu_approx" else 0

    def run() -> None:
        for *given, result in blocks.rows([*inputs, outputs[0]]):
            x = given[0].astype(np.float32)
            chosen = reaching(x, k) if name == "topk_relu_stat" else kept(x, k, count)
            np.copyto(result, 0)
            np.copyto(result, given[-1], where=chosen)

    return run


bind = blocks.bind_to(plan)
unavailable = blocks.unavailable

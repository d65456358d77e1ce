"""The truth about topk_relu and its kin: a stable sort of each row, for NumPy's arrays and for torch's."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

from ..activations.reference import Array, bind_to, ones_like, quiet, step, where
from ..activations.reference import unavailable as unavailable
from . import buckets, deviations


def kept(x: Array, k: int) -> Array:
    """1 at the k largest of each row, the first among equals, NaN being the largest; else 0"""
    if isinstance(x, np.ndarray):
        order = np.lexsort((-np.nan_to_num(x, nan=0.0, posinf=np.inf, neginf=-np.inf), ~np.isnan(x)), -1)
        found = np.zeros(x.shape)
        np.put_along_axis(found, order[..., :k], 1, -1)
        return found
    import torch

    chosen = torch.sort(x, dim=-1, descending=True, stable=True).indices
    return torch.zeros_like(x).scatter_(-1, chosen[..., :k], 1)


def leading(x: Array, count: int) -> Array:
    """1 at the first largest of each bucket, element i being in bucket i mod ``count``"""
    n = x.shape[-1]
    rank = where(x <= 0, 0.0, where(x == x, x.clip(0, sys.float_info.max), math.inf))  # NaN beyond infinity
    rows = -(-n // count)
    shape = (*x.shape[:-1], rows * count)
    padded: Array = np.full(shape, -1.0) if isinstance(x, np.ndarray) else x.new_full(shape, -1.0)
    padded[..., :n] = rank
    folded = padded.reshape(*x.shape[:-1], rows, count)
    most = folded.max(-2, keepdims=True) if isinstance(x, np.ndarray) else folded.amax(-2, keepdim=True)
    equal = where(folded == most, 1.0, 0.0)
    return where(equal.cumsum(-2) * equal == 1, 1.0, 0.0).reshape(shape)[..., :n]


def kept_approx(x: Array, k: int, recall: float) -> Array:
    """1 at the k largest of those that lead their buckets"""
    if not (count := buckets(k, x.shape[-1], recall)):
        return kept(x, k)
    leads = leading(x, count)
    return leads * kept(where(leads == 1, x, -math.inf), k)


def kept_stat(x: Array, k: int) -> Array:
    """1 at what reaches the row's threshold, and everywhere where that is NaN"""
    n = x.shape[-1]
    if k >= n:
        return ones_like(x)
    mean = x.sum(-1)[..., None] / n
    std = (((x - mean) ** 2).sum(-1)[..., None] / n) ** 0.5
    threshold = mean + std * deviations(k, n)
    threshold = threshold.astype(np.float32).astype(np.float64) if isinstance(x, np.ndarray) else threshold.float().double()
    return where(x < threshold, 0.0, 1.0)


def oracles(chosen: Callable[..., Array]) -> tuple[Callable[..., tuple[Array]], Callable[..., tuple[Array]]]:
    """max(x, 0) where chosen, else 0; and dy where chosen and x > 0 or NaN, else 0"""

    @quiet
    def forward(x: Array, k: int, **params: Any) -> tuple[Array]:
        return (where(chosen(x, k, **params) == 1, x.clip(0), 0.0),)

    @quiet
    def backward(x: Array, dy: Array, k: int, **params: Any) -> tuple[Array]:
        return (where(chosen(x, k, **params) * step(x) == 1, dy, 0.0),)

    return forward, backward


topk_relu, topk_relu_backward = oracles(kept)
topk_relu_approx, topk_relu_approx_backward = oracles(kept_approx)
topk_relu_stat, topk_relu_stat_backward = oracles(kept_stat)


def kept_scale(x: Array, y: Array, **params: Any) -> tuple[Array]:
    """|x|: to keep another one is off by all of it"""
    return (abs(x),)


def kept_backward_scale(x: Array, dy: Array, dx: Array, **params: Any) -> tuple[Array]:
    """|dy|"""
    return (abs(dy),)


bind: Any = bind_to(globals())

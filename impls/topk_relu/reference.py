"""The truth about topk_relu: a stable sort of each row, for NumPy's arrays and for torch's."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..activations.reference import Array, bind_to, quiet, step, where
from ..activations.reference import unavailable as unavailable


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


@quiet
def topk_relu(x: Array, k: int) -> tuple[Array]:
    """max(x, 0) where kept, else 0"""
    return (where(kept(x, k) == 1, x.clip(0), 0.0),)


@quiet
def topk_relu_backward(x: Array, dy: Array, k: int) -> tuple[Array]:
    """dy where kept and x > 0 or NaN, else 0"""
    return (where(kept(x, k) * step(x) == 1, dy, 0.0),)


def topk_relu_scale(x: Array, y: Array, k: int) -> tuple[Array]:
    """|x|: to keep another one is off by all of it"""
    return (abs(x),)


def topk_relu_backward_scale(x: Array, dy: Array, dx: Array, k: int) -> tuple[Array]:
    """|dy|"""
    return (abs(dy),)


bind: Any = bind_to(globals())

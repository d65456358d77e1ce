"""The truth about poly_norm: float64, for NumPy's arrays and for torch's. x^6 of a float32 number is a float64 number."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..activations.reference import TERMS, Array, bind_to, quiet
from ..activations.reference import unavailable as unavailable


def powers(x: Array) -> list[Array]:
    """x^0 to x^5: products, as general powers take their time"""
    found = [x * 0 + 1, x]
    while len(found) < 6:
        found.append(found[-1] * x)
    return found


def inverse(x: Array, eps: float) -> list[Array]:
    """1 / sqrt(mean x^(2 p) + eps) of each row, p = 1, 2, 3"""
    return [((u * u).mean(-1)[..., None] + eps) ** -0.5 for u in powers(x)[1:4]]


@quiet
def poly_norm(x: Array, w: Array, b: Array, eps: float) -> tuple[Array]:
    """w_0 i_3 x^3 + w_1 i_2 x^2 + w_2 i_1 x + b"""
    i1, i2, i3 = inverse(x, eps)
    return (w[0] * i3 * x * x * x + w[1] * i2 * x * x + w[2] * i1 * x + b,)


@quiet
def poly_norm_scale(x: Array, w: Array, b: Array, y: Array, eps: float) -> tuple[Array]:
    """The sum of the terms' sizes"""
    return poly_norm(abs(x), abs(w), abs(b), eps)


def terms(x: Array, dy: Array, w: Array, eps: float, sign: float) -> tuple[Array, list[Array]]:
    """dx, from terms that are taken from each other (``sign`` -1) or added (1, for their size); i_p sum_k dy_k x_k^p"""
    dx: Array = 0
    to = powers(x)
    sums: list[Array] = []
    for p, (i, each) in enumerate(zip(inverse(x, eps), (w[2], w[1], w[0]), strict=True), 1):
        s = (dy * to[p]).sum(-1)[..., None]
        dx = dx + each * (p * to[p - 1] * i * dy + sign * p / x.shape[-1] * to[2 * p - 1] * i**3 * s)
        sums.insert(0, (i * s).sum())
    return dx, sums


@quiet
def poly_norm_backward(x: Array, dy: Array, w: Array, b: Array, eps: float) -> tuple[Array, Array, Array]:
    """dx = sum_p w_p (p x^(p-1) i_p dy - p / n x^(2p-1) i_p^3 sum dy x^p); dw_p = sum i_p sum dy x^p; db = sum dy"""
    dx, sums = terms(x, dy, w, eps, -1)
    return dx, w * 0 + _vector(sums, w), (dy.sum() + 0 * b)


def _vector(numbers: list[Array], like: Array) -> Array:
    if isinstance(like, np.ndarray):
        return np.array(numbers)
    import torch

    return torch.stack(numbers)


@quiet
def poly_norm_backward_scale(
    x: Array, dy: Array, w: Array, b: Array, dx: Array, dw: Array, db: Array, eps: float
) -> tuple[Array, Array, Array]:
    """The sizes of dx's terms; ``TERMS`` times those of the parameters' sums"""
    size, sums = terms(abs(x), abs(dy), abs(w), eps, 1)
    return size, TERMS * _vector(sums, w), TERMS * (abs(dy).sum() + 0 * b)


bind: Any = bind_to(globals())

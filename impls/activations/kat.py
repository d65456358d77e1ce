"""What KAT's activations compute (Adamdad/rational_kat_cu, arXiv 2409.10594), written from their formulas in plain NumPy.

Their coefficients for gelu were fit as P / Q with Q = 1 + |sum b_j x^j|, form B of ``rational``. Their CUDA and Triton kernels
evaluate Q = 1 + sum |b_j x^j|, form A; their PyTorch code for the CPU Q = 1 + sum |b_j| x^j, which is another function where
x < 0, and may have poles there. So the gelu that they begin with is none: it is off by 1.465 at x = 3.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from .._backends import arrays

if TYPE_CHECKING:
    from ..registry import Implementation

GELU = (
    (-0.00153969, 0.51692871, 0.44075827, 0.0972553, -0.00884418, -0.00378675),
    (-0.14171056, -0.06481231, -0.0444695, 0.01283776),
)


def unavailable(implementation: Implementation, target: str) -> str | None:
    return None


def bind(
    implementation: Implementation,
    pass_: str,
    inputs: tuple[np.ndarray, ...],
    outputs: tuple[np.ndarray, ...],
    *,
    target: str = "cpu",
    isa: str | None = None,
    threads: int = 1,
    params: Mapping[str, Any] | None = None,
) -> Callable[[], None]:
    """float32; on ``gelu`` with their coefficients, on ``rational_group`` with the caller's."""
    arrays.check(implementation, pass_, inputs, outputs)
    x, *learned = inputs
    (y,) = outputs
    a, b = (np.asarray(each, np.float32) for each in learned or GELU)
    a = a.reshape(-1)
    by_column = [np.repeat(each, x.shape[-1] // each.size) for each in np.abs(np.atleast_2d(b)).T]
    signed = implementation.variant == "kat-torch"

    def run() -> None:
        with np.errstate(all="ignore"):
            q = polynomial([1, *by_column], x if signed else np.abs(x))
            np.divide(polynomial(list(a), x), q, out=y)

    return run


def polynomial(coefficients: list[Any], x: np.ndarray) -> np.ndarray:
    """sum_i c_i x^i"""
    found = np.full_like(x, coefficients[-1])
    for each in reversed(coefficients[:-1]):
        found = found * x + each
    return found

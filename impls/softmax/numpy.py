"""The softmax family in plain NumPy: one ufunc call for each sweep over the rows, into memory allocated at bind.

Three sweeps in the paper's sense (maximum, exponentials and their sum, division). 16-bit rows are computed in float32 and
rounded to nearest even once, by the cast to the output. Rows may have any strides; nothing is copied but to widen 16 bits.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from .._backends import arrays

if TYPE_CHECKING:
    from ..registry import Implementation

Arrays = tuple[np.ndarray, ...]


def softmax(x: np.ndarray, y: np.ndarray, row: np.ndarray) -> None:
    """y = exp(x - max) / sum; ``row`` is scratch for one number a row."""
    np.max(x, axis=-1, keepdims=True, out=row)
    np.subtract(x, row, out=y)
    np.exp(y, out=y)
    np.sum(y, axis=-1, keepdims=True, out=row)
    np.divide(y, row, out=y)


def log_softmax(x: np.ndarray, y: np.ndarray, row: np.ndarray, e: np.ndarray) -> None:
    """y = (x - max) - log sum exp(x - max); ``e`` is scratch of x's shape."""
    np.max(x, axis=-1, keepdims=True, out=row)
    np.subtract(x, row, out=y)
    np.exp(y, out=e)
    np.sum(e, axis=-1, keepdims=True, out=row)
    np.log(row, out=row)
    np.subtract(y, row, out=y)


def logsumexp(x: np.ndarray, lse: np.ndarray, row: np.ndarray, e: np.ndarray) -> None:
    """lse = max + log sum exp(x - max), the maximum taken as 0 where it is infinite."""
    np.max(x, axis=-1, keepdims=True, out=row)
    np.copyto(row, 0, where=np.isinf(row))
    np.subtract(x, row, out=e)
    np.exp(e, out=e)
    np.sum(e, axis=-1, out=lse)
    np.log(lse, out=lse)
    np.add(lse, row[..., 0], out=lse)


def softmax_backward(y: np.ndarray, dy: np.ndarray, dx: np.ndarray, row: np.ndarray) -> None:
    """dx = y (dy - sum y dy)"""
    np.multiply(y, dy, out=dx)
    np.sum(dx, axis=-1, keepdims=True, out=row)
    np.subtract(dy, row, out=dx)
    np.multiply(dx, y, out=dx)


def log_softmax_backward(y: np.ndarray, dy: np.ndarray, dx: np.ndarray, row: np.ndarray) -> None:
    """dx = dy - exp(y) sum dy"""
    np.sum(dy, axis=-1, keepdims=True, out=row)
    np.exp(y, out=dx)
    np.multiply(dx, row, out=dx)
    np.subtract(dy, dx, out=dx)


def logsumexp_backward(x: np.ndarray, lse: np.ndarray, dlse: np.ndarray, dx: np.ndarray) -> None:
    """dx = exp(x - lse) dlse"""
    np.subtract(x, lse[..., None], out=dx)
    np.exp(dx, out=dx)
    np.multiply(dx, dlse[..., None], out=dx)


SWEEPS: Mapping[tuple[str, str], Callable[..., None]] = {
    ("softmax", "forward"): softmax,
    ("log_softmax", "forward"): log_softmax,
    ("logsumexp", "forward"): logsumexp,
    ("softmax", "backward"): softmax_backward,
    ("log_softmax", "backward"): log_softmax_backward,
    ("logsumexp", "backward"): logsumexp_backward,
}
SCRATCH = {softmax: 1, log_softmax: 2, logsumexp: 2, softmax_backward: 1, log_softmax_backward: 1, logsumexp_backward: 0}


def unavailable(implementation: Implementation, target: str) -> str | None:
    return None


def bind(
    implementation: Implementation,
    pass_: str,
    inputs: Arrays,
    outputs: Arrays,
    *,
    target: str = "cpu",
    isa: str | None = None,
    threads: int = 1,
    params: Mapping[str, Any] | None = None,
) -> Callable[[], None]:
    """Check the arrays and allocate the scratch; the callable allocates nothing of a row's length."""
    arrays.check(implementation, pass_, inputs, outputs)
    compute = SWEEPS[implementation.operator.name, pass_]
    x = inputs[0]
    scratch = (np.empty((*x.shape[:-1], 1), np.float32), np.empty(x.shape, np.float32))[: SCRATCH[compute]]
    narrow = x.dtype != np.float32
    wide = tuple(np.empty(array.shape, np.float32) if narrow else array for array in (*inputs, *outputs))
    into = wide[len(inputs) :]

    @np.errstate(all="ignore")
    def run() -> None:
        if narrow:
            for array, there in zip(inputs, wide, strict=False):
                np.copyto(there, array)
        compute(*wide, *scratch)
        if narrow:
            for array, there in zip(outputs, into, strict=True):
                np.copyto(array, there, casting="same_kind")

    return run

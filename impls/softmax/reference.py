"""The truth about the softmax family: float64 oracles in NumPy, with scales and invariants, and PyTorch's.

Oracles take (rows, n) float64 arrays and return a tuple of float64 outputs. float64 is wide enough throughout: x - max is
off by at most 745 * 2^-53 wherever exp(x - max) is not 0, and whatever cancels is measured against a scale named here.
NaN and infinity come out of the formulas as PyTorch's policy has them; nothing here special-cases a NaN.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from .._backends import arrays, probe

if TYPE_CHECKING:
    from ..registry import Implementation

quiet = np.errstate(all="ignore")


@quiet
def softmax(x: np.ndarray) -> tuple[np.ndarray]:
    """y = exp(x - max x) / sum_k exp(x_k - max x)"""
    e = np.exp(x - x.max(-1, keepdims=True))
    e /= e.sum(-1, keepdims=True)
    return (e,)


@quiet
def log_softmax(x: np.ndarray) -> tuple[np.ndarray]:
    """y = (x - max x) - log sum_k exp(x_k - max x)"""
    shifted = x - x.max(-1, keepdims=True)
    return (shifted - np.log(np.exp(shifted).sum(-1, keepdims=True)),)


@quiet
def logsumexp(x: np.ndarray) -> tuple[np.ndarray]:
    """lse = m + log sum_k exp(x_k - m), where m is max x, or 0 where that is infinite"""
    m = x.max(-1, keepdims=True)
    m[np.isinf(m)] = 0
    return (m[..., 0] + np.log(np.exp(x - m).sum(-1)),)


@quiet
def softmax_backward(y: np.ndarray, dy: np.ndarray) -> tuple[np.ndarray]:
    """dx = y (dy - sum_k y_k dy_k)"""
    return (y * (dy - (y * dy).sum(-1, keepdims=True)),)


@quiet
def log_softmax_backward(y: np.ndarray, dy: np.ndarray) -> tuple[np.ndarray]:
    """dx = dy - exp(y) sum_k dy_k"""
    return (dy - np.exp(y) * dy.sum(-1, keepdims=True),)


@quiet
def logsumexp_backward(x: np.ndarray, lse: np.ndarray, dlse: np.ndarray) -> tuple[np.ndarray]:
    """dx = exp(x - lse) dlse"""
    return (np.exp(x - lse[..., None]) * dlse[..., None],)


# Scales: the magnitude whose ULP is the unit of error, where the output itself cancels.


def at_least_one(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray]:
    """max(|y|, 1): log-probabilities near 0 come from a difference of numbers near 1."""
    return (np.maximum(np.abs(y), 1),)


@quiet
def softmax_backward_scale(y: np.ndarray, dy: np.ndarray, dx: np.ndarray) -> tuple[np.ndarray]:
    """|y| (|dy| + sum_k |y_k dy_k|): the terms that cancel in dx."""
    return (np.abs(y) * (np.abs(dy) + np.abs(y * dy).sum(-1, keepdims=True)),)


@quiet
def log_softmax_backward_scale(y: np.ndarray, dy: np.ndarray, dx: np.ndarray) -> tuple[np.ndarray]:
    """|dy| + exp(y) sum_k |dy_k|: the terms that cancel in dx."""
    return (np.abs(dy) + np.exp(y) * np.abs(dy).sum(-1, keepdims=True),)


# Inputs of the backward passes, from a draw for each: what the forward pass would have handed over, rounded to the dtype.


def softmax_backward_inputs(x: np.ndarray, dy: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return _rounded(softmax, x), dy


def log_softmax_backward_inputs(x: np.ndarray, dy: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return _rounded(log_softmax, x), dy


def logsumexp_backward_inputs(x: np.ndarray, lse: np.ndarray, dlse: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return x, _rounded(logsumexp, x), dlse


@quiet
def _rounded(oracle: Callable[[np.ndarray], tuple[np.ndarray]], x: np.ndarray) -> np.ndarray:
    return oracle(x.astype(np.float64))[0].astype(x.dtype)


# Invariants of the forward pass, each from inputs and outputs in float64: what is broken, in words, or None.


def rows_sum_to_one(x: np.ndarray, y: np.ndarray, eps: float) -> str | None:
    """|sum y - 1| <= n 2^-24 + eps, eps being the output's: n roundings of the sum and one of each output."""
    return _first_beyond(np.abs(y.sum(-1) - 1), y.shape[-1] * 2.0**-24 + eps, "a row sums to 1 +- {:.3g}, allowed {:.3g}")


@quiet
def exponentials_sum_to_one(x: np.ndarray, y: np.ndarray, eps: float) -> str | None:
    """The same of exp(y), which an error in y of |y| eps moves by sum exp(y) |y| eps, at most eps log n."""
    n = y.shape[-1]
    allowed = n * 2.0**-24 + eps * (2 + np.log(n))
    return _first_beyond(np.abs(np.exp(y).sum(-1) - 1), allowed, "a row's exponentials sum to 1 +- {:.3g}, allowed {:.3g}")


def non_negative(x: np.ndarray, y: np.ndarray, eps: float) -> str | None:
    return f"{int((y < 0).sum())} outputs are negative" if (y < 0).any() else None


def zero_where_masked(x: np.ndarray, y: np.ndarray, eps: float) -> str | None:
    """-inf gives an exact 0, unless its row is NaN."""
    masked = np.isneginf(x) & ~np.isnan(y) & (y != 0)
    return f"{int(masked.sum())} masked elements are not exactly 0" if masked.any() else None


@quiet
def at_least_the_maximum(x: np.ndarray, lse: np.ndarray, eps: float) -> str | None:
    """lse >= max x, but for a rounding of lse."""
    below = x.max(-1) - lse
    return _first_beyond(below / np.maximum(np.abs(lse), 1), eps, "lse is below the row's maximum by {:.3g}, allowed {:.3g}")


def _first_beyond(distance: np.ndarray, allowed: float, message: str) -> str | None:
    worst = float(np.max(np.nan_to_num(distance, nan=0.0, posinf=0.0), initial=0.0))
    return message.format(worst, allowed) if worst > allowed else None


# The same from PyTorch, in float64, rounded once to the output's dtype.


def unavailable(implementation: Implementation, target: str) -> str | None:
    return probe.missing("torch") or (probe.torch_without_cuda() if target.startswith("cuda") else None)


def bind(
    implementation: Implementation,
    pass_: str,
    inputs: tuple[Any, ...],
    outputs: tuple[Any, ...],
    *,
    target: str = "cpu",
    isa: str | None = None,
    threads: int = 1,
    params: Mapping[str, Any] | None = None,
) -> Callable[[], None]:
    """PyTorch's own function on float64 copies of the inputs: NumPy arrays on the CPU, torch tensors on a GPU."""
    import torch

    aten = torch.ops.aten
    functions: dict[tuple[str, str], Callable[..., torch.Tensor]] = {
        ("softmax", "forward"): lambda x: torch.softmax(x, -1),
        ("softmax", "backward"): lambda y, dy: aten._softmax_backward_data(dy, y, -1, torch.float64),
        ("log_softmax", "forward"): lambda x: torch.log_softmax(x, -1),
        ("log_softmax", "backward"): lambda y, dy: aten._log_softmax_backward_data(dy, y, -1, torch.float64),
        ("logsumexp", "forward"): lambda x: torch.logsumexp(x, -1),
        ("logsumexp", "backward"): lambda x, lse, dlse: (x - lse[..., None]).exp() * dlse[..., None],
    }
    compute = functions[implementation.operator.name, pass_]
    if target != "cpu":
        return lambda: outputs[0].copy_(compute(*(tensor.double() for tensor in inputs)))
    arrays.check(implementation, pass_, inputs, outputs)

    @quiet
    def run() -> None:
        result = compute(*(torch.from_numpy(array.astype(np.float64, order="C")) for array in inputs))
        np.copyto(outputs[0], result.numpy(), casting="unsafe")

    return run

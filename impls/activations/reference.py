"""The truth about activations: float64 formulas, written once for NumPy, which judges, and for PyTorch, which is timed.

``name`` is the oracle of the forward pass and ``name_backward`` of the backward pass, made from the derivatives in x and in
each learned parameter. float64 is wide enough throughout: whatever cancels is measured against a scale named here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import wraps
from typing import TYPE_CHECKING, Any

import numpy as np

from .._backends import arrays, probe

if TYPE_CHECKING:
    from ..registry import Implementation

Array = Any  # float64, of NumPy or of torch
Formula = Callable[..., Any]

LIMIT = 1e43  # stands for infinity: infinite in float32, while its seventh power is a float64 number
FLOAT32_MAX = float(np.finfo(np.float32).max)
# A parameter's gradient is a sum whose terms were rounded a few times each: its unit is an ULP of 16 times their magnitudes.
TERMS = 16

quiet = np.errstate(all="ignore")


# Arithmetic of either library


def _either(name: str) -> Formula:
    def function(*operands: Any) -> Array:
        if any(arrays.is_torch(each) for each in operands):
            import torch

            return getattr(torch, name)(*operands)
        return getattr(np, name)(*operands)

    return function


exp, log1p, where, stack = map(_either, ("exp", "log1p", "where", "stack"))
_erfc = np.frompyfunc(math.erfc, 1, 1)


def erfc(x: Array) -> Array:
    if arrays.is_torch(x):
        import torch

        return torch.special.erfc(x)
    return np.asarray(_erfc(x), np.float64)


def limited(x: Array) -> Array:
    """x with infinities brought to ``LIMIT``, where formulas take their limits instead of inf - inf and 0 inf."""
    return x.clip(-LIMIT, LIMIT)


# From formulas to oracles


def forward(formula: Formula) -> Formula:
    """The oracle of a forward pass, from y(x, parameters)."""

    @quiet
    @wraps(formula)
    def oracle(x: Array, *parameters: Array, **params: Any) -> tuple[Array]:
        return (formula(limited(x), *parameters, **params),)

    return oracle


def backward(derivatives: Formula) -> Formula:
    """The oracle of a backward pass, from dy/dx, or (dy/dx, dy/dparameter, ...), the latter of the parameter's axes and x's.

    A derivative in x beyond float32 is infinite, and dx with it. Parameters' gradients are sums over all elements.
    """

    @quiet
    @wraps(derivatives)
    def oracle(x: Array, dy: Array, *parameters: Array, **params: Any) -> tuple[Array, ...]:
        found = derivatives(limited(x), *parameters, **params)
        slope, *partials = found if isinstance(found, tuple) else (found,)
        slope = slope * where(abs(slope) > FLOAT32_MAX, math.inf, 1.0)
        return (dy * slope, *((dy * each).sum(-1) for each in partials))

    return oracle


def backward_scale(magnitudes: Formula) -> Formula:
    """The scale of a backward pass, from the sizes of the terms that make up each derivative.

    dx: |dy| times dy/dx or, beside a zero of it, half its terms. Parameters: ``TERMS`` sum |dy| |terms|.
    """

    @quiet
    @wraps(magnitudes)
    def scale(x: Array, dy: Array, *rest: Array, **params: Any) -> tuple[Array, ...]:
        count = (len(rest) - 1) // 2  # parameters, then dx, then their gradients
        found = magnitudes(limited(x), *rest[:count], **params)
        terms, *partials = found if isinstance(found, tuple) else (found,)
        dx = np.maximum(abs(rest[count]), abs(dy) * terms / 2)
        return (dx, *(TERMS * (abs(dy) * each).sum(-1) for each in partials))

    return scale


def nothing_cancels(x: Array, dy: Array, dx: Array, **params: Any) -> tuple[Array]:
    """|dx|"""
    return (abs(dx),)


# Formulas


def step(x: Array) -> Array:
    """1 where x > 0 or NaN, else 0: the derivative that PyTorch gives relu"""
    return where(x <= 0, 0.0, 1.0)


def gaussian(x: Array) -> Array:
    return exp(-x * x / 2)


def normal_cdf(x: Array) -> Array:
    return erfc(-x / math.sqrt(2)) / 2


def normal_density(x: Array) -> Array:
    return gaussian(x) / math.sqrt(2 * math.pi)


def logistic(x: Array) -> Array:
    """1 / (1 + e^-x)"""
    e = exp(-abs(x))
    return where(x < 0, e, 1.0) / (1 + e)


@forward
def relu(x: Array) -> Array:
    """max(x, 0)"""
    return x.clip(0)


relu_backward = backward(step)
relu_backward_scale = nothing_cancels


@forward
def gelu(x: Array) -> Array:
    """x Phi(x)"""
    return x * normal_cdf(x)


@backward
def gelu_backward(x: Array) -> Array:
    """Phi(x) + x phi(x)"""
    return normal_cdf(x) + x * normal_density(x)


@backward_scale
def gelu_backward_scale(x: Array) -> Array:
    """Phi(x) + |x| phi(x)"""
    return normal_cdf(x) + abs(x) * normal_density(x)


@forward
def silu(x: Array) -> Array:
    """x s(x)"""
    return x * logistic(x)


@backward
def silu_backward(x: Array) -> Array:
    """s(x) + x s(x) s(-x)"""
    return logistic(x) * (1 + x * logistic(-x))


@backward_scale
def silu_backward_scale(x: Array) -> Array:
    """s(x) + |x| s(x) s(-x)"""
    return logistic(x) * (1 + abs(x) * logistic(-x))


@forward
def crrelu(x: Array, eps: Array) -> Array:
    """max(x, 0) + eps x exp(-x^2 / 2)"""
    return x.clip(0) + eps * x * gaussian(x)


@backward
def crrelu_backward(x: Array, eps: Array) -> tuple[Array, Array]:
    """[x > 0] + eps (1 - x^2) exp(-x^2 / 2), x exp(-x^2 / 2)"""
    return step(x) + eps * (1 - x * x) * gaussian(x), (x * gaussian(x))[None]


@backward_scale
def crrelu_backward_scale(x: Array, eps: Array) -> tuple[Array, Array]:
    """[x > 0] + |eps| (1 + x^2) exp(-x^2 / 2), |x| exp(-x^2 / 2)"""
    return step(x) + abs(eps) * (1 + x * x) * gaussian(x), abs(x * gaussian(x))[None]


# The same from PyTorch, rounded once to the output's dtype.


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
    """The oracle on float64 copies of the inputs: NumPy arrays on the CPU, torch tensors on a GPU."""
    import torch

    oracle = globals()[implementation.operator.passes[pass_].oracle]
    if target != "cpu":

        def run_there() -> None:
            for output, result in zip(outputs, oracle(*(tensor.double() for tensor in inputs), **(params or {})), strict=True):
                output.copy_(result)

        return run_there
    arrays.check(implementation, pass_, inputs, outputs)

    @quiet
    def run() -> None:
        flat = (torch.from_numpy(array.astype(np.float64, order="C").reshape(-1)) for array in inputs)
        for output, result in zip(outputs, oracle(*flat, **(params or {})), strict=True):
            np.copyto(output, result.numpy().reshape(output.shape), casting="unsafe")

    return run

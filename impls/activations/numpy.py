"""Activations in plain NumPy: float64 in blocks that stay in the first-level caches, rounded to the output once.

Each function computes one block: ``x`` and ``dy`` are float64 with infinities brought to a finite number beyond float32,
``y`` (or the derivative ``d``) is written, ``s`` and ``t`` are scratch. A derivative returns, after it, each learned
parameter's sum over the block. What float32 computes exactly is computed in the arrays' own type instead.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from .._backends import arrays

if TYPE_CHECKING:
    from ..registry import Implementation

Arrays = tuple[np.ndarray, ...]
Block = np.ndarray

BLOCK = 1 << 12
LIMIT = 1e43  # infinite in float32; powers up to the seventh are finite in float64
FLOAT32_MAX = float(np.finfo(np.float32).max)

# log(erfcx(z) / t) as a polynomial in t = 1 / (1 + z / 2), for z >= 0, highest power first; off by 4e-10.
ERFC = (
    *(-0.13305862532256, 1.101173767677, -3.959349786838, 8.0206877056172, -9.8998988893151),
    *(7.5498075042659, -3.6190138208253, 1.3364795777548, -0.40599890853107, -0.092662404955547),
    *(-0.091315718035097, 0.083672770225818, 0.37498880665971, 1.0000001455552, -1.2655121237987),
)


def normal_cdf(x: Block, y: Block, s: Block) -> None:
    """y = erfc(-x / sqrt 2) / 2, the tail without cancellation"""
    np.abs(x, out=s)
    s *= math.sqrt(0.5)
    np.multiply(s, 0.5, out=y)
    y += 1
    t = np.reciprocal(y, out=y)
    np.square(s, out=s)
    power = np.full_like(t, ERFC[0])
    for coefficient in ERFC[1:]:
        power *= t
        power += coefficient
    power -= s
    np.exp(power, out=power)
    power *= t
    power *= 0.5
    np.subtract(1, power, out=y)
    np.copyto(y, power, where=x < 0)


def density(x: Block, y: Block) -> None:
    """y = exp(-x^2 / 2)"""
    np.square(x, out=y)
    y *= -0.5
    np.exp(y, out=y)


def logistic(x: Block, y: Block) -> None:
    """y = 1 / (1 + exp(-x))"""
    np.negative(x, out=y)
    np.exp(y, out=y)
    y += 1
    np.reciprocal(y, out=y)


def gelu(x: Block, y: Block, s: Block, t: Block) -> None:
    normal_cdf(x, y, s)
    y *= x


def gelu_derivative(x: Block, dy: Block, d: Block, s: Block, t: Block) -> Arrays:
    normal_cdf(x, d, s)
    density(x, s)
    s *= x
    s *= 1 / math.sqrt(2 * math.pi)
    d += s
    return ()


def silu(x: Block, y: Block, s: Block, t: Block) -> None:
    np.negative(x, out=y)
    np.exp(y, out=y)
    y += 1
    np.divide(x, y, out=y)


def silu_derivative(x: Block, dy: Block, d: Block, s: Block, t: Block) -> Arrays:
    logistic(x, d)
    np.negative(x, out=t)
    logistic(t, s)
    s *= x
    s += 1
    d *= s
    return ()


def crrelu(x: Block, y: Block, s: Block, t: Block, eps: np.ndarray) -> None:
    density(x, s)
    s *= x
    s *= eps
    np.maximum(x, 0, out=y)
    y += s


def crrelu_derivative(x: Block, dy: Block, d: Block, s: Block, t: Block, eps: np.ndarray) -> Arrays:
    density(x, s)
    np.square(x, out=d)
    np.subtract(1, d, out=d)
    d *= s
    d *= eps
    np.greater(x, 0, out=t, casting="unsafe")
    d += t
    s *= x
    s *= dy
    return (s.sum(keepdims=True),)


BLOCKS: Mapping[str, tuple[Callable[..., None], Callable[..., Arrays]]] = {
    "gelu": (gelu, gelu_derivative),
    "silu": (silu, silu_derivative),
    "crrelu": (crrelu, crrelu_derivative),
}


# Exact in the arrays' own type


def relu(x: np.ndarray, y: np.ndarray, params: Mapping[str, Any]) -> Callable[[], None]:
    return lambda: np.maximum(x, 0, out=y)


def relu_backward(x: np.ndarray, dy: np.ndarray, dx: np.ndarray, params: Mapping[str, Any]) -> Callable[[], None]:
    negative = np.empty(x.shape, bool)

    def run() -> None:
        np.copyto(dx, dy)
        np.less_equal(x, 0, out=negative)
        np.copyto(dx, 0, where=negative)

    return run


WHOLE: Mapping[tuple[str, str], Callable[..., Callable[[], None]]] = {
    ("relu", "forward"): relu,
    ("relu", "backward"): relu_backward,
}


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
    """Check the arrays and allocate the scratch of a block."""
    arrays.check(implementation, pass_, inputs, outputs)
    name = implementation.operator.name
    if whole := WHOLE.get((name, pass_)):
        return np.errstate(all="ignore")(whole(*inputs, *outputs, params or {}))
    compute, derive = BLOCKS[name]
    count = 2 if pass_ == "backward" else 1
    elements, parameters, gradients = inputs[:count], inputs[count:], outputs[1:]
    scratch = np.empty((3, BLOCK))
    plan: Any = {"flags": ["external_loop", "buffered", "zerosize_ok"], "order": "C", "casting": "unsafe", "buffersize": BLOCK}
    plan |= {"op_flags": [*(["readonly"] for _ in elements), ["writeonly"]], "op_dtypes": [np.float64] * (count + 1)}

    @np.errstate(all="ignore")
    def run() -> None:
        sums = [np.zeros(each.shape) for each in gradients]
        learned = [each.astype(np.float64) for each in parameters]
        with np.nditer([*elements, outputs[0]], **plan) as blocks:
            for x, *rest in blocks:
                limited, s, t = scratch[:, : x.size]
                np.clip(x, -LIMIT, LIMIT, out=limited)
                if pass_ == "forward":
                    compute(limited, *rest, s, t, *learned, **(params or {}))
                    continue
                dy, d = rest
                for total, each in zip(sums, derive(limited, dy, d, s, t, *learned, **(params or {})), strict=True):
                    total += each
                np.abs(d, out=s)
                np.copyto(d, np.copysign(np.inf, d), where=s > FLOAT32_MAX)
                d *= dy
        for gradient, total in zip(gradients, sums, strict=True):
            gradient[...] = total

    return run

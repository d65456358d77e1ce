"""Activations in plain NumPy: float64 in blocks that stay in the first-level caches, rounded to the output once.

Each function computes one block: ``x`` and ``dy`` are float64 with infinities brought to a finite number beyond float32,
``y`` (or the derivative ``d``) is written, ``s`` and ``t`` are scratch. A derivative returns, after it, each learned
parameter's sum over the block. What float32 computes exactly is computed in the arrays' own type instead.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np

from .._backends import blocks

Arrays = tuple[np.ndarray, ...]
Block = np.ndarray

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


def relu2_derivative(x: Block, dy: Block, d: Block, s: Block, t: Block) -> Arrays:
    np.maximum(x, 0, out=d)
    d *= 2
    return ()


def gelu_tanh_argument(x: Block, y: Block) -> None:
    """y = 2 u"""
    np.square(x, out=y)
    y *= 0.044715
    y += 1
    y *= x
    y *= math.sqrt(8 / math.pi)


def gelu_tanh(x: Block, y: Block, s: Block, t: Block) -> None:
    gelu_tanh_argument(x, t)
    np.negative(t, out=t)
    np.exp(t, out=t)
    t += 1
    np.divide(x, t, out=y)


def gelu_tanh_derivative(x: Block, dy: Block, d: Block, s: Block, t: Block) -> Arrays:
    np.clip(x, -1e3, 1e3, out=t)  # where all is 0 or 1, so that the square stays finite
    gelu_tanh_argument(t, s)
    logistic(s, d)
    np.negative(s, out=s)
    rest = np.empty_like(s)
    logistic(s, rest)
    np.square(t, out=s)
    s *= 3 * 0.044715
    s += 1
    s *= math.sqrt(8 / math.pi)
    s *= t
    s *= rest
    s += 1
    d *= s
    return ()


def sigmoid(x: Block, y: Block, s: Block, t: Block) -> None:
    logistic(x, y)


def sigmoid_derivative(x: Block, dy: Block, d: Block, s: Block, t: Block) -> Arrays:
    logistic(x, d)
    np.negative(x, out=t)
    logistic(t, s)
    d *= s
    return ()


def softplus(x: Block, y: Block, s: Block, t: Block) -> None:
    np.logaddexp(x, 0, out=y)


def softplus_derivative(x: Block, dy: Block, d: Block, s: Block, t: Block) -> Arrays:
    logistic(x, d)
    return ()


def tanh(x: Block, y: Block, s: Block, t: Block) -> None:
    np.tanh(x, out=y)


def tanh_derivative(x: Block, dy: Block, d: Block, s: Block, t: Block) -> Arrays:
    np.clip(x, -500, 500, out=d)
    np.cosh(d, out=d)
    np.square(d, out=d)
    np.reciprocal(d, out=d)
    return ()


def exp(x: Block, y: Block, s: Block, t: Block) -> None:
    np.exp(x, out=y)


def exp_derivative(x: Block, dy: Block, d: Block, s: Block, t: Block) -> Arrays:
    np.exp(x, out=d)
    return ()


def horner(coefficients: Any, x: Block, y: Block) -> None:
    """y = sum_i c_i x^i, the highest power first"""
    y[...] = coefficients[0]
    for each in coefficients[1:]:
        y *= x
        y += each


def hermite(d: int) -> tuple[float, ...]:
    """Coefficients of a cubic, the highest power's first."""
    scale = 2.0 ** (-d / 4)
    square = math.sqrt(0.5 - 2.0 ** (-d / 2))
    return scale / math.sqrt(6), square, scale * (1 - 3 / math.sqrt(6)), -square


def hermite_act(x: Block, y: Block, s: Block, t: Block, d: int) -> None:
    horner(hermite(d), x, y)


def hermite_act_derivative(x: Block, dy: Block, y: Block, s: Block, t: Block, d: int) -> Arrays:
    cube, square, linear, _ = hermite(d)
    horner((3 * cube, 2 * square, linear), x, y)
    return ()


SEVENTH = 1 / (12 * math.sqrt(70))
ODD = (SEVENTH, -21 * SEVENTH, 105 * SEVENTH, math.sqrt(0.5) - 105 * SEVENTH)


def hermite_act_1(x: Block, y: Block, s: Block, t: Block) -> None:
    np.square(x, out=s)
    horner(ODD, s, y)
    y *= x


def hermite_act_1_derivative(x: Block, dy: Block, d: Block, s: Block, t: Block) -> Arrays:
    np.square(x, out=s)
    horner([power * each for power, each in zip((7, 5, 3, 1), ODD, strict=True)], s, d)
    return ()


def poly_relu(x: Block, y: Block, s: Block, t: Block, w: np.ndarray, b: np.ndarray) -> None:
    np.maximum(x, 0, out=s)
    horner((*w, b), s, y)


def poly_relu_derivative(x: Block, dy: Block, d: Block, s: Block, t: Block, w: np.ndarray, b: np.ndarray) -> Arrays:
    np.maximum(x, 0, out=s)
    horner((3 * w[0], 2 * w[1], w[2]), s, d)
    np.copyto(d, 0, where=x <= 0)
    sums = [dy.sum(keepdims=True)]
    np.copyto(t, dy)
    for _ in range(3):
        t *= s
        sums.append(t.sum(keepdims=True))
    return np.concatenate(sums[:0:-1]), sums[0]


def denominator(x: Block, b: np.ndarray, version: str) -> tuple[Block, Block, Block]:
    """Q, and what dQ/dx and dQ/db_j are to be multiplied by: both are 1, or the sign of what stands between bars."""
    first, coefficients = (0.1, b) if version == "C" else (1.0, np.concatenate([[0.0], b]))
    q, side = np.empty_like(x), np.ones_like(x)
    if version == "A":
        horner(np.abs(coefficients[::-1]), np.abs(x), q)
    else:
        horner(coefficients[::-1], x, q)
        if version != "N":
            np.sign(q, out=side)
            np.abs(q, out=q)
    q += first
    return q, side, coefficients


def rational(x: Block, y: Block, s: Block, t: Block, a: np.ndarray, b: np.ndarray, version: str) -> None:
    horner(a[::-1], x, y)
    y /= denominator(x, b, version)[0]


def rational_derivative(
    x: Block, dy: Block, d: Block, s: Block, t: Block, a: np.ndarray, b: np.ndarray, version: str
) -> Arrays:
    q, side, coefficients = denominator(x, b, version)
    where = x
    if version == "A":
        where, coefficients, side = np.abs(x), np.abs(coefficients), np.sign(x)
    np.reciprocal(q, out=q)
    horner(a[::-1], x, t)
    t *= q  # R
    horner((coefficients * np.arange(coefficients.size))[:0:-1], where, s)
    s *= side
    s *= t
    horner((a * np.arange(a.size))[:0:-1], x, d)
    d -= s
    d *= q
    q *= dy
    da = np.empty(a.size)
    np.copyto(s, q)
    for i in range(a.size):
        da[i] = s.sum()
        s *= x
    np.negative(q, out=q)
    q *= t
    if version != "A":
        q *= side
    db = np.empty(coefficients.size)
    for j in range(db.size):
        db[j] = q.sum()
        q *= where
    db = db[coefficients.size - b.size :]
    return da, db * np.sign(b) if version == "A" else db


BLOCKS: Mapping[str, tuple[Callable[..., None] | None, Callable[..., Arrays]]] = {
    "relu2": (None, relu2_derivative),  # forward: below
    "gelu": (gelu, gelu_derivative),
    "gelu_tanh": (gelu_tanh, gelu_tanh_derivative),
    "silu": (silu, silu_derivative),
    "sigmoid": (sigmoid, sigmoid_derivative),
    "softplus": (softplus, softplus_derivative),
    "tanh": (tanh, tanh_derivative),
    "exp": (exp, exp_derivative),
    "crrelu": (crrelu, crrelu_derivative),
    "hermite_act": (hermite_act, hermite_act_derivative),
    "hermite_act_1": (hermite_act_1, hermite_act_1_derivative),
    "poly_relu": (poly_relu, poly_relu_derivative),
    **{
        name: (partial(rational, version=version), partial(rational_derivative, version=version))
        for name, version in (("rational", "A"), ("rational_b", "B"), ("rational_c", "C"), ("rational_n", "N"))
    },
}


# Exact in the arrays' own type


def relu(x: np.ndarray, y: np.ndarray) -> Callable[[], None]:
    return lambda: np.maximum(x, 0, out=y)


def relu2(x: np.ndarray, y: np.ndarray) -> Callable[[], None]:
    def run() -> None:
        np.maximum(x, 0, out=y)
        np.square(y, out=y)

    return run


def fatrelu(x: np.ndarray, y: np.ndarray, t: float) -> Callable[[], None]:
    return dropped(x, x, y, np.less, np.float32(t))


def relu_backward(x: np.ndarray, dy: np.ndarray, dx: np.ndarray) -> Callable[[], None]:
    return dropped(dy, x, dx, np.less_equal, np.float32(0))


def fatrelu_backward(x: np.ndarray, dy: np.ndarray, dx: np.ndarray, t: float) -> Callable[[], None]:
    return dropped(dy, x, dx, np.less, np.float32(t))


def dropped(source: np.ndarray, x: np.ndarray, out: np.ndarray, compare: np.ufunc, t: np.float32) -> Callable[[], None]:
    """A copy of ``source`` with 0 where x compares with t."""
    mask = np.empty(x.shape, bool)
    threshold = np.full((), t)  # an array, so that 16 bits are widened and not t narrowed

    def run() -> None:
        np.copyto(out, source)
        compare(x, threshold, out=mask)
        np.copyto(out, 0, where=mask)

    return run


WHOLE: Mapping[tuple[str, str], Callable[..., Callable[[], None]]] = {
    ("relu", "forward"): relu,
    ("relu", "backward"): relu_backward,
    ("relu2", "forward"): relu2,
    ("fatrelu", "forward"): fatrelu,
    ("fatrelu", "backward"): fatrelu_backward,
}


def plan(name: str, pass_: str, inputs: Arrays, outputs: Arrays, params: Mapping[str, Any]) -> Callable[[], None]:
    if whole := WHOLE.get((name, pass_)):
        return whole(*inputs, *outputs, **params)
    count = 2 if pass_ == "backward" else 1
    elements, parameters, gradients = (*inputs[:count], outputs[0]), inputs[count:], outputs[1:]
    if name == "rational_group":
        return by_group(elements, parameters, gradients)
    computed = sweep(*BLOCKS[name], elements, parameters, params)

    def run() -> None:
        for gradient, total in zip(gradients, computed(), strict=True):
            gradient[...] = total

    return run


def sweep(
    compute: Callable[..., None] | None,
    derive: Callable[..., Arrays],
    elements: Arrays,
    parameters: Arrays,
    params: Mapping[str, Any],
) -> Callable[[], Arrays]:
    """One pass over x and y, or over x, dy and dx, of any strides; what it returns are the parameters' gradients."""
    backward = len(elements) == 3
    scratch = np.empty((3, blocks.BLOCK))

    def run() -> Arrays:
        learned = [each.astype(np.float64) for each in parameters]
        sums = tuple(np.zeros(each.shape) for each in parameters) if backward else ()
        with blocks.flat(elements[:-1], elements[-1:]) as pieces:
            for x, *rest in pieces:
                limited, s, t = scratch[:, : x.size]
                np.clip(x, -LIMIT, LIMIT, out=limited)
                if compute and not backward:
                    compute(limited, *rest, s, t, *learned, **params)
                    continue
                dy, d = rest
                for total, each in zip(sums, derive(limited, dy, d, s, t, *learned, **params), strict=True):
                    total += each
                np.abs(d, out=s)
                np.copyto(d, np.copysign(np.inf, d), where=s > FLOAT32_MAX)
                d *= dy
        return sums

    return run


def by_group(elements: Arrays, parameters: Arrays, gradients: Arrays) -> Callable[[], None]:
    """A sweep over each group's columns, with its own denominator."""
    a, b = parameters
    flat = [each.reshape(-1, each.shape[-1]) if each.ndim == 1 else each for each in elements]
    width = elements[0].shape[-1] // len(b)
    sweeps = [
        sweep(*BLOCKS["rational"], tuple(each[..., group * width : (group + 1) * width] for each in flat), (a[0], b[group]), {})
        for group in range(len(b))
    ]

    @np.errstate(all="ignore")
    def run() -> None:
        found = [each() for each in sweeps]
        if gradients:
            gradients[0][...] = sum(da for da, _ in found)
            gradients[1][...] = [db for _, db in found]

    return run


bind = blocks.bind_to(plan)
unavailable = blocks.unavailable

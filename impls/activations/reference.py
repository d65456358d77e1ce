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
    from ..registry import Argument, Implementation

Array = Any  # float64, of NumPy or of torch
Formula = Callable[..., Any]

LIMIT = 1e43  # stands for infinity: infinite in float32, while its seventh power is a float64 number
OVERFLOW = 2.0**128 - 2.0**103  # what is rounded to infinity in float32
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


exp, log1p, tanh_of, sign = map(_either, ("exp", "log1p", "tanh", "sign"))
ones_like, where, stack = map(_either, ("ones_like", "where", "stack"))
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
        slope = slope * where(abs(slope) >= OVERFLOW, math.inf, 1.0)
        return (dy * slope, *((dy * each).sum(-1) for each in partials))

    return oracle


def forward_scale(magnitude: Formula) -> Formula:
    """The scale of a forward pass, from the sizes of the terms that make up y: beside a zero of y their sum."""

    @quiet
    @wraps(magnitude)
    def scale(x: Array, *rest: Array, **params: Any) -> tuple[Array]:
        *parameters, y = rest
        return (np.maximum(abs(y), magnitude(limited(x), *parameters, **params)),)

    return scale


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


@forward
def relu2(x: Array) -> Array:
    """max(x, 0)^2"""
    return x.clip(0) ** 2


@backward
def relu2_backward(x: Array) -> Array:
    """2 max(x, 0)"""
    return 2 * x.clip(0)


relu2_backward_scale = nothing_cancels


@forward
def fatrelu(x: Array, t: float) -> Array:
    """x where x >= t, else 0; t is a float32 number"""
    return where(x < np.float32(t), 0.0, x)


@backward
def fatrelu_backward(x: Array, t: float) -> Array:
    """1 where x >= t or NaN, else 0"""
    return where(x < np.float32(t), 0.0, 1.0)


fatrelu_backward_scale = nothing_cancels


def _gelu_tanh_terms(x: Array) -> tuple[Array, Array]:
    """s and x ds/dx, of the sigmoid s of 2 sqrt(2 / pi) (x + 0.044715 x^3)"""
    root = math.sqrt(8 / math.pi)
    u = root * (x + 0.044715 * x**3)
    return logistic(u), x * logistic(u) * logistic(-u) * root * (1 + 3 * 0.044715 * x**2)


@forward
def gelu_tanh(x: Array) -> Array:
    """x (1 + tanh(u)) / 2 = x s(2 u), u = sqrt(2 / pi) (x + 0.044715 x^3)"""
    return x * _gelu_tanh_terms(x)[0]


@backward
def gelu_tanh_backward(x: Array) -> Array:
    """s(2 u) + 2 x s(2 u) s(-2 u) du/dx"""
    return sum(_gelu_tanh_terms(x))


@backward_scale
def gelu_tanh_backward_scale(x: Array) -> Array:
    """The same with |x|"""
    return sum(map(abs, _gelu_tanh_terms(x)))


sigmoid = forward(logistic)


@backward
def sigmoid_backward(x: Array) -> Array:
    """s(x) s(-x)"""
    return logistic(x) * logistic(-x)


sigmoid_backward_scale = nothing_cancels


@forward
def softplus(x: Array) -> Array:
    """log(1 + e^x)"""
    return x.clip(0) + log1p(exp(-abs(x)))


softplus_backward = backward(logistic)
softplus_backward_scale = nothing_cancels

tanh = forward(tanh_of)


@backward
def tanh_backward(x: Array) -> Array:
    """1 - tanh(x)^2 = 4 s(2 x) s(-2 x)"""
    return 4 * logistic(2 * x) * logistic(-2 * x)


tanh_backward_scale = nothing_cancels

exponential, exponential_backward = forward(exp), backward(exp)
exponential_backward_scale = nothing_cancels


# Polynomials. Their scale beside zeros is that of their terms: no arithmetic in float32 does better without tricks.


def polynomial(coefficients: Any, x: Array) -> Array:
    """sum_i c_i x^i"""
    y = 0 * x
    for each in reversed(coefficients):
        y = y * x + each
    return y


def powers(x: Array, first: int, count: int) -> list[Array]:
    """x^first and so on, ``count`` of them"""
    found = [ones_like(x) if first == 0 else x]
    while len(found) < count:
        found.append(found[-1] * x)
    return found


def sizes(coefficients: Any) -> list[Array]:
    return [abs(c) for c in coefficients]


def derivative(coefficients: Any) -> list[Array]:
    """Those of the derivative"""
    return [i * c for i, c in enumerate(coefficients)][1:]


def hermite(d: int) -> list[float]:
    """Coefficients of the activation whose infinitely deep network is optimal on a sphere of dimension d"""
    if d == 1:  # (x^7 - 21 x^5 + 105 x^3 - 105 x) / (12 sqrt 70) + x / sqrt 2
        k = 12 * math.sqrt(70)
        return [0, -105 / k + math.sqrt(0.5), 0, 105 / k, 0, -21 / k, 0, 1 / k]
    a, c = 2 ** (-d / 4), math.sqrt((1 - 2 ** (1 - d / 2)) / 2)
    return [-c, a - 3 * a / math.sqrt(6), c, a / math.sqrt(6)]


@forward
def hermite_act(x: Array, d: int = 1) -> Array:
    """2^(-d/4) (x^3 - 3 x) / sqrt 6 + sqrt(1 - 2 2^(-d/2)) (x^2 - 1) / sqrt 2 + 2^(-d/4) x"""
    return polynomial(hermite(d), x)


@forward_scale
def hermite_act_scale(x: Array, d: int = 1) -> Array:
    """sum |c_i x^i|"""
    return polynomial(sizes(hermite(d)), abs(x))


@backward
def hermite_act_backward(x: Array, d: int = 1) -> Array:
    return polynomial(derivative(hermite(d)), x)


@backward_scale
def hermite_act_backward_scale(x: Array, d: int = 1) -> Array:
    """2 sum |i c_i x^(i-1)|"""
    return 2 * polynomial(sizes(derivative(hermite(d))), abs(x))


hermite_act_1, hermite_act_1_scale = hermite_act, hermite_act_scale  # d = 1 where there is no parameter
hermite_act_1_backward, hermite_act_1_backward_scale = hermite_act_backward, hermite_act_backward_scale


@forward
def poly_relu(x: Array, w: Array, b: Array) -> Array:
    """w_0 r^3 + w_1 r^2 + w_2 r + b, r = max(x, 0)"""
    return polynomial([b, w[2], w[1], w[0]], x.clip(0))


@forward_scale
def poly_relu_scale(x: Array, w: Array, b: Array) -> Array:
    """|w_0| r^3 + |w_1| r^2 + |w_2| r + |b|"""
    return polynomial(sizes([b, w[2], w[1], w[0]]), x.clip(0))


@backward
def poly_relu_backward(x: Array, w: Array, b: Array) -> tuple[Array, ...]:
    """[x > 0] (3 w_0 r^2 + 2 w_1 r + w_2); r^3, r^2, r; 1"""
    r = x.clip(0)
    return step(x) * polynomial([w[2], 2 * w[1], 3 * w[0]], r), stack([r**3, r**2, r]), ones_like(r)[None]


@backward_scale
def poly_relu_backward_scale(x: Array, w: Array, b: Array) -> tuple[Array, ...]:
    """2 [x > 0] (3 |w_0| r^2 + 2 |w_1| r + |w_2|); the same"""
    r = x.clip(0)
    return 2 * step(x) * polynomial(sizes([w[2], 2 * w[1], 3 * w[0]]), r), stack([r**3, r**2, r]), ones_like(r)[None]


# Rational functions P / Q, P = sum a_i x^i, by the form of Q


def denominator(x: Array, b: Any, version: str) -> tuple[Array, Array, list[Array]]:
    """Q, dQ/dx and dQ/db_j: A is 1 + sum |b_j x^j|, B 1 + |sum b_j x^j|, C 0.1 + the same from j = 0, N 1 + sum b_j x^j."""
    start = 0 if version == "C" else 1
    if version == "A":
        q = [0, *sizes(b)]
        return (
            1 + polynomial(q, abs(x)),
            sign(x) * polynomial(derivative(q), abs(x)),
            [sign(each) * power for each, power in zip(b, powers(abs(x), start, len(b)), strict=True)],
        )
    q = [0] * start + list(b)
    s = polynomial(q, x)
    side = 1 if version == "N" else sign(s)
    one = 0.1 if version == "C" else 1
    return (
        one + (s if version == "N" else abs(s)),
        side * polynomial(derivative(q), x),
        [side * power for power in powers(x, start, len(b))],
    )


def rational_value(x: Array, a: Array, b: Array, version: str) -> Array:
    """P / Q"""
    return polynomial(a, x) / denominator(x, b, version)[0]


def rational_value_terms(x: Array, a: Array, b: Array, version: str) -> Array:
    """(sum |a_i x^i| + |P / Q| (1 + sum |b_j x^j|)) / |Q|: what rounding either sum does to the quotient"""
    q = abs(denominator(x, b, version)[0])
    p, most = polynomial(sizes(a), abs(x)), _most(x, b, version)
    return (p + abs(polynomial(a, x) / q) * most) / q


def _most(x: Array, b: Array, version: str) -> Array:
    """The sum of the sizes of Q's terms"""
    return 0.1 + polynomial(sizes(b), abs(x)) if version == "C" else polynomial([1, *sizes(b)], abs(x))


def rational_derivatives(x: Array, a: Array, b: Array, version: str) -> tuple[Array, list[Array], list[Array]]:
    """(P' - R Q') / Q; x^i / Q; -R dQ/db_j / Q, R = P / Q"""
    q, dq, by_b = denominator(x, b, version)
    r = polynomial(a, x) / q
    return (
        (polynomial(derivative(a), x) - r * dq) / q,
        [power / q for power in powers(x, 0, len(a))],
        [-r * each / q for each in by_b],
    )


def rational_derivative_terms(x: Array, a: Array, b: Array, version: str) -> tuple[Array, list[Array], list[Array]]:
    """The same from the sizes of all terms, times what Q loses where its own terms cancel"""
    q = abs(denominator(x, b, version)[0])
    loses = _most(x, b, version) / q
    r = rational_value_terms(x, a, b, version)
    start = 0 if version == "C" else 1
    terms = polynomial(sizes(derivative(a)), abs(x)) + r * polynomial(sizes(derivative([*[0] * start, *b])), abs(x))
    return (
        2 * terms / q * loses,
        [power / q * loses for power in powers(abs(x), 0, len(a))],
        [r * power / q * loses for power in powers(abs(x), start, len(b))],
    )


def _rational(version: str) -> tuple[Formula, Formula, Formula, Formula]:
    """The two oracles of a version and their scales."""

    def derivatives(formula: Formula) -> Formula:
        def of(x: Array, a: Array, b: Array) -> tuple[Array, Array, Array]:
            slope, by_a, by_b = formula(x, a, b, version)
            return slope, stack(by_a), stack(by_b)

        return of

    return (
        forward(lambda x, a, b: rational_value(x, a, b, version)),
        forward_scale(lambda x, a, b: rational_value_terms(x, a, b, version)),
        backward(derivatives(rational_derivatives)),
        backward_scale(derivatives(rational_derivative_terms)),
    )


rational, rational_scale, rational_backward, rational_backward_scale = _rational("A")
rational_b, rational_b_scale, rational_b_backward, rational_b_backward_scale = _rational("B")
rational_c, rational_c_scale, rational_c_backward, rational_c_backward_scale = _rational("C")
rational_n, rational_n_scale, rational_n_backward, rational_n_backward_scale = _rational("N")


def grouped(x: Array, a: Array, b: Array) -> tuple[list[Array], list[Array]]:
    """Version A's coefficients for each column of x: those of P are common, those of Q belong to a group of columns."""
    columns = [column * len(b) // x.shape[-1] for column in range(x.shape[-1])]
    return list(a[0]), [each[columns] for each in b.T]


def by_group(terms: Array, groups: int) -> Array:
    """Sums over the rows and over each group's columns: (groups,)"""
    return terms.reshape(-1, groups, terms.shape[-1] // groups).sum((0, 2))


@quiet
def rational_group(x: Array, a: Array, b: Array) -> tuple[Array]:
    """Version A with a denominator for each group of columns"""
    return (rational_value(limited(x), *grouped(x, a, b), "A"),)


@quiet
def rational_group_scale(x: Array, a: Array, b: Array, y: Array) -> tuple[Array]:
    return (rational_value_terms(limited(x), *grouped(x, a, b), "A"),)


def _grouped_sums(dy: Array, by_a: list[Array], by_b: list[Array], groups: int) -> tuple[Array, Array]:
    return stack([(dy * each).sum() for each in by_a])[None], stack([by_group(dy * each, groups) for each in by_b]).T


@quiet
def rational_group_backward(x: Array, dy: Array, a: Array, b: Array) -> tuple[Array, ...]:
    slope, by_a, by_b = rational_derivatives(limited(x), *grouped(x, a, b), "A")
    return (dy * slope, *_grouped_sums(dy, by_a, by_b, len(b)))


@quiet
def rational_group_backward_scale(x: Array, dy: Array, a: Array, b: Array, *outputs: Array) -> tuple[Array, ...]:
    terms, by_a, by_b = rational_derivative_terms(limited(x), *grouped(x, a, b), "A")
    dx = np.maximum(abs(outputs[0]), abs(dy) * terms / 2)
    return (dx, *(TERMS * each for each in _grouped_sums(abs(dy), by_a, by_b, len(b))))


# The same from PyTorch, rounded once to the output's dtype.


def unavailable(implementation: Implementation, target: str) -> str | None:
    return probe.missing("torch") or (probe.torch_without_cuda() if target.startswith("cuda") else None)


def bind_to(oracles: Mapping[str, Any]) -> Callable[..., Callable[[], None]]:
    """``bind`` of a family whose oracles those are, for NumPy's arrays as for torch's."""

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

        card = implementation.operator.passes[pass_]
        oracle = oracles[card.oracle]
        there = target != "cpu"
        if not there:
            axes, _ = arrays.check(implementation, pass_, inputs, outputs)

        def wide(argument: Argument, array: Any) -> Any:
            return (
                array.double() if there else torch.from_numpy(array.astype(np.float64, order="C").reshape(argument.shape(axes)))
            )

        @quiet
        def run() -> None:
            found = oracle(*map(wide, card.inputs, inputs), **(params or {}))
            for output, result in zip(outputs, found, strict=True):
                if there:
                    output.copy_(result)
                else:
                    np.copyto(output, result.numpy().reshape(output.shape), casting="unsafe")

        return run

    return bind


bind = bind_to(globals())

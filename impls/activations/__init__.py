"""Activations of one number: the baselines, and the papers' proposals, some with learned parameters. Forward and backward.

An array of any shape is its ``n`` elements. An operator's card is one call of ``activation``; its truth stands in
``reference.py`` under the same name, and each backend adds a line of arithmetic to what all activations share there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from ..card import CPU_AND_GPU, ISAS, PASSES, ROW, at_least, gradients, learned, on_gpu, per_element, torch_peers, within
from ..registry import Argument, Axes, Implementation, Operator, Pass

FLAT = ("n",)

# Beyond the gate an implementation is wrong rather than poor. PyTorch's composites round every step to 16 bits, also those
# of which a learned parameter's gradient is the sum, in float32.
GATE = {"float32": 4096.0, "float16": 512.0, "bfloat16": 512.0}
LOST_TAIL = GATE | {"float32": 2.0**20}  # of formulas that compute 1 + erf or 1 + tanh, which leave no digit of the tail
ROUNDED_TERMS = GATE | {"float16": 8192.0, "bfloat16": 8192.0}
STRESS = ("normal", "normal-0.1", "normal-10", "log-uniform", "points", "limits", "nan", "denormal", "signed-zeros", "largest")
QUICK: tuple[tuple[Axes, str, str], ...] = (
    ({"n": 1 << 16}, "float32", "forward"),
    ({"n": 1 << 23}, "float32", "forward"),
    ({"n": 1 << 16}, "float32", "backward"),
    ({"n": 1 << 16}, "bfloat16", "forward"),
    ({"n": 1 << 23}, "float32", "backward"),
)


# What of C++ exceeds 2 ULP forward, by the walk of all inputs (docs/accuracy.md).
WALKED = {"tanh": 3}


def _cpp(name: str) -> tuple[Implementation, ...]:
    bound = within(WALKED.get(name, 2), passes=("forward",)) | within(4, passes=("backward",))
    return (Implementation("simd", "sweep", passes=PASSES, isas=ISAS, threaded=True, bound=bound, note="one sweep"),)


def _triton(name: str) -> tuple[Implementation, ...]:
    return on_gpu("triton", "one read of each input; parameters' gradients are sums of tiles, added in a fixed order")


XNNPACK = Implementation(
    "peer", "xnnpack", "peers", dtypes=("float32",), vouched=False, note="Debian's of 2022, for whole rows"
)


def _cuda(name: str) -> tuple[Implementation, ...]:
    return on_gpu("cuda", "one read of each input, 16 bytes a thread; parameters' gradients are summed without atomics")


def activation(
    name: str,
    summary: str,
    formula: str,
    source: str,
    *,
    flops: tuple[int, int],
    exps: int = 0,
    parameters: tuple[Argument, ...] = (),
    params: Mapping[str, Any] | None = None,
    illegal: Callable[[Mapping[str, Any]], str | None] | None = None,
    gate: Mapping[str, float] = GATE,
    cancels: bool = False,
    oracle: str = "",
    axes: tuple[str, ...] = FLAT,
    stress: tuple[str, ...] = STRESS,
    priority: tuple[tuple[Axes, str, str], ...] = QUICK,
    limits: Callable[[str, Axes, str], str | None] | None = None,
    peers: tuple[Implementation, ...] = (),
    nan_policy: str = "NaN gives NaN, in both passes",
    valid_range: str = "every input; infinities give the limits",
) -> Operator:
    """An operator and its two passes. ``flops`` (forward, backward) and ``exps`` are per element; an erf or a tanh counts as
    one exponential. ``cancels``: the output has zeros of its own, beside which the card's scale is the unit of error."""
    x, y, dx = (Argument(each, axes) for each in ("x", "y", "dx"))
    # Gradients of at most 1, so that a subnormal derivative gives a subnormal result, which may be flushed to 0.
    dy = Argument("dy", axes, draw="clipped")
    implementations = (
        Implementation(
            "reference", "float64", passes=PASSES, targets=CPU_AND_GPU, bound=within(1, 0.51), note="PyTorch in float64"
        ),
        Implementation("numpy", "direct", passes=PASSES, slow=True, bound=within(1), note="float64 in blocks, rounded once"),
        *_cpp(name),
        *_triton(name),
        *_cuda(name),
        *torch_peers(),
        *peers,
    )
    return Operator(
        name=name,
        summary=summary,
        formula=formula,
        source=source,
        passes={
            "forward": Pass(
                (x, *parameters),
                (y,),
                oracle or name,
                gate,
                per_element(flops[0]),
                per_element(exps),
                scale=f"{oracle or name}_scale" if cancels else None,
            ),
            "backward": Pass(
                (x, dy, *parameters),
                (dx, *gradients(parameters)),
                f"{oracle or name}_backward",
                gate,
                per_element(flops[1]),
                per_element(exps),
                scale=f"{oracle or name}_backward_scale",
            ),
        },
        params=params or {},
        illegal=illegal,
        nan_policy=nan_policy,
        valid_range=valid_range,
        variants=tuple(replace(each, limits=limits or each.limits) for each in implementations),
        priority=priority,
        stress=stress,
        elementwise=True,
    )


def _kat(variant: str, note: str) -> Implementation:
    """A function that KAT has under this name, and that is another one: a row of the stability map."""
    return Implementation("peer", variant, "kat", dtypes=("float32",), vouched=False, note=note)


KAT_TORCH = _kat("kat-torch", "KAT's code for the CPU: 1 + sum |b_j| x^j below, wrong where x < 0")

KINK = "NaN gives NaN; as in PyTorch, the gradient passes where x is NaN"
ANY_THRESHOLD = at_least(t=float("-inf"))
EPS = learned("eps", 1, values=(0.01,))

RELU = activation(
    "relu",
    "zero in place of negative numbers",
    "y = max(x, 0); dy/dx = 1 where x > 0, else 0",
    "Nair and Hinton, ICML 2010",
    flops=(1, 2),
    nan_policy=KINK,
    peers=(XNNPACK,),
)
GELU = activation(
    "gelu",
    "x times the probability that a normal variable is below it",
    "y = x Phi(x) = x erfc(-x / sqrt 2) / 2; dy/dx = Phi(x) + x phi(x)",
    "arXiv 1606.08415",
    flops=(3, 7),
    exps=1,
    gate=LOST_TAIL,
    peers=(_kat("kat-kernels", "KAT's kernels: coefficients fit for 1 + |sum b_j x^j| below, in 1 + sum |b_j x^j|"), KAT_TORCH),
)
SILU = activation(
    "silu",
    "x times its sigmoid",
    "y = x s, s = 1 / (1 + exp(-x)); dy/dx = s (1 + x (1 - s))",
    "arXiv 1606.08415, arXiv 1710.05941",
    flops=(2, 6),
    exps=1,
)
CRRELU = activation(
    "crrelu",
    "relu with a learned Gaussian correction",
    "y = max(x, 0) + eps x exp(-x^2 / 2); dy/dx = [x > 0] + eps (1 - x^2) exp(-x^2 / 2); deps = sum dy x exp(-x^2 / 2)",
    "arXiv 2405.12954",
    flops=(6, 10),
    exps=1,
    parameters=(EPS,),
    gate=ROUNDED_TERMS,
)

RELU2 = activation(
    "relu2",
    "the rectifier, squared",
    "y = max(x, 0)^2; dy/dx = 2 max(x, 0)",
    "arXiv 2109.08668; arXiv 2503.12167",
    flops=(2, 3),
)
FATRELU = activation(
    "fatrelu",
    "zero in place of numbers below a threshold",
    "y = x where x >= t, else 0; dy/dx = 1 where x >= t, else 0",
    "arXiv 2402.13516",
    flops=(1, 2),
    params={"t": 0.01},
    illegal=ANY_THRESHOLD,
    nan_policy=KINK,
)
GELU_TANH = activation(
    "gelu_tanh",
    "gelu's approximation by a tanh",
    "y = x (1 + tanh u) / 2, u = sqrt(2 / pi) (x + 0.044715 x^3); dy/dx = (1 + tanh u) / 2 + x (1 - tanh^2 u) u' / 2",
    "arXiv 1606.08415",
    flops=(8, 16),
    exps=1,
    gate=LOST_TAIL,
)
SIGMOID = activation(
    "sigmoid",
    "the logistic function",
    "y = 1 / (1 + exp(-x)); dy/dx = y (1 - y)",
    "Verhulst 1838",
    flops=(1, 4),
    exps=1,
    peers=(XNNPACK,),
)
SOFTPLUS = activation(
    "softplus",
    "a smooth relu",
    "y = log(1 + exp(x)); dy/dx = 1 / (1 + exp(-x))",
    "Dugas et al., NIPS 2000",
    flops=(3, 2),
    exps=1,
)
TANH = activation("tanh", "the hyperbolic tangent", "y = tanh x; dy/dx = 1 - y^2", "Riccati 1757", flops=(2, 4), exps=1)
EXP = activation(
    "exp",
    "the exponential",
    "y = exp x; dy/dx = y",
    "the ceiling of what follows from it",
    flops=(0, 1),
    exps=1,
    oracle="exponential",
)
HERMITE_ACT = activation(
    "hermite_act",
    "the activation of an optimal infinitely deep network on data of dimension d >= 2",
    "y = 2^(-d/4) (x^3 - 3 x) / sqrt 6 + sqrt(1 - 2 2^(-d/2)) (x^2 - 1) / sqrt 2 + 2^(-d/4) x",
    "arXiv 2204.14126",
    flops=(6, 5),
    params={"d": 3},
    illegal=at_least(d=2),
    cancels=True,
)
HERMITE_ACT_1 = activation(
    "hermite_act_1",
    "the same for data of dimension 1",
    "y = (x^7 - 21 x^5 + 105 x^3 - 105 x) / (12 sqrt 70) + x / sqrt 2",
    "arXiv 2204.14126",
    flops=(8, 9),
    cancels=True,
)
POLY_RELU = activation(
    "poly_relu",
    "a learned cubic of the rectifier",
    "y = w_0 r^3 + w_1 r^2 + w_2 r + b, r = max(x, 0); dw_i = sum dy r^(3-i); db = sum dy",
    "arXiv 2411.03884",
    flops=(7, 16),
    # The paper begins with 1/3 each; different ones, of either sign, tell whether they are mixed up.
    gate=ROUNDED_TERMS,
    parameters=(learned("w", 3, values=(0.25, -0.5, 0.75)), learned("b", 1, values=(0.125,))),
    cancels=True,
)

# Fits to gelu on [-3, 3], of the authors' own code, whose default has a pole at -3.0015 in version N.
RATIONAL_A = (
    (-0.00124236, 0.50804971, 0.41586363, 0.13022719, 0.02435590, 0.00290284),
    (-0.06675016, 0.17927646, 0.03746683, 1.66e-10),
)
RATIONAL_B = (
    (-0.00042211, 0.49999956, 0.40270535, 0.07366977, -0.01295479, -0.00374140),
    (4.96e-5, 0.14729774, 1.16e-5, -0.00748387),
)
RATIONAL_N = (
    (-0.00108088, 0.50251617, 0.62833363, 0.29737209, 0.06322520, 0.00509702),
    (0.44045431, 0.24638482, 0.08444751, 0.00475404),
)


def rational(name: str, denominator: str, a: tuple[float, ...], b: tuple[float, ...]) -> Operator:
    return activation(
        name,
        "a learned quotient of polynomials",
        f"y = P / Q, P = sum a_i x^i, Q = {denominator}; da_i = sum dy x^i / Q, db_j = -sum dy P / Q^2 dQ/db_j",
        "arXiv 1907.06732; arXiv 2405.18203",
        flops=(20, 55),
        parameters=(learned("a", 6, values=a), learned("b", len(b), values=b)),
        gate=ROUNDED_TERMS,
        cancels=True,
        valid_range="every input; beside a pole of P / Q the unit of error grows with what Q loses",
    )


RATIONALS = (
    rational("rational", "1 + sum |b_j x^j|", *RATIONAL_A),
    rational("rational_b", "1 + |sum b_j x^j|", *RATIONAL_B),
    rational("rational_c", "0.1 + |sum b_j x^j|, j from 0", RATIONAL_B[0], (0.9, *RATIONAL_B[1])),
    rational("rational_n", "1 + sum b_j x^j", *RATIONAL_N),
)


def whole_groups(pass_: str, axes: Axes, dtype: str) -> str | None:
    return f"takes rows of a multiple of 8 elements, not {axes['n']}" if axes["n"] % 8 else None


RATIONAL_GROUP = activation(
    "rational_group",
    "a learned quotient of polynomials, its denominator learned for each eighth of the columns",
    "y = P / Q, P = sum a_i x^i, Q = 1 + sum |b_gj x^j|, g the group of the column",
    "arXiv 2409.10594; arXiv 2505.13813",
    flops=(20, 55),
    gate=ROUNDED_TERMS,
    parameters=(
        learned("a", 1, 6, values=RATIONAL_A[0]),
        learned("b", 8, 4, values=tuple(each * (1 + group / 16) for group in range(8) for each in RATIONAL_A[1])),
    ),
    cancels=True,
    axes=ROW,
    stress=("normal", "normal-10", "log-uniform", "points", "limits", "nan"),
    priority=tuple(({"rows": axes["n"] // 1024, "n": 1024}, dtype, pass_) for axes, dtype, pass_ in QUICK),
    limits=whole_groups,
    peers=(KAT_TORCH,),
)

OPERATORS = (
    *(RELU, RELU2, FATRELU, GELU, GELU_TANH, SILU, SIGMOID, SOFTPLUS, TANH, EXP, HERMITE_ACT, HERMITE_ACT_1, CRRELU),
    *(POLY_RELU, *RATIONALS, RATIONAL_GROUP),
)

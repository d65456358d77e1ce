"""Activations of one number: the baselines, and the papers' proposals, some with learned parameters. Forward and backward.

An array of any shape is its ``n`` elements. An operator's card is one call of ``activation``; its truth stands in
``reference.py`` under the same name, and each backend adds a line of arithmetic to what all activations share there.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..card import CPU_AND_GPU, PASSES, gradients, learned, per_element, within
from ..registry import Argument, Axes, Implementation, Operator, Pass

FLAT = ("n",)
X, Y, DX = (Argument(name, FLAT) for name in ("x", "y", "dx"))
# Gradients of at most 1, so that a subnormal derivative gives a subnormal result, which may be flushed to 0.
DY = Argument("dy", FLAT, draw="clipped")

# Beyond the gate an implementation is wrong rather than poor. PyTorch's composites round every step to 16 bits.
GATE = {"float32": 4096.0, "float16": 512.0, "bfloat16": 512.0}
LOST_TAIL = GATE | {"float32": 2.0**20}  # of formulas that compute 1 + erf or 1 + tanh, which leave no digit of the tail
STRESS = ("normal", "normal-0.1", "normal-10", "log-uniform", "points", "limits", "nan", "denormal", "signed-zeros", "largest")
QUICK: tuple[tuple[Axes, str, str], ...] = (
    ({"n": 1 << 24}, "float32", "forward"),
    ({"n": 1 << 16}, "float32", "forward"),
    ({"n": 1 << 24}, "float32", "backward"),
    ({"n": 1 << 24}, "bfloat16", "forward"),
    ({"n": 1 << 16}, "float32", "backward"),
    ({"n": 1000}, "float32", "forward"),
)


def _simd(name: str) -> tuple[Implementation, ...]:
    return ()


def _triton(name: str) -> tuple[Implementation, ...]:
    return ()


def _cuda(name: str) -> tuple[Implementation, ...]:
    return ()


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
    gate: Mapping[str, float] = GATE,
    cancels: bool = False,
    nan_policy: str = "NaN gives NaN, in both passes",
    valid_range: str = "every input; infinities give the limits",
) -> Operator:
    """An operator and its two passes. ``flops`` (forward, backward) and ``exps`` are per element; an erf or a tanh counts as
    one exponential. ``cancels``: the output has zeros of its own, beside which the card's scale is the unit of error."""
    return Operator(
        name=name,
        summary=summary,
        formula=formula,
        source=source,
        passes={
            "forward": Pass(
                (X, *parameters),
                (Y,),
                name,
                gate,
                per_element(flops[0]),
                per_element(exps),
                scale=f"{name}_scale" if cancels else None,
            ),
            "backward": Pass(
                (X, DY, *parameters),
                (DX, *gradients(parameters)),
                f"{name}_backward",
                gate,
                per_element(flops[1]),
                per_element(exps),
                scale=f"{name}_backward_scale",
            ),
        },
        params=params or {},
        nan_policy=nan_policy,
        valid_range=valid_range,
        variants=(
            Implementation(
                "reference", "float64", passes=PASSES, targets=CPU_AND_GPU, bound=within(1, 0.51), note="PyTorch in float64"
            ),
            Implementation("numpy", "direct", passes=PASSES, bound=within(1.5), note="float64 in blocks, rounded once"),
            *_simd(name),
            *_triton(name),
            *_cuda(name),
        ),
        priority=QUICK,
        stress=STRESS,
    )


KINK = "NaN gives NaN; as in PyTorch, the gradient passes where x is NaN"
EPS = learned("eps", 1, values=(0.01,))

RELU = activation(
    "relu",
    "zero in place of negative numbers",
    "y = max(x, 0); dy/dx = 1 where x > 0, else 0",
    "Nair and Hinton, ICML 2010",
    flops=(1, 2),
    nan_policy=KINK,
)
GELU = activation(
    "gelu",
    "x times the probability that a normal variable is below it",
    "y = x Phi(x) = x erfc(-x / sqrt 2) / 2; dy/dx = Phi(x) + x phi(x)",
    "arXiv 1606.08415",
    flops=(3, 7),
    exps=1,
    gate=LOST_TAIL,
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
)

OPERATORS = (RELU, GELU, SILU, CRRELU)

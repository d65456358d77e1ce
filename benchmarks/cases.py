"""The sweep of each operator, as data. ASV parameters come from here, never from what a commit has installed: ASV
addresses parameters by their place in the list, so lists are only ever appended to.

An operator's line gives the implementations that ASV and pytest-benchmark follow, and its shapes, by (axis, value).
A test checks that this table and the cards agree.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Case:
    """``implementations`` by backend/variant, ``shapes`` as labels such as ``1x65536``, axes in the card's order.

    ``full`` are the shapes that only the full preset adds.
    """

    implementations: tuple[str, ...]
    shapes: tuple[str, ...] = ("1x1024", "1x65536", "1x1048576", "1x16777216", "4096x1024")
    axes: tuple[str, ...] = ("rows", "n")
    dtypes: tuple[str, ...] = ("float32", "bfloat16")
    passes: tuple[str, ...] = ("forward", "backward")
    full: tuple[str, ...] = (
        *(f"1x{1 << power}" for power in range(4, 27)),
        *(f"{1 << 22 >> power}x{1 << power}" for power in range(5, 19)),
    )

    def axes_of(self, shape: str) -> Mapping[str, int]:
        """Axis values of a shape label: ``4096x1024`` is 4096 rows of 1024."""
        return dict(zip(self.axes, map(int, shape.split("x")), strict=True))

    def targets(self, implementation: str) -> tuple[str, ...]:
        """Where a followed implementation is timed: peers and PyTorch on both, GPU backends on a GPU alone."""
        backend = implementation.partition("/")[0]
        return {"triton": ("cuda:0",), "cuda": ("cuda:0",), "peer": ("cpu", "cuda:0")}.get(backend, ("cpu",))


FAMILY = ("numpy/three-pass", "simd/auto", "peer/torch-eager", "triton/fused", "cuda/block-per-row")

ACTIVATION = Case(
    ("numpy/direct", "peer/torch-eager", "triton/fused", "cuda/fused", "simd/sweep"),
    ("65536", "8388608"),
    ("n",),
    full=tuple(str(1 << power) for power in range(4, 27)),
)
ROWS = Case(ACTIVATION.implementations, ("16x4096", "1024x8192"), full=("65536x256", "512x32768", "2048x11008"))
BY_ROWS = replace(ROWS, implementations=("numpy/by-rows", "peer/torch-eager", "triton/fused", "cuda/fused", "simd/by-rows"))
TOPK = replace(
    ROWS,
    implementations=("numpy/partition", "peer/torch-eager", "simd/select", "triton/bisection", "cuda/radix-select"),
    shapes=("16x3072", "64x11008"),
)

CASES: Mapping[str, Case] = {
    "softmax": Case(("simd/two-pass", "simd/three-pass-reload", "simd/three-pass-recompute", *FAMILY)),
    "log_softmax": Case(FAMILY),
    "logsumexp": Case(FAMILY),
    "relu": ACTIVATION,
    "gelu": ACTIVATION,
    "silu": ACTIVATION,
    "crrelu": ACTIVATION,
    "relu2": ACTIVATION,
    "fatrelu": ACTIVATION,
    "gelu_tanh": ACTIVATION,
    "sigmoid": ACTIVATION,
    "softplus": ACTIVATION,
    "tanh": ACTIVATION,
    "exp": ACTIVATION,
    "hermite_act": ACTIVATION,
    "hermite_act_1": ACTIVATION,
    "poly_relu": ACTIVATION,
    "rational": ACTIVATION,
    "rational_b": ACTIVATION,
    "rational_c": ACTIVATION,
    "rational_n": ACTIVATION,
    "rational_group": ROWS,
    "swiglu": ROWS,
    "geglu": ROWS,
    "reglu": ROWS,
    "fatrelu_and_mul": ROWS,
    "poly_norm": BY_ROWS,
    "topk_relu": TOPK,
    "bias_gelu": BY_ROWS,
    "bias_silu": BY_ROWS,
    "bias_relu2": BY_ROWS,
    "relu_zeros": BY_ROWS,
    "fatrelu_zeros": BY_ROWS,
    "topk_relu_approx": TOPK,
    "topk_relu_stat": replace(
        TOPK,
        implementations=("numpy/threshold", "peer/torch-eager", "simd/threshold", "triton/threshold", "cuda/threshold"),
    ),
}

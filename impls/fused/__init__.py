"""An activation fused with what stands beside it: the bias before it, or the count of the zeros that it makes.

The count of zeros of each column tells dead neurons (arXiv 2212.06145) without a second pass over the values.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..card import CPU_AND_GPU, ISAS, PASSES, ROW, at_least, on_gpu, per_element, torch_peers, within
from ..registry import Argument, Implementation, Operator, Pass

X, Y, DX = (Argument(name, ROW) for name in ("x", "y", "dx"))
DY = Argument("dy", ROW, draw="clipped")
BIAS, DBIAS = (Argument(name, ("n",), "float32", "parameter") for name in ("bias", "dbias"))
ZEROS = Argument("zeros", ("n",), "int64")
LIMIT = {"float32": 4096.0, "float16": 2.0**17, "bfloat16": 2.0**17}  # peers round the sum, and what dbias sums, to 16 bits
LOST_TAIL = LIMIT | {"float32": 2.0**20}
STRESS = ("normal", "normal-10", "log-uniform", "points", "limits", "nan", "largest")
LARGE, SMALL = {"rows": 1024, "n": 8192}, {"rows": 16, "n": 4096}
PRIORITY = (
    (SMALL, "float32", "forward"),
    (LARGE, "float32", "forward"),
    (SMALL, "float32", "backward"),
    (SMALL, "bfloat16", "forward"),
)


def _cpp(name: str) -> tuple[Implementation, ...]:
    # dbias is float32 in 16 bits too, and a sum of terms each of which has an error of its own.
    summed = 1 if name.startswith("bias_") else 0.51
    forward = 2.2 if name == "bias_gelu" else 2  # as gelu's own
    bound = within(forward, passes=("forward",)) | within(4, summed, passes=("backward",))
    note = "32 rows at a time"
    return (Implementation("simd", "by-rows", passes=PASSES, isas=ISAS, threaded=True, bound=bound, note=note),)


def _triton(name: str) -> tuple[Implementation, ...]:
    return on_gpu("triton", "one read of each input; columns are summed without atomics")


def _cuda(name: str) -> tuple[Implementation, ...]:
    return on_gpu("cuda", "one read of each input; columns are summed without atomics")


def fused(
    name: str, summary: str, formula: str, source: str, passes: Mapping[str, Pass], params: Mapping[str, Any] | None = None
) -> Operator:
    return Operator(
        name=name,
        summary=summary,
        formula=formula,
        source=source,
        passes=passes,
        params=params or {},
        illegal=at_least(t=float("-inf")) if params else None,
        nan_policy="as the activation's; a NaN is no zero",
        valid_range="every x; infinities give the limits",
        variants=(
            Implementation(
                "reference", "float64", passes=PASSES, targets=CPU_AND_GPU, bound=within(1, 0.51), note="PyTorch in float64"
            ),
            Implementation(
                "numpy", "by-rows", passes=PASSES, slow=True, bound=within(1), note="some rows at a time, rounded once"
            ),
            *_cpp(name),
            *_triton(name),
            *_cuda(name),
            *torch_peers(),
        ),
        priority=PRIORITY,
        stress=STRESS,
        elementwise=True,
    )


def with_bias(activation: str, flops: tuple[int, int], exps: int, gate: Mapping[str, float] = LIMIT) -> Operator:
    name = f"bias_{activation}"
    cost = per_element(exps)
    backward = (X, DY, BIAS), (DX, DBIAS), f"{name}_backward", gate, per_element(flops[1]), cost, f"{name}_backward_scale"
    return fused(
        name,
        f"{activation} of a sum with a bias of each column",
        f"y = {activation}(z), z = x + bias rounded to float32; dx = dy {activation}'(z), dbias = sum of dx over the rows",
        "the epilogue of a feed-forward layer's first product",
        {
            "forward": Pass((X, BIAS), (Y,), name, gate, per_element(flops[0]), cost),
            "backward": Pass(*backward),
        },
    )


def with_zeros(activation: str, params: Mapping[str, Any] | None = None) -> Operator:
    name = f"{activation}_zeros"
    return fused(
        name,
        f"{activation}, and the count of each column's zeros",
        f"y = {activation}(x); zeros_j = how many y_ij are 0 or -0; dx = dy {activation}'(x)",
        "arXiv 2212.06145",
        {
            "forward": Pass((X,), (Y, ZEROS), name, LIMIT, per_element(3), per_element(0)),
            "backward": Pass((X, DY), (DX,), f"{name}_backward", LIMIT, per_element(2), per_element(0)),
        },
        params,
    )


OPERATORS = (
    with_bias("gelu", (4, 9), 1, LOST_TAIL),
    with_bias("silu", (3, 8), 1),
    with_bias("relu2", (3, 5), 0),
    with_zeros("relu"),
    with_zeros("fatrelu", {"t": 0.01}),
)

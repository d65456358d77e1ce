"""The k largest of a row's rectified values, the others 0. Source: arXiv 2210.06313 (The Lazy Neuron Phenomenon)."""

from __future__ import annotations

from dataclasses import replace

from ..card import CPU_AND_GPU, ISAS, PASSES, ROW, at_least, on_gpu, per_element, torch_peers, within
from ..registry import Argument, Axes, Implementation, Operator, Pass

X, Y, DY, DX = (Argument(name, ROW) for name in ("x", "y", "dy", "dx"))
# Peers may keep others among equals: off by all of an element, of which the bounds of ours allow nothing.
OTHERS = {"float32": 2.0**25, "float16": 2.0**12, "bfloat16": 2.0**9}
FFN, SMALL = {"rows": 64, "n": 11008}, {"rows": 16, "n": 3072}


def _cpp(name: str) -> tuple[Implementation, ...]:
    note = "candidates above a bound from a sample, then bisection on their bits"
    return (Implementation("simd", "select", passes=PASSES, isas=ISAS, threaded=True, bound=within(0, 0), note=note),)


def exact(implementations: tuple[Implementation, ...]) -> tuple[Implementation, ...]:
    return tuple(replace(each, bound=within(0, 0)) for each in implementations)


def held(pass_: str, axes: Axes, dtype: str) -> str | None:
    return f"takes rows of up to 32768 elements, not {axes['n']}" if axes["n"] > 32768 else None


def _triton(name: str) -> tuple[Implementation, ...]:
    return exact(on_gpu("triton", "bisection on the bits of a row held in registers", variant="bisection", limits=held))


def _cuda(name: str) -> tuple[Implementation, ...]:
    return exact(on_gpu("cuda", "a radix select by a block a row: any length", variant="radix-select"))


TOPK_RELU = Operator(
    name="topk_relu",
    summary="the k largest of a row's positive values, zero for the others",
    formula="y_i = max(x_i, 0) where x_i is among the row's k largest, else 0; dx_i = dy_i where moreover x_i > 0, else 0",
    source="arXiv 2210.06313",
    passes={
        "forward": Pass((X,), (Y,), "topk_relu", OTHERS, per_element(2), per_element(0), scale="topk_relu_scale"),
        "backward": Pass(
            (X, DY), (DX,), "topk_relu_backward", OTHERS, per_element(3), per_element(0), scale="topk_relu_backward_scale"
        ),
    },
    params={"k": 256},
    illegal=at_least(k=1),
    nan_policy="as in PyTorch, NaN is larger than infinity, so it is kept, and its gradient passes",
    valid_range="every input; among equal ones the first are kept; k of at least n keeps all",
    variants=(
        Implementation("reference", "float64", passes=PASSES, targets=CPU_AND_GPU, bound=within(0, 0), note="a stable sort"),
        Implementation(
            "numpy", "partition", passes=PASSES, slow=True, bound=within(0, 0), note="a selection of each row's k-th largest"
        ),
        *_cpp("topk_relu"),
        *_triton("topk_relu"),
        *_cuda("topk_relu"),
        *torch_peers(),
    ),
    priority=(
        (SMALL, "float32", "forward"),
        (FFN, "float32", "forward"),
        (FFN, "bfloat16", "forward"),
        (FFN, "float32", "backward"),
    ),
    # Ties: of all, of three values, of the few values that 16 bits have; fewer than k above 0; NaN and infinity.
    stress=("normal", "normal-0.1", "uniform-1000", "equal", "ramp-200", "largest", "limits", "points", "nan", "signed-zeros"),
)

OPERATORS = (TOPK_RELU,)

"""The k largest of a row's rectified values, the others 0: exactly, nearly, or by a threshold from the row's statistics.

Source: arXiv 2210.06313 (The Lazy Neuron Phenomenon); arXiv 2206.14286 (TPU-KNN); Spark Transformer, NeurIPS 2025.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from statistics import NormalDist
from typing import Any

from ..card import CPU_AND_GPU, ISAS, PASSES, ROW, at_least, on_gpu, per_element, torch_peers, within
from ..registry import Argument, Axes, Implementation, Operator, Pass

X, Y, DY, DX = (Argument(name, ROW) for name in ("x", "y", "dy", "dx"))
# Peers may keep others among equals: off by all of an element, of which the bounds of ours allow nothing.
OTHERS = {"float32": 2.0**25, "float16": 2.0**12, "bfloat16": 2.0**9}
FFN, SMALL = {"rows": 64, "n": 11008}, {"rows": 16, "n": 3072}


LEAST_BUCKETS = 64


def expected_recall(buckets: int, k: int) -> float:
    """The share of the k largest of a long row in random order that lead one of so many buckets; arXiv 2206.14286."""
    return buckets / k * (1 - (1 - 1 / buckets) ** k)


def buckets(k: int, n: int, recall: float) -> int:
    """The fewest buckets, a power of two from 64 on, with that expected recall; 0, for the exact k largest, where each of n
    elements would have its own, or all are kept."""
    count = LEAST_BUCKETS
    while count < n and expected_recall(count, k) < recall:
        count *= 2
    return count if count < n and k < n else 0


def deviations(k: int, n: int) -> float:
    """How many standard deviations above the mean k of n normal numbers are expected: Phi^-1(1 - k / n)."""
    return -NormalDist().inv_cdf(k / n) if k < n else float("-inf")


def held(pass_: str, axes: Axes, dtype: str) -> str | None:
    return f"takes rows of up to 32768 elements, not {axes['n']}" if axes["n"] > 32768 else None


Variants = Mapping[str, tuple[str, str]]

SELECT: Variants = {
    "numpy": ("partition", "a selection of each row's k-th largest"),
    "simd": ("select", "candidates above a bound from a sample, then bisection on their bits"),
    "triton": ("bisection", "bisection on the bits of a row held in registers"),
    "cuda": ("radix-select", "a radix select by a block a row: any length"),
}
LEADERS: Variants = {
    "numpy": ("partition", "each bucket's largest, then a selection of the k-th largest of these"),
    "simd": ("select", "each bucket's largest by vectors, then bisection on their bits"),
    "triton": ("bisection", "a row in registers is folded into buckets; then bisection on its bits"),
    "cuda": ("radix-select", "buckets in shared memory, then a radix select by a block a row"),
}
THRESHOLD: Variants = {
    "numpy": ("threshold", "float64, some rows at a time"),
    "simd": ("threshold", "the mean and then the deviations in double; the row is read three times, twice from cache"),
    "triton": ("threshold", "the mean and then the deviations in float64; the row is read three times, twice from cache"),
    "cuda": ("threshold", "a block a row, its mean and deviations in float64"),
}


def selection(
    name: str,
    summary: str,
    formula: str,
    source: str,
    variants: Variants,
    *,
    params: Mapping[str, Any],
    illegal: Callable[[Mapping[str, Any]], str | None],
    flops: int = 2,
    nan_policy: str = "as in PyTorch, NaN is larger than infinity, so it is kept, and its gradient passes",
    valid_range: str = "every input; among equal ones the first are kept; k of at least n keeps all",
) -> Operator:
    """An operator that keeps some of a row's positive values, and its two passes."""

    def ours(backend: str, **options: Any) -> Implementation:
        variant, note = variants[backend]
        return Implementation(backend, variant, passes=PASSES, bound=within(0, 0), note=note, **options)

    def gpu(backend: str, **options: Any) -> Implementation:
        variant, note = variants[backend]
        return replace(on_gpu(backend, note, variant, **options)[0], bound=within(0, 0))

    back = f"{name}_backward"
    return Operator(
        name=name,
        summary=summary,
        formula=formula,
        source=source,
        passes={
            "forward": Pass((X,), (Y,), name, OTHERS, per_element(flops), per_element(0), scale="kept_scale"),
            "backward": Pass((X, DY), (DX,), back, OTHERS, per_element(flops + 1), per_element(0), scale="kept_backward_scale"),
        },
        params=params,
        illegal=illegal,
        nan_policy=nan_policy,
        valid_range=valid_range,
        variants=(
            Implementation("reference", "float64", passes=PASSES, targets=CPU_AND_GPU, bound=within(0, 0), note="PyTorch"),
            ours("numpy", slow=True),
            ours("simd", isas=ISAS, threaded=True),
            gpu("triton", limits=None if variants is THRESHOLD else held),
            gpu("cuda"),
            *torch_peers(),
        ),
        priority=(
            (SMALL, "float32", "forward"),
            (FFN, "float32", "forward"),
            (FFN, "bfloat16", "forward"),
            (FFN, "float32", "backward"),
        ),
        # Ties: of all, of three values, of the few values that 16 bits have; fewer than k above 0; NaN and infinity. Rows that
        # are far from normal: ramps, one huge value.
        stress=(
            *("normal", "normal-0.1", "uniform-1000", "equal", "ramp-200", "largest", "limits", "points", "nan"),
            *("signed-zeros", "one-huge", "denormal"),
        ),
    )


def _recall(params: Mapping[str, Any]) -> str | None:
    recall = params["recall"]
    if isinstance(recall, bool) or not isinstance(recall, int | float) or not 0 < recall < 1:
        return f"recall is {recall!r}; it must be a number between 0 and 1"
    return at_least(k=1)(params)


TOPK_RELU = selection(
    "topk_relu",
    "the k largest of a row's positive values, zero for the others",
    "y_i = max(x_i, 0) where x_i is among the row's k largest, else 0; dx_i = dy_i where moreover x_i > 0, else 0",
    "arXiv 2210.06313",
    SELECT,
    params={"k": 256},
    illegal=at_least(k=1),
)

TOPK_RELU_APPROX = selection(
    "topk_relu_approx",
    "nearly the k largest of a row's positive values: the k largest among the leaders of buckets",
    "element i is in bucket i mod B; y_i = max(x_i, 0) where x_i, the first largest of its bucket, is among the k largest of "
    "these, else 0; dx_i = dy_i where moreover x_i > 0, else 0. B is the least power of two from 64 on with "
    "B / k (1 - (1 - 1 / B)^k) of at least the recall; from B = n on the result is exact",
    "arXiv 2206.14286, arXiv 2210.06313",
    LEADERS,
    params={"k": 256, "recall": 0.9},
    illegal=_recall,
    valid_range="every input; among equal ones the first are kept. Of the k largest of long rows in random order the share in "
    "the formula is kept, 0.94 with k = 256 and recall = 0.9; of rows whose largest are B apart, far fewer",
)

TOPK_RELU_STAT = selection(
    "topk_relu_stat",
    "a row's positive values from the threshold on that k of n normal numbers would reach",
    "y_i = max(x_i, 0) where x_i reaches t, else 0; dx_i = dy_i where moreover x_i > 0, else 0 (t counts as a constant); "
    "t = mean + std Phi^-1(1 - k / n) of the row's n values, std^2 = mean (x - mean)^2, in float64, rounded to float32 once",
    "Spark Transformer, NeurIPS 2025",
    THRESHOLD,
    params={"k": 256},
    illegal=at_least(k=1),
    flops=6,
    nan_policy="a row with NaN or infinity has no threshold: it is rectified only, NaN stays NaN and its gradient passes",
    valid_range="every input; how many are kept depends on the row: about k where it is normal, all where it is constant. "
    "float64 sums in another order move t by some 2^-50 of it, so that other elements are kept only where t is that near the "
    "middle between two float32 numbers",
)

OPERATORS = (TOPK_RELU, TOPK_RELU_APPROX, TOPK_RELU_STAT)

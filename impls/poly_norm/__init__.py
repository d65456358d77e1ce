"""PolyNorm: a learned sum of a row's powers, each divided by its root mean square. Source: arXiv 2411.03884 (PolyCom)."""

from __future__ import annotations

from ..card import CPU_AND_GPU, ISAS, PASSES, ROW, at_least, gradients, learned, on_gpu, per_element, torch_peers, within
from ..registry import Argument, Implementation, Operator, Pass

X, Y, DY, DX = (Argument(name, ROW) for name in ("x", "y", "dy", "dx"))
# The paper begins with 1/3 each and a bias of 0; different ones, of either sign, tell whether they are mixed up.
PARAMETERS = (learned("w", 3, values=(0.25, -0.5, 0.75)), learned("b", 1, values=(0.125,)))
GATE = {"float32": 4096.0, "float16": 8192.0, "bfloat16": 8192.0}  # peers form powers, and sum terms, in 16 bits
LARGE, SMALL, WIDE = {"rows": 1024, "n": 8192}, {"rows": 16, "n": 4096}, {"rows": 256, "n": 32768}


def _cpp(name: str) -> tuple[Implementation, ...]:
    note = "a row's moments in double while the one before is written, from cache"
    bound = within(2, passes=("forward",)) | within(3, passes=("backward",))
    return (Implementation("simd", "by-rows", passes=PASSES, isas=ISAS, threaded=True, bound=bound, note=note),)


def _triton(name: str) -> tuple[Implementation, ...]:
    return on_gpu("triton", "a program holds a row in registers, or reads it twice: any length")


def _cuda(name: str) -> tuple[Implementation, ...]:
    return on_gpu("cuda", "a block holds a row in registers, or reads it twice: any length")


POLY_NORM = Operator(
    name="poly_norm",
    summary="a learned sum of a row's cubes, squares and values, each of unit root mean square",
    formula="y = w_0 N(x^3) + w_1 N(x^2) + w_2 N(x) + b, N(u) = u / sqrt(mean u^2 + eps)",
    source="arXiv 2411.03884",
    passes={
        "forward": Pass((X, *PARAMETERS), (Y,), "poly_norm", GATE, per_element(16), per_element(0), scale="poly_norm_scale"),
        "backward": Pass(
            (X, DY, *PARAMETERS),
            (DX, *gradients(PARAMETERS)),
            "poly_norm_backward",
            GATE,
            per_element(40),
            per_element(0),
            scale="poly_norm_backward_scale",
        ),
    },
    params={"eps": 1e-6},
    illegal=at_least(eps=0.0),
    nan_policy="a NaN makes its row NaN",
    valid_range="rows whose mean sixth power is a float32 number: |x| up to 2.6e6; beyond it anything",
    variants=(
        Implementation(
            "reference", "float64", passes=PASSES, targets=CPU_AND_GPU, bound=within(1, 0.51), note="PyTorch in float64"
        ),
        Implementation(
            "numpy", "by-rows", passes=PASSES, slow=True, bound=within(1), note="float64, some rows at a time, rounded once"
        ),
        *_cpp("poly_norm"),
        *_triton("poly_norm"),
        *_cuda("poly_norm"),
        *torch_peers(),
    ),
    priority=(
        (SMALL, "float32", "forward"),
        (LARGE, "float32", "forward"),
        (SMALL, "float32", "backward"),
        (SMALL, "bfloat16", "forward"),
        (LARGE, "float32", "backward"),
        (WIDE, "bfloat16", "forward"),
    ),
    # Where eps counts, where sixth powers leave float16, one value that outweighs the rest, rows of zeros.
    stress=("normal", "normal-0.1", "normal-10", "normal-100", "uniform-1000", "one-huge", "nan", "denormal", "signed-zeros"),
    exhaustive=False,
)

OPERATORS = (POLY_NORM,)

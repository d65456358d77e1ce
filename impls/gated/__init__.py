"""Gated units: an activation of one half of a feed-forward layer's hidden values, times the other half.

``gate`` and ``up`` may be the halves of one packed (rows, 2 n) array: two views of it, whose rows are 2 n apart.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..card import CPU_AND_GPU, ISAS, PASSES, ROW, at_least, on_gpu, per_element, torch_peers, within
from ..registry import Argument, Implementation, Operator, Pass

GATE, Y, DGATE, DUP = (Argument(name, ROW) for name in ("gate", "y", "dgate", "dup"))
# Of at most 1, so that a subnormal factor gives a subnormal product, which may be flushed to 0.
UP, DY = (Argument(name, ROW, draw="clipped") for name in ("up", "dy"))
LIMIT = {"float32": 4096.0, "float16": 512.0, "bfloat16": 512.0}
LOST_TAIL = LIMIT | {"float32": 2.0**20}  # as of gelu
STRESS = ("normal", "normal-10", "log-uniform", "points", "limits", "nan", "denormal", "largest")
LARGE, SMALL = {"rows": 1024, "n": 8192}, {"rows": 16, "n": 4096}


def _cpp(name: str) -> tuple[Implementation, ...]:
    bound = within(3, passes=("forward",)) | within(4, passes=("backward",))
    return (Implementation("simd", "sweep", passes=PASSES, isas=ISAS, threaded=True, bound=bound, note="one sweep"),)


def _triton(name: str) -> tuple[Implementation, ...]:
    return on_gpu("triton", "one read of each input; the halves of a packed array are read where they are")


def _cuda(name: str) -> tuple[Implementation, ...]:
    return on_gpu("cuda", "one read of each input; the halves of a packed array are read where they are")


def gated(
    name: str,
    activation: str,
    source: str,
    *,
    flops: tuple[int, int],
    exps: int = 0,
    params: Mapping[str, Any] | None = None,
    gate: Mapping[str, float] = LIMIT,
) -> Operator:
    """``flops`` (forward, backward) and ``exps`` per element."""
    return Operator(
        name=name,
        summary=f"{activation} of a gate, times the value that it lets pass",
        formula=f"y = {activation}(gate) up; dgate = dy up {activation}'(gate), dup = dy {activation}(gate)",
        source=source,
        passes={
            "forward": Pass((GATE, UP), (Y,), name, gate, per_element(flops[0]), per_element(exps)),
            "backward": Pass(
                (GATE, UP, DY),
                (DGATE, DUP),
                f"{name}_backward",
                gate,
                per_element(flops[1]),
                per_element(exps),
                scale=f"{name}_backward_scale",
            ),
        },
        params=params or {},
        illegal=at_least(t=float("-inf")) if params else None,
        nan_policy=f"as {activation}'s, and a NaN in up or dy gives NaN",
        valid_range="every gate; infinities of it give the limits",
        variants=(
            Implementation(
                "reference", "float64", passes=PASSES, targets=CPU_AND_GPU, bound=within(1, 0.51), note="PyTorch in float64"
            ),
            Implementation(
                "numpy", "direct", passes=PASSES, slow=True, bound=within(1), note="float64 in blocks, rounded once"
            ),
            *_cpp(name),
            *_triton(name),
            *_cuda(name),
            *torch_peers(),
        ),
        priority=(
            (SMALL, "float32", "forward"),
            (LARGE, "float32", "forward"),
            (SMALL, "float32", "backward"),
            (SMALL, "bfloat16", "forward"),
            (LARGE, "float32", "backward"),
        ),
        stress=STRESS,
        elementwise=True,
    )


OPERATORS = (
    gated("swiglu", "silu", "arXiv 2002.05202", flops=(3, 9), exps=1),
    gated("geglu", "gelu", "arXiv 2002.05202", flops=(4, 10), exps=1, gate=LOST_TAIL),
    gated("reglu", "relu", "arXiv 2002.05202", flops=(2, 4)),
    gated("fatrelu_and_mul", "fatrelu", "arXiv 2402.13516", flops=(2, 4), params={"t": 0.01}),
)

"""What cards share: words for targets and passes, bounds, costs and learned parameters."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from .registry import Argument, Axes, Implementation

ROW = ("rows", "n")
PASSES = ("forward", "backward")
GPU = ("cuda",)
CPU_AND_GPU = ("cpu", "cuda")
TRITON = ("cuda", "interpreter")
ISAS = ("avx2", "avx512")


def within(float32: float, halves: float = 0.51, passes: tuple[str, ...] = PASSES) -> dict[tuple[str, str], float]:
    """The bound of an implementation: ULPs in float32, and in the two 16-bit types."""
    each = {"float32": float32, "float16": halves, "bfloat16": halves}
    return {(pass_, dtype): bound for pass_ in passes for dtype, bound in each.items()}


def per_element(count: int) -> Callable[[Axes], int]:
    """A cost of so many for each element of rows and n, or of n alone."""
    return lambda axes: count * axes.get("rows", 1) * axes["n"]


def at_least(**least: float) -> Callable[[Mapping[str, Any]], str | None]:
    """What is wrong with params that are less than that, or are no integers where that is one."""

    def illegal(params: Mapping[str, Any]) -> str | None:
        for name, low in least.items():
            value, whole = params[name], isinstance(low, int)
            if isinstance(value, bool) or not isinstance(value, int if whole else int | float) or not value >= low:
                return f"{name} is {value!r}; it must be {'an integer' if whole else 'a number'} of at least {low}"
        return None

    return illegal


def learned(name: str, *shape: int, values: tuple[float, ...]) -> Argument:
    """A learned parameter, float32 whatever the workload's dtype. ``values`` are what checks and measurements use."""
    return Argument(name, shape, "float32", "parameter", values=values)


def gradients(parameters: Iterable[Argument]) -> tuple[Argument, ...]:
    """Their gradients, as outputs of a backward pass: sums over all elements, in float32."""
    return tuple(Argument(f"d{each.name}", each.axes, "float32", "parameter") for each in parameters)


def torch_peers() -> tuple[Implementation, ...]:
    """PyTorch, eager and compiled: the family's ``peers`` module has the code."""
    return tuple(
        Implementation("peer", variant, "peers", PASSES, targets=CPU_AND_GPU, isas=ISAS, threaded=True, vouched=False)
        for variant in ("torch-eager", "torch-compile")
    )


def on_gpu(backend: str, note: str, variant: str = "fused", **options: Any) -> tuple[Implementation, ...]:
    """An activation of ours for a GPU."""
    targets = {"triton": TRITON, "cuda": GPU}[backend]
    return (Implementation(backend, variant, passes=PASSES, targets=targets, bound=within(4), note=note, **options),)

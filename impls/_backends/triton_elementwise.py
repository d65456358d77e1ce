"""Launches of the elementwise Triton kernels: the same for every activation. Imports Triton only to plan a launch.

A family hands over its module of jit functions, where an operator's value, slope and terms are found by name. Its module's
functions are made of its ``plan`` here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from . import elementwise
from . import triton as backend
from .elementwise import Operands
from .tensors import Memory
from .tensors import call as call
from .triton import Step
from .triton import unavailable as unavailable

if TYPE_CHECKING:
    from ..registry import Implementation

Values = tuple[Memory | int, ...]

TILE = {
    "float32": 2048,
    "float16": 4096,
    "bfloat16": 4096,
}  # elements of a program with 8 warps: two loads of 16 bytes a thread
INTERPRETED = 1 << 14  # of one that is interpreted, which takes 30 ms whatever it does
SUMMED = 2048  # of a program that sums the terms of parameters' gradients: more would not fit its registers
ROWS, COLUMNS = 32, 128  # of a program that sums columns, with 8 warps (with twice as many of both, a kernel spilled)
DEEP = 4096  # float64 numbers that `totals` adds at a time


def ceiling_power(n: int) -> int:
    """The smallest power of two that is at least n."""
    return 1 << (n - 1).bit_length()


def shaped(rows: int, n: int, most: int) -> tuple[dict[str, int], int, int]:
    """Constants of a tile of at most so many elements, tiles in a row of tiles, and tiles."""
    most = INTERPRETED if backend.interpreting() else most
    block = min(ceiling_power(n), most)
    height = min(ceiling_power(rows), max(1, most // block))
    across = -(-n // block)
    return {"ROWS": height, "BLOCK": block}, across, across * -(-rows // height)


def warps(sizes: dict[str, int]) -> int:
    return max(1, min(8, sizes["ROWS"] * sizes["BLOCK"] // 256))


def number(value: float, like: Memory, dtype: str = "float32") -> Memory:
    """A number where a kernel can read it."""
    if like.tensor is None:
        return Memory(dtype, (1,))
    import torch

    return Memory(dtype, (1,), torch.tensor([value], dtype=getattr(torch, dtype), device=like.tensor.device))


def found(functions: Any, name: str) -> Any:
    """A jit function of the family's module, or one that several families use."""
    from . import triton_elementwise_kernels as kernels

    return getattr(functions, name, None) or getattr(kernels, name)


def strides(given: Operands) -> list[int]:
    return [stride for each in (*given.inputs, *given.outputs) for stride in each.strides]


def mapped(functions: Any, name: str, pass_: str, given: Operands, counts: tuple[int, int, int] = (0, 0, 0)) -> list[Step]:
    """An elementwise pass of the operator whose functions are ``name``, ``name_slope`` and ``name_terms``; ``counts`` are the
    elements of two learned parameters, the second in each of so many groups of columns."""
    from . import triton_elementwise_kernels as kernels

    first, second, groups = counts
    n = given.n // max(1, groups)
    summing = pass_ == "backward" and first > 0
    sizes, across, tiles = shaped(given.rows, n, SUMMED if summing else TILE[given.dtype])
    grid = (tiles, max(1, groups))
    x = given.inputs[0]
    a, b = (*given.parameters, x, x)[:2]
    if pass_ == "forward":
        constants: dict[str, Any] = {"VALUE": found(functions, name), "BIASED": False, "ZEROS": False}
        values: Values = (x, given.outputs[0], a, b, x, x, given.rows, n, across, second, *strides(given))
        return [Step(kernels.forward, grid, values, constants | sizes, warps(sizes))]
    total = first + second
    constants = {"SLOPE": found(functions, f"{name}_slope"), "BIASED": False, "COUNT": total}
    constants["TERMS"] = found(functions, f"{name}_terms") if total else None
    count = tiles * grid[1]
    work = backend.scratch("float64", (total, count), x) if total else x
    values = (*given.inputs, given.outputs[0], a, b, x, work, given.rows, n, across, second, *strides(given))
    steps = [Step(kernels.backward, grid, values, constants | sizes, warps(sizes))]
    if total:
        steps.append(totals(work, 0, given.gradients[0], count, first, 1, count, 1, 1))
    if second:
        steps.append(totals(work, first * count, given.gradients[1], tiles, second * groups, 1, tiles, groups, second))
    return steps


def gated(functions: Any, name: str, pass_: str, given: Operands) -> list[Step]:
    """A gated pass."""
    from . import triton_elementwise_kernels as kernels

    sizes, across, tiles = shaped(given.rows, given.n, TILE[given.dtype])
    a = (*given.parameters, given.inputs[0])[0]
    values: Values = (*given.inputs, *given.outputs, a, given.rows, given.n, across, *strides(given))
    constants: dict[str, Any] = {"VALUE": found(functions, name)}
    if pass_ == "backward":
        constants["SLOPE"] = found(functions, f"{name}_slope")
    kernel = kernels.gated_forward if pass_ == "forward" else kernels.gated_backward
    return [Step(kernel, (tiles,), values, constants | sizes, warps(sizes))]


def summed(functions: Any, name: str, pass_: str, given: Operands, bias: Memory | None, total: Memory | None) -> list[Step]:
    """A pass over whole columns, with a bias or a count of zeros, and a sum of each column."""
    from . import triton_elementwise_kernels as kernels

    height, block = min(ROWS, ceiling_power(given.rows)), min(COLUMNS, ceiling_power(given.n))
    across, down = -(-given.n // block), -(-given.rows // height)
    sizes = {"ROWS": height, "BLOCK": block}
    x = given.inputs[0]
    a = (*given.parameters, x)[0] if bias is None else x
    work = backend.scratch("float64", (down, given.n), x) if total else x
    after: Values = (a, a, bias or x, work, given.rows, given.n, across, 0, *strides(given))
    if pass_ == "forward":
        constants: dict[str, Any] = {"VALUE": found(functions, name), "BIASED": bias is not None, "ZEROS": total is not None}
        kernel = kernels.forward
    else:
        constants = {"SLOPE": found(functions, f"{name}_slope"), "TERMS": None, "COUNT": 0, "BIASED": bias is not None}
        kernel = kernels.backward
    values: Values = (*given.inputs, *given.outputs, *after)
    steps = [Step(kernel, (across * down, 1), values, constants | sizes, warps(sizes))]
    if total:
        steps.append(totals(work, 0, total, down, given.n, given.n, 1, 1, 1))
    return steps


def totals(
    work: Memory, offset: int, out: Memory, count: int, width: int, down: int, across: int, groups: int, each: int
) -> Step:
    """Column c of ``width`` adds ``count`` numbers ``down`` apart, from work[offset + c * across] on."""
    from . import triton_elementwise_kernels as kernels

    if work.tensor is not None:
        work = Memory(work.dtype, work.strides, work.tensor.view(-1)[offset:])
    columns = 1 if down == 1 else min(64, ceiling_power(width))
    depth = max(1, min(ceiling_power(count), DEEP // columns))
    arguments = (work, out, count, width, down, across, groups, each)
    sizes = {"DEPTH": depth, "COLS": columns}
    return Step(kernels.totals, (-(-width // columns),), arguments, sizes, max(1, min(8, depth * columns // 128)))


def entry_points(
    plan: Callable[..., list[Step]], lengths: Sequence[int] = ()
) -> tuple[Callable[..., Callable[[], None]], Callable[..., list[dict[str, Any]]]]:
    """``bind`` and ``compiled`` of a family: ``plan(implementation, pass_, operands, params)`` gives the launches of a pass
    over non-empty matrices, which differ for rows of these ``lengths``."""

    def bind(
        implementation: Implementation,
        pass_: str,
        inputs: tuple[Any, ...],
        outputs: tuple[Any, ...],
        *,
        target: str,
        isa: str | None,
        threads: int,
        params: Mapping[str, Any],
    ) -> Callable[[], None]:
        """Check the arrays and plan the launches; see ``registry``. ``isa`` and ``threads`` are not used.

        Arrays are torch tensors on ``target``, or on target ``interpreter`` torch CPU tensors or NumPy arrays, of the card's
        shapes, float32, float16 or bfloat16; leading dimensions need a common stride. Parameters are contiguous float32.
        Raises ``TypeError`` or ``ValueError`` naming the argument.
        """
        given = elementwise.operands(implementation, pass_, inputs, outputs, target, params)
        return given.zero() if given.empty else backend.launcher(plan(implementation, pass_, given, params), target)

    def compiled(implementation: Implementation, pass_: str, dtype: str, arch: str) -> list[dict[str, Any]]:
        """Compile a pass for ``sm_80``, ``sm_90`` or ``sm_100`` without a GPU, for contiguous arrays of telling sizes.

        Returns a dict for each kernel: kernel, arch, dtype, constants, registers, shared_bytes, spills (bytes a thread),
        compile_seconds.
        """
        params = implementation.operator.params
        sizes: list[dict[str, int] | None] = [{"rows": 4096, "n": n} for n in lengths] or [None]
        given = [elementwise.aligned(implementation, pass_, dtype, axes) for axes in sizes]
        return [backend.compiled(step, arch) for each in given for step in plan(implementation, pass_, each, params)]

    return bind, compiled

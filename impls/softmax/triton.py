"""Triton launchers of the softmax family; the kernels and their numerics are in ``triton_kernels.py``.

``fused``: whole rows on chip, each element read once (T. Dao et al. call it the single-read softmax; Triton's tutorial 02).
``online``: a running (maximum, sum) over blocks and a second read, M. Milakov and N. Gimelshein, arXiv 1805.02867, alg. 3.
``two-pass``: (mantissa, exponent) sums without a maximum, M. Dukhan and A. Ablavatski, arXiv 2001.04438, alg. 3, a row split
over many programs; partial sums are added in a fixed order that depends on the row's length alone, without atomics.

Max 4 ULP in float32 and 0.51 ULP in float16 and bfloat16, for every input, in the units of the operator's card.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from .._backends import tensors
from .._backends import triton as backend
from .._backends.tensors import Memory
from .._backends.triton import Step
from ..registry import Axes, Implementation

unavailable = backend.unavailable
call = tensors.call


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
    """Check the arrays and plan the launches; see ``registry``. ``isa``, ``threads`` and ``params`` are not used.

    Arrays are torch tensors on ``target``, or on target ``interpreter`` torch CPU tensors or NumPy arrays, (..., n) with any
    strides, float32, float16 or bfloat16. Raises ``TypeError`` or ``ValueError`` naming the argument.
    """
    axes, _, memory = tensors.check(implementation, pass_, inputs, outputs, target)
    return backend.launcher(plan(implementation, pass_, axes, memory) if axes["rows"] else (), target)


SHAPES: Mapping[str, tuple[tuple[int, int], ...]] = {
    "fused": ((4096, 128), (4096, 1024), *((4096, 1 << log) for log in range(13, 19))),
    "online": ((4096, 1 << 18),),
    "two-pass": ((1, 1 << 26),),
}


def compiled(
    implementation: Implementation, pass_: str, dtype: str, arch: str, axes: Axes | None = None
) -> list[dict[str, Any]]:
    """Compile a pass for ``sm_80``, ``sm_90`` or ``sm_100`` without a GPU, for ``axes`` or for every kind of launch.

    Returns a dict for each kernel: kernel, arch, dtype, constants, registers, shared_bytes, spills (bytes a thread),
    compile_seconds. Raises ``ValueError`` for what the implementation or the compiler doesn't take.
    """
    if axes:
        if reason := implementation.refuses(pass_, axes, dtype):
            raise ValueError(f"{implementation.full_name}: {reason}")
        return [backend.compiled(step, arch) for step in aligned(implementation, pass_, dtype, axes)]
    found = []
    for rows, n in SHAPES[implementation.variant]:
        if not implementation.refuses(pass_, {"rows": rows, "n": n}, dtype):
            steps = aligned(implementation, pass_, dtype, {"rows": rows, "n": n})
            if all(step.num_ctas == 1 for step in steps) or not backend.no_clusters(arch):
                found += [backend.compiled(step, arch) for step in steps]
    return found


def aligned(implementation: Implementation, pass_: str, dtype: str, axes: Axes) -> list[Step]:
    """The plan for contiguous arrays that are not there, to compile."""
    card = implementation.operator.passes[pass_]
    memory = (Memory(dtype, (axes["n"], 1)[-len(argument.axes) :]) for argument in card.inputs + card.outputs)
    return plan(implementation, pass_, axes, tuple(memory))


def plan(implementation: Implementation, pass_: str, axes: Axes, memory: tuple[Memory, ...]) -> list[Step]:
    """The launches of a pass over non-empty arrays, in the card's order."""
    operator, variant = implementation.operator.name, implementation.variant
    rows, n = axes["rows"], axes["n"]
    planned: Callable[..., list[Step]]
    if pass_ == "forward":
        planned = {"fused": fused, "online": online, "two-pass": two_pass}[variant]
    elif operator == "logsumexp":
        planned = logsumexp_backward
    else:
        planned = {"fused": fused_backward, "online": online_backward}[variant]
    return planned(operator, rows, n, *memory)


def ceiling_power(n: int) -> int:
    """The smallest power of two that is at least n."""
    return 1 << (n - 1).bit_length()


# Warps and blocks (a cluster, from sm_90 up) that hold a row of so many elements in registers, without spills: a thread
# holds 32 elements of one input, or 16 of each of two, and two blocks of 16 warps share a multiprocessor.
FORWARD = {1 << 14: (16, 1), 1 << 15: (32, 1), 1 << 16: (16, 4), 1 << 17: (16, 8), 1 << 18: (32, 8)}
BACKWARD = {1 << 14: (32, 1), 1 << 15: (16, 4), 1 << 16: (16, 8), 1 << 17: (32, 8)}


def whole_rows(
    kernel: Any, rows: int, n: int, arguments: tuple[Memory | int, ...], longer: Mapping[int, tuple[int, int]], **constants: str
) -> list[Step]:
    """The launch of programs that hold whole rows: several short ones, or a long one over many warps."""
    block = ceiling_power(n)
    height = max(1, min(2048 // block, ceiling_power(rows)))
    num_warps, num_ctas = longer.get(block, (warps(height * block), 1))
    sizes = {"ROWS": height, "BLOCK": block}
    return [Step(kernel, (-(-rows // height),), arguments, constants | sizes, num_warps, num_ctas)]


def warps(elements: int) -> int:
    """Warps for 16 elements a thread."""
    return max(1, min(16, elements // 512))


def strides(*memory: Memory) -> tuple[int, ...]:
    return tuple(stride for each in memory for stride in (*each.strides, 0)[:2])


def fused(operator: str, rows: int, n: int, x: Memory, y: Memory) -> list[Step]:
    from . import triton_kernels as kernels

    return whole_rows(kernels.fused, rows, n, (x, y, rows, n, *strides(x, y)), FORWARD, OPERATOR=operator)


def online(operator: str, rows: int, n: int, x: Memory, y: Memory) -> list[Step]:
    from . import triton_kernels as kernels

    block = min(4096, ceiling_power(n))
    return [Step(kernels.online, (rows,), (x, y, n, *strides(x, y)), {"OPERATOR": operator, "BLOCK": block}, warps(block))]


def two_pass(operator: str, rows: int, n: int, x: Memory, y: Memory) -> list[Step]:
    from . import triton_kernels as kernels

    power = ceiling_power(n)
    block = min(2048, power)
    chunk = max(min(16384, power), power // 1024)
    chunks, tiles = -(-n // chunk), -(-n // block)
    maxima = backend.scratch("float32", (rows, chunks), x)
    sums = backend.scratch("float64", (rows, chunks), x)
    scalars = backend.scratch("float32", (rows, 4), x)
    lanes = ceiling_power(chunks)
    steps = [
        Step(
            kernels.partial,
            (rows * chunks,),
            (x, maxima, sums, n, *x.strides, chunks),
            {"CHUNK": chunk, "BLOCK": block},
            max(1, min(8, block // 256)),
        ),
        Step(
            kernels.combine,
            (rows,),
            (maxima, sums, scalars, y, y.strides[0], chunks),
            {"OPERATOR": operator, "BLOCK": lanes},
            max(1, min(8, lanes // 128)),
        ),
    ]
    if operator != "logsumexp":
        arguments: tuple[Memory | int, ...] = (x, y, scalars, n, *strides(x, y), tiles)
        steps.append(Step(kernels.write, (rows * tiles,), arguments, {"OPERATOR": operator, "BLOCK": block}, warps(block)))
    return steps


def fused_backward(operator: str, rows: int, n: int, y: Memory, dy: Memory, dx: Memory) -> list[Step]:
    from . import triton_kernels as kernels

    arguments: tuple[Memory | int, ...] = (y, dy, dx, rows, n, *strides(y, dy, dx))
    return whole_rows(kernels.fused_backward, rows, n, arguments, BACKWARD, OPERATOR=operator)


def online_backward(operator: str, rows: int, n: int, y: Memory, dy: Memory, dx: Memory) -> list[Step]:
    from . import triton_kernels as kernels

    block = min(8192, ceiling_power(n))
    constants = {"OPERATOR": operator, "BLOCK": block}
    return [Step(kernels.online_backward, (rows,), (y, dy, dx, n, *strides(y, dy, dx)), constants, warps(block))]


def logsumexp_backward(operator: str, rows: int, n: int, x: Memory, lse: Memory, dlse: Memory, dx: Memory) -> list[Step]:
    from . import triton_kernels as kernels

    block = min(2048, ceiling_power(n))
    height = max(1, min(2048 // block, ceiling_power(rows)))
    tiles = -(-n // block)
    arguments: tuple[Memory | int, ...] = (
        x,
        lse,
        dlse,
        dx,
        rows,
        n,
        *x.strides,
        lse.strides[0],
        dlse.strides[0],
        *dx.strides,
        tiles,
    )
    sizes = {"ROWS": height, "BLOCK": block}
    return [Step(kernels.logsumexp_backward, (-(-rows // height) * tiles,), arguments, sizes, warps(height * block))]

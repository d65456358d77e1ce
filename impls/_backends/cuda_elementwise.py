"""Launches of the elementwise CUDA kernels in ``cuda_elementwise.cuh``: the same for every activation.

A family names, for each operator, a C++ struct of its value and slope, and hands over the C++ that holds it. Its module's
functions are made of its ``plan`` here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..registry import ITEMSIZE, Implementation
from . import elementwise, nvrtc
from .elementwise import Operands
from .nvrtc import Launch
from .tensors import call as call

TYPES = {"float32": "Float32", "float16": "Float16", "bfloat16": "Bfloat16"}
THREADS, AHEAD = 256, 2  # threads a block, vectors of 16 bytes a thread and input
SUMMING = 1024  # blocks that share a sum: several for each multiprocessor
WIDE, DEEP = 32, 32  # a block of `columns`: vectors side by side, and rows that it reads at once

Names = Mapping[str, str]


@dataclass(frozen=True)
class Plan:
    """The launches of a pass, and the integers that end the kernels' arguments. ``work`` is in float64 numbers."""

    launches: tuple[Launch, ...]
    rows: int
    n: int
    groups: int = 1
    blocks: int = 1
    each: int = 0
    work: int = 0


def mapped(function: str, dtype: str, rows: int, n: int, first: int = 0, second: int = 0, groups: int = 1) -> Plan:
    """Any elementwise pass; ``function`` is a wrapper such as ``Forward<Silu>``. ``first`` and ``second`` count the elements
    of two learned parameters whose gradients are wanted, ``second`` in each of ``groups`` groups of columns."""
    vectors = rows * -(-n // groups * ITEMSIZE[dtype] // 16)
    blocks = max(1, -(-vectors // (THREADS * AHEAD)))
    if not first:
        kernel = f"map<{function}, {TYPES[dtype]}, {AHEAD}>"
        return Plan((Launch(kernel, blocks * groups, THREADS),), rows, n, groups, blocks, second)
    blocks = min(blocks, SUMMING // groups)
    launches = (
        Launch(f"map_and_sum<{function}, {TYPES[dtype]}, {AHEAD}>", blocks * groups, THREADS),
        Launch(f"totals<{TYPES[dtype]}, {first}>", first + second * groups, THREADS),
    )
    return Plan(launches, rows, n, groups, blocks, second, (first + second) * groups * blocks)


def summed(function: str, dtype: str, rows: int, n: int, total: str | None) -> Plan:
    """A pass over whole columns; ``total`` is the C++ type of a column's sum, if there is one."""
    strips = -(-n * ITEMSIZE[dtype] // (16 * WIDE))
    chunks = max(1, min(SUMMING // strips, -(-rows // DEEP)))
    each = -(-rows // chunks)
    chunks = -(-rows // each)
    launches = [Launch(f"columns<{function}, {TYPES[dtype]}>", strips * chunks, THREADS)]
    if total:
        launches.append(Launch(f"column_totals<{TYPES[dtype]}, {total}>", -(-n // 32), THREADS))
    return Plan(tuple(launches), rows, n, 1, chunks, each, chunks * n if total else 0)


def arguments(plan: Plan, given: Operands, work: int) -> list[int]:
    """The kernels' arguments, in their order."""
    found: list[int] = []
    for arrays, count in ((given.inputs, 3), (given.outputs, 2)):
        for each in (*arrays, *[None] * (count - len(arrays))):
            found += [each.tensor.data_ptr(), *each.strides] if each else [0, 0, 0]
    for few in (given.parameters, given.gradients):
        found += [each.tensor.data_ptr() if each else 0 for each in (*few, None, None)[:2]]
    return [*found, work, plan.rows, plan.n // plan.groups, plan.groups, plan.blocks, plan.each]


def launcher(plan: Plan, source: str, given: Operands, target: str) -> Callable[[], None]:
    """Compile and load; the callable launches the plan."""
    import torch

    work = torch.empty(plan.work, dtype=torch.float64, device=target)
    run = nvrtc.launcher(source, plan.launches, arguments(plan, given, work.data_ptr()), target)

    def launch(kept: Any = (given, work)) -> None:  # the kernels hold bare addresses
        run()

    return launch


def unavailable(implementation: Implementation, target: str) -> str | None:
    """Why CUDA kernels can't run on ``target``, in words."""
    return nvrtc.unavailable(target)


Held = Sequence[tuple[int, int]]  # threads of a block, and vectors of 16 bytes that each holds; 0: rows of any length


def fitting(held: Held, n: int, dtype: str) -> tuple[int, int]:
    """The first of ``held`` that takes a row of n elements whole, else the last."""
    vectors = -(-n * ITEMSIZE[dtype] // 16)
    return next(((threads, each) for threads, each in held if threads * each >= vectors), held[-1])


def lengths(held: Held, dtype: str) -> list[int]:
    """The longest rows of each of ``held``."""
    return [threads * each * (16 // ITEMSIZE[dtype]) or 1 << 24 for threads, each in held]


def entry_points(
    plan: Callable[..., Plan], source: Callable[[], str], held: Mapping[str, Held] | None = None
) -> tuple[Callable[..., Callable[[], None]], Callable[..., list[dict[str, Any]]]]:
    """``bind`` and ``compiled`` of a family: ``plan(implementation, pass_, rows, n, dtype, params)`` gives the launches of a
    pass over non-empty matrices, ``held`` by pass the kernels among which it chooses by the length of a row."""

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
        """Check the arrays, compile and plan the launches; see ``registry``. ``isa`` and ``threads`` are not used.

        Arrays are torch tensors on ``target`` of the card's shapes, float32, float16 or bfloat16; leading dimensions need a
        common stride. Parameters are contiguous float32. Raises ``TypeError`` or ``ValueError`` naming the argument.
        """
        given = elementwise.operands(implementation, pass_, inputs, outputs, target, params)
        if given.empty:
            return given.zero()
        return launcher(plan(implementation, pass_, given.rows, given.n, given.dtype, params), source(), given, target)

    def compiled(implementation: Implementation, pass_: str, dtype: str, arch: str) -> list[dict[str, Any]]:
        """Compile a pass for ``sm_80``, ``sm_90`` or ``sm_100`` without a GPU, for rows of every length.

        Returns a dict for each kernel: kernel, arch, dtype, registers, shared_bytes, spills (bytes a thread),
        compile_seconds.
        """
        sizes = lengths(held[pass_], dtype) if held else [1024]
        plans = [plan(implementation, pass_, 1024, n, dtype, implementation.operator.params) for n in sizes]
        kernels = list(dict.fromkeys(launch.kernel for each in plans for launch in each.launches))
        found = nvrtc.compile(source(), kernels, arch)
        seconds = found.seconds / len(kernels)
        return [
            {"kernel": each, "arch": arch, "dtype": dtype, **found.usage[each], "compile_seconds": seconds} for each in kernels
        ]

    return bind, compiled

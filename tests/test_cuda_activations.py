"""The CUDA kernels of the activations and their kin, run on the CPU with their own launch plans, and compiled without a GPU."""

from __future__ import annotations

import runpy
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ulproof.benchmarks.measure.ulp import ulp_error
from ulproof.impls import load, operators
from ulproof.impls._backends import cuda_elementwise, elementwise, nvrtc, stress
from ulproof.impls._backends.arrays import dtype_named
from ulproof.impls._backends.tensors import Memory
from ulproof.impls.registry import Implementation

ON_CPU: dict[str, Any] = runpy.run_path(str(Path(__file__).with_name("cuda_on_cpu.py")))
FAMILIES = ("activations", "gated", "fused", "poly_norm", "topk_relu")
IMPLEMENTATIONS = tuple(
    each
    for name, operator in operators().items()
    if operator.package.rpartition(".")[2] in FAMILIES
    for each in load(name).values()
    if each.backend == "cuda"
)
DTYPES = {"sm_80": "float16", "sm_90": "bfloat16", "sm_100": "float32"}
# One for each way to read and to sum: `make compile-all` has the rest.
COMPILED = (
    "gelu",
    "rational_b",
    "swiglu",
    "bias_silu",
    "relu_zeros",
    "poly_norm",
    "topk_relu",
    "topk_relu_approx",
    "topk_relu_stat",
)
TELLING = ("log-uniform", "points", "limits", "nan", "equal")

on_cpu = pytest.mark.skipif(ON_CPU["COMPILER"] is None, reason="no C++ compiler (g++ or clang++) to build kernels for the CPU")
compiles = pytest.mark.skipif(nvrtc.missing() is not None, reason=f"{nvrtc.missing()}")


def flat(implementation: Implementation) -> bool:
    return len(implementation.operator.passes["forward"].inputs[0].axes) == 1


def workloads(implementation: Implementation, pass_: str) -> Iterator[tuple[str, str, dict[str, int]]]:
    """(dtype, stress, axes): every value of the short types, the telling inputs, and sizes with tails and of several blocks."""
    names = implementation.operator.stress
    chosen = [each for each in names if each in TELLING or each == names[0]]
    if flat(implementation):
        yield from (("float32", each, {"n": 3001}) for each in chosen)
        yield from ((dtype, f"all-{dtype}", {"n": 1 << 16}) for dtype in ("float16", "bfloat16"))
        yield "float32", names[0], {"n": 7}
    else:
        yield from (("float32", each, {"rows": 5, "n": 1032}) for each in chosen)
        yield from ((dtype, each, {"rows": 37, "n": 264}) for dtype in ("float16", "bfloat16") for each in chosen[:2])
        yield "float32", names[0], {"rows": 3, "n": 8}
        if not implementation.operator.elementwise:  # rows held by more threads, and rows that are read again
            yield from (("float32", names[0], {"rows": 2, "n": n}) for n in (5000, 40000))


def memory(array: np.ndarray, implementation: Implementation) -> Memory:
    found: Memory = ON_CPU["memory"](array)
    return Memory(found.dtype, (array.size, 1), found.tensor) if flat(implementation) and array.size else found


def operands(
    implementation: Implementation, pass_: str, inputs: tuple[np.ndarray, ...], outputs: tuple[np.ndarray, ...]
) -> elementwise.Operands:
    """What ``elementwise.operands`` makes of tensors on a GPU."""
    card = implementation.operator.passes[pass_]
    params = {**implementation.operator.params, **implementation.options}
    wide, narrow = [], []
    for listed, arrays in ((card.inputs, inputs), (card.outputs, outputs)):
        pairs = list(zip(listed, arrays, strict=True))
        wide.append(tuple(memory(array, implementation) for argument, array in pairs if argument.dtype == "io"))
        narrow.append(tuple(ON_CPU["memory"](array) for argument, array in pairs if argument.dtype != "io"))
    rows, n = (1, inputs[0].size) if flat(implementation) else inputs[0].shape
    parameters = narrow[0] or elementwise.constants(implementation.operator.name, params, "interpreter")
    return elementwise.Operands(rows, n, inputs[0].dtype.name, wide[0], wide[1], parameters, narrow[1])


def planned(implementation: Implementation, pass_: str, dtype: str, rows: int, n: int) -> cuda_elementwise.Plan:
    found: cuda_elementwise.Plan = implementation.code().plan(implementation, pass_, rows, n, dtype)
    return found


@cache
def library(family: str) -> Any:
    mine = [each for each in IMPLEMENTATIONS if each.operator.package == family]
    names = {
        launch.kernel
        for each in mine
        for pass_ in each.passes
        for dtype, _, axes in workloads(each, pass_)
        if each.refuses(pass_, axes, dtype) is None
        for launch in planned(each, pass_, dtype, axes.get("rows", 1), axes["n"]).launches
    }
    return ON_CPU["Library"](sorted(names), mine[0].code().source())


def run(
    implementation: Implementation, pass_: str, inputs: tuple[np.ndarray, ...], outputs: tuple[np.ndarray, ...], error: int = 0
) -> None:
    given = operands(implementation, pass_, inputs, outputs)
    plan = planned(implementation, pass_, given.dtype, given.rows, given.n)
    work = np.full(plan.work + 1, np.nan)
    kernels = library(implementation.operator.package)
    kernels.launch(plan.launches, cuda_elementwise.arguments(plan, given, work.ctypes.data), error)


def fresh(implementation: Implementation, pass_: str, axes: dict[str, int], dtype: str) -> tuple[np.ndarray, ...]:
    """Outputs full of NaN, or of -1."""
    found = []
    for argument in implementation.operator.passes[pass_].outputs:
        its = dtype_named(dtype if argument.dtype == "io" else argument.dtype)
        found.append(np.full(argument.shape(axes), -1 if its.kind == "i" else np.nan, its))
    return tuple(found)


def worst(implementation: Implementation, pass_: str, dtype: str, name: str, axes: dict[str, int], ex2: int = 0) -> float:
    """The largest error over all outputs, in ULPs at the card's scales."""
    from importlib import import_module

    card, operator = implementation.operator.passes[pass_], implementation.operator
    reference = import_module(".reference", operator.package)
    inputs = stress.inputs(operator, pass_, axes, dtype, name)
    outputs = fresh(implementation, pass_, axes, dtype)
    run(implementation, pass_, inputs, outputs, ex2)
    exact = tuple(array.astype(np.float64) for array in inputs)
    with np.errstate(all="ignore"):
        expected = getattr(reference, card.oracle)(*exact, **operator.params)
        scales = getattr(reference, card.scale)(*exact, *expected, **operator.params) if card.scale else (None,) * len(expected)
    errors: list[float] = []
    for argument, actual, truth, scale in zip(card.outputs, outputs, expected, scales, strict=True):
        if actual.dtype.kind == "i":
            assert np.array_equal(actual, truth), (name, axes)
        else:
            error = ulp_error(actual, truth, actual.dtype.name, scale)
            if argument.kind == "parameter":  # terms beyond float32's range have no sum to speak of
                error = error[~(np.abs(scale) > np.finfo(np.float32).max)]
            errors.append(error.max(initial=0.0))
    return float(max(errors))


@on_cpu
@pytest.mark.parametrize("implementation", IMPLEMENTATIONS, ids=lambda each: each.full_name)
def test_kernels_keep_their_bounds(implementation: Implementation) -> None:
    for pass_ in implementation.passes:
        for dtype, name, axes in workloads(implementation, pass_):
            if implementation.refuses(pass_, axes, dtype) is None:
                bound = (implementation.bound or {})[pass_, dtype]
                error = worst(implementation, pass_, dtype, name, axes)
                assert error <= bound, f"{pass_} {dtype} {name} {axes}: {error} ULP"


@on_cpu
@pytest.mark.parametrize("error", [-1, 1, 3])
def test_halves_allow_for_the_documented_error_of_ex2(error: int) -> None:
    for implementation in IMPLEMENTATIONS:
        if implementation.operator.name in ("silu", "gelu", "gelu_tanh", "softplus", "exp"):
            for pass_ in implementation.passes:
                assert worst(implementation, pass_, "float16", "all-float16", {"n": 1 << 16}, error) <= 0.51


@compiles
@pytest.mark.parametrize("arch", DTYPES)
def test_kernels_compile_without_spills(arch: str) -> None:
    for implementation in IMPLEMENTATIONS:
        if implementation.operator.name in COMPILED:
            for pass_ in implementation.passes:
                found = implementation.code().compiled(implementation, pass_, DTYPES[arch], arch)
                assert found
                for each in found:
                    assert each["spills"] == 0 and each["arch"] == arch and each["registers"] <= 128, each
                    assert each["shared_bytes"] <= 48 * 1024, each

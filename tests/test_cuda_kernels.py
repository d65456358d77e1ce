"""kernel.cu itself, run on the CPU with the launch plans of cuda.py: numerics, edges, memory. No GPU is needed; what stays
untested without one is the compiler's code, the memory system's speed and ex2.approx, whose documented error is injected."""

from __future__ import annotations

import runpy
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ulproof.benchmarks.measure.ulp import ulp_error
from ulproof.impls import load
from ulproof.impls._backends import stress
from ulproof.impls.registry import Implementation
from ulproof.impls.softmax import STRESS, cuda, reference

ON_CPU: dict[str, Any] = runpy.run_path(str(Path(__file__).with_name("cuda_on_cpu.py")))
Kernels = Any

pytestmark = pytest.mark.skipif(
    ON_CPU["COMPILER"] is None, reason="no C++ compiler (g++ or clang++) to build kernel.cu for the CPU"
)

OPERATORS = ("softmax", "log_softmax", "logsumexp")
VARIANTS = ("warp-per-row", "block-per-row", "cluster-per-row", "online")
DTYPES = ("float32", "float16", "bfloat16")  # of block-per-row; float16 differs from bfloat16 by its conversions alone
# Lengths that meet one kernel after another; block-per-row ends in shared memory, online in several chunks.
LENGTHS = {
    "warp-per-row": (1, 2, 7, 31, 33, 145, 300, 1000, 1024),
    "block-per-row": (1, 3, 129, 1000, 1025, 9001, 20011),
    "cluster-per-row": (1, 1000, 9001, 60011),
    "online": (1, 1000, 17001),
}
BOUND = {"float32": 4.0, "float16": 0.51, "bfloat16": 0.51}
ROWS = 5  # more than one block of warp-per-row, and not a multiple of its rows a block
GUARD = 64


def workloads() -> Iterator[tuple[Implementation, str, str, int]]:
    for operator in OPERATORS:
        for variant in VARIANTS:
            for pass_ in ("forward", "backward"):
                for dtype in DTYPES:
                    few = dtype == "float16" and variant != "block-per-row"
                    for n in LENGTHS[variant][: 2 * (variant == "warp-per-row")] if few else LENGTHS[variant]:
                        yield load(operator)[f"cuda/{variant}"], pass_, dtype, n


@pytest.fixture(scope="module")
def kernels() -> Kernels:
    names = {
        launch.kernel
        for implementation, pass_, dtype, n in workloads()
        for head in (0, None)
        for launch in cuda.plan(implementation, pass_, {"rows": ROWS, "n": n}, dtype, head, "sm_90")
    }
    return ON_CPU["Kernels"](sorted(names))


@cache
def case(operator: str, pass_: str, dtype: str, n: int, name: str, rows: int = ROWS) -> tuple[np.ndarray, ...]:
    """Inputs, then the oracle's output, then the unit of error or the output again."""
    known = load(operator)["reference/float64"].operator
    card = known.passes[pass_]
    inputs = stress.inputs(known, pass_, {"rows": rows, "n": n}, dtype, name)
    exact = tuple(array.astype(np.float64) for array in inputs)
    expected = getattr(reference, card.oracle)(*exact)
    scale = getattr(reference, card.scale)(*exact, *expected) if card.scale else expected
    return (*inputs, expected[0], scale[0])


def fresh(like: np.ndarray, dtype: np.dtype, by: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """An output full of NaN between guards, ``by`` elements past a 16-byte boundary; and all of its memory."""
    memory = np.full(like.size + 2 * GUARD + 64, np.nan, dtype)
    start = GUARD + (-memory.ctypes.data // dtype.itemsize) % (16 // dtype.itemsize) + by
    return memory[start : start + like.size].reshape(like.shape), memory


def worst(
    kernels: Kernels, implementation: Implementation, pass_: str, inputs: tuple[np.ndarray, ...], expected: np.ndarray,
    scale: np.ndarray, by: int = 0, error: int = 0,
) -> float:  # fmt: skip
    """Run and judge; nothing outside the output may have been written."""
    dtype = inputs[0].dtype
    output, memory = fresh(expected, dtype, by)
    kernels.run(implementation, pass_, inputs, output, error=error)
    result = output.copy()
    output[...] = np.nan
    assert np.isnan(memory.astype(np.float32)).all(), "memory outside the output was written"
    return float(ulp_error(result, expected, dtype.name, scale).max())


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("operator", OPERATORS)
def test_every_length_dtype_and_pass_is_within_the_bound(kernels: Kernels, operator: str, variant: str) -> None:
    for implementation, pass_, dtype, n in workloads():
        if implementation.full_name == f"{operator}:cuda/{variant}":
            *inputs, expected, scale = case(operator, pass_, dtype, n, "normal-10")
            error = worst(kernels, implementation, pass_, tuple(inputs), expected, scale)
            assert error <= BOUND[dtype], f"{implementation.full_name} {pass_} {dtype} n = {n}: {error} ULP"


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("operator", OPERATORS)
def test_every_stress_input_is_within_the_bound(kernels: Kernels, operator: str, variant: str) -> None:
    implementation = load(operator)[f"cuda/{variant}"]
    n = {"warp-per-row": 145, "block-per-row": 1025, "cluster-per-row": 1000, "online": 9001}[variant]
    for name in STRESS:
        for pass_ in ("forward", "backward"):
            for dtype in {"warp-per-row": ("float32", "bfloat16"), "block-per-row": DTYPES}.get(variant, ("float32",)):
                *inputs, expected, scale = case(operator, pass_, dtype, n, name, rows=3)
                error = worst(kernels, implementation, pass_, tuple(inputs), expected, scale)
                assert error <= BOUND[dtype], f"{implementation.full_name} {pass_} {dtype} {name}: {error} ULP"


@pytest.mark.parametrize("layout", ["padded-rows", "every-second-element", "reversed-rows", "column-major", "broadcast-row"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_any_stride_is_read_in_place(kernels: Kernels, variant: str, layout: str) -> None:
    implementation = load("softmax")[f"cuda/{variant}"]
    for dtype in ("float32", "bfloat16"):
        x = case("softmax", "forward", dtype, 1000, "normal")[0]
        given = stress.strided(x, layout)
        expected = reference.softmax(given.astype(np.float64))[0]
        assert worst(kernels, implementation, "forward", (given,), expected, expected) <= BOUND[dtype]


@pytest.mark.parametrize("pass_", ["forward", "backward"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_any_alignment_of_inputs_and_output(kernels: Kernels, variant: str, pass_: str) -> None:
    implementation = load("softmax")[f"cuda/{variant}"]
    for dtype, places in (("float32", 4), ("bfloat16", 8)):
        *inputs, expected, scale = case("softmax", pass_, dtype, 145, "normal")
        size = inputs[0].itemsize
        for first in range(places):
            for other in (first, 0, places - 1):
                given = tuple(stress.misaligned(x, size * (other if k else first)) for k, x in enumerate(inputs))
                error = worst(kernels, implementation, pass_, given, expected, scale, by=other)
                assert error <= BOUND[dtype], (dtype, first, other)


@pytest.mark.parametrize("error", [-1, 1, 2, 3])
def test_halves_allow_for_the_documented_error_of_ex2(kernels: Kernels, error: int) -> None:
    for operator in OPERATORS:
        for dtype in ("float16", "bfloat16"):
            for pass_ in ("forward", "backward"):
                for name in ("normal-10", "ramp-200", "equal"):
                    *inputs, expected, scale = case(operator, pass_, dtype, 1025, name)
                    implementation = load(operator)["cuda/block-per-row"]
                    assert worst(kernels, implementation, pass_, tuple(inputs), expected, scale, error=error) <= BOUND[dtype]


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_all_values_of_the_short_types(kernels: Kernels, dtype: str) -> None:
    """65,536 rows of two show every value of the type beside a 0."""
    for operator in OPERATORS:
        *inputs, expected, scale = case(operator, "forward", dtype, 2, f"all-{dtype}", rows=65536)
        implementation = load(operator)["cuda/warp-per-row"]
        assert worst(kernels, implementation, "forward", tuple(inputs), expected, scale) <= BOUND[dtype]


def test_the_same_bits_each_time_and_from_every_row_of_a_batch(kernels: Kernels) -> None:
    for variant in VARIANTS:
        implementation = load("softmax")[f"cuda/{variant}"]
        x = np.repeat(case("softmax", "forward", "float32", 1000, "normal")[0][:1], 40, 0)
        y = np.full_like(x, np.nan)
        kernels.run(implementation, "forward", (x,), y)
        assert (y == y[0]).all()


def test_long_rows_do_not_drift(kernels: Kernels) -> None:
    """A million equal elements, and a peak over a bulk that vanishes term by term in a float32 sum."""
    implementation = load("softmax")["cuda/online"]
    for name in ("equal", "peak-over-low-bulk"):
        *inputs, expected, scale = case("softmax", "forward", "float32", 1 << 20, name, rows=1)
        assert worst(kernels, implementation, "forward", tuple(inputs), expected, scale) <= 2.0

"""log_softmax, logsumexp and the backward passes in C++: every length, memory layout and thread count, and PyTorch's policy."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from ulproof.benchmarks.measure.ulp import ulp_error
from ulproof.impls import load, operators
from ulproof.impls._backends import stress
from ulproof.impls._backends.arrays import dtype_named
from ulproof.impls.softmax import reference

AUTO = {name: load(name)["simd/auto"] for name in ("softmax", "log_softmax", "logsumexp")}
BOUND = {name: implementation.bound or {} for name, implementation in AUTO.items()}
REASON = AUTO["softmax"].unavailable()
pytestmark = pytest.mark.skipif(REASON is not None, reason=REASON or "")

PASSES = [
    ("log_softmax", "forward"),
    ("logsumexp", "forward"),
    ("softmax", "backward"),
    ("log_softmax", "backward"),
    ("logsumexp", "backward"),
]
DTYPES = ("float32", "float16", "bfloat16")
each_pass = pytest.mark.parametrize(("name", "pass_"), PASSES)
each_dtype = pytest.mark.parametrize("dtype", DTYPES)


def isas() -> tuple[str, ...]:
    return tuple(importlib.import_module("ulproof.impls.softmax._simd").isas())


def run(name: str, pass_: str, inputs: tuple[np.ndarray, ...], isa: str | None = None, threads: int = 1) -> np.ndarray:
    """The result of a bound call, into outputs that held NaN."""
    card = operators()[name].passes[pass_]
    shape = inputs[0].shape if len(card.outputs[0].axes) > 1 else inputs[0].shape[:-1]
    output = np.full(shape, np.nan, inputs[0].dtype)
    AUTO[name].bind(inputs, (output,), pass_=pass_, isa=isa, threads=threads)()
    return output


def errors(name: str, pass_: str, inputs: tuple[np.ndarray, ...], output: np.ndarray) -> np.ndarray:
    """ULPs against the oracle, on the card's scale."""
    card = operators()[name].passes[pass_]
    wide = [array.astype(np.float64) for array in inputs]
    expected = getattr(reference, card.oracle)(*wide)
    scale = getattr(reference, card.scale)(*wide, *expected)[0] if card.scale else None
    return ulp_error(output, expected[0], inputs[0].dtype.name, scale)


def made(name: str, pass_: str, stressed: str, rows: int, n: int, dtype: str) -> tuple[Any, ...]:
    return stress.inputs(operators()[name], pass_, {"rows": rows, "n": n}, dtype, stressed)


@each_dtype
@each_pass
def test_every_length_is_within_the_bound(name: str, pass_: str, dtype: str) -> None:
    bound = BOUND[name][pass_, dtype]
    for n in (*range(1, 151), 1000, 4095, 4096, 4097):
        inputs = made(name, pass_, ("normal-10", "uniform-40", "masked-random", "offset-1e6")[n % 4], 6, n, dtype)
        for isa in isas():
            worst = errors(name, pass_, inputs, run(name, pass_, inputs, isa)).max()
            assert worst <= bound, (n, isa, worst)


@each_dtype
@each_pass
@pytest.mark.parametrize("n", [65537, 1_000_003])
def test_long_rows_are_within_the_bound_and_the_same_on_any_threads(name: str, pass_: str, dtype: str, n: int) -> None:
    # The reference of the exponentials is chosen from the first elements: a ramp proves it wrong further on.
    inputs = made(name, pass_, "ramp-200" if n % 2 else "normal", 1, n, dtype)
    for isa in isas():
        alone = run(name, pass_, inputs, isa)
        assert errors(name, pass_, inputs, alone).max() <= BOUND[name][pass_, dtype]
        for threads in (2, 3, 7):
            np.testing.assert_array_equal(run(name, pass_, inputs, isa, threads).view(np.uint8), alone.view(np.uint8))


@each_pass
def test_results_past_the_caches_are_the_same(name: str, pass_: str) -> None:
    """Enough rows that results are streamed, misaligned ones among them; each row as when it is alone."""
    inputs = made(name, pass_, "normal", 12000, 1003, "float32")
    many = run(name, pass_, inputs, threads=2)
    for r in (0, 1, 2, 3, 4095, 11999):
        one = run(name, pass_, tuple(array[r : r + 1] for array in inputs))
        np.testing.assert_array_equal(one[0], many[r])


@each_pass
@pytest.mark.parametrize("n", [7, 16, 33, 64, 100, 300])
def test_no_row_depends_on_its_neighbours(name: str, pass_: str, n: int) -> None:
    """Short rows are taken eight at a time; a NaN, which is taken otherwise, changes no bit of the row beside it."""
    inputs = made(name, pass_, "normal", 41, n, "float32")
    inputs[0][[2, 9, 20, 21], 0] = np.nan
    for isa in isas():
        together = run(name, pass_, inputs, isa)
        alone = [run(name, pass_, tuple(array[r : r + 1] for array in inputs), isa) for r in range(41)]
        np.testing.assert_array_equal(together, np.concatenate(alone))


@each_dtype
@each_pass
@pytest.mark.parametrize("layout", stress.STRIDED)
def test_strides_change_nothing(name: str, pass_: str, dtype: str, layout: str) -> None:
    inputs = made(name, pass_, "normal", 5, 77, dtype)
    if layout == "broadcast-row":
        inputs = tuple(np.repeat(array[:1], 5, 0) for array in inputs)
    there = tuple(stress.strided(array, layout) if array.ndim > 1 else array for array in inputs)
    expected = run(name, pass_, inputs)
    np.testing.assert_array_equal(run(name, pass_, there), expected)
    np.testing.assert_array_equal(AUTO[name](*there, pass_=pass_), expected)


@each_pass
def test_leading_axes_are_rows(name: str, pass_: str) -> None:
    inputs = made(name, pass_, "normal", 24, 33, "float32")
    expected = run(name, pass_, inputs)
    shaped = tuple(array.reshape(2, 3, 4, *array.shape[1:]) for array in inputs)
    moved = tuple(array.transpose(2, 0, 1, *range(3, array.ndim)) for array in shaped)
    for arrays, back in ((shaped, (0, 1, 2)), (moved, (1, 2, 0))):
        result = AUTO[name](*arrays, pass_=pass_)
        result = result.transpose(*back, *range(3, result.ndim))
        np.testing.assert_array_equal(result.reshape(expected.shape), expected)
    single = AUTO[name](*(array[0, ...] for array in inputs), pass_=pass_)
    np.testing.assert_array_equal(single, expected[0])
    assert isinstance(single, np.ndarray)


@each_pass
def test_no_rows_give_no_results(name: str, pass_: str) -> None:
    inputs = tuple(array[:0] for array in made(name, pass_, "normal", 2, 9, "float32"))
    assert AUTO[name](*inputs, pass_=pass_).size == 0


@each_dtype
def test_scattered_results_leave_the_memory_between_them(dtype: str) -> None:
    for name, pass_ in PASSES:
        if (name, pass_) == ("logsumexp", "forward"):
            continue
        inputs = made(name, pass_, "normal", 3, 50, dtype)
        memory = np.full((3, 100), 7, dtype_named(dtype))
        AUTO[name].bind(inputs, (memory[:, ::2],), pass_=pass_)()
        np.testing.assert_array_equal(memory[:, ::2], run(name, pass_, inputs))
        assert (memory[:, 1::2] == 7).all()


SPECIAL = np.array([0, -0.0, 1, -3, 88, -104, 1e30, -1e30, 3e38, -3e38, np.inf, -np.inf, np.nan, 1e-45], np.float32)


def torch_of(name: str, pass_: str) -> Callable[..., Any]:
    import torch

    aten = torch.ops.aten
    functions: dict[tuple[str, str], Callable[..., Any]] = {
        ("log_softmax", "forward"): lambda x: torch.log_softmax(x, -1),
        ("logsumexp", "forward"): lambda x: torch.logsumexp(x, -1),
        ("softmax", "backward"): lambda y, dy: aten._softmax_backward_data(dy, y, -1, torch.float32),
        ("log_softmax", "backward"): lambda y, dy: aten._log_softmax_backward_data(dy, y, -1, torch.float32),
        ("logsumexp", "backward"): lambda x, lse, dlse: (x - lse[:, None]).exp() * dlse[:, None],
    }
    return functions[name, pass_]


@each_pass
def test_nan_and_infinity_as_pytorch_has_them(name: str, pass_: str) -> None:
    """One or two special values in an otherwise ordinary row; NaN and infinities stand where PyTorch puts them."""
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(3)
    count = len(operators()[name].passes[pass_].inputs)
    n, rows = 37, 400
    inputs = [rng.standard_normal((rows, n)).astype(np.float32) for _ in range(count)]
    places = rng.integers(0, n, (rows, 2))
    if (name, pass_) == ("softmax", "backward"):
        inputs[0] = AUTO["softmax"](inputs[0])
        inputs[1][np.arange(rows)[:, None], places] = rng.choice(SPECIAL[np.abs(SPECIAL) != np.float32(3e38)], (rows, 2))
    else:
        inputs[0][np.arange(rows)[:, None], places] = rng.choice(SPECIAL, (rows, 2))
        inputs[0][:4] = [[-np.inf], [np.inf], [np.nan], [-3e38]]
    if (name, pass_) == ("logsumexp", "backward"):
        inputs[1:] = AUTO["logsumexp"](inputs[0]), inputs[2][:, 0].copy()
    expected = torch_of(name, pass_)(*(torch.from_numpy(array) for array in inputs)).numpy()
    for isa in isas():
        output = run(name, pass_, tuple(inputs), isa)
        np.testing.assert_array_equal(np.isnan(output), np.isnan(expected))
        np.testing.assert_array_equal(np.isposinf(output), np.isposinf(expected))
        np.testing.assert_array_equal(np.isneginf(output), np.isneginf(expected))


@each_dtype
def test_exponentials_of_arguments_that_no_forward_pass_gives(dtype: str) -> None:
    """x far above lse: dx up to the largest number and beyond, whatever the sign and size of the gradient."""
    lse = np.array([-30, 0.3, 7, 80, -500, 511, -512, 700, 1e4, -1e6, 60000], np.float32)
    dlse = np.array([1, -1, 1e-6, -1e-6, 3e4, 0], np.float32)
    above = np.array([0, 1, 60, 67, 68, 69, 70, 80, 88, 89, 90, 100, 103, 120, 176, -50, -87, -100, -200, 1e5], np.float32)
    largest = np.float32(ml_dtypes.finfo(dtype_named(dtype)).max)
    lse, dlse = np.repeat(lse, dlse.size).clip(-largest, largest), np.tile(dlse, lse.size)
    x = (lse[:, None] + above).clip(-largest, largest)
    inputs = tuple(array.astype(dtype_named(dtype)) for array in (x, lse, dlse))
    for isa in isas():
        worst = errors("logsumexp", "backward", inputs, run("logsumexp", "backward", inputs, isa)).max()
        assert worst <= BOUND["logsumexp"]["backward", dtype]


@each_dtype
def test_log_probabilities_above_zero(dtype: str) -> None:
    rng = np.random.default_rng(5)
    y = np.tile(np.array([-200, -100, -1, 0, 5, 30, 40, 60, 75, 88, 89, 100], np.float32), (6, 1)).astype(dtype_named(dtype))
    scale = np.array([1, 1e-6, 1e-30, 1e20, 0, -1e-3], np.float32)[:, None]
    with np.errstate(over="ignore"):
        dy = (rng.standard_normal(y.shape).astype(np.float32) * scale).astype(dtype_named(dtype))
    dy[~np.isfinite(dy)] = 1
    for isa in isas():
        worst = errors("log_softmax", "backward", (y, dy), run("log_softmax", "backward", (y, dy), isa)).max()
        assert worst <= BOUND["log_softmax"]["backward", dtype]


@each_dtype
def test_a_masked_element_without_a_gradient_of_its_own_gets_exactly_none(dtype: str) -> None:
    x = np.linspace(-3, 3, 100, dtype=np.float32)[None].astype(dtype_named(dtype))
    x[:, ::3] = -np.inf
    for size in (1, 1e4, 1e-4):
        dy = np.full_like(x, size)
        dy[:, ::3] = 0
        for name in ("softmax", "log_softmax"):
            dx = run(name, "backward", (AUTO[name](x), dy))
            assert (dx[:, ::3] == 0).all()
    lse = AUTO["logsumexp"](x)
    assert (run("logsumexp", "backward", (x, lse, lse))[:, ::3] == 0).all()


@each_pass
def test_calling_gives_what_binding_gives(name: str, pass_: str) -> None:
    for dtype in DTYPES:
        inputs = made(name, pass_, "normal", 3, 200, dtype)
        result = AUTO[name](*inputs, pass_=pass_)
        assert result.dtype == inputs[0].dtype
        np.testing.assert_array_equal(result, run(name, pass_, inputs, isas()[0]))


def test_calling_refuses_what_binding_refuses() -> None:
    y = np.ones((2, 3), np.float32)
    for wrong in (np.ones((2, 4), np.float32), np.ones((3,), np.float32), np.ones((2, 3), np.float64)):
        with pytest.raises((TypeError, ValueError), match="dy"):
            AUTO["softmax"](y, wrong, pass_="backward")
    with pytest.raises(ValueError, match="lse"):
        AUTO["logsumexp"](y, y, y, pass_="backward")


@each_pass
def test_unaligned_elements_are_refused(name: str, pass_: str) -> None:
    """Streaming stores would fault on them."""
    inputs = made(name, pass_, "normal", 2, 9, "float32")
    memory = np.zeros(inputs[0].nbytes + 1, np.uint8)
    unaligned = memory[1:].view(np.float32).reshape(inputs[0].shape)
    with pytest.raises(ValueError, match="is an unaligned view"):
        AUTO[name](unaligned, *inputs[1:], pass_=pass_)

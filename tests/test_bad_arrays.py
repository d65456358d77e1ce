"""Bad input is one line that names the argument, what it was and what is allowed; and nothing is written."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from ulproof.impls import implementations, load
from ulproof.impls._backends.arrays import overlap
from ulproof.impls.registry import Implementation
from ulproof.impls.softmax import OPERATORS

HERE = [
    each
    for operator in OPERATORS
    for each in implementations(operator.name)
    if each.unavailable("cpu") is None
    and each.variant != "torch-compile"  # checks as torch-eager does, then compiles for seconds
]
FORWARD = [each for each in HERE if "forward" in each.passes]
ROWS, N = 4, 40


@pytest.fixture(params=FORWARD, ids=lambda implementation: implementation.full_name)
def implementation(request: pytest.FixtureRequest) -> Implementation:
    return request.param


def outputs(implementation: Implementation, pass_: str = "forward", dtype: Any = np.float32) -> tuple[np.ndarray, ...]:
    card = implementation.operator.passes[pass_]
    return tuple(np.full(argument.shape({"rows": ROWS, "n": N}), 7, dtype) for argument in card.outputs)


def good() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((ROWS, N), np.float32)


def refuses(action: Callable[[], Any], *said: str, kinds: tuple[type[Exception], ...] = (ValueError, TypeError)) -> None:
    with pytest.raises(kinds) as caught:
        action()
    message = str(caught.value)
    assert "\n" not in message.strip()
    for each in said:
        assert each in message, message


def test_not_an_array(implementation: Implementation) -> None:
    for given, kind in (([1.0, 2.0], "list"), (3.0, "float"), (None, "NoneType"), ("abc", "str")):
        refuses(partial(implementation, given), "x", kind, kinds=(TypeError,))


def test_a_dtype_that_it_does_not_take(implementation: Implementation) -> None:
    refused = [np.float64, np.int32, np.complex64, np.bool_, object, ml_dtypes.float8_e4m3fn]
    refused += [dtype for dtype in (np.float16, ml_dtypes.bfloat16) if np.dtype(dtype).name not in implementation.dtypes]
    for dtype in refused:
        refuses(partial(implementation, np.zeros((ROWS, N), dtype)), "x", np.dtype(dtype).name, "float32")


def test_a_foreign_byte_order(implementation: Implementation) -> None:
    refuses(lambda: implementation(good().astype(good().dtype.newbyteorder())), "x", "byte order")


def test_an_array_without_a_row(implementation: Implementation) -> None:
    refuses(lambda: implementation(np.array(1.0, np.float32)), "x", "0 dimensions")


def test_an_empty_row(implementation: Implementation) -> None:
    for shape in ((ROWS, 0), (0, 0), (0,)):
        refuses(partial(implementation, np.zeros(shape, np.float32)), "x", "'n'", "empty")


def test_no_rows_give_an_empty_result(implementation: Implementation) -> None:
    found = implementation(np.zeros((0, N), np.float32))
    assert found.shape == ((0,) if implementation.operator.name == "logsumexp" else (0, N))


def test_too_many_or_too_few_arrays(implementation: Implementation) -> None:
    refuses(lambda: implementation(good(), good()), "takes 1 array(s) (x), got 2", kinds=(TypeError,))
    refuses(lambda: implementation(), "takes 1 array(s) (x), got 0", kinds=(TypeError,))


def test_an_unknown_pass(implementation: Implementation) -> None:
    refuses(lambda: implementation(good(), pass_="sideways"), "'sideways'", "forward, backward")


def test_an_unknown_isa(implementation: Implementation) -> None:
    refuses(lambda: implementation(good(), isa="mmx"), "isa 'mmx'", ", ".join(implementation.isas) or "none")


def test_bad_thread_counts(implementation: Implementation) -> None:
    for threads in (0, -1) if implementation.threaded else (0, 2):
        refuses(partial(implementation, good(), threads=threads), f"threads is {threads}")


def test_a_target_that_is_not_there(implementation: Implementation) -> None:
    refuses(lambda: implementation(good(), target="cuda:7"), implementation.full_name, "can't run here", kinds=(RuntimeError,))


class TestOutputs:
    """Whatever is wrong with an output, no output is touched."""

    def refuse(self, implementation: Implementation, x: np.ndarray, given: Any, *said: str) -> None:
        before = [each.copy() if isinstance(each, np.ndarray) else each for each in given]
        taken = x.copy()
        refuses(lambda: implementation.bind((x,), tuple(given))(), *said)
        np.testing.assert_array_equal(x, taken)
        for each, was in zip(given, before, strict=True):
            np.testing.assert_array_equal(each, was)

    def test_dtype(self, implementation: Implementation) -> None:
        name = implementation.operator.passes["forward"].outputs[0].name
        for dtype in (np.float64, np.float16, np.dtype(np.float32).newbyteorder()):
            given = outputs(implementation, dtype=dtype)
            self.refuse(implementation, good(), given, f"output {name}", "must be float32")

    def test_shape(self, implementation: Implementation) -> None:
        (right,) = outputs(implementation)
        name = implementation.operator.passes["forward"].outputs[0].name
        for wrong in (np.full((*right.shape, 1), 7, np.float32), right[:-1], np.array(7, np.float32), right[None]):
            self.refuse(implementation, good(), (wrong,), f"output {name}", str(right.shape))

    def test_read_only(self, implementation: Implementation) -> None:
        given = outputs(implementation)
        given[0].flags.writeable = False
        self.refuse(implementation, good(), given, "read-only")

    def test_not_an_array(self, implementation: Implementation) -> None:
        self.refuse(implementation, good(), ([7.0],), "must be a NumPy array, got list")

    def test_count(self, implementation: Implementation) -> None:
        self.refuse(implementation, good(), (), "writes 1 array(s), got 0")
        self.refuse(implementation, good(), outputs(implementation) * 2, "writes 1 array(s), got 2")

    def test_overlap_with_the_input(self, implementation: Implementation) -> None:
        name = implementation.operator.passes["forward"].outputs[0].name
        x = good()
        if implementation.operator.name == "logsumexp":
            shared = [x[:, 0], x[:, -1], x.reshape(-1)[:ROWS]]
        else:
            memory = np.zeros((ROWS + 1, N), np.float32)
            x = memory[:-1]
            x[...] = good()
            shared = [x, memory[1:], x[::-1]]
        for each in shared:
            self.refuse(implementation, x, (each,), f"output {name} overlaps x")


def test_interleaved_arrays_do_not_overlap() -> None:
    memory = np.zeros((6, 8), np.float32)
    assert not overlap(memory[:, ::2], memory[:, 1::2])
    assert not overlap(memory[::2], memory[1::2])
    assert not overlap(memory[:, :4], memory[:, 4:])
    assert overlap(memory[:, :5], memory[:, 4:])
    assert overlap(memory, memory.T)
    assert not overlap(memory[:0], memory)


def test_an_output_interleaved_with_the_input_is_fine(implementation: Implementation) -> None:
    if implementation.operator.name == "logsumexp":
        return  # its output is no array of rows
    if implementation.variant == "xnnpack":
        strided = np.zeros((ROWS, 2 * N), np.float32)[:, ::2]
        refuses(lambda: implementation.bind((strided,), (strided.copy(),)), "x has strides", "adjacent elements")
        return
    memory = np.zeros((ROWS, 2 * N), np.float32)
    memory[:, ::2] = good()
    implementation.bind((memory[:, ::2],), (memory[:, 1::2],))()
    np.testing.assert_array_equal(memory[:, ::2], good())
    np.testing.assert_allclose(memory[:, 1::2], implementation(good()), rtol=1e-5)


@pytest.mark.parametrize(
    "implementation", [each for each in HERE if "backward" in each.passes], ids=lambda each: each.full_name
)
def test_backward_inputs_must_agree(implementation: Implementation) -> None:
    card = implementation.operator.passes["backward"]
    arrays = [np.ones(argument.shape({"rows": ROWS, "n": N}), np.float32) for argument in card.inputs]
    for position, argument in enumerate(card.inputs[1:], start=1):
        for wrong, said in ((arrays[position][:-1], "has shape"), (arrays[position].astype(np.float16), "float16")):
            given = [*arrays[:position], wrong, *arrays[position + 1 :]]
            refuses(partial(implementation, *given, pass_="backward"), argument.name, said)


def test_unknown_names() -> None:
    refuses(lambda: load("sofmax"), "unknown operator 'sofmax'", "softmax, log_softmax, logsumexp")
    refuses(lambda: load("softmax")["sind/auto"], "unknown implementation 'sind/auto' of softmax", "simd/auto")
    refuses(lambda: load("softmax")["simd"], "unknown implementation 'simd'", "simd/auto")


@pytest.mark.parametrize("name", ["numpy/three-pass", "simd/auto"])
def test_torch_tensors(name: str) -> None:
    torch = pytest.importorskip("torch")
    implementation = load("softmax")[name]
    if reason := implementation.unavailable("cpu"):
        pytest.skip(reason)
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        x = torch.randn(3, 5, requires_grad=True).to(dtype)
        found = implementation(x)
        assert found.dtype == dtype and not found.requires_grad
        torch.testing.assert_close(found, torch.softmax(x.detach().float(), -1).to(dtype), rtol=2.0**-7, atol=0)
    refuses(lambda: implementation(torch.zeros(2, 3, dtype=torch.float64)), "x", "float64")

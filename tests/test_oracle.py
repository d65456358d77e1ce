"""The oracle is right: against 80-bit arithmetic, against PyTorch in float64 on every stress input, and by differentiation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from ulproof.benchmarks.measure.ulp import ulp_error
from ulproof.impls import operators
from ulproof.impls._backends import stress
from ulproof.impls.softmax import reference

ROWS, N = 6, 130
AXES = {"rows": ROWS, "n": N}
FORWARD: dict[str, Callable[..., Any]] = {
    "softmax": reference.softmax,
    "log_softmax": reference.log_softmax,
    "logsumexp": reference.logsumexp,
}
BACKWARD: dict[str, Callable[..., tuple[np.ndarray]]] = {
    "softmax": reference.softmax_backward,
    "log_softmax": reference.log_softmax_backward,
    "logsumexp": reference.logsumexp_backward,
}


@pytest.mark.parametrize("operator", FORWARD)
@pytest.mark.skipif(np.finfo(np.longdouble).nmant < 63, reason="long double is no wider than double here")
def test_float64_is_wide_enough(operator: str) -> None:
    for name in operators()[operator].stress:
        x = stress.stress(name, ROWS, N)
        (found,) = FORWARD[operator](x.astype(np.float64))
        with np.errstate(all="ignore"):
            (wider,) = FORWARD[operator](x.astype(np.longdouble))
            scale = reference.at_least_one(x, np.asarray(wider, np.float64))[0] if operator != "softmax" else np.abs(wider)
            same = (found == wider) | (np.isnan(found) & np.isnan(wider))
            error = np.where(same, 0, np.abs(found - wider) / np.maximum(scale, 2.0**-126))
        assert error.max() < 1e-5 * 2.0**-24, name


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("operator", FORWARD)
def test_nan_and_infinity_follow_pytorch(operator: str, dtype: str) -> None:
    torch: Any = pytest.importorskip("torch")
    forward = {"softmax": torch.softmax, "log_softmax": torch.log_softmax, "logsumexp": torch.logsumexp}[operator]
    for name in operators()[operator].stress:
        x = stress.stress(name, ROWS, N, dtype).astype(np.float64)
        leaf = torch.from_numpy(x).requires_grad_()
        expected = forward(leaf, -1)
        (found,) = FORWARD[operator](x)
        np.testing.assert_allclose(found, expected.detach().numpy(), rtol=1e-12, atol=1e-13, err_msg=name)
        gradient = np.random.default_rng(1).standard_normal(found.shape)
        expected.backward(torch.from_numpy(gradient))
        read = (x, found) if operator == "logsumexp" else (found,)
        (back,) = BACKWARD[operator](*read, gradient)
        np.testing.assert_allclose(back, leaf.grad.numpy(), rtol=1e-9, atol=1e-12, err_msg=name)


@pytest.mark.parametrize("operator", FORWARD)
def test_the_gradient_is_the_derivative(operator: str) -> None:
    rng = np.random.default_rng(2)
    x = rng.standard_normal((3, 11))
    (y,) = FORWARD[operator](x)
    gradient = rng.standard_normal(y.shape)
    (found,) = BACKWARD[operator](*((x, y) if operator == "logsumexp" else (y,)), gradient)
    for index in np.ndindex(x.shape):
        step = np.zeros_like(x)
        step[index] = 1e-5
        slope = ((FORWARD[operator](x + step)[0] - FORWARD[operator](x - step)[0]) * gradient).sum() / 2e-5
        assert found[index] == pytest.approx(slope, abs=1e-8)


@pytest.mark.parametrize("operator", FORWARD)
def test_scales_are_never_smaller_than_the_output(operator: str) -> None:
    for card in operators()[operator].passes.values():
        if card.scale is None:
            continue
        pass_ = next(name for name, each in operators()[operator].passes.items() if each is card)
        wide = [each.astype(np.float64) for each in stress.inputs(operators()[operator], pass_, AXES, "float32", "normal-10")]
        expected = getattr(reference, card.oracle)(*wide)
        for scale, output in zip(getattr(reference, card.scale)(*wide, *expected), expected, strict=True):
            assert (scale >= np.abs(output) * (1 - 1e-12)).all()


@pytest.mark.parametrize("operator", FORWARD)
def test_backward_inputs_are_what_the_forward_pass_gives(operator: str) -> None:
    inputs = stress.inputs(operators()[operator], "backward", AXES, "float16", "normal-10")
    assert [array.dtype for array in inputs] == [np.float16] * len(inputs)
    x = stress.stress("normal-10", ROWS, N, "float16").astype(np.float64)
    (exact,) = FORWARD[operator](x)
    given = inputs[1] if operator == "logsumexp" else inputs[0]
    assert ulp_error(given, exact, "float16").max() <= 0.5


class TestInvariants:
    """Each invariant holds for the oracle's own result and breaks for a spoilt one."""

    x = stress.stress("masked-random", 4, 100).astype(np.float64)

    @pytest.mark.parametrize("operator", FORWARD)
    def test_hold_for_the_truth(self, operator: str) -> None:
        for name in operators()[operator].stress:
            x = stress.stress(name, ROWS, N).astype(np.float64)
            for invariant in operators()[operator].invariants:
                assert getattr(reference, invariant)(x, *FORWARD[operator](x), 2.0**-23) is None, name

    @pytest.mark.parametrize(
        "invariant, operator, spoil",
        [
            ("rows_sum_to_one", "softmax", lambda y: y * 1.001),
            ("non_negative", "softmax", lambda y: np.where(y == y.max(), -y, y)),
            ("zero_where_masked", "softmax", lambda y: y + 1e-45),
            ("exponentials_sum_to_one", "log_softmax", lambda y: y + 1e-3),
            ("at_least_the_maximum", "logsumexp", lambda y: y - 10),
        ],
    )
    def test_break(self, invariant: str, operator: str, spoil: Any) -> None:
        (y,) = FORWARD[operator](self.x)
        assert getattr(reference, invariant)(self.x, y, 2.0**-23) is None
        assert getattr(reference, invariant)(self.x, spoil(y), 2.0**-23)


class TestStress:
    def test_cards_name_only_what_there_is_and_leave_nothing_out(self) -> None:
        common = {name for name in stress.CATALOGUE if not name.startswith("all-")}
        drawn = {each.draw for operator in operators().values() for card in operator.passes.values() for each in card.inputs}
        assert {name for operator in operators().values() for name in operator.stress} | drawn == common

    @pytest.mark.parametrize("name", stress.CATALOGUE)
    def test_the_same_every_time(self, name: str) -> None:
        one, other = (stress.stress(name, 5, 70, "bfloat16", seed=3).view(np.uint16) for _ in range(2))
        np.testing.assert_array_equal(one, other)
        assert one.shape == (5, 70)

    def test_seeds_differ(self) -> None:
        assert not np.array_equal(stress.stress("normal", 1, 8, seed=1), stress.stress("normal", 1, 8, seed=2))

    @pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
    def test_infinities_and_nans_are_where_the_name_says_and_nowhere_else(self, dtype: str) -> None:
        for name in stress.CATALOGUE:
            x = stress.stress(name, 4, 64, dtype).astype(np.float32)
            tests: dict[str, Any] = {"nan": np.isnan, "plus-infinity": np.isposinf}
            odd = tests.get(name, np.isneginf)
            if name in ("nan", "plus-infinity") or name.startswith("masked"):
                assert odd(x).any(), name
                assert (np.isfinite(x) | odd(x)).all(), name
            elif name == "limits":
                assert np.isposinf(x).any() and np.isneginf(x).any() and not np.isnan(x).any()
            elif not name.startswith("all-"):
                assert np.isfinite(x).all(), name
            if name in ("nan", "plus-infinity", "masked-all"):
                assert np.isfinite(x[1::2]).all(), name

    @pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
    def test_every_16_bit_value_is_met(self, dtype: str) -> None:
        x = stress.stress(f"all-{dtype}", 1 << 16, 2, dtype)
        np.testing.assert_array_equal(np.isnan(x[:, 0].astype(np.float32)).sum(), 2046 if dtype == "float16" else 254)
        finite = np.isfinite(x[:, 0].astype(np.float32))
        np.testing.assert_array_equal(x[finite, 0].view(np.uint16), np.arange(1 << 16, dtype=np.uint16)[finite])

    def test_an_unknown_name(self) -> None:
        with pytest.raises(ValueError, match="unknown stress input 'nope'; there are normal,"):
            stress.stress("nope", 1, 1)

    def test_layouts(self) -> None:
        x = stress.stress("normal", 6, 10)
        assert stress.misaligned(x).ctypes.data % 64 == 4
        np.testing.assert_array_equal(stress.misaligned(x), x)
        for layout in stress.STRIDED:
            there = stress.strided(x, layout)
            assert there.strides != x.strides
            np.testing.assert_array_equal(there, np.tile(x[:1], (6, 1)) if layout == "broadcast-row" else x)

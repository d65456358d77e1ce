"""ULPs are the spacing of the output dtype, and nothing slips through: not NaN, not infinity, not a flushed subnormal."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

from ulproof.benchmarks.measure.ulp import flushed, misrounded, spacing, summary, ulp_error
from ulproof.impls._backends.arrays import dtype_named

DTYPES = ("float32", "float16", "bfloat16")
rng = np.random.default_rng(0)


def numbers(dtype: str) -> np.ndarray:
    """All positive finite numbers of a 16-bit type in order; of float32 a sample with both ends."""
    if dtype == "float32":
        bits = np.unique(np.concatenate([rng.integers(1, 0x7F800000, 100_000), [1, 2, 0x7FFFFF, 0x800000, 0x7F7FFFFF]]))
        return bits.astype(np.uint32).view(np.float32)
    found = np.arange(1 << 15, dtype=np.uint16).view(dtype_named(dtype))
    return found[np.isfinite(found.astype(np.float32)) & (found.astype(np.float32) > 0)]


@pytest.mark.parametrize("dtype", DTYPES)
def test_spacing_is_the_distance_to_the_next_number(dtype: str) -> None:
    at = numbers(dtype)
    following = (at.view(np.uint32 if dtype == "float32" else np.uint16) + 1).view(at.dtype).astype(np.float64)
    finite = np.isfinite(following)
    distance = (following - at.astype(np.float64))[finite]
    np.testing.assert_array_equal(spacing(at.astype(np.float64)[finite], dtype), distance)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_correctly_rounded_result_is_half_a_unit_away_and_its_neighbour_more(dtype: str) -> None:
    at = numbers(dtype)[:-1].astype(np.float64)
    exact = at + rng.random(at.size) * spacing(at, dtype)
    rounded = exact.astype(np.float32).astype(dtype_named(dtype)) if dtype != "float32" else exact.astype(np.float32)
    size: type = np.uint32 if dtype == "float32" else np.uint16
    assert ulp_error(rounded, exact, dtype).max() <= 0.5 + 2.0**-14
    above = (rounded.view(size) + 1).view(rounded.dtype)
    error = ulp_error(above, exact, dtype)[np.isfinite(above.astype(np.float32))]
    assert error.min() >= 0.5 - 2.0**-14
    assert error.max() <= 2.5 + 2.0**-14  # 1.5, but that steps double at a power of two


def test_the_unit_is_that_of_the_unrounded_value_below_a_power_of_two() -> None:
    exact = np.array([1 - 2.0**-26])
    assert ulp_error(np.array([1.0], np.float32), exact, "float32")[0] == 2.0**-26 / 2.0**-24


@pytest.mark.parametrize(
    "actual, exact, error",
    [
        (np.nan, np.nan, 0),
        (np.inf, np.inf, 0),
        (-np.inf, -np.inf, 0),
        (-0.0, 0.0, 0),
        (np.nan, 1.0, np.inf),
        (1.0, np.nan, np.inf),
        (np.inf, -np.inf, np.inf),
        (np.inf, 1.0, np.inf),
        (1.0, np.inf, np.inf),
        (np.inf, np.nan, np.inf),
        (0.0, 1.0, 2.0**23),
        (np.inf, 1e39, 0),
        (-np.inf, -1e39, 0),
        (np.inf, -1e39, 2.0**25),
        (3.4028234663852886e38, 1e39, 1),
        (np.nan, 1e39, np.inf),
    ],
)
def test_special_values(actual: float, exact: float, error: float) -> None:
    found = ulp_error(np.array([actual], np.float32), np.array([exact]), "float32")[0]
    assert found == pytest.approx(error, rel=1e-6)


def test_only_zeros_in_place_of_float32_subnormals_are_flushed() -> None:
    exact = np.array([1e-39, 1e-39, 1e-37, 1e-46, 0.0])
    actual = np.array([0, 2e-39, 0, 0, 0], np.float32)
    np.testing.assert_array_equal(flushed(actual, exact, "float32"), [True, False, False, False, False])
    error = ulp_error(actual, exact, "float32")
    assert error[0] == 0
    assert error[1] == pytest.approx(1e-39 / 2.0**-149, rel=1e-5)
    assert error[2] > 2**22
    assert error[3] < 0.5


def test_float16_subnormals_may_not_be_flushed() -> None:
    exact = np.array([3e-6])
    assert not flushed(np.zeros(1, np.float16), exact, "float16").any()
    assert ulp_error(np.zeros(1, np.float16), exact, "float16")[0] == pytest.approx(3e-6 / 2.0**-24)


def test_a_scale_sets_the_unit() -> None:
    error = ulp_error(np.array([2.0**-23], np.float32), np.array([0.0]), "float32", np.array([1.0]))
    assert error[0] == 1


def test_long_arrays_are_judged_in_pieces() -> None:
    exact = np.ones((3, 700_000))
    actual = exact.astype(np.float32)
    actual[2, 699_999] += np.float32(2.0**-22)
    error = ulp_error(actual, exact, "float32", np.full(exact.shape, 2.0))
    assert error.shape == exact.shape
    assert error[2, 699_999] == 1
    assert error.sum() == 1


def test_summary() -> None:
    error = np.zeros(10_000)
    error[:20] = 3
    error[0] = 8
    assert summary(error) == {"max": 8, "p999": 3, "mean": pytest.approx(65 / 10_000)}
    error[0] = np.inf
    assert summary(error) == {"max": None, "p999": 3, "mean": None}
    assert summary(np.zeros(0)) == {"max": 0, "p999": 0, "mean": 0}


def test_bfloat16_is_rounded_as_ml_dtypes_has_it() -> None:
    assert ml_dtypes.finfo(ml_dtypes.bfloat16).eps == spacing(np.ones(1), "bfloat16")[0]


def test_misrounded_counts_all_but_the_nearest() -> None:
    expected = np.array([1.0, 1.0, 1.0, 1 + 2**-11, 1 + 2**-11, 1 + 3 * 2**-11, 1.2, 0.0, np.nan, 1.0])
    actual = np.array([1.0, 1 - 2**-11, 1 + 2**-10, 1.0, 1 + 2**-10, 1 + 2**-10, 1.2, 0.0, np.nan, np.nan], np.float16)
    wrong = [False, True, True, False, True, True, False, False, False, True]
    for one, other, each in zip(actual, expected, wrong, strict=True):
        got, truth = np.array([one]), np.array([other])
        assert misrounded(got, truth, ulp_error(got, truth, "float16")) == each, (one, other)
    assert misrounded(actual, expected, ulp_error(actual, expected, "float16")) == sum(wrong)

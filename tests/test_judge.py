"""The judge of every float32 number: its formulas against the operators' oracles, its errors against those of ulp.py."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ulproof.benchmarks import walk
from ulproof.benchmarks.measure import ulp
from ulproof.impls import operators
from ulproof.impls._backends import stress
from ulproof.impls.activations import OPERATORS, reference

judge: Any = pytest.importorskip("ulproof.benchmarks.measure._judge", reason="built without C++", exc_type=ImportError)

PASSES = ("forward", "backward")
ROWS = 8


def inputs() -> np.ndarray:
    """Float32 numbers of all kinds, a multiple of whole rows of them: stress inputs, and some of all exponents."""
    kinds = ("normal", "normal-10", "log-uniform", "points", "limits", "nan", "denormal", "signed-zeros", "largest")
    stressed = [stress.stress(name, ROWS, walk.ROW) for name in kinds]
    bits = np.arange(ROWS * walk.ROW, dtype=np.uint64) * 0x9E3779B1 % (1 << 32)
    return np.concatenate([*map(np.ravel, stressed), bits.astype(np.uint32).view(np.float32)])


X = inputs()


def given(name: str, pass_: str) -> walk.Walker:
    return walk.Walker(name, pass_, (), X.size)


def truth(name: str, pass_: str, singly: bool = False) -> tuple[np.ndarray, np.ndarray]:
    its = given(name, pass_)
    found: tuple[np.ndarray, np.ndarray] = judge.truth(name, pass_, X, its.scalars, its.learned, its.columns, singly)
    return found


def oracle(name: str, pass_: str) -> tuple[np.ndarray, np.ndarray | None]:
    """The first output and its scale."""
    its, card = given(name, pass_), operators()[name].passes[pass_]
    its.inputs[0].reshape(-1)[:] = X
    with np.errstate(invalid="ignore"):
        wide = [array.astype(np.float64) for array in its.inputs]
    expected = getattr(reference, card.oracle)(*wide, **operators()[name].params)
    scale = getattr(reference, card.scale)(*wide, *expected, **operators()[name].params)[0].ravel() if card.scale else None
    return expected[0].ravel(), scale


def apart(one: np.ndarray, other: np.ndarray, scale: np.ndarray) -> float:
    """The largest distance of two truths in ULPs of float32; beyond it they count as infinite, NaN is NaN."""
    with np.errstate(all="ignore"):
        found = np.abs(one - other) / ulp.spacing(np.where(np.isfinite(scale), scale, 1), "float32")
        beyond = (np.abs(one) > 2.0**128) & (np.abs(other) > 2.0**128) & (np.signbit(one) == np.signbit(other))
        found[beyond | (np.isnan(one) & np.isnan(other))] = 0
    assert not np.isnan(found).any()
    return float(found.max())


def test_there_is_a_formula_of_every_activation() -> None:
    assert set(judge.operators()) == {operator.name for operator in OPERATORS}


@pytest.mark.parametrize("pass_", PASSES)
@pytest.mark.parametrize("name", judge.operators())
def test_the_formulas_are_the_oracles(name: str, pass_: str) -> None:
    found, unit = truth(name, pass_)
    expected, scale = oracle(name, pass_)
    assert apart(found, expected, expected if scale is None else scale) <= 1e-3
    if scale is not None:
        np.testing.assert_allclose(ulp.spacing(unit, "float32"), ulp.spacing(scale, "float32"), rtol=1)


@pytest.mark.parametrize("pass_", PASSES)
@pytest.mark.parametrize("name", judge.operators())
def test_vectors_agree_with_the_c_library(name: str, pass_: str) -> None:
    one, unit = truth(name, pass_)
    other, _ = truth(name, pass_, singly=True)
    assert apart(one, other, unit) <= 1e-3


@pytest.mark.parametrize("pass_", PASSES)
@pytest.mark.parametrize("name", judge.operators())
def test_errors_are_those_of_a_check(name: str, pass_: str) -> None:
    """Of results near the truth and of results that are amiss: the largest error, its place, what is not nearest, flushed."""
    expected, unit = truth(name, pass_)
    scale = unit if operators()[name].passes[pass_].scale else None
    rng = np.random.default_rng(3)
    its = given(name, pass_)
    with np.errstate(all="ignore"):
        right = expected.astype(np.float32)
        near = np.nextafter(right, rng.choice(np.array([-np.inf, np.inf], np.float32), X.size))
    flushed = np.where(np.abs(right) < 2.0**-126, np.float32(0), right)
    amiss = [right.copy() for _ in range(4)]
    for result, value in zip(amiss, (np.nan, np.inf, 0.0, 3.4028235e38), strict=True):
        result[rng.integers(X.size)] = value
    overflown = np.where(np.isinf(right), np.float32(np.nan), right)
    results = [right, near, flushed, overflown, *amiss]
    answers = judge.judge(name, pass_, X, results, its.scalars, its.learned, its.columns)
    for result, (largest, place, misrounded, zeros) in zip(results, answers, strict=True):
        errors = ulp.ulp_error(result, expected, "float32", scale)
        assert largest == errors.max() and errors[place] == largest
        assert zeros == ulp.flushed(result, expected, "float32").sum()
        assert misrounded == ulp.misrounded(result, expected, ulp.ulp_error(result, expected, "float32"))


def test_what_is_no_whole_row_is_refused() -> None:
    its = given("rational_group", "forward")
    with pytest.raises(ValueError, match="whole rows of whole groups"):
        judge.judge("rational_group", "forward", X[:100], [], its.scalars, its.learned, its.columns)
    with pytest.raises(ValueError, match="no formula of swish"):
        judge.judge("swish", "forward", X, [], [], [])
    with pytest.raises(ValueError, match="takes 1 scalar and 0 learned"):
        judge.judge("fatrelu", "forward", X, [], [], [])

"""Errors in ULPs: units in the last place of the output dtype, at the oracle's value or at the card's scale.

- The unit is the spacing of the dtype's numbers in the binade of the oracle's unrounded value; below the smallest normal
  number it is the subnormal spacing. A correctly rounded result is at most 0.5 away.
- NaN for NaN and the same infinity count 0; any other mismatch of NaN or infinity is infinitely wrong. Where the oracle's
  value lies past the dtype's largest finite number, infinity counts as the next number of the grid, and the grid ends there.
- float32 and bfloat16 results below 2^-126 may be flushed to 0, as processors do with flush-to-zero set: such an element
  counts 0 and is reported apart, as ``flushed``. float16 subnormals are within float32's normal range and get no leave.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

SMALLEST_NORMAL = 2.0**-126
PIECE = 1 << 20  # elements that are compared at a time


class Grid(NamedTuple):
    """A binary format: stored mantissa bits, exponent of the smallest normal number, largest finite number."""

    mantissa: int
    lowest: int
    largest: float


GRIDS = {
    "float32": Grid(23, -126, float.fromhex("0x1.fffffep+127")),
    "float16": Grid(10, -14, 65504.0),
    "bfloat16": Grid(7, -126, float.fromhex("0x1.fep+127")),
}


def spacing(value: np.ndarray, dtype: str) -> np.ndarray:
    """The distance between neighbouring ``dtype`` numbers in the binade of each float64 ``value``."""
    grid = GRIDS[dtype]
    bits = np.abs(np.asarray(value, np.float64)).view(np.int64)
    bits >>= 52
    np.clip(bits, grid.lowest + 1023, 2046, out=bits)
    bits -= grid.mantissa
    bits <<= 52
    return bits.view(np.float64)


def ulp_error(actual: np.ndarray, expected: np.ndarray, dtype: str, scale: np.ndarray | None = None) -> np.ndarray:
    """Elementwise error in ULPs, float64, infinite where NaN or infinity is amiss; negative zero equals zero.

    Integers are off by their difference. ``actual`` has dtype ``dtype``, ``expected`` and ``scale`` are float64, all of one
    shape.
    """
    if np.asarray(actual).dtype.kind in "iu":  # counts and indices
        return np.abs(np.asarray(actual, np.float64) - expected)
    actual, expected = np.asarray(actual), np.asarray(expected, np.float64)
    if actual.size > PIECE:
        parts = [slice(start, start + PIECE) for start in range(0, actual.size, PIECE)]
        flat, exact, unit = actual.reshape(-1), expected.reshape(-1), None if scale is None else scale.reshape(-1)
        errors = [ulp_error(flat[part], exact[part], dtype, None if unit is None else unit[part]) for part in parts]
        return np.concatenate(errors).reshape(actual.shape)
    grid = GRIDS[dtype]
    got = actual.astype(np.float64)
    beyond = grid.largest + spacing(np.array([grid.largest]), dtype)[0]
    past = np.isfinite(expected) & (np.abs(expected) >= grid.largest)
    if past.any():
        expected = np.where(past, np.clip(expected, -beyond, beyond), expected)
        got[past] = np.clip(got[past], -beyond, beyond)
    with np.errstate(invalid="ignore", over="ignore"):
        same = (got == expected) | (np.isnan(got) & np.isnan(expected))
        error = np.abs(got - expected)
        error /= spacing(np.clip(expected, -grid.largest, grid.largest) if scale is None else scale, dtype)
    error[flushed(actual, expected, dtype)] = 0
    error[same] = 0
    error[np.isnan(error)] = np.inf
    return error


def flushed(actual: np.ndarray, expected: np.ndarray, dtype: str) -> np.ndarray:
    """Which elements are zeros in place of a float32 or bfloat16 subnormal."""
    if dtype not in ("float32", "bfloat16"):
        return np.zeros(np.shape(actual), bool)
    size = np.abs(expected)
    # Half the subnormal spacing and less rounds to 0 anyway.
    return (np.asarray(actual) == 0) & (size < SMALLEST_NORMAL) & (size > spacing(np.zeros(1), dtype)[0] / 2)


def misrounded(actual: np.ndarray, expected: np.ndarray, error: np.ndarray) -> int:
    """How many elements are not the number nearest to ``expected``, of two the even one. ``error`` is ``ulp_error`` of them."""
    half = error == 0.5  # ties, and a power of two of which the number below was given
    return int((error > 0.5).sum() + (actual[half] != expected[half].astype(actual.dtype)).sum())


def summary(error: np.ndarray) -> dict[str, Any]:
    """``max``, ``p999`` and ``mean`` of an array of errors for a record; ``None`` is infinite, an empty array is all 0."""
    if error.size == 0:
        return {"max": 0.0, "p999": 0.0, "mean": 0.0}
    flat = error.reshape(-1)
    beyond = flat.size - 1 - min(flat.size - 1, int(0.999 * flat.size))  # from the large end: many small errors are alike
    values = {"max": flat.max(), "p999": -np.partition(-flat, beyond)[beyond], "mean": flat.mean(dtype=np.float64)}
    return {name: float(value) if np.isfinite(value) else None for name, value in values.items()}

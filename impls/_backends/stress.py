"""Stress inputs by name, deterministic, in NumPy alone: what softmax-like rows meet in practice and what breaks them.

Every finite value is clamped to the dtype's largest finite one, so that ``offset-1e6`` in float16 is a row near 65504
rather than a row of infinities. Where a stress input puts a NaN or an infinity, it does so in every second row only: the
rows between must stay untouched by it.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np

from .arrays import dtype_named

if TYPE_CHECKING:
    from ..registry import Axes, Operator

LENGTHS = (1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 33, 63, 65, 127, 129, 143, 144, 145, 1000, 4095, 4096, 4097)
LONGER = (65535, 65536, 65537, 1_000_003)
LONGEST = (1 << 26) + 1

Maker = Callable[[np.random.Generator, int, int, Any], np.ndarray]


def _normal(rng: np.random.Generator, rows: int, n: int, spread: float = 1.0, offset: float = 0.0) -> np.ndarray:
    x = rng.standard_normal((rows, n), np.float32)
    if spread != 1:
        x *= np.float32(spread)
    if offset:
        x += np.float32(offset)
    return x


def _spread(spread: float) -> Maker:
    return lambda rng, rows, n, info: _normal(rng, rows, n, spread)


def _offset(offset: float, spread: float = 1.0) -> Maker:
    return lambda rng, rows, n, info: _normal(rng, rows, n, spread, offset)


def _uniform(limit: float) -> Maker:
    def make(rng: np.random.Generator, rows: int, n: int, info: Any) -> np.ndarray:
        x = rng.random((rows, n), np.float32)
        x *= np.float32(2 * limit)
        x -= np.float32(limit)
        return x

    return make


def _equal(rng: np.random.Generator, rows: int, n: int, info: Any) -> np.ndarray:
    # exp = 4/3: its binary digits alternate, so float32 sums of it drift in every binade, not only at 2^24.
    return np.full((rows, n), np.log(4 / 3), np.float32)


def _ramp(direction: int) -> Maker:
    return lambda rng, rows, n, info: np.tile(np.linspace(-100, 100, n, dtype=np.float32)[::direction], (rows, 1))


def _one(value: float, bulk: Maker, every: int = 1) -> Maker:
    """``bulk`` with ``value`` at one random place of each row, or of every second row."""

    def make(rng: np.random.Generator, rows: int, n: int, info: Any) -> np.ndarray:
        x = bulk(rng, rows, n, info)
        chosen = np.arange(0, rows, every)
        x[chosen, rng.integers(0, n, chosen.size)] = value
        return x

    return make


def _at(value: float) -> Maker:
    """Rows near +value, near -value, and of one 0 over a bulk near -value, in turn."""

    def make(rng: np.random.Generator, rows: int, n: int, info: Any) -> np.ndarray:
        x = _normal(rng, rows, n)
        x[0::3] += np.float32(value)
        x[1::3] -= np.float32(value)
        x[2::3] -= np.float32(value)
        x[2::3, n // 2] = 0
        return x

    return make


def _opposed(value: float | None) -> Maker:
    """Values drawn from -value, 0 and +value; ``None`` is the dtype's largest."""

    def make(rng: np.random.Generator, rows: int, n: int, info: Any) -> np.ndarray:
        return rng.integers(-1, 2, (rows, n)).astype(np.float32) * np.float32(info.max if value is None else value)

    return make


def _alternating(rng: np.random.Generator, rows: int, n: int, info: Any) -> np.ndarray:
    x = np.full((rows, n), 3e38, np.float32)
    x[:, 1::2] = -3e38
    return x


def _masked(where: Callable[[np.random.Generator, int], slice | np.ndarray], every: int = 1) -> Maker:
    """N(0, 1) with -inf at ``where(rng, n)``, the same place in each row chosen."""

    def make(rng: np.random.Generator, rows: int, n: int, info: Any) -> np.ndarray:
        x = _normal(rng, rows, n)
        x[::every, where(rng, n)] = -np.inf
        return x

    return make


def _denormal(rng: np.random.Generator, rows: int, n: int, info: Any) -> np.ndarray:
    return _normal(rng, rows, n, float(info.tiny) / 4)


def _signed_zeros(rng: np.random.Generator, rows: int, n: int, info: Any) -> np.ndarray:
    return np.copysign(np.float32(0), _normal(rng, rows, n))


def _all_of(dtype: np.dtype) -> Maker:
    """Row i is (the i-th 16-bit pattern, 0, 0, ...): 65,536 rows of two show every value of the type."""

    def make(rng: np.random.Generator, rows: int, n: int, info: Any) -> np.ndarray:
        x = np.zeros((rows, n), np.float32)
        x[:, 0] = np.arange(rows).astype(np.uint16).view(dtype).astype(np.float32)
        return x

    return make


def _log_uniform(rng: np.random.Generator, rows: int, n: int, info: Any) -> np.ndarray:
    """Every magnitude of the type alike: random signs, exponents and mantissas of its finite numbers, zeros apart."""
    lowest, highest = np.log2(float(info.smallest_subnormal)), np.log2(float(info.max))
    x = np.exp2(rng.uniform(lowest, highest, (rows, n)))
    return np.copysign(x, rng.standard_normal((rows, n))).astype(np.float32)


# Where elementwise operators turn, overflow or fade: thresholds (0.01), knees, the ends of float32's and float16's
# exponentials, sigmoids, Gaussians, squares, cubes, fifth to seventh powers, and where gradients pass through 0.
POINTS = (
    *(0.01, 0.5, 0.7517916, 1, 1.2784645, 1.4142135, 1.7320508, 2, 3.0015, 4.4, 4.9, 5.5, 6, 6.35, 8.3, 9.19, 10, 11.09, 13.3),
    *(14.0, 14.2, 14.58, 16.6, 17.33, 20, 40.3, 44.3, 87.3, 88.7228, 88.8, 89, 103.28, 104, 181, 255.9, 256, 1e4, 65504),
    *(3.2e5, 2.6e6, 5.1e7, 1e8, 7e12, 1.84e19, 2e19, 1e38),
)


def _points(rng: np.random.Generator, rows: int, n: int, info: Any) -> np.ndarray:
    """``POINTS`` with either sign, each met by itself and by neighbours up to three numbers away."""
    x = np.resize(np.asarray(POINTS, np.float32), rows * n)
    steps = rng.integers(-3, 4, x.size)
    near = (x.view(np.int32) + (steps << (23 - int(info.nmant)))).astype(np.int32).view(np.float32)
    return np.copysign(near, rng.standard_normal(x.size)).astype(np.float32).reshape(rows, n)


def _limits(rng: np.random.Generator, rows: int, n: int, info: Any) -> np.ndarray:
    """The last numbers and what lies beyond: infinities, the largest, the smallest normal and subnormal, zeros."""
    ends = np.asarray([np.inf, float(info.max), float(info.tiny), float(info.smallest_subnormal), 0], np.float32)
    return np.copysign(rng.choice(ends, (rows, n)), rng.standard_normal((rows, n))).astype(np.float32)


def _clipped(rng: np.random.Generator, rows: int, n: int, info: Any) -> np.ndarray:
    return np.clip(_normal(rng, rows, n), -1, 1)


CATALOGUE: dict[str, Maker] = {
    "normal": _spread(1),
    "normal-0.1": _spread(0.1),
    "normal-10": _spread(10),
    "normal-100": _spread(100),
    "uniform-40": _uniform(40),
    "uniform-1000": _uniform(1000),
    "equal": _equal,
    "ramp-200": _ramp(1),
    "falling-ramp-200": _ramp(-1),
    "one-huge": _one(1e4, _spread(1e-3)),
    # Each term of the bulk is just below half a float32 ULP of the peak's exponential; together they are not.
    "peak-over-low-bulk": _one(0, _offset(-18.5)),
    "at-88": _at(88),
    "at-89": _at(89),
    "at-104": _at(104),
    "at-710": _at(710),
    "offset-1e4": _offset(1e4),
    "offset-minus-1e4": _offset(-1e4),
    "offset-1e6": _offset(1e6),
    "offset-minus-1e6": _offset(-1e6),
    "offset-1e7": _offset(1e7),
    "offset-minus-1e7": _offset(-1e7),
    # Past 2^24 log 2 = 1.16e7 an exponent is no longer exact as a float32 number.
    "offset-2e7": _offset(2e7, spread=10),
    "offset-1e8": _offset(1e8, spread=100),
    "at-3e38": _opposed(3e38),
    "alternating-huge": _alternating,
    "largest": _opposed(None),
    "masked-one": _masked(lambda rng, n: np.array([rng.integers(n)])),
    "masked-leading": _masked(lambda rng, n: slice(0, n // 2)),
    "masked-trailing": _masked(lambda rng, n: slice(n - n // 2, n)),
    "masked-random": _masked(lambda rng, n: rng.random(n) < 0.5),
    "masked-all": _masked(lambda rng, n: slice(0, n), every=2),
    "plus-infinity": _one(np.inf, _spread(1), every=2),
    "nan": _one(np.nan, _spread(1), every=2),
    "denormal": _denormal,
    "signed-zeros": _signed_zeros,
    "log-uniform": _log_uniform,
    "points": _points,
    "limits": _limits,
    "clipped": _clipped,
    "all-float16": _all_of(np.dtype(np.float16)),
    "all-bfloat16": _all_of(np.dtype(ml_dtypes.bfloat16)),
}


def stress(name: str, rows: int, n: int, dtype: str = "float32", seed: int = 0) -> np.ndarray:
    """The stress input ``name`` as a C-ordered (rows, n) array; the same for the same arguments, on every machine.

    An unknown name raises ``ValueError``.
    """
    if name not in CATALOGUE:
        raise ValueError(f"unknown stress input {name!r}; there are {', '.join(CATALOGUE)}")
    to = dtype_named(dtype)
    info = ml_dtypes.finfo(to)
    x = CATALOGUE[name](np.random.default_rng([zlib.crc32(name.encode()), seed]), rows, n, info)
    if to == np.float32:
        return x
    finite = np.isfinite(x)
    np.clip(x, float(info.min), float(info.max), out=x, where=finite)
    with np.errstate(invalid="ignore"):
        return x.astype(to)


def inputs(operator: Operator, pass_: str, axes: Axes, dtype: str, name: str = "normal", seed: int = 0) -> tuple[Any, ...]:
    """The arrays a pass takes: the first by the stress name, the others as the card says (N(0, 1), or a parameter's values),
    then whatever the card derives from them.

    An unknown stress name raises ``ValueError``.
    """
    card = operator.passes[pass_]
    draws = []
    for position, argument in enumerate(card.inputs):
        shape = argument.shape(axes)
        if argument.values:
            draws.append(np.resize(np.asarray(argument.values, argument.dtype), shape))
            continue
        drawn = argument.draw if position else name
        rows, n = shape[0], int(np.prod(shape[1:]))
        if len(shape) == 1 and not drawn.startswith("all-"):
            rows, n = 1, rows
        its = dtype if argument.dtype == "io" else argument.dtype
        draws.append(stress(drawn, rows, n, its, seed + position).reshape(shape))
    if card.derive is None:
        return tuple(draws)
    from importlib import import_module

    return getattr(import_module(".reference", operator.package), card.derive)(*draws)


def misaligned(array: np.ndarray, by: int | None = None) -> np.ndarray:
    """A copy whose first byte lies ``by`` bytes (one element) past a 64-byte boundary."""
    offset = array.itemsize if by is None else by
    memory = np.empty(array.nbytes + 128, np.uint8)
    start = -memory.ctypes.data % 64 + offset
    copy = memory[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
    copy[...] = array
    return copy


def _padded(array: np.ndarray) -> np.ndarray:
    wide = np.zeros((*array.shape[:-1], array.shape[-1] + 3), array.dtype)
    wide[..., : array.shape[-1]] = array
    return wide[..., : array.shape[-1]]


def _every_second(array: np.ndarray) -> np.ndarray:
    wide = np.zeros((*array.shape[:-1], 2 * array.shape[-1]), array.dtype)
    wide[..., ::2] = array
    return wide[..., ::2]


STRIDED: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "padded-rows": _padded,
    "every-second-element": _every_second,
    "reversed": lambda array: array[..., ::-1].copy()[..., ::-1],
    "reversed-rows": lambda array: array[::-1].copy()[::-1],
    "column-major": np.asfortranarray,
    "broadcast-row": lambda array: np.broadcast_to(array[:1], array.shape),
}


def strided(array: np.ndarray, layout: str) -> np.ndarray:
    """The same values in another memory layout, one of ``STRIDED`` (``broadcast-row`` repeats the first row)."""
    return STRIDED[layout](array)

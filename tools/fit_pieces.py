"""Fits the tables of simd_tables.h: ``python tools/fit_pieces.py FUNCTION ENTRIES DEGREE PER_UNIT`` prints one as C++.

f(-t), t >= 0, becomes ENTRIES polynomials of (t - centre), the centres about 1 / PER_UNIT apart and such that the function
there lies next to a float. Each is minimax in the error relative to the function (a slope: to the card's scale), its
coefficients rounded to float32 one after the other.
Wants NumPy and mpmath.
"""

from __future__ import annotations

import re
import sys
import textwrap
from collections.abc import Callable

import mpmath as mp
import numpy as np

mp.mp.dps = 40
NODES, LAWSON = 160, 60

Function = Callable[[mp.mpf], mp.mpf]

GELU_TANH = mp.sqrt(8 / mp.pi)  # z = GELU_TANH (t + CUBE t^3)
CUBE = mp.mpf("0.044715")


def gelu(t: mp.mpf) -> mp.mpf:
    return -t * mp.ncdf(-t)


def gelu_slope(t: mp.mpf) -> mp.mpf:
    return mp.ncdf(-t) - t * mp.npdf(t)


def gelu_tanh(t: mp.mpf) -> mp.mpf:
    return -t / (1 + mp.exp(GELU_TANH * (t + CUBE * t**3)))


def gelu_tanh_slope(t: mp.mpf) -> mp.mpf:
    s, rise = -gelu_tanh(t) / t if t else mp.mpf(0.5), GELU_TANH * (1 + 3 * CUBE * t * t)
    return s - t * rise * s * (1 - s)


def softplus(t: mp.mpf) -> mp.mpf:
    return mp.log1p(mp.exp(-t))


def terms_of(value: Function, slope: Function) -> Function:
    """The card's scale of a slope: its size or, beside a zero of it, half that of its terms, -f(-t) / t and the rest."""

    def scale(t: mp.mpf) -> mp.mpf:
        first = -value(t) / t
        return max(abs(slope(t)), (first + abs(slope(t) - first)) / 2)

    return scale


# What is fitted, and what errors are relative to.
FUNCTIONS: dict[str, tuple[Function, Function]] = {
    "gelu": (gelu, gelu),
    "gelu_slope": (gelu_slope, terms_of(gelu, gelu_slope)),
    "gelu_tanh": (gelu_tanh, gelu_tanh),
    "gelu_tanh_slope": (gelu_tanh_slope, terms_of(gelu_tanh, gelu_tanh_slope)),
    "softplus": (softplus, softplus),
}


def ulps_from_float(value: mp.mpf) -> float:
    nearest = np.float32(float(value))
    return float(abs(value - mp.mpf(float(nearest))) / abs(mp.mpf(float(np.spacing(nearest)))))


def centre_near(f: Function, place: float, reach: float) -> float:
    """The number of few digits, at most ``reach`` from ``place``, where f lies closest to a float."""
    if place == 0.0:
        return 0.0
    digit = 2.0 ** (np.floor(np.log2(place)) - 19)
    steps = range(-int(reach / digit), int(reach / digit) + 1)
    candidates = (round(place / digit) * digit + step * digit for step in sorted(steps, key=abs))
    best, least = place, 1.0
    for candidate in candidates:
        off = ulps_from_float(f(mp.mpf(candidate)))
        if off < least:
            best, least = candidate, off
        if least < 0.004:
            break
    return best


def minimax(columns: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The coefficients with the least largest error (Lawson's iteration)."""
    weights = np.ones(len(target))
    best, least = np.zeros(columns.shape[1]), np.inf
    for _ in range(LAWSON):
        root = np.sqrt(weights)
        found = np.linalg.lstsq(columns * root[:, None], target * root, rcond=None)[0]
        error = np.abs(columns @ found - target)
        if error.max() < least:
            best, least = found, error.max()
        weights = weights * (error + 1e-30)
        weights /= weights.sum()
    return best


def piece(f: Function, scale: Function, centre: float, begin: float, end: float, degree: int) -> tuple[list[float], float]:
    """The coefficients, lowest first, and the largest error relative to the scale of the polynomial that they are."""
    angles = np.pi * (np.arange(NODES) + 0.5) / NODES
    nodes = [mp.mpf(float(t)) for t in (begin + end) / 2 - (end - begin) / 2 * np.cos(angles)]
    values, scales = [f(t) for t in nodes], [scale(t) for t in nodes]
    offsets = [t - mp.mpf(centre) for t in nodes]
    reach = max(end - centre, centre - begin)
    coefficients = [float(np.float32(float(f(mp.mpf(centre))))) or -0.0]  # so that f(-0) is -0

    def lacking() -> np.ndarray:
        sums = [sum(c * d**k for k, c in enumerate(coefficients)) for d in offsets]
        return np.array([float((v - s) / u) for v, s, u in zip(values, sums, scales, strict=True)])

    for power in range(1, degree + 1):
        powers = range(power, degree + 1)
        columns = np.array([[float((d / reach) ** k / u) for k in powers] for d, u in zip(offsets, scales, strict=True)])
        coefficients.append(float(np.float32(minimax(columns, lacking())[0] / reach**power)))
    return coefficients, float(np.abs(lacking()).max())


def literal(value: float) -> str:
    return re.sub(r"\.?0*p", "p", value.hex()) + "f" if value else f"{value}f"


def main() -> None:
    if len(sys.argv) != 5 or sys.argv[1] not in FUNCTIONS:
        sys.exit(f"usage: python tools/fit_pieces.py FUNCTION ENTRIES DEGREE PER_UNIT, FUNCTION of {', '.join(FUNCTIONS)}")
    name, entries, degree, per_unit = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), float.fromhex(sys.argv[4])
    (f, scale), half = FUNCTIONS[name], 0.5 / per_unit
    rows: list[list[float]] = []
    errors = []
    for entry in range(entries):
        centre = centre_near(f, entry / per_unit, half / 64)
        begin, end = max(0.0, entry / per_unit - half * 1.00001), entry / per_unit + half * 1.00001
        coefficients, error = piece(f, scale, centre, begin, end, degree)
        rows.append([centre, *coefficients])
        errors.append(error)
    print(f"// 2^{np.log2(max(errors)):.1f}")
    variable = f"k{name.title().replace('_', '')}{entries}"
    print(f"inline constexpr PiecesOf<{entries}, {degree}> {variable} = {{{literal(per_unit)}, {{")
    for column in zip(*rows, strict=True):
        line = "{" + ", ".join(literal(each) for each in column) + "},"
        print("\n".join(textwrap.wrap(line, 128, initial_indent="    ", subsequent_indent=" " * 5)))
    print("}};")


if __name__ == "__main__":
    main()

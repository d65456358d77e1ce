"""Quantities as text: SI prefixes for times and rates, binary ones for sizes, three significant digits."""

from __future__ import annotations

import math

MISSING = "–"
_SUPERSCRIPT = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")


def known(value: float | None) -> bool:
    return value is not None and not math.isnan(value)


def digits(value: float, significant: int = 3) -> str:
    """Plain decimal notation with that many significant digits, and no fewer than the integer part has."""
    if value == 0:
        return "0"
    places = significant - 1 - math.floor(math.log10(abs(float(f"{value:.{significant}g}"))))
    return f"{value:.{max(0, places)}f}"


def scaled(value: float | None, unit: str, prefixes: dict[float, str]) -> str:
    if not known(value):
        return MISSING
    assert value is not None
    rounded = float(f"{value:.3g}")
    factor = next((factor for factor in prefixes if abs(rounded) >= factor), min(prefixes))
    return f"{digits(rounded / factor)} {prefixes[factor]}{unit}"


def seconds(value: float | None) -> str:
    return scaled(value, "s", {1.0: "", 1e-3: "m", 1e-6: "µ", 1e-9: "n"})


def rate(value: float | None, unit: str) -> str:
    """``rate(2.5e10, "B/s")`` is 25.0 GB/s."""
    return scaled(value, unit, {1e12: "T", 1e9: "G", 1e6: "M", 1e3: "k", 1.0: ""})


def size(value: float | None) -> str:
    """Bytes as KiB, MiB, GiB."""
    if not known(value):
        return MISSING
    assert value is not None
    for factor, prefix in ((2**30, "Gi"), (2**20, "Mi"), (2**10, "Ki")):
        if value >= factor:
            number = value / factor
            return f"{number:.0f} {prefix}B" if number == round(number) else f"{digits(number)} {prefix}B"
    return f"{value:.0f} B"


def percent(value: float | None) -> str:
    if not known(value):
        return MISSING
    assert value is not None
    return f"{digits(100 * value, 2 if abs(value) < 0.1 else 3)} %"


def ratio(value: float | None) -> str:
    if not known(value):
        return MISSING
    assert value is not None
    return f"{value:.2f} ×"


def ulp(value: float | None) -> str:
    """An error in ULPs; infinite means not finite where the oracle is, or the other way."""
    if not known(value):
        return MISSING
    assert value is not None
    if math.isinf(value):
        return "NaN/∞"
    if value >= 1e5:
        mantissa, exponent = f"{value:.1e}".split("e")
        return f"{mantissa}·10{str(int(exponent)).translate(_SUPERSCRIPT)}"
    return f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 100 else f"{value:.0f}"


def length(value: float) -> str:
    """The extent of an axis: long powers of two as such."""
    number = int(value)
    if number >= 1 << 17 and number & (number - 1) == 0:
        return "2" + str(number.bit_length() - 1).translate(_SUPERSCRIPT)
    return f"{number:,}"

"""The exponential of kernel.cu as a NumPy float32 model, instruction by instruction, with its constants read from the source:
what it costs in ULPs, end to end, and why the shorter sequences won't do. Errors are in units of 2^-24 unless said; at the top
of a binade one of them is one float32 ULP.

PTX states that ex2.approx.ftz.f32 is off by at most 2^-22, relative.
"""

from __future__ import annotations

import ctypes
import re
import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ulproof.impls.softmax import cuda

ON_CPU: dict[str, Any] = runpy.run_path(str(Path(__file__).with_name("cuda_on_cpu.py")))
UNIT = 2.0**-24
EX2 = 2.0**-22 / UNIT
SUM = 2.0**-30 / UNIT  # of a compensated sum and the pair that holds its inverse: thread sums of 2^8 terms lose 2^-32
F32 = np.float32

Constants = dict[str, float]


def constants() -> Constants:
    found = re.findall(r"constexpr float (\w+) = ([\w.+-]+?)f;", cuda.source())
    return {name: float.fromhex(value) if "0x" in value else float(value) for name, value in found}


def fma(a: Any, b: Any, c: Any) -> np.ndarray:
    """a * b + c in float32, rounded once: the product of two float32 is exact in float64, and the sum all but so."""
    return (np.asarray(a, np.float64) * np.asarray(b, np.float64) + np.asarray(c, np.float64)).astype(F32)


def polynomial(f: np.ndarray, known: Constants) -> np.ndarray:
    p = fma(known["C6"], f, known["C5"])
    for name in ("C4", "C3", "C2", "C1"):
        p = fma(p, f, known[name])
    return fma(p, f, 1.0)


def reduced(x: np.ndarray, top: float, known: Constants) -> tuple[np.ndarray, np.ndarray, float]:
    """The fraction f of ``Exp<Float32>``, the integer beside it, and the row's center, for a row whose maximum is ``top``."""
    high, low = known["LOG2E_HI"], known["LOG2E_LO"]
    center = 256 * np.rint(top / 256) if abs(top) >= known["CENTRED"] else 0.0
    exponent = np.rint(F32(top - center) * F32(high))
    t = np.maximum(x - F32(center), F32(top - center) - F32(known["FLUSH"]))
    shift = F32(known["MAGIC"] + 32 - exponent)
    rounded = fma(t, high, shift)
    f = fma(t, low, fma(t, high, shift - rounded))
    return f, (rounded.astype(np.float64) - known["MAGIC"]), float(center + exponent * np.log(2))


def model(x: np.ndarray, top: float, known: Constants) -> np.ndarray:
    f, n, _ = reduced(x, top, known)
    return np.ldexp(polynomial(f, known), n.astype(np.int32))


def error(values: np.ndarray, exact: np.ndarray) -> float:
    return float(np.abs(values.astype(np.float64) / exact - 1).max()) / UNIT


def exp_error(known: Constants) -> float:
    """The largest error of an exponential, over rows near 0 and far from it, wherever exp is not 0."""
    worst = 0.0
    for top in (0.0, 3.0, -80.0, 88.0, 700.0, 1000.0, -1023.5, 1e4, -1e6, 1e7):
        x = np.unique(np.linspace(top - 104, top, 400_001).astype(F32))
        f, n, _ = reduced(x, top, known)
        center = 256 * np.rint(top / 256) if abs(top) >= known["CENTRED"] else 0.0
        exponent = np.rint(F32(top - center) * F32(known["LOG2E_HI"]))
        t = x.astype(np.longdouble) - center
        exact = np.exp(t - (exponent - 32) * np.log(np.longdouble(2)))
        worst = max(
            worst, error(np.ldexp(polynomial(f, known).astype(np.float64), n.astype(np.int32)), exact.astype(np.float64))
        )
    return worst


def softmax_bound(exp: float) -> float:
    """ULPs of y = e / sum e when numerator and sum are off by ``exp`` in opposite directions, and y is rounded once."""
    return 2 * exp + SUM + 0.5


def test_the_model_is_the_source() -> None:
    if ON_CPU["COMPILER"] is None:
        pytest.skip("no C++ compiler (g++ or clang++) to build kernel.cu for the CPU")
    library = ON_CPU["Kernels"]([]).library
    known = constants()
    rng = np.random.default_rng(0)
    for top in (0.0, 5.5, -700.0, 1023.0, 1024.0, 1e6, -3e7, 3e38):
        x = (F32(top) - rng.exponential(30, 100_000).astype(F32)).astype(F32)
        x[:3] = top, -np.inf, -3e38
        y = np.empty_like(x)
        library.exp_relative(
            ctypes.c_float(top), x.ctypes.data_as(ctypes.c_void_p), y.ctypes.data_as(ctypes.c_void_p), ctypes.c_longlong(x.size)
        )
        with np.errstate(over="ignore"):
            np.testing.assert_array_equal(y, model(x, float(F32(top)), known))


def test_softmax_stays_below_4_ulp_at_any_spread_and_offset() -> None:
    exp = exp_error(constants())
    assert exp < 1.6
    assert softmax_bound(exp) < 4


@pytest.mark.parametrize("name", ["C1", "C2", "C3", "C4", "C5", "C6", "LOG2E_HI", "LOG2E_LO"])
def test_a_changed_constant_is_noticed(name: str) -> None:
    known = constants()
    assert exp_error(known | {name: known[name] * 1.1}) > 1.6


def test_ex2_of_the_fraction_could_exceed_4_ulp_in_float32() -> None:
    """Why float32 takes a polynomial: the documented error of ex2.approx enters numerator and sum alike."""
    x = np.linspace(-104, 0, 400_001).astype(F32)
    f, n, _ = reduced(x, 0.0, constants())
    reduction = error(np.exp2(f.astype(np.float64)) * 2 ** (n - 32), np.exp(x.astype(np.float64)))
    assert reduction < 0.5
    assert softmax_bound(reduction + EX2) > 4


def test_ex2_of_a_rounded_product_is_far_off() -> None:
    """What ``__expf`` does: even an exact ex2 amplifies the rounding of x * log2(e)."""
    x = np.linspace(-87, 0, 400_001).astype(F32)
    naive = np.exp2((x * F32(constants()["LOG2E_HI"])).astype(np.float64))
    assert error(naive, np.exp(x.astype(np.float64))) > 60


@pytest.mark.parametrize(("stored", "lowest"), [(10, -24), (7, -133)], ids=["float16", "bfloat16"])
def test_ex2_serves_the_16_bit_types(stored: int, lowest: int) -> None:
    """Their path is ex2.approx of one FMA. A sum of float32 terms loses 31 roundings: 16 vectors a thread, 7 within a vector's
    tree and across lanes and warps, 8 in combining."""
    known = constants()
    top, bias = 3.0, 16.0
    depth = lowest * np.log(2)
    x = np.linspace(top + depth, top, 400_001).astype(F32)
    shift = F32(bias - np.rint(F32(top) * F32(known["LOG2E_HI"])))
    values = np.exp2(fma(x, known["LOG2E_HI"], shift).astype(np.float64))
    exact = np.exp(x.astype(np.float64) - (float(shift) - bias) * -np.log(2)) * 2.0**bias
    common = values[-1] / exact[-1]  # an error that all terms share cancels in e / sum e
    exp = error(values / common, exact) + EX2
    ulps = (2 * exp + 31 + 2) * UNIT / 2.0 ** -(stored + 1)
    assert 0.5 + ulps <= 0.51

"""The activations' arithmetic for Triton; see ``triton_elementwise_kernels``, which holds what other families use too."""

import triton
import triton.language as tl

from .._backends.triton_elementwise_kernels import (
    gated,
    gated_slope,
    plain,
)
from .._backends.triton_math import (
    LN2_HI,
    LN2_LO,
    LOG2E,
    ROUND,
    ROUND_BITS,
    add_pairs,
    divide,
    exp_with,
    expm1_ratio,
    fine_times,
    gaussian,
    limited,
    log1p_ratio,
    logistic,
    parts,
    power,
    product_error,
    reciprocal,
    scaled,
    square_error,
    times,
)


@triton.jit
def sigmoid(x, a, b, WIDE: tl.constexpr):
    p, rest, n, e, r = logistic(limited(x, 120.0), 0.0, WIDE)
    return parts(x < 0.0, times(p, rest, r, WIDE), n, r)


@triton.jit
def sigmoid_slope(x, a, b, WIDE: tl.constexpr):
    p, rest, n, e, r = logistic(limited(x, 120.0), 0.0, WIDE)
    p, rest = fine_times(p, rest, r, WIDE)
    return times(p, rest, r, WIDE), n


@triton.jit
def softplus(x, a, b, WIDE: tl.constexpr):
    p, rest, n = exp_with(-limited(x, 120.0), 0.0, WIDE)
    e = p * power(n)
    ratio = log1p_ratio(e, WIDE)
    return parts(x < 0.0, times(p, rest, ratio, WIDE), n, tl.fma(e, ratio, x))


softplus_slope = sigmoid


@triton.jit
def tanh(x, a, b, WIDE: tl.constexpr):
    """expm1(2 |x|) / (expm1(2 |x|) + 2)"""
    t = limited(x, 10.0)
    shifted = tl.fma(t + t, LOG2E, ROUND)
    n = shifted - ROUND
    f = tl.fma(n, -LN2_HI, t + t)
    f = tl.fma(n, -LN2_LO, f)
    whole = power(shifted.to(tl.int32, bitcast=True) - ROUND_BITS)
    e = tl.fma(f * expm1_ratio(f, True), whole, whole - 1.0)
    y = e * reciprocal(e, 2.0, WIDE)
    return plain(tl.where(t < 0.000244140625, x, tl.where(x < 0.0, -y, y)))


@triton.jit
def tanh_slope(x, a, b, WIDE: tl.constexpr):
    p, rest, n, e, r = logistic(2.0 * limited(x, 60.0), 0.0, WIDE)
    p, rest = fine_times(p, rest, r, WIDE)
    return times(p, rest, 4.0 * r, WIDE), n


@triton.jit
def exp(x, a, b, WIDE: tl.constexpr):
    z = tl.minimum(x, 100.0, propagate_nan=tl.PropagateNan.ALL)
    p, rest, n = exp_with(tl.maximum(z, -120.0, propagate_nan=tl.PropagateNan.ALL), 0.0, WIDE)
    return p, n


@triton.jit
def exp_slope(x, a, b, WIDE: tl.constexpr):
    """Infinite where it is no float32 number, whatever it is multiplied by"""
    p, n = exp(x, a, b, WIDE)
    return tl.where(x > 88.7228394, float("inf"), p), n


ROOT = tl.constexpr(float.fromhex("0x1.988454p+0"))  # sqrt(8 / pi) in two floats, and 0.044715 times it
ROOT_LOW = tl.constexpr(float.fromhex("-0x1.857936p-25"))
CUBE = tl.constexpr(float.fromhex("0x1.2444f2p-4"))
CUBE_LOW = tl.constexpr(float.fromhex("0x1.49b16ap-29"))


@triton.jit
def gelu_tanh_exponent(t, WIDE: tl.constexpr):
    """sqrt(8 / pi) (t + 0.044715 t^3) in two floats"""
    square = t * t
    cube = square * CUBE
    root = tl.full(t.shape, ROOT, tl.float32)
    if WIDE:
        rest = product_error(square, tl.full(t.shape, CUBE, tl.float32), cube)
        rest += tl.fma(square_error(t, square), CUBE, square * CUBE_LOW) + ROOT_LOW
        total, low = add_pairs(root, rest, cube, 0.0)
        z = t * total
        return z, tl.fma(t, low, product_error(t, total, z))
    else:
        return t * (root + cube), tl.zeros(t.shape, tl.float32)


@triton.jit
def gelu_tanh(x, a, b, WIDE: tl.constexpr):
    """x s(z), z = sqrt(8 / pi) (x + 0.044715 x^3)"""
    z, low = gelu_tanh_exponent(limited(x, 12.0), WIDE)
    return gated(x, z, low, WIDE)


@triton.jit
def gelu_tanh_slope(x, a, b, WIDE: tl.constexpr):
    t = limited(x, 12.0)
    z, low = gelu_tanh_exponent(t, WIDE)
    square = t * t
    slope = tl.fma(square, 3.0 * CUBE, ROOT)
    w = t * slope
    w_low = 0.0 * t
    if WIDE:
        w_low = tl.fma(t, tl.fma(square, 3.0 * CUBE, ROOT - slope), product_error(t, slope, w))
    return gated_slope(x, z, low, w, w_low, WIDE)


@triton.jit
def hermite(x, a, b, WIDE: tl.constexpr):
    """a: coefficients of x^3, x^2, x, 1"""
    p = tl.fma(x, tl.load(a), tl.load(a + 1))
    p = tl.fma(p, x, tl.load(a + 2))
    return plain(tl.fma(p, x, tl.load(a + 3)))


@triton.jit
def hermite_slope(x, a, b, WIDE: tl.constexpr):
    p = tl.fma(x, 3.0 * tl.load(a), 2.0 * tl.load(a + 1))
    return plain(tl.fma(p, x, tl.load(a + 2)))


@triton.jit
def corrected(p, slope, x, square, WIDE: tl.constexpr):
    """p(square) at x^2, whose rounding error is worth three of a seventh power"""
    if WIDE:
        low = square_error(x, square) * slope
        p += tl.where(tl.abs(low) < float("inf"), low, 0.0)
    return p


@triton.jit
def hermite_1(x, a, b, WIDE: tl.constexpr):
    """a: coefficients of x^7, x^5, x^3, x"""
    square = x * x
    p = tl.fma(square, tl.load(a), tl.load(a + 1))
    p = tl.fma(p, square, tl.load(a + 2))
    p = tl.fma(p, square, tl.load(a + 3))
    slope = tl.fma(square, 3.0 * tl.load(a), 2.0 * tl.load(a + 1))
    return plain(x * corrected(p, tl.fma(slope, square, tl.load(a + 2)), x, square, WIDE))


@triton.jit
def hermite_1_slope(x, a, b, WIDE: tl.constexpr):
    square = x * x
    p = tl.fma(square, 7.0 * tl.load(a), 5.0 * tl.load(a + 1))
    p = tl.fma(p, square, 3.0 * tl.load(a + 2))
    p = tl.fma(p, square, tl.load(a + 3))
    slope = tl.fma(square, 21.0 * tl.load(a), 10.0 * tl.load(a + 1))
    return plain(corrected(p, tl.fma(slope, square, 3.0 * tl.load(a + 2)), x, square, WIDE))


@triton.jit
def signed(t, x):
    return tl.where(x < 0.0, -t, t)


@triton.jit
def crrelu(x, a, b, WIDE: tl.constexpr):
    """max(x, 0) + eps x exp(-x^2 / 2)"""
    t = limited(x, 18.0)
    v = signed(t, x) * tl.load(a)
    p, rest, n = gaussian(t, WIDE)
    return parts(~(x > 0.0), times(p, rest, v, WIDE), n, tl.fma(v, p * power(n), x))


@triton.jit
def crrelu_slope(x, a, b, WIDE: tl.constexpr):
    t = limited(x, 18.0)
    v = tl.fma(-t, t, 1.0) * tl.load(a)
    p, rest, n = gaussian(t, WIDE)
    return parts(~(x > 0.0), times(p, rest, v, WIDE), n, tl.fma(v, p * power(n), 1.0))


@triton.jit
def crrelu_terms(x, a, b, WIDE: tl.constexpr):
    t = limited(x, 18.0)
    p, rest, n = gaussian(t, WIDE)
    return (scaled(signed(t, x) * p, n, 1.0),)


@triton.jit
def poly_relu(x, a, b, WIDE: tl.constexpr):
    """w0 r^3 + w1 r^2 + w2 r + b, r = max(x, 0)"""
    p = tl.fma(x, tl.load(a), tl.load(a + 1))
    p = tl.fma(p, x, tl.load(a + 2))
    return plain(tl.where(x <= 0.0, tl.load(b), tl.fma(p, x, tl.load(b))))


@triton.jit
def poly_relu_slope(x, a, b, WIDE: tl.constexpr):
    p = tl.fma(x, 3.0 * tl.load(a), 2.0 * tl.load(a + 1))
    return plain(tl.where(x <= 0.0, 0.0, tl.fma(p, x, tl.load(a + 2))))


@triton.jit
def poly_relu_terms(x, a, b, WIDE: tl.constexpr):
    r = tl.where(x <= 0.0, 0.0, x)
    return r * r * r, r * r, r, tl.full(r.shape, 1.0, tl.float32)


# P / Q of degrees 5 and 4. VERSION A: Q = 1 + sum |b_j x^j|; B: 1 + |sum b_j x^j|; C: 0.1 + |sum b_j x^j|, j from 0;
# N: 1 + sum b_j x^j. From 2^16 on, where x^5 might overflow, both are taken of v = 1 / x, with their coefficients reversed.


@triton.jit
def sign(x):
    return tl.where(x > 0.0, 1.0, tl.where(x < 0.0, -1.0, 0.0))


@triton.jit
def element(b, j: tl.constexpr, VERSION: tl.constexpr):
    """The coefficient of x^j in Q's sum"""
    if VERSION == "C":
        return tl.load(b + j)
    elif j == 0:
        return tl.load(b) * 0.0
    elif VERSION == "A":
        return tl.abs(tl.load(b + j - 1))
    else:
        return tl.load(b + j - 1)


@triton.jit
def rational_at(x, a, b, VERSION: tl.constexpr, WIDE: tl.constexpr):
    """far, v, s (its size in version A), Q, P / Q, the slope of P / Q in v, and the sign of Q's sum"""
    far = tl.abs(x) > 65536.0
    v = tl.where(far, divide(1.0, x, WIDE), x)
    s = tl.abs(v) if VERSION == "A" else v
    p = tl.where(far, tl.load(a), tl.load(a + 5))
    dp = 5.0 * p
    last = p
    total = tl.where(far, element(b, 0, VERSION), element(b, 4, VERSION))
    slope = 0.0 * total
    for i in tl.static_range(1, 6):
        c = tl.where(far, tl.load(a + i), tl.load(a + 5 - i))
        p = tl.fma(p, v, c)
        if i < 4:
            dp = tl.fma(dp, v, (5.0 - i) * c)
        elif i == 4:
            last = c
        if i < 5:
            slope = tl.fma(slope, s, total)
            total = tl.fma(total, s, tl.where(far, element(b, i, VERSION), element(b, 4 - i, VERSION)))
    one = 0.1 if VERSION == "C" else 1.0
    cube = v * v * v
    side = sign(total) if VERSION == "B" or VERSION == "C" else tl.full(total.shape, 1.0, tl.float32)
    q = tl.where(far, one * cube * v, one) + side * total
    along = sign(v) if VERSION == "A" else side
    dq = along * slope + tl.where(far, 4.0 * one * cube, 0.0)
    ratio = divide(p, q, WIDE)
    numerator = last + tl.fma(dp, v, -ratio * dq)  # near 0 the first term is all but alone
    return far, v, s, q, ratio, divide(numerator, q, WIDE), side


@triton.jit
def rational_value(x, a, b, VERSION: tl.constexpr, WIDE: tl.constexpr):
    far, v, s, q, ratio, slope, side = rational_at(x, a, b, VERSION, WIDE)
    return plain(tl.where(far, x * ratio, ratio))


@triton.jit
def rational_slope_of(x, a, b, VERSION: tl.constexpr, WIDE: tl.constexpr):
    far, v, s, q, ratio, slope, side = rational_at(x, a, b, VERSION, WIDE)
    return plain(tl.where(far, tl.fma(-v, slope, ratio), slope))


@triton.jit
def rational_terms_of(x, a, b, VERSION: tl.constexpr, WIDE: tl.constexpr):
    """x^i / Q for i = 0..5, then -P / Q^2 dQ/db_j"""
    far, v, s, q, ratio, slope, side = rational_at(x, a, b, VERSION, WIDE)
    f0 = divide(1.0, q, WIDE)
    f1 = f0 * v
    f2 = f1 * v
    f3 = f2 * v
    f4 = f3 * v
    c0 = -ratio * f0 * side
    c1 = c0 * s
    c2 = c1 * s
    c3 = c2 * s
    c4 = c3 * s
    turn = sign(x) if VERSION == "A" else 1.0  # far away x^j / x^3, whose size is that of s^(3 - j)
    d1, d2 = tl.where(far, c2 * turn, c1), tl.where(far, c1 * turn, c2)
    d3, d4 = tl.where(far, c0 * turn, c3), tl.where(far, c0 * x, c4)
    if VERSION == "A":
        d1 *= sign(tl.load(b))
        d2 *= sign(tl.load(b + 1))
        d3 *= sign(tl.load(b + 2))
        d4 *= sign(tl.load(b + 3))
    g0, g1 = tl.where(far, f4, f0), tl.where(far, f3, f1)
    g3, g4, g5 = tl.where(far, f1, f3), tl.where(far, f0, f4), tl.where(far, x * f0, f4 * v)
    if VERSION == "C":
        return g0, g1, f2, g3, g4, g5, tl.where(far, c3, c0), d1, d2, d3, d4
    else:
        return g0, g1, f2, g3, g4, g5, d1, d2, d3, d4


@triton.jit
def rational(x, a, b, WIDE: tl.constexpr):
    return rational_value(x, a, b, "A", WIDE)


@triton.jit
def rational_slope(x, a, b, WIDE: tl.constexpr):
    return rational_slope_of(x, a, b, "A", WIDE)


@triton.jit
def rational_terms(x, a, b, WIDE: tl.constexpr):
    return rational_terms_of(x, a, b, "A", WIDE)


@triton.jit
def rational_b(x, a, b, WIDE: tl.constexpr):
    return rational_value(x, a, b, "B", WIDE)


@triton.jit
def rational_b_slope(x, a, b, WIDE: tl.constexpr):
    return rational_slope_of(x, a, b, "B", WIDE)


@triton.jit
def rational_b_terms(x, a, b, WIDE: tl.constexpr):
    return rational_terms_of(x, a, b, "B", WIDE)


@triton.jit
def rational_c(x, a, b, WIDE: tl.constexpr):
    return rational_value(x, a, b, "C", WIDE)


@triton.jit
def rational_c_slope(x, a, b, WIDE: tl.constexpr):
    return rational_slope_of(x, a, b, "C", WIDE)


@triton.jit
def rational_c_terms(x, a, b, WIDE: tl.constexpr):
    return rational_terms_of(x, a, b, "C", WIDE)


@triton.jit
def rational_n(x, a, b, WIDE: tl.constexpr):
    return rational_value(x, a, b, "N", WIDE)


@triton.jit
def rational_n_slope(x, a, b, WIDE: tl.constexpr):
    return rational_slope_of(x, a, b, "N", WIDE)


@triton.jit
def rational_n_terms(x, a, b, WIDE: tl.constexpr):
    return rational_terms_of(x, a, b, "N", WIDE)

"""Device functions that every Triton kernel shares: the exponential in two parts, exact scaling, maxima and rounding.

The exponential avoids ``tl.exp``, which is ``ex2.approx`` of a rounded product (63 ULP at the far end of its range), and
``ex2.approx`` itself: its documented relative error of 2^-22 is 4 ULP alone. Instead, for abs(z) <= 1443,

    n = rint(z log2(e))            z log2(e) + 1.5 2^23 in one FMA; n is in the low bits of the sum
    t = z - n LN2_HI - n LN2_LO    two FMAs; LN2_HI has 12 bits, so n LN2_HI is exact even where FMA rounds twice
    p = a polynomial in t          by Horner, FMAs; off by 0.054 * 2^-24 at degree 6, by 49 * 2^-24 at degree 4

and exp(z) = p 2^n, with all roundings off by at most 1.3 * 2^-24 and 50 * 2^-24. The caller subtracts integers n, which is
exact, where others subtract the maximum, which is not. Degree 6 serves float32, and degree 4 the 16-bit types, whose half
ULP it moves by less than 0.007.

Importing this module imports Triton. Kernels are interpreted when TRITON_INTERPRET=1 was set before that.
"""

import triton
import triton.language as tl

INTERPRETED = tl.constexpr(bool(triton.knobs.runtime.interpret))

LOG2E = tl.constexpr(1.4426950408889634)
LN2 = tl.constexpr(0.6931471805599453)
LN2_HI = tl.constexpr(0.693115234375)  # 0x1.62ep-1
LN2_LO = tl.constexpr(3.194618495e-05)
ROUND = tl.constexpr(12582912.0)  # 1.5 * 2^23: adding it rounds to an integer
ROUND_BITS = tl.constexpr(0x4B400000)  # its bits: those of the sum less these are the integer
LOWEST = tl.constexpr(-1000.0)  # stands for every smaller input: 2^n then vanishes against any maximum above -256


@triton.jit
def expm1_ratio(t, WIDE: tl.constexpr):
    """(exp(t) - 1) / t for abs(t) <= ln(2) / 2"""
    if WIDE:
        p = tl.fma(t, 0.00138210203, 0.00836886093)
        p = tl.fma(t, p, 0.0416682661)
        p = tl.fma(t, p, 0.166665196)
        p = tl.fma(t, p, 0.49999994)
        p = tl.fma(t, p, 1.0)
    else:
        p = tl.fma(t, 0.0415126234, 0.167883113)
        p = tl.fma(t, p, 0.500030577)
        p = tl.fma(t, p, 0.999966383)
    return p


@triton.jit
def exp_polynomial(t, WIDE: tl.constexpr):
    """exp(t) for abs(t) <= ln(2) / 2"""
    return tl.fma(t, expm1_ratio(t, WIDE), 1.0)


@triton.jit
def exp_parts(z, WIDE: tl.constexpr):
    """(p, bits) with exp(z) = p 2^(bits - ROUND_BITS), z float32 in [-1000, 1000]; NaN gives a NaN p."""
    shifted = tl.fma(z, LOG2E, ROUND)
    n = shifted - ROUND
    t = tl.fma(n, -LN2_HI, z)
    t = tl.fma(n, -LN2_LO, t)
    return exp_polynomial(t, WIDE), shifted.to(tl.int32, bitcast=True)


@triton.jit
def power(k):
    """2^k as float32 for int32 k <= 127; 0 below -126."""
    return (tl.maximum(k + 127, 0) << 23).to(tl.float32, bitcast=True)


@triton.jit
def power64(k):
    """2^k as float64 for int32 k in [-1022, 1023]."""
    return ((k.to(tl.int64) + 1023) << 52).to(tl.float64, bitcast=True)


@triton.jit
def max_or_nan(a, b):
    return tl.maximum(a, b, propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def maximum(x, axis: tl.constexpr):
    """Maximum along the last axis, NaN when there is one; ``tl.max`` drops NaN. x is (n,) or (rows, n)."""
    if INTERPRETED:
        # The interpreter calls a combining function once an element; halving takes log2(n) calls.
        x = tl.reshape(x, [1, x.shape[0]]) if axis == 0 else x
        while x.shape[1] > 1:
            left, right = tl.split(tl.reshape(x, [x.shape[0], x.shape[1] // 2, 2]))
            x = max_or_nan(left, right)
        x = tl.sum(x, 1)
        return tl.sum(x, 0) if axis == 0 else x
    else:
        return tl.reduce(x, axis, max_or_nan)


@triton.jit
def add_pairs(s1, c1, s2, c2):
    """Sum of two unevaluated sums s + c, by Knuth's TwoSum: c gathers what the additions of s lose."""
    s = s1 + s2
    b = s - s1
    return s, (c1 + c2) + ((s1 - (s - b)) + (s2 - b))


@triton.jit
def sum_of_pairs(s, c, axis: tl.constexpr, WIDE: tl.constexpr):
    """float64 sum of float32 s + c along an axis; not WIDE: of s alone, by float32 additions.

    Relative to the sum of magnitudes it is off by at most k^2 2^-48 where a term goes through k additions: 2^-35 with 64
    elements a thread in 32 warps.
    """
    if not WIDE:
        return tl.sum(s, axis).to(tl.float64)
    elif INTERPRETED:  # as in ``maximum``
        return tl.sum(s.to(tl.float64) + c.to(tl.float64), axis)
    else:
        s, c = tl.reduce((s, c), axis, add_pairs)
        return s.to(tl.float64) + tl.where(tl.abs(s) < float("inf"), c, 0.0).to(tl.float64)  # inf's correction is NaN


@triton.jit
def total_of(x, axis: tl.constexpr, WIDE: tl.constexpr):
    """float64 sum of float32 x along an axis, see ``sum_of_pairs``."""
    return sum_of_pairs(x, tl.full(x.shape, -0.0, tl.float32), axis, WIDE)


@triton.jit
def rounded(x, dtype: tl.constexpr):
    """float32 to ``dtype``, round to nearest even. The interpreter truncates to bfloat16, so there it is done on bits."""
    if INTERPRETED and dtype == tl.bfloat16:
        bits = x.to(tl.uint32, bitcast=True)
        bits = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
        return tl.where(x == x, bits, 0x7FC0).to(tl.uint16).to(tl.bfloat16, bitcast=True)
    else:
        return x.to(dtype)


@triton.jit
def widened(x):
    """To float32, exactly. The interpreter gets denormal bfloat16 wrong, so there it is done on bits."""
    if INTERPRETED and x.dtype == tl.bfloat16:
        return (x.to(tl.uint16, bitcast=True).to(tl.uint32) << 16).to(tl.float32, bitcast=True)
    else:
        return x.to(tl.float32)


@triton.jit
def bound(n):
    """n as the end of a loop. Triton 3.6 under NumPy 2.4 can't interpret a loop that ends at a tensor."""
    if INTERPRETED:
        return n.handle.data.item()
    else:
        return n


# The mathematics of the activations. A value may be two parts, q 2^n, so that whoever multiplies by another factor (a gate, a
# gradient) rounds a denormal result once and after that factor. Arguments are limited before exponents are taken, so the
# infinities give the limits; NaN gives NaN.


@triton.jit
def scaled(q, n, factor):
    """factor q 2^n, n in [-252, 254]"""
    half = n >> 1
    return q * factor * power(half) * power(n - half)


@triton.jit
def limited(x, most):
    """min(|x|, most), NaN for NaN"""
    return tl.minimum(tl.abs(x), most, propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def fused(x, y, z):
    """x y + z, rounded once; Triton 3.6 interprets ``tl.fma`` as a product and a sum."""
    if INTERPRETED:
        return (x.to(tl.float64) * y.to(tl.float64) + z).to(tl.float32)
    else:
        return tl.fma(x, y, z)


@triton.jit
def reciprocal(x, y, WIDE: tl.constexpr):
    """1 / (x + y) for a sum in [1, 2^100], y being 1, 2 or 3: of the exact sum, within 0.51 ULP; or, not WIDE, 2 ULP."""
    d = x + y
    r = 1.0 / d
    if WIDE:
        r = tl.fma(tl.fma(-r, x - (d - y), fused(-d, r, 1.0)), r, r)
    return r


@triton.jit
def divide(x, y, WIDE: tl.constexpr):
    """x / y, rounded once, or, not WIDE, within 2 ULP"""
    if WIDE and not INTERPRETED:
        return tl.math.div_rn(x, y)
    else:
        return x / y


@triton.jit
def product_error(x, y, product):
    """x y - product, exactly"""
    return fused(x, y, -product)


@triton.jit
def square_error(x, square):
    return product_error(x, x, square)


@triton.jit
def times(p, low, x, WIDE: tl.constexpr):
    """(p + low) x, rounded once"""
    return fused(p, x, low * x) if WIDE else p * x


@triton.jit
def fine_times(p, low, x, WIDE: tl.constexpr):
    """(p + low) x in two floats"""
    q = p * x
    return q, (tl.fma(low, x, product_error(p, x, q)) if WIDE else low)


@triton.jit
def exp_with(z, low, WIDE: tl.constexpr):
    """(p, rest, n) with exp(z + low) = (p + rest) 2^n, z in [-172, 176], low far smaller; not WIDE: rest is 0."""
    shifted = tl.fma(z, LOG2E, ROUND)
    n = shifted - ROUND
    t = tl.fma(n, -LN2_HI, z)
    t = tl.fma(n, -LN2_LO, t) + low
    ratio = expm1_ratio(t, WIDE)
    p = tl.fma(t, ratio, 1.0)
    rest = fused(t, ratio, 1.0 - p) if WIDE else tl.zeros(t.shape, tl.float32)
    return p, rest, shifted.to(tl.int32, bitcast=True) - ROUND_BITS


@triton.jit
def gaussian(t, WIDE: tl.constexpr):
    """(p, rest, n) with exp(-t^2 / 2) = (p + rest) 2^n for t in [0, 18], the square in two floats."""
    square = t * t
    return exp_with(-0.5 * square, -0.5 * square_error(t, square), WIDE)


@triton.jit
def mills(t, WIDE: tl.constexpr):
    """exp(t^2 / 2) erfc(t / sqrt(2)) / 2 for t in [0, 15], in two floats: r = 1 / (t + 3) times a polynomial in 1 - 6 r,
    within 2^-29.9, or 2^-18.2."""
    r = reciprocal(t, 3.0, WIDE)
    q = tl.fma(r, -6.0, 1.0)
    if WIDE:
        d = t + 3.0
        r_low = tl.fma(-r, t - (d - 3.0), fused(-d, r, 1.0)) * r
        q = tl.fma(tl.fma(-q, t, tl.fma(q + 1.0, -3.0, t)), r, q)
        p = tl.fma(q, 5.44894028e-05, 1.31330773e-04)
        p = tl.fma(p, q, -2.44730181e-04)
        p = tl.fma(p, q, -1.0325741e-03)
        p = tl.fma(p, q, 1.0247539e-03)
        p = tl.fma(p, q, 6.96931127e-03)
        p = tl.fma(p, q, -1.04625132e-02)
        p = tl.fma(p, q, -4.72626872e-02)
        p = tl.fma(p, q, 2.30017707e-01)
        rest = tl.fma(p, q, -5.09332001e-01)
        p = tl.fma(rest, q, 7.29083717e-01)
        p_low = tl.fma(rest, q, 7.29083717e-01 - p)
        product = r * p
        return product, product_error(r, p, product) + tl.fma(r, p_low, r_low * p)
    else:
        p = tl.fma(q, 1.37004012e-03, 6.1293277e-03)
        p = tl.fma(p, q, -1.07866386e-02)
        p = tl.fma(p, q, -4.7033608e-02)
        p = tl.fma(p, q, 2.30075046e-01)
        p = tl.fma(p, q, -5.09349823e-01)
        p = tl.fma(p, q, 7.29082525e-01)
        return r * p, tl.zeros(t.shape, tl.float32)


@triton.jit
def log1p_ratio(e, WIDE: tl.constexpr):
    """log(1 + e) / e for e in [0, 1], within 2^-27.7, or 2^-19.6."""
    if WIDE:
        p = tl.fma(e, -3.24398093e-03, 1.98512636e-02)
        p = tl.fma(p, e, -5.69591597e-02)
        p = tl.fma(p, e, 1.06036171e-01)
        p = tl.fma(p, e, -1.53055698e-01)
        p = tl.fma(p, e, 1.96759313e-01)
        p = tl.fma(p, e, -2.49541327e-01)
        p = tl.fma(p, e, 3.33299637e-01)
        p = tl.fma(p, e, -4.99999017e-01)
        p = tl.fma(p, e, 1.0)
    else:
        p = tl.fma(e, 1.41408434e-02, -6.64012581e-02)
        p = tl.fma(p, e, 1.49223268e-01)
        p = tl.fma(p, e, -2.3503828e-01)
        p = tl.fma(p, e, 3.31094414e-01)
        p = tl.fma(p, e, -4.99869645e-01)
        p = tl.fma(p, e, 9.99998748e-01)
    return p


@triton.jit
def logistic(t, low, WIDE: tl.constexpr):
    """(p, rest, n, e, r) for t + low >= 0: e = exp(-t - low) = (p + rest) 2^n, r = 1 / (1 + e)."""
    p, rest, n = exp_with(-t, -low, WIDE)
    e = p * power(n)
    return p, rest, n, e, reciprocal(e, 1.0, WIDE)


@triton.jit
def parts(negative, q, n, other):
    """q 2^n where ``negative``, else ``other``"""
    return tl.where(negative, q, other), tl.where(negative, n, 0)

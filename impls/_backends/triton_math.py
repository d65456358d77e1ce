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
def exp_parts(z, WIDE: tl.constexpr):
    """(p, bits) with exp(z) = p 2^(bits - ROUND_BITS), z float32 in [-1000, 1000]; NaN gives a NaN p."""
    shifted = tl.fma(z, LOG2E, ROUND)
    n = shifted - ROUND
    t = tl.fma(n, -LN2_HI, z)
    t = tl.fma(n, -LN2_LO, t)
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
    return tl.fma(t, p, 1.0), shifted.to(tl.int32, bitcast=True)


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
        return s.to(tl.float64) + c.to(tl.float64)


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

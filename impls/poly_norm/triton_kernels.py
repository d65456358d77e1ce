"""Triton kernels of poly_norm; ``triton.py`` beside this plans and launches them.

Moments are summed in pairs of float32; what follows from them, once a row, is computed in float64. The backward pass takes
x in units of a power of two near its root mean square, so that no coefficient of x^5 leaves float32.
"""

import triton
import triton.language as tl

from .._backends.triton_elementwise_kernels import put, read
from .._backends.triton_math import bound, total_of


@triton.jit
def inverse(total, n, eps):
    """1 / sqrt(mean + eps), float64"""
    return 1.0 / tl.sqrt(total / n + tl.load(eps).to(tl.float64))


@triton.jit
def moments(x):
    """Sums of x^2, x^4 and x^6 of each row, float64"""
    square = x * x
    fourth = square * square
    return total_of(square, 1, True), total_of(fourth, 1, True), total_of(square * fourth, 1, True)


@triton.jit
def tallies(x, dy):
    """Sums of dy x, dy x^2, dy x^3 and dy of each row, float64"""
    one = dy * x
    return total_of(one, 1, True), total_of(one * x, 1, True), total_of(one * (x * x), 1, True), total_of(dy, 1, True)


@triton.jit
def value_coefficients(m1, m2, m3, n, eps, w):
    """Of x, x^2 and x^3"""
    c1 = (tl.load(w + 2) * inverse(m1, n, eps)).to(tl.float32)
    c2 = (tl.load(w + 1) * inverse(m2, n, eps)).to(tl.float32)
    c3 = (tl.load(w) * inverse(m3, n, eps)).to(tl.float32)
    return c1[:, None], c2[:, None], c3[:, None]


@triton.jit
def value(x, c1, c2, c3, b):
    return tl.fma(tl.fma(tl.fma(x, c3, c2), x, c1), x, tl.load(b))


@triton.jit
def slope_coefficients(m1, m2, m3, s1, s2, s3, n, eps, w):
    """The unit of x; coefficients of dy, dy x, dy x^2, and of x, x^3, x^5; what the row adds to dw"""
    i1, i2, i3 = inverse(m1, n, eps), inverse(m2, n, eps), inverse(m3, n, eps)
    unit = (i1.to(tl.float32).to(tl.int32, bitcast=True) & 0x7F800000).to(tl.float32, bitcast=True)
    back = 1.0 / unit.to(tl.float64)
    w1, w2, w3 = tl.load(w + 2).to(tl.float64), 2.0 * tl.load(w + 1).to(tl.float64), 3.0 * tl.load(w).to(tl.float64)
    a1, a2, a3 = (w1 * i1).to(tl.float32), (w2 * i2 * back).to(tl.float32), (w3 * i3 * back * back).to(tl.float32)
    d1 = (-w1 / n * i1 * i1 * i1 * s1 * back).to(tl.float32)
    d2 = (-w2 / n * i2 * i2 * i2 * s2 * back * back * back).to(tl.float32)
    d3 = (-w3 / n * i3 * i3 * i3 * s3 * back * back * back * back * back).to(tl.float32)
    return unit, a1, a2, a3, d1, d2, d3, i3 * s3, i2 * s2, i1 * s1


@triton.jit
def slope(x, dy, unit, a1, a2, a3, d1, d2, d3):
    t = x * unit[:, None]
    square = t * t
    d = tl.fma(tl.fma(square, d3[:, None], d2[:, None]), square, d1[:, None])
    a = tl.fma(tl.fma(t, a3[:, None], a2[:, None]), t, a1[:, None])
    return tl.fma(dy, a, t * d)


@triton.jit
def forward(
    x, y, w, b, eps, rows, n, x_row, x_col, y_row, y_col, HELD: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr
):  # fmt: skip
    """ROWS rows a program: held, or one that is read twice, the second time backwards."""
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)[:, None]
    col = tl.arange(0, BLOCK)[None, :].to(tl.int64)
    if HELD:
        inside = (row < rows) & (col < n)
        v = read(x, row, col, inside, x_row, x_col)
        m1, m2, m3 = moments(v)
        c1, c2, c3 = value_coefficients(m1, m2, m3, n, eps, w)
        put(y, value(v, c1, c2, c3, b), row, col, inside, y_row, y_col)
    else:
        m1 = tl.zeros([ROWS], tl.float64)
        m2 = tl.zeros([ROWS], tl.float64)
        m3 = tl.zeros([ROWS], tl.float64)
        for start in range(0, bound(n), BLOCK):
            p1, p2, p3 = moments(read(x, row, col + start, (row < rows) & (col + start < n), x_row, x_col))
            m1 += p1
            m2 += p2
            m3 += p3
        c1, c2, c3 = value_coefficients(m1, m2, m3, n, eps, w)
        last = (n - 1) // BLOCK * BLOCK
        for back in range(0, bound(n), BLOCK):
            at = col + (last - back)
            inside = (row < rows) & (at < n)
            put(y, value(read(x, row, at, inside, x_row, x_col), c1, c2, c3, b), row, at, inside, y_row, y_col)


@triton.jit
def backward(
    x, dy, dx, w, eps, work, rows, n, x_row, x_col, dy_row, dy_col, dx_row, dx_col,
    HELD: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """The same; what the rows add to dw_0, dw_1, dw_2 and db goes to work[j * programs + program]."""
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)[:, None]
    col = tl.arange(0, BLOCK)[None, :].to(tl.int64)
    if HELD:
        inside = (row < rows) & (col < n)
        v = read(x, row, col, inside, x_row, x_col)
        g = read(dy, row, col, inside, dy_row, dy_col)
        m1, m2, m3 = moments(v)
        s1, s2, s3, s0 = tallies(v, g)
        unit, a1, a2, a3, d1, d2, d3, w0, w1, w2 = slope_coefficients(m1, m2, m3, s1, s2, s3, n, eps, w)
        put(dx, slope(v, g, unit, a1, a2, a3, d1, d2, d3), row, col, inside, dx_row, dx_col)
    else:
        m1 = tl.zeros([ROWS], tl.float64)
        m2 = tl.zeros([ROWS], tl.float64)
        m3 = tl.zeros([ROWS], tl.float64)
        s0 = tl.zeros([ROWS], tl.float64)
        s1 = tl.zeros([ROWS], tl.float64)
        s2 = tl.zeros([ROWS], tl.float64)
        s3 = tl.zeros([ROWS], tl.float64)
        for start in range(0, bound(n), BLOCK):
            inside = (row < rows) & (col + start < n)
            v = read(x, row, col + start, inside, x_row, x_col)
            p1, p2, p3 = moments(v)
            q1, q2, q3, q0 = tallies(v, read(dy, row, col + start, inside, dy_row, dy_col))
            m1 += p1
            m2 += p2
            m3 += p3
            s0 += q0
            s1 += q1
            s2 += q2
            s3 += q3
        unit, a1, a2, a3, d1, d2, d3, w0, w1, w2 = slope_coefficients(m1, m2, m3, s1, s2, s3, n, eps, w)
        last = (n - 1) // BLOCK * BLOCK
        for back in range(0, bound(n), BLOCK):
            at = col + (last - back)
            inside = (row < rows) & (at < n)
            v = read(x, row, at, inside, x_row, x_col)
            g = read(dy, row, at, inside, dy_row, dy_col)
            put(dx, slope(v, g, unit, a1, a2, a3, d1, d2, d3), row, at, inside, dx_row, dx_col)
    programs = tl.num_programs(0)
    to = work + tl.program_id(0)
    tl.store(to, tl.sum(w0, 0))
    tl.store(to + programs, tl.sum(w1, 0))
    tl.store(to + 2 * programs, tl.sum(w2, 0))
    tl.store(to + 3 * programs, tl.sum(s0, 0))

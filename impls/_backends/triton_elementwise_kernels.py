"""Triton kernels of all elementwise activations, and the activations that several families use.

An activation is two functions of (x, a, b, WIDE), its value and its slope, each returning (q, n), which stands for q 2^n. ``a``
and ``b`` point to its parameters. One with learned parameters has a third, of the terms of their gradients. A kernel gets
them as compile-time constants. Masked-off lanes read as 0 and are counted in no sum.
"""

import triton
import triton.language as tl

from .triton_math import (
    bound,
    fine_times,
    fused,
    gaussian,
    limited,
    logistic,
    mills,
    parts,
    power,
    rounded,
    scaled,
    sum_of_pairs,
    times,
    widened,
)

DENSITY = tl.constexpr(-0.398942280)  # -1 / sqrt(2 pi) in two floats
DENSITY_LOW = tl.constexpr(float.fromhex("0x1.857936p-27"))


@triton.jit
def plain(q):
    return q, tl.full(q.shape, 0, tl.int32)


@triton.jit
def relu(x, a, b, WIDE: tl.constexpr):
    return plain(tl.where(x <= 0.0, 0.0, x))


@triton.jit
def relu_slope(x, a, b, WIDE: tl.constexpr):
    return plain(tl.where(x <= 0.0, 0.0, 1.0))


@triton.jit
def relu2(x, a, b, WIDE: tl.constexpr):
    return plain(tl.where(x <= 0.0, 0.0, x * x))


@triton.jit
def relu2_slope(x, a, b, WIDE: tl.constexpr):
    return plain(tl.where(x <= 0.0, 0.0, x + x))


@triton.jit
def fatrelu(x, a, b, WIDE: tl.constexpr):
    return plain(tl.where(x < tl.load(a), 0.0, x))


@triton.jit
def fatrelu_slope(x, a, b, WIDE: tl.constexpr):
    return plain(tl.where(x < tl.load(a), 0.0, 1.0))


@triton.jit
def gated(x, z, low, WIDE: tl.constexpr):
    """x s(z + low) for a sum of x's sign, given its size; s is the logistic function."""
    p, rest, n, e, r = logistic(z, low, WIDE)
    p, rest = fine_times(p, rest, r, WIDE)
    near = tl.maximum(x, -120.0, propagate_nan=tl.PropagateNan.ALL)
    return parts(x < 0.0, times(p, rest, near, WIDE), n, x * r)


@triton.jit
def gated_slope(x, z, low, w, w_low, WIDE: tl.constexpr):
    """Its slope, given w + w_low = |x| z'."""
    p, rest, n, e, r = logistic(z, low, WIDE)
    p, rest = fine_times(p, rest, r, WIDE)
    below = times(p, rest, fused(-w, r, tl.fma(-w_low, r, 1.0)), WIDE)
    return parts(x < 0.0, below, n, tl.fma(w * (e * r), r, r))


@triton.jit
def silu(x, a, b, WIDE: tl.constexpr):
    return gated(x, limited(x, 120.0), 0.0, WIDE)


@triton.jit
def silu_slope(x, a, b, WIDE: tl.constexpr):
    t = limited(x, 120.0)
    return gated_slope(x, t, 0.0, t, 0.0 * t, WIDE)


@triton.jit
def gelu(x, a, b, WIDE: tl.constexpr):
    """max(x, 0) - |x| Phi(-|x|): nothing cancels"""
    t = limited(x, 15.0)
    ratio, ratio_low = mills(t, WIDE)
    p, rest, n = gaussian(t, WIDE)
    above = tl.fma(-(p * power(n)), t * (ratio + ratio_low), x)
    rest = tl.fma(p, ratio_low, rest * ratio)
    p, rounding = fine_times(p, 0.0 * p, ratio, WIDE)
    return parts(x < 0.0, times(p, rest + rounding, -t, WIDE), n, above)


@triton.jit
def gelu_slope(x, a, b, WIDE: tl.constexpr):
    t = limited(x, 15.0)
    ratio, low = mills(t, WIDE)
    if WIDE:
        low = tl.fma(t, DENSITY_LOW, low)
    d = fused(t, tl.full(t.shape, DENSITY, tl.float32), ratio) + low
    p, rest, n = gaussian(t, WIDE)
    return parts(x < 0.0, times(p, rest, d, WIDE), n, tl.fma(-(p * power(n)), d, 1.0))


# Kernels


@triton.jit
def tile(rows, n, tiles, ROWS: tl.constexpr, BLOCK: tl.constexpr):
    """Rows, columns and mask of this program's tile."""
    program = tl.program_id(0).to(tl.int64)
    row = program // tiles * ROWS + tl.arange(0, ROWS)[:, None]
    col = program % tiles * BLOCK + tl.arange(0, BLOCK)[None, :]
    return row, col, (row < rows) & (col < n)


@triton.jit
def read(x, row, col, inside, row_stride, col_stride):
    return widened(tl.load(x + row * row_stride + col * col_stride, mask=inside, other=0.0))


@triton.jit
def put(y, value, row, col, inside, row_stride, col_stride):
    tl.store(y + row * row_stride + col * col_stride, rounded(value, y.dtype.element_ty), mask=inside)


@triton.jit
def forward(
    x, y, a, b, bias, work, rows, n, tiles, each, x_row, x_col, y_row, y_col,
    VALUE: tl.constexpr, BIASED: tl.constexpr, ZEROS: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """y = f(x), or f(x + bias); program_id(1) is a group of n columns. ZEROS counts a tile's zeros in each column."""
    WIDE: tl.constexpr = x.dtype.element_ty == tl.float32
    group = tl.program_id(1).to(tl.int64)
    row, col, inside = tile(rows, n, tiles, ROWS, BLOCK)
    v = read(x + group * n * x_col, row, col, inside, x_row, x_col)
    if BIASED:
        v += tl.load(bias + col, mask=col < n, other=0.0)
    q, k = VALUE(v, a, b + group * each, WIDE)
    out = scaled(q, k, 1.0)
    put(y + group * n * y_col, out, row, col, inside, y_row, y_col)
    if ZEROS:
        count = tl.sum(tl.where((out == 0.0) & inside, 1.0, 0.0), 0)
        at = col + row // ROWS * n
        tl.store(work + tl.max(at, 0), count.to(tl.float64), mask=tl.sum(inside.to(tl.int32), 0) > 0)


@triton.jit
def backward(
    x, dy, dx, a, b, bias, work, rows, n, tiles, each, x_row, x_col, dy_row, dy_col, dx_row, dx_col,
    SLOPE: tl.constexpr, TERMS: tl.constexpr, COUNT: tl.constexpr, BIASED: tl.constexpr, ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """dx = dy f'(x), or dy f'(x + bias) and its sum in each column of a tile; and the sums of a tile's COUNT terms."""
    WIDE: tl.constexpr = BIASED or x.dtype.element_ty == tl.float32  # the bias's gradient is float32
    group = tl.program_id(1).to(tl.int64)
    row, col, inside = tile(rows, n, tiles, ROWS, BLOCK)
    v = read(x + group * n * x_col, row, col, inside, x_row, x_col)
    g = read(dy + group * n * dy_col, row, col, inside, dy_row, dy_col)
    if BIASED:
        v += tl.load(bias + col, mask=col < n, other=0.0)
    q, k = SLOPE(v, a, b + group * each, WIDE)
    out = scaled(q, k, g)
    put(dx + group * n * dx_col, out, row, col, inside, dx_row, dx_col)
    if BIASED:
        out = tl.where(inside, out, 0.0)
        total = sum_of_pairs(out, tl.full(out.shape, -0.0, tl.float32), 0, True)
        at = col + row // ROWS * n
        tl.store(work + tl.max(at, 0), total, mask=tl.sum(inside.to(tl.int32), 0) > 0)
    if COUNT > 0:
        terms = TERMS(v, a, b + group * each, WIDE)
        programs = tl.num_programs(0)
        to = work + group * programs + tl.program_id(0)
        for j in tl.static_range(COUNT):
            term = tl.where(inside, g * terms[j], 0.0)
            if ROWS * BLOCK >= 256:  # a thread's neighbouring elements first, then pairs
                term = tl.sum(tl.reshape(term, [ROWS * BLOCK // 4, 4]), 1)
            else:
                term = tl.reshape(term, [ROWS * BLOCK])
            total = sum_of_pairs(term, tl.full(term.shape, -0.0, tl.float32), 0, True)
            tl.store(to + j * (tl.num_programs(1) * programs).to(tl.int64), total)


@triton.jit
def gated_forward(
    gate, up, y, a, rows, n, tiles, g_row, g_col, u_row, u_col, y_row, y_col,
    VALUE: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """y = f(gate) up"""
    WIDE: tl.constexpr = gate.dtype.element_ty == tl.float32
    row, col, inside = tile(rows, n, tiles, ROWS, BLOCK)
    v = read(gate, row, col, inside, g_row, g_col)
    u = read(up, row, col, inside, u_row, u_col)
    q, k = VALUE(v, a, a, WIDE)
    put(y, scaled(q, k, u), row, col, inside, y_row, y_col)


@triton.jit
def gated_backward(
    gate, up, dy, dgate, dup, a, rows, n, tiles, g_row, g_col, u_row, u_col, dy_row, dy_col, dg_row, dg_col, du_row, du_col,
    VALUE: tl.constexpr, SLOPE: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """dgate = dy up f'(gate), dup = dy f(gate)"""
    WIDE: tl.constexpr = gate.dtype.element_ty == tl.float32
    row, col, inside = tile(rows, n, tiles, ROWS, BLOCK)
    v = read(gate, row, col, inside, g_row, g_col)
    u = read(up, row, col, inside, u_row, u_col)
    d = read(dy, row, col, inside, dy_row, dy_col)
    q, k = SLOPE(v, a, a, WIDE)
    put(dgate, scaled(q, k, u * d), row, col, inside, dg_row, dg_col)
    q, k = VALUE(v, a, a, WIDE)
    put(dup, scaled(q, k, d), row, col, inside, du_row, du_col)


@triton.jit
def totals(work, out, count, width, down, across, groups, each, DEPTH: tl.constexpr, COLS: tl.constexpr):
    """Column c of ``width``, the sum of ``count`` float64 in a fixed order, goes to out[(c % groups) * each + c // groups]."""
    c = tl.program_id(0).to(tl.int64) * COLS + tl.arange(0, COLS)
    total = tl.zeros([DEPTH, COLS], tl.float64)
    for start in range(0, bound(count), DEPTH):
        i = start + tl.arange(0, DEPTH).to(tl.int64)
        inside = (i < count)[:, None] & (c < width)[None, :]
        total += tl.load(work + i[:, None] * down + c[None, :] * across, mask=inside, other=0.0)
    tl.store(out + c % groups * each + c // groups, tl.sum(total, 0).to(out.dtype.element_ty), mask=c < width)

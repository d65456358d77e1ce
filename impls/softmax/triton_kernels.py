"""Triton kernels of the softmax family; ``triton.py`` beside this plans and launches them.

All work relative to a row's reference, which its maximum m alone decides:

    r = 0 where abs(m) < 256, else m rounded down to a multiple of 128
    N = rint((m - r) log2(e))
    e = exp(x - r) 2^-N = p 2^(n - N)      (p, n) from ``exp_parts``

For every x that counts (above m - 104) x - r is exact, and so is n - N; hence no error grows with the spread or the offset
of a row. Elements are carried as e 2^100, so that the ones that end up denormal are rounded once, by the last product.
Sums of float32 rows carry the error of every addition along; those of 16-bit rows have bits to spare without.
Masked-off lanes read as -inf, which is an exact 0 in every sum.
"""

import triton
import triton.language as tl

from .._backends.triton_math import (
    LN2,
    LOG2E,
    LOWEST,
    ROUND,
    ROUND_BITS,
    add_pairs,
    bound,
    exp_parts,
    max_or_nan,
    maximum,
    power,
    power64,
    rounded,
    sum_of_pairs,
    total_of,
    widened,
)

NEGATIVE = tl.constexpr(float("-inf"))
LIFT = tl.constexpr(100)
LOWER = tl.constexpr(2.0**-100)


@triton.jit
def reference(m):
    """(r, bits of N) for a row maximum; a row of -inf alone gets r = 0 and a sum of 0."""
    m = tl.where(m == NEGATIVE, 0.0, m)
    r = tl.where(tl.abs(m) < 256.0, 0.0, tl.floor(m * 0.0078125) * 128.0)
    return r, tl.fma(m - r, LOG2E, ROUND).to(tl.int32, bitcast=True)


@triton.jit
def lifted(z, base, WIDE: tl.constexpr):
    """e 2^100 for z = x - r and the bits of N."""
    p, bits = exp_parts(tl.maximum(z, LOWEST, propagate_nan=tl.PropagateNan.ALL), WIDE)
    return p * power(bits - base + LIFT)


@triton.jit
def rescale(m, new):
    """The float64 factor that takes a sum from the reference of m to that of a larger maximum."""
    r, base = reference(m)
    r_new, base_new = reference(new)
    factor = tl.exp(r.to(tl.float64) - r_new.to(tl.float64)) * power64(base - base_new)
    return tl.where(m == NEGATIVE, 0.0, factor)


@triton.jit
def log_sum(base, total):
    """log of the row's sum relative to r, float64."""
    return (base - ROUND_BITS).to(tl.float64) * LN2 + tl.log(total)


@triton.jit
def logsumexp_of(m, r, base, total):
    value = (r.to(tl.float64) + log_sum(base, total)).to(tl.float32)
    return tl.where(tl.abs(m) == float("inf"), m, value)


@triton.jit
def row_scalars(base, total, OPERATOR: tl.constexpr, WIDE: tl.constexpr):
    """Two float32 for ``result``: the reciprocal of the sum, or its log in two parts."""
    if OPERATOR == "softmax":
        a = (1.0 / (total if WIDE else total.to(tl.float32)) * LOWER).to(tl.float32)
        b = a
    else:
        log = log_sum(base, total)
        a = log.to(tl.float32)
        b = (log - a.to(tl.float64)).to(tl.float32)
    return a, b


@triton.jit
def result(z, e, a, b, OPERATOR: tl.constexpr):
    if OPERATOR == "softmax":
        return e * a
    else:
        return (z - a) - b


@triton.jit
def fused(x, y, rows, n, x_row, x_col, y_row, y_col, OPERATOR: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr):
    """Forward, ROWS whole rows a program, each element read once. logsumexp writes y at (row, 0)."""
    WIDE: tl.constexpr = x.dtype.element_ty == tl.float32
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    col = tl.arange(0, BLOCK).to(tl.int64)
    inside = (row < rows)[:, None] & (col < n)[None, :]
    v = widened(tl.load(x + row[:, None] * x_row + col[None, :] * x_col, mask=inside, other=NEGATIVE))
    m = maximum(v, 1)
    r, base = reference(m)
    z = v - r[:, None]
    e = lifted(z, base[:, None], WIDE)
    total = total_of(e, 1, WIDE) * LOWER
    if OPERATOR == "logsumexp":
        out = logsumexp_of(m, r, base, total)
        tl.store(y + row * y_row, rounded(out, y.dtype.element_ty), mask=row < rows)
    else:
        a, b = row_scalars(base, total, OPERATOR, WIDE)
        out = result(z, e, a[:, None], b[:, None], OPERATOR)
        tl.store(y + row[:, None] * y_row + col[None, :] * y_col, rounded(out, y.dtype.element_ty), mask=inside)


@triton.jit
def block_sum(v, m, WIDE: tl.constexpr):
    """Sum of a block relative to the reference of m, float64."""
    r, base = reference(m)
    return total_of(lifted(v - r, base, WIDE), 0, WIDE) * LOWER


@triton.jit
def online(x, y, n, x_row, x_col, y_row, y_col, OPERATOR: tl.constexpr, BLOCK: tl.constexpr):
    """Forward, one row a program: a running (maximum, sum) over blocks, then a second read that walks back and writes."""
    WIDE: tl.constexpr = x.dtype.element_ty == tl.float32
    row = tl.program_id(0).to(tl.int64)
    lane = tl.arange(0, BLOCK).to(tl.int64)
    x += row * x_row
    y += row * y_row
    m = tl.full([], NEGATIVE, tl.float32)
    total = tl.full([], 0.0, tl.float64)
    ahead = tl.load(x + lane * x_col, mask=lane < n, other=NEGATIVE)
    for start in range(0, bound(n), BLOCK):
        v = widened(ahead)
        col = start + BLOCK + lane  # is on its way while this block is summed
        ahead = tl.load(x + col * x_col, mask=col < n, other=NEGATIVE)
        new = max_or_nan(m, maximum(v, 0))
        if new != m:
            total *= rescale(m, new)
            m = new
        total += block_sum(v, m, WIDE)
    r, base = reference(m)
    if OPERATOR == "logsumexp":
        tl.store(y, rounded(logsumexp_of(m, r, base, total), y.dtype.element_ty))
    else:
        a, b = row_scalars(base, total, OPERATOR, WIDE)
        last = (n - 1) // BLOCK * BLOCK
        for back in range(0, bound(n), BLOCK):
            col = last - back + lane
            v = tl.load(x + col * x_col, mask=col < n, other=NEGATIVE, eviction_policy="evict_first")
            z = widened(v) - r
            out = result(z, lifted(z, base, WIDE), a, b, OPERATOR)
            tl.store(y + col * y_col, rounded(out, y.dtype.element_ty), mask=col < n)


@triton.jit
def partial(x, maxima, sums, n, x_row, x_col, chunks, CHUNK: tl.constexpr, BLOCK: tl.constexpr):
    """Two-pass, first pass: a program sums CHUNK elements of a row as (mantissa, exponent) pairs, a pair per lane.

    Pairs of inputs from -256 to 256 are added without looking at any maximum. A chunk whose maximum lies elsewhere is
    summed again, relative to the reference of that maximum: beyond 1.16e7 a float32 no longer holds the exponent n.
    """
    WIDE: tl.constexpr = x.dtype.element_ty == tl.float32
    program = tl.program_id(0)
    row = (program // chunks).to(tl.int64)
    first = (program % chunks) * CHUNK
    lane = tl.arange(0, BLOCK).to(tl.int64)
    x += row * x_row
    highest = tl.full([BLOCK], NEGATIVE, tl.float32)
    exponent = tl.full([BLOCK], ROUND_BITS - 2000, tl.int32)
    mantissa = tl.full([BLOCK], 0.0, tl.float32)
    low = tl.full([BLOCK], 0.0, tl.float32)
    for start in range(0, CHUNK, BLOCK):
        col = first + start + lane
        v = widened(tl.load(x + col * x_col, mask=col < n, other=NEGATIVE))
        highest = max_or_nan(highest, v)
        p, bits = exp_parts(tl.maximum(v, LOWEST, propagate_nan=tl.PropagateNan.ALL), WIDE)
        larger = tl.maximum(exponent, bits)
        scale = power(exponent - larger)
        if WIDE:
            mantissa, low = add_pairs(mantissa * scale, low * scale, p * power(bits - larger), -0.0)
        else:
            mantissa = mantissa * scale + p * power(bits - larger)
        exponent = larger
    m = maximum(highest, 0)
    if tl.abs(m) < 256.0:
        scale = power(exponent - tl.max(exponent, 0))
        total = sum_of_pairs(mantissa * scale, low * scale, 0, WIDE)
    else:
        total = tl.full([], 0.0, tl.float64)
        for start in range(0, CHUNK, BLOCK):
            col = first + start + lane
            v = widened(tl.load(x + col * x_col, mask=col < n, other=NEGATIVE))
            total += block_sum(v, m, WIDE)
    tl.store(maxima + program, m)
    tl.store(sums + program, total)


@triton.jit
def combine(maxima, sums, scalars, y, y_row, chunks, OPERATOR: tl.constexpr, BLOCK: tl.constexpr):
    """Two-pass: one program adds a row's partial sums; leaves (r, N, a, b) for ``write``, or logsumexp itself in y."""
    WIDE: tl.constexpr = y.dtype.element_ty == tl.float32
    row = tl.program_id(0).to(tl.int64)
    lane = tl.arange(0, BLOCK)
    each = tl.load(maxima + row * chunks + lane, mask=lane < chunks, other=NEGATIVE)
    part = tl.load(sums + row * chunks + lane, mask=lane < chunks, other=0.0)
    m = maximum(each, 0)
    r, base = reference(m)
    total = tl.sum(part * rescale(each, m), 0)
    if OPERATOR == "logsumexp":
        tl.store(y + row * y_row, rounded(logsumexp_of(m, r, base, total), y.dtype.element_ty))
    else:
        a, b = row_scalars(base, total, OPERATOR, WIDE)
        scalars += row * 4
        tl.store(scalars, r)
        tl.store(scalars + 1, base.to(tl.float32, bitcast=True))
        tl.store(scalars + 2, a)
        tl.store(scalars + 3, b)


@triton.jit
def write(x, y, scalars, n, x_row, x_col, y_row, y_col, tiles, OPERATOR: tl.constexpr, BLOCK: tl.constexpr):
    """Two-pass, second pass: one program writes BLOCK elements of a row."""
    WIDE: tl.constexpr = x.dtype.element_ty == tl.float32
    program = tl.num_programs(0) - 1 - tl.program_id(0)  # backwards: the end of x was read last
    row = (program // tiles).to(tl.int64)
    col = (program % tiles) * BLOCK + tl.arange(0, BLOCK).to(tl.int64)
    scalars += row * 4
    r = tl.load(scalars)
    base = tl.load(scalars + 1).to(tl.int32, bitcast=True)
    a = tl.load(scalars + 2)
    b = tl.load(scalars + 3)
    v = widened(tl.load(x + row * x_row + col * x_col, mask=col < n, other=NEGATIVE))
    z = v - r
    out = result(z, lifted(z, base, WIDE), a, b, OPERATOR)
    tl.store(y + row * y_row + col * y_col, rounded(out, y.dtype.element_ty), mask=col < n)


@triton.jit
def summand(y, dy, OPERATOR: tl.constexpr):
    if OPERATOR == "softmax":
        return y * dy
    else:
        return dy


@triton.jit
def gradient(y, dy, total, OPERATOR: tl.constexpr, WIDE: tl.constexpr):
    """dx of an element: y (dy - sum y dy), or dy - exp(y) sum dy. ``total`` is float32."""
    if OPERATOR == "softmax":
        return y * (dy - total)
    else:
        p, bits = exp_parts(tl.maximum(y, LOWEST, propagate_nan=tl.PropagateNan.ALL), WIDE)
        # 2^24 keeps exp(y) normal down to the smallest denormal.
        return dy - p * power(bits - ROUND_BITS + 24) * total * (2.0**-24)


@triton.jit
def fused_backward(
    y,
    dy,
    dx,
    rows,
    n,
    y_row,
    y_col,
    dy_row,
    dy_col,
    dx_row,
    dx_col,
    OPERATOR: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Backward of softmax and log_softmax, ROWS whole rows a program, each element read once."""
    WIDE: tl.constexpr = y.dtype.element_ty == tl.float32
    row = (tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS))[:, None]
    col = tl.arange(0, BLOCK)[None, :].to(tl.int64)
    inside = (row < rows) & (col < n)
    v = widened(tl.load(y + row * y_row + col * y_col, mask=inside, other=0.0))
    g = widened(tl.load(dy + row * dy_row + col * dy_col, mask=inside, other=0.0))
    total = total_of(summand(v, g, OPERATOR), 1, WIDE).to(tl.float32)
    out = gradient(v, g, total[:, None], OPERATOR, WIDE)
    tl.store(dx + row * dx_row + col * dx_col, rounded(out, dx.dtype.element_ty), mask=inside)


@triton.jit
def online_backward(y, dy, dx, n, y_row, y_col, dy_row, dy_col, dx_row, dx_col, OPERATOR: tl.constexpr, BLOCK: tl.constexpr):
    """Backward of softmax and log_softmax, one row a program: sum over blocks, then a second read that walks back."""
    WIDE: tl.constexpr = y.dtype.element_ty == tl.float32
    row = tl.program_id(0).to(tl.int64)
    lane = tl.arange(0, BLOCK).to(tl.int64)
    y += row * y_row
    dy += row * dy_row
    dx += row * dx_row
    total = tl.full([], 0.0, tl.float64)
    for start in range(0, bound(n), BLOCK):
        col = start + lane
        g = widened(tl.load(dy + col * dy_col, mask=col < n, other=0.0))
        if OPERATOR == "softmax":
            v = widened(tl.load(y + col * y_col, mask=col < n, other=0.0))
            g = v * g
        total += total_of(g, 0, WIDE)
    total32 = total.to(tl.float32)
    last = (n - 1) // BLOCK * BLOCK
    for back in range(0, bound(n), BLOCK):
        col = last - back + lane
        v = widened(tl.load(y + col * y_col, mask=col < n, other=0.0, eviction_policy="evict_first"))
        g = widened(tl.load(dy + col * dy_col, mask=col < n, other=0.0, eviction_policy="evict_first"))
        out = gradient(v, g, total32, OPERATOR, WIDE)
        tl.store(dx + col * dx_col, rounded(out, dx.dtype.element_ty), mask=col < n)


@triton.jit
def logsumexp_backward(
    x, lse, dlse, dx, rows, n, x_row, x_col, lse_row, dlse_row, dx_row, dx_col, tiles, ROWS: tl.constexpr, BLOCK: tl.constexpr
):
    """dx = dlse exp(x - lse), ROWS by BLOCK elements a program; there is nothing to sum.

    x - lse is taken as (x - r) - (lse - r), each exact where it counts, and exp(lse - r) is divided out once a row.
    """
    WIDE: tl.constexpr = x.dtype.element_ty == tl.float32
    program = tl.program_id(0)
    row = (program // tiles).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    col = (program % tiles) * BLOCK + tl.arange(0, BLOCK)[None, :].to(tl.int64)
    inside = (row < rows)[:, None] & (col < n)
    level = widened(tl.load(lse + row * lse_row, mask=row < rows, other=0.0))
    slope = widened(tl.load(dlse + row * dlse_row, mask=row < rows, other=0.0))
    r, base = reference(tl.where(level == float("inf"), 0.0, level))  # then x - r is finite, and exp(-inf) is 0
    p, bits = exp_parts(tl.maximum(r - level, LOWEST, propagate_nan=tl.PropagateNan.ALL), WIDE)
    slope *= p
    v = widened(tl.load(x + row[:, None] * x_row + col * x_col, mask=inside, other=NEGATIVE))
    z = tl.maximum(v - r[:, None], LOWEST, propagate_nan=tl.PropagateNan.ALL)
    q, n_bits = exp_parts(z, WIDE)
    shift = (n_bits - ROUND_BITS) + (bits - ROUND_BITS)[:, None]
    out = q * power(shift + 24) * slope[:, None] * (2.0**-24)
    tl.store(dx + row[:, None] * dx_row + col * dx_col, rounded(out, dx.dtype.element_ty), mask=inside)

"""The Triton kernels of topk_relu and its kin; ``triton.py`` beside this launches them."""

import triton
import triton.language as tl

from .._backends.triton_elementwise_kernels import put, read
from .._backends.triton_math import bound

NAN_KEY = tl.constexpr(0x7FC00000)


@triton.jit
def leading(key, BUCKETS: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr):
    """Keys of the first largest of each bucket, column i being in bucket i mod BUCKETS; 0 for the others"""
    folded = tl.reshape(key, [ROWS, BLOCK // BUCKETS, BUCKETS])
    place = tl.arange(0, BLOCK // BUCKETS)[None, :, None]
    most = tl.max(folded, 1)
    first = tl.min(tl.where(folded == most[:, None, :], place, BLOCK), 1)
    return tl.reshape(tl.where(place == first[:, None, :], folded, 0), [ROWS, BLOCK])


@triton.jit
def topk_relu(
    x, dy, out, k, rows, n, x_row, x_col, dy_row, dy_col, out_row, out_col,
    LOWEST: tl.constexpr, BUCKETS: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Keys are ordered as the numbers are: 0 for what the rectifier drops, the bits of a positive number, and one above
    infinity for NaN. The k-th largest is found by bisection on its bits down to LOWEST; equals are counted in order."""
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)[:, None]
    col = tl.arange(0, BLOCK)[None, :].to(tl.int64)
    inside = (row < rows) & (col < n)
    v = read(x, row, col, inside, x_row, x_col)
    key = tl.where(v <= 0.0, 0, tl.where(v == v, v.to(tl.int32, bitcast=True), NAN_KEY))
    if BUCKETS > 0:
        key = leading(key, BUCKETS, ROWS, BLOCK)
    least = tl.zeros([ROWS], tl.int32)
    for done in range(31 - LOWEST):
        tried = least | (0x40000000 >> done)
        least = tl.where(tl.sum((key >= tried[:, None]).to(tl.int32), 1) >= k, tried, least)
    above = key > least[:, None]
    equal = (key == least[:, None]).to(tl.int32)
    need = k - tl.sum(above.to(tl.int32), 1)
    kept = (key > 0) & (above | ((equal > 0) & (tl.cumsum(equal, 1) <= need[:, None])))
    v = read(dy, row, col, inside, dy_row, dy_col)  # forward x again: registers don't hold it beside its key
    put(out, tl.where(kept, v, 0.0), row, col, inside, out_row, out_col)


@triton.jit
def topk_relu_stat(
    x, dy, out, z, rows, n, x_row, x_col, dy_row, dy_col, out_row, out_col, ROWS: tl.constexpr, BLOCK: tl.constexpr
):  # fmt: skip
    """What reaches mean + std z. The row is read three times, BLOCK elements at once: float64 would overflow registers."""
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)[:, None]
    col = tl.arange(0, BLOCK)[None, :].to(tl.int64)
    total = tl.zeros([ROWS, BLOCK], tl.float64)
    for start in range(0, bound(n), BLOCK):
        total += read(x, row, start + col, (row < rows) & (start + col < n), x_row, x_col).to(tl.float64)
    count = tl.zeros([ROWS], tl.float64) + n
    mean = tl.sum(total, 1) / count
    total = tl.zeros([ROWS, BLOCK], tl.float64)
    for start in range(0, bound(n), BLOCK):
        inside = (row < rows) & (start + col < n)
        apart = read(x, row, start + col, inside, x_row, x_col).to(tl.float64) - mean[:, None]
        total += tl.where(inside, apart * apart, 0.0)
    least = (mean + tl.sqrt(tl.sum(total, 1) / count) * tl.load(z)).to(tl.float32)
    for start in range(0, bound(n), BLOCK):
        inside = (row < rows) & (start + col < n)
        v = read(x, row, start + col, inside, x_row, x_col)
        dropped = (v < least[:, None]) | (v <= 0.0)
        v = read(dy, row, start + col, inside, dy_row, dy_col)  # forward x again
        put(out, tl.where(dropped, 0.0, v), row, start + col, inside, out_row, out_col)

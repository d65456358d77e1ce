"""The Triton kernel of topk_relu; ``triton.py`` beside this launches it."""

import triton
import triton.language as tl

from .._backends.triton_elementwise_kernels import put, read

NAN_KEY = tl.constexpr(0x7FC00000)


@triton.jit
def topk_relu(
    x, dy, out, k, rows, n, x_row, x_col, dy_row, dy_col, out_row, out_col,
    LOWEST: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Keys are ordered as the numbers are: 0 for what the rectifier drops, the bits of a positive number, and one above
    infinity for NaN. The k-th largest is found by bisection on its bits down to LOWEST; equals are counted in order."""
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)[:, None]
    col = tl.arange(0, BLOCK)[None, :].to(tl.int64)
    inside = (row < rows) & (col < n)
    v = read(x, row, col, inside, x_row, x_col)
    key = tl.where(v <= 0.0, 0, tl.where(v == v, v.to(tl.int32, bitcast=True), NAN_KEY))
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

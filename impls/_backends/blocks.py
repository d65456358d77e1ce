"""Pieces of arrays that fit into a cache, for implementations in plain NumPy."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

BLOCK = 1 << 11  # elements


def flat(inputs: Sequence[np.ndarray], outputs: Sequence[np.ndarray]) -> Any:
    """An iterator over pieces of up to ``BLOCK`` elements of arrays of one shape, as float64, rounded on the way back."""
    plan: Any = {"flags": ["external_loop", "buffered", "zerosize_ok"], "order": "C", "casting": "unsafe", "buffersize": BLOCK}
    plan |= {"op_flags": [*(["readonly"] for _ in inputs), *(["writeonly"] for _ in outputs)]}
    return np.nditer([*inputs, *outputs], **plan, op_dtypes=[np.float64] * (len(inputs) + len(outputs)))


def rows(arrays: Sequence[np.ndarray]) -> Iterator[tuple[np.ndarray, ...]]:
    """Views of some rows at a time, as (rows, n), of arrays of one shape: about ``BLOCK`` elements, at least a row."""
    first = arrays[0]
    if first.ndim > 2:
        for index in range(len(first)):
            yield from rows([each[index] for each in arrays])
    elif first.ndim == 1:
        yield tuple(each[None] for each in arrays)
    else:
        step = max(1, BLOCK // max(1, first.shape[1]))
        for start in range(0, len(first), step):
            yield tuple(each[start : start + step] for each in arrays)

"""Pieces of arrays that fit into a cache, for implementations in plain NumPy."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from . import arrays

if TYPE_CHECKING:
    from ..registry import Implementation

BLOCK = 1 << 11  # elements


def unavailable(implementation: Implementation, target: str) -> str | None:
    return None


def bind_to(plan: Callable[..., Callable[[], None]]) -> Callable[..., Callable[[], None]]:
    """``bind`` of a family whose ``plan(name, pass_, inputs, outputs, params)`` gives what runs on arrays that were checked."""

    def bind(
        implementation: Implementation,
        pass_: str,
        inputs: tuple[np.ndarray, ...],
        outputs: tuple[np.ndarray, ...],
        *,
        target: str = "cpu",
        isa: str | None = None,
        threads: int = 1,
        params: Mapping[str, Any] | None = None,
    ) -> Callable[[], None]:
        """Check the arrays and allocate scratch; see ``registry``. Raises ``TypeError``, ``ValueError`` naming the argument."""
        arrays.check(implementation, pass_, inputs, outputs)
        return np.errstate(all="ignore")(plan(implementation.operator.name, pass_, inputs, outputs, params or {}))

    return bind


def flat(inputs: Sequence[np.ndarray], outputs: Sequence[np.ndarray]) -> Any:
    """An iterator over pieces of up to ``BLOCK`` elements of arrays of one shape, as float64, rounded on the way back."""
    plan: Any = {"flags": ["external_loop", "buffered", "zerosize_ok"], "order": "C", "casting": "unsafe", "buffersize": BLOCK}
    plan |= {"op_flags": [*(["readonly"] for _ in inputs), *(["writeonly"] for _ in outputs)]}
    return np.nditer([*inputs, *outputs], **plan, op_dtypes=[np.float64] * (len(inputs) + len(outputs)))


def rows(matrices: Sequence[np.ndarray]) -> Iterator[tuple[np.ndarray, ...]]:
    """Views of some rows at a time, as (rows, n), of arrays of one shape: about ``BLOCK`` elements, at least a row."""
    first = matrices[0]
    if first.ndim > 2:
        for index in range(len(first)):
            yield from rows([each[index] for each in matrices])
    elif first.ndim == 1:
        yield tuple(each[None] for each in matrices)
    else:
        step = max(1, BLOCK // max(1, first.shape[1]))
        for start in range(0, len(first), step):
            yield tuple(each[start : start + step] for each in matrices)

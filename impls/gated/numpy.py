"""Gated units in plain NumPy: float64 in blocks that stay in the first-level caches, rounded to the outputs once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from .._backends import arrays, blocks
from ..activations.numpy import BLOCKS, LIMIT, Block

if TYPE_CHECKING:
    from ..registry import Implementation

Arrays = tuple[np.ndarray, ...]


def relu(x: Block, y: Block, s: Block, t: Block) -> None:
    np.maximum(x, 0, out=y)


def relu_derivative(x: Block, dy: Block, d: Block, s: Block, t: Block) -> None:
    d[...] = 1
    np.copyto(d, 0, where=x <= 0)


def fatrelu(x: Block, y: Block, s: Block, threshold: Block, t: float) -> None:
    np.copyto(y, x)
    np.copyto(y, 0, where=x < np.float32(t))


def fatrelu_derivative(x: Block, dy: Block, d: Block, s: Block, threshold: Block, t: float) -> None:
    d[...] = 1
    np.copyto(d, 0, where=x < np.float32(t))


ACTIVATIONS: Mapping[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "swiglu": BLOCKS["silu"],  # type: ignore[dict-item]  # both are there
    "geglu": BLOCKS["gelu"],  # type: ignore[dict-item]
    "reglu": (relu, relu_derivative),
    "fatrelu_and_mul": (fatrelu, fatrelu_derivative),
}


def unavailable(implementation: Implementation, target: str) -> str | None:
    return None


def bind(
    implementation: Implementation,
    pass_: str,
    inputs: Arrays,
    outputs: Arrays,
    *,
    target: str = "cpu",
    isa: str | None = None,
    threads: int = 1,
    params: Mapping[str, Any] | None = None,
) -> Callable[[], None]:
    """Check the arrays and allocate the scratch of a block."""
    arrays.check(implementation, pass_, inputs, outputs)
    compute, derive = ACTIVATIONS[implementation.operator.name]
    scratch = np.empty((3, blocks.BLOCK))
    static = params or {}

    @np.errstate(all="ignore")
    def forward() -> None:
        with blocks.flat(inputs, outputs) as pieces:
            for gate, up, y in pieces:
                limited, s, t = scratch[:, : gate.size]
                np.clip(gate, -LIMIT, LIMIT, out=limited)
                compute(limited, y, s, t, **static)
                y *= up

    @np.errstate(all="ignore")
    def backward() -> None:
        with blocks.flat(inputs, outputs) as pieces:
            for gate, up, dy, dgate, dup in pieces:
                limited, s, t = scratch[:, : gate.size]
                np.clip(gate, -LIMIT, LIMIT, out=limited)
                compute(limited, dup, s, t, **static)
                dup *= dy
                derive(limited, dy, dgate, s, t, **static)
                dgate *= dy
                dgate *= up

    return forward if pass_ == "forward" else backward

"""Gated units in plain NumPy: float64 in blocks that stay in the first-level caches, rounded to the outputs once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from .._backends import blocks
from ..activations.numpy import BLOCKS, LIMIT, Block

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


def plan(name: str, pass_: str, inputs: Arrays, outputs: Arrays, params: Mapping[str, Any]) -> Callable[[], None]:
    compute, derive = ACTIVATIONS[name]
    scratch = np.empty((3, blocks.BLOCK))

    def forward() -> None:
        with blocks.flat(inputs, outputs) as pieces:
            for gate, up, y in pieces:
                limited, s, t = scratch[:, : gate.size]
                np.clip(gate, -LIMIT, LIMIT, out=limited)
                compute(limited, y, s, t, **params)
                y *= up

    def backward() -> None:
        with blocks.flat(inputs, outputs) as pieces:
            for gate, up, dy, dgate, dup in pieces:
                limited, s, t = scratch[:, : gate.size]
                np.clip(gate, -LIMIT, LIMIT, out=limited)
                compute(limited, dup, s, t, **params)
                dup *= dy
                derive(limited, dy, dgate, s, t, **params)
                dgate *= dy
                dgate *= up

    return forward if pass_ == "forward" else backward


bind = blocks.bind_to(plan)
unavailable = blocks.unavailable

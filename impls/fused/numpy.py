"""Fused activations in plain NumPy: some rows at a time, in float64 where that is rounded to the output once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from .._backends import blocks
from ..activations.numpy import BLOCKS, FLOAT32_MAX, LIMIT, Block

Arrays = tuple[np.ndarray, ...]


def relu2(x: Block, y: Block, s: Block, t: Block) -> None:
    np.maximum(x, 0, out=y)
    np.square(y, out=y)


BIASED: Mapping[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "bias_gelu": BLOCKS["gelu"],  # type: ignore[dict-item]  # both are there
    "bias_silu": BLOCKS["silu"],  # type: ignore[dict-item]
    "bias_relu2": (relu2, BLOCKS["relu2"][1]),
}


def plan(name: str, pass_: str, inputs: Arrays, outputs: Arrays, params: Mapping[str, Any]) -> Callable[[], None]:
    if name in BIASED:
        return (forward if pass_ == "forward" else backward)(*BIASED[name], *inputs, *outputs)
    dropped = (np.less, np.float32(params["t"])) if name == "fatrelu_zeros" else (np.less_equal, np.float32(0))
    return with_zeros(*dropped, *inputs, *outputs)


def summed(x: np.ndarray, bias: np.ndarray) -> Block:
    """x + bias in float32, then float64, infinities brought to a finite number beyond float32"""
    return np.clip(np.add(x, bias, dtype=np.float32).astype(np.float64), -LIMIT, LIMIT)


def forward(
    compute: Callable[..., Any], derive: Callable[..., Any], x: np.ndarray, bias: np.ndarray, y: np.ndarray
) -> Callable[[], None]:
    def run() -> None:
        for given, result in blocks.rows([x, y]):
            z = summed(given.astype(np.float32), bias)
            found, s, t = (np.empty(z.shape) for _ in range(3))
            compute(z, found, s, t)
            np.copyto(result, found, casting="unsafe")

    return run


def backward(
    compute: Callable[..., Any],
    derive: Callable[..., Any],
    x: np.ndarray,
    dy: np.ndarray,
    bias: np.ndarray,
    dx: np.ndarray,
    dbias: np.ndarray,
) -> Callable[[], None]:
    def run() -> None:
        total = np.zeros(dbias.shape)
        for given, gradient, result in blocks.rows([x, dy, dx]):
            z = summed(given.astype(np.float32), bias)
            found, s, t = (np.empty(z.shape) for _ in range(3))
            derive(z, gradient, found, s, t)
            np.copyto(found, np.copysign(np.inf, found), where=np.abs(found) > FLOAT32_MAX)
            found *= gradient.astype(np.float64)
            total += found.sum(0)
            np.copyto(result, found, casting="unsafe")
        dbias[...] = total

    return run


def with_zeros(compare: np.ufunc, t: np.float32, x: np.ndarray, second: np.ndarray, third: np.ndarray) -> Callable[[], None]:
    """x, y and the zeros forward; x, dy and dx backward"""
    threshold = np.full((), t)  # an array, so that 16 bits are widened and not t narrowed

    def forward() -> None:
        third[...] = 0
        for given, result in blocks.rows([x, second]):
            np.copyto(result, given)
            np.copyto(result, 0, where=compare(given, threshold))
            np.add(third, np.count_nonzero(result == 0, axis=0), out=third)

    def backward() -> None:
        for given, gradient, result in blocks.rows([x, second, third]):
            np.copyto(result, gradient)
            np.copyto(result, 0, where=compare(given, threshold))

    return forward if third.dtype == np.int64 else backward


bind = blocks.bind_to(plan)
unavailable = blocks.unavailable

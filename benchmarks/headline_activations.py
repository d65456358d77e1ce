"""The figures of the activations' SIMD kernels, measured: ``python -m ulproof.benchmarks.headline_activations [PART...]``.

As in ``headline.py``: ratios of medians that took turns in one process on one core, into preallocated, touched outputs.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np

from .headline import Figure, medians
from .measure import ceilings

ELEMENTWISE = ("relu", "relu2", "gelu", "gelu_tanh", "silu", "sigmoid", "softplus", "tanh", "exp")
LEARNED = ("crrelu", "poly_relu", "rational", "hermite_act", "hermite_act_1")
BEYOND, IN_L2 = 1 << 25, 1 << 16


def bound(name: str, backend: str, pass_: str, axes: dict[str, int], memory: dict[str, Any]) -> Callable[[], None]:
    """An implementation of a backend on drawn inputs, every side on the same ones and into the same outputs."""
    from ulproof.impls import load
    from ulproof.impls._backends import stress
    from ulproof.impls._backends.arrays import dtype_named

    implementation = next(each for each in load(name).values() if each.name == backend or each.backend == backend)
    card = implementation.operator.passes[pass_]
    if not memory:
        memory["inputs"] = stress.inputs(implementation.operator, pass_, axes, "float32", "normal")
        types = [dtype_named("float32" if each.dtype == "io" else each.dtype) for each in card.outputs]
        memory["outputs"] = tuple(np.zeros(each.shape(axes), kind) for each, kind in zip(card.outputs, types, strict=True))
    return implementation.bind(memory["inputs"], memory["outputs"], pass_=pass_)


def in_l2(seconds: float) -> Iterator[Figure]:
    ratios = []
    for name in ELEMENTWISE + LEARNED:
        for pass_ in ("forward", "backward"):
            memory: dict[str, Any] = {}
            sides = {side: bound(name, side, pass_, {"n": IN_L2}, memory) for side in ("simd", "peer/torch-eager")}
            taken = medians(sides, seconds / 2)
            ratios.append(taken["peer/torch-eager"] / taken["simd"])
            note = f"{taken['simd'] / IN_L2 * 1e9:.3f} ns an element"
            yield Figure("L2", f"torch / simd, {name} {pass_}, {IN_L2:,}", ratios[-1], 0.97, note=note)
    yield Figure("L2", "torch / simd, geometric mean", math.exp(np.mean(np.log(ratios))), 2.0)


def beyond(seconds: float) -> Iterator[Figure]:
    """Against the roof: a copy, and for a backward pass the reading of one more array; the better kind of stores."""
    kernels = ceilings.native()
    isa = kernels.isas()[0]
    for name in ELEMENTWISE + LEARNED:
        for pass_ in ("forward", "backward"):
            memory: dict[str, Any] = {}
            simd = bound(name, "simd", pass_, {"n": BEYOND}, memory)
            x, y = memory["inputs"][0], memory["outputs"][0]
            read = kernels.bind("read", isa, None, x, 1, 1)
            copies = {kind: kernels.bind(kind, isa, y, x, 1, 1) for kind in ("copy", "stream-copy")}
            taken = medians({"simd": simd, "read": read, **copies}, seconds)
            least = min(taken["copy"], taken["stream-copy"]) + (taken["read"] if pass_ == "backward" else 0.0)
            note = f"{taken['simd'] / BEYOND * 1e9:.3f} ns an element"
            yield Figure("memory", f"roof / simd, {name} {pass_}, {BEYOND:,}", least / taken["simd"], 0.9, note=note)


def rows(seconds: float) -> Iterator[Figure]:
    for name, axes, target in (
        ("topk_relu", {"rows": 64, "n": 11008}, 15.0),
        ("poly_norm", {"rows": 2048, "n": 8192}, 10.0),
        ("crrelu", {"n": BEYOND}, 10.0),
        ("rational", {"n": BEYOND}, 10.0),
    ):
        memory: dict[str, Any] = {}
        sides = {side: bound(name, side, "forward", axes, memory) for side in ("simd", "peer/torch-eager")}
        taken = medians(sides, 2 * seconds)
        ratio = taken["peer/torch-eager"] / taken["simd"]
        yield Figure("rows", f"torch / simd, {name}, {' x '.join(map(str, axes.values()))}", ratio, target)


def calls(seconds: float) -> Iterator[Figure]:
    from ulproof.impls import load

    x = np.random.default_rng(0).standard_normal(1000, dtype=np.float32)
    for name in ELEMENTWISE:
        implementation = load(name)["simd/sweep"]
        once = implementation.bind((x,), (np.empty_like(x),))
        sides: dict[str, Callable[[], Any]] = {"user": partial(implementation, x), "bound": once, "empty": lambda: None}
        taken = medians(sides, seconds / 2)
        over = 1e6 * (taken["user"] - taken["empty"] - taken["bound"])
        yield Figure("calls", f"microseconds over the bound call, {name}, 1,000", over, 1.2, False)


PARTS: dict[str, Callable[[float], Iterator[Figure]]] = {"L2": in_l2, "memory": beyond, "rows": rows, "calls": calls}


def main(arguments: list[str] | None = None) -> int:
    """Print the figures of the parts asked for; exit code 0 when every target is met, 1 otherwise."""
    parser = argparse.ArgumentParser(
        prog="python -m ulproof.benchmarks.headline_activations", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], default=list(PARTS), help="default: all of them")
    parser.add_argument("--seconds", type=float, default=1.0, help="of measuring for a usual group (default 1)")
    given = parser.parse_args(arguments)
    import torch

    torch.set_num_threads(1)
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    met = True
    for part in given.parts:
        for figure in PARTS[part](given.seconds):
            met = met and figure.met is not False
            print(figure.line(), flush=True)
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())

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

from .headline import Figure, medians, parse
from .measure import ceilings

ELEMENTWISE = ("relu", "relu2", "gelu", "gelu_tanh", "silu", "sigmoid", "softplus", "tanh", "exp")
LEARNED = ("crrelu", "poly_relu", "rational", "hermite_act", "hermite_act_1")
GATED = ("swiglu", "geglu", "reglu")
FUSED = ("bias_gelu", "bias_silu", "bias_relu2", "relu_zeros", "fatrelu_zeros")
BEYOND, IN_L2 = 1 << 25, 1 << 16


def bound(
    name: str, backend: str, pass_: str, axes: dict[str, int], memory: dict[str, Any], isa: str | None = None
) -> Callable[[], None]:
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
    return implementation.bind(memory["inputs"], memory["outputs"], pass_=pass_, isa=isa)


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
    """Against the roof, the longest of: moving the arrays, by copies with the better kind of stores and reads of what is left
    over; the card's exponentials; its arithmetic, at the rate of multiply-adds. With every instruction set."""
    from ulproof.impls import operators

    kernels, small, sweeps = ceilings.native(), ceilings.memory(ceilings.L1_PART), 16
    for isa in kernels.isas():
        rates = {kind: kernels.bind(f"{kind}-float32", isa, None, small, 1, sweeps) for kind in ("fma", "exp")}
        each = {
            kind: taken / sweeps / kernels.work(f"{kind}-float32", small.nbytes)
            for kind, taken in medians(rates, seconds / 4).items()
        }
        for name in ELEMENTWISE + LEARNED + GATED + FUSED:
            axes = {"rows": BEYOND >> 13, "n": 1 << 13} if name in GATED + FUSED else {"n": BEYOND}
            for pass_, card in operators()[name].passes.items():
                memory: dict[str, Any] = {}
                simd = bound(name, "simd", pass_, axes, memory, isa)
                x, y = memory["inputs"][0], memory["outputs"][0]
                read = kernels.bind("read", isa, None, x, 1, 1)
                copies = {kind: kernels.bind(kind, isa, y, x, 1, 1) for kind in ("copy", "stream-copy")}
                taken = medians({"simd": simd, "read": read, **copies}, seconds)
                reads, writes = (sum(each.dtype == "io" for each in arguments) for arguments in (card.inputs, card.outputs))
                roofs = {
                    "memory": writes * min(taken["copy"], taken["stream-copy"]) + (reads - writes) * taken["read"],
                    "fma": each["fma"] * card.flops(axes),
                    "exp": each["exp"] * card.exps(axes),
                }
                binds = max(roofs, key=lambda kind: roofs[kind])
                note = f"{taken['simd'] / BEYOND * 1e9:.3f} ns an element, {binds} binds"
                yield Figure(isa, f"roof / simd, {name} {pass_}, {BEYOND:,}", roofs[binds] / taken["simd"], 0.9, note=note)


def wide_rows(seconds: float) -> Iterator[Figure]:
    for pass_ in ("forward", "backward"):
        for power in range(10, 18):
            axes = {"rows": BEYOND >> power, "n": 1 << power}
            taken = medians({"simd": bound("poly_norm", "simd", pass_, axes, {})}, seconds / 2)["simd"]
            yield Figure("widths", f"ns an element, poly_norm {pass_}, rows of {1 << power:,}", taken / BEYOND * 1e9)


# What PyTorch has no kernel for, and the ratio to its eager composite that we aim for.
COMPOSITES: tuple[tuple[str, dict[str, int], float], ...] = (
    ("topk_relu", {"rows": 64, "n": 11008}, 15.0),
    ("poly_norm", {"rows": 2048, "n": 8192}, 10.0),
    ("crrelu", {"n": BEYOND}, 10.0),
    ("rational", {"n": BEYOND}, 10.0),
)


def rows(seconds: float, peer: str = "peer/torch-eager", aim: float | None = None) -> Iterator[Figure]:
    for name, axes, target in COMPOSITES:
        memory: dict[str, Any] = {}
        sides = {side: bound(name, side, "forward", axes, memory) for side in ("simd", peer)}
        taken = medians(sides, 2 * seconds)
        part, ratio = "compile" if aim else "rows", taken[peer] / taken["simd"]
        yield Figure(part, f"{peer[5:]} / simd, {name}, {' x '.join(map(str, axes.values()))}", ratio, aim or target)


def compiled(seconds: float) -> Iterator[Figure]:
    """The same beside torch.compile, whose code writes into the same outputs."""
    yield from rows(seconds, "peer/torch-compile", 1.2)


def calls(seconds: float) -> Iterator[Figure]:
    """What a call on the user's arrays costs beyond the bound call, of each activation, gate and fused one."""
    from ulproof.impls import load, operators
    from ulproof.impls._backends import stress

    for name, operator in operators().items():
        implementation = next((each for each in load(name).values() if each.backend == "simd"), None)
        if not operator.elementwise or implementation is None:
            continue
        flat = len(operator.passes["forward"].inputs[0].axes) == 1
        axes = {"n": 1000} if flat else {"rows": 1, "n": 1000}
        for pass_ in ("forward", "backward"):
            inputs = stress.inputs(operator, pass_, axes, "float32", "normal")
            results = implementation(*inputs, pass_=pass_)
            outputs = results if isinstance(results, tuple) else (results,)
            call = partial(implementation, *inputs, **({} if pass_ == "forward" else {"pass_": pass_}))
            sides: dict[str, Callable[[], Any]] = {
                "user": call,
                "bound": implementation.bind(inputs, outputs, pass_=pass_),
                "empty": lambda: None,
            }
            taken = medians(sides, seconds / 2)
            over = 1e6 * (taken["user"] - taken["empty"] - taken["bound"])
            yield Figure("calls", f"microseconds over the bound call, {name} {pass_}, 1,000", over, 1.2, False)


PARTS: dict[str, Callable[[float], Iterator[Figure]]] = {
    "L2": in_l2,
    "memory": beyond,
    "rows": rows,
    "compile": compiled,
    "widths": wide_rows,
    "calls": calls,
}


def main(arguments: list[str] | None = None) -> int:
    """Print the figures of the parts asked for; exit code 0 when every target is met, 1 otherwise."""
    parser = argparse.ArgumentParser(
        prog="python -m ulproof.benchmarks.headline_activations", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--seconds", type=float, default=1.0, help="of measuring for a usual group (default 1)")
    given = parse(parser, PARTS, arguments)
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

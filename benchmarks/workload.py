"""One workload made ready to be called and judged: what ASV and pytest-benchmark share.

Modules below this folder are imported by ASV from the working tree, against the package of any commit: relative imports
among themselves, ``ulproof.impls`` inside functions, nothing but NumPy and the standard library at import time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np

from .cases import CASES
from .measure.ulp import ulp_error


class Absent(NotImplementedError):
    """Why a workload can't run: this build lacks it, or this machine does. ASV shows ``n/a``, pytest-benchmark skips."""


@dataclass(frozen=True)
class Workload:
    """``call`` runs the bound implementation and waits for it; ``nbytes`` is the least it must move."""

    call: Callable[[], None]
    outputs: Callable[[], tuple[np.ndarray, ...]]
    axes: Mapping[str, int]
    nbytes: int
    inputs: tuple[np.ndarray, ...]
    card: Any
    package: str
    params: Mapping[str, Any]

    def max_ulp(self) -> float:
        """The largest error of a fresh call, in ULPs of the output's dtype at the card's scale; infinite if not finite."""
        reference = import_module(".reference", self.package)
        exact = tuple(array.astype(np.float64) for array in self.inputs)
        expected = getattr(reference, self.card.oracle)(*exact, **self.params)
        scale = getattr(reference, self.card.scale) if self.card.scale else None
        scales = scale(*exact, *expected, **self.params) if scale else (None,) * len(expected)
        self.call()
        errors = (
            ulp_error(actual, truth, actual.dtype.name, scale)
            for actual, truth, scale in zip(self.outputs(), expected, scales, strict=True)
        )
        return max(float(error.max(initial=0.0)) for error in errors)


def ready(name: str, target: str, shape: str, dtype: str = "float32", pass_: str = "forward") -> Workload:
    """Draw N(0, 1) inputs, bind ``name`` (``operator:backend/variant``) to them and to outputs full of NaN.

    Raises ``Absent`` with the reason where the installed build or this machine can't run it.
    """
    from ulproof.impls import load, operators
    from ulproof.impls._backends.arrays import dtype_named, from_torch, to_torch
    from ulproof.impls._backends.stress import inputs as draw

    operator, _, variant = name.partition(":")
    if operator not in operators() or variant not in load(operator):
        raise Absent(f"this build has no {name}")
    implementation = load(operator)[variant]
    axes = CASES[operator].axes_of(shape)
    if reason := implementation.unavailable(target) or implementation.refuses(pass_, axes, dtype):
        raise Absent(reason)

    card = implementation.operator.passes[pass_]
    inputs = draw(implementation.operator, pass_, axes, dtype)
    # A build from before this working tree may have cards that know neither dtypes of arguments nor parameters.
    named = [getattr(argument, "dtype", "io") for argument in card.outputs]
    types = [dtype_named(dtype if name == "io" else name) for name in named]
    poison = [np.nan if each.kind not in "biu" else -77 for each in types]
    outputs = tuple(
        np.full(argument.shape(axes), full_of, each)
        for argument, full_of, each in zip(card.outputs, poison, types, strict=True)
    )
    params = getattr(implementation.operator, "params", {})
    facts = (axes, card.nbytes(axes, dtype), inputs, card, implementation.operator.package, params)
    if target == "cpu":
        bound = implementation.bind(inputs, outputs, pass_=pass_)
        return Workload(bound, lambda: outputs, *facts)

    import torch

    there = tuple(to_torch(array).to(target) for array in inputs)
    results = tuple(to_torch(array).to(target) for array in outputs)
    launch = implementation.bind(there, results, pass_=pass_, target=target)

    def call() -> None:
        launch()
        torch.cuda.synchronize(target)

    return Workload(call, lambda: tuple(from_torch(tensor.cpu()) for tensor in results), *facts)

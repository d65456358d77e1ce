"""What PyTorch as a peer needs, in every family: views of the caller's arrays, a thread count, compiled formulas.

torch keeps one thread count for its process, so every call sets its own. Its ISA is the process's too: it is what
ATEN_CPU_CAPABILITY allowed when torch was imported, and bind refuses another.
"""

from __future__ import annotations

import os
import types
from collections.abc import Callable, Mapping
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from . import arrays, probe

if TYPE_CHECKING:
    from ..registry import Implementation

Formula = Callable[..., Any]


def unavailable(implementation: Implementation, target: str) -> str | None:
    return probe.missing("torch") or (probe.torch_without_cuda() if target.startswith("cuda") else None)


def insist_on_isa(implementation: Implementation, isa: str | None) -> None:
    import torch

    here = torch.backends.cpu.get_cpu_capability().lower()
    if isa is not None and here != isa:
        raise RuntimeError(
            f"{implementation.full_name} can't run here: torch uses {here} in this process, not {isa}; "
            f"set ATEN_CPU_CAPABILITY={isa} before it is imported"
        )


def tensor(name: str, array: np.ndarray) -> Any:
    if any(stride < 0 for stride in array.strides):
        raise ValueError(f"{name} has negative strides {array.strides}, which torch can't view; take a copy")
    return arrays.to_torch(array)


def with_threads(threads: int, run: Callable[[], None]) -> Callable[[], None]:
    import torch

    def call() -> None:
        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)
        run()

    return call


def bind(
    implementation: Implementation,
    pass_: str,
    inputs: tuple[Any, ...],
    outputs: tuple[Any, ...],
    target: str,
    isa: str | None,
    threads: int,
    params: Mapping[str, Any],
    eager: Callable[..., Callable[[], Any]],
    formula: Formula,
) -> Callable[[], None]:
    """``eager(pass_, inputs, outputs)`` plans the eager calls; ``formula`` is the forward pass, which torch.compile gets as
    it is, and differentiated for the backward pass."""
    import torch

    if target == "cpu":
        arrays.check(implementation, pass_, inputs, outputs)
        insist_on_isa(implementation, isa)
        card = implementation.operator.passes[pass_]
        named = zip((argument.name for argument in card.inputs + card.outputs), inputs + outputs, strict=True)
        tensors = [tensor(name, array) for name, array in named]
        inputs, outputs = tuple(tensors[: len(inputs)]), tuple(tensors[len(inputs) :])
    if implementation.variant == "torch-eager":
        planned = eager(pass_, inputs, outputs)
    else:
        layouts = tuple((tuple(each.size()), each.stride(), each.dtype, each.device) for each in (*outputs, *inputs))
        names = [argument.name for argument in implementation.operator.passes[pass_].inputs]
        compute = compiled(
            formula, tuple(params.items()), names.index("dy") if pass_ == "backward" else None, len(outputs), layouts
        )
        planned = partial(compute, *outputs, *inputs)

    def run() -> None:
        with torch.no_grad():
            planned()

    return with_threads(threads, run) if target == "cpu" else run


@cache
def compiled(
    formula: Formula,
    params: tuple[tuple[str, Any], ...],
    gradient: int | None,
    results: int,
    layouts: tuple[tuple[Any, ...], ...],
) -> Callable[..., None]:
    """Inductor's code for tensors of these layouts, outputs first; called once on scratch.

    ``gradient`` is the place among the inputs of the output's gradient, for a backward pass.
    """
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(Path.home() / ".cache" / "ulproof" / "inductor"))
    import torch

    static = dict(params)

    def compute(*tensors: Any) -> None:
        outputs, inputs = tensors[:results], list(tensors[results:])
        if gradient is None:
            found = formula(*inputs, **static)
            found = found if isinstance(found, tuple) else (found,)
        else:
            dy = inputs.pop(gradient)
            pull: Any = torch.func.vjp(lambda *each: formula(*each, **static), *inputs)[1]
            found = pull(dy)
        for output, result in zip(outputs, found, strict=True):
            output.copy_(result)

    # Dynamo keeps compiled code with the code object and gives up after a few shapes: each layout gets a copy of its own.
    own = types.FunctionType(compute.__code__.replace(), compute.__globals__, closure=compute.__closure__)
    made: Callable[..., None] = torch.compile(own, dynamic=False, fullgraph=True)
    with torch.no_grad():
        made(*(torch.empty_strided(size, stride, dtype=dtype, device=device) for size, stride, dtype, device in layouts))
    return made

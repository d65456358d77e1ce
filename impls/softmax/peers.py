"""Other people's softmax family: PyTorch eager and compiled, SciPy, XNNPACK, Liger and quack. They promise nothing here.

Each writes into the caller's outputs by the shortest way its library offers; where that allocates, the card says so.
"""

from __future__ import annotations

import os
import types
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .._backends import arrays, probe, xnnpack
from .._backends.torch_peer import insist_on_isa, tensor, with_threads

if TYPE_CHECKING:
    from ..registry import Implementation

NEEDS = {
    "torch-eager": "torch",
    "torch-compile": "torch",
    "scipy": "scipy",
    "liger": "liger_kernel",
    "quack": "quack",
}


def unavailable(implementation: Implementation, target: str) -> str | None:
    if implementation.variant == "xnnpack":
        return xnnpack.unavailable("softmax")
    if reason := probe.missing(NEEDS[implementation.variant]):
        return reason
    return probe.torch_without_cuda() if target.startswith("cuda") else None


def bind(
    implementation: Implementation,
    pass_: str,
    inputs: tuple[Any, ...],
    outputs: tuple[Any, ...],
    *,
    target: str = "cpu",
    isa: str | None = None,
    threads: int = 1,
    params: Mapping[str, Any] | None = None,
) -> Callable[[], None]:
    """NumPy arrays on the CPU (XNNPACK wants whole rows of float32, torch no negative strides), torch tensors on a GPU."""
    if target == "cpu":
        arrays.check(implementation, pass_, inputs, outputs)
    makers = {
        "torch-eager": torch_eager,
        "torch-compile": torch_compile,
        "scipy": scipy,
        "xnnpack": xnnpack_softmax,
        "liger": liger,
        "quack": quack,
    }
    make = makers[implementation.variant]
    if make in (torch_eager, torch_compile):
        if target == "cpu":
            insist_on_isa(implementation, isa)
            card = implementation.operator.passes[pass_]
            named = zip((argument.name for argument in card.inputs + card.outputs), inputs + outputs, strict=True)
            tensors = [tensor(name, array) for name, array in named]
            inputs, outputs = tuple(tensors[: len(inputs)]), tuple(tensors[len(inputs) :])
        run = make(implementation.operator.name, pass_, *inputs, *outputs)
        return with_threads(threads, run) if target == "cpu" else run
    return make(implementation.operator.name, pass_, *inputs, *outputs)


# PyTorch


def torch_eager(operator: str, pass_: str, *tensors: Any) -> Callable[[], None]:
    """The functions that autograd calls, through ``out=``. logsumexp's gradient is three eager operations, as there.

    These kernels write to any ``out`` as though it were contiguous; one that is not gets a copy of a contiguous result.
    """
    import torch

    *inputs, result = tensors
    out = result if result.is_contiguous() else torch.empty_like(result, memory_format=torch.contiguous_format)
    aten = torch.ops.aten
    functions: dict[tuple[str, str], Callable[..., Any]] = {
        ("softmax", "forward"): lambda x: torch._softmax(x, -1, False, out=out),
        ("log_softmax", "forward"): lambda x: torch._log_softmax(x, -1, False, out=out),
        ("logsumexp", "forward"): lambda x: torch.logsumexp(x, -1, out=out),
        ("softmax", "backward"): lambda y, dy: aten._softmax_backward_data.out(dy, y, -1, dy.dtype, grad_input=out),
        ("log_softmax", "backward"): lambda y, dy: aten._log_softmax_backward_data.out(dy, y, -1, dy.dtype, out=out),
        ("logsumexp", "backward"): lambda x, lse, dlse: (
            torch.sub(x, lse.unsqueeze(-1), out=out).exp_().mul_(dlse.unsqueeze(-1))
        ),
    }
    compute = functions[operator, pass_]

    def run() -> None:
        compute(*inputs)

    def run_and_copy() -> None:
        compute(*inputs)
        result.copy_(out)

    return run if out is result else run_and_copy


def torch_compile(operator: str, pass_: str, *tensors: Any) -> Callable[[], None]:
    """Inductor's code for the textbook formula, compiled once for these shapes and strides."""
    import torch

    *inputs, out = tensors
    layouts = tuple((tuple(each.size()), each.stride(), each.dtype, each.device) for each in (out, *inputs))
    compute = compiled(operator, pass_, layouts)

    def run() -> None:
        with torch.no_grad():
            compute(out, *inputs)

    return run


@cache
def compiled(operator: str, pass_: str, layouts: tuple[tuple[Any, ...], ...]) -> Callable[..., Any]:
    """Compile for tensors of these layouts, the output's first, and call once on scratch."""
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(Path.home() / ".cache" / "ulproof" / "inductor"))
    import torch

    formulas: dict[tuple[str, str], Callable[..., Any]] = {
        ("softmax", "forward"): lambda out, x: out.copy_(torch.softmax(x, -1)),
        ("log_softmax", "forward"): lambda out, x: out.copy_(torch.log_softmax(x, -1)),
        ("logsumexp", "forward"): lambda out, x: out.copy_(torch.logsumexp(x, -1)),
        ("softmax", "backward"): lambda out, y, dy: out.copy_(torch.ops.aten._softmax_backward_data(dy, y, -1, dy.dtype)),
        ("log_softmax", "backward"): lambda out, y, dy: out.copy_(
            torch.ops.aten._log_softmax_backward_data(dy, y, -1, dy.dtype)
        ),
        ("logsumexp", "backward"): lambda out, x, lse, dlse: out.copy_((x - lse[..., None]).exp() * dlse[..., None]),
    }
    formula = formulas[operator, pass_]
    # Dynamo keeps compiled code with the code object and gives up after a few shapes: each layout gets a copy of its own.
    own = types.FunctionType(formula.__code__.replace(), formula.__globals__, closure=formula.__closure__)
    compute = torch.compile(own, dynamic=False, fullgraph=True)
    with torch.no_grad():
        scratch = (torch.empty_strided(size, stride, dtype=dtype, device=device) for size, stride, dtype, device in layouts)
        compute(*scratch)
    return compute


# SciPy


def scipy(operator: str, pass_: str, x: np.ndarray, out: np.ndarray) -> Callable[[], None]:
    """SciPy allocates its result; it is copied into the output."""
    from scipy import special

    compute = getattr(special, operator)

    @np.errstate(all="ignore")
    def run() -> None:
        np.copyto(out, compute(x, axis=-1))

    return run


def xnnpack_softmax(operator: str, pass_: str, x: np.ndarray, y: np.ndarray) -> Callable[[], None]:
    return xnnpack.by_rows("softmax", x, y)


# GPU libraries


def liger(operator: str, pass_: str, *tensors: Any) -> Callable[[], None]:
    """Liger allocates its result; it is copied into the output."""
    from liger_kernel.ops.softmax import LigerSoftmaxFunction, _softmax_backward, _softmax_forward

    *inputs, out = tensors
    if pass_ == "forward":
        return lambda: out.copy_(LigerSoftmaxFunction.apply(*inputs))
    y, dy = inputs
    _, *plan = _softmax_forward(y)  # the launch plan depends on the shape alone
    return lambda: out.copy_(_softmax_backward(dy, y, *plan))


def quack(operator: str, pass_: str, *tensors: Any) -> Callable[[], None]:
    """quack's kernels write into the output; they take 2-D tensors."""
    from quack.softmax import _softmax_backward, _softmax_fwd

    flat = [each.view(-1, each.shape[-1]) for each in tensors]
    if pass_ == "forward":
        return lambda: _softmax_fwd(*flat)
    y, dy, dx = flat
    return lambda: _softmax_backward(dy, y, dx)

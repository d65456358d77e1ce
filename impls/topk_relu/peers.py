"""PyTorch's topk_relu: topk and scatter, into memory that is kept from call to call. It keeps any among equals.

Its kin are composed of its functions as a user would, temporaries and all; thresholds are of the input's dtype.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from .._backends import torch_peer
from .._backends.torch_peer import unavailable as unavailable
from . import buckets, deviations

if TYPE_CHECKING:
    from ..registry import Implementation

Tensor = Any


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
    """NumPy arrays without negative strides on the CPU, torch tensors on a GPU."""
    static, name = dict(params or {}), implementation.operator.name
    formula = FORMULAS[name]

    def composite(pass_: str, inputs: tuple[Tensor, ...], outputs: tuple[Tensor, ...]) -> Callable[[], Any]:
        import torch

        x, (out,) = inputs[0], outputs
        if pass_ == "forward":
            return lambda: out.copy_(formula(x, **static))
        zero = x.new_zeros(())
        return lambda: torch.where(formula(x, **static) != 0, inputs[1], zero, out=out)

    def eager(pass_: str, inputs: tuple[Tensor, ...], outputs: tuple[Tensor, ...]) -> Callable[[], Any]:
        import torch

        x, (out,) = inputs[0], outputs
        count = min(static["k"], x.shape[-1])
        values = torch.empty((*x.shape[:-1], count), dtype=x.dtype, device=x.device)
        indices = torch.empty(values.shape, dtype=torch.int64, device=x.device)

        def forward() -> None:
            torch.topk(x, count, sorted=False, out=(values, indices))
            out.zero_().scatter_(-1, indices, values.clamp_(min=0))

        def backward() -> None:
            torch.topk(x, count, sorted=False, out=(values, indices))
            gradient = torch.ops.aten.threshold_backward(inputs[1].gather(-1, indices), values, 0)
            out.zero_().scatter_(-1, indices, gradient)

        return forward if pass_ == "forward" else backward

    given = (implementation, pass_, inputs, outputs, target, isa, threads, static)
    return torch_peer.bind(*given, eager if name == "topk_relu" else composite, formula)


def exact(x: Tensor, k: int) -> Tensor:
    import torch

    values, indices = torch.topk(x, min(k, x.shape[-1]), sorted=False)
    return torch.zeros_like(x).scatter(-1, indices, torch.relu(values))


def approximate(x: Tensor, k: int, recall: float) -> Tensor:
    import torch

    n = x.shape[-1]
    if not (count := buckets(k, n, recall)):
        return exact(x, k)
    folded = torch.nn.functional.pad(x, (0, -n % count), value=-math.inf).unflatten(-1, (-1, count))
    leaders, first = folded.max(-2)
    values, chosen = torch.topk(leaders, min(k, count), sorted=False)
    kept = torch.zeros_like(folded).flatten(-2).scatter(-1, first.gather(-1, chosen) * count + chosen, torch.relu(values))
    return kept[..., :n]


def statistical(x: Tensor, k: int) -> Tensor:
    import torch

    n = x.shape[-1]
    if k >= n:
        return torch.relu(x)
    std, mean = torch.std_mean(x.detach(), -1, correction=0, keepdim=True)
    return torch.where(x < mean + std * deviations(k, n), 0.0, torch.relu(x))


FORMULAS: Mapping[str, Callable[..., Tensor]] = {
    "topk_relu": exact,
    "topk_relu_approx": approximate,
    "topk_relu_stat": statistical,
}

"""PyTorch's topk_relu: topk and scatter, into memory that is kept from call to call. It keeps any among equals."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from .._backends import torch_peer
from .._backends.torch_peer import unavailable as unavailable

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
    k = (params or {})["k"]

    def eager(pass_: str, inputs: tuple[Tensor, ...], outputs: tuple[Tensor, ...]) -> Callable[[], Any]:
        import torch

        x, (out,) = inputs[0], outputs
        count = min(k, x.shape[-1])
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

    given = (implementation, pass_, inputs, outputs, target, isa, threads, params or {})
    return torch_peer.bind(*given, eager, formula)


def formula(x: Tensor, k: int) -> Tensor:
    import torch

    values, indices = torch.topk(x, min(k, x.shape[-1]), sorted=False)
    return torch.zeros_like(x).scatter(-1, indices, torch.relu(values))

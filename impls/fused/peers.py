"""PyTorch's fused activations: its functions one after another, every step into memory that is kept from call to call."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from .._backends import torch_peer
from .._backends.torch_peer import unavailable as unavailable
from ..activations.peers import formulas, own

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
    name = implementation.operator.name
    biased = name.startswith("bias_")
    activation = name.removeprefix("bias_").removesuffix("_zeros")
    static = params or {}

    def eager(pass_: str, inputs: tuple[Tensor, ...], outputs: tuple[Tensor, ...]) -> Callable[[], Any]:
        import torch

        if not biased:
            activate = own(activation, pass_, inputs, outputs[0], static)
            if pass_ == "backward":
                return activate
            y, zeros = outputs
            mask = torch.empty(y.shape, dtype=torch.bool, device=y.device)
            return lambda: (activate(), torch.sum(torch.eq(y, 0, out=mask), 0, out=zeros))
        x, bias, out = inputs[0], inputs[-1].to(inputs[0].dtype), outputs[0]
        z = torch.empty_like(x)
        activate = own(activation, pass_, (z, *inputs[1:-1]), out, static)

        def run() -> None:
            torch.add(x, bias, out=z)
            activate()
            if pass_ == "backward":
                torch.sum(out, 0, dtype=torch.float32, out=outputs[1])

        return run

    def formula(x: Tensor, *rest: Tensor, **static: Any) -> Any:
        if biased:
            return formulas()[activation](x + rest[0].to(x.dtype), **static)
        y = formulas()[activation](x, **static)
        return (y, (y == 0).sum(0)) if pass_ == "forward" else y

    given = (implementation, pass_, inputs, outputs, target, isa, threads, static)
    return torch_peer.bind(*given, eager, formula)

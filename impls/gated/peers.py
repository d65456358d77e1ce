"""PyTorch's gated units: its activations and one product, every step into memory that is kept from call to call."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from .._backends import torch_peer
from .._backends.torch_peer import unavailable as unavailable
from ..activations.peers import formulas, own

if TYPE_CHECKING:
    from ..registry import Implementation

ACTIVATIONS = {"swiglu": "silu", "geglu": "gelu", "reglu": "relu", "fatrelu_and_mul": "fatrelu"}


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
    name = ACTIVATIONS[implementation.operator.name]

    def eager(pass_: str, inputs: tuple[Any, ...], outputs: tuple[Any, ...]) -> Callable[[], Any]:
        import torch

        if pass_ == "forward":
            (gate, up), (y,) = inputs, outputs
            activate = own(name, "forward", (gate,), y, params or {})
            return lambda: (activate(), y.mul_(up))
        (gate, up, dy), (dgate, dup) = inputs, outputs
        product = torch.empty_like(dgate)
        activate = own(name, "forward", (gate,), dup, params or {})
        derive = own(name, "backward", (gate, product), dgate, params or {})

        def backward() -> None:
            activate()
            dup.mul_(dy)
            torch.mul(dy, up, out=product)
            derive()

        return backward

    def formula(gate: Any, up: Any, **static: Any) -> Any:
        return formulas()[name](gate, **static) * up

    given = (implementation, pass_, inputs, outputs, target, isa, threads, params or {})
    return torch_peer.bind(*given, eager, formula)

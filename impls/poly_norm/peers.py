"""PyTorch's poly_norm, composed of its functions as the authors' code has it, into memory that is kept from call to call."""

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
    eps = (params or {})["eps"]

    def eager(pass_: str, inputs: tuple[Tensor, ...], outputs: tuple[Tensor, ...]) -> Callable[[], Any]:
        plan: Callable[..., Callable[[], Any]] = forward if pass_ == "forward" else backward
        return plan(*inputs, *outputs, eps)

    given = (implementation, pass_, inputs, outputs, target, isa, threads, params or {})
    return torch_peer.bind(*given, eager, formula)


def forward(x: Tensor, w: Tensor, b: Tensor, y: Tensor, eps: float) -> Callable[[], Any]:
    import torch

    power, square = torch.empty_like(x), torch.empty_like(x)

    def run() -> None:
        power.copy_(x)
        for p, each in enumerate(w.flip(0).unbind()):
            if p:
                power.mul_(x)
            i = torch.rsqrt(torch.square(power, out=square).mean(-1, keepdim=True) + eps)
            if p:
                y.add_(torch.mul(power, i * each, out=square))
            else:
                torch.mul(power, i * each, out=y)
        y.add_(b.reshape(()))

    return run


def backward(x: Tensor, dy: Tensor, w: Tensor, b: Tensor, dx: Tensor, dw: Tensor, db: Tensor, eps: float) -> Callable[[], Any]:
    import torch

    power, below, s, t = (torch.empty_like(x) for _ in range(4))

    def run() -> None:
        below.fill_(1)
        power.copy_(x)
        dx.zero_()
        for p, each in enumerate(w.flip(0).unbind(), 1):
            i = torch.rsqrt(torch.square(power, out=s).mean(-1, keepdim=True) + eps)
            total = torch.mul(dy, power, out=s).sum(-1, keepdim=True)
            dw[3 - p].copy_((i * total).sum(dtype=torch.float32))
            torch.mul(dy, i * each * p, out=s)
            torch.mul(power, total * i**3 * each * (p / x.shape[-1]), out=t)
            dx.add_(s.sub_(t).mul_(below))
            below.copy_(power)
            power.mul_(x)
        db.copy_(dy.sum(dtype=torch.float32))

    return run


def formula(x: Tensor, w: Tensor, b: Tensor, eps: float) -> Tensor:
    def unit(u: Tensor) -> Tensor:
        return u * (u.square().mean(-1, keepdim=True) + eps).rsqrt()

    return w[0] * unit(x**3) + w[1] * unit(x**2) + w[2] * unit(x) + b

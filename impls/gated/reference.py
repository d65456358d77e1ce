"""The truth about gated units, from that about their activations: float64, for NumPy's arrays and for torch's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..activations import reference as of
from ..activations.reference import Array, Formula, quiet
from ..activations.reference import bind_to as bind_to
from ..activations.reference import unavailable as unavailable


def gated(activation: Formula, activation_backward: Formula, backward_scale: Formula) -> tuple[Formula, Formula, Formula]:
    """y = f(gate) up; dgate = dy up f'(gate), dup = dy f(gate); and the scales |dgate| (beside a zero of f' that of f'),
    |dup|."""

    @quiet
    def forward(gate: Array, up: Array, **params: Any) -> tuple[Array]:
        return (activation(gate, **params)[0] * up,)

    @quiet
    def backward(gate: Array, up: Array, dy: Array, **params: Any) -> tuple[Array, Array]:
        return activation_backward(gate, up * dy, **params)[0], activation(gate, **params)[0] * dy

    @quiet
    def scale(gate: Array, up: Array, dy: Array, dgate: Array, dup: Array, **params: Any) -> tuple[Array, Array]:
        return backward_scale(gate, up * dy, dgate, **params)[0], abs(dup)

    return forward, backward, scale


swiglu, swiglu_backward, swiglu_backward_scale = gated(of.silu, of.silu_backward, of.silu_backward_scale)
geglu, geglu_backward, geglu_backward_scale = gated(of.gelu, of.gelu_backward, of.gelu_backward_scale)
reglu, reglu_backward, reglu_backward_scale = gated(of.relu, of.relu_backward, of.relu_backward_scale)
fatrelu_and_mul, fatrelu_and_mul_backward, fatrelu_and_mul_backward_scale = gated(
    of.fatrelu, of.fatrelu_backward, of.fatrelu_backward_scale
)


bind: Callable[..., Callable[[], None]] = bind_to(globals())

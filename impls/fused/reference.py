"""The truth about fused activations, from that about the activations: float64, for NumPy's arrays and for torch's."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..activations import reference as of
from ..activations.reference import TERMS, Array, Formula, bind_to, quiet
from ..activations.reference import unavailable as unavailable


def summed(x: Array, bias: Array) -> Array:
    """x + bias rounded to float32: what an activation that is steep in relative terms would otherwise blow up"""
    z = x + bias
    return z.astype(np.float32).astype(np.float64) if isinstance(z, np.ndarray) else z.float().double()


def biased(activation: Formula, activation_backward: Formula, backward_scale: Formula) -> tuple[Formula, Formula, Formula]:
    """y = f(x + bias); dx = dy f'(x + bias), dbias = sum dx over rows; and the scale: f's, and ``TERMS`` times its sum."""

    @quiet
    def forward(x: Array, bias: Array) -> tuple[Array]:
        found: tuple[Array] = activation(summed(x, bias))
        return found

    @quiet
    def backward(x: Array, dy: Array, bias: Array) -> tuple[Array, Array]:
        (dx,) = activation_backward(summed(x, bias), dy)
        return dx, dx.sum(0)

    @quiet
    def scale(x: Array, dy: Array, bias: Array, dx: Array, dbias: Array) -> tuple[Array, Array]:
        (size,) = backward_scale(summed(x, bias), dy, dx)
        return size, TERMS * size.sum(0)

    return forward, backward, scale


bias_gelu, bias_gelu_backward, bias_gelu_backward_scale = biased(of.gelu, of.gelu_backward, of.gelu_backward_scale)
bias_silu, bias_silu_backward, bias_silu_backward_scale = biased(of.silu, of.silu_backward, of.silu_backward_scale)
bias_relu2, bias_relu2_backward, bias_relu2_backward_scale = biased(of.relu2, of.relu2_backward, of.relu2_backward_scale)


def counted(activation: Formula) -> Formula:
    """y = f(x), and how many y of each column are 0"""

    def forward(x: Array, **params: Any) -> tuple[Array, Array]:
        (y,) = activation(x, **params)
        return y, (y == 0).sum(0)

    return forward


relu_zeros, fatrelu_zeros = counted(of.relu), counted(of.fatrelu)
relu_zeros_backward, fatrelu_zeros_backward = of.relu_backward, of.fatrelu_backward

bind: Any = bind_to(globals())

"""PyTorch's activations: its own functions where it has them, through ``out=``, else what a user would compose of them,
every step into memory that is kept from call to call. Backward passes are the functions that autograd calls.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import cache, partial
from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np

from .._backends import arrays, torch_peer, xnnpack

if TYPE_CHECKING:
    from ..registry import Implementation

Tensor = Any
Call = Callable[[], Any]

# XNNPACK's operator of each, and the numbers that it takes.
XNNPACK: Mapping[str, tuple[str, tuple[float, ...]]] = {"sigmoid": ("sigmoid", ()), "relu": ("clamp", (0.0, math.inf))}


def unavailable(implementation: Implementation, target: str) -> str | None:
    if implementation.variant == "xnnpack":
        return xnnpack.unavailable(XNNPACK[implementation.operator.name][0])
    return torch_peer.unavailable(implementation, target)


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
    """NumPy arrays without negative strides on the CPU (XNNPACK wants whole rows of float32), torch tensors on a GPU."""
    name = implementation.operator.name
    if implementation.variant == "xnnpack":
        arrays.check(implementation, pass_, inputs, outputs)
        its, numbers = XNNPACK[name]
        return xnnpack.by_rows(its, inputs[0], outputs[0], *numbers)

    def eager(pass_: str, inputs: tuple[Tensor, ...], outputs: tuple[Tensor, ...]) -> Call:
        plan = globals().get(f"{name}_{pass_}")
        if plan is None:
            return own(name, pass_, inputs, outputs[0], params or {})
        planned: Call = plan(*inputs, *outputs, **(params or {}))
        return planned

    given = (implementation, pass_, inputs, outputs, target, isa, threads, params or {})
    return torch_peer.bind(*given, eager, formulas()[name])


def own(name: str, pass_: str, inputs: tuple[Tensor, ...], out: Tensor, params: Mapping[str, Any]) -> Call:
    """One call of a function that torch has."""
    import torch

    aten = torch.ops.aten
    x, dy = inputs[0], inputs[-1]
    scratch = torch.empty_like(x)
    t = below(params["t"], x.dtype) if "t" in params else 0.0
    calls: dict[tuple[str, str], Call] = {
        ("relu", "forward"): lambda: torch.clamp_min(x, 0, out=out),
        ("relu", "backward"): lambda: aten.threshold_backward.grad_input(dy, x, 0, grad_input=out),
        ("relu2", "forward"): lambda: torch.square(torch.clamp_min(x, 0, out=scratch), out=out),
        ("relu2", "backward"): lambda: torch.mul(torch.clamp_min(x, 0, out=scratch).mul_(2), dy, out=out),
        ("fatrelu", "forward"): lambda: aten.threshold.out(x, t, 0, out=out),
        ("fatrelu", "backward"): lambda: aten.threshold_backward.grad_input(dy, x, t, grad_input=out),
        ("gelu", "forward"): lambda: aten.gelu.out(x, out=out),
        ("gelu", "backward"): lambda: aten.gelu_backward.grad_input(dy, x, grad_input=out),
        ("gelu_tanh", "forward"): lambda: aten.gelu.out(x, approximate="tanh", out=out),
        ("gelu_tanh", "backward"): lambda: aten.gelu_backward.grad_input(dy, x, approximate="tanh", grad_input=out),
        ("silu", "forward"): lambda: aten.silu.out(x, out=out),
        ("silu", "backward"): lambda: aten.silu_backward.grad_input(dy, x, grad_input=out),
        ("sigmoid", "forward"): lambda: torch.sigmoid(x, out=out),
        ("sigmoid", "backward"): lambda: aten.sigmoid_backward.grad_input(dy, torch.sigmoid(x, out=scratch), grad_input=out),
        ("softplus", "forward"): lambda: aten.softplus.out(x, out=out),
        ("softplus", "backward"): lambda: aten.softplus_backward.grad_input(dy, x, 1, 20, grad_input=out),
        ("tanh", "forward"): lambda: torch.tanh(x, out=out),
        ("tanh", "backward"): lambda: aten.tanh_backward.grad_input(dy, torch.tanh(x, out=scratch), grad_input=out),
        ("exp", "forward"): lambda: torch.exp(x, out=out),
        ("exp", "backward"): lambda: torch.mul(torch.exp(x, out=scratch), dy, out=out),
    }
    return calls[name, pass_]


def below(t: float, dtype: Any) -> float:
    """The number of the type next below t: torch drops what equals its threshold."""
    import torch

    kind: Any = {torch.float16: np.float16, torch.bfloat16: ml_dtypes.bfloat16}.get(dtype, np.float32)
    nearest = kind(np.float32(t))
    return float(nearest if float(nearest) < np.float32(t) else np.nextafter(nearest, kind(-np.inf)))


def horner(x: Tensor, coefficients: Any, out: Tensor) -> Tensor:
    """out = sum_i c_i x^i, the highest power first; numbers or tensors of no axis"""
    import torch

    first, second, *rest = coefficients
    torch.mul(x, first, out=out).add_(second)
    for each in rest:
        out.mul_(x).add_(each)
    return out


def scalars(parameter: Tensor) -> list[Tensor]:
    """The numbers of a parameter, as tensors of no axis, which leave 16 bits what they are"""
    return list(parameter.reshape(-1).unbind())


def crrelu_forward(x: Tensor, eps: Tensor, y: Tensor) -> Call:
    import torch

    s, (e,) = torch.empty_like(x), scalars(eps)

    def run() -> None:
        torch.square(x, out=s).mul_(-0.5).exp_().mul_(x).mul_(e)
        torch.clamp_min(x, 0, out=y).add_(s)

    return run


def crrelu_backward(x: Tensor, dy: Tensor, eps: Tensor, dx: Tensor, deps: Tensor) -> Call:
    import torch

    s, t, (e,) = torch.empty_like(x), torch.empty_like(x), scalars(eps)

    def run() -> None:
        torch.square(x, out=s)
        torch.mul(s, -0.5, out=t).exp_()
        torch.mul(s, -1, out=dx).add_(1).mul_(t).mul_(e)
        torch.gt(x, 0, out=s)
        dx.add_(s).mul_(dy)
        deps.copy_(t.mul_(x).mul_(dy).sum(dtype=torch.float32))

    return run


def _hermite(d: int) -> tuple[float, ...]:
    scale, square = 2 ** (-d / 4), math.sqrt(0.5 - 2 ** (-d / 2))
    return scale / math.sqrt(6), square, scale * (1 - 3 / math.sqrt(6)), -square


def hermite_act_forward(x: Tensor, y: Tensor, d: int) -> Call:
    return lambda: horner(x, _hermite(d), y)


def hermite_act_backward(x: Tensor, dy: Tensor, dx: Tensor, d: int) -> Call:
    c3, c2, c1, _ = _hermite(d)
    return lambda: horner(x, (3 * c3, 2 * c2, c1), dx).mul_(dy)


_k = 1 / (12 * math.sqrt(70))
_ODD = (_k, -21 * _k, 105 * _k, math.sqrt(0.5) - 105 * _k)


def hermite_act_1_forward(x: Tensor, y: Tensor) -> Call:
    import torch

    s = torch.empty_like(x)
    return lambda: horner(torch.square(x, out=s), _ODD, y).mul_(x)


def hermite_act_1_backward(x: Tensor, dy: Tensor, dx: Tensor) -> Call:
    import torch

    s = torch.empty_like(x)
    slope = tuple(i * c for i, c in zip((7, 5, 3, 1), _ODD, strict=True))
    return lambda: horner(torch.square(x, out=s), slope, dx).mul_(dy)


def poly_relu_forward(x: Tensor, w: Tensor, b: Tensor, y: Tensor) -> Call:
    import torch

    r, coefficients = torch.empty_like(x), scalars(w) + scalars(b)
    return lambda: horner(torch.clamp_min(x, 0, out=r), coefficients, y)


def poly_relu_backward(x: Tensor, dy: Tensor, w: Tensor, b: Tensor, dx: Tensor, dw: Tensor, db: Tensor) -> Call:
    import torch

    r, s = torch.empty_like(x), torch.empty_like(x)

    def run() -> None:
        torch.clamp_min(x, 0, out=r)
        w0, w1, w2 = scalars(w)
        torch.gt(x, 0, out=s)
        horner(r, (3 * w0, 2 * w1, w2), dx).mul_(s).mul_(dy)
        s.copy_(dy)
        db.copy_(s.sum(dtype=torch.float32))
        for index in (2, 1, 0):
            dw[index].copy_(s.mul_(r).sum(dtype=torch.float32))

    return run


class Rational:
    """P / Q of a version, step by step into kept memory. ``b`` may hold a row of numbers for each coefficient."""

    def __init__(self, version: str, x: Tensor) -> None:
        import torch

        self.version = version
        self.first = 0.1 if version == "C" else 1.0
        self.q, self.p, self.side, self.size = (torch.empty_like(x) for _ in range(4))

    def quotient(self, x: Tensor, a: list[Tensor], b: list[Tensor]) -> None:
        """``p`` = P / Q, ``q`` = Q, ``side`` the sign of what stands between bars"""
        import torch

        if self.version == "A":
            torch.abs(x, out=self.size)
            horner(self.size, [abs(each) for each in reversed(b)], self.q).mul_(self.size)
        else:
            horner(x, list(reversed(b)), self.q)
            if self.version != "C":
                self.q.mul_(x)
            if self.version != "N":
                torch.sign(self.q, out=self.side)
                self.q.abs_()
        self.q.add_(self.first)
        horner(x, list(reversed(a)), self.p).div_(self.q)

    def gradients(
        self, x: Tensor, dy: Tensor, a: list[Tensor], b: list[Tensor], dx: Tensor, add: Callable[[int, Tensor], None]
    ) -> None:
        """dx; ``add(i, terms)`` gets what is to be summed for the i-th coefficient of a, then of b"""
        import torch

        self.quotient(x, a, b)
        start = 0 if self.version == "C" else 1
        powers, coefficients = (self.size, [abs(each) for each in b]) if self.version == "A" else (x, b)
        if self.version == "A":
            torch.sign(x, out=self.side)
        slopes = [j * each for j, each in enumerate(coefficients, start) if j]
        horner(powers, list(reversed(slopes)), dx).mul_(self.p).neg_()
        if self.version != "N":
            dx.mul_(self.side)
        slope = horner(x, [i * each for i, each in reversed(list(enumerate(a))) if i], torch.empty_like(x))
        dx.add_(slope).div_(self.q).mul_(dy)
        s = torch.div(dy, self.q, out=slope)
        self.p.mul_(s).neg_()
        for i in range(len(a)):
            add(i, s)
            s.mul_(x)
        terms = self.p
        if self.version in ("B", "C"):
            terms.mul_(self.side)
        for j in range(len(b)):
            if start or j:
                terms.mul_(powers)
            add(len(a) + j, terms)


def rational_call(version: str, x: Tensor, a: Tensor, b: Tensor, y: Tensor) -> Call:
    work = Rational(version, x)

    def run() -> None:
        work.quotient(x, scalars(a), scalars(b))
        y.copy_(work.p)

    return run


def rational_gradients(version: str, x: Tensor, dy: Tensor, a: Tensor, b: Tensor, dx: Tensor, da: Tensor, db: Tensor) -> Call:
    import torch

    work, sums = Rational(version, x), [*da.unbind(), *db.unbind()]

    def run() -> None:
        work.gradients(x, dy, scalars(a), scalars(b), dx, lambda i, terms: sums[i].copy_(terms.sum(dtype=torch.float32)))
        if version == "A":
            db.mul_(b.sign())

    return run


rational_forward, rational_backward = partial(rational_call, "A"), partial(rational_gradients, "A")
rational_b_forward, rational_b_backward = partial(rational_call, "B"), partial(rational_gradients, "B")
rational_c_forward, rational_c_backward = partial(rational_call, "C"), partial(rational_gradients, "C")
rational_n_forward, rational_n_backward = partial(rational_call, "N"), partial(rational_gradients, "N")


def by_column(x: Tensor, b: Tensor) -> list[Tensor]:
    """Each coefficient of the denominators, for every column of x"""
    return list(b.to(x.dtype).repeat_interleave(x.shape[-1] // len(b), 0).t().unbind())


def rational_group_forward(x: Tensor, a: Tensor, b: Tensor, y: Tensor) -> Call:
    work = Rational("A", x)

    def run() -> None:
        work.quotient(x, scalars(a), by_column(x, b))
        y.copy_(work.p)

    return run


def rational_group_backward(x: Tensor, dy: Tensor, a: Tensor, b: Tensor, dx: Tensor, da: Tensor, db: Tensor) -> Call:
    import torch

    work, groups = Rational("A", x), len(b)

    def add(i: int, terms: Tensor) -> None:
        if i < a.shape[1]:
            da[0, i].copy_(terms.sum(dtype=torch.float32))
        else:
            by_group = terms.view(-1, groups, terms.shape[-1] // groups).sum((0, 2), dtype=torch.float32)
            db[:, i - a.shape[1]].copy_(by_group)

    def run() -> None:
        work.gradients(x, dy, scalars(a), by_column(x, b), dx, add)
        db.mul_(b.sign())

    return run


# The textbook formulas that torch.compile gets


@cache
def formulas() -> dict[str, Callable[..., Tensor]]:
    import torch

    def crrelu(x: Tensor, eps: Tensor) -> Tensor:
        return x.clamp_min(0) + eps * x * torch.exp(-x.square() / 2)

    def fatrelu(x: Tensor, t: float) -> Tensor:
        return torch.where(x < t, 0, x)

    def hermite_act(x: Tensor, d: int) -> Tensor:
        c3, c2, c1, c0 = _hermite(d)
        return ((c3 * x + c2) * x + c1) * x + c0

    def hermite_act_1(x: Tensor) -> Tensor:
        s = x * x
        return (((_ODD[0] * s + _ODD[1]) * s + _ODD[2]) * s + _ODD[3]) * x

    def poly_relu(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
        r = x.clamp_min(0)
        return ((w[0] * r + w[1]) * r + w[2]) * r + b

    def rational(x: Tensor, a: Tensor, b: Tensor, version: str) -> Tensor:
        p = ((((a[5] * x + a[4]) * x + a[3]) * x + a[2]) * x + a[1]) * x + a[0]
        z, c = (x.abs(), b.abs()) if version == "A" else (x, b)
        if version == "C":
            return p / (0.1 + ((((c[4] * z + c[3]) * z + c[2]) * z + c[1]) * z + c[0]).abs())
        s = (((c[3] * z + c[2]) * z + c[1]) * z + c[0]) * z
        return p / (1 + (s.abs() if version == "B" else s))

    def rational_group(x: Tensor, a: Tensor, b: Tensor) -> Tensor:
        grouped = x.view(-1, len(b), x.shape[-1] // len(b))
        return rational(grouped, a[0], b.t()[:, :, None], "A").view(x.shape)

    functional = torch.nn.functional
    return {
        "relu": torch.relu,
        "relu2": lambda x: torch.relu(x).square(),
        "fatrelu": fatrelu,
        "gelu": functional.gelu,
        "gelu_tanh": lambda x: functional.gelu(x, approximate="tanh"),
        "silu": functional.silu,
        "sigmoid": torch.sigmoid,
        "softplus": functional.softplus,
        "tanh": torch.tanh,
        "exp": torch.exp,
        "crrelu": crrelu,
        "hermite_act": hermite_act,
        "hermite_act_1": hermite_act_1,
        "poly_relu": poly_relu,
        "rational": partial(rational, version="A"),
        "rational_b": partial(rational, version="B"),
        "rational_c": partial(rational, version="C"),
        "rational_n": partial(rational, version="N"),
        "rational_group": rational_group,
    }

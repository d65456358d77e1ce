"""What the GPU backends of elementwise operators share: their operands as matrices, and the numbers that aren't arrays."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from . import tensors
from .tensors import Memory

if TYPE_CHECKING:
    from ..registry import Implementation


@dataclass(frozen=True)
class Operands:
    """Checked arrays of a pass: wide ones as (rows, n) matrices, and learned parameters, or constants in their place."""

    rows: int
    n: int
    dtype: str
    inputs: tuple[Memory, ...]
    outputs: tuple[Memory, ...]
    parameters: tuple[Memory, ...]
    gradients: tuple[Memory, ...]

    @property
    def empty(self) -> bool:
        return not self.rows * self.n

    def zero(self) -> Callable[[], None]:
        """What a pass over no element does: the sums are 0."""

        def run() -> None:
            for each in self.gradients:
                each.tensor.zero_()

        return run


def operands(
    implementation: Implementation,
    pass_: str,
    inputs: Sequence[Any],
    outputs: Sequence[Any],
    target: str,
    params: Mapping[str, Any],
) -> Operands:
    """Check the arrays; contiguous ones become one row unless rows or columns matter. Raises ``TypeError``, ``ValueError``."""
    axes, dtype, memory = tensors.check(implementation, pass_, inputs, outputs, target)
    card = implementation.operator.passes[pass_]
    listed = list(zip((*card.inputs, *card.outputs), memory, strict=True))
    wide = [(argument, each) for argument, each in listed if argument.dtype == "io"]
    count = sum(argument.dtype == "io" for argument in card.inputs)
    rows, n, matrices = axes.get("rows", 1), axes["n"], tuple(each for _, each in wide)
    narrow = [(argument, each) for argument, each in listed if argument.dtype != "io"]
    by_columns = shape(implementation, pass_)[2] > 1 or any("n" in argument.axes for argument, _ in narrow)
    if implementation.operator.elementwise and not by_columns and rows * n:
        rows, n, matrices = tensors.matrices([argument for argument, _ in wide], matrices, axes)
    learned = sum(argument.dtype != "io" for argument in card.inputs)
    parameters = tuple(each for _, each in narrow[:learned]) or constants(implementation.operator.name, params, target)
    gradients = tuple(each for _, each in narrow[learned:])
    return Operands(rows, n, dtype, matrices[:count], matrices[count:], parameters, gradients)


def constants(operator: str, params: Mapping[str, Any], target: str) -> tuple[Memory, ...]:
    """The numbers that a kernel reads where learned parameters would stand."""
    if operator.startswith("hermite_act"):
        values = hermite(params.get("d", 1))
    elif "t" in params:
        values = (params["t"],)
    else:
        return ()
    import torch

    where = "cpu" if target == "interpreter" else target
    return (Memory("float32", (1,), torch.tensor(values, dtype=torch.float32, device=where)),)


def aligned(implementation: Implementation, pass_: str, dtype: str, axes: Mapping[str, int] | None = None) -> Operands:
    """Contiguous operands that are not there, to compile for."""
    card = implementation.operator.passes[pass_]
    first = card.inputs[0].axes
    axes = axes or ({"n": 1 << 24} if len(first) == 1 else {"rows": 4096, "n": 4096})
    n = axes["n"]

    def of(listed: tuple[Any, ...], wide: bool) -> tuple[Memory, ...]:
        chosen = [each for each in listed if (each.dtype == "io") is wide]
        return tuple(Memory(dtype if wide else each.dtype, (n, 1) if wide else (1,)) for each in chosen)

    parameters = of(card.inputs, False)
    return Operands(
        axes.get("rows", 1),
        n,
        dtype,
        of(card.inputs, True),
        of(card.outputs, True),
        parameters or (Memory("float32", (1,)),),
        of(card.outputs, False),
    )


def hermite(d: int) -> tuple[float, ...]:
    """Coefficients of hermite_act, highest power first: odd ones up to 7 for d = 1, else all up to 3; arXiv 2204.14126."""
    if d == 1:
        k = 12 * math.sqrt(70)
        return 1 / k, -21 / k, 105 / k, -105 / k + math.sqrt(0.5)
    a, c = 2 ** (-d / 4), math.sqrt((1 - 2 ** (1 - d / 2)) / 2)
    return a / math.sqrt(6), c, a - 3 * a / math.sqrt(6), -c


def shape(implementation: Implementation, pass_: str) -> tuple[int, int, int]:
    """Elements of the first and of the second learned parameter, the latter in each of so many groups of columns."""
    card = implementation.operator.passes[pass_]
    learned = [argument.shape({"n": 0}) for argument in card.inputs if argument.kind == "parameter"]
    groups = max([each[0] for each in learned if len(each) == 2], default=1)
    first, second = (*(each[-1] for each in learned), 0, 0)[:2]
    return first, second, groups

"""Checks and conversions of the caller's arrays, the same for every backend that runs on the CPU.

CPU arrays are NumPy, bfloat16 being ``ml_dtypes.bfloat16``. A torch CPU tensor is taken too, and then torch comes back.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np

if TYPE_CHECKING:
    from ..registry import Implementation

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)


def dtype_named(name: str) -> np.dtype:
    """The NumPy dtype of a record's dtype name."""
    return BFLOAT16 if name == "bfloat16" else np.dtype(name)


def is_torch(array: Any) -> bool:
    """Whether this is a torch tensor, asked without importing torch."""
    return type(array).__module__.partition(".")[0] == "torch"


def from_torch(tensor: Any) -> np.ndarray:
    """A NumPy view of a torch CPU tensor's memory, bfloat16 through its bits."""
    tensor = tensor.detach()
    if str(tensor.dtype) == "torch.bfloat16":
        import torch

        return tensor.view(torch.int16).numpy().view(BFLOAT16)
    return tensor.numpy()


def to_torch(array: np.ndarray) -> Any:
    """A torch tensor over a NumPy array's memory, also where that is read-only: torch knows no such thing."""
    import torch

    bits = array.view(np.int16) if array.dtype == BFLOAT16 else array
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")
        tensor = torch.from_numpy(bits)
    return tensor.view(torch.bfloat16) if bits is not array else tensor


def axes_of(implementation: Implementation, pass_: str, inputs: tuple[Any, ...]) -> tuple[dict[str, int], str]:
    """Check the inputs against the card; return the workload's axes and dtype name.

    The first input decides: its last axes are named by the card, and all leading ones together make the card's first axis,
    so a (2, 3, n) array is 6 rows. Raises ``TypeError`` or ``ValueError`` naming the argument.
    """
    operator = implementation.operator
    if pass_ not in operator.passes:
        raise ValueError(f"unknown pass {pass_!r} of {operator.name}; there are {', '.join(operator.passes)}")
    card = operator.passes[pass_]
    if len(inputs) != len(card.inputs):
        names = ", ".join(argument.name for argument in card.inputs)
        raise TypeError(f"{operator.name} {pass_} takes {len(card.inputs)} array(s) ({names}), got {len(inputs)}")
    axes: dict[Any, int] = {}
    lead: tuple[int, ...] = ()
    io = ""
    for argument, array in zip(card.inputs, inputs, strict=True):
        if not isinstance(array, np.ndarray):
            raise TypeError(f"{argument.name} must be a NumPy array or a torch CPU tensor, got {type(array).__name__}")
        if not array.dtype.isnative:
            raise TypeError(f"{argument.name} has byte order {array.dtype.byteorder!r}, must be the machine's own")
        if argument.dtype == "io":
            name = array.dtype.name
            if name not in implementation.dtypes:
                raise TypeError(
                    f"{argument.name} has dtype {name}; {implementation.full_name} takes {', '.join(implementation.dtypes)}"
                )
            if io and name != io:
                raise TypeError(f"{argument.name} has dtype {name}, but {card.inputs[0].name} has {io}; they must agree")
            io = io or name
        elif array.dtype.name != argument.dtype:
            raise TypeError(f"{argument.name} has dtype {array.dtype.name}, must be {argument.dtype}")
        tail = argument.axes[1:]
        if not axes and array.ndim < max(1, len(tail)):
            raise ValueError(f"{argument.name} has {array.ndim} dimensions, needs at least {max(1, len(tail))}")
        if not axes:
            lead = array.shape[: array.ndim - len(tail)]
            axes[argument.axes[0]] = int(np.prod(lead, dtype=np.int64))
            axes.update(zip(tail, array.shape[array.ndim - len(tail) :], strict=True))
            for axis in tail:
                if axes[axis] == 0:
                    raise ValueError(f"{argument.name} has shape {array.shape}: axis {axis!r} must not be empty")
        elif array.shape != (expected := shape_of(argument, axes, lead)):
            raise ValueError(f"{argument.name} has shape {array.shape}, must be {expected}")
    return axes, io


def shape_of(argument: Any, axes: Mapping[str, int], lead: tuple[int, ...]) -> tuple[int, ...]:
    """An argument's shape when the card's first axis, the first of ``axes``, stands for the leading dimensions ``lead``."""
    shape: tuple[int, ...] = argument.shape(axes)
    return (*lead, *shape[1:]) if argument.axes[:1] == (next(iter(axes)),) else shape


def lead_of(implementation: Implementation, pass_: str, first: np.ndarray) -> tuple[int, ...]:
    return first.shape[: first.ndim - len(implementation.operator.passes[pass_].inputs[0].axes[1:])]


def allocate(implementation: Implementation, pass_: str, inputs: tuple[Any, ...]) -> tuple[np.ndarray, ...]:
    """Fresh outputs for checked inputs."""
    axes, io = axes_of(implementation, pass_, inputs)
    lead = lead_of(implementation, pass_, inputs[0])
    return tuple(
        np.empty(shape_of(argument, axes, lead), dtype_named(io if argument.dtype == "io" else argument.dtype))
        for argument in implementation.operator.passes[pass_].outputs
    )


def overlap(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether two arrays share an element; interleaved views of one buffer don't. In doubt, after some effort, they do."""
    if not np.may_share_memory(one, other):
        return False
    try:
        return bool(np.shares_memory(one, other, max_work=10_000))  # type: ignore[arg-type]  # the stub knows -1 and 0 alone
    except np.exceptions.TooHardError:
        return True


def check(
    implementation: Implementation, pass_: str, inputs: tuple[Any, ...], outputs: tuple[Any, ...]
) -> tuple[dict[str, int], str]:
    """Check inputs and outputs against the card and each other; return axes and dtype name.

    Outputs must be writable, of the card's shapes and dtypes, and share no memory with an input or with each other.
    """
    axes, io = axes_of(implementation, pass_, inputs)
    if reason := implementation.refuses(pass_, axes, io):
        raise ValueError(f"{implementation.full_name}: {reason}")
    card = implementation.operator.passes[pass_]
    lead = lead_of(implementation, pass_, inputs[0])
    if len(outputs) != len(card.outputs):
        raise TypeError(f"{implementation.operator.name} {pass_} writes {len(card.outputs)} array(s), got {len(outputs)}")
    for position, (argument, array) in enumerate(zip(card.outputs, outputs, strict=True)):
        if not isinstance(array, np.ndarray):
            raise TypeError(f"output {argument.name} must be a NumPy array, got {type(array).__name__}")
        expected = io if argument.dtype == "io" else argument.dtype
        if array.dtype != dtype_named(expected):
            foreign = "" if array.dtype.isnative else " in foreign byte order"
            raise TypeError(f"output {argument.name} has dtype {array.dtype.name}{foreign}, must be {expected}")
        if array.shape != (shape := shape_of(argument, axes, lead)):
            raise ValueError(f"output {argument.name} has shape {array.shape}, must be {shape}")
        if not array.flags.writeable:
            raise ValueError(f"output {argument.name} is read-only")
        others = [*zip(card.inputs, inputs, strict=True), *zip(card.outputs[:position], outputs[:position], strict=True)]
        for other, there in others:
            if overlap(array, there):
                raise ValueError(f"output {argument.name} overlaps {other.name}: give it memory of its own")
    return axes, io


def call(implementation: Implementation, arrays: tuple[Any, ...], pass_: str, options: Mapping[str, Any]) -> Any:
    """Run an implementation on the user's own arrays: convert, allocate, bind, run; one output or a tuple of them."""
    if str(options.get("target", "cpu")) != "cpu" or any(is_torch(array) and array.is_cuda for array in arrays):
        from .tensors import call as on_gpu

        return on_gpu(implementation, arrays, pass_, options)
    torch = any(is_torch(array) for array in arrays)
    inputs = tuple(from_torch(array) if is_torch(array) else array for array in arrays)
    outputs = allocate(implementation, pass_, inputs)
    implementation.bind(inputs, outputs, pass_=pass_, **options)()
    shown = tuple(to_torch(array) for array in outputs) if torch else outputs
    return shown[0] if len(shown) == 1 else shown

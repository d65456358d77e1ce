"""Checks of torch tensors, the same for every backend that runs on a GPU, and the call on the user's own tensors."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from . import arrays

if TYPE_CHECKING:
    from ..registry import Implementation


FLOATS = ("float64", "float32", "float16", "bfloat16")


@dataclass(frozen=True)
class Memory:
    """An array as a kernel sees it: dtype name, strides in elements of its (rows, n) or (rows,) view, and the tensor.

    An array of an elementwise operator, and a parameter, keeps its own shape.

    Without a tensor it stands for 16-byte-aligned memory, to compile for.
    """

    dtype: str
    strides: tuple[int, ...] = ()
    tensor: Any = None


def tensors(arguments: Sequence[Any], given: Sequence[Any], target: str) -> tuple[Any, ...]:
    """The arrays as torch tensors on ``target``'s device; NumPy memory is shared. Raises ``TypeError``, ``ValueError``."""
    import torch

    where = torch.device("cpu" if target == "interpreter" else target)
    found = []
    for argument, array in zip(arguments, given, strict=True):
        if isinstance(array, np.ndarray) and target == "interpreter":
            if array.dtype.name not in (*FLOATS, argument.dtype):
                raise TypeError(f"{argument.name} has dtype {array.dtype.name}, must be float32, float16 or bfloat16")
            if any(stride < 0 for stride in array.strides):
                raise ValueError(f"{argument.name} has strides {array.strides}; Triton takes none below 0")
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message="The given NumPy array is not writ", category=UserWarning)
                array = arrays.to_torch(array)
        elif not isinstance(array, torch.Tensor):
            kinds = "a NumPy array or a torch CPU tensor" if target == "interpreter" else "a torch CUDA tensor"
            raise TypeError(f"{argument.name} must be {kinds}, got {type(array).__name__}")
        if array.device != where:
            raise ValueError(f"{argument.name} is on {array.device}, must be on {where}")
        found.append(array.detach())
    return tuple(found)


def check_inputs(
    implementation: Implementation, pass_: str, inputs: Sequence[Any]
) -> tuple[dict[str, int], str, tuple[int, ...]]:
    """Check tensors against the card as ``arrays.axes_of`` checks NumPy arrays; return axes, dtype name and lead shape."""
    card = implementation.operator.passes[pass_]
    axes: dict[Any, int] = {}
    lead: tuple[int, ...] = ()
    io = ""
    for argument, tensor in zip(card.inputs, inputs, strict=True):
        name = dtype_of(tensor)
        if argument.dtype != "io":
            if name != argument.dtype:
                raise TypeError(f"{argument.name} has dtype {name}, must be {argument.dtype}")
        elif name not in implementation.dtypes:
            raise TypeError(
                f"{argument.name} has dtype {name}; {implementation.full_name} takes {', '.join(implementation.dtypes)}"
            )
        elif io and name != io:
            raise TypeError(f"{argument.name} has dtype {name}, but {card.inputs[0].name} has {io}; they must agree")
        else:
            io = name
        shape = tuple(tensor.shape)
        if not axes:
            if not shape:
                raise ValueError(f"{argument.name} has 0 dimensions, needs at least 1")
            tail = argument.axes[1:]
            lead = shape[: len(shape) - len(tail)]
            axes = {argument.axes[0]: int(np.prod(lead, dtype=np.int64)), **dict(zip(tail, shape[len(lead) :], strict=True))}
            if empty := next((axis for axis in tail if axes[axis] == 0), None):
                raise ValueError(f"{argument.name} has shape {shape}: axis {empty!r} must not be empty")
        elif shape != (expected := arrays.shape_of(argument, axes, lead)):
            raise ValueError(f"{argument.name} has shape {shape}, must be {expected}")
    if reason := implementation.refuses(pass_, axes, io):
        raise ValueError(f"{implementation.full_name}: {reason}")
    return axes, io, lead


def check(
    implementation: Implementation, pass_: str, inputs: Sequence[Any], outputs: Sequence[Any], target: str
) -> tuple[dict[str, int], str, tuple[Memory, ...]]:
    """Check everything; return axes, dtype name, and inputs and outputs as kernels see them.

    Raises ``TypeError`` or ``ValueError`` naming the argument: another dtype, shape or device than the card's, leading
    dimensions without a common row stride, an output that overlaps another array.
    """
    if pass_ not in implementation.operator.passes:
        raise ValueError(f"unknown pass {pass_!r} of {implementation.operator.name}")
    card = implementation.operator.passes[pass_]
    for what, listed, given in (("takes", card.inputs, inputs), ("writes", card.outputs, outputs)):
        if len(listed) != len(given):
            names = ", ".join(argument.name for argument in listed)
            raise TypeError(f"{implementation.operator.name} {pass_} {what} {len(listed)} array(s) ({names}), got {len(given)}")
    for argument, array in zip(card.outputs, outputs, strict=True):
        if isinstance(array, np.ndarray) and not array.flags.writeable:
            raise ValueError(f"output {argument.name} is read-only")
    inputs = tensors(card.inputs, inputs, target)
    outputs = tensors(card.outputs, outputs, target)
    axes, io, lead = check_inputs(implementation, pass_, inputs)
    everything = [*zip(card.inputs, inputs, strict=True), *zip(card.outputs, outputs, strict=True)]
    for position, (argument, tensor) in enumerate(everything[len(inputs) :], len(inputs)):
        if (name := dtype_of(tensor)) != (expected := io if argument.dtype == "io" else argument.dtype):
            raise TypeError(f"output {argument.name} has dtype {name}, must be {expected}")
        if tuple(tensor.shape) != (shape := arrays.shape_of(argument, axes, lead)):
            raise ValueError(f"output {argument.name} has shape {tuple(tensor.shape)}, must be {shape}")
        for other, there in everything[:position]:
            if overlap(tensor, there):
                raise ValueError(f"output {argument.name} overlaps {other.name}: give it memory of its own")
    return axes, io, tuple(viewed(argument, tensor, axes) for argument, tensor in everything)


def dtype_of(tensor: Any) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def extent(tensor: Any) -> tuple[int, int]:
    """First byte, and one past the last, that a tensor's elements span."""
    last = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    return tensor.data_ptr(), tensor.data_ptr() + (last + 1) * tensor.element_size()


def overlap(one: Any, other: Any) -> bool:
    if not one.numel() or not other.numel():
        return False
    (start, end), (other_start, other_end) = extent(one), extent(other)
    return start < other_end and other_start < end


def viewed(argument: Any, tensor: Any, axes: Mapping[str, int]) -> Memory:
    """The (rows, n) or (rows,) view of a tensor with any leading dimensions."""
    shape = argument.shape(axes)
    if argument.kind == "parameter":
        if not tensor.is_contiguous():
            raise ValueError(f"{argument.name} has strides {tensor.stride()}: a parameter must be contiguous")
        return Memory(dtype_of(tensor), tensor.stride(), tensor)
    if len(axes) == 1:
        return Memory(dtype_of(tensor), tensor.stride(), tensor)
    try:
        view = tensor.view(shape)
    except RuntimeError:
        raise ValueError(
            f"{argument.name} has strides {tensor.stride()}: its leading dimensions need one row stride; make it contiguous"
        ) from None
    return Memory(dtype_of(tensor), view.stride(), view)


def matrices(
    arguments: Sequence[Any], memory: Sequence[Memory], axes: Mapping[str, int]
) -> tuple[int, int, tuple[Memory, ...]]:
    """The same arrays as (rows, n) matrices for an elementwise pass, one row when all are contiguous; rows, n and they.

    Raises ``ValueError`` for one whose leading dimensions have no common stride.
    """
    total = int(np.prod(list(axes.values()), dtype=np.int64))
    if all(each.tensor is None or each.tensor.is_contiguous() for each in memory):
        return 1, total, tuple(Memory(each.dtype, (total, 1), each.tensor) for each in memory)
    n = memory[0].tensor.shape[-1]
    rows = total // n
    shaped = {**axes, "rows": rows, "n": n}
    matrix = [replace(argument, axes=("rows", "n")) for argument in arguments]
    return rows, n, tuple(viewed(*each, shaped) for each in zip(matrix, (m.tensor for m in memory), strict=True))


def call(implementation: Implementation, given: Sequence[Any], pass_: str, options: Mapping[str, Any]) -> Any:
    """Run on the user's own GPU tensors; returns a fresh tensor, or a tuple of them."""
    import torch

    options = dict(options)
    devices = [str(array.device) for array in given if isinstance(array, torch.Tensor)]
    target = options.pop("target", None) or (devices[0] if devices else "interpreter")
    if reason := implementation.unavailable(target):
        raise RuntimeError(f"{implementation.full_name} can't run here: {reason}")
    if pass_ not in implementation.operator.passes:
        raise ValueError(f"unknown pass {pass_!r} of {implementation.operator.name}")
    card = implementation.operator.passes[pass_]
    if len(card.inputs) != len(given):
        raise TypeError(f"{implementation.operator.name} {pass_} takes {len(card.inputs)} array(s), got {len(given)}")
    inputs = tuple(array.contiguous() for array in tensors(card.inputs, given, target))
    axes, io, lead = check_inputs(implementation, pass_, inputs)
    outputs = tuple(
        torch.empty(
            arrays.shape_of(argument, axes, lead),
            dtype=getattr(torch, io if argument.dtype == "io" else argument.dtype),
            device=inputs[0].device,
        )
        for argument in card.outputs
    )
    implementation.bind(inputs, outputs, pass_=pass_, target=target, **options)()
    shown = tuple(map(arrays.from_torch, outputs)) if isinstance(given[0], np.ndarray) else outputs
    return shown[0] if len(shown) == 1 else shown

"""Plumbing of the Triton backend: what can run, checks of torch tensors, launches, and compilation without a GPU.

An operator's module plans a pass as ``Step``s, data that can be launched on a GPU, run by Triton's interpreter, or compiled
for a GPU that is not there. FMA contraction is always off: a product is fused with a sum where the kernel says ``tl.fma``.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import os
import re
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from . import arrays, probe

if TYPE_CHECKING:
    from ..registry import Implementation

ARCHITECTURES = ("sm_80", "sm_90", "sm_100")
POINTERS = {"float64": "*fp64", "float32": "*fp32", "float16": "*fp16", "bfloat16": "*bf16"}


@dataclass(frozen=True)
class Memory:
    """An array as a kernel sees it: dtype name, strides in elements of its (rows, n) or (rows,) view, and the tensor.

    Without a tensor it stands for 16-byte-aligned memory, to compile for.
    """

    dtype: str
    strides: tuple[int, ...] = ()
    tensor: Any = None


@dataclass(frozen=True)
class Step:
    """One launch: a kernel, its grid, run-time arguments in order (``Memory`` or int) and compile-time ones by name.

    ``num_ctas`` blocks, a cluster, do the work of one program; clusters came with sm_90.
    """

    kernel: Any
    grid: tuple[int, ...]
    arguments: tuple[Memory | int, ...]
    constants: Mapping[str, Any] = field(default_factory=dict)
    num_warps: int = 4
    num_ctas: int = 1

    @property
    def options(self) -> dict[str, Any]:
        return {"num_warps": self.num_warps, "num_ctas": self.num_ctas, "enable_fp_fusion": False}


def interpreting() -> bool:
    """Whether kernels are interpreted in this process: TRITON_INTERPRET counts when Triton is imported, and not later."""
    if "triton" in sys.modules:
        import triton.language

        return type(triton.language.sum).__name__ == "InterpretedFunction"
    return os.environ.get("TRITON_INTERPRET") == "1"


def unavailable(implementation: Implementation, target: str) -> str | None:
    """Why Triton can't run on ``target`` in this process, in words. Imports neither torch nor Triton."""
    for module in ("torch", "triton"):
        if reason := probe.missing(module):
            return reason
    if target == "interpreter":
        return None if interpreting() else "needs a process that has TRITON_INTERPRET=1 set before triton is imported"
    if interpreting():
        return "this process interprets Triton kernels; unset TRITON_INTERPRET"
    return probe.torch_without_cuda()


def tensors(arguments: Sequence[Any], given: Sequence[Any], target: str) -> tuple[Any, ...]:
    """The arrays as torch tensors on ``target``'s device; NumPy memory is shared. Raises ``TypeError``, ``ValueError``."""
    import torch

    where = torch.device("cpu" if target == "interpreter" else target)
    found = []
    for argument, array in zip(arguments, given, strict=True):
        if isinstance(array, np.ndarray) and target == "interpreter":
            if array.dtype.name not in POINTERS:
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
    axes: dict[str, int] = {}
    lead: tuple[int, ...] = ()
    io = ""
    for argument, tensor in zip(card.inputs, inputs, strict=True):
        name = dtype_of(tensor)
        if name not in implementation.dtypes:
            raise TypeError(
                f"{argument.name} has dtype {name}; {implementation.full_name} takes {', '.join(implementation.dtypes)}"
            )
        if io and name != io:
            raise TypeError(f"{argument.name} has dtype {name}, but {card.inputs[0].name} has {io}; they must agree")
        io = name
        shape = tuple(tensor.shape)
        if not axes:
            if not shape:
                raise ValueError(f"{argument.name} has 0 dimensions, needs at least 1")
            lead = shape[:-1]
            axes = {argument.axes[0]: int(np.prod(lead, dtype=np.int64)), argument.axes[1]: shape[-1]}
            if shape[-1] == 0:
                raise ValueError(f"{argument.name} has shape {shape}: axis {argument.axes[1]!r} must not be empty")
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
        if (name := dtype_of(tensor)) != io:
            raise TypeError(f"output {argument.name} has dtype {name}, must be {io}")
        if tuple(tensor.shape) != (shape := arrays.shape_of(argument, axes, lead)):
            raise ValueError(f"output {argument.name} has shape {tuple(tensor.shape)}, must be {shape}")
        for other, there in everything[:position]:
            if overlap(tensor, there):
                raise ValueError(f"output {argument.name} overlaps {other.name}: give it memory of its own")
    return axes, io, tuple(memory(argument, tensor, axes) for argument, tensor in everything)


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


def memory(argument: Any, tensor: Any, axes: Mapping[str, int]) -> Memory:
    """The (rows, n) or (rows,) view of a tensor with any leading dimensions."""
    shape = tuple(axes[axis] for axis in argument.axes)
    try:
        view = tensor.view(shape)
    except RuntimeError:
        raise ValueError(
            f"{argument.name} has strides {tensor.stride()}: its leading dimensions need one row stride; make it contiguous"
        ) from None
    return Memory(dtype_of(tensor), view.stride(), view)


def no_clusters(arch: str) -> str | None:
    """Why blocks can't share a row on ``arch``, in words; ``None`` where they can."""
    import triton

    if int(arch.removeprefix("sm_")) < 90:
        return f"rows this long take a cluster of blocks, which {arch} lacks"
    if tuple(map(int, triton.__version__.split(".")[:2])) < (3, 9):
        return f"rows this long take a cluster of blocks, which Triton {triton.__version__} can't compile for"
    return None


def launcher(steps: Sequence[Step], target: str) -> Callable[[], None]:
    """The zero-argument callable that launches the steps on the current stream, or interprets them."""
    import torch

    if target != "interpreter" and any(step.num_ctas > 1 for step in steps):
        major, minor = torch.cuda.get_device_capability(target)
        if reason := no_clusters(f"sm_{major}{minor}"):
            raise RuntimeError(reason)
    calls = []
    for step in steps:
        values = [value.tensor if isinstance(value, Memory) else value for value in step.arguments]
        options = {} if target == "interpreter" else step.options
        calls.append((step.kernel[step.grid], values, {**step.constants, **options}))

    def run() -> None:
        with np.errstate(all="ignore") if target == "interpreter" else torch.cuda.device(target):
            for call, values, options in calls:
                call(*values, **options)

    return run


def scratch(dtype: str, shape: tuple[int, ...], like: Memory) -> Memory:
    """Contiguous memory for intermediate results, on the device of ``like``."""
    strides = tuple(int(np.prod(shape[axis + 1 :])) for axis in range(len(shape)))
    if like.tensor is None:
        return Memory(dtype, strides)
    import torch

    return Memory(dtype, strides, torch.empty(shape, dtype=getattr(torch, dtype), device=like.tensor.device))


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
    shapes = [arrays.shape_of(argument, axes, lead) for argument in card.outputs]
    outputs = tuple(torch.empty(shape, dtype=getattr(torch, io), device=inputs[0].device) for shape in shapes)
    implementation.bind(inputs, outputs, pass_=pass_, target=target, **options)()
    shown = tuple(map(arrays.from_torch, outputs)) if isinstance(given[0], np.ndarray) else outputs
    return shown[0] if len(shown) == 1 else shown


def cache_folder() -> Path:
    root = os.environ.get("ULPROOF_CACHE")
    return Path(root) if root else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ulproof"


def specialised(step: Step) -> tuple[dict[str, str], dict[str, Any], dict[tuple[int], list[list[Any]]]]:
    """Signature, constants and attributes of a step as Triton's launcher finds them on a GPU."""
    signature, constants, attributes = {}, dict(step.constants), {}
    for position, (name, value) in enumerate(zip(step.kernel.arg_names, step.arguments, strict=False)):
        if isinstance(value, int) and value == 1:
            constants[name] = value
        else:
            signature[name] = POINTERS[value.dtype] if isinstance(value, Memory) else ("i32" if value < 2**31 else "i64")
            if isinstance(value, Memory) or value % 16 == 0:
                attributes[(position,)] = [["tt.divisibility", 16]]
    return {name: signature.get(name, "constexpr") for name in step.kernel.arg_names}, constants, attributes


def machine_code(step: Step, arch: str) -> Any:
    """Triton's ``CompiledKernel`` of a step for ``sm_80``, ``sm_90`` or ``sm_100``; no GPU is asked.

    Raises ``ValueError`` for another architecture, or one that lacks what the step needs; ``RuntimeError`` when interpreting.
    """
    if arch not in ARCHITECTURES:
        raise ValueError(f"unknown architecture {arch!r}; there are {', '.join(ARCHITECTURES)}")
    if step.num_ctas > 1 and (reason := no_clusters(arch)):
        raise ValueError(reason)
    if interpreting():
        raise RuntimeError("this process interprets Triton kernels and can't compile them; unset TRITON_INTERPRET")
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    source = ASTSource(step.kernel, *specialised(step))
    return triton.compile(source, target=GPUTarget("cuda", int(arch.removeprefix("sm_")), 32), options=step.options)


def compiled(step: Step, arch: str) -> dict[str, Any]:
    """Compile a step for ``arch`` without a GPU; what it needs, from cache when nothing changed.

    Returns kernel, arch, dtype, constants, registers (a thread), shared_bytes (a block), spills (bytes of local memory a
    thread) and compile_seconds. Raises what ``machine_code`` raises.
    """
    import triton

    from . import triton_math

    sources = [inspect.getsource(sys.modules[step.kernel.fn.__module__]), inspect.getsource(triton_math)]
    signature, constants, attributes = specialised(step)
    described = [triton.__version__, arch, step.kernel.__name__, signature, sorted(constants.items()), str(attributes)]
    digest = hashlib.sha256(json.dumps([*described, step.options, sources]).encode()).hexdigest()
    path = cache_folder() / "triton" / f"{digest}.json"
    if path.exists():
        return json.loads(path.read_text())
    start = time.perf_counter()
    kernel = machine_code(step, arch)
    found = {
        "kernel": step.kernel.__name__,
        "arch": arch,
        "dtype": next(value.dtype for value in step.arguments if isinstance(value, Memory)),
        "constants": {**step.constants, "num_warps": step.num_warps, "num_ctas": step.num_ctas},
        **usage(kernel.asm["cubin"]),
        "shared_bytes": kernel.metadata.shared,
        "compile_seconds": time.perf_counter() - start,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(f".{os.getpid()}")
    partial.write_text(json.dumps(found))
    partial.replace(path)
    return found


def usage(cubin: bytes) -> dict[str, int]:
    """Registers and bytes of local memory a thread, as cuobjdump (it comes with Triton) reads them off machine code."""
    from triton import knobs

    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        command = [knobs.nvidia.cuobjdump.path, "--dump-resource-usage", file.name]
        text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    found = {key: int(value) for key, value in re.findall(r"\b(REG|STACK|LOCAL):(\d+)", text)}
    return {"registers": found["REG"], "spills": max(found["STACK"], found["LOCAL"])}

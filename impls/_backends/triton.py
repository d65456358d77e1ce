"""Plumbing of the Triton backend: what can run, launches, and compilation without a GPU.

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
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from . import probe
from .cubin import ARCHITECTURES, cache_folder
from .tensors import Memory

if TYPE_CHECKING:
    from ..registry import Implementation

POINTERS = {"int64": "*i64", "float64": "*fp64", "float32": "*fp32", "float16": "*fp16", "bfloat16": "*bf16"}


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

    functions = [each.fn for each in (step.kernel, *step.constants.values()) if hasattr(each, "fn")]
    modules = dict.fromkeys([*(each.__module__ for each in functions), step.kernel.fn.__module__, triton_math.__name__])
    sources = [inspect.getsource(sys.modules[name]) for name in modules]
    shown = {name: getattr(value, "__name__", value) for name, value in step.constants.items()}
    signature, constants, attributes = specialised(step)
    constants |= shown
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
        "constants": {**shown, "num_warps": step.num_warps, "num_ctas": step.num_ctas},
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

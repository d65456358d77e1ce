"""Plumbing of the CUDA backend: compile CUDA C++ through NVRTC, keep what was compiled, launch it on torch's stream.

Compiling needs no GPU and no CUDA toolkit, only the ``cuda-core`` package and NVRTC. FMA contraction is always off: a product
is fused with a sum where the source says ``fmaf``. What a kernel needs of a GPU is read from the assembler's own report.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from types import ModuleType
from typing import Any

from . import probe
from .cubin import ARCHITECTURES, cache_folder

OPTIONS: Mapping[str, Any] = {
    "std": "c++17",
    "fma": False,
    "ptxas_options": ["-v"],
    "diag_suppress": [177],  # a constant that these kernels don't use
}
LEGACY_STREAM = 1  # the handle by which the driver also knows the default stream, 0
STATIC_SHARED = 48 * 1024  # a launch that wants more must ask for it


@dataclass(frozen=True)
class Launch:
    """One kernel, by its C++ name, on a one-dimensional grid of blocks; ``shared`` is dynamic shared memory in bytes a block.

    ``cluster`` tells how many blocks make a cluster; the kernel's own attribute decides it, this is for readers.
    """

    kernel: str
    grid: int
    block: int
    shared: int = 0
    cluster: int = 1


@dataclass(frozen=True)
class Compiled:
    """Machine code of some kernels, with what each needs: registers a thread, shared bytes a block, spill bytes a thread."""

    code: bytes
    symbols: Mapping[str, str]
    usage: Mapping[str, Mapping[str, int]]
    seconds: float


def core() -> ModuleType:
    """cuda.core, which was cuda.core.experimental before 0.5."""
    import importlib

    found = importlib.import_module("cuda.core")
    return found if hasattr(found, "Program") else importlib.import_module("cuda.core.experimental")


@cache
def common(*names: str) -> str:
    """What stands in front of a kernel's own source: ``cuda_common.cuh``, then others of this folder."""
    folder = files(__package__)
    return "".join(folder.joinpath(f"cuda_{name}.cuh").read_text() + "\n" for name in ("common", *names))


@cache
def version() -> str:
    """NVRTC's version; raises what the binding raises when the library isn't there."""
    from cuda.bindings import nvrtc

    status, major, minor = nvrtc.nvrtcVersion()
    if status != nvrtc.nvrtcResult.NVRTC_SUCCESS:
        raise RuntimeError(f"NVRTC answers {status.name}")
    return f"{major}.{minor}"


@cache
def missing() -> str | None:
    """Why nothing can be compiled here, in words."""
    if reason := probe.missing("cuda.core"):
        return reason
    try:
        version()
    except Exception as error:  # the binding's own kinds differ between its versions
        return f"NVRTC can't be loaded: {' '.join(str(error).split())[:200]}; pip install 'cuda-core[cu13]' brings it"
    return None


def unavailable(target: str) -> str | None:
    """Why CUDA kernels can't run on ``target`` in this process, in words; whether the GPU is there was asked before."""
    return probe.torch_without_cuda() or missing()


def compile(source: str, kernels: Sequence[str], arch: str) -> Compiled:
    """Machine code of template instances such as ``scale<float, 4>`` for ``sm_90`` or another architecture.

    Kept under ``ULPROOF_CACHE`` (default ``~/.cache/ulproof``) by a hash of everything it depends on. Raises ``RuntimeError``
    with the compiler's log.
    """
    if reason := missing():
        raise RuntimeError(f"can't compile CUDA C++: {reason}")
    described = json.dumps([source, list(kernels), arch, dict(OPTIONS), version()])
    path = cache_folder() / "cuda" / hashlib.sha256(described.encode()).hexdigest()
    code, facts = path.with_suffix(".cubin"), path.with_suffix(".json")
    if facts.exists() and code.exists():
        return Compiled(code.read_bytes(), **json.loads(facts.read_text()))

    log = io.StringIO()
    begin = time.perf_counter()
    try:
        program = core().Program(source, "c++", core().ProgramOptions(arch=arch, **OPTIONS))
        made = program.compile("cubin", name_expressions=tuple(kernels), logs=log)
    except Exception as error:
        said = " ".join(str(error).replace("\0", "").split())
        raise RuntimeError(f"NVRTC {version()} does not compile for {arch}: {said}") from error
    seconds = time.perf_counter() - begin
    symbols = {name: symbol if isinstance(symbol, str) else symbol.decode() for name, symbol in made.symbol_mapping.items()}
    found = Compiled(bytes(made.code), symbols, usage(log.getvalue(), symbols), seconds)

    path.parent.mkdir(parents=True, exist_ok=True)
    described = json.dumps({"symbols": found.symbols, "usage": found.usage, "seconds": found.seconds})
    for to, content in ((code, found.code), (facts, described.encode())):  # the facts last: they say the code is there
        part = to.with_suffix(f"{to.suffix}.{os.getpid()}")
        part.write_bytes(content)
        part.replace(to)
    return found


def usage(log: str, symbols: Mapping[str, str]) -> dict[str, dict[str, int]]:
    """What the assembler (``ptxas -v``) says of each kernel."""
    names = {symbol: name for name, symbol in symbols.items()}
    found = {}
    for part in log.split("Compiling entry function '")[1:]:
        symbol = part.partition("'")[0]
        numbers = {
            "registers": re.search(r"Used (\d+) registers", part),
            "shared_bytes": re.search(r"(\d+) bytes smem", part),
            "spills": re.search(r"(\d+) bytes spill stores", part),
        }
        if symbol in names:
            found[names[symbol]] = {key: int(number.group(1)) if number else 0 for key, number in numbers.items()}
    if absent := set(symbols) - set(found):
        raise RuntimeError(f"the assembler's report says nothing of {', '.join(sorted(absent))}")
    return found


def architecture(target: str) -> str:
    """``sm_90`` and the like of the GPU ``target``."""
    import torch

    major, minor = torch.cuda.get_device_capability(target)
    return f"sm_{major}{minor}"


def launcher(source: str, launches: Sequence[Launch], arguments: Sequence[int], target: str) -> Callable[[], None]:
    """Compile, load and plan; the callable launches the kernels in order on torch's current stream.

    All kernels take the same arguments, 64 bits each: pointers and integers.
    """
    import torch
    from cuda.bindings import driver

    cuda, index = core(), torch.device(target).index or 0
    device = cuda.Device(index)
    device.set_current()
    compiled = compile(source, tuple(dict.fromkeys(launch.kernel for launch in launches)), architecture(target))
    module = cuda.ObjectCode.from_cubin(compiled.code)
    planned = []
    for launch in launches:
        kernel = module.get_kernel(compiled.symbols[launch.kernel])
        if launch.shared + compiled.usage[launch.kernel]["shared_bytes"] > STATIC_SHARED:
            attribute = driver.CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
            handle = kernel.handle if hasattr(kernel, "handle") else kernel._handle
            (status,) = driver.cuKernelSetAttribute(attribute, launch.shared, handle, driver.CUdevice(index))
            if status != driver.CUresult.CUDA_SUCCESS:
                raise RuntimeError(f"the driver refuses {launch.shared} bytes of shared memory: {status.name}")
        planned.append((cuda.LaunchConfig(grid=launch.grid, block=launch.block, shmem_size=launch.shared), kernel))
    streams: dict[int, Any] = {}

    def run() -> None:
        with torch.cuda.device(index):
            current = torch.cuda.current_stream().cuda_stream
            if (stream := streams.get(current)) is None:
                stream = streams[current] = device.create_stream(_Foreign(current or LEGACY_STREAM))
            for config, kernel in planned:
                cuda.launch(stream, config, kernel, *arguments)

    return run


class _Foreign:
    """Torch's stream, as cuda.core takes it."""

    def __init__(self, pointer: int) -> None:
        self.pointer = pointer

    def __cuda_stream__(self) -> tuple[int, int]:
        return 0, self.pointer


__all__ = ["ARCHITECTURES", "Compiled", "Launch", "architecture", "common", "compile", "launcher", "missing", "unavailable"]

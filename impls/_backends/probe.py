"""Whether an implementation can run here. Probes do real work: an import alone is no proof of a GPU."""

from __future__ import annotations

import importlib.util
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..registry import Implementation

DISTRIBUTIONS = {"torch": "torch", "triton": "triton", "cuda.core": "cuda-core", "scipy": "scipy", "pynvml": "nvidia-ml-py"}


@cache
def missing(module: str) -> str | None:
    """Why ``module`` can't be imported, found without importing it; ``None`` when it is installed."""
    top = module.partition(".")[0]
    try:
        found = importlib.util.find_spec(top) is not None and importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        found = False
    return None if found else f"{DISTRIBUTIONS.get(module, module)} is not installed"


@cache
def gpus() -> tuple[str, ...]:
    """Names of the NVIDIA GPUs that the driver shows, through NVML; empty without a driver."""
    if missing("pynvml"):
        return ()
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return ()
    try:
        handles = [pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(pynvml.nvmlDeviceGetCount())]
        return tuple(str(pynvml.nvmlDeviceGetName(handle)) for handle in handles)
    finally:
        pynvml.nvmlShutdown()


@cache
def torch_without_cuda() -> str | None:
    """Why the torch installed here can't use a GPU, by its version (2.13.0+cpu) alone; ``None`` when it may."""
    try:
        installed = version("torch")
    except PackageNotFoundError:
        return "torch is not installed"
    return f"torch {installed} is built without CUDA" if installed.endswith("+cpu") else None


def no_gpu(target: str) -> str | None:
    """Why GPU ``target`` (``cuda:0``) is not there; ``None`` when it is."""
    found = gpus()
    index = int(target.partition(":")[2] or 0)
    if not found:
        return "no NVIDIA GPU or driver here"
    if index >= len(found):
        return f"there is no {target}; the driver shows {len(found)} GPU(s)"
    return None


def unavailable(implementation: Implementation, target: str) -> str | None:
    """The first reason that holds, cheapest first; imports the implementation's module but not its toolchain."""
    if target.startswith("cuda") and (reason := no_gpu(target)):
        return reason
    return implementation.code().unavailable(implementation, target)

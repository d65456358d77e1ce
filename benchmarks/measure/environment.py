"""What this machine is, and what else it was doing while something was measured."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import threading
from collections.abc import Callable, Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from . import caches

PACKAGES = ("ulproof", "numpy", "ml_dtypes", "scipy", "torch", "triton", "cuda-core", "liger-kernel", "quack-kernels")
SETTINGS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "ATEN_CPU_CAPABILITY", "TRITON_INTERPRET", "LD_PRELOAD", "MALLOC_ARENA_MAX")
# What a CPU must have before the build's kernels of that name run on it.
ISAS = {
    "avx512": {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl", "avx2", "fma"},
    "avx2": {"avx2", "fma", "bmi2"},
    "neon": {"asimd"},
}


def read(path: str | Path) -> str:
    """The text of a small system file, empty where there is none."""
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""


@cache
def cpu() -> Mapping[str, Any]:
    """``model``, ``cores`` (that this process may use), ``isas`` (widest first), ``caches``, ``virtual``."""
    info = read("/proc/cpuinfo")
    fields = dict(re.findall(r"^([^\t:]+?)\s*: ?(.*)$", info, re.MULTILINE))
    flags = set((fields.get("flags") or fields.get("Features") or "").split())
    return {
        "model": fields.get("model name") or platform.processor() or platform.machine(),
        "architecture": platform.machine(),
        "cores": len(cores()),
        "online": os.cpu_count(),
        "threads_per_core": _threads_per_core(),
        "isas": [name for name, needs in ISAS.items() if needs <= flags],
        "caches": dict(caches.sizes()),
        "virtual": "hypervisor" in flags,
    }


def _threads_per_core() -> int:
    siblings = read("/sys/devices/system/cpu/cpu0/topology/thread_siblings_list")
    return sum(int(b or a) - int(a) + 1 for a, b in re.findall(r"(\d+)(?:-(\d+))?", siblings)) or 1


def cores() -> list[int]:
    """The cores this process may run on."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))


def busy(tasks: str | Path = "/proc/self/task") -> bool:
    """Whether another thread of this process has work, or spins while it waits for some; False where the system can't say."""
    own = str(threading.get_native_id())
    states = (read(stat).rpartition(")")[2].split()[:1] for stat in Path(tasks).glob("*/stat") if stat.parent.name != own)
    return ["R"] in states


def waiting() -> Callable[[], int]:
    """A function that tells for how many nanoseconds this thread has been ready to run while another had its core; always 0
    where the system doesn't say."""
    try:
        file = os.open("/proc/thread-self/schedstat", os.O_RDONLY)
        int(os.pread(file, 64, 0).split()[1])
    except (OSError, IndexError, ValueError):
        return lambda: 0
    return lambda: int(os.pread(file, 64, 0).split()[1])


def memory() -> dict[str, int]:
    """Bytes of memory: ``total`` and ``available``, as far as this process is allowed."""
    import psutil

    found = psutil.virtual_memory()
    total, available = found.total, found.available
    limit, used = read("/sys/fs/cgroup/memory.max"), read("/sys/fs/cgroup/memory.current")
    if limit.isdigit():
        total = min(total, int(limit))
        available = min(available, int(limit) - int(used or 0))
    return {"total": total, "available": available}


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that are installed, without importing them."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


@cache
def commit() -> str | None:
    """The commit that this code was checked out from, with ``+`` where files have changed since; ``None`` outside of git."""
    here = Path(__file__).resolve()

    def git(*command: str) -> str | None:
        try:
            found = subprocess.run(["git", "-C", here.parent, *command], capture_output=True, text=True, timeout=10)
        except (OSError, subprocess.TimeoutExpired):
            return None
        return found.stdout.strip() if found.returncode == 0 else None

    if not git("ls-files", "--error-unmatch", here.name):
        return None  # installed into some environment below a repository that isn't ours
    head, changed = git("rev-parse", "HEAD"), git("status", "--porcelain", "--untracked-files=no")
    return f"{head}+" if head and changed else head


def gpus() -> list[dict[str, Any]]:
    """Name, memory, driver, clocks and power of the GPUs that NVML shows."""
    from ulproof.impls._backends import probe

    if not probe.gpus():
        return []
    import pynvml

    pynvml.nvmlInit()
    try:
        found = []
        for index, name in enumerate(probe.gpus()):
            handle = pynvml.nvmlDeviceGetHandleByIndex(index)
            found.append(
                {
                    "name": name,
                    "memory_bytes": int(pynvml.nvmlDeviceGetMemoryInfo(handle).total),
                    "driver": str(pynvml.nvmlSystemGetDriverVersion()),
                    "capability": ".".join(map(str, pynvml.nvmlDeviceGetCudaComputeCapability(handle))),
                }
            )
        return found
    finally:
        pynvml.nvmlShutdown()


def environment() -> dict[str, Any]:
    """What ``run.json`` says of the machine."""
    return {
        "cpu": dict(cpu()),
        "memory_bytes": memory()["total"],
        "gpus": gpus(),
        "versions": versions(),
        "os": platform.platform(),
        "settings": {name: os.environ[name] for name in SETTINGS if name in os.environ},
    }


def state() -> dict[str, Any]:
    """What the machine is doing at this moment: load, frequency, temperature, and ticks spent since it started."""
    frequencies = [float(each) for each in re.findall(r"^cpu MHz\s*: ([\d.]+)", read("/proc/cpuinfo"), re.MULTILINE)]
    scaled = [read(path) for path in Path("/sys/devices/system/cpu").glob("cpu[0-9]*/cpufreq/scaling_cur_freq")]
    frequencies = [int(each) / 1000 for each in scaled if each.isdigit()] or frequencies
    heat = [read(path) for path in Path("/sys/class/thermal").glob("thermal_zone*/temp")]
    ticks = [int(each) for each in read("/proc/stat").partition("\n")[0].split()[1:9]]
    return {
        "load": os.getloadavg()[0],
        "mhz": max(frequencies, default=None),
        "celsius": max((int(each) / 1000 for each in heat if each.lstrip("-").isdigit()), default=None),
        "ticks": ticks,
        "gpus": _gpu_state(),
    }


def _gpu_state() -> list[dict[str, Any]]:
    from ulproof.impls._backends import probe

    if not probe.gpus():
        return []
    import pynvml

    pynvml.nvmlInit()
    try:
        found = []
        for index in range(len(probe.gpus())):
            handle = pynvml.nvmlDeviceGetHandleByIndex(index)
            each: dict[str, Any] = {}
            for name, ask in {
                "mhz": lambda h: pynvml.nvmlDeviceGetClockInfo(h, pynvml.NVML_CLOCK_SM),
                "watts": lambda h: pynvml.nvmlDeviceGetPowerUsage(h) / 1000,
                "celsius": lambda h: pynvml.nvmlDeviceGetTemperature(h, pynvml.NVML_TEMPERATURE_GPU),
            }.items():
                try:
                    each[name] = ask(handle)
                except pynvml.NVMLError:
                    each[name] = None
            found.append(each)
        return found
    finally:
        pynvml.nvmlShutdown()


def between(before: Mapping[str, Any], after: Mapping[str, Any], own: int = 1) -> dict[str, Any]:
    """What happened between two states: shares of one core that others used and that the hypervisor took, and the lowest
    frequency and highest temperature seen. ``own`` is the number of cores that the measuring itself kept busy."""
    user, nice, system, idle, waiting, interrupt, soft, steal = (
        (y - x for x, y in zip(before["ticks"], after["ticks"], strict=True)) if before["ticks"] else [0] * 8
    )
    total = user + nice + system + idle + waiting + interrupt + soft + steal
    count = os.cpu_count() or 1
    busy = (user + nice + system + interrupt + soft) / total * count if total else 0.0
    mhz = [each["mhz"] for each in (before, after) if each["mhz"]]
    celsius = [each["celsius"] for each in (before, after) if each["celsius"]]
    return {
        "load": after["load"],
        "others": max(0.0, busy - own),
        "steal": steal / total * count if total else 0.0,
        "mhz": min(mhz, default=None),
        "celsius": max(celsius, default=None),
        "gpus": after["gpus"],
    }

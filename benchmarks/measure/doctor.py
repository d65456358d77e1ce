"""What on this machine will spoil measurements, and the command that fixes each."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from . import environment
from .environment import read

Finding = dict[str, str]
Text = Callable[[str], str]
GIB = 1024**3
CPU = "/sys/devices/system/cpu"


def finding(severity: str, what: str, fix: str = "") -> Finding:
    """One of ``ok``, ``note``, ``warning``; what was found; the command or step that mends it, empty where none does."""
    return {"severity": severity, "what": what, "fix": fix}


def findings(text: Text = read, machine: Mapping[str, Any] | None = None) -> list[Finding]:
    """Everything worth knowing, warnings first. ``text`` reads a system file; ``machine`` is ``environment()``."""
    machine = machine or environment.environment()
    found = [*processor(text, machine), *memory(text, environment.memory()), *software(machine), *gpu(machine)]
    order = ("warning", "note", "ok")
    return sorted(found, key=lambda each: order.index(each["severity"]))


def processor(text: Text, machine: Mapping[str, Any]) -> Iterator[Finding]:
    cpu = machine["cpu"]
    governor = text(f"{CPU}/cpu0/cpufreq/scaling_governor")
    if governor and governor != "performance":
        yield finding(
            "warning", f"the CPU governor is {governor!r}: clocks follow load", "sudo cpupower frequency-set -g performance"
        )
    elif governor:
        yield finding("ok", "the CPU governor is 'performance'")
    else:
        yield finding("note", "the kernel shows no CPU frequency control here, so clocks can be neither seen nor held")
    if text(f"{CPU}/intel_pstate/no_turbo") == "0":
        fix = f"echo 1 | sudo tee {CPU}/intel_pstate/no_turbo"
        yield finding("note", "turbo is on: clocks fall as the package warms up", fix)
    if text(f"{CPU}/cpufreq/boost") == "1":
        yield finding("note", "boost is on: clocks fall as the package warms up", f"echo 0 | sudo tee {CPU}/cpufreq/boost")
    if cpu["virtual"]:
        what = "a virtual machine: neighbours share its caches, memory bandwidth and clocks"
        yield finding("note", what, "compare only what took turns in one run")
    if cpu["cores"] < 4:
        what = f"{cpu['cores']} core(s) for this process: whatever else runs disturbs the measured core"
        yield finding("warning" if cpu["cores"] == 1 else "note", what, "close other programs while measuring")
    if cpu["cores"] < (cpu["online"] or 0):
        yield finding(
            "note", f"this process may use {cpu['cores']} of {cpu['online']} cores", "run without taskset or a CPU limit"
        )
    if cpu["threads_per_core"] > 1:
        what = f"{cpu['threads_per_core']} hardware threads share a core"
        yield finding("note", what, f"echo off | sudo tee {CPU}/smt/control")
    load = [float(each) for each in text("/proc/loadavg").split()[:1]]
    if load and load[0] > 0.5:
        fix = "wait until `uptime` shows less than 0.5"
        yield finding("warning", f"other programs keep {load[0]:.1f} cores busy (1-minute load)", fix)
    elif load:
        yield finding("ok", f"the machine is quiet: 1-minute load {load[0]:.2f}")
    ticks = [int(each) for each in text("/proc/stat").partition("\n")[0].split()[1:9]]
    if len(ticks) == 8 and (share := ticks[7] / max(sum(ticks), 1)) > 0.01:
        yield finding("warning", f"the hypervisor has taken {share:.1%} of this machine's time since its start")
    paranoid = text("/proc/sys/kernel/perf_event_paranoid")
    if not Path("/sys/bus/event_source/devices/cpu").exists():
        yield finding("note", "no hardware performance counters here, so no miss counts or cycles can be had")
    elif paranoid.lstrip("-").isdigit() and int(paranoid) > 2:
        yield finding("note", "performance counters are for root only", "sudo sysctl kernel.perf_event_paranoid=1")
    if not cpu["isas"]:
        yield finding(
            "warning", f"{cpu['model']} has no instruction set that the SIMD kernels are built for (AVX2, AVX-512, NEON)"
        )
    else:
        yield finding("ok", f"{cpu['model']}, {cpu['cores']} core(s), {', '.join(cpu['isas'])}")


def memory(text: Text, sizes: Mapping[str, int]) -> Iterator[Finding]:
    huge = re.search(r"\[(\w+)\]", text("/sys/kernel/mm/transparent_hugepage/enabled"))
    if huge and huge[1] == "never":
        fix = "echo madvise | sudo tee /sys/kernel/mm/transparent_hugepage/enabled"
        yield finding("note", "transparent huge pages are off: long rows pay for TLB misses", fix)
    elif huge:
        yield finding("ok", f"transparent huge pages: {huge[1]}")
    swap = [line.split() for line in text("/proc/swaps").splitlines()[1:]]
    if any(int(line[3]) > 0 for line in swap if len(line) > 3):
        yield finding("warning", "memory has been swapped out", "sudo swapoff -a && sudo swapon -a")
    if sizes["available"] < 4 * GIB:
        what = f"{sizes['available'] / GIB:.1f} GiB of memory free: the longest rows won't be measured"
        yield finding("warning" if sizes["available"] < GIB else "note", what, "close other programs")
    else:
        yield finding("ok", f"{sizes['available'] / GIB:.0f} of {sizes['total'] / GIB:.0f} GiB of memory free")


def software(machine: Mapping[str, Any]) -> Iterator[Finding]:
    versions = machine["versions"]
    yield finding("ok", ", ".join(f"{name} {version}" for name, version in versions.items()))
    if "torch" not in versions:
        yield finding("note", "torch is not installed: no PyTorch rows", "pip install 'ulproof[torch]'")
    if "triton" not in versions:
        yield finding("note", "Triton is not installed: its kernels can't even be checked", "pip install 'ulproof[triton]'")
    if "scipy" not in versions:
        yield finding("note", "SciPy is not installed: no SciPy rows", "pip install 'ulproof[peers]'")
    if importlib.util.find_spec("._ceilings", __package__) is None:
        what = "the SIMD kernels are not built; ceilings come from NumPy and are lower than the machine's"
        yield finding("warning", what, "apt-get install g++ libhwy-dev && pip install .")
    preload = os.environ.get("LD_PRELOAD")
    if preload:
        yield finding("note", f"LD_PRELOAD={preload} is in every process", "unset LD_PRELOAD")
    free = shutil.disk_usage(".").free
    if free < GIB:
        yield finding("warning", f"{free / GIB:.1f} GiB of disk free in this folder", "free some space")


def gpu(machine: Mapping[str, Any]) -> Iterator[Finding]:
    for index, each in enumerate(machine["gpus"]):
        yield finding("ok", f"cuda:{index} is {each['name']}, driver {each['driver']}")
        yield finding("note", "the GPU's clocks are free to move", f"sudo nvidia-smi -i {index} --lock-gpu-clocks=tdp")
    if not machine["gpus"]:
        what = "no NVIDIA GPU or driver: GPU kernels are compiled and interpreted, not measured"
        yield finding("note", what, "run on a machine where nvidia-smi lists a GPU")

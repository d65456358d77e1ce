"""What doctor says of invented machines, and that it says something of this one."""

from __future__ import annotations

from typing import Any

import pytest

from ulproof.benchmarks.measure import doctor, environment

QUIET = {
    "/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "performance",
    "/proc/loadavg": "0.01 0.02 0.03 1/99 1234",
    "/proc/stat": "cpu  100 0 50 9000 0 0 0 0 0 0",
    "/proc/sys/kernel/perf_event_paranoid": "1",
    "/sys/kernel/mm/transparent_hugepage/enabled": "always [madvise] never",
    "/proc/swaps": "Filename Type Size Used Priority\n/swap file 1000 0 -2",
}
CPU = {"model": "Invented 9000", "cores": 16, "online": 16, "threads_per_core": 1, "isas": ["avx2"], "virtual": False}
MEMORY = {"total": 64 << 30, "available": 60 << 30}


def machine(**cpu: Any) -> dict[str, Any]:
    return {
        "cpu": {**CPU, **cpu},
        "gpus": [],
        "versions": {"python": "3.11.0", "torch": "2.11.0", "triton": "3.6.0", "scipy": "1.11"},
    }


def found(text: dict[str, str] | None = None, memory: dict[str, int] = MEMORY, **cpu: Any) -> list[doctor.Finding]:
    files = {**QUIET, **(text or {})}

    def read(path: str) -> str:
        return files.get(path, "")

    return [*doctor.processor(read, machine(**cpu)), *doctor.memory(read, memory)]


def test_a_quiet_machine_gets_no_warning() -> None:
    assert not [each for each in found() if each["severity"] == "warning"]


@pytest.mark.parametrize(
    ("text", "cpu", "what", "fix"),
    [
        ({"/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "powersave"}, {}, "'powersave'", "cpupower"),
        ({"/sys/devices/system/cpu/intel_pstate/no_turbo": "0"}, {}, "turbo is on", "no_turbo"),
        ({"/sys/devices/system/cpu/cpufreq/boost": "1"}, {}, "boost is on", "cpufreq/boost"),
        ({"/proc/loadavg": "3.20 1 1 1/9 1"}, {}, "3.2 cores busy", "uptime"),
        ({"/sys/kernel/mm/transparent_hugepage/enabled": "always madvise [never]"}, {}, "huge pages are off", "madvise"),
        ({"/proc/swaps": "Filename Type Size Used Priority\n/swap file 1000 10 -2"}, {}, "swapped out", "swapoff"),
        ({}, {"threads_per_core": 2}, "2 hardware threads share a core", "smt/control"),
        ({}, {"cores": 4}, "4 of 16 cores", "taskset"),
        ({}, {"cores": 1, "online": 1}, "1 core(s) for", "close other programs"),
        ({}, {"virtual": True}, "virtual machine", "took turns"),
    ],
)
def test_what_spoils_measurements_is_found_with_its_fix(text: dict[str, str], cpu: dict[str, Any], what: str, fix: str) -> None:
    assert not [each for each in found() if what in each["what"]]
    [hit] = [each for each in found(text, **cpu) if what in each["what"]]
    assert hit["severity"] in ("note", "warning")
    assert fix in hit["fix"]


def test_stolen_time_and_a_cpu_without_vectors_are_warnings() -> None:
    [stolen] = [each for each in found({"/proc/stat": "cpu  100 0 50 9000 0 0 0 900 0 0"}) if "hypervisor" in each["what"]]
    assert stolen["severity"] == "warning"
    assert "9.0%" in stolen["what"]
    assert [each for each in found(isas=[]) if each["severity"] == "warning" and "no instruction set" in each["what"]]


def test_little_memory_is_told() -> None:
    low = [each for each in found(memory={"total": 2 << 30, "available": 1 << 29}) if "0.5 GiB" in each["what"]]
    assert [each["severity"] for each in low] == ["warning"]


def test_missing_packages_and_gpus_are_told() -> None:
    bare = {**machine(), "versions": {"python": "3.11.0"}}
    what = " ".join(each["what"] for each in [*doctor.software(bare), *doctor.gpu(bare)])
    for each in ("torch is not installed", "Triton is not installed", "SciPy is not installed", "no NVIDIA GPU"):
        assert each in what
    [card, clocks] = doctor.gpu({**machine(), "gpus": [{"name": "Invented", "driver": "600"}]})
    assert card["what"] == "cuda:0 is Invented, driver 600"
    assert "nvidia-smi" in clocks["fix"]


def test_this_machine_is_described_warnings_first() -> None:
    whole = doctor.findings()
    order = [("warning", "note", "ok").index(each["severity"]) for each in whole]
    assert order == sorted(order)
    assert all(each["what"] and set(each) == {"severity", "what", "fix"} for each in whole)


def test_the_environment_names_what_a_reader_needs() -> None:
    here = environment.environment()
    assert here["cpu"]["cores"] >= 1
    assert here["cpu"]["caches"]
    assert here["memory_bytes"] > 1 << 28
    assert {"python", "numpy", "ulproof"} <= set(here["versions"])


def test_what_others_did_is_told_from_ticks() -> None:
    before = {"ticks": [0, 0, 0, 0, 0, 0, 0, 0], "load": 0.0, "mhz": 3000.0, "celsius": None, "gpus": []}
    cores = environment.os.cpu_count() or 1
    after = {**before, "ticks": [100 * cores - 60, 0, 20, 20, 0, 0, 0, 20], "mhz": 2500.0}
    seen = environment.between(before, after, own=0)
    assert seen["mhz"] == 2500.0
    assert seen["steal"] == pytest.approx(0.2 if cores > 0 else 0)
    assert seen["others"] == pytest.approx((100 * cores - 40) / 100)

"""The logic of GPU timing against a fake torch.cuda and a fake NVML: what is flushed, recorded, waited for and thrown away.
Nothing here says anything about speed."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from ulproof.benchmarks.measure import gpu
from ulproof.benchmarks.measure.sampling import Effort, take_turns
from ulproof.benchmarks.record import problem


class FakeCuda:
    """torch.cuda with a queue that takes time only on the device: events see the device's clock, in milliseconds."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.now = 0.0
        self.recording: list[Callable[[], None]] | None = None
        cuda = self

        class Event:
            def __init__(self, enable_timing: bool) -> None:
                assert enable_timing

            def record(self) -> None:
                cuda.log.append("record")
                self.at = cuda.now

            def synchronize(self) -> None:
                cuda.log.append("wait")

            def elapsed_time(self, end: Any) -> float:
                return end.at - self.at

        class Graph:
            work: list[Callable[[], None]]

            def replay(self) -> None:
                cuda.log.append("replay")
                for each in self.work:
                    each()

        self.Event, self.CUDAGraph = Event, Graph

    def work(self, name: str, milliseconds: float) -> Callable[[], None]:
        def run() -> None:
            self.now += milliseconds

        def call() -> None:
            self.log.append(name)
            if self.recording is None:
                run()
            else:
                self.recording.append(run)

        return call

    @contextmanager
    def graph(self, graph: Any) -> Any:
        self.recording = graph.work = []
        yield
        self.recording = None

    @contextmanager
    def stream(self, stream: Any) -> Any:
        self.log.append("side stream")
        yield

    def Stream(self) -> Any:
        return SimpleNamespace(wait_stream=lambda other: None)

    current_stream = Stream

    def synchronize(self) -> None:
        self.log.append("synchronize")


class FakeNvml:
    """NVML of a GPU whose throttle reasons are given, one answer a question, the last for ever."""

    class NVMLError(Exception):
        pass

    NVML_CLOCK_SM, NVML_CLOCK_MEM, NVML_TEMPERATURE_GPU = 1, 2, 0

    def __init__(self, *reasons: int) -> None:
        self.answers = list(reasons)

    def nvmlInit(self) -> None: ...

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> str:
        assert uuid == "GPU-1"
        return "handle"

    def nvmlDeviceGetCurrentClocksThrottleReasons(self, handle: str) -> int:
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]

    def nvmlDeviceGetPowerUsage(self, handle: str) -> int:
        return 350_500

    def nvmlDeviceGetClockInfo(self, handle: str, clock: int) -> int:
        return {1: 1755, 2: 2619}[clock]

    def nvmlDeviceGetTemperature(self, handle: str, sensor: int) -> int:
        raise self.NVMLError


def timer(cuda: FakeCuda, cache: str, call: Callable[[], None], *reasons: int) -> tuple[gpu.Timer, list[float]]:
    rests: list[float] = []
    watch = gpu.Watch("GPU-1", FakeNvml(*reasons)) if reasons else None
    return gpu.Timer(call, cache, cuda, cuda.work("flush", 7.0), watch, rests.append), rests


def test_cold_flushes_before_every_call_and_never_times_it() -> None:
    cuda = FakeCuda()
    side, _ = timer(cuda, "cold", cuda.work("call", 0.25))
    assert side(3) == pytest.approx(0.25e-3)
    assert cuda.log == ["flush", "record", "call", "record"] * 3 + ["wait"]


def test_hot_calls_back_to_back_after_one_untimed() -> None:
    cuda = FakeCuda()
    side, _ = timer(cuda, "hot", cuda.work("call", 0.25))
    assert side(4) == pytest.approx(0.25e-3)
    assert cuda.log == ["call", "record", *["call"] * 4, "record", "wait"]


def test_graph_captures_once_and_counts_the_calls_in_it() -> None:
    cuda = FakeCuda()
    side, _ = timer(cuda, "graph", cuda.work("call", 0.25))
    assert side(3 * gpu.UNROLL - 1) == pytest.approx(0.25e-3)
    assert side(1) == pytest.approx(0.25e-3)
    before, after = cuda.log.index("synchronize"), cuda.log.index("replay")
    assert cuda.log[:before] == ["side stream", *["call"] * gpu.WARM_UP]
    assert cuda.log[before + 1 : after] == ["call"] * gpu.UNROLL
    assert cuda.log[after:] == [
        "replay",
        "record",
        *["replay"] * 3,
        "record",
        "wait",
        "replay",
        "record",
        "replay",
        "record",
        "wait",
    ]


def test_a_call_that_cannot_be_captured_says_so() -> None:
    cuda = FakeCuda()

    def call() -> None:
        if cuda.recording is not None:
            raise RuntimeError("operation not permitted\nwhen stream is capturing")

    side, _ = timer(cuda, "graph", call)
    with pytest.raises(RuntimeError, match="can't be captured in a CUDA graph: operation not permitted when stream is"):
        side(1)


@pytest.mark.parametrize(
    ("reasons", "calls", "retaken", "throttled"),
    [
        ((0,), 1, 0, 0),
        ((0x04,), 1, 0, 0),  # a power cap is how a busy GPU runs
        ((0x40, 0x20, 0), 3, 2, 0),
        ((0x80,), 4, 3, 1),
    ],
)
def test_samples_of_a_slowed_down_gpu_are_taken_again(
    reasons: tuple[int, ...], calls: int, retaken: int, throttled: int
) -> None:
    cuda = FakeCuda()
    side, rests = timer(cuda, "cold", cuda.work("call", 0.25), *reasons)
    assert side(1) == pytest.approx(0.25e-3)
    assert (cuda.log.count("call"), side.retaken, side.throttled) == (calls, retaken, throttled)
    assert rests == [gpu.REST] * retaken


def test_the_state_of_a_gpu_leaves_out_what_it_does_not_tell() -> None:
    assert gpu.Watch("GPU-1", FakeNvml(0x44)).state() == {
        "sm_mhz": 1755,
        "memory_mhz": 2619,
        "watts": 350.5,
        "celsius": None,
        "slowed": ["hardware thermal"],
        "power_capped": True,
    }


def test_an_unknown_cache_state_is_an_error() -> None:
    with pytest.raises(ValueError, match="unknown cache state 'warm'; there are cold, hot, graph"):
        timer(FakeCuda(), "warm", lambda: None)


def test_timers_take_turns_and_become_ceiling_records() -> None:
    cuda = FakeCuda()
    side, _ = timer(cuda, "hot", cuda.work("call", 0.5), 0)
    slow, _ = timer(cuda, "hot", cuda.work("call", 0.5), 0x40)
    effort = Effort(0.0, shortest=1e-4, rounds=8)
    for each, reason in ((side, None), (slow, "the GPU was slowed down during 9 samples")):
        taken = take_turns({"copy": each}, effort)["copy"]
        fields = {"ceiling": "copy", "level": "DRAM", "unit": "bytes/s"}
        record = gpu.ceiling(fields, 1e9, taken, "cuda:0", each)
        assert problem(record) is None
        assert record["rate"] == pytest.approx(2e12) and record["reason"] == reason


def test_the_ceilings_own_kernels_compile(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    nvrtc = pytest.importorskip("ulproof.impls._backends.nvrtc")
    if reason := nvrtc.missing():
        pytest.skip(reason)
    monkeypatch.setenv("ULPROOF_CACHE", str(tmp_path))
    for arch in nvrtc.ARCHITECTURES:
        found = nvrtc.compile(gpu.SOURCE, ["busy<true>", "busy<false>", "sweep", "nothing"], arch)
        assert all(needs["spills"] == 0 for needs in found.usage.values())

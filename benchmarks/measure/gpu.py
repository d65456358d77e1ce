"""GPU time: CUDA events around calls, the L2 cache cold or hot, CUDA-graph replay, and the roofs of a GPU.

``cold`` flushes L2 before each call by reading a buffer several times its size, so that what the timed kernel finds there is
neither its own nor dirty; the flush is not timed, and while it runs the host queues the call, so launch latency isn't either.
``hot`` queues calls back to back, launch gaps included. ``graph`` replays a captured graph of many calls: hot, without gaps.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from functools import cache as cached
from functools import partial
from importlib import import_module
from typing import Any

from .sampling import Effort, take_turns

Call = Callable[[], Any]
CACHES = ("cold", "hot", "graph")
FLUSH = 4  # times the L2 cache
UNROLL = 20  # calls in a captured graph
WARM_UP = 3  # calls before capture
RETRIES = 3  # of a sample during which the GPU was slowed down
REST = 0.5  # seconds to let it cool before the next try

# Bits of NVML's clocks-event reasons that spoil a sample; a software power cap (0x4) is how a busy GPU runs, and is only noted.
SLOWED = {0x08: "hardware slowdown", 0x20: "software thermal", 0x40: "hardware thermal", 0x80: "power brake"}
POWER_CAP = 0x04


class Watch:
    """A GPU as NVML sees it. ``nvml`` is pynvml; the GPU is found by its UUID, since CUDA may number GPUs otherwise."""

    def __init__(self, uuid: str, nvml: Any = None) -> None:
        self.nvml = nvml or import_module("pynvml")
        self.nvml.nvmlInit()
        self.handle = self.nvml.nvmlDeviceGetHandleByUUID(uuid)

    def _ask(self, name: str, *arguments: Any) -> int | None:
        """One number, or ``None`` where this GPU or driver doesn't tell it."""
        try:
            return int(getattr(self.nvml, name)(self.handle, *arguments))
        except (self.nvml.NVMLError, AttributeError):
            return None

    def reasons(self) -> int:
        """Why the clocks are below their most, as bits."""
        found = self._ask("nvmlDeviceGetCurrentClocksEventReasons")
        return (found if found is not None else self._ask("nvmlDeviceGetCurrentClocksThrottleReasons")) or 0

    def slowed(self) -> list[str]:
        """What slows the GPU down at this moment, in words; empty when nothing does."""
        bits = self.reasons()
        return [words for bit, words in SLOWED.items() if bits & bit]

    def state(self) -> dict[str, Any]:
        """Clocks in MHz, power in watts, temperature in Celsius, what slows it down, and whether power caps its clocks."""
        power = self._ask("nvmlDeviceGetPowerUsage")
        return {
            "sm_mhz": self._ask("nvmlDeviceGetClockInfo", self.nvml.NVML_CLOCK_SM),
            "memory_mhz": self._ask("nvmlDeviceGetClockInfo", self.nvml.NVML_CLOCK_MEM),
            "watts": None if power is None else power / 1000,
            "celsius": self._ask("nvmlDeviceGetTemperature", self.nvml.NVML_TEMPERATURE_GPU),
            "slowed": self.slowed(),
            "power_capped": bool(self.reasons() & POWER_CAP),
        }


class Timer:
    """Mean seconds of one call, for a number of calls: what ``sampling`` takes turns with.

    A sample during which the GPU was slowed down is taken again, ``RETRIES`` times at most, then kept; ``throttled`` counts
    the kept ones and ``retaken`` the others. ``cuda`` is torch.cuda, ``flush`` a call that empties L2.
    """

    def __init__(
        self, call: Call, cache: str, cuda: Any, flush: Call, watch: Any = None, rest: Callable[[float], None] = time.sleep
    ):
        if cache not in CACHES:
            raise ValueError(f"unknown cache state {cache!r}; there are {', '.join(CACHES)}")
        self.call, self.cuda, self.flush, self.watch, self.rest = call, cuda, flush, watch, rest
        self.throttled = self.retaken = 0
        self.sample = {"cold": self.cold, "hot": self.hot, "graph": self.graph}[cache]
        self.captured: Any = None

    def __call__(self, calls: int) -> float:
        for attempt in range(RETRIES + 1):
            seconds = self.sample(calls)
            if self.watch is None or not self.watch.slowed():
                return seconds
            if attempt < RETRIES:
                self.retaken += 1
                self.rest(REST)
        self.throttled += 1
        return seconds

    def events(self) -> tuple[Any, Any]:
        return self.cuda.Event(enable_timing=True), self.cuda.Event(enable_timing=True)

    def cold(self, calls: int) -> float:
        pairs = [self.events() for _ in range(calls)]
        for begin, end in pairs:
            self.flush()
            begin.record()
            self.call()
            end.record()
        pairs[-1][1].synchronize()
        return sum(begin.elapsed_time(end) for begin, end in pairs) / calls / 1e3

    def hot(self, calls: int) -> float:
        self.call()
        return self.between(self.call, calls) / calls

    def graph(self, calls: int) -> float:
        if self.captured is None:
            self.captured = self.capture()
        replays = -(-calls // UNROLL)
        self.captured.replay()
        return self.between(self.captured.replay, replays) / (replays * UNROLL)

    def between(self, run: Call, times: int) -> float:
        """Seconds of the GPU from the first run to the end of the last."""
        begin, end = self.events()
        begin.record()
        for _ in range(times):
            run()
        end.record()
        end.synchronize()
        return begin.elapsed_time(end) / 1e3

    def capture(self) -> Any:
        """``UNROLL`` calls as one graph. Raises ``RuntimeError`` for a call that can't be captured, such as one that syncs."""
        side = self.cuda.Stream()
        side.wait_stream(self.cuda.current_stream())
        with self.cuda.stream(side):  # what a library sets up at its first calls doesn't belong into a graph
            for _ in range(WARM_UP):
                self.call()
        self.cuda.current_stream().wait_stream(side)
        self.cuda.synchronize()
        graph = self.cuda.CUDAGraph()
        try:
            with self.cuda.graph(graph):
                for _ in range(UNROLL):
                    self.call()
        except RuntimeError as error:
            raise RuntimeError(f"can't be captured in a CUDA graph: {' '.join(str(error).split())[:200]}") from error
        return graph


def sampler(call: Call, cache: str, device: str) -> Timer:
    """Times ``call``, which launches on torch's current stream of ``device`` (``cuda:0``), ``cold``, ``hot`` or ``graph``."""
    import torch

    torch.cuda.set_device(device)
    return Timer(call, cache, torch.cuda, flusher(device), watcher(device))


@cached
def watcher(device: str) -> Watch:
    import torch

    return Watch(f"GPU-{torch.cuda.get_device_properties(device).uuid}")


@cached
def flusher(device: str) -> Call:
    """A call that reads ``FLUSH`` times the L2 cache, in one buffer kept for the process."""
    import torch

    size = FLUSH * torch.cuda.get_device_properties(device).L2_cache_size
    buffer = torch.ones(max(size // 4, 1 << 24), dtype=torch.float32, device=device)
    sink = torch.empty((), dtype=torch.float32, device=device)
    return lambda: torch.sum(buffer, dim=0, out=sink)


# Kernels that do one thing only: arithmetic in registers, eight independent chains a thread; reading; nothing.
SOURCE = r"""
__device__ __forceinline__ float exp2_once(float x) {
  float y;
  asm volatile("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
template <bool Exp>
__global__ void __launch_bounds__(256) busy(float* out, long long rounds) {
  float x[8];
  for (int k = 0; k < 8; ++k) x[k] = 1.0f / (threadIdx.x + k + 2);
  for (long long i = 0; i < rounds; ++i)
#pragma unroll
    for (int k = 0; k < 8; ++k) x[k] = Exp ? exp2_once(x[k]) : fmaf(x[k], 0.5f, 0.25f);
  float sum = 0.0f;
  for (int k = 0; k < 8; ++k) sum += x[k];
  if (sum == -1.0f) out[threadIdx.x] = sum;  // never: keeps the work
}
__global__ void __launch_bounds__(256) sweep(const float4* from, long long vectors) {
  float sum = 0.0f;
  const long long step = (long long)gridDim.x * 256;
  for (long long i = blockIdx.x * 256ll + threadIdx.x; i < vectors; i += 8 * step) {
    float4 v[8] = {};
#pragma unroll
    for (int k = 0; k < 8; ++k)
      if (i + k * step < vectors) v[k] = from[i + k * step];
#pragma unroll
    for (int k = 0; k < 8; ++k) sum += (v[k].x + v[k].y) + (v[k].z + v[k].w);
  }
  if (sum == -1e30f) *(volatile float*)from = sum;  // never
}
__global__ void nothing(float* out, long long rounds) {}
"""
ROUNDS = 4096
MATRIX = 8192  # rows and columns of the matrices multiplied


def sides(device: str) -> Iterator[tuple[dict[str, Any], float, Call, str]]:
    """Each ceiling: its fields, the work of one call in units of its rate, the call, and the cache state to time it in."""
    import torch

    from ulproof.impls._backends import nvrtc

    def launcher(kernel: str, blocks: int, arguments: list[int]) -> Call:
        return nvrtc.launcher(SOURCE, [nvrtc.Launch(kernel, blocks, 256)], arguments, device)

    properties = torch.cuda.get_device_properties(device)
    free = torch.cuda.mem_get_info(device)[0]
    for level, size in (("DRAM", min(1 << 30, free // 8)), ("L2", properties.L2_cache_size // 4)):
        source = torch.randn(size // 4, device=device)
        target, sink = torch.empty_like(source), torch.empty((), device=device)
        state = "cold" if level == "DRAM" else "graph"
        read: Call = partial(torch.sum, source, 0, out=sink)
        if not nvrtc.missing():
            read = launcher("sweep", 4 * properties.multi_processor_count, [source.data_ptr(), source.nbytes // 16])
        yield {"ceiling": "copy", "level": level, "unit": "bytes/s"}, 2.0 * source.nbytes, partial(target.copy_, source), state
        yield {"ceiling": "read", "level": level, "unit": "bytes/s"}, 1.0 * source.nbytes, read, state
    for dtype in ("float32", "float16", "bfloat16"):
        left, right = (torch.randn(MATRIX, MATRIX, device=device).to(getattr(torch, dtype)) for _ in range(2))
        product = torch.empty_like(left)
        fields = {"ceiling": "matmul", "dtype": dtype, "unit": "flop/s"}
        yield fields, 2.0 * MATRIX**3, partial(torch.matmul, left, right, out=product), "hot"

    if nvrtc.missing():
        return
    grid = 8 * properties.multi_processor_count
    out = torch.empty(256, device=device)
    busy = [out.data_ptr(), ROUNDS]
    work = 256.0 * 8 * ROUNDS * grid
    yield {"ceiling": "exp", "dtype": "float32", "unit": "exp/s"}, work, launcher("busy<true>", grid, busy), "hot"
    yield {"ceiling": "fma", "dtype": "float32", "unit": "flop/s"}, 2 * work, launcher("busy<false>", grid, busy), "hot"
    # In a graph, the least that any kernel costs; a launch from the host depends on who launches.
    yield {"ceiling": "launch", "unit": "launch/s"}, 1.0, launcher("nothing", 1, busy), "graph"


def ceilings(device: str, seconds: float = 3.0) -> list[dict[str, Any]]:
    """Ceiling records of a GPU, taking turns: copy and read from DRAM and from L2, matrix products by dtype, the exponentials
    and fused multiply-adds that its units do, and launches of an empty kernel."""
    listed = list(sides(device))
    samplers = {str(number): sampler(call, state, device) for number, (_, _, call, state) in enumerate(listed)}
    taken = take_turns(samplers, Effort(seconds, precision=0.01, shortest=1e-4))
    return [
        ceiling(fields, work, taken[number], device, samplers[number])
        for number, (fields, work, _, _) in zip(samplers, listed, strict=True)
    ]


def ceiling(fields: Mapping[str, Any], work: float, seconds: Mapping[str, Any], device: str, timer: Any) -> dict[str, Any]:
    """The record of one ceiling. A rate taken while the GPU was slowed down says so in its reason, and is no roof to trust."""
    throttled = f"the GPU was slowed down during {timer.throttled} samples" if timer.throttled else None
    made = {"kind": "ceiling", "status": "ok", "target": device, "threads": 1, "seconds": seconds, "reason": throttled}
    return {**made, **fields, "rate": work / seconds["median"]}

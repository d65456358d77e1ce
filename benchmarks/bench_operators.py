"""ASV: latency, seconds per gigabyte and error of every operator in ``cases.py``, over its shapes and targets.

Only quantities where bigger is worse, since ASV reads every number so. ``time_`` benchmarks take turns between commits;
``track_`` ones don't. GPU times are the host's, from the launch to the end of the work. A row that the commit or the
machine can't run shows ``n/a``.
"""

from __future__ import annotations

import time
from math import prod
from typing import Any

from .cases import CASES
from .workload import ready


class _Operator:
    """A row is a process of its own: it draws its inputs, binds, and measures one thing."""

    version = "1"
    timeout = 120
    warmup_time = 0.05
    repeat = (3, 5, 2.0)
    rounds = 2
    param_names = ("implementation", "target", "dtype", "shape")
    pass_ = "forward"

    def setup(self, implementation: str, target: str, dtype: str, shape: str) -> None:
        self.workload = ready(implementation, target, shape, dtype, self.pass_)
        self.call = self.workload.call
        self.number = max(1, (1 << 20) // prod(map(int, shape.split("x"))))


class _Forward(_Operator):
    def time_forward(self, *row: str) -> None:
        self.call()

    def track_seconds_per_gigabyte(self, *row: str) -> dict[str, Any]:
        self.call()
        samples = []
        for _ in range(7):
            begin = time.perf_counter()
            for _ in range(self.number):
                self.call()
            samples.append((time.perf_counter() - begin) / self.number / self.workload.nbytes * 1e9)
        return {"samples": samples, "number": self.number}

    track_seconds_per_gigabyte.unit = "seconds/GB"  # type: ignore[attr-defined]

    def track_max_ulp(self, *row: str) -> float:
        return self.workload.max_ulp()

    track_max_ulp.unit = "ULP"  # type: ignore[attr-defined]


class _Backward(_Operator):
    pass_ = "backward"

    def time_backward(self, *row: str) -> None:
        self.call()


def _classes() -> dict[str, type]:
    """``SoftmaxCpu``, ``SoftmaxCpuBackward``, ``SoftmaxGpu`` and so on, in float32; backward over the last shape alone."""
    made = {}
    for operator, case in CASES.items():
        for target, device in (("cpu", "Cpu"), ("cuda:0", "Gpu")):
            listed = [f"{operator}:{each}" for each in case.implementations if target in case.targets(each)]
            for pass_, base, shapes in (("forward", _Forward, case.shapes), ("backward", _Backward, case.shapes[-1:])):
                if pass_ in case.passes and listed:
                    name = operator.title().replace("_", "") + device + base.__name__.removeprefix("_").removeprefix("Forward")
                    params = (listed, [target], ["float32"], list(shapes))
                    made[name] = type(name, (base,), {"params": params, "__module__": __name__})
    return made


globals().update(_classes())

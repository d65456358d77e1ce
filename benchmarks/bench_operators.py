"""ASV: latency, seconds per gigabyte and error of every operator in ``cases.py``, over its shapes and targets.

Only quantities where bigger is worse, since ASV reads every number so. ``time_`` benchmarks take turns between commits;
``track_`` ones don't. GPU times are the host's, from the launch to the end of the work. A row that the commit or the
machine can't run shows ``n/a``.
"""

from __future__ import annotations

import time
from itertools import repeat
from math import prod
from typing import Any

from .cases import CASES
from .workload import ready


class _Operator:
    """A row is a process of its own: it draws its inputs, binds, and measures one thing.

    asv_runner runs ``setup`` again before each timed call, and times it alone, so a ``number`` of calls can't share the
    cost of reading the clock. Here one timed call is a fixed number of ``calls``, and the clock runs slower by that number.
    """

    version = "1"
    timeout = 120
    warmup_time = 0.05
    repeat = (3, 5, 2.0)
    rounds = 2
    number = 1
    param_names = ("implementation", "target", "dtype", "shape")
    pass_ = "forward"
    row: tuple[str, ...] = ()

    def setup(self, *row: str) -> None:
        if row == self.row:
            return
        implementation, target, dtype, shape = self.row = row
        self.workload = ready(implementation, target, shape, dtype, self.pass_)
        calls = self.calls = max(1, (1 << 20) // prod(map(int, shape.split("x"))))
        self.timer = lambda: time.perf_counter() / calls

    def run(self) -> None:
        call = self.workload.call
        for _ in repeat(None, self.calls):
            call()


class _Forward(_Operator):
    def time_forward(self, *row: str) -> None:
        self.run()

    def track_seconds_per_gigabyte(self, *row: str) -> dict[str, Any]:
        self.run()
        samples = []
        for _ in range(7):
            begin = self.timer()
            self.run()
            samples.append((self.timer() - begin) / self.workload.nbytes * 1e9)
        return {"samples": samples, "number": self.calls}

    track_seconds_per_gigabyte.unit = "seconds/GB"  # type: ignore[attr-defined]

    def track_max_ulp(self, *row: str) -> float:
        return self.workload.max_ulp()

    track_max_ulp.unit = "ULP"  # type: ignore[attr-defined]


class _Backward(_Operator):
    pass_ = "backward"

    def time_backward(self, *row: str) -> None:
        self.run()


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

"""ASV: latency, seconds per gigabyte and error of every operator in ``cases.py``, over its shapes and targets.

Only quantities where bigger is worse, since ASV reads every number so. ``time_`` benchmarks take turns between commits;
``track_`` ones don't. GPU times are the host's, from the launch to the end of the work. A row that the commit or the
machine can't run shows ``n/a``.
"""

from __future__ import annotations

import time
from typing import Any

from .cases import CASES
from .workload import ready


class _Operator:
    """A row is a process of its own, so it draws its inputs once and runs in a second or two."""

    version = "1"
    timeout = 120
    warmup_time = 0.05
    repeat = (3, 5, 2.0)
    rounds = 2
    param_names = ("implementation", "target", "shape")
    dtype = "float32"
    pass_ = "forward"

    def setup(self, implementation: str, target: str, shape: str) -> None:
        self.workload = ready(implementation, target, shape, self.dtype, self.pass_)
        elements = 1
        for extent in shape.split("x"):
            elements *= int(extent)
        self.number = max(1, (1 << 20) // elements)

    def time_call(self, implementation: str, target: str, shape: str) -> None:
        self.workload.call()


class _Forward(_Operator):
    def track_seconds_per_gigabyte(self, implementation: str, target: str, shape: str) -> dict[str, Any]:
        call, number = self.workload.call, self.number
        call()
        samples = []
        for _ in range(7):
            begin = time.perf_counter()
            for _ in range(number):
                call()
            samples.append((time.perf_counter() - begin) / number / self.workload.nbytes * 1e9)
        return {"samples": samples, "number": number}

    track_seconds_per_gigabyte.unit = "seconds/GB"  # type: ignore[attr-defined]

    def track_max_ulp(self, implementation: str, target: str, shape: str) -> float:
        return self.workload.max_ulp()

    track_max_ulp.unit = "ULP"  # type: ignore[attr-defined]


def _classes() -> dict[str, type]:
    """``SoftmaxCpu``, ``SoftmaxCpuBackward``, ``SoftmaxGpu`` and so on; the backward pass over the last shape alone."""
    made: dict[str, type] = {}
    for operator, case in CASES.items():
        for target in ("cpu", "cuda:0"):
            name = operator.title().replace("_", "") + ("Cpu" if target == "cpu" else "Gpu")
            listed = [f"{operator}:{each}" for each in case.implementations if target in case.targets(each)]
            made[name] = type(name, (_Forward,), {"params": (listed, [target], list(case.shapes))})
            if "backward" in case.passes:
                members = {"params": (listed, [target], [case.shapes[-1]]), "pass_": "backward"}
                made[name + "Backward"] = type(name + "Backward", (_Operator,), members)
    for made_class in made.values():
        made_class.__module__ = __name__
    return made


globals().update(_classes())

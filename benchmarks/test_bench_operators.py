"""pytest-benchmark: every operator of ``cases.py`` over its shapes, dtypes, passes and targets, with the error beside the time.

``pytest benchmarks/`` runs it all; ``-k "softmax and simd and 4096x1024"`` picks. Rates and errors stand in ``extra_info``.
"""

from __future__ import annotations

from typing import Any

from .cases import CASES
from .workload import Absent, ready

FIELDS = ("implementation", "target", "shape", "dtype", "pass_")


def pytest_generate_tests(metafunc: Any) -> None:
    rows = [
        (f"{operator}:{name}", target, shape, dtype, pass_)
        for operator, case in CASES.items()
        for pass_ in case.passes
        for dtype in case.dtypes
        for shape in case.shapes
        for name in case.implementations
        for target in case.targets(name)
    ]
    metafunc.parametrize(FIELDS, rows, ids=["-".join(row) for row in rows])


def test_latency(benchmark: Any, implementation: str, target: str, shape: str, dtype: str, pass_: str) -> None:
    import pytest

    try:
        workload = ready(implementation, target, shape, dtype, pass_)
    except Absent as reason:
        pytest.skip(f"{implementation} on {target}: {reason}")
    benchmark.group = f"{implementation.partition(':')[0]} {pass_} {dtype} {shape}"
    benchmark.extra_info |= {"implementation": implementation, "target": target, "dtype": dtype, "pass": pass_}
    benchmark.extra_info |= {"axes": workload.axes, "max_ulp": workload.max_ulp(), "bytes": workload.nbytes}
    benchmark(workload.call)
    if benchmark.stats:
        benchmark.extra_info["gigabytes_per_second"] = workload.nbytes / benchmark.stats.stats.median / 1e9

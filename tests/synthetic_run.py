"""Run folders that were never measured: a plausible machine, the softmax family's implementations, and every kind of trouble.

Times come from a small model (overhead plus the slower of arithmetic and memory), so crossovers lie where the model puts them.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HOSTILE = "</script><script>alert('x')</script> & \"quotes\" <img src=http://example.invalid/x.png onerror=alert(1)>"
CACHES = {"L1": 32 << 10, "L2": 1 << 20, "L3": 32 << 20}
COPY = {
    "avx512": {"L1": 210e9, "L2": 95e9, "L3": 62e9, "DRAM": 23e9},
    "avx2": {"L1": 150e9, "L2": 80e9, "L3": 55e9, "DRAM": 22e9},
}
STREAM_COPY = {"avx512": 33e9, "avx2": 32e9}
EXP = {"avx512": 9.0e9, "avx2": 4.4e9}
FMA = {"avx512": 118e9, "avx2": 61e9}
LENGTHS = tuple(1 << k for k in (6, 8, 10, 12, 14, 16, 17, 18, 20, 22, 24))
OPERATORS = ("softmax", "log_softmax", "logsumexp")
ELEMENTWISE = ("relu", "gelu", "silu", "sigmoid", "tanh", "softplus", "exp", "crrelu")  # and their copies: relu_2
# sweeps of the row (reads + writes), exponentials an element, seconds an element of arithmetic with AVX-512, overhead
SIMD = {
    "three-pass-recompute": (4, 2, 0.20e-9),
    "three-pass-reload": (5, 1, 0.125e-9),
    "two-pass": (3, 2, 0.19e-9),
    "two-pass-as-published": (3, 2, 0.215e-9),
}
STRESS = (
    "normal",
    "normal-10",
    "normal-100",
    "uniform-1000",
    "one-huge",
    "offset-1e6",
    "at-2e7",
    "at-3e38",
    "masked-one",
    "masked-leading",
    "masked-all",
    "plus-infinity",
    "nan",
    "denormal",
)
PUBLISHED = "simd/two-pass-as-published"
PASSES = ("forward", "backward")
GPU = ("triton/fused", "triton/online", "triton/two-pass", "cuda/warp-per-row", "cuda/block-per-row", "cuda/online")


def level_of(size: int) -> str:
    return next((level for level, capacity in CACHES.items() if size <= capacity), "DRAM")


def model_seconds(
    sweeps: float, per_element: float, overhead: float, n: int, size: int, cache: str, isa: str, stream: bool
) -> float:
    level = "DRAM" if cache == "cold" else level_of(size)
    bandwidth = STREAM_COPY[isa] * 1.1 if stream and level == "DRAM" else COPY[isa][level]
    return overhead + n * max(per_element, sweeps * 4 / bandwidth) + 0.1 * n * per_element


def implementations() -> Iterator[tuple[str, str | None, float, int, float, float, bool]]:
    """(name, isa, sweeps, exps, seconds an element, overhead, streaming)."""
    for isa, slower in (("avx512", 1.0), ("avx2", 1.9)):
        for variant, (sweeps, exps, each) in SIMD.items():
            yield f"simd/{variant}", isa, sweeps, exps, each * slower, 25e-9, False
            if variant != "two-pass-as-published":
                yield f"simd/{variant}-stream", isa, sweeps, exps, each * slower * 1.05, 40e-9, True
        yield "simd/auto", isa, 3, 1, 0.115e-9 * slower, 28e-9, True
    yield "numpy/three-pass", None, 9, 1, 0.9e-9, 6e-6, False
    yield "peer/torch-eager", None, 6, 1, 0.42e-9, 1.5e-6, False
    yield "peer/scipy", None, 11, 1, 2.2e-9, 4e-5, False


def records(operators: tuple[str, ...] = OPERATORS, threads: tuple[int, ...] = (1,)) -> Iterator[dict[str, Any]]:
    """A run's records; with several operators the first has every implementation, the others have few."""
    draw = random.Random(0)
    for isa in ("avx512", "avx2"):
        for level, rate in COPY[isa].items():
            for kind, factor in (
                ("read", 1.5),
                ("copy", 1.0),
                ("stream-copy", STREAM_COPY[isa] / rate if level == "DRAM" else 0.3),
            ):
                yield ceiling(kind, isa, rate * factor, "bytes/s", level)
        yield ceiling("fma", isa, FMA[isa], "flop/s", None)
        yield ceiling("exp", isa, EXP[isa], "exp/s", None)
    for operator in operators:
        if elementwise(operator):
            yield from flat_times(operator, draw)
            yield from flat_accuracies(operator, draw)
        else:
            for count in threads:
                yield from (record | {"threads": count} for record in times(operator, draw))
            yield from accuracies(operator, draw)
        yield from compiles(operator, draw)
    yield from trouble(operators[0])


def ceiling(name: str, isa: str, rate: float, unit: str, level: str | None) -> dict[str, Any]:
    where = {"target": "cpu", "isa": isa, "threads": 1, "level": level}
    return {"kind": "ceiling", "status": "ok", "ceiling": name, "rate": rate, "unit": unit, **where}


def times(operator: str, draw: random.Random) -> Iterator[dict[str, Any]]:
    shapes = [(1, n, "forward", "float32") for n in LENGTHS]
    shapes += [(4096, 1024, pass_, dtype) for pass_ in ("forward", "backward") for dtype in ("float32", "bfloat16")]
    for rows, n, pass_, dtype in shapes:
        group, noise = f"{operator}-{pass_}-{dtype}-{rows}x{n}", 0.0004 + 0.003 * draw.random()
        for name, isa, sweeps, exps, each, overhead, stream in implementations():
            if name.startswith("simd/") and name != "simd/auto" and (not operator.startswith("softmax") or pass_ == "backward"):
                continue
            elements, itemsize, best_isa = rows * n, 4 if dtype == "float32" else 2, isa or "avx512"
            size = 2 * elements * itemsize
            for cache in ("hot", "cold"):
                median = model_seconds(sweeps, each, overhead, elements, size, cache, best_isa, stream)
                median *= 1 + 0.01 * draw.gauss(0, 1)
                level = "DRAM" if cache == "cold" else level_of(size)
                copy = max(COPY[best_isa][level], STREAM_COPY[best_isa] if level == "DRAM" else 0)
                called = {"median": median * 1.4 + 6e-7, "low": median * 1.3, "high": median * 1.6, "samples": 10}
                yield identity(operator, name, isa) | {
                    "kind": "time",
                    "status": "ok",
                    "dtype": dtype,
                    "pass": pass_,
                    "axes": {"rows": rows, "n": n},
                    "cache": cache,
                    "group": group,
                    "seconds": {
                        "median": median,
                        "low": median * 0.996,
                        "high": median * 1.005,
                        "samples": 40,
                        "stopped": "interval",
                    },
                    "seconds_as_called": called if cache == "hot" else None,
                    "bytes": size,
                    "moved_bytes": sweeps * elements * itemsize if name.startswith(("simd/t", "numpy")) else None,
                    "flops": 4 * elements,
                    "exps": exps * elements,
                    "noise": noise,
                    "peak_bytes": 2 * size,
                    "roof": {"seconds": max(size / copy, elements / EXP[best_isa]), "binds": "bytes", "level": level},
                }


def elementwise(operator: str) -> bool:
    return operator.partition("_")[0] in ELEMENTWISE


FLAT = (
    ("simd/auto", "avx512", 0.05e-9, 25e-9),
    ("numpy/direct", None, 1.1e-9, 4e-6),
    ("peer/torch-eager", None, 0.3e-9, 1.5e-6),
)


def flat_times(operator: str, draw: random.Random) -> Iterator[dict[str, Any]]:
    """What the quick preset measures of an operator of one axis."""
    shapes = [(n, "forward", "float32") for n in (1000, 1 << 16, 1 << 24)]
    shapes += [(1 << 24, "backward", "float32"), (1 << 24, "forward", "bfloat16")]
    for n, pass_, dtype in shapes:
        for name, isa, each, overhead in FLAT:
            size = (2 + (pass_ == "backward")) * n * (4 if dtype == "float32" else 2)
            for cache in ("hot", "cold") if size < 2 * CACHES["L3"] else ("cold",):
                level = "DRAM" if cache == "cold" else level_of(size)
                roof = size / max(COPY["avx512"][level], STREAM_COPY["avx512"])
                median = (overhead + max(n * each, 1.08 * roof)) * (1 + 0.01 * draw.gauss(0, 1))
                yield identity(operator, name, isa) | {
                    "kind": "time",
                    "status": "ok",
                    "dtype": dtype,
                    "pass": pass_,
                    "axes": {"n": n},
                    "cache": cache,
                    "group": f"{operator} {pass_} {dtype} cpu",
                    "seconds": {
                        "median": median,
                        "low": 0.99 * median,
                        "high": 1.02 * median,
                        "samples": 9,
                        "stopped": "budget",
                    },
                    "bytes": size,
                    "flops": 9 * n,
                    "exps": n,
                    "noise": 0.01 * draw.random(),
                    "roof": {"seconds": roof, "binds": "bytes", "level": level},
                }


def flat_accuracies(operator: str, draw: random.Random) -> Iterator[dict[str, Any]]:
    """Errors on a few inputs in float32, and on every number of the 16-bit types, of which torch rounds some twice."""
    for name, isa, *_ in FLAT:
        poor = name.startswith("peer")
        cases = [("float32", stress, 4099) for stress in ("normal", "normal-10", "log-uniform", "limits", "nan")]
        cases += [(dtype, f"all-{dtype}", 1 << 16) for dtype in ("float16", "bfloat16")]
        for (dtype, stress, n), pass_ in ((case, pass_) for case in cases for pass_ in PASSES):
            error = (2.4 if poor else 0.9) + 0.4 * draw.random() if n < 1 << 16 else 0.5 + poor * draw.random()
            ulp = {"max": error, "mean": 0.2, "worst_input": f"y[{draw.randrange(n)}] is 0.0312, not 0.0313 (x = -2.25)"}
            ulp |= {"outputs": n, "misrounded": int(900 * (error - 0.5)), "flushed": 0}
            yield identity(operator, name, isa) | {
                "kind": "accuracy",
                "status": "ok",
                "dtype": dtype,
                "pass": pass_,
                "axes": {"n": n},
                "stress": stress,
                "seed": 1,
                "ulp": ulp,
            }


def identity(operator: str, name: str, isa: str | None = None, target: str = "cpu") -> dict[str, Any]:
    backend, _, variant = name.partition("/")
    where = {"target": target, "isa": isa, "threads": 1}
    return {"operator": operator, "implementation": name, "backend": backend, "variant": variant, **where}


def accuracies(operator: str, draw: random.Random) -> Iterator[dict[str, Any]]:
    """Published two-pass fails where the original does; peers are poor on wide rows and worse with an offset."""
    typical = {"peer/torch-eager": 15.0, "numpy/three-pass": 9.0, "peer/scipy": 9.5, PUBLISHED: 5.4, "simd/auto": 1.62}
    for name, isa, *_ in implementations():
        if not operator.startswith("softmax") and name.startswith("simd/") and name != "simd/auto":
            continue
        ours = name.startswith("simd/") and name != PUBLISHED
        both = name in ("simd/auto", "peer/torch-eager", "numpy/three-pass")
        for pass_, stress in ((pass_, stress) for pass_ in PASSES[: 1 + both] for stress in STRESS):
            worse = 1.0 if ours else {"normal-10": 5.0, "offset-1e6": 200.0}.get(stress, 1.0)
            error: float | None = typical.get(name, 1.7) * (1 + 0.1 * draw.random()) * worse
            if name == PUBLISHED and (stress == "at-3e38" or (isa == "avx2" and stress in ("masked-one", "masked-leading"))):
                error = None
            yield identity(operator, name, isa) | {
                "kind": "accuracy",
                "status": "wrong" if error is None else "ok" if error < 2 else "inaccurate",
                "reason": f"{stress} gives NaN where the oracle is finite" if error is None else None,
                "dtype": "float32",
                "pass": pass_,
                "axes": {"rows": 2, "n": 1003},
                "stress": stress,
                "seed": 1,
                "ulp": {"max": error, "mean": error and error * 0.2, "worst_input": "x[17] = -3.25"},
            }


def compiles(operator: str, draw: random.Random) -> Iterator[dict[str, Any]]:
    for name in GPU:
        workload = {"dtype": "float32", "pass": "forward", "axes": {"rows": 4096, "n": 1024}}
        absent = {"kind": "time", "status": "unavailable", "reason": "no NVIDIA GPU or driver here"}
        yield identity(operator, name, target="cuda:0") | workload | absent
        for arch in ("sm_80", "sm_90", "sm_100"):
            yield identity(operator, name, isa=arch, target="cuda:0") | {
                **workload,
                "kind": "compile",
                "status": "ok",
                "registers": draw.randrange(24, 96),
                "shared_bytes": 2048,
                "spills": 8 if name == "triton/fused" and arch == "sm_80" else 0,
                "compile_seconds": 0.4 + draw.random(),
            }


def trouble(operator: str) -> Iterator[dict[str, Any]]:
    """One record of each kind that is not a result, and names that try to break out of the page."""
    shape = {"kind": "time", "dtype": "float32", "pass": "forward", "axes": {"rows": 1, "n": 1 << 20}, "cache": "cold"}
    yield identity(operator, "peer/xnnpack") | shape | {"status": "crashed", "reason": f"signal 11 {HOSTILE}"}
    yield identity(operator, "peer/torch-compile") | shape | {"status": "timeout", "reason": "no result after 60 s"}
    yield identity(operator, "peer/liger") | shape | {"status": "not measured", "reason": "budget"}
    yield (
        identity(operator, f"peer/{HOSTILE}")
        | shape
        | {
            "status": "suspect",
            "reason": "30 times as fast as its roof (bytes) allows",
            "seconds": {"median": 1e-5, "low": 0.9e-5, "high": 1.1e-5, "samples": 9},
            "bytes": 8 << 20,
            "roof": {"seconds": 3e-4, "binds": "bytes", "level": "DRAM"},
            "group": HOSTILE,
            "noise": 0.001,
        }
    )


def header() -> dict[str, Any]:
    return {
        "format": 1,
        "started": "2026-01-31T12:00:00Z",
        "finished": "2026-01-31T12:02:10Z",
        "commit": "0123abcd0123abcd",
        "preset": "quick",
        "environment": {
            "cpu": {"model": "Synthetic 9000 <8-core>", "cores": 2, "isas": ["avx2", "avx512"], "caches": CACHES},
            "memory": {"total": 16 << 30, "available": 12 << 30},
            "gpus": [],
            "versions": {"python": "3.11.2", "numpy": "2.4.0", "torch": "2.13.0", "triton": None, "ulproof": "0.1.0"},
            "os": "Linux 6.1",
            "settings": {"governor": "powersave", "smt": True},
        },
        "findings": [
            {
                "severity": "warning",
                "what": "the frequency governor is powersave",
                "fix": "sudo cpupower frequency-set -g performance",
            },
            {"severity": "note", "what": HOSTILE, "fix": None},
            {"severity": "ok", "what": "nothing else is running", "fix": None},
        ],
        "watch": {"softmax-forward-float32-1x64": {"load": 0.1, "others": 0.42, "steal": 0.01, "mhz": 2400.0, "celsius": None}},
        "plan": {"seed": 1, "budget": 90, "records": 1000},
    }


def write_run(folder: Path, operators: tuple[str, ...] = OPERATORS, threads: tuple[int, ...] = (1,)) -> Path:
    folder.mkdir(parents=True)
    (folder / "run.json").write_text(json.dumps(header()))
    with (folder / "records.jsonl").open("w") as lines:
        for record in records(operators, threads):
            lines.write(json.dumps(record) + "\n")
    return folder

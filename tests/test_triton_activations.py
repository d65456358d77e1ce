"""The Triton kernels of the activations and their kin: right in the interpreter, and compiled to machine code without a GPU."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from ulproof.impls import load, operators

pytest.importorskip("torch")
pytest.importorskip("triton")

FAMILIES = ("activations", "gated", "fused", "poly_norm", "topk_relu")
OPERATORS = tuple(
    name
    for name, each in operators().items()
    if each.package.rpartition(".")[2] in FAMILIES
    and any(implementation.backend == "triton" for implementation in each.variants)
)
# One for each way to read and to sum, and each architecture: `make compile-all` has the rest.
COMPILED = (
    "gelu",
    "rational_b",
    "swiglu",
    "bias_silu",
    "relu_zeros",
    "poly_norm",
    "topk_relu",
    "topk_relu_approx",
    "topk_relu_stat",
)
TELLING = ("log-uniform", "points", "limits", "nan")
DTYPES = {"sm_80": "float16", "sm_90": "bfloat16", "sm_100": "float32"}


def workloads() -> Iterator[tuple[str, str, str, str, str, dict[str, int]]]:
    """(operator, implementation, pass, dtype, stress, axes) of the interpreted checks; sizes take several programs."""
    for name in OPERATORS:
        card = operators()[name]
        first = next(iter(card.passes.values())).inputs[0].axes
        for implementation in load(name).values():
            if implementation.backend != "triton":
                continue
            for pass_ in implementation.passes:
                for stress in dict.fromkeys((*TELLING, *card.stress[:1])):
                    if stress in card.stress:
                        axes = {"n": 1500} if len(first) == 1 else {"rows": 5, "n": 1032}
                        yield name, implementation.name, pass_, "float32", stress, axes
                for dtype in ("float16", "bfloat16"):
                    flat = len(first) == 1
                    axes = {"n": 1 << 16} if flat else {"rows": 5, "n": 1032}
                    yield name, implementation.name, pass_, dtype, f"all-{dtype}" if flat else card.stress[0], axes
                for rows, n in ((3, 8), (70, 200)):
                    axes = {"n": n - 1} if len(first) == 1 else {"rows": rows, "n": n}
                    yield name, implementation.name, pass_, "float32", card.stress[0], axes


CODE = """
import json, sys
from ulproof.benchmarks import check
from ulproof.impls import load

for operator, name, pass_, dtype, stress, axes in json.loads(sys.stdin.read()):
    implementation = load(operator)[name]
    if implementation.refuses(pass_, axes, dtype) is None:
        print(json.dumps(check.check(implementation, pass_, axes, dtype, "interpreter", stress=stress)))
"""


def interpreted(code: str, given: str = "") -> str:
    """What ``code`` prints in a process that interprets Triton kernels."""
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    done = subprocess.run([sys.executable, "-c", code], input=given, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def records() -> list[dict[str, Any]]:
    return [json.loads(line) for line in interpreted(CODE, json.dumps(list(workloads()))).splitlines()]


@pytest.mark.parametrize("operator", OPERATORS)
def test_interpreted_kernels_keep_their_bounds(operator: str, records: list[dict[str, Any]]) -> None:
    mine = [each for each in records if each["operator"] == operator]
    variants = {each.variant for each in load(operator).values() if each.backend == "triton"}
    assert {each["variant"] for each in mine} == variants
    wrong = [
        (each["variant"], each["pass"], each["dtype"], each["stress"], each["axes"], each["reason"])
        for each in mine
        if each["status"] != "ok"
    ]
    assert mine and not wrong, wrong[:5]


@pytest.mark.parametrize("arch", DTYPES)
@pytest.mark.parametrize("operator", [each for each in COMPILED if each in OPERATORS])
def test_kernels_compile_without_spills(operator: str, arch: str) -> None:
    for implementation in load(operator).values():
        if implementation.backend == "triton":
            for pass_ in implementation.passes:
                found = implementation.code().compiled(implementation, pass_, DTYPES[arch], arch)
                assert found
                for each in found:
                    assert each["spills"] == 0 and each["arch"] == arch, each
                    assert each["registers"] * 32 * each["constants"]["num_warps"] <= 65536, each
                    assert each["shared_bytes"] <= 96 * 1024, each

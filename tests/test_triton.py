"""The Triton kernels: right in the interpreter, compiled to machine code without a GPU, and clear about bad input.

Interpreting and compiling need processes of their own: TRITON_INTERPRET counts when triton is imported. So everything that
is interpreted runs in one process, once, and prints JSON for the tests below it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ulproof.impls import load, operators
from ulproof.impls._backends import probe
from ulproof.impls.registry import Implementation

torch = pytest.importorskip("torch")
pytest.importorskip("triton")

OPERATORS = ("softmax", "log_softmax", "logsumexp")
VARIANTS = ("fused", "online", "two-pass")
DTYPES = {"sm_80": "float16", "sm_90": "bfloat16", "sm_100": "float32"}

# What singles out a kernel's own code paths: NaN, infinity, masks, references that move and that are far away.
TELLING = ("normal-100", "offset-minus-1e6", "at-3e38", "masked-leading", "masked-all", "plus-infinity", "nan")


def workloads() -> Iterator[tuple[str, str, str, str, str, int, int]]:
    """(operator, variant, pass, dtype, stress, rows, n) of the interpreted checks; long rows take several blocks."""
    every = tuple(operators()["softmax"].stress)
    for operator in OPERATORS:
        for variant in VARIANTS:
            for pass_ in load(operator)[f"triton/{variant}"].passes:
                for dtype in ("float32", "float16", "bfloat16"):
                    few = TELLING if dtype == "float32" else TELLING[::3]
                    for stress in every if (variant, dtype) == ("fused", "float32") else few:
                        yield operator, variant, pass_, dtype, stress, 2, 130
                    if variant == "fused" and dtype != "float32":
                        yield operator, variant, pass_, dtype, f"all-{dtype}", 1 << 16, 2
                if variant != "fused":
                    for stress in ("normal-100", "ramp-200", "offset-1e7", "masked-leading", "peak-over-low-bulk"):
                        yield operator, variant, pass_, "float32", stress, 1, 40001
                for n in (1, 2, 3, 17):
                    yield operator, variant, pass_, "float32", "normal-10", 3, n


CODE = """
import json, sys
from ulproof.benchmarks import check
from ulproof.impls import load

for operator, variant, pass_, dtype, stress, rows, n in json.loads(sys.argv[1]):
    axes = {"rows": rows, "n": n}
    implementation = load(operator)["triton/" + variant]
    print(json.dumps(check.check(implementation, pass_, axes, dtype, "interpreter", stress=stress)))
"""


def interpreted(code: str, *arguments: str) -> str:
    """What ``code`` prints in a process that interprets Triton kernels."""
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "TRITON_INTERPRET": "1"})
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def records() -> list[dict[str, Any]]:
    return [json.loads(line) for line in interpreted(CODE, json.dumps(list(workloads()))).splitlines()]


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("operator", OPERATORS)
def test_interpreted_kernels_keep_their_bounds(operator: str, variant: str, records: list[dict[str, Any]]) -> None:
    mine = [each for each in records if (each["operator"], each["variant"]) == (operator, variant)]
    assert {each["pass"] for each in mine} == set(load(operator)[f"triton/{variant}"].passes)
    wrong = [
        (each["pass"], each["dtype"], each["stress"], each["axes"], each["reason"]) for each in mine if each["status"] != "ok"
    ]
    assert not wrong
    bound = load(operator)[f"triton/{variant}"].bound or {}
    assert all(each["ulp"]["max"] <= bound[each["pass"], each["dtype"]] for each in mine)
    assert all(limit <= 4 for limit in bound.values())


DEVICE_FUNCTIONS = """
import math
import ml_dtypes, numpy as np, torch, triton, triton.language as tl
from ulproof.impls._backends import arrays
from ulproof.impls._backends.triton_math import *

@triton.jit
def round_to_bfloat16(x, y, back, BLOCK: tl.constexpr):
    at = tl.arange(0, BLOCK)
    value = rounded(tl.load(x + at), tl.bfloat16)
    tl.store(y + at, value)
    tl.store(back + at, widened(value))

@triton.jit
def exponential(x, y, WIDE: tl.constexpr, BLOCK: tl.constexpr):
    at = tl.arange(0, BLOCK)
    p, bits = exp_parts(tl.load(x + at), WIDE)
    tl.store(y + at, p.to(tl.float64) * power64(bits - ROUND_BITS))

@triton.jit
def reductions(x, y, BLOCK: tl.constexpr):
    value = tl.load(x + tl.arange(0, BLOCK))
    s, c = tl.reduce((value, tl.full(value.shape, -0.0, tl.float32)), 0, add_pairs)  # as compiled
    tl.store(y, s.to(tl.float64) + c.to(tl.float64))
    tl.store(y + 1, total_of(value, 0, True))
    tl.store(y + 2, tl.reduce(value, 0, max_or_nan).to(tl.float64))
    tl.store(y + 3, maximum(value, 0).to(tl.float64))

# Whether a float32 is rounded up depends on its upper half, and on how its lower one compares with 0, 0x8000 and 0xffff.
high = np.arange(1 << 16, dtype=np.uint32) << 16
for low in (0, 1, 0x7FFF, 0x8000, 0x8001, 0xFFFF):
    x = (high | low).view(np.float32)
    y, back = np.empty(1 << 16, ml_dtypes.bfloat16), np.empty(1 << 16, np.float32)
    with np.errstate(all="ignore"):
        round_to_bfloat16[(1,)](*map(arrays.to_torch, (x, y, back)), 1 << 16)
        expected = x.astype(ml_dtypes.bfloat16)
    nan = np.isnan(x)
    assert np.array_equal(y.view(np.uint16)[~nan], expected.view(np.uint16)[~nan]) and np.isnan(y.astype(np.float32)[nan]).all()
    assert np.array_equal(back.view(np.uint32)[~nan], expected.astype(np.float32).view(np.uint32)[~nan])

x = np.linspace(-700, 700, 1 << 18, dtype=np.float32)
y = np.empty(1 << 18)
for wide, most in ((True, 1.7), (False, 52)):
    exponential[(1,)](*map(arrays.to_torch, (x, y)), wide, 1 << 18)
    assert np.abs(y / np.exp(x.astype(np.float64)) - 1).max() < most * 2.0**-24, wide

random = np.random.default_rng(0)
for x in (np.r_[1, np.full(255, 2.0**-24 * 0.99)], random.standard_normal(256), np.r_[np.nan, np.ones(255)], np.full(256, 0.1)):
    x, y = x.astype(np.float32), np.empty(4)
    reductions[(1,)](*map(arrays.to_torch, (x, y)), 256)
    if np.isnan(x).any():
        assert np.isnan(y).all()
    else:
        assert np.abs(y[:2] - math.fsum(x)).max() <= 2.0**-32 * np.abs(x).sum() and (y[2:] == x.max()).all()
"""


def test_device_functions_round_add_and_exponentiate_as_they_say() -> None:
    interpreted(DEVICE_FUNCTIONS)


ARRAYS = """
import ml_dtypes, numpy as np, torch
from ulproof.impls import load

x = np.random.default_rng(0).standard_normal((2, 3, 70)).astype(np.float32)
whole = np.full((6, 200), np.nan, np.float32)
whole[:, 5:145:2] = x.reshape(6, 70)
for variant in ("fused", "online", "two-pass"):
    softmax, lse = load("softmax")["triton/" + variant], load("logsumexp")["triton/" + variant]
    y = np.empty_like(x)
    softmax.bind((x,), (y,), target="interpreter")()
    again = softmax(x, target="interpreter")
    assert isinstance(again, np.ndarray) and again.shape == x.shape and np.array_equal(again, y)
    strided = np.zeros((6, 150), np.float32)
    softmax.bind((whole[:, 5:145:2],), (strided[:, 3:143:2],), target="interpreter")()
    assert np.array_equal(strided[:, 3:143:2], y.reshape(6, 70))
    assert not strided[:, 4:142:2].any() and not strided[:, 143:].any()
    tensor = softmax(torch.from_numpy(x), target="interpreter")
    assert isinstance(tensor, torch.Tensor) and np.array_equal(tensor.numpy(), y)
    assert lse(x, target="interpreter").shape == (2, 3) and lse(x[0, 0], target="interpreter").shape == ()
    assert softmax(np.empty((0, 5), np.float32), target="interpreter").shape == (0, 5)
    half = softmax(x.astype(ml_dtypes.bfloat16), target="interpreter")
    assert half.dtype == ml_dtypes.bfloat16 and abs(half.astype(np.float32).sum(-1) - 1).max() < 0.05
"""


def test_any_strides_and_both_kinds_of_array() -> None:
    interpreted(ARRAYS)


@pytest.mark.parametrize("arch", DTYPES)
@pytest.mark.parametrize("operator", OPERATORS)
def test_kernels_compile_without_spills(operator: str, arch: str) -> None:
    from ulproof.impls._backends import triton as backend

    for variant, lengths in (("fused", (1024, 1 << 15, 1 << 18)), ("online", (1 << 20,)), ("two-pass", (1 << 26,))):
        implementation = load(operator)[f"triton/{variant}"]
        for pass_ in implementation.passes:
            for n in lengths:
                n //= 2 if (pass_, variant) == ("backward", "fused") and n > 1024 else 1
                alone = n <= 1 << 15 or variant != "fused" or (operator, pass_) == ("logsumexp", "backward")
                if not alone and (reason := backend.no_clusters(arch)):
                    with pytest.raises(ValueError, match=reason):
                        compiled(implementation, pass_, arch, n)
                    continue
                found = compiled(implementation, pass_, arch, n)
                assert found
                for each in found:
                    assert each["spills"] == 0 and each["arch"] == arch, each
                    assert each["registers"] * 32 * each["constants"]["num_warps"] <= 65536, each
                    assert 0 <= each["shared_bytes"] <= 48 * 1024 and each["compile_seconds"] > 0


def compiled(implementation: Implementation, pass_: str, arch: str, n: int) -> list[dict[str, Any]]:
    axes = {"rows": 4096 if n < 1 << 20 else 1, "n": n}
    return implementation.code().compiled(implementation, pass_, DTYPES[arch], arch, axes)


@pytest.mark.parametrize("variant", VARIANTS)
def test_machine_code_moves_16_bytes_at_a_time_and_keeps_clear_of_ex2(variant: str) -> None:
    from ulproof.impls._backends import triton as backend
    from ulproof.impls.softmax import triton as launchers

    implementation = load("softmax")[f"triton/{variant}"]
    for step in launchers.aligned(implementation, "forward", "float32", {"rows": 64, "n": 8192}):
        if step.kernel.__name__ != "combine":
            code = backend.machine_code(step, "sm_90").asm["ptx"]
            assert "ex2.approx" not in code and "ld.global" in code
            scalar = [line for line in code.splitlines() if ".global" in line and ".b32" in line and ".v4" not in line]
            allowed = {"fused": 0, "online": 0, "partial": 1, "write": 4}[step.kernel.__name__]  # a row's own numbers
            assert code.count(".v4.b32") > len(scalar) <= allowed, scalar


def test_an_unchanged_kernel_is_compiled_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ulproof.impls._backends import triton as backend

    implementation = load("softmax")["triton/fused"]
    monkeypatch.setenv("ULPROOF_CACHE", str(tmp_path))
    first = compiled(implementation, "forward", "sm_90", 64)
    monkeypatch.setattr(backend, "machine_code", lambda *_: pytest.fail("compiled again"))
    assert compiled(implementation, "forward", "sm_90", 64) == first
    with pytest.raises(pytest.fail.Exception):
        compiled(implementation, "forward", "sm_90", 128)


def test_it_says_why_it_can_not_run() -> None:
    implementation = load("softmax")["triton/fused"]
    assert "TRITON_INTERPRET=1" in (implementation.unavailable("interpreter") or "")
    with pytest.raises(RuntimeError, match="softmax:triton/fused can't run here: .*TRITON_INTERPRET=1"):
        implementation(np.zeros((1, 4), np.float32), target="interpreter")
    if not probe.gpus():
        with pytest.raises(RuntimeError, match="no NVIDIA GPU"):
            implementation(torch.zeros(1, 4), target="cuda:0")
    fused = implementation.code().compiled
    with pytest.raises(ValueError, match="a cluster of blocks, which sm_80 lacks"):
        fused(implementation, "forward", "float32", "sm_80", {"rows": 1, "n": 40000})
    with pytest.raises(ValueError, match="unknown architecture 'sm_75'; there are sm_80, sm_90, sm_100"):
        fused(implementation, "forward", "float32", "sm_75")
    assert "no backward pass" in str(
        pytest.raises(ValueError, compiled, load("softmax")["triton/two-pass"], "backward", "sm_90", 64).value
    )


X = np.zeros((2, 8), np.float32)
READ_ONLY = np.zeros((2, 8), np.float32)
READ_ONLY.flags.writeable = False
BAD: dict[str, tuple[Any, Any, type[Exception], str]] = {
    "dtype": (X.astype(np.float64), X.copy(), TypeError, "x has dtype float64; .* takes float32, float16, bfloat16"),
    "integers": (X.astype(np.int32), X.copy(), TypeError, "x has dtype int32"),
    "0-d": (np.array(1, np.float32), X.copy(), ValueError, "x has 0 dimensions"),
    "list": ([1.0], X.copy(), TypeError, "x must be a NumPy array or a torch CPU tensor, got list"),
    "empty row": (np.zeros((2, 0), np.float32), np.zeros((2, 0), np.float32), ValueError, "axis 'n' must not be empty"),
    "overlap": (X, X, ValueError, "output y overlaps x"),
    "shape": (X, np.zeros((2, 9), np.float32), ValueError, r"output y has shape \(2, 9\), must be \(2, 8\)"),
    "output dtype": (X, X.astype(np.float16), TypeError, "output y has dtype float16, must be float32"),
    "read-only": (X, READ_ONLY, ValueError, "output y is read-only"),
    "negative": (X[:, ::-1], X.copy(), ValueError, "x has strides .*; Triton takes none below 0"),
    "lead": (np.zeros((2, 6, 8), np.float32)[:, :4], np.zeros((2, 4, 8), np.float32), ValueError, "need one row stride"),
    "too long": (np.zeros((1, 1 << 19), np.float32), np.zeros((1, 1 << 19), np.float32), ValueError, "up to 262144 elements"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_arrays_get_one_clear_error(case: str) -> None:
    from ulproof.impls._backends import tensors

    x, y, error, message = BAD[case]
    with pytest.raises(error, match=message):
        tensors.check(load("softmax")["triton/fused"], "forward", (x,), (y,), "interpreter")


def test_bad_calls_get_one_clear_error() -> None:
    from ulproof.impls._backends import tensors

    fused = load("softmax")["triton/fused"]
    with pytest.raises(ValueError, match="x is on cpu, must be on cuda:0"):
        tensors.check(fused, "forward", (torch.zeros(2, 8),), (torch.zeros(2, 8),), "cuda:0")
    with pytest.raises(TypeError, match="x must be a torch CUDA tensor, got ndarray"):
        tensors.check(fused, "forward", (X,), (X,), "cuda:0")
    with pytest.raises(ValueError, match="unknown pass 'sideways'"):
        tensors.check(fused, "sideways", (X,), (X,), "interpreter")
    with pytest.raises(TypeError, match=r"takes 2 array\(s\) \(y, dy\), got 1"):
        tensors.check(fused, "backward", (X,), (X.copy(),), "interpreter")
    with pytest.raises(TypeError, match="dy has dtype float16, but y has float32"):
        tensors.check(fused, "backward", (X, X.astype(np.float16)), (X.copy(),), "interpreter")

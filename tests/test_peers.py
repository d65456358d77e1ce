"""Other people's implementations are called as they are meant to be: right but for rounding, or absent with a reason."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from ulproof.benchmarks import check
from ulproof.impls import implementations, load
from ulproof.impls._backends import probe, stress
from ulproof.impls.registry import Implementation
from ulproof.impls.softmax import OPERATORS, peers

SOFTMAX = tuple(operator.name for operator in OPERATORS)
PEERS = [each for name in SOFTMAX for each in implementations(name) if each.backend in ("peer", "reference")]
ON_CPU = [each for each in PEERS if "cpu" in each.targets]
SHAPES = ({"rows": 5, "n": 1000}, {"rows": 1, "n": 65_537}, {"rows": 300, "n": 1})


def need(implementation: Implementation) -> None:
    if reason := implementation.unavailable("cpu"):
        pytest.skip(reason)


@pytest.mark.parametrize("implementation", ON_CPU, ids=lambda implementation: implementation.full_name)
def test_right_on_ordinary_rows(implementation: Implementation) -> None:
    need(implementation)
    once = implementation.variant == "torch-compile"  # which compiles for ten seconds each
    if once and implementation.operator.name != "softmax":
        pytest.skip("one compilation is enough")
    for pass_ in implementation.passes[:1] if once else implementation.passes:
        for dtype in implementation.dtypes[:1] if once else implementation.dtypes:
            for axes in SHAPES[:1] if once else SHAPES:
                record = check.check(implementation, pass_, axes, dtype, stress="normal")
                assert record["status"] in ("ok", "inaccurate"), record["reason"]
                assert record["ulp"]["max"] < (64 if dtype == "float32" else 16), record["reason"]


def test_the_reference_is_rounded_once() -> None:
    for implementation in (each for each in ON_CPU if each.backend == "reference"):
        need(implementation)
        for name in implementation.operator.stress:
            for pass_ in implementation.passes:
                record = check.check(implementation, pass_, SHAPES[0], "float32", stress=name)
                assert record["status"] == "ok", f"{name}: {record['reason']}"


@pytest.mark.parametrize("operator", SOFTMAX)
@pytest.mark.parametrize("pass_", ["forward", "backward"])
def test_torch_writes_into_outputs_of_any_layout(operator: str, pass_: str) -> None:
    implementation = load(operator)["peer/torch-eager"]
    need(implementation)
    inputs = stress.inputs(implementation.operator, pass_, SHAPES[0], "float32")
    expected = implementation(*inputs, pass_=pass_)
    for layout in ("padded-rows", "every-second-element", "column-major"):
        output = stress.strided(np.zeros_like(expected), layout)
        implementation.bind(inputs, (output,), pass_=pass_)()
        np.testing.assert_array_equal(output, expected, err_msg=layout)
    refused = np.zeros_like(expected)[::-1]
    with pytest.raises(ValueError, match=r"negative strides .*, which torch can't view"):
        implementation.bind(inputs, (refused,), pass_=pass_)


def test_torch_refuses_an_isa_that_is_not_its_own() -> None:
    implementation = load("softmax")["peer/torch-eager"]
    need(implementation)
    import torch

    here = torch.backends.cpu.get_cpu_capability().lower()
    if here not in implementation.isas:
        pytest.skip(f"torch uses {here} on this processor")
    x = np.zeros((1, 4), np.float32)
    implementation.bind((x,), (x.copy(),), isa=here)()
    (other,) = set(implementation.isas) - {here}
    with pytest.raises(RuntimeError, match=f"torch uses {here} in this process, not {other}; set ATEN_CPU_CAPABILITY={other}"):
        implementation.bind((x,), (x.copy(),), isa=other)


def test_torch_follows_its_environment(python: Callable[..., str]) -> None:
    implementation = load("softmax")["peer/torch-eager"]
    need(implementation)
    if "avx2" not in check.environment.cpu()["isas"]:
        pytest.skip("this processor has no AVX2")
    code = """
import os, sys
os.environ["ATEN_CPU_CAPABILITY"] = "avx2"
import numpy as np
from ulproof.impls import load
x = np.zeros((1, 4), np.float32)
y = np.empty_like(x)
load("softmax")["peer/torch-eager"].bind((x,), (y,), isa="avx2")()
print(y[0, 0])
"""
    assert python(code).split() == ["0.25"]


def test_torch_runs_on_the_threads_it_is_given() -> None:
    implementation = load("softmax")["peer/torch-eager"]
    need(implementation)
    import torch

    x = np.zeros((2, 4), np.float32)
    calls = {threads: implementation.bind((x,), (np.empty_like(x),), threads=threads) for threads in (1, 2)}
    for threads in (2, 1, 2):
        calls[threads]()
        assert torch.get_num_threads() == threads


def test_xnnpack_takes_rows_and_nothing_else() -> None:
    implementation = load("softmax")["peer/xnnpack"]
    need(implementation)
    wide = np.random.default_rng(0).standard_normal((6, 40)).astype(np.float32)
    expected = implementation(np.ascontiguousarray(wide[:, :32]))
    output = np.zeros((6, 50), np.float32)
    implementation.bind((wide[:, :32],), (output[:, :32],))()
    np.testing.assert_array_equal(output[:, :32], expected)
    assert not output[:, 32:].any()
    for x in (wide[::-1], wide[:, ::2], np.broadcast_to(wide[:1], wide.shape), wide.reshape(2, 3, 40).transpose(1, 0, 2)):
        with pytest.raises(ValueError, match="x has strides .*: XNNPACK needs"):
            implementation.bind((x,), (np.empty(x.shape, np.float32),))


def test_absent_libraries_give_their_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "missing", lambda module: f"{module} is not installed")
    for implementation in PEERS:
        for target in implementation.targets:
            if implementation.backend == "peer" and implementation.variant != "xnnpack":
                reason = peers.unavailable(implementation, target)
                assert reason == f"{peers.NEEDS[implementation.variant]} is not installed"


def test_gpu_libraries_say_why_they_cannot_run_here() -> None:
    for implementation in PEERS:
        if implementation.targets == ("cuda",) and not probe.gpus():
            assert implementation.unavailable("cuda:0") == "no NVIDIA GPU or driver here"


@pytest.mark.parametrize("name", ["sigmoid", "relu"])
def test_xnnpacks_activations(name: str) -> None:
    implementation = load(name)["peer/xnnpack"]
    need(implementation)
    x = np.random.default_rng(0).standard_normal((3, 1000)).astype(np.float32)
    expected = 1 / (1 + np.exp(-x.astype(np.float64))) if name == "sigmoid" else np.maximum(x, 0)
    np.testing.assert_allclose(implementation(x), expected, rtol=1e-6)
    with pytest.raises(ValueError, match="x has strides .*: XNNPACK needs"):
        implementation(x[:, ::2])

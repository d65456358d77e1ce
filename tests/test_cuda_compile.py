"""The CUDA kernels compile to machine code without a GPU, spill nothing, and fit the GPUs they are planned for."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ulproof.benchmarks import compile as command
from ulproof.benchmarks.record import problem
from ulproof.impls import load
from ulproof.impls._backends import nvrtc
from ulproof.impls.registry import Implementation
from ulproof.impls.softmax import cuda

OPERATORS = ("softmax", "log_softmax", "logsumexp")
needs_compiler = pytest.mark.skipif(nvrtc.missing() is not None, reason=f"{nvrtc.missing()}")


def implementations() -> Iterator[Implementation]:
    for operator in OPERATORS:
        yield from (each for each in load(operator).values() if each.backend == "cuda")


@needs_compiler
@pytest.mark.parametrize("arch", command.DTYPES)
@pytest.mark.parametrize("operator", OPERATORS)
def test_every_kernel_compiles_without_spills(operator: str, arch: str) -> None:
    for job in command.jobs(backends=("cuda",), operators=(operator,)):
        if job.arch != arch:
            continue
        found = job.compile()
        assert {each["arch"] for each in found} == {arch} or (arch == "sm_80" and "cluster" in job.implementation)
        for each in found:
            threads = int(re.findall(r"\d+", each["kernel"].partition("<")[2].replace(cuda.TYPES[job.dtype], ""))[0])
            threads = 128 if each["kernel"].startswith("warp_per_row") else threads
            assert 16 <= each["registers"] <= min(255, 65536 // threads), each
            assert each["shared_bytes"] <= cuda.SCRATCH, each
            assert each["spills"] == 0 or job.may_spill(), each


@pytest.mark.parametrize("arch", ["sm_80", "sm_89", "sm_90", "sm_100"])
def test_every_plan_uses_kernels_that_are_compiled_and_fits_the_gpu(arch: str) -> None:
    for implementation in implementations():
        for pass_ in implementation.passes:
            for dtype in implementation.dtypes:
                known = {launch.kernel for launch in cuda.every(implementation, pass_, dtype, arch)}
                for n in (1, 7, 32, 128, 1000, 1024, 1025, 4096, 8189, 16384, 28925, 57853, 115705, 1 << 20, 1 << 26):
                    axes = {"rows": 3, "n": n}
                    if implementation.refuses(pass_, axes, dtype):
                        continue
                    for head in (0, 1, None):
                        try:
                            launches = cuda.plan(implementation, pass_, axes, dtype, head, arch)
                        except ValueError as error:
                            assert arch in str(error) and (str(n) in str(error) or "clusters" in str(error))
                            assert arch in cuda.SHARED_LIMIT  # a GPU with less memory, or without clusters
                            continue
                        for launch in launches:
                            assert launch.kernel in known and launch.block <= 1024 and 1 <= launch.grid < 1 << 31
                            assert launch.shared + cuda.SCRATCH <= cuda.SHARED_LIMIT.get(arch, cuda.MOST_SHARED)


@needs_compiler
def test_machine_code_is_kept_by_what_it_depends_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ULPROOF_CACHE", str(tmp_path))
    source = "template <int N> __global__ void fill(float* y) { y[threadIdx.x] = N; }"
    first = nvrtc.compile(source, ["fill<1>", "fill<2>"], "sm_90")
    assert set(first.symbols) == set(first.usage) == {"fill<1>", "fill<2>"} and first.code.startswith(b"\x7fELF")
    with monkeypatch.context() as patch:
        patch.setattr(nvrtc, "core", lambda: pytest.fail("compiled again"))
        assert nvrtc.compile(source, ["fill<1>", "fill<2>"], "sm_90") == first
    assert nvrtc.compile(source, ["fill<1>"], "sm_90").code != first.code
    assert nvrtc.compile(source.replace("= N", "= -N"), ["fill<1>", "fill<2>"], "sm_90").code != first.code
    assert nvrtc.compile(source, ["fill<1>", "fill<2>"], "sm_80").code != first.code


@needs_compiler
def test_what_does_not_compile_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ULPROOF_CACHE", str(tmp_path))
    with pytest.raises(RuntimeError, match=r"does not compile for sm_90.*undeclared"):
        nvrtc.compile("__global__ void f(float* y) { *y = undeclared; }", ["f"], "sm_90")
    monkeypatch.setattr(cuda, "source", lambda: "nonsense")
    job = command.Job("softmax", "cuda/online", "forward", "float32", "sm_90")
    made = command.record(job, command.tried(job))
    assert made["status"] == "crashed" and "does not compile" in made["reason"] and problem(made) is None


def test_the_assemblers_report_is_read_whole() -> None:
    report = """ptxas info    : Compiling entry function '_Z1aPf' for 'sm_90'
ptxas         .     0 bytes stack frame, 24 bytes spill stores, 32 bytes spill loads
ptxas info    : Used 40 registers, used 1 barriers, 256 bytes smem
ptxas info    : Compiling entry function '_Z1bPf' for 'sm_90'
ptxas         .     0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 8 registers"""
    assert nvrtc.usage(report, {"a": "_Z1aPf", "b": "_Z1bPf"}) == {
        "a": {"registers": 40, "shared_bytes": 256, "spills": 24},
        "b": {"registers": 8, "shared_bytes": 0, "spills": 0},
    }
    with pytest.raises(RuntimeError, match="says nothing of c"):
        nvrtc.usage(report, {"c": "_Z1cPf"})


@needs_compiler
def test_the_command_prints_and_records_what_kernels_need(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    from ulproof.benchmarks.record import RunFolder, read

    RunFolder.create(tmp_path / "run", {"started": "2020-01-01T00:00:00Z", "environment": {}, "plan": {}}).close()
    assert command.main(["logsumexp", "--backend", "cuda", "--append", str(tmp_path / "run")]) == 0
    assert "24 of 24 compiled" in capsys.readouterr().out
    records = read(tmp_path / "run")[1]
    assert len(records) == 24 and all(
        (record["registers"] > 0 or record["target"] == "sm_80") and record["status"] == "ok" for record in records
    )
    assert command.main(["nothing"]) == 64
    assert "unknown operator 'nothing'" in capsys.readouterr().err


class AtOnce:
    """An executor that is none."""

    def __init__(self, *_: object, **__: object) -> None: ...
    def __enter__(self) -> AtOnce:
        return self

    def __exit__(self, *_: object) -> None: ...
    def map(self, function: Callable[[Any], Any], values: Iterable[Any]) -> Iterator[Any]:
        return map(function, values)


def test_a_kernel_that_spills_without_a_word_fails_the_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    needs = {"kernel": "k", "registers": 64, "shared_bytes": 0, "spills": 8, "compile_seconds": 0.5}
    monkeypatch.setattr("concurrent.futures.ProcessPoolExecutor", AtOnce)
    monkeypatch.setattr(command, "tried", lambda job: [needs | {"spills": 8 * (job.arch == "sm_90")}])
    monkeypatch.setattr(command, "keep", lambda records: None)
    assert command.main(["relu", "--backend", "cuda"]) == 1
    printed = capsys.readouterr()
    assert "6 of 6 compiled, 2 spilling without a reason" in printed.out
    assert "relu:cuda/fused forward bfloat16 sm_90 spills registers" in printed.err
    monkeypatch.setattr(command.Job, "may_spill", lambda job: True)
    assert command.main(["relu", "--backend", "cuda"]) == 0


def test_bad_arrays_get_one_clear_error() -> None:
    torch = pytest.importorskip("torch")
    implementation = load("softmax")["cuda/online"]

    def bind(x: object, y: object) -> None:
        cuda.bind(implementation, "forward", (x,), (y,), target="cuda:0", isa=None, threads=1, params={})

    with pytest.raises(TypeError, match="x must be a torch CUDA tensor, got ndarray"):
        bind(np.zeros((2, 3), np.float32), torch.zeros(2, 3))
    with pytest.raises(ValueError, match="x is on cpu, must be on cuda:0"):
        bind(torch.zeros(2, 3), torch.zeros(2, 3))
    with pytest.raises(ValueError, match="n = 50000 needs 200016 bytes of shared memory, a block on sm_80 has 165888"):
        cuda.plan(load("softmax")["cuda/block-per-row"], "forward", {"rows": 1, "n": 50000}, "float32", None, "sm_80")

"""pytest-benchmark drives the same cases: times, errors and rates in one file, and rows that say what is absent."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ulproof.impls._backends import probe


@pytest.fixture(scope="module")
def driven(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, dict], str]:
    """Results by row, and what was printed, of the shortest rows of logsumexp in NumPy and CUDA."""
    root = Path(__file__).resolve().parent.parent
    folder = tmp_path_factory.mktemp("benchmark")
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "no:xdist", "--rootdir", str(root)]
    command += ["-c", str(root / "pyproject.toml"), str(root / "benchmarks"), "-k", "logsumexp and 1x1024 and (numpy or cuda/)"]
    command += [f"--benchmark-json={folder / 'results.json'}", f"--benchmark-storage={folder}"]
    command += ["--benchmark-max-time=0.01", "--benchmark-min-rounds=2"]
    # pytest-benchmark times nothing in what it takes for a worker of xdist.
    env = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300, env=env)
    assert done.returncode == 0, done.stdout + done.stderr
    results = json.loads((folder / "results.json").read_text())["benchmarks"]
    return {result["params"]["dtype"] + " " + result["params"]["pass_"]: result for result in results}, done.stdout


def test_every_dtype_and_pass_is_timed(driven: tuple[dict[str, dict], str]) -> None:
    results, _ = driven
    assert {"float32 forward", "float32 backward", "bfloat16 forward", "bfloat16 backward"} <= set(results)


def test_the_error_and_the_rate_stand_beside_the_time(driven: tuple[dict[str, dict], str]) -> None:
    result = driven[0]["float32 forward"]
    assert result["group"] == "logsumexp forward float32 1x1024"
    extra = result["extra_info"]
    assert extra["implementation"] == "logsumexp:numpy/three-pass"
    assert extra["axes"] == {"rows": 1, "n": 1024}
    assert extra["bytes"] == 4 * 1024 + 4
    assert 0 <= extra["max_ulp"] < 4
    assert extra["gigabytes_per_second"] == pytest.approx(extra["bytes"] / result["stats"]["median"] / 1e9)


@pytest.mark.skipif(bool(probe.gpus()), reason="an NVIDIA GPU is here")
def test_an_absent_gpu_is_named(driven: tuple[dict[str, dict], str]) -> None:
    assert "logsumexp:cuda/block-per-row on cuda:0: no NVIDIA GPU or driver here" in driven[1]

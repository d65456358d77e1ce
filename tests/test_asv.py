"""ASV can import everything below benchmarks/ against any commit, and finds exactly the benchmarks that are meant.

ASV imports each module there from the working tree, while the package comes from the commit under test.
"""

from __future__ import annotations

import ast
import json
import math
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ulproof.benchmarks.cases import CASES

BENCHMARK = re.compile(r"(?i)^(time|timeraw|track|mem|peakmem)_")
MEANT = {"time_forward", "time_backward", "track_seconds_per_gigabyte", "track_max_ulp"}


def modules(root: Path) -> list[Path]:
    return sorted((root / "benchmarks").rglob("*.py"))


def at_import_time(tree: ast.AST) -> Iterator[ast.Import | ast.ImportFrom]:
    """Import statements that run when the module is imported: not in functions, nor for type checkers alone."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield node
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        elif not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield from at_import_time(node)


def imported(node: ast.Import | ast.ImportFrom) -> set[str]:
    """Absolute names that an import statement names; none for a relative import."""
    if isinstance(node, ast.Import):
        return {alias.name for alias in node.names}
    return {node.module or ""} if node.level == 0 else set()


def test_only_numpy_and_the_standard_library_at_import_time(root: Path) -> None:
    allowed = {*sys.stdlib_module_names, "numpy"}
    wrong = [
        f"{path.relative_to(root)}:{node.lineno} imports {name}"
        for path in modules(root)
        for node in at_import_time(ast.parse(path.read_text()))
        for name in imported(node)
        if name.partition(".")[0] not in allowed
    ]
    assert not wrong


def test_modules_import_each_other_relatively(root: Path) -> None:
    """The absolute name would be the commit's own copy, or nothing at all."""
    wrong = [
        f"{path.relative_to(root)}:{node.lineno} imports {name}"
        for path in modules(root)
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in imported(node)
        if name.startswith(("ulproof.benchmarks", "benchmarks", "impls", "reports"))
    ]
    assert not wrong


def test_no_relative_import_leaves_the_folder(root: Path) -> None:
    """Inside ASV the top-level package is ``benchmarks``, and nothing lies above it."""
    wrong = [
        f"{path.relative_to(root)}:{node.lineno}"
        for path in modules(root)
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom) and node.level >= len(path.relative_to(root).parts)
    ]
    assert not wrong


def test_nothing_is_taken_for_a_benchmark_by_its_name(root: Path) -> None:
    found = {
        (path.name, node.name)
        for path in modules(root)
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and BENCHMARK.match(node.name)
    }
    assert found == {("bench_operators.py", name) for name in MEANT}


def test_discovery_needs_neither_the_package_nor_any_toolchain(root: Path, python: Callable[..., str]) -> None:
    """ASV's own discovery, with everything but NumPy and the standard library out of reach."""
    printed = python(
        "import json, sys\n"
        "class Refuse:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.partition('.')[0] not in {*sys.stdlib_module_names, 'numpy', 'benchmarks', 'asv_runner'}:\n"
        "            raise ImportError(f'{name} must not be needed')\n"
        "from asv_runner.discovery import disc_benchmarks\n"
        "sys.path.insert(0, sys.argv[1])\n"
        "sys.meta_path.insert(0, Refuse())\n"
        "found = disc_benchmarks('benchmarks')\n"
        "print(json.dumps([[b.name, b.type, b.version, [p for p in b.params]] for b in found]))\n",
        str(root),
    )
    rows = json.loads(printed)
    assert {name.split(".")[0] for name, *_ in rows} == {"bench_operators"}
    assert {name.split(".")[-1] for name, *_ in rows} == MEANT
    assert {version for *_, version, _ in rows} == {"1"}
    assert sum(math.prod(map(len, params)) for *_, params in rows) < 50 * len(CASES), "every row is a process of its own"


def test_rows_that_cannot_run_are_skipped_and_say_why() -> None:
    from ulproof.benchmarks.workload import Absent, ready
    from ulproof.impls._backends import probe

    with pytest.raises(Absent, match="has no softmax:simd/of-tomorrow"):
        ready("softmax:simd/of-tomorrow", "cpu", "1x64")
    with pytest.raises(Absent, match="has no of_tomorrow:simd/auto"):
        ready("of_tomorrow:simd/auto", "cpu", "1x64")
    if not probe.gpus():
        with pytest.raises(Absent, match="GPU"):
            ready("softmax:cuda/block-per-row", "cuda:0", "1x64")


@pytest.mark.parametrize("pass_", ["forward", "backward"])
@pytest.mark.parametrize("operator", ["softmax", "log_softmax", "logsumexp"])
def test_a_workload_writes_its_outputs_and_knows_its_error(operator: str, pass_: str) -> None:
    from ulproof.benchmarks.workload import ready

    workload = ready(f"{operator}:numpy/three-pass", "cpu", "3x100", "float32", pass_)
    error = workload.max_ulp()
    assert 0 < error < 100
    for output in workload.outputs():
        output[0] += output[0] / 100
    again = workload.max_ulp()
    assert again == error, "each judgement calls afresh"


def test_asv_check_accepts_the_suite(root: Path, tmp_path: Path) -> None:
    """``asv check`` against the installed package, in a copy so that nothing is written into the checkout."""
    copy = tmp_path / "repository"
    copy.mkdir()
    shutil.copytree(root / "benchmarks", copy / "benchmarks", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(root / "asv.conf.json", copy)
    for command in (["init", "-q"], ["add", "."], ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "all"]):
        subprocess.run(["git", *command], cwd=copy, check=True)
    command = [sys.executable, "-m", "asv", "check", "-E", f"existing:{sys.executable}"]
    done = subprocess.run(command, cwd=copy, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "No problems found" in done.stdout


def test_rows_in_asvs_own_runner(root: Path, python: Callable[..., str]) -> None:
    """Seconds are of one call, however many share a sample; a row that can't run is skipped rather than failed."""
    printed = python(
        "import json, sys, types\n"
        "sys.path.insert(0, sys.argv[1])\n"
        "from asv_runner.discovery import get_benchmark_from_name\n"
        "import benchmarks.bench_operators as module\n"
        "from benchmarks.workload import Absent, Workload\n"
        "now = [0.0]\n"
        "def call(): now[0] += 0.25\n"
        "def ready(name, *rest):\n"
        "    if 'simd' in name: raise Absent(name)\n"
        "    return Workload(call, tuple, {}, 500_000_000, (), None, '', 'float32')\n"
        "module.ready = ready\n"
        "module.time = types.SimpleNamespace(perf_counter=lambda: now[0])\n"
        "implementations, _, _, shapes = module.SoftmaxCpu.params\n"
        "for method in ('time_forward', 'track_seconds_per_gigabyte'):\n"
        "    for name in ('softmax:simd/auto', 'softmax:numpy/three-pass'):\n"
        "        index = implementations.index(name) * len(shapes) + shapes.index('1x65536')\n"
        "        found = get_benchmark_from_name('benchmarks', f'bench_operators.SoftmaxCpu.{method}-{index}')\n"
        "        print(json.dumps('skipped' if found.do_setup() else found.do_run()['samples']))\n",
        str(root),
    )
    assert "asv: skipped: Absent('softmax:simd/auto')" in printed
    lines = [line for line in printed.splitlines() if not line.startswith("asv: ")]
    absent, seconds, also_absent, per_gigabyte = map(json.loads, lines)
    assert absent == also_absent == "skipped"
    assert set(seconds) == {0.25} and len(seconds) >= 3
    assert set(per_gigabyte) == {0.5}

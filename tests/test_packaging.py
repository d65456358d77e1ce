"""What a wheel holds, and what a build says when something is missing."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("impls", "benchmarks", "reports")
SOURCES = (".cpp", ".h")
DATA = (".cu", ".cuh", ".html", ".css", ".js", ".json")

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("scikit_build_core") is None, reason="scikit-build-core is not installed"
)


def build(source: Path, hook: str, into: Path, defines: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Run one hook of the build backend in its own process, where no compiler is named that exists."""
    settings = {f"cmake.define.{name}": value for name, value in defines.items()}
    code = f"from scikit_build_core import build; print(build.{hook}({str(into)!r}, {settings!r}))"
    environment = {**os.environ, "CMAKE_COLOR_DIAGNOSTICS": "OFF"}
    if defines.get("ULPROOF_SIMD") == "OFF":
        environment |= {"CC": "/nonexistent", "CXX": "/nonexistent"}
    return subprocess.run([sys.executable, "-c", code], cwd=source, env=environment, capture_output=True, text=True)


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the sources with one more file of every kind."""
    copy = tmp_path_factory.mktemp("checkout")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    for folder in FOLDERS:
        shutil.copytree(ROOT / folder, copy / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for suffix in (*SOURCES, *DATA):
        (copy / "impls" / "softmax" / f"planted{suffix}").touch()
    return copy


@pytest.fixture(scope="module")
def wheel(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """Names in a wheel that was built from the source distribution, without any compiler."""
    into = tmp_path_factory.mktemp("dist")
    done = build(checkout, "build_sdist", into, {})
    assert done.returncode == 0, done.stderr
    shutil.unpack_archive(next(into.glob("*.tar.gz")), into / "unpacked", filter="data")
    done = build(next((into / "unpacked").iterdir()), "build_wheel", into, {"ULPROOF_SIMD": "OFF"})
    assert done.returncode == 0, done.stdout + done.stderr
    with zipfile.ZipFile(next(into.glob("*.whl"))) as archive:
        return set(archive.namelist())


def test_wheel_claims_one_name(wheel: set[str]) -> None:
    assert {name.partition("/")[0] for name in wheel if ".dist-info/" not in name} == {"ulproof"}


def test_wheel_holds_every_module_and_data_file(checkout: Path, wheel: set[str]) -> None:
    kept = {
        f"ulproof/{path.relative_to(checkout).as_posix()}"
        for folder in FOLDERS
        for path in (checkout / folder).rglob("*")
        if path.suffix in (".py", ".typed", *DATA)
    }
    assert {f"ulproof/impls/softmax/planted{suffix}" for suffix in DATA} < kept
    assert kept | {"ulproof/__init__.py"} == {name for name in wheel if name.startswith("ulproof/")}


def test_wheel_holds_no_native_source(wheel: set[str]) -> None:
    assert not [name for name in wheel if name.endswith((".cpp", ".h", "CMakeLists.txt"))]


@pytest.mark.skipif(shutil.which("c++") is None, reason="no C++ compiler here")
@pytest.mark.skipif(importlib.util.find_spec("nanobind") is None, reason="nanobind is not installed")
def test_a_build_without_highway_says_what_to_install(checkout: Path, tmp_path: Path) -> None:
    defines = {"CMAKE_DISABLE_FIND_PACKAGE_hwy": "ON", "ULPROOF_FETCH_HIGHWAY": "OFF"}
    done = build(checkout, "build_wheel", tmp_path, defines)
    said = " ".join((done.stdout + done.stderr).split())
    assert done.returncode != 0
    assert said.count("CMake Error") == 1
    assert "apt-get install libhwy-dev" in said
    assert "ULPROOF_SIMD=OFF" in said

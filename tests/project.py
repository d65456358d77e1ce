"""A small git project to compare builds of: this checkout's ``impls`` without native code, which builds in seconds."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

PYPROJECT = """\
[build-system]
requires = ["scikit-build-core"]
build-backend = "scikit_build_core.build"

[project]
name = "ulproof"
version = "0.1.0"

[tool.scikit-build]
cmake.source-dir = "impls"

[tool.scikit-build.wheel.packages]
"ulproof/impls" = "impls"
"""
CMAKE = """\
cmake_minimum_required(VERSION 3.24)
option(ULPROOF_SIMD "" ON)
project(ulproof LANGUAGES NONE)
"""
NATIVE = shutil.ignore_patterns("*.cpp", "*.h", "*.so", "__pycache__", "CMakeLists.txt")
AUTHOR = ["-c", "user.name=test", "-c", "user.email=test@example.org", "-c", "commit.gpgsign=false"]


class Project:
    """A repository at ``root`` whose first commit is tagged ``start``."""

    def __init__(self, root: Path, checkout: Path) -> None:
        self.root = root
        shutil.copytree(checkout / "impls", root / "impls", ignore=NATIVE)
        (root / "impls" / "CMakeLists.txt").write_text(CMAKE)
        (root / "pyproject.toml").write_text(PYPROJECT)
        (root / ".gitignore").write_text("__pycache__/\nruns/\n")
        self.git("init", "--quiet", "--initial-branch=main")
        self.commit("start")
        self.git("tag", "start")

    def git(self, *command: str) -> str:
        hidden = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
        done = subprocess.run(
            ["git", *AUTHOR, *command], cwd=self.root, capture_output=True, text=True, env={**os.environ, **hidden}
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def commit(self, message: str) -> str:
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "-m", message)
        return self.git("rev-parse", "HEAD")

    def edit(self, path: str, change: Callable[[str], str]) -> None:
        """Change a file; it must really change."""
        file = self.root / path
        before = file.read_text()
        after = change(before)
        assert after != before, f"{path} has nothing to change"
        file.write_text(after)

    def variant(self, name: str, path: str, change: Callable[[str], str]) -> str:
        """A branch off ``start`` with one file changed; returns its name. The working tree ends where it began."""
        self.git("checkout", "--quiet", "-b", name, "start")
        self.edit(path, change)
        self.commit(name)
        self.git("checkout", "--quiet", "main")
        return name

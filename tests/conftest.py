"""What every test may rely on: the repository's root, and a fresh interpreter to look at what an import drags in."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def root() -> Path:
    """The checkout that the tests lie in."""
    return Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def python() -> Callable[..., str]:
    """Run code in an interpreter of its own, arguments in ``sys.argv``; returns what it printed and fails if it fails."""

    def run(code: str, *arguments: str, cwd: Path | None = None) -> str:
        command = [sys.executable, "-c", code, *arguments]
        done = subprocess.run(command, capture_output=True, text=True, cwd=cwd, timeout=120)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run

"""``ulproof`` with sides that are built by copying: `python fake_sides.py compare ...`, for tests of what may go wrong.

Two restarts settle a workload, whatever they say, so that no outcome depends on how busy the machine is. ``FAKE_MEMORY`` is how
many bytes a worker may take; with ``FAKE_BUILD=real`` sides are built as they always are.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import Any

from ulproof.benchmarks import builds, cli, compare, supervise
from ulproof.benchmarks.measure import environment, verdict


def install(source: Any, checked_out: Path, prefix: Path, draft: Path, place: Path) -> None:
    shutil.copytree(checked_out / "impls", prefix / "ulproof" / "impls")


if __name__ == "__main__":
    verdict.FIRST = compare.FIRST = 2
    verdict.Trial.settled = property(lambda trial: trial.ratio is not None)  # type: ignore[method-assign, assignment]
    if os.environ.get("FAKE_BUILD") != "real":
        builds._install = install
    if "FAKE_MEMORY" in os.environ:
        supervise.SHARE = int(os.environ["FAKE_MEMORY"]) / environment.memory()["available"]
    sys.exit(cli.main())

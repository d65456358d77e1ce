"""What compiling for a GPU that is not there shares: the architectures, and a cache of what was compiled."""

from __future__ import annotations

import os
from pathlib import Path

ARCHITECTURES = ("sm_80", "sm_90", "sm_100")


def cache_folder() -> Path:
    root = os.environ.get("ULPROOF_CACHE")
    return Path(root) if root else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ulproof"

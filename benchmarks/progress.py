"""Where a run stands, on standard error: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from typing import Any


class Progress:
    """Says nothing: for callers that show a run in their own way."""

    def begin(self, what: str, total: int) -> None: ...

    def step(self, what: str) -> None: ...

    def end(self) -> None: ...


class Lines(Progress):
    """A line when a stage begins and ends, and one every few seconds between."""

    EVERY = 5.0  # seconds

    def begin(self, what: str, total: int) -> None:
        self.what, self.total, self.done = what, total, 0
        self.begun = self.last = time.monotonic()
        print(f"{what}: {total}", file=sys.stderr, flush=True)

    def step(self, what: str) -> None:
        self.done += 1
        if time.monotonic() - self.last >= self.EVERY:
            self.last = time.monotonic()
            print(f"{self.what}: {self.done}/{self.total} {what}", file=sys.stderr, flush=True)

    def end(self) -> None:
        print(f"{self.what}: done in {time.monotonic() - self.begun:.0f} s", file=sys.stderr, flush=True)


class Bar(Progress):
    """One bar a stage, gone when it ends."""

    def begin(self, what: str, total: int) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
        from rich.progress import Progress as Rich

        columns = (TextColumn(what), BarColumn(30), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.description}"))
        # Twice a second: the bar must not disturb what is being measured.
        self.bar: Any = Rich(*columns, console=Console(stderr=True), transient=True, refresh_per_second=2)
        self.task = self.bar.add_task("", total=total)
        self.bar.start()

    def step(self, what: str) -> None:
        self.bar.update(self.task, advance=1, description=what)

    def end(self) -> None:
        self.bar.stop()


def progress() -> Progress:
    return Bar() if sys.stderr.isatty() else Lines()

"""Keeps a worker process at work, and says what became of it: a crash, a hang, or more memory than there is."""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from threading import Event
from typing import Any

from .measure import environment
from .worker import PULSE, Pulse

COMMAND = (sys.executable, "-P", "-m", "ulproof.benchmarks.worker")  # -P: nothing in the current folder is imported
WATCH = 0.2  # seconds between two looks at a worker
STARTING = 120.0  # seconds that a process may take to begin its first job: it imports torch on a busy machine
SHARE = 0.9  # of the memory that is free when a worker starts, for it to take
Answer = dict[str, Any]


class Died(Exception):
    """A worker is gone. ``status`` and ``reason`` go into the row of ``side``, whose turn it was."""

    def __init__(self, status: str, side: str, reason: str) -> None:
        super().__init__(reason)
        self.status, self.side, self.reason = status, side, reason


class Stopped(Exception):
    """Whoever waited for a worker was told to stop; the worker is killed."""


@dataclass(frozen=True)
class Setting:
    """What a worker process is started with; workloads of one setting may share a process."""

    cores: tuple[int, ...]
    threads: int = 1
    isa: str | None = None
    torch: bool = False
    interpreter: bool = False

    def environment(self) -> dict[str, str]:
        names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
        found = {**os.environ, **dict.fromkeys(names, str(self.threads))}
        for name in ("ATEN_CPU_CAPABILITY", "TRITON_INTERPRET"):
            found.pop(name, None)
        if self.torch and self.isa in ("avx2", "avx512"):
            found["ATEN_CPU_CAPABILITY"] = self.isa
        if self.interpreter:
            found["TRITON_INTERPRET"] = "1"
        return found


def pinned(cores: Sequence[int], command: Sequence[str], **options: Any) -> subprocess.Popen[bytes]:
    """Start a process that may run on these cores only, from its first instruction on."""
    if not hasattr(os, "sched_setaffinity"):
        return subprocess.Popen(command, **options)
    mine = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        return subprocess.Popen(command, **options)
    finally:
        os.sched_setaffinity(0, mine)


class Worker:
    """A worker process. ``ask`` starts it when there is none; ``close`` ends it. ``stop``, set by another thread, ends the
    waiting for an answer."""

    def __init__(self, setting: Setting, stop: Event | None = None) -> None:
        self.setting, self.stop = setting, stop
        self.limit = int(SHARE * environment.memory()["available"])
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self._shared = tempfile.TemporaryFile()  # noqa: SIM115 - closed by close()
        self._shared.truncate(PULSE)
        self.pulse = Pulse(self._shared.fileno())
        self._noise = tempfile.TemporaryFile()  # noqa: SIM115 - closed by close()
        jobs, self._jobs = os.pipe()
        self._answers, answers = os.pipe()
        theirs = (jobs, answers, self._shared.fileno())
        self.process = pinned(
            self.setting.cores,
            [*COMMAND, *map(str, theirs)],
            env=self.setting.environment(),
            pass_fds=theirs,
            stdin=subprocess.DEVNULL,
            stdout=self._noise,
            stderr=self._noise,
        )
        os.close(jobs)
        os.close(answers)
        self._rest = b""

    def ask(self, job: Mapping[str, Any], patience: float) -> Generator[Answer, None, None]:
        """Yield a job's answers. Raises ``Stopped`` when told to, and ``Died`` when the worker crashes, takes too much memory,
        or shows no sign of life for ``patience`` seconds; it is then gone, and the next ``ask`` starts another."""
        if self.process is None:
            self.start()
        assert self.process is not None
        try:
            os.write(self._jobs, json.dumps(job).encode() + b"\n")
        except BrokenPipeError:
            raise self._died() from None
        beats, alive = -1, time.monotonic()
        with selectors.DefaultSelector() as selector:
            selector.register(self._answers, selectors.EVENT_READ)
            while True:
                if self.stop and self.stop.is_set():
                    self.process.kill()
                    raise Stopped
                if selector.select(WATCH):
                    if not (read := os.read(self._answers, 1 << 20)):
                        raise self._died()
                    *lines, self._rest = (self._rest + read).split(b"\n")
                    for line in lines:
                        answer = json.loads(line)
                        if answer.get("done"):
                            return
                        yield answer
                    alive = time.monotonic()
                if (resident := self.resident()) > self.limit:
                    what = f"out of memory: {resident / 2**30:.1f} GiB taken, {self.limit / 2**30:.1f} GiB allowed"
                    raise self._died("crashed", what)
                if (count := self.pulse.read()[0]) != beats:
                    beats, alive = count, time.monotonic()
                elif time.monotonic() - alive > (patience if beats else max(patience, STARTING)):
                    raise self._died("timeout", f"no result within {patience:.0f} s")

    def resident(self) -> int:
        """Bytes of memory that the worker holds."""
        assert self.process is not None
        fields = environment.read(f"/proc/{self.process.pid}/statm").split()
        return int(fields[1]) * os.sysconf("SC_PAGESIZE") if len(fields) > 1 else 0

    def _died(self, status: str = "crashed", reason: str | None = None) -> Died:
        assert self.process is not None
        side = self.pulse.read()[1]
        if reason:
            self.process.kill()
        code = self.process.wait()
        if reason is None:
            reason = f"the process ended with {named(code)}"
            if code == -signal.SIGKILL:
                reason += ", most likely for lack of memory"
            elif said := self.last_words():
                reason += f": {said}"
        self.close()
        return Died(status, side, reason)

    def last_words(self) -> str:
        """The last line that the worker printed."""
        self._noise.seek(max(0, self._noise.seek(0, os.SEEK_END) - 4096))
        lines = self._noise.read().decode(errors="replace").split("\n")
        return next((line.strip()[:300] for line in reversed(lines) if line.strip()), "")

    def close(self) -> None:
        """End the process; its jobs' pipe is closed first, so that an idle one leaves by itself."""
        if self.process is None:
            return
        os.close(self._jobs)
        try:
            self.process.wait(2)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        os.close(self._answers)
        self._shared.close()
        self._noise.close()
        self.process = None


def named(code: int) -> str:
    """A process's exit status in words."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"

"""Compile every Triton and CUDA kernel to machine code, for GPUs that need not be here.

``python -m ulproof.benchmarks.compile`` takes one dtype for each architecture, or everything with ``--all``. It prints what
each kernel needs of a GPU, and keeps it: the runs to come have it in their reports, and so has a run folder that ``--append``
names. Exit code 1 when a kernel does not compile, or spills registers and its implementation's note says nothing of it.
Nothing is compiled twice: see ``ULPROOF_CACHE``.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from .record import Record, RunError, RunFolder, key, problem

DTYPES = {"sm_80": "float16", "sm_90": "bfloat16", "sm_100": "float32"}  # of the short list
BACKENDS = ("cuda", "triton")
COMPILERS = ("triton", "cuda-core", "cuda-bindings", "nvidia-cuda-nvrtc", "nvidia-cuda-nvrtc-cu12")


@dataclass(frozen=True)
class Job:
    """All kernels of one pass of one implementation, for one dtype and architecture."""

    operator: str
    implementation: str
    pass_: str
    dtype: str
    arch: str

    def compile(self) -> list[dict[str, Any]]:
        from ulproof.impls import load

        implementation = load(self.operator)[self.implementation]
        return implementation.code().compiled(implementation, self.pass_, self.dtype, self.arch)

    def may_spill(self) -> bool:
        from ulproof.impls import load

        return "spill" in load(self.operator)[self.implementation].note

    def __str__(self) -> str:
        return f"{self.operator}:{self.implementation} {self.pass_} {self.dtype} {self.arch}"


def jobs(everything: bool = False, backends: Sequence[str] = BACKENDS, operators: Iterable[str] = ()) -> Iterator[Job]:
    from ulproof.impls import load
    from ulproof.impls import operators as known

    for operator in operators or known():
        for implementation in load(operator).values():
            for arch, short in DTYPES.items() if implementation.backend in backends else ():
                for dtype in implementation.dtypes if everything else (short,):
                    for pass_ in implementation.passes:
                        yield Job(operator, implementation.name, pass_, dtype, arch)


def tried(job: Job) -> list[dict[str, Any]] | str:
    """What the job's kernels need, or why they don't compile."""
    try:
        return job.compile()
    except Exception as error:  # whatever a compiler raises costs its own rows and nothing else
        return f"{type(error).__name__}: {error}"


def record(job: Job, found: list[dict[str, Any]] | str) -> Record:
    """One record for the job: the most that any of its kernels needs, and the seconds of all."""
    backend, _, variant = job.implementation.partition("/")
    made = {
        "kind": "compile",
        "status": "ok",
        "operator": job.operator,
        "implementation": job.implementation,
        "backend": backend,
        "variant": variant,
        "target": job.arch,
        "dtype": job.dtype,
        "pass": job.pass_,
    }
    if isinstance(found, str):
        return {**made, "status": "crashed", "reason": " ".join(found.split())}
    needs = {name: max((each[name] for each in found), default=0) for name in ("registers", "shared_bytes", "spills")}
    return {**made, **needs, "compile_seconds": sum(each["compile_seconds"] for each in found)}


def _place(operator: str) -> Path:
    """Where the records of an operator's kernels are kept: a file for these sources and these compilers."""
    from ulproof.impls import operators
    from ulproof.impls._backends import __name__ as backends
    from ulproof.impls._backends.cubin import cache_folder

    folders = [Path(str(spec.origin)).parent for spec in map(find_spec, (operators()[operator].package, backends)) if spec]
    made_of = [file for folder in folders for file in sorted(folder.iterdir()) if file.suffix in (".py", ".cu", ".h")]
    found = hashlib.sha256(operator.encode())
    for file in made_of:
        found.update(file.name.encode() + b"\0" + file.read_bytes())
    for name in COMPILERS:
        with suppress(PackageNotFoundError):
            found.update(f"{name} {version(name)}".encode())
    return cache_folder() / "records" / f"{found.hexdigest()}.json"


def keep(records: Iterable[Record]) -> None:
    """Remember what was compiled, beside what was compiled before of the same sources."""
    by_operator: dict[str, list[Record]] = {}
    for each in records:
        by_operator.setdefault(each["operator"], []).append(each)
    for operator, found in by_operator.items():
        place = _place(operator)
        known = {key(each): each for each in (*kept(operator), *found)}
        place.parent.mkdir(parents=True, exist_ok=True)
        draft = place.with_suffix(f".{os.getpid()}")
        draft.write_text(json.dumps(list(known.values())))
        draft.replace(place)


def kept(operator: str) -> list[Record]:
    """The records of an operator's kernels as they were last compiled, if neither sources nor compilers changed since."""
    try:
        found = json.loads(_place(operator).read_text())
    except (OSError, ValueError):
        return []
    return [each for each in found if problem(each) is None]


def line(*columns: Any) -> str:
    implementation, kernel, dtype, arch, registers, shared, spills, seconds = columns
    return f"{implementation:<36} {kernel:<58} {dtype:<9} {arch:<7} {registers:>9} {shared:>7} {spills:>6} {seconds:>8}"


def described(kernel: dict[str, Any]) -> str:
    constants = " ".join(f"{name}={value}" for name, value in kernel.get("constants", {}).items())
    return f"{kernel['kernel']} {constants}".strip()


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m ulproof.benchmarks.compile", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("operators", nargs="*", metavar="OP", help="operators; all of them by default")
    parser.add_argument("--all", action="store_true", help="every dtype for every architecture")
    parser.add_argument("--backend", choices=BACKENDS, action="append", help="cuda or triton; both by default")
    parser.add_argument("--append", metavar="RUN", help="add records of kind 'compile' to this run folder")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes, one per core by default")
    options = parser.parse_args(arguments)
    os.environ.pop("TRITON_INTERPRET", None)  # a process interprets or compiles

    from concurrent.futures import ProcessPoolExecutor
    from multiprocessing import get_context

    try:
        listed = list(jobs(options.all, options.backend or BACKENDS, options.operators))
        folder = RunFolder.resume(options.append) if options.append else None
    except (ValueError, RunError) as error:
        print(f"ulproof: {error}", file=sys.stderr)
        return 64
    failed, spilling, made = 0, 0, []
    print(line("implementation", "kernel", "dtype", "arch", "registers", "shared", "spills", "seconds"))
    with ProcessPoolExecutor(options.jobs, mp_context=get_context("spawn")) as pool:
        for job, found in zip(listed, pool.map(tried, listed), strict=True):
            name = f"{job.operator}:{job.implementation}"
            if isinstance(found, str):
                failed += 1
                print(f"{job} does not compile: {found}", file=sys.stderr)
            else:
                for each in found:
                    needs = (each["registers"], each["shared_bytes"], each["spills"], f"{each['compile_seconds']:.2f}")
                    print(line(name, described(each), job.dtype, job.arch, *needs), flush=True)
                if any(each["spills"] for each in found) and not job.may_spill():
                    spilling += 1
                    print(f"{job} spills registers, and its note says nothing of it", file=sys.stderr)
            made.append(record(job, found))
            if folder:
                folder.append(made[-1])
    keep(each for each in made if each["status"] == "ok")
    if folder:
        folder.close()
    print(f"{len(listed) - failed} of {len(listed)} compiled, {spilling or 'none'} spilling without a reason")
    return 1 if failed or spilling else 0


if __name__ == "__main__":
    sys.exit(main())

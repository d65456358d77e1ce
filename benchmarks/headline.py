"""The figures that the README quotes, measured: ``python -m ulproof.benchmarks.headline [PART...]``.

Each is a ratio of medians that took turns in one process on one core (all cores for the threaded part), both sides on the
same input and into the same preallocated, touched output. torch's instruction set is that of its process, so every
instruction set is a part of its own, measured in its own process.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from .measure import caches, ceilings
from .measure.sampling import Effort, hot, settled, take_turns

AUTO, TORCH, TWO_PASS = "simd/auto", "peer/torch-eager", "simd/two-pass"
BASELINES = ("simd/three-pass-recompute", "simd/three-pass-reload")
TORCH_TARGETS = {"avx512": {1 << 16: 3.0, 1 << 20: 2.5, 1 << 24: 2.2}, "avx2": {1 << 16: 2.4, 1 << 20: 2.2, 1 << 24: 1.8}}
GAIN_TARGETS = {"avx512": 1.35, "avx2": 1.12}
FLOOR_TARGETS = {"avx512": 1.05, "avx2": 1.65}
PAPER = {"avx512": 1.28, "avx2": 1.18}
BATCHES = ((4096, 16), (4096, 64), (4096, 128), (32, 1000), (1024, 1024), (4096, 1024), (512, 8192), (16, 1 << 18))
OPERATORS = ("softmax", "log_softmax", "logsumexp")
FAMILY = (
    *((1, 1 << power) for power in range(4, 27, 2)),
    *((1, n) for n in (32, 100, 1000, 1 << 15)),
    *BATCHES,
    *((4096, n) for n in (32, 100, 256, 512)),
    (16384, 64),
)


@dataclass(frozen=True)
class Figure:
    """One line of the table. ``least`` says whether the target is the least (a ratio) or the most (a cost)."""

    part: str
    what: str
    value: float
    target: float | None = None
    least: bool = True
    note: str = ""

    @property
    def met(self) -> bool | None:
        if self.target is None:
            return None
        return self.value >= self.target if self.least else self.value <= self.target

    def line(self) -> str:
        limit = "" if self.target is None else f"{'>=' if self.least else '<='} {self.target:g}"
        verdict = {None: "", True: "met", False: "missed"}[self.met]
        return f"{self.part:8} {self.what:58} {self.value:8.3f}  {limit:9} {verdict:7} {self.note}".rstrip()


def draw(rows: int, n: int) -> tuple[np.ndarray, np.ndarray]:
    """N(0, 10) scores and an output, both touched, each on a page boundary."""
    x, y = (ceilings.memory(4 * rows * n + ceilings.PAGE)[: rows * n].reshape(rows, n) for _ in range(2))
    x[...] = 10 * np.random.default_rng(n).standard_normal((rows, n), dtype=np.float32)
    return x, y


def medians(sides: Mapping[str, Callable[[], Any]], seconds: float) -> dict[str, float]:
    taken = take_turns({name: settled(hot(call)) for name, call in sides.items()}, Effort(seconds, precision=0.002))
    return {name: each["median"] for name, each in taken.items()}


def bind(names: tuple[str, ...], rows: int, n: int, isa: str, threads: int = 1) -> dict[str, Callable[[], None]]:
    from ulproof.impls import load

    x, y = draw(rows, n)
    return {name: load("softmax")[name].bind((x,), (y,), isa=isa, threads=threads) for name in names}


def against_torch(isa: str, seconds: float) -> Iterator[Figure]:
    kernels, source, sweeps = ceilings.native(), ceilings.memory(ceilings.L1_PART), 64
    exp = medians({"exp": kernels.bind("exp-float32", isa, None, source, 1, sweeps)}, seconds / 4)["exp"]
    each = exp / sweeps / kernels.work("exp-float32", source.nbytes)
    yield Figure(isa, "ns of an exponential alone, in L1", 1e9 * each)
    for n, target in TORCH_TARGETS[isa].items():
        taken = medians(bind((AUTO, TORCH), 1, n, isa), 2 * seconds)
        note = f"auto {taken[AUTO] / n * 1e9:.3f} ns an element"
        yield Figure(isa, f"torch / auto, one row of {n:,}", taken[TORCH] / taken[AUTO], target, note=note)
    shapes = [(1, 1 << power) for power in range(4, 27)] + [(1, 100), (1, 1000), *BATCHES]
    ratios = {}
    for rows, n in shapes:
        taken = medians(bind((AUTO, TORCH), rows, n, isa), seconds / 2)
        ratios[rows, n] = taken[TORCH] / taken[AUTO]
    (rows, n), worst = min(ratios.items(), key=lambda item: item[1])
    yield Figure(isa, f"torch / auto, the worst of {len(ratios)} shapes", worst, 1.0, note=f"{rows} x {n}")


def against_three_passes(isa: str, seconds: float) -> Iterator[Figure]:
    n = max(1 << 25, 4 * caches.sizes()["L3"] // 4)
    for suffix, label, target in (
        ("", "plain", None),
        ("-stream", "streaming", None),
        ("-as-published", "published", PAPER[isa]),
    ):
        sides = tuple(name + suffix for name in (TWO_PASS, *BASELINES))
        taken = medians(bind(sides, 1, n, isa), 3 * seconds)
        best = min(sides[1:], key=lambda name: taken[name])
        aim = target if label == "published" else GAIN_TARGETS[isa]
        note = f"best: {best.removeprefix('simd/')}"
        yield Figure(isa, f"three-pass / two-pass, {label} stores, {n:,}", taken[best] / taken[sides[0]], aim, note=note)


def against_floor(isa: str, seconds: float) -> Iterator[Figure]:
    """A softmax of a row beyond the caches must read it once before it can write anything: a read sweep and a copy."""
    kernels = ceilings.native()
    n = 1 << 26
    sides = bind((AUTO, TWO_PASS + "-stream"), 1, n, isa)
    source, destination = ceilings.memory(4 * n), ceilings.memory(4 * n)
    read = kernels.bind("read", isa, None, source, 1, 1)
    copies = [kernels.bind(kind, isa, destination, source, 1, 1) for kind in ("stream-copy", "copy")]

    def floor(copy: Callable[[], Any]) -> Callable[[], None]:
        def both() -> None:
            read()
            copy()

        return both

    taken = medians({**sides, "floor": floor(copies[0]), "plain floor": floor(copies[1])}, 3 * seconds)
    least = min(taken["floor"], taken["plain floor"])
    best = min(sides, key=lambda name: taken[name])
    note = f"{best}, {taken[best] / n * 1e9:.3f} ns an element; floor {least / n * 1e9:.3f}"
    yield Figure(isa, f"best / floor (read sweep + copy), {n:,}", taken[best] / least, FLOOR_TARGETS[isa], False, note)


def bind_pass(operator: str, pass_: str, rows: int, n: int, isa: str) -> dict[str, Callable[[], None]]:
    """`auto` and torch, on N(0, 1) scores, or on what the forward pass made of them and N(0, 1) gradients."""
    from ulproof.impls import load

    family = load(operator)
    card = family[AUTO].operator.passes[pass_]
    generator = np.random.default_rng(n)
    memory: dict[str, np.ndarray] = {}
    for argument in card.inputs + card.outputs:
        shape = argument.shape({"rows": rows, "n": n})
        memory[argument.name] = ceilings.memory(4 * math.prod(shape) + ceilings.PAGE)[: math.prod(shape)].reshape(shape)
        memory[argument.name][...] = generator.standard_normal(shape, dtype=np.float32)
    if pass_ == "backward":
        forward = family[AUTO].operator.passes["forward"].outputs[0].name
        scores = memory.get("x", generator.standard_normal((rows, n), dtype=np.float32))
        family[AUTO].bind((scores,), (memory[forward],), isa=isa)()
    inputs, outputs = (tuple(memory[each.name] for each in some) for some in (card.inputs, card.outputs))
    return {name: family[name].bind(inputs, outputs, pass_=pass_, isa=isa) for name in (AUTO, TORCH)}


def whole_family(isa: str, seconds: float) -> Iterator[Figure]:
    for operator in OPERATORS:
        for pass_ in ("forward", "backward"):
            ratios = {}
            for rows, n in FAMILY:
                taken = medians(bind_pass(operator, pass_, rows, n, isa), seconds / 8)
                ratios[rows, n] = taken[TORCH] / taken[AUTO]
            (rows, n), worst = min(ratios.items(), key=lambda item: item[1])
            what = f"torch / auto, {operator} {pass_}, the worst of {len(ratios)} shapes"
            below = ", ".join(f"{rows} x {n}: {ratio:.2f}" for (rows, n), ratio in ratios.items() if ratio < 1)
            yield Figure(isa, what, worst, 1.0, note=f"{rows} x {n}" + (f"; below 1: {below}" if below else ""))


def instruction_set(isa: str, seconds: float) -> Iterator[Figure]:
    yield from against_torch(isa, seconds)
    yield from against_three_passes(isa, seconds)
    yield from against_floor(isa, seconds)


def all_cores(seconds: float) -> Iterator[Figure]:
    threads, n = len(os.sched_getaffinity(0)), 1 << 26
    taken = medians(bind((AUTO, TORCH), 1, n, "avx512", threads), 3 * seconds)
    yield Figure("threads", f"torch / auto, {threads} threads each, {n:,}", taken[TORCH] / taken[AUTO], 1.7)


def calls(seconds: float) -> Iterator[Figure]:
    from ulproof.impls import load

    auto = load("softmax")[AUTO]
    x = np.random.default_rng(0).standard_normal(64, dtype=np.float32)
    bound = auto.bind((x,), (np.empty_like(x),))
    taken = medians({"user": lambda: auto(x), "bound": bound, "empty": lambda: None}, seconds)
    # A lambda stands between the ruler and the user's call; an empty one takes its turn too and is taken off.
    yield Figure("calls", "microseconds, the user's row of 64", 1e6 * (taken["user"] - taken["empty"]), 1.2, False)
    yield Figure("calls", "microseconds, the bound call on it", 1e6 * taken["bound"], 0.4, False)


def listing(seconds: float) -> Iterator[Figure]:
    command = [sys.executable, "-m", "ulproof.benchmarks.cli", "list"]
    times = []
    for _ in range(9):
        begin = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        times.append(time.perf_counter() - begin)
    yield Figure("list", "seconds, ulproof list", float(np.median(times)), 0.5, False)


def accuracy(seconds: float) -> Iterator[Figure]:
    """Max ULP of every C++ implementation that we vouch for, over all stress inputs, lengths and ISAs, up to rows of 2^26."""
    from ulproof.impls import load

    from . import check

    worst: dict[tuple[str, str, str], tuple[float, str]] = {}
    wanted = {"backend": ("simd",), "threads": ("1",)}
    for item in check.plan(OPERATORS, wanted, long=True):
        if not load(item.operator)[item.implementation].vouched:
            continue
        record = item.check()
        if not record["ulp"]:
            continue
        key = (item.operator, item.pass_, item.dtype)
        largest = record["ulp"]["max"]
        found = (
            math.inf if largest is None else largest,
            f"{item.implementation} {item.isa}, {item.stress}, {dict(item.axes)}",
        )
        worst[key] = max(worst.get(key, (-1.0, "")), found)
    for (operator, pass_, dtype), (largest, where) in worst.items():
        target = 2.0 if dtype == "float32" else 0.51
        yield Figure("ulp", f"max ULP, {operator} {pass_}, {dtype}", largest, target, False, where)


PARTS: dict[str, Callable[[float], Iterator[Figure]]] = {
    "avx512": lambda seconds: instruction_set("avx512", seconds),
    "avx2": lambda seconds: instruction_set("avx2", seconds),
    "avx512-family": lambda seconds: whole_family("avx512", seconds),
    "avx2-family": lambda seconds: whole_family("avx2", seconds),
    "threads": all_cores,
    "calls": calls,
    "list": listing,
    "ulp": accuracy,
}


def parse(parser: argparse.ArgumentParser, parts: Collection[str], arguments: list[str] | None) -> argparse.Namespace:
    """The arguments with ``parts``: those that are named, or all. (argparse's own choices refuse, or show, an empty list.)"""
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(parts)}; default: all of them")
    given = parser.parse_args(arguments)
    for part in given.parts:
        if part not in parts:
            parser.error(f"unknown part {part!r}; there are {', '.join(parts)}")
    given.parts = given.parts or list(parts)
    return given


def child(part: str, seconds: float) -> None:
    """Measure one part and print its figures, JSON a line."""
    cores = os.sched_getaffinity(0)
    if part != "threads":
        os.sched_setaffinity(0, {max(cores)})
    for figure in PARTS[part](seconds):
        print(json.dumps(asdict(figure)), flush=True)


def main(arguments: list[str] | None = None) -> int:
    """Print the figures of the parts asked for; exit code 0 when every target is met, 1 otherwise, 4 if a part fails."""
    parser = argparse.ArgumentParser(
        prog="python -m ulproof.benchmarks.headline", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--seconds", type=float, default=2.0, help="of measuring for a usual pair (default 2)")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    given = parse(parser, PARTS, arguments)
    if given.child:
        child(given.parts[0], given.seconds)
        return 0
    code = 0
    for part in given.parts:
        environment = {**os.environ, **({"ATEN_CPU_CAPABILITY": part.partition("-")[0]} if part.startswith("avx") else {})}
        command = [sys.executable, "-m", "ulproof.benchmarks.headline", "--child", "--seconds", str(given.seconds), part]
        with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
            for line in process.stdout or ():
                figure = Figure(**json.loads(line))
                code = max(code, 0 if figure.met is not False else 1)
                print(figure.line(), flush=True)
        if process.returncode:
            print(f"{part}: the measurement failed with exit code {process.returncode}", file=sys.stderr)
            code = 4
    return code


if __name__ == "__main__":
    sys.exit(main())

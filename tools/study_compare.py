"""Does ``ulproof compare`` deserve trust? Trials on builds whose difference is known, and what other gates say of them.

    python tools/study_compare.py [--quick] [--only EXPERIMENT...] [--arm ARM...] [--around COMMAND]

A clone of this checkout gets commits with planted changes (``PLANTS``); each trial runs a gate afresh on two of them, in
random order, and appends a line to ``docs/trust.jsonl``. Trials that stand there are not run again. At the end, or with
``--table`` alone, the table in ``docs/trust.md`` is written from those lines.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import shlex
import shutil
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
SEED = 1
PROCESSES, PLACEMENTS = 7, 3  # and of the buffers in each, when a plant's size is measured
Line = dict[str, Any]

# ---- what is planted

# The kernels that are compared are those of this commit, whatever they have become: the plants fit them, their sizes are
# known, and studies of different rulers can be held against each other. The ruler is the working tree's.
BASE = "1a63f5df989aea42298d5334540c196261106d66"
BLOCK = "impls/softmax/simd_forward.cpp"
ROWS = "impls/softmax/simd_rows-inl.h"
SHARED = "impls/_backends/simd-inl.h"

# In C++: steps of a chain of multiply-adds, which change no result. What is left of a step is kept for the next call.
WORK = """HWY_NOINLINE void PlantedWork(size_t n, uint64_t share) {
  static std::atomic<uint64_t> due{0};
  const uint64_t now = due.load(std::memory_order_relaxed) + n * share;
  due.store(now & 0xFFFF, std::memory_order_relaxed);
  float v = 1.0f;
  for (uint64_t step = 0; step < now >> 16; ++step) {
    v = v * 0.5f + 0.5f;
    asm volatile("" : "+x"(v));
  }
}

"""


@dataclass(frozen=True)
class Edit:
    """``text`` goes before the only place in ``path`` where ``at`` stands, or instead of it."""

    path: str
    at: str
    text: str
    instead: bool = False

    def apply(self, root: Path) -> None:
        """Raises ``ValueError`` where the sources no longer have that place exactly once."""
        file = root / self.path
        source = file.read_text()
        if source.count(self.at) != 1:
            raise ValueError(f"{self.path} has {source.count(self.at)} times {self.at.strip()!r}; the plant needs 1")
        file.write_text(source.replace(self.at, self.text if self.instead else self.text + self.at))


def by_length(shares: Mapping[int, int]) -> str:
    """In C++: the share for a row of ``n`` elements. A key is the longest row that it is for; the last serves all others."""
    *some, (_, last) = sorted(shares.items())
    return "".join(f"n <= {length} ? {share} : " for length, share in some) + str(last)


def slower(softmax: Mapping[int, int], log_softmax: Mapping[int, int], sums: bool = False) -> tuple[Edit, ...]:
    """Extra work at each block of a row: 1/65536 steps for each element, by the row's length. In softmax that is where
    results are written, or, with ``sums``, where a long row is summed."""
    block = "    MapBlock<kStream>(function, x + begin, y + begin, count);\n"
    if sums:
        block = "        part = SumRoughly<kStore, kStream>(plain, x + i, e + i, some);\n"
    sweep = "HWY_ATTR { return Sweep(function, count, y + begin, (x + begin)...); };"
    return (
        Edit(BLOCK, "constexpr float kInfinity =", WORK),
        Edit(BLOCK, block, f"{block}PlantedWork({'some' if sums else 'count'}, {by_length(softmax)});\n", instead=True),
        Edit(ROWS, "#include <tuple>\n", "#include <atomic>\n"),
        Edit(ROWS, "// Maps a row of inputs to y; returns the largest Top().\n", WORK.replace("Work", "RowWork")),
        Edit(
            ROWS,
            sweep,
            f"HWY_ATTR {{ PlantedRowWork(count, {by_length(log_softmax)}); {sweep.removeprefix('HWY_ATTR {')}",
            instead=True,
        ),
    )


REMARK = "// A remark that changes no instruction.\n"
PLANTS: Mapping[str, tuple[Edit, ...]] = {
    "identical": tuple(Edit(path, "#undef HWY_TARGET_INCLUDE\n", REMARK) for path in (BLOCK, "impls/softmax/simd_log.cpp")),
    "slower-5": slower(
        {1 << 10: 1120, 1 << 12: 760, 1 << 14: 540, 1 << 16: 505, 1 << 18: 500, 1 << 20: 440, 1 << 22: 970, 1 << 24: 890},
        {1 << 10: 2200, 1 << 12: 950, 1 << 14: 725, 1 << 16: 660, 1 << 18: 690, 1 << 20: 705, 1 << 22: 1240, 1 << 24: 1240},
    ),
    "slower-5-two": slower({1 << 18: 710, 1 << 20: 680, 1 << 24: 1280}, {1 << 18: 920, 1 << 20: 820, 1 << 24: 1450}, sums=True),
    "slower-3": slower(
        {1 << 12: 530, 1 << 14: 350, 1 << 16: 345, 1 << 18: 345, 1 << 20: 310},
        {1 << 12: 725, 1 << 14: 455, 1 << 16: 415, 1 << 18: 475, 1 << 20: 420},
    ),
    "slower-1": slower(
        {1 << 12: 345, 1 << 14: 157, 1 << 16: 165, 1 << 18: 175}, {1 << 12: 455, 1 << 14: 205, 1 << 16: 165, 1 << 18: 192}
    ),
    # The quadratic coefficient of the exponential with AVX-512; largest error 1.2 ULP before.
    "inaccurate": (Edit(SHARED, "hn::Set(f32, 0x1.00021Ep-1f)", "hn::Set(f32, 0x1.00421Ep-1f)", instead=True),),
}


def git(folder: Path, *command: str, when: str = "2026-01-01T00:00:00Z") -> str:
    who = {f"GIT_{role}_{what}": value for role in ("AUTHOR", "COMMITTER") for what, value in (
        ("NAME", "study"), ("EMAIL", "study@example.invalid"), ("DATE", when))}  # fmt: skip
    done = subprocess.run(["git", "-C", folder, *command], env={**os.environ, **who}, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"git {command[0]}: {done.stderr.strip()}")
    return done.stdout.strip()


def plant(clone: Path, commit: str, plants: Mapping[str, tuple[Edit, ...]] = PLANTS) -> None:
    """A clone of this checkout at ``commit`` with a branch for each plant; ``plain`` is the commit itself. The same commit
    and plants give the same hashes."""
    if not clone.exists():
        git(ROOT, "clone", "--quiet", "--no-local", "--no-checkout", str(ROOT), str(clone))
    for name, edits in plants.items():
        git(clone, "checkout", "--quiet", "--force", "--detach", commit)
        for edit in edits:
            edit.apply(clone)
        git(clone, "commit", "--quiet", "--all", "-m", f"Plant: {name}")
        git(clone, "branch", "--force", name)
    git(clone, "checkout", "--quiet", "--force", "-B", "plain", commit)


# ---- workloads

OPERATORS = ("softmax", "log_softmax")
DRIVEN = ("1x1024", "1x65536", "1x1048576", "4096x1024", "1x16777216")  # that asv and pytest-benchmark drive, one thread
SHAPES = ("1x1024", "1x4096", "1x16384", "1x65536", "1x262144", "1x1048576", "4096x128", "1x4194304", "4096x1024", "1x16777216")
SINGLE = tuple(shape for shape in SHAPES if shape.startswith("1x"))  # one row: what the plants slow down evenly
SHORT = ("1x4096", "1x16384", "1x65536", "1x262144")


@dataclass(frozen=True)
class Workload:
    """A forward pass of ``simd/auto`` in float32, with the widest instruction set."""

    operator: str
    shape: str
    threads: int = 1

    @property
    def nbytes(self) -> int:
        return 4 * math.prod(map(int, self.shape.split("x")))

    @property
    def near(self) -> bool:
        """One thread, an array of up to 8 MiB: where verdicts should be easy."""
        return self.threads == 1 and self.nbytes <= 8 << 20

    def __str__(self) -> str:
        return f"{self.operator} {self.shape} t{self.threads}"


def several(operators: Iterable[str], shapes: Iterable[str], threads: Iterable[int] = (1,)) -> tuple[Workload, ...]:
    shapes = tuple(shapes)
    return tuple(Workload(operator, shape, count) for operator in operators for count in threads for shape in shapes)


@dataclass(frozen=True)
class Experiment:
    """``runs`` are invocations of each gate (all, quick), each of which gives a verdict for every workload of its part."""

    head: str
    what: str
    target: str
    workloads: tuple[Workload, ...]
    least: int
    runs: tuple[int, int]
    seconds: float
    margin: float = 0.02
    loaded: bool = False
    parts: tuple[Callable[[Workload], bool], ...] = (lambda each: True,)

    def part(self, number: int) -> Experiment:
        """What an invocation of ``ulproof compare`` with that number gets: the parts take turns."""
        chosen = self.parts[number % len(self.parts)]
        return replace(self, workloads=tuple(each for each in self.workloads if chosen(each)))

    @property
    def driven(self) -> tuple[Workload, ...]:
        return tuple(each for each in self.workloads if each.shape in DRIVEN and each.threads == 1)

    @property
    def arms(self) -> tuple[str, ...]:
        """The gates that can be asked."""
        return ARMS if self.driven else ARMS[:1]

    @property
    def found(self) -> str:
        """The right verdict."""
        return "slower" if self.head.startswith("slower") else "same"


EXPERIMENTS: Mapping[str, Experiment] = {
    "identical": Experiment(
        "identical",
        "identical code, separately built",
        "at most 1 false verdict in 300",
        several(OPERATORS, SHAPES) + several(OPERATORS, SHAPES, (2,)),
        300,
        (24, 3),
        90,
        parts=(
            lambda each: each.near,
            lambda each: each.threads == 1 and not each.near,
            lambda each: each.threads > 1,
        ),
    ),
    "slower-5": Experiment(
        "slower-5",
        "a planted slowdown of 5%",
        "found in at least 99%",
        several(OPERATORS, SINGLE),
        240,
        (15, 1),
        90,
    ),
    "slower-5-two": Experiment(
        "slower-5-two",
        "a planted slowdown of 5%, two threads, 6 workloads in 180 s",
        "found in at least 99%",
        several(OPERATORS, ("1x262144", "1x1048576", "1x16777216"), (2,)),
        60,
        (10, 1),
        180,
    ),
    "slower-3": Experiment(
        "slower-3",
        "a planted slowdown of 3%, margin 1%, 10 workloads in 120 s",
        "found in at least 95%",
        several(OPERATORS, ("1x4096", "1x16384", "1x65536", "1x262144", "1x1048576")),
        100,
        (10, 1),
        120,
        0.01,
    ),
    "slower-1": Experiment(
        "slower-1",
        "a planted slowdown of 1%, margin 0.3%, one thread, up to 1 MiB, 5 s a workload",
        "found in at least 90%",
        several(OPERATORS, SHORT),
        100,
        (13, 1),
        40,
        0.003,
    ),
    "loaded": Experiment(
        "identical",
        "identical code, while another process keeps the other core busy",
        "no false verdict",
        several(OPERATORS, ("1x1024", *SHORT, "1x1048576")),
        100,
        (9, 1),
        60,
        loaded=True,
    ),
}
ARMS = ("ulproof", "asv", "pytest-benchmark")
RULES = {"ulproof": ("",), "asv": (" 1.1", " 1.05"), "pytest-benchmark": (" median:5%",)}
LABELS = {
    "ulproof": "`ulproof compare`",
    "asv": "`asv continuous --factor{}`",
    "pytest-benchmark": "`--benchmark-compare-fail={}`",
}

# ---- gates


@dataclass(frozen=True)
class Place:
    """Where the study keeps its things; ``around`` goes in front of every gate's command."""

    folder: Path
    trials: Path
    around: tuple[str, ...] = ()

    @property
    def clone(self) -> Path:
        return self.folder / "clone"

    def run(self, command: Sequence[object], **options: Any) -> subprocess.CompletedProcess[str]:
        words = [*self.around, *map(str, command)]
        return subprocess.run(words, cwd=self.clone, capture_output=True, text=True, stdin=subprocess.DEVNULL, **options)


def side(place: Place, name: str) -> Path:
    """A folder to put on the path: the package ``ulproof`` with the kernels of a branch, built apart."""
    from ulproof.benchmarks import builds

    built = builds.build(builds.commit(place.clone, name), say=lambda text: print(text, flush=True))
    package = place.folder / "sides" / name / "ulproof"
    shutil.rmtree(package, ignore_errors=True)
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "impls").symlink_to(built)
    return package.parent


def ulproof(place: Place, experiment: Experiment, seed: int) -> tuple[int, list[Line]]:
    """One ``ulproof compare``, for workloads that have as many shapes with each number of threads, or one for each number."""
    experiment = experiment.part(seed - SEED)
    answer = place.folder / "answer.json"
    answer.unlink(missing_ok=True)
    names = dict.fromkeys(f"{each.operator}:simd/auto" for each in experiment.workloads)
    shapes = dict.fromkeys(each.shape for each in experiment.workloads)
    threads = dict.fromkeys(str(each.threads) for each in experiment.workloads)
    command = [sys.executable, "-m", "ulproof.benchmarks.cli", "compare", f"plain..{experiment.head}", *names, "--all"]
    command += ["--dtype", "float32", "--pass", "forward", "--shape", ",".join(shapes), "--threads", ",".join(threads)]
    command += ["--margin", str(experiment.margin), "--budget", str(experiment.seconds), "--seed", str(seed)]
    shutil.rmtree(place.folder / "comparison", ignore_errors=True)
    done = place.run([*command, "--json", answer, "--output", place.folder / "comparison"])
    if not answer.exists():
        raise RuntimeError(f"exit code {done.returncode}: {(done.stderr or done.stdout).strip()[-400:]}")
    asked = {str(each) for each in experiment.workloads}
    rows = []
    for row in json.loads(answer.read_text())["rows"]:
        name = f"{row['operator']} {'x'.join(map(str, row['axes'].values()))} t{row.get('threads') or 1}"
        if name in asked:
            kept = ("ratio", "twin", "restarts", "base_seconds", "base_ulp", "head_ulp")
            rows.append(
                {"workload": name, "verdict": row["verdict"] or row["status"], **{each: row.get(each) for each in kept}}
            )
    return done.returncode, rows


def asv_config(place: Place) -> Path:
    """A configuration of asv whose environment borrows this one's packages, so that only the kernels differ."""
    borrowed = [path for path in sys.path if path.endswith("site-packages")]
    settings = {
        "version": 1,
        "project": "ulproof",
        "repo": str(place.clone),
        "branches": ["plain"],
        "environment_type": "virtualenv",
        "install_timeout": 3600,
        "benchmark_dir": str(place.clone / "benchmarks"),
        **{f"{name}_dir": str(place.folder / "asv" / name) for name in ("env", "results", "html")},
        "build_cache_size": 8,
        "build_command": [
            f"python {place.folder / 'borrow.py'} {' '.join(borrowed)}",
            "python -m pip wheel --quiet --no-build-isolation --no-deps --no-index --wheel-dir {build_cache_dir} {build_dir}",
        ],
        "install_command": [f"python {place.folder / 'install.py'} {{wheel_file}}"],
        "uninstall_command": [f"python {place.folder / 'install.py'}"],
    }
    (place.folder / "borrow.py").write_text(
        "import pathlib, sys, sysconfig\n"
        "pathlib.Path(sysconfig.get_path('purelib'), 'borrowed.pth').write_text('\\n'.join(sys.argv[1:]) + '\\n')\n"
    )
    (place.folder / "install.py").write_text(
        "import pathlib, shutil, sys, sysconfig, zipfile\n"
        "site = sysconfig.get_path('purelib')\n"
        "shutil.rmtree(pathlib.Path(site, 'ulproof'), ignore_errors=True)\n"
        "if sys.argv[1:]: zipfile.ZipFile(sys.argv[1]).extractall(site)\n"
    )
    config = place.folder / "asv.conf.json"
    config.write_text(json.dumps(settings))
    command = [sys.executable, "-m", "asv", "machine", "--yes", "--config", config]
    subprocess.run(command, cwd=place.clone, check=True, capture_output=True)
    return config


def asv_bench(workloads: Iterable[Workload]) -> str:
    operators = dict.fromkeys(each.operator.title().replace("_", "") + "Cpu" for each in workloads)
    shapes = dict.fromkeys(each.shape for each in workloads)
    return rf"bench_operators\.({'|'.join(operators)})\.time_forward\(.*simd/auto.*'({'|'.join(shapes)})'"


def asv_prepare(place: Place, heads: Iterable[str]) -> None:
    """Have asv build what its trials compare, so that they don't: it keeps the wheels."""
    config = asv_config(place)
    for name in heads:
        commit = git(place.clone, "rev-parse", name)
        if not list((place.folder / "asv").glob(f"env/*/asv-build-cache/{commit}/*.whl")):
            print(f"{name}: building for asv", flush=True)
            bench = asv_bench(several(OPERATORS[:1], DRIVEN[:1]))
            command = [sys.executable, "-m", "asv", "run", "--quick", "--config", config, "--bench", bench, f"{name}^!"]
            subprocess.run(command, cwd=place.clone, capture_output=True)


def asv(place: Place, experiment: Experiment, seed: int) -> tuple[int, list[Line]]:
    """One ``asv continuous``; both factors from the same samples."""
    config = asv_config(place)
    shutil.rmtree(place.folder / "asv" / "results", ignore_errors=True)
    here, sides = [sys.executable, "-m", "asv"], ["plain", experiment.head]
    asv_config(place)
    options = ["--config", config, "--factor"]
    done = place.run([*here, "continuous", "--bench", asv_bench(experiment.driven), *options, 1.05, *sides])
    rows: list[Line] = []
    asked = {str(each) for each in experiment.driven}
    for factor in (1.1, 1.05):
        command = [*map(str, here), "compare", *map(str, options), str(factor), *sides]
        told = subprocess.run(command, cwd=place.clone, capture_output=True, text=True)
        rows += [{**row, "rule": f" {factor}"} for row in asv_rows(told.stdout) if row["workload"] in asked]
    if len(rows) != 2 * len(asked):
        raise RuntimeError(f"exit code {done.returncode}: {(done.stdout + done.stderr).strip()[-400:]}")
    return done.returncode, rows


def asv_rows(text: str) -> list[Line]:
    """Verdicts from the table of ``asv compare``."""
    rows = []
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if not line.startswith("|") or len(cells) != 5 or "simd/auto" not in cells[4] or cells[3] == "n/a":
            continue
        name, _, rest = cells[4].partition(".time_forward(")
        words = [word.strip(" ')") for word in rest.split(",")]
        operator = {"SoftmaxCpu": "softmax", "LogSoftmaxCpu": "log_softmax"}[name.rpartition(".")[2]]
        verdict = {"+": "slower", "-": "faster"}.get(cells[0], "same")
        rows.append({"workload": f"{operator} {words[-1]} t1", "verdict": verdict, "change": cells[3]})
    return rows


def pytest_benchmark(place: Place, experiment: Experiment, seed: int) -> tuple[int, list[Line]]:
    """Base's benchmarks, saved; then head's, held against them at 5% of the median."""
    storage = place.folder / "pytest-benchmark"
    shutil.rmtree(storage, ignore_errors=True)
    ids = [f"{each.operator}:simd/auto-cpu-{each.shape}-float32-forward" for each in experiment.driven]
    file = "benchmarks/test_bench_operators.py"
    command = [sys.executable, "-S", "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--benchmark-storage=file://{storage}"]
    tests = [f"{file}::test_latency[{each}]" for each in ids]
    borrowed = [path for path in sys.path if path.endswith("site-packages")]
    code = 0
    for name, options in (
        ("plain", ["--benchmark-save=base"]),
        (experiment.head, ["--benchmark-save=head", "--benchmark-compare=0001", "--benchmark-compare-fail=median:5%"]),
    ):
        path = os.pathsep.join([str(place.folder / "sides" / name), *borrowed])
        done = place.run([*command, *options, *tests], env={**os.environ, "PYTHONPATH": path})
        code = done.returncode
        if code and "Performance has regressed" not in done.stdout + done.stderr:
            raise RuntimeError(f"exit code {code}: {(done.stdout + done.stderr).strip()[-400:]}")
    saved = {path.stem.partition("_")[2]: json.loads(path.read_text()) for path in storage.rglob("*.json")}
    medians = {name: {each["param"]: each["stats"]["median"] for each in found["benchmarks"]} for name, found in saved.items()}
    rows = []
    for each, param in zip(experiment.driven, ids, strict=True):
        change = medians["head"][param] / medians["base"][param]
        said = f"[{param}] " in done.stdout + done.stderr.replace("\n", " ") and code != 0
        verdict = "slower" if said and change > 1.05 else "same"
        rows.append({"workload": str(each), "verdict": verdict, "change": change, "rule": " median:5%"})
    if (code != 0) != any(row["verdict"] == "slower" for row in rows):
        raise RuntimeError(f"exit code {code} and the saved medians disagree")
    return code, rows


GATES: Mapping[str, Callable[[Place, Experiment, int], tuple[int, list[Line]]]] = {
    "ulproof": ulproof,
    "asv": asv,
    "pytest-benchmark": pytest_benchmark,
}

# ---- trials


@contextmanager
def busy(wanted: bool) -> Iterator[None]:
    """Another process that computes without a pause on the first core, while measurements are pinned to the last ones."""
    if not wanted:
        yield
        return
    first, parent = min(os.sched_getaffinity(0)), os.getpid()
    code = f"import os; os.sched_setaffinity(0, [{first}])\nwhile os.getppid() == {parent}: sum(range(100000))"
    process = subprocess.Popen([sys.executable, "-c", code])
    try:
        yield
    finally:
        process.kill()
        process.wait()


def ticks() -> tuple[float, float, float]:
    """Of all processors since boot: seconds busy, seconds stolen by the host, seconds in all."""
    fields = [int(each) / os.sysconf("SC_CLK_TCK") for each in Path("/proc/stat").read_text().split("\n")[0].split()[1:9]]
    return sum(fields) - fields[3] - fields[4], fields[7], sum(fields)


@dataclass(frozen=True)
class Trial:
    experiment: str
    arm: str
    number: int

    @property
    def key(self) -> tuple[str, str, int]:
        return self.experiment, self.arm, self.number


def read(path: Path) -> list[Line]:
    """The lines of a study; a last one that was cut short counts for nothing."""
    found = []
    for text in path.read_text().splitlines() if path.exists() else ():
        try:
            found.append(json.loads(text))
        except json.JSONDecodeError:
            continue
    return found


def rounded(value: Any) -> Any:
    """Floats to seven digits, which is more than they are worth."""
    if isinstance(value, float):
        return float(f"{value:.7g}")
    if isinstance(value, dict):
        return {name: rounded(each) for name, each in value.items()}
    return [rounded(each) for each in value] if isinstance(value, list) else value


def append(path: Path, line: Line) -> None:
    cut = path.exists() and not path.read_bytes().endswith(b"\n") and path.stat().st_size
    with open(path, "a") as file:
        file.write(("\n" if cut else "") + json.dumps(rounded(line)) + "\n")


def planned(
    experiments: Mapping[str, Experiment], arms: Sequence[str], quick: bool, beside: int, first: int = 0
) -> list[Trial]:
    """Every trial, in an order drawn by ``SEED``. The other gates get ``beside`` invocations at most."""
    found = []
    for name, experiment in experiments.items():
        for arm in (arm for arm in arms if arm in experiment.arms):
            runs = experiment.runs[quick]
            count = runs if arm == "ulproof" else min(runs, beside)
            found += [Trial(name, arm, first + number) for number in range(count)]
    random.Random(SEED).shuffle(found)
    return found


def finished(place: Place, commit: str) -> set[tuple[str, str, int]]:
    """Keys of the trials that gave verdicts on plants in ``commit``."""
    lines = [line for line in read(place.trials) if line.get("commit") == commit and "arm" in line and not line.get("error")]
    return {(line["experiment"], line["arm"], line["number"]) for line in lines}


def carry_out(
    trials: Sequence[Trial],
    experiments: Mapping[str, Experiment],
    place: Place,
    commit: str,
    gates: Mapping[str, Callable[[Place, Experiment, int], tuple[int, list[Line]]]] = GATES,
    deadline: float = math.inf,
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """Run the trials that the file has not yet, each a line; after ``deadline`` none is begun. One that fails says why."""
    done = finished(place, commit)
    waiting = [trial for trial in trials if trial.key not in done]
    for position, trial in enumerate(waiting, 1):
        if clock() > deadline:
            print(f"out of time: {len(waiting) - position + 1} trials are left for another call")
            return
        experiment = experiments[trial.experiment]
        line: Line = {
            "experiment": trial.experiment,
            "arm": trial.arm,
            "number": trial.number,
            "commit": commit,
            "ruler": git(ROOT, "rev-parse", "HEAD"),
        }
        begin, before = clock(), ticks()
        with busy(experiment.loaded):
            try:
                line["exit_code"], line["rows"] = gates[trial.arm](place, experiment, SEED + trial.number)
            except RuntimeError as error:
                line |= {"rows": [], "error": str(error)}
        after = ticks()
        whole = max(after[2] - before[2], 1e-9)
        line |= {"seconds": round(clock() - begin, 1), "load": os.getloadavg()[0]}
        line |= {"busy": round((after[0] - before[0]) / whole, 3), "stolen": round((after[1] - before[1]) / whole, 4)}
        append(place.trials, line)
        told = Counter(row["verdict"] for row in line["rows"])
        said = line.get("error") or ", ".join(f"{count} {verdict}" for verdict, count in told.items())
        print(f"{position}/{len(waiting)} {trial.experiment} {trial.arm} {line['seconds']} s: {said}", flush=True)


# ---- how large the plants are


def confirm(place: Place, head: str, workloads: Sequence[Workload], seconds: float) -> list[Line]:
    """Both builds in one process, in turns, on buffers that move, in several processes, since what two threads take depends on
    where the pages of one lie: the median over processes, and its error by their median absolute deviation."""
    command = [sys.executable, __file__, "--folder", place.folder, "--confirm", head, "--seconds", seconds / PROCESSES]
    logs: dict[str, list[float]] = {str(each): [] for each in workloads}
    for _ in range(PROCESSES):
        done = place.run([*command, "--workloads", *logs])
        if done.returncode:
            raise RuntimeError(done.stderr.strip()[-400:])
        for name, log in json.loads(done.stdout).items():
            logs[name].append(log)
    lines = []
    for name, some in logs.items():
        middle = statistics.median(some)
        deviation = 1.4826 * statistics.median(abs(each - middle) for each in some)
        error = 1.2533 * deviation / math.sqrt(PROCESSES)
        lines.append({"plant": head, "workload": name, "change": math.expm1(middle), "error": error})
    return lines


def measure(place: Place, head: str, names: Sequence[str], seconds: float) -> dict[str, float]:
    """In a child of ``confirm``: the log of the ratio of each workload, a median over placements of the buffers."""
    import numpy as np

    from ulproof.benchmarks.duel import package
    from ulproof.benchmarks.measure.sampling import calibrate, hot, rounds

    builds = [package(str((place.folder / "sides" / name / "ulproof" / "impls").resolve())) for name in ("plain", head)]
    cores = sorted(os.sched_getaffinity(0))
    found = {}
    for name in names:
        operator, shape, threads = name.split()
        count = int(threads[1:])
        os.sched_setaffinity(0, cores[-count:])
        generator = random.Random()
        rows, n = map(int, shape.split("x"))
        per_placement = []
        for _ in range(PLACEMENTS):
            memory = [np.zeros(rows * n + (1 << 19), np.float32) for _ in range(2)]
            x, y = (each[(at := 16 * generator.randrange(1 << 15)) : at + rows * n].reshape(rows, n) for each in memory)
            x[...] = np.random.default_rng(SEED).standard_normal((rows, n), dtype=np.float32)
            sides = {
                str(number): hot(build.load(operator)["simd/auto"].bind((x,), (y,), threads=count))
                for number, build in enumerate(builds)
            }
            calls = max(calibrate(each, 1e-3)[0] for each in sides.values())
            logs, end = [], time.perf_counter() + seconds / PLACEMENTS
            for each in rounds(sides, dict.fromkeys(sides, calls), generator):
                logs.append(math.log(each["1"] / each["0"]))
                if time.perf_counter() > end and len(logs) > 4:
                    break
            per_placement.append(statistics.median(logs))
        found[name] = statistics.median(per_placement)
    return found


# ---- the table


def wilson(found: int, trials: int, z: float = 1.959963984540054) -> tuple[float, float]:
    """The 95% interval of a proportion (Wilson, JASA 1927)."""
    if not trials:
        return 0.0, 1.0
    share, weight = found / trials, z * z / trials
    middle = (share + weight / 2) / (1 + weight)
    half = z / (1 + weight) * math.sqrt(share * (1 - share) / trials + weight / (4 * trials))
    return max(0.0, middle - half), min(1.0, middle + half)


def counted(found: int, trials: int) -> str:
    """``298 of 300, 99.3% (97.6 to 99.8)``"""
    if not trials:
        return "not run"
    low, high = wilson(found, trials)
    return f"{found} of {trials}, {100 * found / trials:.1f}% ({100 * low:.1f} to {100 * high:.1f})"


def right(experiment: Experiment, row: Line) -> bool:
    """Whether a verdict counts towards the target: a planted slowdown found, or identical code not accused."""
    if experiment.found == "slower":
        return bool(row["verdict"] == "slower")
    return row["verdict"] not in ("slower", "faster")


def verdicts(lines: Iterable[Line], experiment: str, arm: str, rule: str) -> list[Line]:
    asked = {str(each) for each in EXPERIMENTS[experiment].workloads}
    return [
        row
        for line in lines
        if (line.get("experiment"), line.get("arm")) == (experiment, arm)
        for row in line["rows"]
        if row.get("rule", "") == rule and row["workload"] in asked
    ]


def trusted(lines: Sequence[Line]) -> str:
    """The main table: for each experiment and gate, how many verdicts were right, with Wilson's 95% interval."""
    found = [
        "| experiment | gate | right verdicts (95% interval) | wrong | can't tell | invocations |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for name, experiment in EXPERIMENTS.items():
        for arm in experiment.arms:
            runs = [line for line in lines if (line.get("experiment"), line.get("arm")) == (name, arm)]
            for rule in RULES[arm]:
                rows = verdicts(lines, name, arm, rule)
                good = sum(right(experiment, row) for row in rows)
                unsure = sum(row["verdict"] not in ("slower", "faster", "same") for row in rows)
                wrong = len(rows) - good - (unsure if experiment.found == "slower" else 0)
                first = f"{experiment.what} (target: {experiment.target})" if arm == "ulproof" else ""
                label = LABELS[arm].format(rule if arm == "asv" else rule.strip())
                found.append(f"| {first} | {label} | {counted(good, len(rows))} | {wrong} | {unsure} | {len(runs)} |")
    return "\n".join(found)


def same(lines: Sequence[Line]) -> str:
    """How much of identical code is called ``same``, where that is easy and where it is not."""
    found = ["| where | target | called `same` (95% interval) | on the busy machine |", "| --- | --- | --- | --- |"]
    near = {str(each) for each in EXPERIMENTS["identical"].workloads if each.near}
    for where, target, wanted in (
        ("one thread, arrays up to 8 MiB", "at least 90%", True),
        ("larger arrays, or two threads", "at least 60%", False),
    ):
        cells = []
        for state in (True, False):
            rows = [
                row for row in verdicts(calm(lines, state), "identical", "ulproof", "") if (row["workload"] in near) == wanted
            ]
            cells.append(counted(sum(row["verdict"] == "same" for row in rows), len(rows)))
        found.append(f"| {where} | {target} | {' | '.join(cells)} |")
    return "\n".join(found)


def by_workload(lines: Sequence[Line]) -> str:
    """Each workload in each experiment, ``ulproof compare`` alone."""
    names = list(dict.fromkeys(str(each) for experiment in EXPERIMENTS.values() for each in experiment.workloads))
    heads = list(EXPERIMENTS)
    found = [f"| workload | {' | '.join(heads)} |", "| --- |" + " --- |" * len(heads)]
    for name in names:
        cells = []
        for head in heads:
            rows = [row for row in verdicts(lines, head, "ulproof", "") if row["workload"] == name]
            good = sum(row["verdict"] == EXPERIMENTS[head].found for row in rows)
            cells.append(f"{good}/{len(rows)}" if rows else "")
        found.append(f"| {name.replace(' t1', '').replace(' t2', ', two threads')} | {' | '.join(cells)} |")
    return "\n".join(found)


def plants(lines: Sequence[Line]) -> str:
    """How large each planted slowdown is, by workload: change and standard error over processes, in percent."""
    latest = {(line["plant"], line["workload"]): line for line in lines if "plant" in line}
    heads = [name for name in PLANTS if any(plant == name for plant, _ in latest)]
    found = [f"| workload | {' | '.join(heads)} |", "| --- |" + " --- |" * len(heads)]
    for name in dict.fromkeys(workload for _, workload in latest):
        cells = []
        for head in heads:
            line = latest.get((head, name))
            cells.append(f"{100 * line['change']:+.2f} ± {100 * line['error']:.2f}" if line else "")
        found.append(f"| {name.replace(' t1', '').replace(' t2', ', two threads')} | {' | '.join(cells)} |")
    return "\n".join(found)


def conditions(lines: Sequence[Line]) -> str:
    """What else the machine did during the trials."""
    trials = [line for line in lines if "arm" in line and not line.get("error")]
    if not trials:
        return "No trial has run."
    loads = sorted(line["load"] for line in trials)
    stolen = max(line["stolen"] for line in trials)
    failed = sum("arm" in line and bool(line.get("error")) for line in lines)
    hours = sum(line["seconds"] for line in trials) / 3600
    return (
        f"{len(trials)} invocations in {hours:.1f} hours; load average at their ends from {loads[0]:.1f} to {loads[-1]:.1f}, "
        f"median {loads[len(loads) // 2]:.1f}; at most {100 * stolen:.1f}% of the time stolen by the host; "
        f"{failed} more failed and give no verdict."
    )


def machine() -> str:
    from ulproof.benchmarks.measure import caches, environment

    cpu = environment.cpu()
    levels = ", ".join(f"{level} {size >> 10} KiB" for level, size in caches.sizes().items())
    kind = "a virtual machine" if cpu["virtual"] else "a machine"
    return f"{cpu['model']}, {kind} of {cpu['online']} cores ({levels}; {', '.join(cpu['isas'])})."


def accuracy(lines: Sequence[Line]) -> str:
    found = [line for line in lines if line.get("accuracy")]
    if not found:
        return "Not run."
    codes = [line["exit_code"] for line in found]
    worst = max((row for row in found[-1]["rows"]), key=lambda row: row["head_ulp"] or math.inf, default=None)
    ulps = f"; {worst['base_ulp']:.2f} ULP became {worst['head_ulp']:.2f}" if worst and worst["head_ulp"] else ""
    return f"Exit code 2 in {codes.count(2)} of {len(codes)} trials{ulps}."


BUSY = 3.0  # load average from which others are at work: a comparison alone, with two threads, comes to 2


def calm(lines: Iterable[Line], wanted: bool = True) -> list[Line]:
    """The trials during which the machine did little else (or, with ``wanted`` false, much), and all other lines."""
    return [line for line in lines if "arm" not in line or (line["load"] < BUSY) == wanted]


PARTS: Mapping[str, Callable[[Sequence[Line]], str]] = {
    "machine": lambda lines: machine(),
    "conditions": lambda lines: conditions(calm(lines)),
    "trusted": lambda lines: trusted(calm(lines)),
    "same": same,
    "by_workload": by_workload,
    "busy_conditions": lambda lines: conditions(calm(lines, False)),
    "busy": lambda lines: trusted(calm(lines, False)),
    "accuracy": accuracy,
    "plants": plants,
}


def fill(text: str, lines: Sequence[Line]) -> str:
    """The page with what stands between ``<!-- study: NAME -->`` and ``<!-- end -->`` written anew."""
    pieces = text.split("<!-- study: ")
    for number, piece in enumerate(pieces[1:], 1):
        name, _, rest = piece.partition(" -->")
        _, end, after = rest.partition("<!-- end -->")
        if name not in PARTS or not end:
            raise ValueError(f"the page has no end of, or nothing to write for, {name!r}")
        pieces[number] = f"{name} -->\n{PARTS[name](lines)}\n{end}{after}"
    return "<!-- study: ".join(pieces)


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0 when every trial that was asked for is in the file, 3 when some are left, 64 for bad usage."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="20 minutes: one invocation of each kind")
    parser.add_argument("--only", nargs="+", choices=[*EXPERIMENTS, "inaccurate"], default=[*EXPERIMENTS, "inaccurate"])
    parser.add_argument("--arm", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--beside", type=int, default=10, help="invocations of each other gate at most (default 10)")
    parser.add_argument("--first", type=int, default=0, metavar="N", help="number of the first invocation, to add some")
    parser.add_argument("--minutes", type=float, help="begin no trial after that many; with --quick 20")
    parser.add_argument(
        "--commit", default=BASE, help="what the plants start from, by default the commit they were written for"
    )
    parser.add_argument("--folder", type=Path, default=Path(".study"))
    parser.add_argument("--trials", type=Path, default=ROOT / "docs" / "trust.jsonl", help="default docs/trust.jsonl")
    parser.add_argument("--around", default="", help="a command that each measurement is given to, such as `nice -n -5`")
    parser.add_argument("--page", type=Path, default=ROOT / "docs" / "trust.md")
    parser.add_argument("--table", action="store_true", help="only write the page")
    parser.add_argument("--confirm", choices=PLANTS, help="only measure how large a plant is")
    parser.add_argument("--seconds", type=float, default=10.0, help="of --confirm, for each workload")
    parser.add_argument("--workloads", nargs="+", help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    folder = given.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    place = Place(folder, given.trials.resolve(), tuple(shlex.split(given.around)))
    os.environ["ULPROOF_CACHE"] = str(folder / "cache")  # of its own: nobody else's builds push these out
    if given.workloads:
        print(json.dumps(measure(place, given.confirm, given.workloads, given.seconds)))
        return 0
    minutes = given.minutes if given.minutes is not None else 20 if given.quick else math.inf
    deadline = time.monotonic() + 60 * minutes
    complete = True
    if not given.table:
        try:
            commit = git(ROOT, "rev-parse", "--verify", f"{given.commit}^{{commit}}")
        except RuntimeError:
            print(f"no commit {given.commit} in this clone; `git fetch --unshallow` brings old ones", file=sys.stderr)
            return 64
        plant(place.clone, commit)
        for name in ("plain", *PLANTS):
            side(place, name)
        if given.confirm:
            sizes(place, commit, [given.confirm], given.seconds)
            return 0
        trials = planned(
            {name: EXPERIMENTS[name] for name in given.only if name in EXPERIMENTS},
            given.arm,
            given.quick,
            given.beside,
            given.first,
        )
        if "inaccurate" in given.only:
            worse(place, commit)
        if "asv" in given.arm:
            asv_prepare(place, dict.fromkeys(["plain", *(EXPERIMENTS[trial.experiment].head for trial in trials)]))
        carry_out(trials, EXPERIMENTS, place, commit, deadline=deadline)
        complete = {trial.key for trial in trials} <= finished(place, commit)
        if complete or given.quick:
            sizes(
                place, commit, [name for name in given.only if name.startswith("slower")], 3.0 if given.quick else given.seconds
            )
    given.page.write_text(fill(given.page.read_text(), read(place.trials)))
    print(given.page)
    return 0 if complete else 3


def sizes(place: Place, commit: str, heads: Iterable[str], seconds: float) -> None:
    """Measure how large these plants are, where that is not known yet."""
    known = {(line.get("plant"), line.get("workload"), line.get("commit")) for line in read(place.trials)}
    for head in heads:
        asked = [each for each in EXPERIMENTS[head].workloads if (head, str(each), commit) not in known]
        for line in confirm(place, head, asked, seconds) if asked else ():
            append(place.trials, line | {"commit": commit})


def worse(place: Place, commit: str) -> None:
    """The loss of accuracy, once for a commit: numerics are no matter of chance."""
    if any(line.get("accuracy") and line.get("commit") == commit for line in read(place.trials)):
        return
    workloads = several(OPERATORS, SHORT[:1])
    code, rows = ulproof(place, Experiment("inaccurate", "", "", workloads, 1, (1, 1), 10), SEED)
    append(place.trials, {"accuracy": True, "commit": commit, "exit_code": code, "rows": rows})


if __name__ == "__main__":
    sys.exit(main())

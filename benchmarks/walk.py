"""The walk over every float32 number: what implementations make of each, judged against the truth in double.

``python -m ulproof.benchmarks.walk`` walks operators of one number and keeps a record of each implementation and piece in a
folder, which it continues when it is asked again; ``--table`` prints what the folder holds. The full preset walks, too.
"""

from __future__ import annotations

import argparse
import importlib
import re
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from . import presets
from .check import fails, isas_of, targets, verdict
from .lookup import load, operators
from .measure import environment
from .record import RUN, RunFolder, read, whole
from .tables import check_table

if TYPE_CHECKING:
    from ulproof.impls.registry import Argument, Implementation

Record = dict[str, Any]

STRESS = "all-float32"
NUMBERS = 1 << 32
PIECE = 1 << 28  # inputs of a record: what a run that is stopped loses
CHUNK = 1 << 16  # inputs of a call
ROW = 1 << 10  # of operators whose columns differ: each 1,024 neighbours meet all of the columns' groups
WALKED = ("simd",)  # unless backends are named


@dataclass(frozen=True)
class Piece:
    """``count`` inputs from the one of bits ``first`` on, through every side: an implementation and its ISA."""

    operator: str
    pass_: str
    first: int
    count: int
    sides: tuple[tuple[str, str | None], ...]

    @property
    def torch(self) -> bool:
        return any(presets.uses_torch(name) for name, _ in self.sides)

    def only(self, sides: Collection[tuple[str, str | None]]) -> Piece:
        return replace(self, sides=tuple(sides))

    def row(self, side: tuple[str, str | None]) -> Record:
        """What the record of a side says, whatever comes of it."""
        name, isa = side
        backend, _, variant = name.partition("/")
        return {
            "kind": "accuracy",
            "operator": self.operator,
            "implementation": name,
            "backend": backend,
            "variant": variant,
            "target": "cpu",
            "isa": isa,
            "threads": 1,
            "dtype": "float32",
            "pass": self.pass_,
            "axes": {"n": self.count, "first": self.first},
            "stress": STRESS,
        }


@cache
def native() -> Any:
    """The native judge, or ``None`` where it is not built."""
    try:
        return importlib.import_module(".measure._judge", __package__)
    except ImportError:
        return None


def judged() -> Collection[str]:
    """The operators whose truth is known of every float32 number; none where nothing was compiled."""
    names: list[str] = native().operators() if native() else []
    return names


def plan(names: Collection[str] = (), filters: presets.Filters | None = None, chosen: Collection[str] = ()) -> list[Piece]:
    """The pieces of every walk asked for: of all operators of one number, or of those ``names``; forward ones first.

    ``filters`` maps ``backend``, ``isa``, ``pass`` and so on to the values wanted; ``chosen`` are full names of
    implementations, none for all. Without either only what is compiled here is walked, which takes seconds.
    """
    filters = filters or {}
    asked = partial(presets.asked, filters)
    if not (asked("dtype", "float32") and asked("target", "cpu")):
        return []
    found = []
    for pass_ in ("forward", "backward"):
        for name in names or operators():
            if name not in judged() or not asked("pass", pass_):
                continue
            sides = [
                (each.name, isa)
                for each in load(name).values()
                if (each.full_name in chosen if chosen else _walked(each, filters))
                if pass_ in each.passes and "float32" in each.dtypes and "cpu" in targets(each)
                for isa in isas_of(each, "cpu")
                if asked("isa", isa)
            ]
            if sides:
                found += [Piece(name, pass_, first, PIECE, tuple(sides)) for first in range(0, NUMBERS, PIECE)]
    return found


def _walked(implementation: Implementation, filters: presets.Filters) -> bool:
    named = implementation.backend in (filters.get("backend") or WALKED)
    return named and (implementation.backend != "peer" or implementation.variant == "torch-eager")


class Walker:
    """Takes any float32 numbers through an operator's pass, on sides that are bound once."""

    def __init__(
        self,
        operator: str,
        pass_: str,
        sides: Sequence[tuple[str, str | None]],
        chunk: int = CHUNK,
        beat: Callable[[str], None] = lambda side: None,
    ) -> None:
        self.beat = beat
        self.operator, self.pass_, self.card = operator, pass_, operators()[operator].passes[pass_]
        self.scalars = [float(value) for value in operators()[operator].params.values()]
        by_row = len(self.card.inputs[0].axes) > 1
        self.columns = ROW if by_row else 1
        self.axes = {"rows": chunk // ROW, "n": ROW} if by_row else {"n": chunk}
        self.inputs = tuple(map(self._input, self.card.inputs))
        self.learned = [float(value) for each in self.card.inputs if each.values for value in np.ravel(self._input(each))]
        self.outputs: list[np.ndarray] = []
        self.calls: list[tuple[str, Callable[[], None]]] = []
        for name, isa in sides:
            beat(name)
            outputs = tuple(np.empty(each.shape(self.axes), np.float32) for each in self.card.outputs)
            bind = load(operator)[name].bind
            self.calls.append((name, bind(self.inputs, outputs, pass_=pass_, isa=isa)))
            self.outputs.append(outputs[0])

    def _input(self, argument: Argument) -> np.ndarray:
        shape = argument.shape(self.axes)
        if argument.values:
            return np.resize(np.asarray(argument.values, np.float32), shape)
        return np.ones(shape, np.float32)  # dy, and x before the first chunk

    def run(self, x: np.ndarray) -> list[tuple[float, int, int, int]]:
        """Of each side its largest error in ULPs, that input's place, how many results are not the nearest float32, and how
        many are 0 in place of a subnormal; x is a chunk of float32."""
        self.inputs[0].reshape(-1)[:] = x
        for (name, call), output in zip(self.calls, self.outputs, strict=True):
            self.beat(name)
            output.fill(np.nan)
            call()
        self.beat("")
        results = [output.reshape(-1) for output in self.outputs]
        found: list[tuple[float, int, int, int]] = native().judge(
            self.operator, self.pass_, x, results, self.scalars, self.learned, self.columns
        )
        return found

    def expected(self, x: np.ndarray) -> np.ndarray:
        truth: np.ndarray = native().truth(self.operator, self.pass_, x, self.scalars, self.learned, self.columns)[0]
        return truth


def walk(piece: Piece, beat: Callable[[str], None] = lambda side: None) -> Iterator[Record]:
    """Take a piece through all of its sides at once; a record each. ``beat`` hears whose turn it is."""
    walker = Walker(piece.operator, piece.pass_, piece.sides, CHUNK, beat)
    largest, worst = [-1.0] * len(piece.sides), [""] * len(piece.sides)
    misrounded, flushed = [0] * len(piece.sides), [0] * len(piece.sides)
    at = np.arange(CHUNK, dtype=np.uint32)
    for first in range(piece.first, piece.first + piece.count, CHUNK):
        x = (at + np.uint32(first)).view(np.float32)
        for side, (error, place, inexact, zeros) in enumerate(walker.run(x)):
            misrounded[side] += inexact
            flushed[side] += zeros
            if error > largest[side]:
                actual, expected = walker.outputs[side].reshape(-1)[place], walker.expected(x)[place]
                output, bits = walker.card.outputs[0].name, first + place
                where = f"{output} is {actual:.9g}, not {expected:.9g} (x = {x[place]:.9g}, {bits:#010x})"
                largest[side], worst[side] = error, where if error else ""
    for side, (name, _) in enumerate(piece.sides):
        most = largest[side] if np.isfinite(largest[side]) else None
        status, reason = verdict(load(piece.operator)[name], piece.pass_, "float32", most)
        yield {
            **piece.row(piece.sides[side]),
            "status": status,
            "reason": f"{reason}; {worst[side]}" if reason else None,
            "ulp": {
                "max": most,
                "worst_input": worst[side] or None,
                "flushed": flushed[side],
                "outputs": piece.count,
                "misrounded": misrounded[side],
            },
        }


PAGE = """# Every float32 number

All 2^32 float32 numbers, NaN and infinities among them, went through these implementations; every result was judged against the
formula in float64 (`benchmarks/measure/judge.cpp`, which a test holds to the operators' oracles). Errors are in ULPs, as in
`ulproof check`: of the result, or of the card's scale where terms cancel; backward, dy is 1. Parameters are the card's.
"not nearest" are results that are not the correctly rounded one, whatever the scale; "flushed" are zeros in place of
subnormals, which count as right. Where instruction sets share a row, all of their figures agree.
A walk that has not come to its end has no row.

```
python -m ulproof.benchmarks.walk --backend simd,numpy,peer --output runs/every-float32
python -m ulproof.benchmarks.walk --output runs/every-float32 --table > docs/accuracy.md
```

`ulproof run --preset full` walks the C++ implementations, too, and its page shows the 65,536 numbers of each 16-bit type beside
them. {machine}"""

REST = """
## Not walked

- `swiglu`, `geglu`, `reglu` and `fatrelu_and_mul` are functions of two numbers: there are 2^64 inputs. Their activation is the
  functor that is walked here; the product after it is one multiplication.
- `bias_gelu` and `relu_zeros` and their kin call the same functors, after an addition or beside a count.
- `poly_norm` and `topk_relu` depend on whole rows; gradients of parameters are sums over all elements. `ulproof check` has
  them.
- In `rational_group` a number meets the denominator of its column's group: all groups, but each with an eighth of the line,
  128 neighbours in turn.
"""

TITLES = ("operator", "implementation", "ISA", "largest error", "at x", "not nearest", "flushed", "commit")

RULE = "|---|---|---|---:|---|---:|---:|---|"


def table(records: Sequence[Record], run: Mapping[str, Any]) -> str:
    """The page: a row for each walk in a run's records that came to its end."""
    machine_, versions = run["environment"].get("cpu") or {}, run["environment"].get("versions") or {}
    known = ", ".join(f"{name} {versions[name]}" for name in ("numpy", "torch") if versions.get(name))
    text = [PAGE.format(machine=f"Walked on {machine_.get('model')} with {known}.")]
    lines = [each for each in whole(records) if each["stress"] == STRESS]
    lines = [each for each in lines if each["ulp"] and each["ulp"]["outputs"] == NUMBERS]
    order = list(operators())
    for pass_ in ("forward", "backward"):
        rows: dict[tuple[str, ...], list[str]] = {}
        for each in sorted(lines, key=lambda each: (order.index(each["operator"]), BACKENDS.index(each["backend"]))):
            if each["pass"] == pass_:
                rows.setdefault(_row(each), []).append(f"`{each['isa']}`" if each["isa"] else "")
        if rows:
            text += [
                "",
                f"## {pass_.capitalize()}",
                "",
                f"| {' | '.join(TITLES)} |",
                RULE,
            ]
            text += [f"| {' | '.join((*row[:2], ', '.join(isas), *row[2:]))} |" for row, isas in rows.items()]
    return "\n".join([*text, REST])


BACKENDS = ("simd", "numpy", "peer", "reference")


def _row(line: Record) -> tuple[str, ...]:
    """The cells of a walk, without its ISA."""
    names = (f"`{line['operator']}`", f"`{line['implementation']}`")
    commits = ", ".join(f"`{each[:10]}{'+' * each.endswith('+')}`" for each in (line["commit"] or "").split(", ") if each)
    ulp = line["ulp"]
    at = re.search(r"x = (\S+), (0x\w+)", ulp["worst_input"] or "")
    return (
        *names,
        "not finite" if ulp["max"] is None else f"{ulp['max']:.3f}",
        f"{at[1]} (`{at[2]}`)" if at else "",
        f"{ulp['misrounded']:,} ({ulp['misrounded'] / ulp['outputs']:.2%})" if ulp["misrounded"] else "0",
        f"{ulp['flushed']:,}" if ulp["flushed"] else "0",
        commits,
    )


def main(arguments: list[str] | None = None) -> int:
    """Walk what the folder lacks of what is asked for, or print its table; exit code 2 when one of ours is beyond its bound."""
    parser = argparse.ArgumentParser(prog="python -m ulproof.benchmarks.walk", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("names", nargs="*", choices=[*judged(), []], metavar="OP", help="default: all of them")
    parser.add_argument("--backend", default="simd", help="by commas: simd (the default), numpy, peer, reference")
    parser.add_argument("--pass", dest="pass_", default="forward,backward")
    parser.add_argument("--output", default="runs/every-float32", metavar="FOLDER", help="kept, and continued")
    parser.add_argument("--again", action="store_true", help="walk also what the folder has: it is of an older commit")
    parser.add_argument("--table", action="store_true", help="walk nothing, print the folder's table as Markdown")
    given = parser.parse_args(arguments)
    from . import run
    from .progress import progress

    filters = {"backend": tuple(given.backend.split(",")), "pass": tuple(given.pass_.split(","))}
    options = run.Options(tuple(given.names), preset="full", filters=filters)
    if given.table:
        header, records = read(given.output)
        print(table(records, header), end="")
        return 0
    folder = RunFolder.resume(given.output) if Path(given.output, RUN).exists() else run.new(given.output, options)
    runner = run.Runner(folder, options, progress())
    runner.commit = environment.commit()
    if given.again:
        runner.done.clear()
    try:
        runner.walk(run.walk_pieces(options))
    finally:
        runner.close()
        folder.close()
    print(check_table(each for each in folder.records if each["operator"] in (given.names or operators())))
    return 2 if any(map(fails, whole(folder.records))) else 0


if __name__ == "__main__":
    sys.exit(main())

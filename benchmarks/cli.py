"""The command line. Each command imports what it needs when it runs, so that ``ulproof list`` answers at once."""

from __future__ import annotations

import argparse
import difflib
import json
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from .lookup import backends, load, operators
from .presets import FILTERS, PRESETS

if TYPE_CHECKING:
    from ulproof.impls.registry import Implementation

    from .compare import Comparison
    from .run import Counts, Options

OK, SLOWER, WRONG, INCONCLUSIVE, NOTHING, USAGE = 0, 1, 2, 3, 4, 64
WORST_FIRST = (USAGE, NOTHING, WRONG, SLOWER, INCONCLUSIVE, OK)
INTERRUPTED = 130


class Bad(Exception):
    """What the user can put right: one line that says what was wrong and what is allowed."""

    def __init__(self, message: str, code: int = USAGE) -> None:
        super().__init__(message)
        self.code = code


class Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise Bad(f"{message}; see {self.prog} --help")


def one_of(value: str, allowed: Iterable[str], what: str) -> str:
    """``value`` if it is allowed; otherwise an error that names what is, the closest first."""
    allowed = list(allowed)
    if value in allowed:
        return value
    close = difflib.get_close_matches(value, allowed, 3, 0.5)
    listed = f"did you mean {' or '.join(close)}?" if close else f"there are {', '.join(allowed)}"
    raise Bad(f"unknown {what} {value!r}; {listed}")


def known(name: str) -> tuple[str, ...]:
    """The values that a filter may have."""
    from .measure.environment import ISAS

    all_of = operators().values()
    return {
        "backend": backends(),
        "isa": tuple(ISAS),
        "dtype": tuple(dict.fromkeys(dtype for operator in all_of for dtype in operator.dtypes)),
        "pass": tuple(dict.fromkeys(pass_ for operator in all_of for pass_ in operator.passes)),
    }[name]


def target(value: str) -> str:
    kind, colon, index = value.partition(":")
    if value in ("cpu", "interpreter") or (kind == "cuda" and (index.isdigit() or not colon)):
        return "cuda:0" if value == "cuda" else value
    raise Bad(f"unknown target {value!r}; there are cpu, interpreter and cuda:0, cuda:1, ...")


def filters(arguments: argparse.Namespace) -> dict[str, tuple[str, ...]]:
    """The filters that were given, each checked."""
    found = {}
    for name in FILTERS:
        given = [part for value in getattr(arguments, name.replace("pass", "pass_")) or () for part in value.split(",")]
        for value in given:
            if name == "threads":
                if not value.isdigit() or int(value) < 1:
                    raise Bad(f"--threads takes whole numbers from 1, not {value!r}")
            elif name == "shape":
                if not all(part.isdigit() for part in value.split("x")):
                    raise Bad(f"--shape takes sizes such as 4096x1024, not {value!r}")
            elif name != "target":
                one_of(value, known(name), name)
        if given:
            found[name] = tuple(dict.fromkeys(target(value) if name == "target" else value for value in given))
    return found


def named(names: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Operators, and full names of implementations, from ``OP`` and ``OP:BACKEND/VARIANT``."""
    found: list[str] = []
    full: list[str] = []
    for name in names:
        operator, colon, variant = name.partition(":")
        one_of(operator, operators(), "operator")
        found.append(operator)
        if colon:
            full.append(f"{operator}:{one_of(variant, load(operator), f'implementation of {operator}')}")
    for operator in {name for name in names if ":" not in name} & {name.partition(":")[0] for name in full}:
        full += [each.full_name for each in load(operator).values()]
    for operator in set(found) - {name.partition(":")[0] for name in full} if full else ():
        full += [each.full_name for each in load(operator).values()]
    return tuple(dict.fromkeys(found)), tuple(dict.fromkeys(full))


def options(arguments: argparse.Namespace, preset: str = "quick") -> Options:
    from .run import Options

    which, full = named(arguments.names)
    fields = {name: value for name in ("budget", "seed") if (value := getattr(arguments, name, None)) is not None}
    return Options(which, full, getattr(arguments, "preset", None) or preset, filters(arguments), **fields)


def save(path: str | Path, content: str | bytes) -> None:
    """Write a file the user asked for, by way of a draft, so that a failure leaves what was there."""
    path = Path(path)
    draft = path.with_name(path.name + ".new")
    try:
        draft.write_bytes(content.encode() if isinstance(content, str) else content)
        draft.replace(path)
    except OSError as error:
        with suppress(OSError):
            draft.unlink()
        raise Bad(f"{path}: can't be written: {error.strerror}") from error


def as_json(arguments: argparse.Namespace, content: Any) -> None:
    if arguments.json:
        save(arguments.json, json.dumps(content, indent=1, default=str) + "\n")


# Commands: each takes the parsed arguments and returns an exit code.


def fits(each: Implementation, wanted: Mapping[str, Sequence[str]]) -> bool:
    """Whether an implementation can do something that these filters leave."""
    has = {"backend": {each.backend}, "dtype": {*each.dtypes}, "pass": {*each.passes}, "isa": {*each.isas}}
    has["threads"] = {*wanted.get("threads", ())} if each.threaded else {"1"}
    return all(values & {*wanted[name]} for name, values in has.items() if name in wanted)


def list_(arguments: argparse.Namespace) -> int:
    from .run import unavailable
    from .tables import columns

    which, full = named(arguments.names)
    wanted = filters(arguments)
    content = []
    for name in which or operators():
        operator = operators()[name]
        shown = []
        for each in load(name).values():
            if (full and each.full_name not in full) or not fits(each, wanted):
                continue
            places = (target(place) for place in each.targets)
            reasons = {place: unavailable(each, place) for place in places if place in wanted.get("target", [place])}
            if reasons:
                shown.append((each, reasons))
        content.append((operator, shown))
    if not any(shown for _, shown in content):
        raise Bad("nothing fits these filters; `ulproof list` without any shows what there is", NOTHING)
    for operator, shown in content:
        if shown:
            print(f"{operator.name}: {operator.summary}, {operator.formula}")
            rows = []
            for each, reasons in shown:
                states = "; ".join(f"{place}: {reason or 'ready'}" for place, reason in reasons.items())
                rows.append(("  " + each.name, ",".join(each.passes), ",".join(each.dtypes), states))
            print(columns(rows), end="\n\n")
    as_json(
        arguments,
        [
            {
                "operator": operator.name,
                "implementations": [
                    {"name": each.name, "passes": each.passes, "dtypes": each.dtypes, "isas": each.isas, "targets": reasons}
                    for each, reasons in shown
                ],
            }
            for operator, shown in content
        ],
    )
    return OK


def check(arguments: argparse.Namespace) -> int:
    from . import run
    from .progress import progress
    from .tables import check_table

    chosen = options(arguments, arguments.preset)
    items = run.check_items(chosen)
    if not items:
        raise Bad("nothing to check: no implementation that fits these filters can run here; `ulproof list` says why", NOTHING)
    runner = run.Runner(run.Unsaved(), chosen, progress())
    try:
        runner.check(items)
        runner.walk(run.walk_pieces(chosen))
    finally:
        runner.close()
    print(check_table(runner.folder.records))
    as_json(arguments, runner.folder.records)
    return WRONG if runner.counts.failing else OK


def run(arguments: argparse.Namespace) -> int:
    from . import run
    from .progress import progress
    from .tables import run_table

    if arguments.resume:
        folder, chosen = run.resumed(arguments.resume)
    else:
        chosen = options(arguments)
        folder = run.new(arguments.output or Path("runs", datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")), chosen)
    runner = run.Runner(folder, chosen, progress())
    try:
        counts = runner.run()
    except KeyboardInterrupt:
        raise Bad(f"stopped; `ulproof run --resume {folder.path}` measures what is missing", INTERRUPTED) from None
    as_json(arguments, folder.records)
    print(run_table(folder.records))
    if not counts.measured:
        raise Bad(nothing(folder.records), NOTHING)
    page = write_report([folder.path], folder.path / "report.html")
    newest = Path("report.html")
    save(newest, page)
    print(summary(folder.records, counts, folder.run, folder.path, newest))
    return counts.exit_code()


def nothing(records: Sequence[Mapping[str, Any]]) -> str:
    """Why a run measured nothing, in one line."""
    reasons = list(dict.fromkeys(f"{row['status']}: {row['reason']}" for row in records if row["kind"] == "time"))
    return "nothing was measured: " + (
        "; ".join(reasons[:3]) or "no workload fits these filters; the interpreter is for `ulproof check`"
    )


def summary(records: Sequence[Mapping[str, Any]], counts: Counts, run: Mapping[str, Any], folder: Path, page: Path) -> str:
    """Five lines on a run: what was measured, how quiet it was, what is wrong, what is missing, where the page is."""
    from .record import whole

    rows = [row for row in whole(records) if row["kind"] == "time"]
    pairs = {(row["group"], row["noise"], str(row["axes"]), row["cache"]): row for row in rows if row.get("noise") is not None}
    noisy = sorted(pairs.values(), key=lambda row: row["noise"])
    times: dict[str, int] = {}
    for row in rows:
        times[row["status"]] = times.get(row["status"], 0) + 1
    checks = [row for row in records if row["kind"] == "accuracy"]
    others = max((each["others"] for each in run.get("watch", {}).values()), default=0.0)
    floor = "no twins"
    if noisy:
        worst, typical = noisy[-1], noisy[len(noisy) // 2]["noise"]
        shape = "x".join(map(str, worst["axes"].values()))
        where = f"{worst['operator']} {worst['pass']} {worst['dtype']} {shape} {worst['cache']}, {worst['threads']} thread(s)"
        floor = f"identical code differed by {typical:.2%} (median), {worst['noise']:.1%} at worst: {where}"
    bad = sorted({f"{row['operator']}:{row['implementation']}" for row in counts.failing})
    warnings = sum(each["severity"] == "warning" for each in run.get("findings", ()))
    missing = ", ".join(f"{number} {status}" for status, number in sorted(times.items()) if status != "ok")
    return "\n".join(
        (
            f"Measured {counts.measured} of {len(rows)} rows in {run['plan'].get('used_seconds', 0):.0f} s of measuring"
            f"{f': {missing}' if missing else ''}.",
            f"Noise: {floor}; other programs took up to {others:.2f} cores; doctor has {warnings} warning(s).",
            f"Numerics: {len(checks)} checks, {'of ours these fail: ' + ', '.join(bad) if bad else 'none of ours fails'}.",
            f"Records: {folder}; `ulproof run --resume {folder}` measures what is missing.",
            f"Page: {page.resolve()}",
        )
    )


def write_report(
    runs: Sequence[str | Path], path: str | Path, wanted: Mapping[str, Sequence[str]] | None = None, **others: Any
) -> str:
    from ulproof import reports

    page = reports.render(narrowed(reports.load(runs, **others), wanted or {}))
    save(path, page)
    return page


def compare(arguments: argparse.Namespace) -> int:
    from . import compare as engine
    from . import saved
    from .builds import BuildError
    from .progress import progress

    if len(arguments.names) == 1 and saved.is_saved(arguments.spec):
        base, head = (saved.load(path) for path in (arguments.spec, *arguments.names))
        return show(arguments, saved.compare(base, head, arguments.margin or 0.02, filters(arguments)))
    which, full = named(arguments.names)
    fields = {
        name: value for name in ("margin", "budget", "seed", "patience") if (value := getattr(arguments, name)) is not None
    }
    chosen = engine.Options(which, full, filters(arguments), everything=arguments.all, rebuild=arguments.rebuild, **fields)
    output = Path(arguments.output or Path("runs", f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-compare-{os.getpid()}"))
    try:
        found = engine.compare(
            arguments.spec, chosen, output, progress(), lambda text: print(text, file=sys.stderr, flush=True)
        )
    except BuildError as error:
        raise Bad(str(error), NOTHING) from None
    except engine.Refused as error:
        raise Bad(str(error), error.code) from None
    return show(arguments, found)


def show(arguments: argparse.Namespace, found: Comparison) -> int:
    """Print a comparison, write it where it is wanted, and return its exit code."""
    from . import compare as engine

    as_json(arguments, found.as_json())
    if arguments.markdown:
        save(arguments.markdown, engine.markdown(found))
    print(engine.table(found))
    return found.exit_code()


def ceilings(arguments: argparse.Namespace) -> int:
    from . import run
    from .progress import progress
    from .tables import ceiling_table

    wanted = filters(arguments)
    here = run.machine(wanted)
    if not here.targets:
        raise Bad(f"{', '.join(wanted['target'])}: not there; here are {', '.join(run.machine({}).targets)}", NOTHING)
    runner = run.Runner(run.Unsaved(), run.Options(filters=wanted), progress())
    counts = [int(each) for each in wanted.get("threads", ())] or sorted({1, here.cores})
    try:
        runner.measure_ceilings(here.targets, counts)
    finally:
        runner.close()
    if not runner.ceilings.records:
        raise Bad(f"no ceiling could be measured: {'; '.join(str(row['reason']) for row in runner.folder.records)}", NOTHING)
    print(ceiling_table(runner.folder.records))
    as_json(arguments, runner.folder.records)
    return OK


def doctor(arguments: argparse.Namespace) -> int:
    from .measure.doctor import findings

    found = findings()
    for each in found:
        print(f"{each['severity']:8} {each['what']}" + (f"\n{'':8} -> {each['fix']}" if each["fix"] else ""))
    as_json(arguments, found)
    return OK


def newest_run(runs: Sequence[str]) -> list[Path]:
    """The runs that were named, else the newest below ``runs/``."""
    if runs:
        return [Path(each) for each in runs]
    found = sorted(path.parent for path in Path("runs").glob("*/run.json"))
    if not found:
        raise Bad("no run was named and there is none in runs/; `ulproof run` makes one", NOTHING)
    return found[-1:]


def report(arguments: argparse.Namespace) -> int:
    others = {name: given for name in ("asv", "pytest_benchmark") if (given := getattr(arguments, name))}
    runs = [] if others and not arguments.runs else newest_run(arguments.runs)
    write_report(runs, arguments.output, filters(arguments), **others)
    print(Path(arguments.output).resolve())
    return OK


def roofline(arguments: argparse.Namespace) -> int:
    from ulproof import reports

    ending = one_of(Path(arguments.output).suffix.lower().lstrip("."), ("svg", "png"), "kind of picture")
    names = [each for each in arguments.names if each.partition(":")[0] in operators()]
    runs = reports.load(newest_run([each for each in arguments.names if each not in names]))
    save(arguments.output, reports.roofline(narrowed(runs, filters(arguments)), list(named(names)[0]), ending))
    print(Path(arguments.output).resolve())
    return OK


def export(arguments: argparse.Namespace) -> int:
    from ulproof import reports

    reports.export(narrowed(reports.load(newest_run(arguments.runs)), filters(arguments)), arguments.output)
    print(Path(arguments.output).resolve())
    return OK


def narrowed(runs: Any, wanted: Mapping[str, Sequence[str]]) -> Any:
    """The rows of a frame of records that pass the filters."""
    for name, values in wanted.items():
        if name == "shape":
            axes = [column for column in runs.columns if column.startswith("axes.")]
            shapes = runs[axes].apply(lambda row: "x".join(f"{value:.0f}" for value in row.dropna()), axis=1)
            runs = runs[shapes.isin(values) | (shapes == "")]
            continue
        kept = [float(value) for value in values] if name == "threads" else list(values)
        runs = runs[runs[name].isin(kept) | runs[name].isna()]
    return runs


def parser() -> Parser:
    whole = Parser(
        prog="ulproof", description="How fast and how accurate each implementation of an operator is, against measured roofs."
    )
    commands = whole.add_subparsers(title="commands", metavar="COMMAND", required=True)
    common = Parser(add_help=False)
    group = common.add_argument_group("filters (several: repeat or separate by commas)")
    group.add_argument("--backend", action="append", metavar="NAME", help=", ".join(backends()))
    group.add_argument("--target", action="append", metavar="NAME", help="cpu, interpreter, cuda:0")
    group.add_argument("--isa", action="append", metavar="NAME", help="avx512, avx2, neon")
    group.add_argument("--dtype", action="append", metavar="NAME", help="float32, float16, bfloat16")
    group.add_argument("--pass", action="append", metavar="NAME", dest="pass_", help="forward, backward")
    group.add_argument("--shape", action="append", metavar="ROWSxN", help="of those that a card lists, such as 4096x1024")
    group.add_argument("--threads", action="append", metavar="N")
    common.add_argument("--json", metavar="FILE", help="also write the result as JSON")

    def command(name: str, function: Callable[[argparse.Namespace], int], text: str, *names: str) -> Parser:
        added = commands.add_parser(name, help=text, description=text, parents=[common])
        added.set_defaults(function=function)
        if names:
            added.add_argument(names[0], nargs="*", metavar=names[1], default=[], help=names[2])
        return added

    ops = ("names", "OP", "an operator, or OP:BACKEND/VARIANT; none: all")
    some = ("runs", "RUN", "run folders; none: the newest in runs/")
    command("list", list_, "operators and implementations, and why one can't run here", *ops)
    added = command("check", check, "numerics only", *ops)
    added.add_argument(
        "--preset",
        default="standard",
        choices=PRESETS,
        help="quick: one shape for each stress input; full: also every float32 number",
    )
    added = command("run", run, "check, measure, record; table; report", *ops)
    added.add_argument("--preset", default="quick", choices=PRESETS)
    added.add_argument("--budget", type=positive, metavar="SECONDS", help="of measuring; the quick preset's is 90")
    added.add_argument("--seed", type=int, metavar="N", help="of inputs and orders")
    added.add_argument("--output", metavar="FOLDER", help="default: runs/<UTC time>")
    added.add_argument("--resume", metavar="RUN", help="go on with a run that was cut short")
    added = command("compare", compare, "build two commits, take turns, verdicts with numerics")
    added.add_argument(
        "spec",
        metavar="BASE[..HEAD]",
        help="commits, branches or tags; without HEAD the working tree. Or two saved results, as BASE HEAD: run folders, "
        "or JSON files of pytest-benchmark",
    )
    added.add_argument("names", nargs="*", metavar="OP", default=[], help=ops[2])
    added.add_argument("--margin", type=percentage, metavar="X", help="what is called the same: 2%% (the default) or 0.02")
    added.add_argument("--budget", type=positive, metavar="SECONDS", help="of measuring, at most; default 120")
    added.add_argument("--all", action="store_true", help="measure identical code, too")
    added.add_argument("--rebuild", action="store_true", help="build each side anew and alone, even where its code is known")
    added.add_argument("--seed", type=int, metavar="N", help="of orders and buffers")
    added.add_argument(
        "--patience", type=positive, metavar="SECONDS", help="without a sign of life, until a call hangs; default 60"
    )
    added.add_argument("--markdown", metavar="FILE", help="also write it for a pull request")
    added.add_argument("--output", metavar="FOLDER", help="default: runs/<UTC time>-compare-<process>")
    command("ceilings", ceilings, "the roofs of this machine")
    added = command("report", report, "one self-contained HTML page", *some)
    added.add_argument("--asv", action="append", metavar="DIR", help="results of asv")
    added.add_argument("--pytest-benchmark", action="append", metavar="FILE", help="results of pytest-benchmark")
    added.add_argument("-o", "--output", default="report.html", metavar="FILE")
    added = command("roofline", roofline, "a picture of the rooflines", "names", "RUN|OP", "run folders and operators")
    added.add_argument("-o", "--output", default="roofline.svg", metavar="FILE")
    added = command("export", export, "records as a table", *some)
    added.add_argument("-o", "--output", default="records.csv", metavar="FILE")
    command("doctor", doctor, "what on this machine will spoil measurements, and the command that fixes each")
    return whole


def positive(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"must be above 0, not {text}")
    return value


def percentage(text: str) -> float:
    value = float(text.rstrip("%")) / (100 if text.endswith("%") else 1)
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"must lie between 0 and 100%, not {text}")
    return value


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; errors are one line on standard error. Returns the exit code."""
    from .record import RunError

    try:
        arguments = parser().parse_args(argv)
        return int(arguments.function(arguments))
    except Bad as error:
        print(f"ulproof: {error}", file=sys.stderr)
        return error.code
    except (RunError, ValueError) as error:
        print(f"ulproof: {error}", file=sys.stderr)
        return USAGE
    except KeyboardInterrupt:
        print("ulproof: stopped", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # the reader of our output has gone, as `head` does
        sys.stderr.close()
        return OK


if __name__ == "__main__":
    sys.exit(main())

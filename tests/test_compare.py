"""``ulproof compare``: what is judged, by which card, in which order; verdicts, exit codes and what is printed. Times are
invented, except in one comparison of real builds, which asserts nothing about them that could depend on the machine."""

from __future__ import annotations

import json
import math
import runpy
from collections.abc import Iterator, Mapping
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest

from ulproof.benchmarks import cli, compare, duel
from ulproof.benchmarks.check import Item
from ulproof.benchmarks.compare import Comparison, Contest, Options, Referee, plain
from ulproof.benchmarks.measure import gpu
from ulproof.benchmarks.measure.verdict import Trial
from ulproof.benchmarks.record import problem, read
from ulproof.benchmarks.supervise import Died, Setting

PROJECT: dict[str, Any] = runpy.run_path(str(Path(__file__).with_name("project.py")))
SIDES = {"name": "side", "commit": None, "tree": "0"}


# What is printed, and exit codes


def ratio(estimate: float, spread: float = 0.001) -> dict[str, float]:
    return {"estimate": estimate, "low": estimate - spread, "high": estimate + spread, "confidence": 0.99}


def row(verdict: str | None, estimate: float = 1.0, **fields: Any) -> dict[str, Any]:
    times: dict[str, Any] = {"ratio": ratio(estimate), "base_seconds": 1e-6, "head_seconds": 1e-6 * estimate}
    where = {"axes": {"rows": 1, "n": 64}, "dtype": "float32", "pass": "forward", "target": "cpu", "threads": 1, "cache": "hot"}
    measured = verdict in ("slower", "faster", "same", "inconclusive") and fields.get("reason") != compare.IDENTICAL
    return plain("softmax", "simd/auto", verdict, **where | (times if measured else {}) | fields)


SAME, SLOWER, OPEN = row("same"), row("slower", 1.05), row("inconclusive", 1.02)
IDENTICAL = row("same", reason=compare.IDENTICAL)
WRONG = row("faster", 0.9, status="wrong", reason="3 ULP", fails=True, base_ulp=1.5, head_ulp=3.0)
UNMEASURED = row(None, status="not measured", reason="budget")
ABSENT = row(None, status="unavailable", reason="no GPU")
LOST = row(None, status="crashed", reason="base: SIGSEGV")


@pytest.mark.parametrize(
    ("rows", "code"),
    [
        ([], 4),
        ([SAME], 0),
        ([IDENTICAL], 0),
        ([SAME, row("faster", 0.9)], 0),
        ([SAME, SLOWER], 1),
        ([SAME, SLOWER, OPEN], 1),
        ([SAME, SLOWER, WRONG], 2),
        ([WRONG], 2),
        ([SAME, OPEN], 3),
        ([SAME, UNMEASURED], 3),
        ([SAME, LOST], 3),
        ([SAME, ABSENT], 0),
        ([ABSENT], 4),
        ([UNMEASURED], 4),
        ([LOST], 4),
        ([row("new"), row("removed")], 4),
    ],
)
def test_the_worst_row_decides_the_exit_code(rows: list[dict[str, Any]], code: int) -> None:
    assert Comparison(SIDES, SIDES, rows).exit_code() == code


def test_counts_say_what_became_of_the_plan() -> None:
    rows = [SAME, IDENTICAL, SLOWER, WRONG, UNMEASURED, UNMEASURED, ABSENT, LOST, row("new")]
    assert Comparison(SIDES, SIDES, rows).counts() == {
        "planned": 8,
        "measured": 3,
        "identical": 1,
        "skipped": {"not measured: budget": 2, "unavailable: no GPU": 1},
        "failed": 2,
    }


def test_the_table_begins_with_what_matters_and_leaves_out_what_is_identical() -> None:
    found = Comparison(SIDES, {**SIDES, "name": "topic"}, [IDENTICAL, SAME, OPEN, SLOWER, WRONG], 0.02, 120.0, 31.4)
    found.contracts.append("softmax: forward gate")
    lines = compare.table(found).splitlines()
    assert [line.split("  ")[-1] for line in lines[1:5]] == ["WRONG, faster: 3 ULP", "slower", "inconclusive", "same"]
    assert "1.5 -> 3" in lines[1] and "+5.00% (+4.90 .. +5.10)" in lines[2]
    assert "contract changed: softmax: forward gate" in lines
    assert "31 of 120 s spent measuring" in lines[-3]
    said = "wrong numerics: topic against side: 1 WRONG, 1 slower, 1 faster, 1 inconclusive, 1 same, 1 same (identical code)"
    assert lines[-1] == said


def test_markdown_folds_what_did_not_change() -> None:
    rows = [SAME, row("slower", 1.05, reason="a | b <i>"), UNMEASURED]
    text = compare.markdown(Comparison(SIDES, SIDES, rows, budget=120.0))
    first, rest = text.split("<details>")
    assert text.startswith("**slower: side against side: 1 slower, 1 same, 1 not judged**\n\n| workload |")
    assert "+5.00%" in first and "a \\| b &lt;i>" in first and first.count("\n| softmax") == 1
    assert "<summary>2 others</summary>\n\n| workload |" in rest and rest.count("\n| softmax") == 2
    assert rest.rstrip().splitlines()[-1].startswith("- Planned 3, measured 2")


def test_json_and_records_keep_to_their_layout() -> None:
    rows = [IDENTICAL, SAME, SLOWER, OPEN, WRONG, UNMEASURED, LOST, row("new")]
    assert [problem(each) for each in rows] == [None] * len(rows)
    content = json.loads(json.dumps(Comparison(SIDES, SIDES, rows).as_json(), allow_nan=False))
    assert content["format"] == compare.FORMAT and content["exit_code"] == 2 and len(content["rows"]) == len(rows)
    named = str(compare.__doc__).partition("::")[2].partition("A record of kind")[0]
    assert all(f'"{name}"' in named for name in content), "the docstring names every field"


# What is compared


def described(**implementations: Any) -> dict[str, Any]:
    plain = {"code": "1", "bound": {}, "vouched": True, "slack": 0.25, "passes": ["forward"], "dtypes": ["float32"]}
    listed = {name.replace("__", "/").replace("_", "-"): plain | fields for name, fields in implementations.items()}
    return {"softmax": {"contract": {"forward gate": "a", "stress": "b"}, "implementations": listed}}


def test_implementations_are_new_removed_identical_or_changed() -> None:
    base = described(numpy__three_pass={}, simd__auto={"code": "1"}, simd__old={})
    head = described(numpy__three_pass={}, simd__auto={"code": "2"}, simd__new={})
    match = compare.Match(base, head, Options())
    rows = {each["implementation"]: (each["verdict"], each["reason"]) for each in match.rows}
    assert rows == {
        "numpy/three-pass": ("same", "identical code"),
        "simd/old": ("removed", None),
        "simd/new": ("new", None),
    }
    assert match.changed == [("softmax", "simd/auto")]
    assert compare.Match(base, head, Options(everything=True)).changed[0] == ("softmax", "numpy/three-pass")
    assert compare.Match(base, {}, Options(operators=("relu",))).rows == []


def test_a_deleted_operator_is_listed_and_judges_nothing() -> None:
    match = compare.Match(described(simd__auto={}), {}, Options())
    assert [each["verdict"] for each in match.rows] == ["removed"] and not match.changed


def test_a_changed_card_is_named_with_what_changed() -> None:
    base = described(simd__auto={"bound": {"forward float32": 2.0}}, numpy__three_pass={})
    head = described(simd__auto={"bound": {"forward float32": 9.0}}, numpy__three_pass={"vouched": False})
    head["softmax"]["contract"] = {"forward gate": "changed", "stress": "b", "params": "c"}
    assert compare.Match(base, head, Options()).contracts() == [
        "softmax: forward gate, params",
        "softmax:numpy/three-pass: bound",
        "softmax:simd/auto: bound",
    ]


def test_workloads_are_the_quick_presets_where_they_can_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compare, "machine", lambda filters: compare.presets.Machine(("cpu",), ("avx2",), 2))
    base, head = (described(numpy__three_pass={"code": code}, cuda__online={"code": code}) for code in "12")
    match = compare.Match(base, head, Options(filters={"dtype": ("float32",), "pass": ("forward",)}))
    contests = list(match.contests())
    assert {each.row["implementation"] for each in contests} == {"numpy/three-pass"}
    assert len({json.dumps(each.row["axes"]) for each in contests}) == len(contests) > 5
    (left_out,) = match.rows
    assert (left_out["implementation"], left_out["status"]) == ("cuda/online", "unavailable")


def test_a_fingerprint_knows_functions_by_what_they_do() -> None:
    def gate(factor: int, doubled: bool = False) -> Any:
        return (lambda x: 2 * factor * x) if doubled else (lambda x: factor * x)

    assert duel.digest(gate(2)) == duel.digest(gate(2))
    assert len({duel.digest(each) for each in (gate(2), gate(3), gate(2, True), {"a": gate(2)}, [1], {"b": 1}, {"b": 2})}) == 7
    assert duel.digest({"a": 1, "b": 2}) == duel.digest({"b": 2, "a": 1})


# Numerics


def item(stress: str = "normal", name: str = "simd/auto") -> Item:
    return Item("softmax", name, "forward", (("rows", 1), ("n", 64)), "float32", stress=stress)


def result(status: str = "ok", most: float | None = 1.0, reason: str | None = None) -> dict[str, Any]:
    return {"status": status, "reason": reason, "ulp": {"max": most}}


OURS = {"softmax:simd/auto"}
SLACK = {"softmax:simd/auto": 0.25}
OWN = "9 ULP, beyond its own bound of 2"


@pytest.mark.parametrize(
    ("before", "after", "strict", "status", "fails"),
    [
        (result(), result(), OURS, "ok", False),
        (result(most=1.7), result(most=1.9), OURS, "ok", False),
        (result(most=1.5), result(most=2.0), OURS, "wrong", True),
        (result(most=60.0), result(most=70.0), OURS, "ok", False),
        (result(most=60.0), result(most=80.0), set(), "wrong", True),
        (result(), result("inaccurate", 2.1, OWN), OURS, "inaccurate", True),
        (result("inaccurate", 9.0, OWN), result("inaccurate", 9.0, OWN), OURS, "inaccurate", True),
        (result("inaccurate", 9.0), result("inaccurate", 9.0), set(), "ok", False),
        (result("wrong", None), result("wrong", None), OURS, "wrong", True),
        (result("wrong", None), result("wrong", None), set(), "ok", False),
        (result(), result("wrong", None), set(), "wrong", True),
        (result(), result("crashed"), set(), "crashed", True),
        (result(), result("timeout"), OURS, "timeout", True),
        (result(), result("unavailable"), set(), "unavailable", True),
        (result("unavailable"), result("unavailable"), set(), "ok", False),
        (result("wrong", None), result(), OURS, "ok", False),
    ],
)
def test_what_fails_a_check(before: Any, after: Any, strict: set[str], status: str, fails: bool) -> None:
    (found,) = compare.judged([item()], [before], [after], strict, SLACK).values()
    assert (found.status, found.fails) == (status, fails), found


def test_the_stricter_sides_slack_counts() -> None:
    for said, used in ((None, 0.25), (0.1, 0.1), (0.9, 0.25)):
        base = described(simd__auto={"slack": said})
        assert compare.Match(base, base, Options()).slack("softmax", "simd/auto") == used
    (found,) = compare.judged([item()], [result(most=1.0)], [result(most=1.2)], OURS, {"softmax:simd/auto": 0.1}).values()
    assert found.fails and found.reason == "error grew from 1 to 1.2 ULP; the card allows 1.1"


def test_the_largest_errors_over_all_checks_are_compared() -> None:
    items = [item("normal"), item("equal"), item("nan")]
    base = [result(most=1.0), result(most=2.0), result(most=0.0)]
    head = [result(most=2.0), result(most=1.0), result(most=0.0)]
    (found,) = compare.judged(items, base, head, OURS, SLACK).values()
    assert (found.base_ulp, found.head_ulp, found.fails) == (2.0, 2.0, False)
    (lost,) = compare.judged(items, base, [*head[:2], result("wrong", None, "NaN")], OURS, SLACK).values()
    assert (lost.head_ulp, lost.status, lost.reason) == (None, "wrong", "nan: NaN")


def test_judgements_reach_the_workloads_and_failures_that_are_not_timed_get_a_row() -> None:
    contest = made()
    place = compare.mark(contest.row)
    other = (*place[:3], "float16", *place[4:])
    bad = compare.Judgement(1.0, 9.0, "wrong", "9 ULP", True)
    (extra,) = compare.weighed([contest], {place: compare.Judgement(1.0, 1.5), other: bad})
    assert (contest.row["base_ulp"], contest.row["head_ulp"], contest.row["fails"]) == (1.0, 1.5, False)
    assert (extra["dtype"], extra["fails"], extra["verdict"]) == ("float16", True, None) and problem(extra) is None


def test_a_crash_in_a_check_costs_its_kind_and_no_more(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    class Crashing(Invented):
        def work(self, job: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
            for each in job["items"]:
                if each["stress"] == "equal":
                    raise Died("crashed", "", "SIGSEGV")
                yield {"record": result()}

    monkeypatch.setattr(compare, "Worker", Crashing)
    items = [item("normal"), item("equal"), item("nan"), item("nan", "simd/two-pass")]
    referee = Referee({"head": tmp_path}, Options(), tmp_path)
    assert [each["status"] for each in referee._check("head", items, None)] == ["ok", "crashed", "not measured", "ok"]


# Taking turns, with workers that answer what a test wants


class Clock:
    now = 0.0


class Invented:
    """A worker whose kernels take invented seconds; ``Clock`` passes as they would."""

    def __init__(self, setting: Setting, stop: Any = None) -> None:
        self.setting = setting

    def ask(self, job: Mapping[str, Any], patience: float) -> Iterator[dict[str, Any]]:
        yield from self.work(job)

    def work(self, job: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        raise NotImplementedError

    def close(self) -> None: ...


def made(n: int = 64, **fields: Any) -> Contest:
    row = plain("softmax", "simd/auto", None, axes={"rows": 1, "n": n}, dtype="float32", target="cpu", isa=None)
    row |= {"pass": "forward", "threads": 1, "cache": "hot", "margin": 0.02}
    return Contest(row, Setting((0,)), Trial(0.02), **fields)


def play(monkeypatch: pytest.MonkeyPatch, worker: type, contests: list[Contest], path: Path, **options: Any) -> list[Any]:
    monkeypatch.setattr(compare, "Worker", worker)
    monkeypatch.setattr(compare.time, "monotonic", lambda: Clock.now)
    Clock.now = 0.0
    found: list[Any] = []
    sides = {side: path / side for side in ("base", "twin", "head")}
    Referee(sides, Options(**options), path).measure(contests, found.append)
    assert [problem(each) for each in found] == [None] * len(found)
    return found


def duelling(effect: Mapping[int, float], noise: float = 0.001, cost: float = 0.2) -> type:
    """Workers in whose process head is ``effect[n]`` slower, give or take ``noise`` from restart to restart."""
    generator = Random(1)

    class Duelling(Invented):
        def work(self, job: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
            assert job["do"] == "duel" and set(job["builds"]) == {"base", "head", "twin"}
            Clock.now += cost
            head = math.log1p(effect[job["axes"]["n"]]) + generator.gauss(0, noise)
            seconds = {"base": 1e-6, "head": 1e-6 * math.exp(head), "twin": 1e-6}
            twin = generator.gauss(0, noise)
            yield {"head": head, "twin": twin, "seconds": seconds, "rounds": 50, "dropped": 0, "used": cost}

    return Duelling


def test_verdicts_come_as_they_are_settled(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    effect = {64: 0.0, 128: 0.05, 256: -0.05, 512: 0.02}
    found = play(monkeypatch, duelling(effect), [made(n) for n in effect], tmp_path)
    assert {each["axes"]["n"]: each["verdict"] for each in found} == {
        64: "same",
        128: "slower",
        256: "faster",
        512: "inconclusive",
    }
    assert [each["verdict"] for each in found][-1] == "inconclusive", "the open one went on to the end"
    assert found[-1]["restarts"] > 10 * found[0]["restarts"] == 50
    slower = next(each for each in found if each["verdict"] == "slower")
    assert len(slower["ratios"]) == len(slower["twin_ratios"]) == slower["restarts"] and slower["rounds"] == 250
    assert slower["ratio"]["estimate"] == pytest.approx(1.05, rel=2e-3)
    assert slower["ratio"]["confidence"] == pytest.approx(1 - 0.01 / 4 / 2), "four workloads, the first look"


def test_the_budget_ends_it_and_the_rest_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    contests = [made(64), made(128)]
    found = play(monkeypatch, duelling({64: 0.019, 128: 0.021}, noise=0.003), contests, tmp_path, budget=4.0)
    assert Clock.now <= 4.0 and {each["verdict"] for each in found} == {"inconclusive"}
    said = compare.more(contests, Options(budget=4.0))
    assert said and said.startswith("2 inconclusive; about ") and "(--budget " in said


def test_what_does_not_fit_into_the_budget_is_not_measured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    effect = dict.fromkeys(range(1, 101), 0.0)
    found = play(monkeypatch, duelling(effect), [made(n) for n in effect], tmp_path, budget=10.0)
    measured = [each for each in found if each["verdict"]]
    assert len(found) == 100 and {each["reason"] for each in found if not each["verdict"]} == {"budget"}
    assert {each["verdict"] for each in measured} == {"same"} and max(each["axes"]["n"] for each in measured) == len(measured)
    confidence = measured[0]["ratio"]["confidence"]
    assert confidence == pytest.approx(1 - 0.01 / len(measured) / 2), "corrected for those that are judged"


def test_identical_code_that_differs_makes_a_group_inconclusive(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    class Unlucky(duelling({64: 0.2})):  # type: ignore[misc]
        def work(self, job: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
            for answer in super().work(job):
                yield answer | {"twin": answer["twin"] + 0.05}

    (row,) = play(monkeypatch, Unlucky, [made()], tmp_path, budget=10.0)
    assert row["verdict"] == "inconclusive" and row["reason"].startswith("identical code differs: +5")
    assert row["restarts"] > 40, "it was tried again"


def test_a_side_that_raises_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for side, fails in (("head", True), ("base", False)):

        class Raising(Invented):
            def work(self, job: Mapping[str, Any], side: str = side) -> Iterator[dict[str, Any]]:
                yield {"side": side, "status": "crashed", "reason": "ValueError: no"}

        (row,) = play(monkeypatch, Raising, [made()], tmp_path)
        assert (row["status"], row["reason"], row["fails"]) == ("crashed", f"{side}: ValueError: no", fails)


def seats(seconds: Mapping[str, Any], dies: str = "", noise: float = 0.001) -> type:
    """Workers that hold one side each; ``seconds`` may be ``None`` for a GPU that is slowed down. ``dies`` dies when called,
    and takes a shared process with it."""
    generator = Random(2)

    class Seat(Invented):
        side = ""

        def work(self, job: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
            Clock.now += 0.01
            if job["do"] == "duel":
                raise Died("crashed", "base", "SIGSEGV")
            if job["do"] == "hold":
                (self.side,) = job["builds"]
                yield {"calls": 3, "seconds": 1e-4}
            if job["do"] == "sample":
                if self.side == dies:
                    raise Died("crashed", self.side, "SIGSEGV")
                taken = seconds[self.side]
                taken = taken() if callable(taken) else taken
                yield {"seconds": taken and taken * math.exp(generator.gauss(0, noise))}

    return Seat


def test_a_shared_process_that_dies_gives_way_to_one_for_each_side(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    times = {"base": 1e-4, "head": 1.1e-4, "twin": 1e-4}
    (row,) = play(monkeypatch, seats(times), [made()], tmp_path)
    assert row["verdict"] == "slower" and row["ratio"]["estimate"] == pytest.approx(1.1, rel=1e-2)
    for side, fails in (("head", True), ("base", False)):
        (row,) = play(monkeypatch, seats(times, side), [made()], tmp_path)
        assert (row["verdict"], row["reason"], row["fails"]) == (None, f"{side}: SIGSEGV", fails)


def test_rounds_in_which_a_gpu_was_slowed_down_are_dropped_and_counted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    turn = iter(range(10**6))
    times = {"base": 1e-4, "head": lambda: None if next(turn) % 3 == 0 else 1e-4, "twin": 1e-4}
    (row,) = play(monkeypatch, seats(times), [made(apart=True)], tmp_path)
    assert row["verdict"] == "same" and row["dropped"] == pytest.approx((row["rounds"] + row["dropped"]) / 3, abs=1)
    never = {"base": 1e-4, "head": None, "twin": 1e-4}
    (row,) = play(monkeypatch, seats(never), [made(apart=True)], tmp_path, budget=5.0)
    assert (row["verdict"], row["reason"]) == (None, "every round was throttled")


def test_a_sample_that_stayed_throttled_is_no_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    slowed = [True] * (gpu.RETRIES + 1)
    watch = SimpleNamespace(slowed=lambda: slowed.pop() if slowed else False)
    timer = gpu.Timer(lambda: None, "cold", None, lambda: None, watch, lambda seconds: None)
    timer.sample = lambda calls: 1e-4
    monkeypatch.setattr(duel.Held, "side", "head", raising=False)
    monkeypatch.setattr(duel.Held, "sampler", timer, raising=False)
    pulse: Any = SimpleNamespace(beat=lambda name: None)
    assert list(duel.sample({"calls": 1}, pulse)) == [{"seconds": None}]
    assert list(duel.sample({"calls": 1}, pulse)) == [{"seconds": 1e-4}]


def test_a_restart_says_the_median_of_its_paired_ratios() -> None:
    rounds = [{"base": 1.0, "head": 1.1, "twin": 1.0}] * 3 + [{"base": 1.0, "head": 9.0, "twin": 5.0}]
    said = duel.summary([*rounds, {"base": 1.0, "head": math.nan, "twin": 1.0}])
    assert (said["rounds"], said["dropped"]) == (4, 1)
    assert said["head"] == pytest.approx(math.log(1.1)) and said["twin"] == 0.0
    assert duel.summary([{"base": math.nan, "head": 1.0, "twin": 1.0}]) == {"rounds": 0, "dropped": 1}


def test_what_buffers_do_to_a_ratio_cancels() -> None:
    """Twin on buffers that cost 10%, then base and head on them: neither says anything about their code."""
    lucky, unlucky = 1.0, 1.1
    first = [{"base": lucky, "head": 1.05 * lucky, "twin": unlucky}] * 3
    second = [{"base": unlucky, "head": 1.05 * unlucky, "twin": lucky}] * 9
    said = duel.summary(first, second)
    assert said["twin"] == pytest.approx(0.0) and said["head"] == pytest.approx(math.log(1.05))
    assert "head" not in duel.summary(first, []), "half of a restart is none"


def test_buffers_move_but_hold_the_same_values(tmp_path: Path) -> None:
    job = {"operator": "softmax", "pass": "backward", "dtype": "bfloat16", "axes": {"rows": 3, "n": 65}, "target": "cpu"}
    values = duel.drawn(job | {"inputs": str(tmp_path)})
    assert [(each.shape, each.dtype.name) for each in values] == [((3, 65), "bfloat16")] * 2
    again = duel.drawn(job | {"inputs": str(tmp_path)})
    assert all((one == other).all() for one, other in zip(values, again, strict=True))
    ground = duel.Ground(job, values, Random(3))
    places = set()
    for _ in range(20):
        inputs, outputs = ground.place()
        assert all((one == other).all() for one, other in zip(inputs, values, strict=True))
        places.add(tuple(each.ctypes.data for each in (*inputs, *outputs)))
        assert all(each.ctypes.data % duel.LINE == 0 for each in (*inputs, *outputs))
    assert len({place[0] for place in places}) > 15 and len({place[-1] for place in places}) > 15


# Real builds


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, root: Path) -> Iterator[Any]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ULPROOF_CACHE", str(tmp_path_factory.mktemp("cache")))
        made = PROJECT["Project"](tmp_path_factory.mktemp("project"), root)
        numpy, card = "impls/softmax/numpy.py", "impls/softmax/__init__.py"
        line, last = "    np.subtract(x, row, out=y)\n", "    np.divide(y, row, out=y)\n"
        made.variant("comment", numpy, lambda text: text + "\n# nothing else\n")
        made.variant("slow", numpy, lambda text: text.replace(line, 20 * line, 1))
        made.variant("poor", numpy, lambda text: text.replace(last, last + "    y *= np.float32(1.00002)\n", 1))
        made.variant("strict", card, lambda text: text.replace("bound=within(80, ", "bound=within(1, "))
        made.variant("protocol", "impls/registry.py", lambda text: text.replace("PROTOCOL = 1", "PROTOCOL = 7"))
        made.variant("api", "impls/registry.py", lambda text: text.replace("def operators(", "def operations("))
        made.variant("gone", card, lambda text: text.replace("OPERATORS = (SOFTMAX, ", "OPERATORS = ("))
        yield made


def run(project: Any, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.chdir(project.root)
    return cli.main(["compare", *arguments])


NUMPY = ("softmax:numpy/three-pass", "--dtype", "float32", "--pass", "forward", "--threads", "1")


def test_identical_code_is_not_measured(project: Any, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    assert run(project, monkeypatch, "start", "softmax") == 0
    assert "working tree against start" in (said := capsys.readouterr().out) and "measured 0" in said


def test_two_builds_take_turns(project: Any, monkeypatch: pytest.MonkeyPatch, capsys: Any, tmp_path: Path) -> None:
    files = {name: str(tmp_path / name) for name in ("json", "markdown", "output")}
    options = [part for name, path in files.items() for part in (f"--{name}", path)]
    code = run(project, monkeypatch, "start..comment", *NUMPY, "--margin", "90%", "--budget", "4", *options)
    found = json.loads(Path(files["json"]).read_text())
    assert code == found["exit_code"] in (0, 3)
    assert found["counts"]["planned"] == len(found["rows"]) > 5 and found["counts"]["failed"] == 0
    measured = [each for each in found["rows"] if each.get("ratio")]
    assert measured and {each["verdict"] for each in measured} <= {"same", "inconclusive"}
    assert {each["base_ulp"] for each in measured} == {each["head_ulp"] for each in measured} and measured[0]["base_ulp"] > 1
    assert found["headline"] in capsys.readouterr().out and found["headline"] in Path(files["markdown"]).read_text()
    kept, records = read(files["output"])
    assert records == found["rows"] and kept["comparison"]["exit_code"] == code
    assert kept["finished"] and kept["commit"] == project.git("rev-parse", "comment")


def test_a_slow_head_is_slower(project: Any, monkeypatch: pytest.MonkeyPatch, capsys: Any, tmp_path: Path) -> None:
    options = ("--shape", "1x4096", "--margin", "20%", "--budget", "300", "--output", str(tmp_path / "run"))
    assert run(project, monkeypatch, "start..slow", *NUMPY, *options) == 1
    assert "slower: slow against start" in capsys.readouterr().out


def test_a_poor_head_fails_with_both_errors(project: Any, monkeypatch: pytest.MonkeyPatch, capsys: Any, tmp_path: Path) -> None:
    arguments = (*NUMPY, "--budget", "0.1", "--json", str(tmp_path / "json"), "--output", str(tmp_path / "run"))
    assert run(project, monkeypatch, "start..poor", *arguments) == 2
    rows = json.loads((tmp_path / "json").read_text())["rows"]
    assert all(each["fails"] and each["base_ulp"] < 80 < 200 < each["head_ulp"] for each in rows)
    assert "WRONG: " in (said := capsys.readouterr().out) and "beyond its own bound of 80" in said


def test_bases_stricter_card_judges_head_too(
    project: Any, monkeypatch: pytest.MonkeyPatch, capsys: Any, tmp_path: Path
) -> None:
    arguments = (*NUMPY, "--budget", "0.1", "--output", str(tmp_path / "run"))
    assert run(project, monkeypatch, "strict..comment", *arguments) == 2
    said = capsys.readouterr().out
    assert "contract changed: softmax:numpy/three-pass: bound" in said and "beyond its own bound of 1" in said


@pytest.mark.parametrize(
    ("head", "code", "words"),
    [
        ("protocol", 64, "protocol 7 of the registry, the working tree's ruler 1"),
        ("api", 4, "built, but can't be"),
        ("nowhere", 64, "'nowhere': no commit, branch or tag here"),
    ],
)
def test_a_head_that_cannot_be_compared_says_so_in_one_line(
    project: Any, monkeypatch: pytest.MonkeyPatch, capsys: Any, tmp_path: Path, head: str, code: int, words: str
) -> None:
    assert run(project, monkeypatch, f"start..{head}", "softmax", "--output", str(tmp_path / "run")) == code
    (line,) = capsys.readouterr().err.splitlines()
    assert words in line
    assert not (tmp_path / "run").exists()


def test_a_deleted_operator_is_removed(project: Any, monkeypatch: pytest.MonkeyPatch, capsys: Any, tmp_path: Path) -> None:
    output = ("--output", str(tmp_path / "run"))
    assert run(project, monkeypatch, "start..gone", "softmax", *output) == 4
    assert " removed" in capsys.readouterr().out


def test_margins_are_shares(capsys: Any) -> None:
    parsed = cli.parser().parse_args(["compare", "a..b", "--margin", "0.3%"])
    assert parsed.margin == pytest.approx(0.003)
    for wrong in ("0", "2", "-1%", "x"):
        assert cli.main(["compare", "a..b", "--margin", wrong]) == 64

"""Every CPU implementation here, on every stress input: within its own bound, and right in ways a bound doesn't show."""

from __future__ import annotations

import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from ulproof.benchmarks import check
from ulproof.impls import implementations, load, operators
from ulproof.impls._backends import stress
from ulproof.impls._backends.arrays import BFLOAT16, dtype_named
from ulproof.impls.registry import Implementation
from ulproof.impls.softmax import OPERATORS

SOFTMAX = tuple(operator.name for operator in OPERATORS)
DTYPES = ("float32", "float16", "bfloat16")
AXES = {"rows": 5, "n": 1000}


@dataclass(frozen=True)
class Case:
    """An implementation here, on one of its ISAs, in one direction."""

    implementation: Implementation
    isa: str | None
    pass_: str

    def run(self, *inputs: np.ndarray, threads: int = 1) -> np.ndarray:
        return self.implementation(*inputs, pass_=self.pass_, isa=self.isa, threads=threads)

    def inputs(self, name: str, rows: int = 5, n: int = 1000, dtype: str = "float32") -> tuple[Any, ...]:
        return stress.inputs(self.implementation.operator, self.pass_, {"rows": rows, "n": n}, dtype, name)

    def __str__(self) -> str:
        return f"{self.implementation.full_name}-{self.isa}-{self.pass_}"


def here(*backends: str) -> Iterator[Case]:
    for operator in SOFTMAX:
        for implementation in implementations(operator):
            if implementation.backend in backends and implementation.unavailable("cpu") is None:
                for isa in check.isas_of(implementation, "cpu"):
                    yield from (Case(implementation, isa, pass_) for pass_ in implementation.passes)


OURS = list(here("numpy", "simd"))
case = pytest.mark.parametrize("case", OURS, ids=str)
vouched = pytest.mark.parametrize("case", [each for each in OURS if each.implementation.vouched], ids=str)
FORWARD = [each for each in OURS if each.pass_ == "forward"]
forward = pytest.mark.parametrize("case", FORWARD, ids=str)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("pass_", ["forward", "backward"])
@pytest.mark.parametrize("operator", SOFTMAX)
def test_every_stress_input_is_within_the_bound(operator: str, pass_: str, dtype: str) -> None:
    """All implementations in one test: making inputs and asking the oracle takes longer than judging a result."""
    workloads = [(name, 5, 1001) for name in operators()[operator].stress]
    workloads += [(check.LENGTH_STRESS, 3, n) for n in stress.LENGTHS] + [(check.LENGTH_STRESS, 1, n) for n in stress.LONGER]
    if dtype != "float32":
        workloads.append((f"all-{dtype}", 1 << 16, 2))
    failures = []
    for name, rows, n in workloads:
        axes = {"rows": rows, "n": n}
        for case in OURS:
            implementation = case.implementation
            if (implementation.operator.name, case.pass_) != (operator, pass_) or implementation.refuses(pass_, axes, dtype):
                continue
            record = check.check(implementation, pass_, axes, dtype, isa=case.isa, stress=name)
            if record["ulp"] is None or (implementation.vouched and record["status"] != "ok"):
                failures.append(f"{case} {name} {rows} x {n}: {record['status']}, {record['reason']}")
    assert not failures, "\n".join([f"{len(failures)} failures, the first of them:", *failures[:20]])


def test_whom_we_vouch_for_states_a_bound() -> None:
    for case in OURS:
        if case.implementation.vouched:
            stated = case.implementation.bound or {}
            assert all((case.pass_, dtype) in stated for dtype in case.implementation.dtypes), str(case)


@vouched
def test_the_same_bits_on_every_run_and_for_every_thread_count(case: Case) -> None:
    for rows, n in ((1, 70_001), (7, 5000)):
        inputs = case.inputs("normal-10", rows, n)
        first = case.run(*inputs)
        for threads in (1, 2, 3) if case.implementation.threaded else (1,):
            np.testing.assert_array_equal(case.run(*inputs, threads=threads), first)


@case
def test_any_layout_is_within_the_bound(case: Case) -> None:
    shape = {"rows": 6, "n": 133}
    (output,) = case.implementation.operator.passes[case.pass_].outputs
    layouts: dict[str, Callable[[np.ndarray], np.ndarray]] = {
        "contiguous": lambda array: array,
        "misaligned": stress.misaligned,
    }
    for layout in stress.STRIDED:
        layouts[layout] = lambda array, layout=layout: stress.strided(array, layout)  # type: ignore[misc]
    del layouts["broadcast-row"]  # other values, and no output
    for dtype in case.implementation.dtypes:
        for name in ("normal", "masked-random"):
            given = check.workload(case.implementation.operator, case.pass_, tuple(shape.items()), dtype, name, 0)
            for layout, arranged in layouts.items():
                inputs = tuple(arranged(array) for array in given.inputs)
                result = arranged(np.full(output.shape(shape), np.nan, dtype_named(dtype)))
                case.implementation.bind(inputs, (result,), pass_=case.pass_, isa=case.isa)()
                verdict = check.judge(case.implementation, case.pass_, given, [result], dtype, [])
                if layout == "contiguous":
                    plainly = verdict["status"]
                assert verdict["status"] in (("ok",) if case.implementation.vouched else (plainly, "ok", "inaccurate")), (
                    f"{dtype} {name} {layout}: {verdict['reason']}"
                )


@forward
def test_one_row_repeated_without_copies(case: Case) -> None:
    (x,) = case.inputs("normal", 1, 500)
    once = case.run(x)
    np.testing.assert_array_equal(case.run(np.broadcast_to(x, (4, 500))), np.repeat(once, 4, axis=0))


@forward
def test_leading_axes_are_rows(case: Case) -> None:
    (x,) = case.inputs("normal", 6, 50)
    flat = case.run(x)
    np.testing.assert_array_equal(case.run(x.reshape(2, 3, 50)), flat.reshape(2, 3, *flat.shape[1:]))
    np.testing.assert_array_equal(case.run(x[0]), flat[0])


@forward
def test_the_largest_input_keeps_the_largest_output(case: Case) -> None:
    if case.implementation.operator.name == "logsumexp":
        return
    for name in ("normal", "normal-100", "offset-1e6", "ramp-200", *(["masked-random"] if case.implementation.vouched else [])):
        (x,) = case.inputs(name)
        y = case.run(x)
        best = np.take_along_axis(y, x.argmax(-1)[:, None], -1)
        assert (best >= y).all(), name


@forward
def test_the_order_of_a_row_matters_to_the_last_bits_only(case: Case) -> None:
    rng = np.random.default_rng(4)
    (x,) = case.inputs("normal-10")
    order = rng.permutation(x.shape[1])
    found, shuffled = case.run(x), case.run(np.ascontiguousarray(x[:, order]))
    expected = found if case.implementation.operator.name == "logsumexp" else found[:, order]
    np.testing.assert_allclose(shuffled, expected, rtol=2e-5, atol=1e-6 * float(case.implementation.operator.name != "softmax"))


@forward
def test_a_shift_that_is_exact_moves_nothing_but_logsumexp(case: Case) -> None:
    x = np.random.default_rng(5).integers(-512, 512, (3, 999)).astype(np.float32) / 64
    for shift in (1.0, -1024.0, 4096.0):
        before, after = case.run(x), case.run(x + np.float32(shift))
        moved = shift if case.implementation.operator.name == "logsumexp" else 0
        np.testing.assert_allclose(after, before + np.float32(moved), rtol=2e-5, atol=1e-6)


PUBLISHED = load("softmax")["simd/two-pass-as-published"]


@pytest.mark.skipif(PUBLISHED.unavailable("cpu") is not None, reason=str(PUBLISHED.unavailable("cpu")))
@pytest.mark.parametrize("isa", check.isas_of(PUBLISHED, "cpu"), ids=str)
class TestThePublishedTwoPass:
    """Its defects show in the records, and ours has none of them on the same input."""

    def found(self, name: str, rows: int, n: int, isa: str) -> Any:
        axes = {"rows": rows, "n": n}
        for variant in ("auto", "two-pass", "two-pass-stream"):
            ours = check.check(load("softmax")[f"simd/{variant}"], "forward", axes, "float32", isa=isa, stress=name)
            assert ours["status"] == "ok", ours["reason"]
        return check.check(PUBLISHED, "forward", axes, "float32", isa=isa, stress=name)

    @pytest.mark.parametrize("name", ["masked-one", "masked-leading", "masked-trailing"])
    def test_masked_logits_give_nan_with_avx2(self, name: str, isa: str) -> None:
        assert (self.found(name, 4, 1000, isa)["ulp"]["max"] is None) == (isa == "avx2")

    def test_its_exponent_overflows(self, isa: str) -> None:
        assert self.found("at-3e38", 4, 1000, isa)["ulp"]["max"] is None

    def test_its_exponent_is_inexact_beyond_a_limit(self, isa: str) -> None:
        assert self.found("offset-1e6", 4, 1000, isa)["ulp"]["max"] < 100
        assert self.found("offset-2e7", 4, 1000, isa)["ulp"]["max"] > 1000
        assert self.found("offset-1e8", 4, 1000, isa)["status"] == "wrong"

    def test_its_lane_sums_drift(self, isa: str) -> None:
        """Equal values of 4/3 are rounded down in every second binade of a lane's sum, long before it stands still at 2^24."""
        drift = [self.found("equal", 1, 1 << power, isa)["ulp"]["max"] for power in (16, 18, 20)]
        assert drift[0] > 50
        assert drift[1] > 3 * drift[0]
        assert drift[2] > 3 * drift[1]


def nearest_even_bfloat16(bits: np.ndarray) -> np.ndarray:
    """bfloat16 bits of finite or infinite float32 bits, by integers."""
    return ((bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)).astype(np.uint16)


def test_numpy_rounds_to_bfloat16_to_nearest_even() -> None:
    """Every float32 is one of 65,536 high halves with a low half; rounding depends on how the low half compares with 0x8000."""
    low = np.array([0, 1, 0x7FFE, 0x7FFF, 0x8000, 0x8001, 0xFFFE, 0xFFFF, *np.random.default_rng(6).integers(0, 1 << 16, 248)])
    for start in range(0, 1 << 16, 1 << 14):
        high = np.arange(start, start + (1 << 14), dtype=np.uint32)
        bits = ((high[:, None] << np.uint32(16)) | low.astype(np.uint32)).reshape(-1)
        values = bits.view(np.float32)
        with np.errstate(invalid="ignore"):
            found = values.astype(BFLOAT16)
        nan = np.isnan(values)
        np.testing.assert_array_equal(found.view(np.uint16)[~nan], nearest_even_bfloat16(bits)[~nan])
        assert np.isnan(found[nan].astype(np.float32)).all()


class Fake(Implementation):
    """An implementation whose code is a function of inputs and outputs."""

    def code(self) -> Any:
        compute = self.options["compute"]

        def bind(implementation: Any, pass_: str, inputs: Any, outputs: Any, **rest: Any) -> Callable[[], None]:
            return lambda: compute(inputs[0], outputs[0])

        return types.SimpleNamespace(bind=bind, unavailable=lambda implementation, target: None)


def judged(
    compute: Callable[[np.ndarray, np.ndarray], None], name: str = "normal", dtype: str = "float32", **fields: Any
) -> Any:
    fake = Fake("numpy", "fake", operator=operators()["softmax"], options={"compute": compute}, **fields)
    return check.check(fake, "forward", AXES, dtype, stress=name)


def right(x: np.ndarray, y: np.ndarray) -> None:
    with np.errstate(all="ignore"):
        e = np.exp(x.astype(np.float64) - x.astype(np.float64).max(-1, keepdims=True))
        y[...] = e / e.sum(-1, keepdims=True)


class TestTheCheckItself:
    """It fails what is wrong: the check is only worth its verdicts."""

    def test_passes_what_is_right(self) -> None:
        for name in operators()["softmax"].stress:
            record = judged(right, name, bound={("forward", "float32"): 0.51})
            assert (record["status"], record["reason"]) == ("ok", None)
            assert record["ulp"]["max"] <= 0.501

    def test_sees_elements_that_were_never_written(self) -> None:
        def forgets_the_last(x: np.ndarray, y: np.ndarray) -> None:
            whole = np.empty_like(y)
            right(x, whole)
            y[:-1] = whole[:-1]
            y[-1, :-1] = whole[-1, :-1]

        record = judged(forgets_the_last)
        assert record["status"] == "wrong"
        assert record["ulp"]["max"] is None
        assert "y[4, 999] is nan" in record["reason"]

    def test_sees_writes_beside_the_output(self) -> None:
        def strays(x: np.ndarray, y: np.ndarray) -> None:
            right(x, y)
            np.lib.stride_tricks.as_strided(y.reshape(-1), (y.size + 1,), (y.itemsize,))[-1] = 0

        record = judged(strays)
        assert record["status"] == "wrong"
        assert "memory beside it was written" in record["reason"]

    def test_sees_writes_to_the_input(self) -> None:
        def overwrites(x: np.ndarray, y: np.ndarray) -> None:
            right(x, y)
            x[...] = 0

        with pytest.raises(ValueError, match="read-only"):
            judged(overwrites)

    def test_all_zeros_are_wrong(self) -> None:
        assert judged(lambda x, y: y.fill(0))["status"] == "wrong"

    def test_beyond_its_own_bound_is_inaccurate_and_fails_only_what_we_vouch_for(self) -> None:
        def off(x: np.ndarray, y: np.ndarray) -> None:
            right(x, y)
            y *= np.float32(1 + 2.0**-20)

        ours = judged(off, bound={("forward", "float32"): 2.0})
        assert ours["status"] == "inaccurate"
        assert "beyond its own bound of 2" in ours["reason"]
        assert judged(off, bound={("forward", "float32"): 20.0})["status"] == "ok"
        assert judged(off)["status"] == "inaccurate"

    def test_names_the_input_that_breaks_it(self) -> None:
        def spoils_one(x: np.ndarray, y: np.ndarray) -> None:
            right(x, y)
            y[2, 17] *= 2

        record = judged(spoils_one)
        assert record["status"] == "wrong"
        assert record["ulp"]["worst_input"].startswith("y[2, 17] is ")
        assert "(x = " in record["ulp"]["worst_input"]

    def test_fails_by_whom_we_vouch_for(self) -> None:
        broken = {"kind": "accuracy", "status": "wrong", "operator": "softmax"}
        assert check.fails(broken | {"implementation": "numpy/three-pass"})
        assert not check.fails(broken | {"implementation": "peer/scipy"})
        assert not check.fails(broken | {"implementation": "simd/two-pass-as-published"})
        assert check.fails(broken | {"implementation": "numpy/three-pass", "status": "inaccurate"})
        assert not check.fails(broken | {"implementation": "numpy/three-pass", "status": "ok"})

    def test_flushed_subnormals_are_counted_and_not_held_against_it(self) -> None:
        def flushes(x: np.ndarray, y: np.ndarray) -> None:
            right(x, y)
            y[y < 2.0**-126] = 0

        record = judged(flushes, "normal-100")
        assert record["ulp"]["flushed"] > 0
        assert record["status"] == "ok"


class TestPlan:
    def test_filters(self) -> None:
        items = check.plan(["softmax"], {"backend": ["numpy"], "dtype": ["float16"], "pass": ["backward"]})
        assert items
        assert {(item.operator, item.implementation, item.dtype, item.pass_) for item in items} == {
            ("softmax", "numpy/three-pass", "float16", "backward")
        }

    def test_workers_keep_torch_away_from_native_code(self) -> None:
        for item in check.plan(["softmax"], thorough=False):
            if item.target == "cpu":
                assert (item.worker == "native") == item.implementation.startswith(("numpy/", "simd/"))
            else:
                assert item.worker == item.target

    def test_everything_that_can_run_is_checked(self) -> None:
        planned = {(item.operator, item.implementation) for item in check.plan()}
        for name in operators():
            for implementation in load(name).values():
                if any(implementation.unavailable(target) is None for target in ("cpu", "interpreter")):
                    assert (name, implementation.name) in planned

    def test_records_follow_the_schema(self) -> None:
        import jsonschema

        from ulproof.benchmarks.record import schema

        item = check.plan(["logsumexp"], {"backend": ["numpy"]}, thorough=False)[0]
        jsonschema.validate(item.check(), {**schema(), "$ref": "#/$defs/record"})


@pytest.mark.parametrize(
    "operator, stressed", [("softmax", "all-float16"), ("logsumexp", "all-float16"), ("softmax", "normal")]
)
def test_outputs_that_are_not_correctly_rounded_are_counted(operator: str, stressed: str) -> None:
    """Against NumPy's own rounding of the oracle's values, and of outputs some of which are moved by one number."""
    implementation = load(operator)["numpy/three-pass"]
    axes = {"rows": 1 << 16, "n": 2}
    given = check.workload(implementation.operator, "forward", tuple(axes.items()), "float16", stressed, 0)
    expected = np.concatenate([block.expected[0] for block in given.blocks()])
    rounded = expected.astype(np.float16)
    moved = rounded.copy()
    finite = np.isfinite(moved) & (np.abs(moved) > 1e-3)
    moved[finite] = np.where(np.arange(finite.sum()) % 7, moved[finite], np.nextafter(moved[finite], np.float16(0)))
    for outputs, count in ((rounded, 0), (moved, np.count_nonzero(moved[finite] != rounded[finite]))):
        found = check.judge(implementation, "forward", given, [outputs], "float16", [])["ulp"]
        assert (found["outputs"], found["misrounded"]) == (rounded.size, count)

"""Softmax forward in C++: accuracy of every variant and ISA on the stress inputs, layouts, threads, and the paper's defects."""

from __future__ import annotations

import os
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from ulproof.benchmarks.check import check
from ulproof.benchmarks.measure.ulp import ulp_error
from ulproof.impls import load
from ulproof.impls._backends import simd, stress
from ulproof.impls.registry import Implementation
from ulproof.impls.softmax.reference import softmax

MODULE = simd.native("ulproof.impls.softmax")
if isinstance(MODULE, str):
    pytest.skip(MODULE, allow_module_level=True)

ISAS = MODULE.isas()
VARIANTS = [each for each in load("softmax").values() if each.backend == "simd"]
OURS = [each for each in VARIANTS if each.vouched]
THREADED = [each for each in OURS if each.threaded]
DTYPES = {"float32": np.float32, "float16": np.float16, "bfloat16": ml_dtypes.bfloat16}
EVERY_ISA = pytest.mark.parametrize("isa", ISAS)
EVERY_VARIANT = pytest.mark.parametrize("implementation", OURS, ids=lambda each: each.variant)


def run(implementation: Implementation, x: np.ndarray, y: np.ndarray | None = None, **options: Any) -> np.ndarray:
    """The result in a poisoned output."""
    y = np.empty_like(x) if y is None else y
    y[...] = np.nan
    implementation.bind((x,), (y,), **options)()
    return y


def bits(array: np.ndarray) -> bytes:
    return array.tobytes()


def error(x: np.ndarray, y: np.ndarray) -> float:
    return float(ulp_error(y, softmax(x.astype(np.float64))[0], x.dtype.name).max())


@EVERY_ISA
@EVERY_VARIANT
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_stress_input_within_the_bound(implementation: Implementation, isa: str, dtype: str) -> None:
    for name in implementation.operator.stress:
        for rows, n in ((3, 144), (2, 1003)):
            record = check(implementation, "forward", {"rows": rows, "n": n}, dtype, isa=isa, stress=name)
            assert record["status"] == "ok", (name, n, record["reason"])


@EVERY_ISA
@EVERY_VARIANT
def test_every_short_length(implementation: Implementation, isa: str) -> None:
    rng = np.random.default_rng(0)
    for dtype, bound in (("float32", 2.0), ("bfloat16", 0.51)):
        for n in (*range(1, 150), 4095, 4096, 4097):
            x = (10 * rng.standard_normal((2, n))).astype(DTYPES[dtype])
            assert error(x, run(implementation, x, isa=isa)) <= bound, (dtype, n)


@EVERY_ISA
@EVERY_VARIANT
@pytest.mark.parametrize("name", ["normal-10", "ramp-200", "peak-over-low-bulk", "masked-leading", "offset-1e6", "equal"])
def test_rows_of_several_blocks(implementation: Implementation, isa: str, name: str) -> None:
    for n in (16384, 65537, 300_001):
        x = stress.stress(name, 1, n)
        assert error(x, run(implementation, x, isa=isa)) <= 2.0, n


@EVERY_ISA
def test_a_peak_that_the_sample_does_not_show(isa: str) -> None:
    x = stress.stress("normal", 1, 100_000)
    for peak in (5.0, 30.0, 68.0, 69.5, 88.0, 89.0, 250.0, 260.0, 1e5, 3e38):
        x[0, 77_777] = peak
        for implementation in OURS:
            assert error(x, run(implementation, x, isa=isa)) <= 2.0, (peak, implementation.name)


@EVERY_ISA
@EVERY_VARIANT
def test_rows_that_one_element_dominates(implementation: Implementation, isa: str) -> None:
    """Its probability is just below 1, where rounding errors of neighbours in two binades count most."""
    for spread in (10, 30, 100):
        x = (spread * np.random.default_rng(0).standard_normal((4000, 30))).astype(np.float32)
        assert error(x, run(implementation, x, isa=isa)) <= 2.0, spread


@EVERY_ISA
@EVERY_VARIANT
def test_rows_whose_roundings_add_up(implementation: Implementation, isa: str) -> None:
    """The same vectors again and again: small ones that a sum in float32 loses beside the large one, or all alike."""
    lanes, least = {"avx512": 16}.get(isa, 8), 0.49 * 2.0**-23
    absorbed = np.repeat([1, least, least / 2, least / 4, least / 8], [1, 1, 2, 4, 8])
    pairs = np.array([1, least / 2])
    rng = np.random.default_rng(0)
    for n in (4096, 16384, 65536):
        for largest in (0.0094, 0.1014, 0.65, 0.6643):
            for weights in (absorbed, pairs, np.ones(1)):
                period = np.repeat(largest + np.log(weights), lanes)
                x = np.resize(period, n).astype(np.float32)
                x[rng.integers(0, n, 96)] = rng.uniform(-20, -1, 96)
                assert error(x, run(implementation, x, isa=isa)) <= 2.0, (n, largest, len(weights))


@EVERY_ISA
@EVERY_VARIANT
def test_equal_peaks(implementation: Implementation, isa: str) -> None:
    """Peaks that make up the sum together, too few for samples of it and too many to stand out, all rounded alike."""
    rng = np.random.default_rng(0)
    for n in (7000, 16384, 65536, 300_001):
        for peaks in (5, 9, 16, 30, 60, 300):
            x = rng.uniform(-1, 1, (1, n)).astype(np.float32)
            x[0, rng.integers(0, n, peaks)] = rng.uniform(15, 30)
            assert error(x, run(implementation, x, isa=isa)) <= 2.0, (n, peaks)


@EVERY_ISA
@EVERY_VARIANT
def test_peaks_that_are_almost_equal(implementation: Implementation, isa: str) -> None:
    """Tens and hundreds of them far above the rest: what they lose alike shows in samples only if there are enough of these."""
    for seed in (13, 14, 19, 23, 143):
        rng = np.random.default_rng(seed)
        for _ in range(6):
            x = rng.uniform(-1, 1, (1, 65536)).astype(np.float32)
            peaks = int(rng.integers(30, 400))
            x[0, rng.integers(0, 65536, peaks)] = rng.uniform(9, 18) + 0.3 * rng.random(peaks)
            assert error(x, run(implementation, x, isa=isa)) <= 2.0, (seed, peaks)


@EVERY_ISA
@EVERY_VARIANT
def test_peaks_that_the_rest_is_lost_beside(implementation: Implementation, isa: str) -> None:
    """From 2^22 to 2^29 times the rest, which additions in float32 lose, all to one side where the peaks are alike."""
    for seed in (2, 33, 34, 50, 72, 73, 76, 116, 130, 236):
        rng = np.random.default_rng(seed)
        n, peaks = int(rng.choice([16384, 32768, 65536, 131072])), int(rng.integers(30, 150))
        x = (0.02 * rng.standard_normal((1, n))).astype(np.float32)
        x[0, rng.integers(0, n, peaks)] = rng.uniform(15, 20) + 0.02 * rng.random(peaks)
        assert error(x, run(implementation, x, isa=isa)) <= 2.0, (seed, n, peaks)


@EVERY_ISA
@EVERY_VARIANT
def test_long_rows_of_very_negative_numbers(implementation: Implementation, isa: str) -> None:
    """As masks of finite numbers make them: nothing may stand in for what is past the end and be larger than the row."""
    for n in (6145, 16387, 65_551):
        for lowest in (-7e4, -1e9, -np.finfo(np.float32).max):
            x = np.full((1, n), lowest, np.float32)
            assert error(x, run(implementation, x, isa=isa)) <= 2.0, (n, lowest)


@EVERY_ISA
@EVERY_VARIANT
def test_a_few_parts_of_a_row_that_are_not_masked(implementation: Implementation, isa: str) -> None:
    rng = np.random.default_rng(0)
    for n in (65536, 300_001):
        for kept in (700, 3000, n // 20):
            for values in (np.zeros(kept), rng.normal(-2.3, 0.01, kept)):
                x = np.full((1, n), -np.inf, np.float32)
                begin = rng.integers(n - kept)
                x[0, begin : begin + kept] = values
                assert error(x, run(implementation, x, isa=isa)) <= 2.0, (n, kept)


@EVERY_ISA
def test_a_row_of_2_to_the_26(isa: str) -> None:
    """Equal elements make the published float32 lane sums stagnate; a float64 sum of 4096 different ones is the oracle."""
    pattern = (10 * np.random.default_rng(0).standard_normal(4096)).astype(np.float32)
    x = np.tile(pattern, 1 << 14)
    expected = softmax(pattern.astype(np.float64)[None])[0][0] / (1 << 14)
    y = np.full_like(x, np.nan)
    load("softmax")["simd/auto"].bind((x,), (y,), isa=isa)()
    blocks = y.reshape(-1, 4096)
    assert (blocks == blocks[0]).all()
    assert ulp_error(blocks[0], expected, "float32").max() <= 2.0


@EVERY_ISA
@EVERY_VARIANT
def test_layouts(implementation: Implementation, isa: str) -> None:
    rng = np.random.default_rng(0)
    for dtype in DTYPES.values():
        whole = (3 * rng.standard_normal((6, 5, 400))).astype(dtype)
        views = {
            "padded rows": whole[:, :, :301],
            "every second element": whole[..., ::2],
            "reversed": whole[::-1, :, ::-1],
            "leading axes swapped": whole.transpose(1, 0, 2),
            "every second row": whole[::2, 1:],
            "column as the row": whole.transpose(0, 2, 1),
            "one dimension": whole[0, 0],
            "one row for all": np.broadcast_to(whole[0, 0], (4, 400)),
            "misaligned": stress.misaligned(whole),
        }
        for name, x in views.items():
            plain = np.ascontiguousarray(x)
            expected = bits(run(implementation, plain, isa=isa))
            assert bits(run(implementation, x, isa=isa)) == expected, name
            wide = np.full((*x.shape[:-1], 2 * x.shape[-1]), 7, x.dtype)
            assert bits(run(implementation, plain, wide[..., ::2], isa=isa)) == expected, name
            assert (wide[..., 1::2] == 7).all(), name
            target = stress.misaligned(np.zeros_like(plain))
            assert bits(run(implementation, plain, target, isa=isa)) == expected, name


@EVERY_ISA
@EVERY_VARIANT
def test_a_row_does_not_depend_on_its_neighbours(implementation: Implementation, isa: str) -> None:
    rng = np.random.default_rng(0)
    offsets = np.array([0, -9, 39, -12, 45, 80, 250, -250, 260, 1e5, -300, 0, np.nan, 3, -np.inf, -3e38, 3e38, 0, -40, 60])
    for n in (1, 50, 700, 1500):
        x = (offsets[:, None] + 3 * rng.standard_normal((len(offsets), n))).astype(np.float32)
        together = run(implementation, x, isa=isa)
        assert error(x, together) <= 2.0
        for row in range(len(x)):
            assert bits(together[row]) == bits(run(implementation, x[row], isa=isa)), (n, offsets[row])


def test_no_rows_and_no_elements() -> None:
    for implementation in OURS:
        assert implementation(np.zeros((0, 4), np.float32)).shape == (0, 4)
        with pytest.raises(ValueError, match="must not be empty"):
            implementation(np.zeros((3, 0), np.float32))


@EVERY_ISA
@pytest.mark.parametrize("implementation", THREADED, ids=lambda each: each.variant)
def test_the_same_bits_for_every_number_of_threads(implementation: Implementation, isa: str) -> None:
    for rows, n in ((1, 200_003), (3, 70_001), (100, 513), (7, 1)):
        for dtype in DTYPES.values():
            x = stress.stress("normal-10", rows, n).astype(dtype)
            first = bits(run(implementation, x, isa=isa, threads=1))
            for threads in (2, 3, 4):
                assert bits(run(implementation, x, isa=isa, threads=threads)) == first, (rows, n, threads)


def test_a_forked_child_has_threads_of_its_own() -> None:
    x = stress.stress("normal", 1, 100_000)
    expected = run(load("softmax")["simd/auto"], x, threads=2)
    if (child := os.fork()) == 0:
        os._exit(0 if (run(load("softmax")["simd/auto"], x, threads=2) == expected).all() else 1)
    assert os.waitpid(child, 0)[1] == 0


@EVERY_ISA
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_rounding_to_16_bits_on_all_float32(isa: str, dtype: str) -> None:
    assert MODULE.wrongly_rounded(isa, simd.ELEMENTS[dtype], len(os.sched_getaffinity(0))) == 0


def test_the_call_on_arrays_is_the_bound_call() -> None:
    for implementation in OURS:
        for dtype in DTYPES.values():
            x = stress.stress("normal", 4, 100).astype(dtype)
            assert implementation(x).dtype == x.dtype
            assert bits(implementation(x)) == bits(run(implementation, x))


def test_auto_chooses_by_length_and_caches() -> None:
    def auto(rows: int, n: int, itemsize: int = 4, l2: int = 1 << 20, last: int = 32 << 20) -> str:
        return MODULE.choose(rows, n, itemsize, l2, last)

    assert auto(1, 64) == auto(1 << 20, 128) == auto(1, 1 << 20) == "online"
    assert auto(1, 1 << 26) == auto(64, 1 << 18) == "two-pass-stream"
    assert auto(1, 1 << 20, itemsize=2) == "two-pass"
    # Four times the cache, four times the length.
    for n, rows in ((1 << 12, 1), (1 << 17, 1), (1 << 18, 64), (1 << 23, 1)):
        assert auto(rows, n) == auto(rows, 4 * n, l2=4 << 20, last=128 << 20), (rows, n)
    assert auto(1, 1 << 23, last=1 << 30) == "online"
    assert auto(1, 1 << 12, l2=1 << 14, last=1 << 14) == "two-pass-stream"
    lengths = [auto(rows, 1 << k, size) for rows in (1, 100, 10**6) for k in range(31) for size in (2, 4)]
    assert set(lengths) <= {each.variant for each in VARIANTS}


def test_bad_options_name_what_is_allowed() -> None:
    x = np.zeros((2, 8), np.float32)
    implementation = load("softmax")["simd/auto"]
    for isa in ("sse9", "AVX2", ""):
        with pytest.raises(ValueError, match=f"isa.*{isa}.*avx"):
            implementation.bind((x,), (np.empty_like(x),), isa=isa)
    for threads in (0, -1, 1.5, True):
        with pytest.raises(ValueError, match=r"threads is .*1"):
            implementation.bind((x,), (np.empty_like(x),), threads=threads)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="overlaps x"):
        implementation.bind((x,), (x,))
    assert (x == 0).all()


def test_the_defects_of_the_published_two_pass() -> None:
    published, ours = load("softmax")["simd/two-pass-as-published"], load("softmax")["simd/two-pass"]
    masked = np.zeros((1, 1000), np.float32)
    masked[0, 3] = -np.inf
    far = np.full((1, 1000), 3e38, np.float32)
    for isa in ISAS:
        assert error(masked, run(ours, masked, isa=isa)) <= 2.0
        assert error(far, run(ours, far, isa=isa)) <= 2.0
        assert np.isnan(run(published, far, isa=isa)).any()
    if "avx2" in ISAS:
        assert np.isnan(run(published, masked, isa="avx2")).all()
    if "avx512" in ISAS:
        assert error(masked, run(published, masked, isa="avx512")) <= 16.0
    wide = stress.stress("normal-10", 1, 1 << 20)
    assert error(wide, run(published, wide)) > 2.0 >= error(wide, run(ours, wide))


@pytest.mark.skipif("avx2" not in ISAS, reason="the stagnation is AVX2's, which has one accumulator")
def test_the_published_sum_stagnates() -> None:
    x = np.zeros((1, 3 << 26), np.float32)  # 1.5 * 2^24 for each of 8 lanes
    y = run(load("softmax")["simd/two-pass-as-published"], x, isa="avx2")
    assert y[0, 0] > 1.2 / x.size
    assert run(load("softmax")["simd/two-pass"], x, y, isa="avx2")[0, -1] == pytest.approx(1 / x.size, rel=1e-6)

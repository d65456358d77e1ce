"""The kernels behind the CPU ceilings do the work that their rates are computed from, on every instruction set."""

from __future__ import annotations

import importlib
import importlib.util
from types import ModuleType

import numpy as np
import pytest

NAME = "ulproof.benchmarks.measure._ceilings"
pytestmark = pytest.mark.skipif(importlib.util.find_spec(NAME) is None, reason="built without the C++ kernels")

SIZES = (0, 1, 15, 192, 1000, 4099, 100_003)


@pytest.fixture(scope="module")
def kernels() -> ModuleType:
    return importlib.import_module(NAME)


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("offset", [0, 1])
def test_reads_every_byte(kernels: ModuleType, threads: int, offset: int) -> None:
    words = np.random.default_rng(1).integers(0, 2**32, SIZES[-1] + 1, np.uint32)
    for isa in kernels.isas():
        for n in SIZES:
            part = words[offset : offset + n]
            total = kernels.bind("read", isa, None, part.view(np.float32), threads)()
            assert int(total) % 2**32 == int(part.sum(dtype=np.uint64)) % 2**32, (isa, n)


@pytest.mark.parametrize("kind", ["copy", "stream-copy"])
@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("offset", [0, 1])
def test_copies_every_byte_and_no_other(kernels: ModuleType, kind: str, threads: int, offset: int) -> None:
    source = np.random.default_rng(2).standard_normal(SIZES[-1] + 1).astype(np.float32)
    for isa in kernels.isas():
        for n in SIZES:
            memory = np.full(n + 40, np.nan, np.float32)
            kernels.bind(kind, isa, memory[20 : 20 + n], source[offset : offset + n], threads, 2)()
            np.testing.assert_array_equal(memory[20 : 20 + n], source[offset : offset + n])
            assert np.isnan(memory[:20]).all()
            assert np.isnan(memory[20 + n :]).all()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_multiply_adds_are_done(kernels: ModuleType, dtype: str) -> None:
    """Each element goes 64 times through 0.75 v + 0.25, whose fixed point is 1."""
    source = np.linspace(-3, 5, 3072 // np.dtype(dtype).itemsize, dtype=dtype)
    for isa in kernels.isas():
        total = kernels.bind(f"fma-{dtype}", isa, None, source)()
        assert total == pytest.approx(np.sum((source.astype(np.float64) - 1) * 0.75**64 + 1), rel=1e-5)


def test_exponentials_are_summed(kernels: ModuleType) -> None:
    source = np.linspace(-20, 5, 12 * 192, dtype=np.float32)
    for isa in kernels.isas():
        total = kernels.bind("exp-float32", isa, None, source)()
        assert total == pytest.approx(np.exp(source.astype(np.float64)).sum(), rel=1e-6)


def test_flushing_changes_nothing_and_takes_bytes_alone(kernels: ModuleType) -> None:
    if not hasattr(kernels, "flush"):
        pytest.skip("this CPU can't flush single lines")
    memory = np.arange(1000, dtype=np.uint8)
    before = memory.copy()
    for part in (memory[:0], memory[3:4], memory[60:70], memory):
        kernels.flush(part)
    fixed = memory[:7]
    fixed.flags.writeable = False
    kernels.flush(fixed)
    np.testing.assert_array_equal(memory, before)
    for wrong in (memory[::2], memory.view(np.float64)):
        with pytest.raises(TypeError):
            kernels.flush(wrong)


def test_work_is_what_was_done(kernels: ModuleType) -> None:
    assert kernels.work("read", 4096) == 4096
    assert kernels.work("copy", 4096) == kernels.work("stream-copy", 4096) == 8192
    assert kernels.work("fma-float32", 1536) == 2 * 64 * 384
    assert kernels.work("fma-float64", 1536) == 2 * 64 * 192
    assert kernels.work("exp-float32", 1600) == 384


def test_bad_arguments_are_refused(kernels: ModuleType) -> None:
    isa = kernels.isas()[0]
    source = np.zeros(64, np.float32)
    with pytest.raises(ValueError, match="unknown kind 'write'; there are read, copy"):
        kernels.bind("write", isa, None, source)
    with pytest.raises(ValueError, match="unknown isa 'mmx'; there are"):
        kernels.bind("read", "mmx", None, source)
    with pytest.raises(TypeError, match="src must be float64"):
        kernels.bind("fma-float64", isa, None, source)
    with pytest.raises(ValueError, match="at least 1"):
        kernels.bind("read", isa, None, source, 0)
    for dst in (None, np.zeros(63, np.float32), np.zeros(64, np.float64)):
        with pytest.raises(TypeError, match="dst must be a contiguous writable float32 array"):
            kernels.bind("copy", isa, dst, source)
    fixed = np.zeros(64, np.float32)
    fixed.flags.writeable = False
    with pytest.raises(TypeError, match="writable"):
        kernels.bind("copy", isa, fixed, source)

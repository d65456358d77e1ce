"""Runs CUDA kernels on the CPU: the same source, launch plans and arguments, every CUDA thread a fiber."""

from __future__ import annotations

import ctypes
import hashlib
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from ulproof.impls._backends.cubin import cache_folder
from ulproof.impls._backends.nvrtc import Launch
from ulproof.impls._backends.tensors import Memory
from ulproof.impls.registry import Implementation
from ulproof.impls.softmax import cuda

COMPILER = shutil.which("g++") or shutil.which("clang++")
FLAGS = (
    "-std=c++17",
    "-O1",
    "-march=native",
    "-ffp-contract=off",
    "-shared",
    "-fPIC",
    "-fno-strict-aliasing",
    "-U_FORTIFY_SOURCE",
    "-w",
)

DRIVER = """
#include <utility>

template <class... A, size_t... I>
void call(void (*kernel)(A...), const Index* a, std::index_sequence<I...>) {
  kernel((A)a[I]...);
}

template <class... A>
void call(void (*kernel)(A...), const Index* a) {
  call(kernel, a, std::index_sequence_for<A...>());
}

extern "C" void launch(int kernel, u32 grid, u32 block, u32 cluster, Index shared, int error, const Index* a) {
  const uint4 poison = {0x7fc00000u, 0x7fc00000u, 0x7fc00000u, 0x7fc00000u};
  ex2_error = error;
  gridDim.x = grid;
  if (grid % cluster) fail("the grid is no multiple of the cluster");
  for (first_block = 0; first_block < grid; first_block += cluster) {
    shared_memory.assign(cluster, std::vector<uint4>(shared / 16 + 1, poison));
    run_cluster(cluster, block, [&] {
      switch (kernel) {
CASES
        default: fail("no such kernel");
      }
    });
  }
}
"""

SOFTMAX = """
extern "C" void exp_relative(float max, const float* x, float* y, Index n) {
  const Exp<Float32> exp(reference(max));
  for (Index i = 0; i < n; ++i) y[i] = exp(x[i]);
}

extern "C" void fractions(const float* f, float* y, Index n) {
  for (Index i = 0; i < n; ++i) y[i] = exp2_fraction(f[i]);
}

extern "C" void add_pairs(const float* a, const float* b, float* sum) {
  Pair s = merge(Pair{a[0], a[1]}, Pair{b[0], b[1]});
  sum[0] = s.high, sum[1] = s.low;
}
"""


class Library:
    """Some kernels of a source, by their C++ names, built for this CPU; kept in the cache folder by a hash of the sources."""

    def __init__(self, names: Sequence[str], source: str, extra: str = "") -> None:
        self.names = list(names)
        cases = "\n".join(f"        case {i}: call({name}, a); break;" for i, name in enumerate(self.names))
        header = Path(__file__).with_name("cuda_on_cpu.h").read_text()
        source = header.replace("#pragma once\n", "") + source + DRIVER.replace("CASES", cases) + extra
        digest = hashlib.sha256((source + str(FLAGS)).encode()).hexdigest()
        library = cache_folder() / "cpu" / f"{digest}.so"
        if not library.exists():
            library.parent.mkdir(parents=True, exist_ok=True)
            text = library.with_suffix(".cpp")
            text.write_text(source)
            subprocess.run([str(COMPILER), *FLAGS, str(text), "-o", str(library)], check=True)
        self.library = ctypes.CDLL(str(library))
        self.library.launch.argtypes = [ctypes.c_int, *[ctypes.c_uint] * 3, ctypes.c_longlong, ctypes.c_int, ctypes.c_void_p]

    def launch(self, launches: Sequence[Launch], values: Sequence[int], error: int = 0) -> None:
        """The launches in order, all with these arguments."""
        arguments = np.array(values, np.int64)
        for launch in launches:
            number = self.names.index(launch.kernel)
            size = (launch.grid, launch.block, launch.cluster, launch.shared)
            self.library.launch(number, *size, error, arguments.ctypes.data)


class Kernels(Library):
    """Kernels of the softmax family."""

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__(names, cuda.source(), SOFTMAX)

    def run(
        self,
        implementation: Implementation,
        pass_: str,
        inputs: Sequence[np.ndarray],
        output: np.ndarray,
        *,
        arch: str = "sm_90",
        error: int = 0,
    ) -> None:
        """One pass over (rows, n) and (rows,) arrays, exactly as ``cuda.bind`` would launch it on a GPU."""
        rows, n = inputs[0].shape
        dtype = inputs[0].dtype.name
        given = tuple(memory(array) for array in (*inputs, output))
        launches = cuda.plan(implementation, pass_, {"rows": rows, "n": n}, dtype, cuda._head(given[0], dtype), arch)
        chunks = cuda._chunks(implementation, pass_, n, dtype)
        work = np.full(rows * (4 * chunks + 8), np.nan, np.float32)
        values = [*cuda._pointers(implementation, pass_, given), work.ctypes.data, rows, n, chunks]
        self.launch(launches, values, error)


def memory(array: np.ndarray) -> Memory:
    size = array.dtype.itemsize
    address = array.ctypes.data
    return Memory(
        array.dtype.name, tuple(stride // size for stride in array.strides), SimpleNamespace(data_ptr=lambda: address)
    )

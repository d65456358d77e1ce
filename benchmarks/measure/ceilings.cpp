// What this machine can do at most: bytes read and copied, fused multiply-adds and exponentials per second.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <numeric>
#include <stdexcept>
#include <string>
#include <vector>

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/string.h>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "benchmarks/measure/ceilings.cpp"
#include <hwy/foreach_target.h>

#include "_backends/simd-inl.h"
#include "_backends/threads.h"
#include <hwy/cache_control.h>

#ifndef ULPROOF_CEILINGS_ONCE
#define ULPROOF_CEILINGS_ONCE
namespace ulproof {

// One sweep over `bytes` bytes; returns a value that depends on all of them where nothing is written.
using Sweep = double (*)(const void* source, void* destination, size_t bytes);

struct Kernels {
  Sweep read, copy, stream_copy, fma_float32, fma_float64, exp_float32;
};

constexpr size_t kBlock = 768;  // bytes: 12 vectors of AVX-512, 24 of AVX2; the arithmetic kernels work on whole blocks
constexpr size_t kFmas = 64;    // multiply-adds per element of a block
constexpr size_t kPart = 12288;  // bytes: threads get multiples of whole pages and of whole blocks
constexpr size_t kLine = 64;   // bytes of a cache line, or of half of one
constexpr size_t kAhead = 2048; // bytes that the out-of-cache sweeps prefetch ahead

}  // namespace ulproof
#endif

HWY_BEFORE_NAMESPACE();
namespace ulproof {
namespace HWY_NAMESPACE {

// Two halves walked at once keep more of the prefetchers and more DRAM pages busy than one stream does.
double Read(const void* source, void*, size_t bytes) {
  const hn::ScalableTag<uint32_t> d;
  const size_t lanes = hn::Lanes(d);
  const size_t n = bytes / 4;
  const size_t half = n / (8 * lanes) * (4 * lanes);
  const auto* a = static_cast<const uint32_t*>(source);
  const auto* b = a + half;
  auto a0 = hn::Zero(d), a1 = a0, a2 = a0, a3 = a0, b0 = a0, b1 = a0, b2 = a0, b3 = a0;
  for (size_t i = 0; i < half; i += 4 * lanes) {
    for (size_t line = 0; line < 4 * lanes; line += 16) {
      hwy::Prefetch(a + i + kAhead / 4 + line);
      hwy::Prefetch(b + i + kAhead / 4 + line);
    }
    a0 = hn::Add(a0, hn::LoadU(d, a + i));
    a1 = hn::Add(a1, hn::LoadU(d, a + i + lanes));
    a2 = hn::Add(a2, hn::LoadU(d, a + i + 2 * lanes));
    a3 = hn::Add(a3, hn::LoadU(d, a + i + 3 * lanes));
    b0 = hn::Add(b0, hn::LoadU(d, b + i));
    b1 = hn::Add(b1, hn::LoadU(d, b + i + lanes));
    b2 = hn::Add(b2, hn::LoadU(d, b + i + 2 * lanes));
    b3 = hn::Add(b3, hn::LoadU(d, b + i + 3 * lanes));
  }
  a0 = hn::Add(hn::Add(hn::Add(a0, a1), hn::Add(a2, a3)), hn::Add(hn::Add(b0, b1), hn::Add(b2, b3)));
  uint32_t sum = hn::GetLane(hn::SumOfLanes(d, a0));
  for (size_t i = 2 * half; i < n; ++i) sum += a[i];
  return sum;
}

template <bool kStream>
double Copy(const void* source, void* destination, size_t bytes) {
  const hn::ScalableTag<float> d;
  const size_t lanes = hn::Lanes(d);
  const size_t n = bytes / 4;
  const auto* HWY_RESTRICT from = static_cast<const float*>(source);
  auto* HWY_RESTRICT to = static_cast<float*>(destination);
  size_t i = 0;
  for (; i < n && reinterpret_cast<uintptr_t>(to + i) % (4 * lanes) != 0; ++i) to[i] = from[i];
  const size_t half = (n - i) / (8 * lanes) * (4 * lanes);
  const auto move = [d](const float* HWY_RESTRICT p, float* HWY_RESTRICT q) HWY_ATTR {
    const auto v = hn::LoadU(d, p);
    if constexpr (kStream) {
      hn::Stream(v, d, q);
    } else {
      hn::Store(v, d, q);
    }
  };
  for (const size_t end = i + half; i < end; i += 4 * lanes) {
    for (size_t k = 0; kStream && k < 4 * lanes; k += 16) {  // with plain stores, in caches, it would cost
      hwy::Prefetch(from + i + kAhead / 4 + k);
      hwy::Prefetch(from + half + i + kAhead / 4 + k);
    }
    for (size_t k = 0; k < 4 * lanes; k += lanes) move(from + i + k, to + i + k);
    for (size_t k = 0; k < 4 * lanes; k += lanes) move(from + half + i + k, to + half + i + k);
  }
  for (i += half; i < n; ++i) to[i] = from[i];
  if constexpr (kStream) hwy::FlushStream();
  return 0.0;
}

double CopyPlain(const void* source, void* destination, size_t bytes) { return Copy<false>(source, destination, bytes); }
double CopyStream(const void* source, void* destination, size_t bytes) { return Copy<true>(source, destination, bytes); }

// 12 independent chains hide the latency of a multiply-add on every core with two pipes of up to six cycles.
template <typename T>
double Fma(const void* source, void*, size_t bytes) {
  const hn::ScalableTag<T> d;
  const size_t lanes = hn::Lanes(d);
  const auto* from = static_cast<const T*>(source);
  const auto a = hn::Set(d, static_cast<T>(0.75));
  const auto b = hn::Set(d, static_cast<T>(0.25));
  auto sum = hn::Zero(d);
  for (size_t i = 0; i + 12 * lanes <= bytes / kBlock * kBlock / sizeof(T); i += 12 * lanes) {
    auto v0 = hn::LoadU(d, from + i), v1 = hn::LoadU(d, from + i + lanes), v2 = hn::LoadU(d, from + i + 2 * lanes);
    auto v3 = hn::LoadU(d, from + i + 3 * lanes), v4 = hn::LoadU(d, from + i + 4 * lanes);
    auto v5 = hn::LoadU(d, from + i + 5 * lanes), v6 = hn::LoadU(d, from + i + 6 * lanes);
    auto v7 = hn::LoadU(d, from + i + 7 * lanes), v8 = hn::LoadU(d, from + i + 8 * lanes);
    auto v9 = hn::LoadU(d, from + i + 9 * lanes), v10 = hn::LoadU(d, from + i + 10 * lanes);
    auto v11 = hn::LoadU(d, from + i + 11 * lanes);
    for (size_t k = 0; k < kFmas; ++k) {
      v0 = hn::MulAdd(v0, a, b), v1 = hn::MulAdd(v1, a, b), v2 = hn::MulAdd(v2, a, b), v3 = hn::MulAdd(v3, a, b);
      v4 = hn::MulAdd(v4, a, b), v5 = hn::MulAdd(v5, a, b), v6 = hn::MulAdd(v6, a, b), v7 = hn::MulAdd(v7, a, b);
      v8 = hn::MulAdd(v8, a, b), v9 = hn::MulAdd(v9, a, b), v10 = hn::MulAdd(v10, a, b), v11 = hn::MulAdd(v11, a, b);
    }
    sum = hn::Add(sum, hn::Add(hn::Add(hn::Add(v0, v1), hn::Add(v2, v3)), hn::Add(hn::Add(v4, v5), hn::Add(v6, v7))));
    sum = hn::Add(sum, hn::Add(hn::Add(v8, v9), hn::Add(v10, v11)));
  }
  return hn::GetLane(hn::SumOfLanes(d, sum));
}

double FmaFloat32(const void* source, void* destination, size_t bytes) { return Fma<float>(source, destination, bytes); }
double FmaFloat64(const void* source, void* destination, size_t bytes) { return Fma<double>(source, destination, bytes); }

// The fastest exponential that softmax uses, summed rather than stored: a store would hide some of it.
double Exp(const void* source, void*, size_t bytes) {
  const auto* from = static_cast<const float*>(source);
  const BasicSumExponential<false, false, false> each(Reference{}, 1.0);
  const auto exponential = [&](VF x) HWY_ATTR { return each.Factors(x).Whole(); };
  VF sum = hn::Zero(f32);
  for (size_t i = 0; i < bytes / kBlock * kBlock / 4; i += 4 * kLanes) {
    const VF a = exponential(hn::LoadU(f32, from + i)), b = exponential(hn::LoadU(f32, from + i + kLanes));
    const VF c = exponential(hn::LoadU(f32, from + i + 2 * kLanes)), d = exponential(hn::LoadU(f32, from + i + 3 * kLanes));
    sum = hn::Add(sum, hn::Add(hn::Add(a, b), hn::Add(c, d)));
  }
  return double(hn::GetLane(hn::SumOfLanes(f32, sum))) / each.kFactor;
}

constexpr Kernels kKernels = {Read, CopyPlain, CopyStream, FmaFloat32, FmaFloat64, Exp};

}  // namespace HWY_NAMESPACE
}  // namespace ulproof
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
#include <hwy/targets.h>

namespace nb = nanobind;

namespace ulproof {
namespace {

struct Isa {
  const char* name;
  int64_t target;
  const Kernels* kernels;
};

constexpr Isa kIsas[] = {
#if HWY_TARGETS & HWY_AVX3
    {"avx512", HWY_AVX3, &N_AVX3::kKernels},
#endif
#if HWY_TARGETS & HWY_AVX2
    {"avx2", HWY_AVX2, &N_AVX2::kKernels},
#endif
#if HWY_TARGETS & HWY_NEON
    {"neon", HWY_NEON, &N_NEON::kKernels},
#endif
};

struct Kind {
  const char* name;
  Sweep Kernels::*sweep;
  nb::dlpack::dtype dtype;
  bool writes;
  size_t units_per_block;  // of kBlock bytes; 0: one unit per byte moved
};

const Kind kKinds[] = {
    {"read", &Kernels::read, nb::dtype<float>(), false, 0},
    {"copy", &Kernels::copy, nb::dtype<float>(), true, 0},
    {"stream-copy", &Kernels::stream_copy, nb::dtype<float>(), true, 0},
    {"fma-float32", &Kernels::fma_float32, nb::dtype<float>(), false, 2 * kFmas * kBlock / 4},
    {"fma-float64", &Kernels::fma_float64, nb::dtype<double>(), false, 2 * kFmas * kBlock / 8},
    {"exp-float32", &Kernels::exp_float32, nb::dtype<float>(), false, kBlock / 4},
};

template <typename Table>
const auto& Find(const Table& table, const std::string& name, const char* what) {
  std::string known;
  for (const auto& entry : table) {
    if (name == entry.name) return entry;
    known += (known.empty() ? "" : ", ") + std::string(entry.name);
  }
  throw std::invalid_argument("unknown " + std::string(what) + " '" + name + "'; there are " + known);
}

using Source = nb::ndarray<nb::ro, nb::c_contig, nb::device::cpu>;
using Destination = nb::ndarray<nb::c_contig, nb::device::cpu>;

nb::object Bind(const std::string& kind_name, const std::string& isa_name, nb::object dst, const Source& source,
                size_t threads, size_t sweeps) {
  const Kind& kind = Find(kKinds, kind_name, "kind");
  const Isa& isa = Find(kIsas, isa_name, "isa");
  if (!(hwy::SupportedTargets() & isa.target)) throw std::invalid_argument("this CPU has no " + isa_name);
  if (threads < 1 || sweeps < 1) throw std::invalid_argument("threads and sweeps must be at least 1");
  const std::string dtype = kind.dtype == nb::dtype<double>() ? "float64" : "float32";
  if (source.dtype() != kind.dtype) throw nb::type_error(("src must be " + dtype + " for " + kind_name).c_str());
  Destination destination;
  if (kind.writes) {
    if (!nb::try_cast(dst, destination, false) || destination.dtype() != kind.dtype || destination.nbytes() != source.nbytes()) {
      throw nb::type_error(("dst must be a contiguous writable " + dtype + " array of src's size for " + kind_name).c_str());
    }
  }
  const Sweep sweep = isa.kernels->*kind.sweep;
  const size_t bytes = source.nbytes();
  const size_t part = (bytes / threads + kPart - 1) / kPart * kPart;
  // The arrays are captured too: they keep the memory alive.
  return nb::cpp_function([=]() {
    const auto* from = static_cast<const char*>(source.data());
    auto* to = kind.writes ? static_cast<char*>(destination.data()) : nullptr;
    std::vector<double> results(threads);
    ThreadPool::Instance().Run(threads, threads, [&](size_t thread) {
      const size_t begin = std::min(thread * part, bytes);
      const size_t size = thread + 1 == threads ? bytes - begin : std::min(part, bytes - begin);
      double result = 0.0;
      for (size_t i = 0; i < sweeps; ++i) result = sweep(from + begin, to + begin, size);
      results[thread] = result;
    });
    return std::accumulate(results.begin(), results.end(), 0.0);
  });
}

size_t Work(const std::string& kind_name, size_t nbytes) {
  const Kind& kind = Find(kKinds, kind_name, "kind");
  if (kind.units_per_block) return nbytes / kBlock * kind.units_per_block;
  return kind.writes ? 2 * nbytes : nbytes;
}

#if HWY_ARCH_X86
void Flush(const nb::ndarray<nb::ro, uint8_t, nb::c_contig, nb::device::cpu>& bytes) {
  for (size_t i = 0; i < bytes.size(); i += kLine) hwy::FlushCacheline(bytes.data() + i);
  if (bytes.size()) hwy::FlushCacheline(bytes.data() + bytes.size() - 1);
  hwy::FlushStream();
}
#endif

nb::tuple Isas() {
  nb::list names;
  for (const Isa& isa : kIsas) {
    if (hwy::SupportedTargets() & isa.target) names.append(isa.name);
  }
  return nb::tuple(names);
}

nb::tuple Kinds() {
  nb::list names;
  for (const Kind& kind : kKinds) names.append(kind.name);
  return nb::tuple(names);
}

}  // namespace
}  // namespace ulproof

NB_MODULE(_ceilings, m) {
  m.doc() = "Kernels whose rates are this machine's roofs; they do the work, the ruler does the timing.";
  m.def("isas", &ulproof::Isas, "The instruction sets that this CPU has and this build holds, widest first.");
  m.def("kinds", &ulproof::Kinds, "The kinds of work.");
  m.def("bind", &ulproof::Bind, nb::arg("kind"), nb::arg("isa"), nb::arg("dst").none(), nb::arg("src"),
        nb::arg("threads") = 1, nb::arg("sweeps") = 1,
        R"(Return a zero-argument callable that does `sweeps` sweeps of one kind of work and nothing else.

kind     read: load every byte; copy: plain stores; stream-copy: stores that bypass the caches;
         fma-float32, fma-float64: 64 multiply-adds on each element, in registers; exp-float32: one accurate
         exponential of each element, summed.
isa      one of isas().
src      one-dimensional or larger, C-contiguous, float32 (float64 for fma-float64); start it on a page
         boundary, or vectors straddle cache lines. Arithmetic kinds want it in L1 (a few KiB) and use
         whole blocks of 768 bytes.
dst      the same size and dtype as src for the copies, None otherwise; touch it before timing.
threads  the work is split into that many contiguous parts, one for each thread of a pool that sleeps between calls;
         waking it costs microseconds.
sweeps   repeats inside one call, so that small buffers are not timed with the call around them.

Calling it returns a number that depends on the work: the sum of the 32-bit words modulo 2^32 and
threads for read, a sum of lanes for the arithmetic kinds, 0 for the copies. Raises ValueError or TypeError
that says what was wrong and what is allowed.)");
#if HWY_ARCH_X86
  m.def("flush", &ulproof::Flush, nb::arg("bytes").noconvert(),
        "Write the cache lines of a contiguous array of uint8 back to memory and drop them from every cache. x86 only.");
#endif
  m.def("work", &ulproof::Work, nb::arg("kind"), nb::arg("nbytes"),
        R"(Units of work in one sweep over a source of `nbytes` bytes: bytes read plus bytes written, floating-point
operations (a multiply-add is two), or exponentials.)");
}
#endif

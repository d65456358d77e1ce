// The native half of simd.py: softmax forward, and what the other SIMD files of this folder register.
#define ULPROOF_IMPORT_ARRAY
#include "_backends/bindings.h"
// clang-format off
#include <hwy/highway.h>
#include <hwy/targets.h>
#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>
// clang-format on

#include <string>

#include "softmax/simd_forward.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace ulproof {

void RegisterPasses(nb::module_&);  // simd_passes.cpp

namespace {

struct Isa {
  const char* name;
  int64_t target;
  Kernel (*forward)(Algorithm, bool, Element);
  Kernel (*published)(Algorithm);
  size_t (*wrongly_rounded)(Element, size_t);
};

constexpr Isa kIsas[] = {
#if HWY_TARGETS & HWY_AVX3
    {"avx512", HWY_AVX3, N_AVX3::ForwardKernel, N_AVX3::PublishedKernel, N_AVX3::WronglyRounded},
#endif
#if HWY_TARGETS & HWY_AVX2
    {"avx2", HWY_AVX2, N_AVX2::ForwardKernel, N_AVX2::PublishedKernel, N_AVX2::WronglyRounded},
#endif
#if HWY_TARGETS & HWY_NEON
    {"neon", HWY_NEON, N_NEON::ForwardKernel, N_NEON::PublishedKernel, N_NEON::WronglyRounded},
#endif
};

struct Variant {
  const char* name;
  Algorithm algorithm;
  bool stream;
};

constexpr Variant kVariants[] = {
    {"three-pass-recompute", Algorithm::kRecompute, false},
    {"three-pass-recompute-stream", Algorithm::kRecompute, true},
    {"three-pass-reload", Algorithm::kReload, false},
    {"three-pass-reload-stream", Algorithm::kReload, true},
    {"two-pass", Algorithm::kTwoPass, false},
    {"two-pass-stream", Algorithm::kTwoPass, true},
    {"two-pass-backward-walk", Algorithm::kBackwardWalk, false},
    {"online", Algorithm::kOnline, false},
    {"online-stream", Algorithm::kOnline, true},
    {"three-pass-recompute-as-published", Algorithm::kPublishedRecompute, false},
    {"three-pass-reload-as-published", Algorithm::kPublishedReload, false},
    {"two-pass-as-published", Algorithm::kPublishedTwoPass, false},
};

struct Caches {
  size_t l2, last;
};

// The best ISA first.
std::vector<std::string> Isas() {
  std::vector<std::string> names;
  for (const Isa& isa : kIsas) {
    if (hwy::SupportedTargets() & isa.target) names.push_back(isa.name);
  }
  return names;
}

const Isa& IsaNamed(const std::string& name) {
  for (const Isa& isa : kIsas) {
    if (name == isa.name && (hwy::SupportedTargets() & isa.target)) return isa;
  }
  std::string known;
  for (const std::string& one : Isas()) known += (known.empty() ? "" : ", ") + one;
  throw nb::value_error(("isa is '" + name + "'; this CPU and build have " + known).c_str());
}

const Variant& VariantNamed(const std::string& name) {
  for (const Variant& variant : kVariants) {
    if (name == variant.name) return variant;
  }
  throw nb::value_error(("there is no SIMD variant '" + name + "'").c_str());
}

// What `auto` runs, by measurement. A row whose input and float32 exponentials stay in the second-level cache is stored and
// scaled, one exponential an element, and with plain stores: they overlap with arithmetic. So is a longer one, unless it is
// of 16 bits, while input and output together take no more than half of the last cache. Beyond, memory is slower than
// arithmetic: a row is computed twice and goes past the caches.
const char* Choose(size_t rows, size_t n, size_t itemsize, const Caches& caches) {
  if (8 * n <= caches.l2) return "online";
  if (4 * rows * n * itemsize > caches.last) return "two-pass-stream";
  return itemsize == 4 ? "online" : "two-pass";
}

Kernel KernelFor(const Isa& isa, const std::string& variant, Element element, size_t rows, size_t n, const Caches& caches) {
  const size_t itemsize = element == Element::kFloat32 ? 4 : 2;
  const Variant& chosen = VariantNamed(variant == "auto" ? Choose(rows, n, itemsize, caches) : variant);
  return chosen.algorithm >= Algorithm::kPublishedRecompute ? isa.published(chosen.algorithm)
                                                            : isa.forward(chosen.algorithm, chosen.stream, element);
}

PyArrayObject* Array(nb::handle object) { return reinterpret_cast<PyArrayObject*>(object.ptr()); }

nb::object Bind(const std::string& variant, const std::string& isa, int element, nb::handle x, nb::handle y, size_t threads,
                size_t l2, size_t last) {
  const View from(Array(x)), to(Array(y));
  const Job job{from.strided, to.strided, from.rows, from.n, threads};
  const Kernel kernel = KernelFor(IsaNamed(isa), variant, Element(element), from.rows, from.n, {l2, last});
  auto body = [job, kernel, keep = std::make_pair(from.offsets, to.offsets)] { kernel(job); };
  return nb::steal(MakeBound(std::move(body), job.rows * job.n > 4096, {x.ptr(), y.ptr()}));
}

nb::object Call(const std::string& variant, const std::string& isa_name, int bfloat16, size_t l2, size_t last) {
  const Isa& isa = IsaNamed(isa_name);
  const Caches caches{l2, last};
  const bool published = VariantNamed(variant == "auto" ? "two-pass" : variant).algorithm >= Algorithm::kPublishedRecompute;
  auto body = [variant, &isa, bfloat16, caches, published](PyObject* const* arguments) -> PyObject* {
    if (!IsPlain(arguments[0])) return Py_NewRef(Py_NotImplemented);
    auto* x = reinterpret_cast<PyArrayObject*>(arguments[0]);
    const int type = PyArray_TYPE(x);
    Element element = Element::kFloat32;
    if (type == NPY_HALF) {
      element = Element::kFloat16;
    } else if (type == bfloat16) {
      element = Element::kBfloat16;
    } else if (type != NPY_FLOAT) {
      return Py_NewRef(Py_NotImplemented);
    }
    if (published && element != Element::kFloat32) return Py_NewRef(Py_NotImplemented);
    PyObject* y = EmptyLike(x);
    if (!y) return nullptr;
    const View from(x), to(reinterpret_cast<PyArrayObject*>(y));
    const Job job{from.strided, to.strided, from.rows, from.n, 1};
    const Kernel kernel = KernelFor(isa, variant, element, from.rows, from.n, caches);
    if (job.rows * job.n > 4096) {
      Py_BEGIN_ALLOW_THREADS;
      kernel(job);
      Py_END_ALLOW_THREADS;
    } else {
      kernel(job);
    }
    return y;
  };
  return nb::steal(MakeCaller(std::move(body), 1));
}

}  // namespace

NB_MODULE(_simd, m) {
  if (_import_array() < 0) throw nb::python_error();
  RegisterPasses(m);
  m.def("isas", Isas);
  m.def("bind", Bind, "variant"_a, "isa"_a, "element"_a, "x"_a, "y"_a, "threads"_a, "l2"_a, "last"_a);
  m.def("caller", Call, "variant"_a, "isa"_a, "bfloat16"_a, "l2"_a, "last"_a);
  m.def(
      "choose",
      [](size_t rows, size_t n, size_t itemsize, size_t l2, size_t last) {
        return std::string(Choose(rows, n, itemsize, Caches{l2, last}));
      },
      "rows"_a, "n"_a, "itemsize"_a, "l2"_a, "last"_a);
  m.def(
      "wrongly_rounded",
      [](const std::string& isa, int element, size_t threads) {
        const Isa& one = IsaNamed(isa);
        nb::gil_scoped_release release;
        return one.wrongly_rounded(Element(element), threads);
      },
      "isa"_a, "element"_a, "threads"_a, "How many of all 2^32 float32 values are rounded wrongly to 16 bits.");
}

}  // namespace ulproof

// From Python to the kernels of log_softmax, logsumexp and the backward passes.
#include "_backends/bindings.h"
// clang-format off
#include <hwy/highway.h>
#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>
// clang-format on

#include <string>

#include "softmax/simd_passes.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace ulproof {
namespace {

struct Isa {
  const char* name;
  PassKernel (*log)(PassKind, bool, Element);
  PassKernel (*backward)(PassKind, bool, Element);
};

constexpr Isa kIsas[] = {
#if HWY_TARGETS & HWY_AVX3
    {"avx512", N_AVX3::LogKernel, N_AVX3::BackwardKernel},
#endif
#if HWY_TARGETS & HWY_AVX2
    {"avx2", N_AVX2::LogKernel, N_AVX2::BackwardKernel},
#endif
#if HWY_TARGETS & HWY_NEON
    {"neon", N_NEON::LogKernel, N_NEON::BackwardKernel},
#endif
};

// Which of the inputs and whether the output hold a whole row; the others hold one element of each.
struct Kind {
  const char *op, *pass;
  PassKind kind;
  size_t inputs, vectors;
  bool vector_output;
};

constexpr Kind kKinds[] = {
    {"log_softmax", "forward", PassKind::kLogSoftmax, 1, 1, true},
    {"logsumexp", "forward", PassKind::kLogSumExp, 1, 1, false},
    {"softmax", "backward", PassKind::kSoftmaxBackward, 2, 2, true},
    {"log_softmax", "backward", PassKind::kLogSoftmaxBackward, 2, 2, true},
    {"logsumexp", "backward", PassKind::kLogSumExpBackward, 3, 1, true},
};

template <class Table, class Predicate>
const auto& Find(const Table& table, const Predicate& fits, const std::string& what) {
  for (const auto& entry : table) {
    if (fits(entry)) return entry;
  }
  throw nb::value_error(("there are no SIMD kernels for " + what).c_str());
}

const Kind& KindNamed(const std::string& op, const std::string& pass) {
  return Find(kKinds, [&](const Kind& kind) { return op == kind.op && pass == kind.pass; }, op + " " + pass);
}

const Isa& IsaNamed(const std::string& name) {
  return Find(kIsas, [&](const Isa& isa) { return name == isa.name; }, name);
}

// Results go past the caches when all arrays together take more than a quarter of the last one (by measurement; its other
// users leave no more), and rows are more than a few cache lines.
PassKernel KernelFor(const Kind& kind, const Isa& isa, Element element, const Pass& pass, size_t last) {
  const size_t arrays = kind.vectors + kind.vector_output;
  const size_t bytes = arrays * pass.rows * pass.n * (element == Element::kFloat32 ? 4 : 2);
  const bool stream = bytes > last / 4 && pass.n > 64;
  const bool log = kind.kind == PassKind::kLogSoftmax || kind.kind == PassKind::kLogSumExp;
  return (log ? isa.log : isa.backward)(kind.kind, stream, element);
}

bool Long(const Pass& pass) { return pass.rows * pass.n > 4096; }

PyArrayObject* Array(PyObject* object) { return reinterpret_cast<PyArrayObject*>(object); }

nb::object Bind(const std::string& op, const std::string& pass_name, const std::string& isa, int element,
                const std::vector<nb::object>& arrays, size_t threads, size_t last) {
  const Kind& kind = KindNamed(op, pass_name);
  Pass pass{};
  std::vector<std::shared_ptr<std::vector<ptrdiff_t>>> offsets;
  std::vector<PyObject*> kept;
  for (size_t k = 0; k <= kind.inputs; ++k) {
    const View view(Array(arrays[k].ptr()));
    if (k == 0) pass.rows = view.rows, pass.n = view.n;
    (k < kind.inputs ? pass.inputs[k] : pass.output) = view.strided;
    offsets.push_back(view.offsets);
    kept.push_back(arrays[k].ptr());
  }
  pass.threads = threads;
  const PassKernel kernel = KernelFor(kind, IsaNamed(isa), Element(element), pass, last);
  return nb::steal(MakeBound([pass, kernel, offsets] { kernel(pass); }, Long(pass), std::move(kept)));
}

// A new array in C order, of the shape of `x` or of its leading axes.
PyObject* Empty(PyArrayObject* x, bool whole) {
  PyArray_Descr* descr = PyArray_DESCR(x);
  Py_INCREF(descr);
  const int dimensions = PyArray_NDIM(x) - !whole;
  return PyArray_NewFromDescr(&PyArray_Type, descr, dimensions, PyArray_DIMS(x), nullptr, nullptr, 0, nullptr);
}

nb::object Call(const std::string& op, const std::string& pass_name, const std::string& isa_name, int bfloat16, size_t last) {
  const Kind& kind = KindNamed(op, pass_name);
  const Isa& isa = IsaNamed(isa_name);
  auto body = [&kind, &isa, bfloat16, last](PyObject* const* arguments) -> PyObject* {
    if (!IsPlain(arguments[0])) return Py_NewRef(Py_NotImplemented);
    PyArrayObject* first = Array(arguments[0]);
    const int type = PyArray_TYPE(first);
    if (type != NPY_FLOAT && type != NPY_HALF && type != bfloat16) return Py_NewRef(Py_NotImplemented);
    const Element element =
        type == NPY_FLOAT ? Element::kFloat32 : type == NPY_HALF ? Element::kFloat16 : Element::kBfloat16;
    const npy_intp* shape = PyArray_DIMS(first);
    const int dimensions = PyArray_NDIM(first);
    const View view(first);
    Pass pass{};
    pass.rows = view.rows, pass.n = view.n, pass.threads = 1;
    pass.inputs[0] = view.strided;
    // The others must be contiguous: then no view of theirs has to live as long as the call.
    for (size_t k = 1; k < kind.inputs; ++k) {
      const int expected = k < kind.vectors ? dimensions : dimensions - 1;
      if (!PyArray_CheckExact(arguments[k])) return Py_NewRef(Py_NotImplemented);
      PyArrayObject* array = Array(arguments[k]);
      if (PyArray_TYPE(array) != type || !PyArray_ISCARRAY_RO(array) || PyArray_NDIM(array) != expected ||
          !PyArray_CompareLists(PyArray_DIMS(array), shape, expected)) {
        return Py_NewRef(Py_NotImplemented);
      }
      const ptrdiff_t step = PyArray_ITEMSIZE(array);
      pass.inputs[k] = Strided{PyArray_BYTES(array), nullptr, step * ptrdiff_t(k < kind.vectors ? pass.n : 1), step};
    }
    PyObject* result = Empty(first, kind.vector_output);
    if (!result) return nullptr;
    const ptrdiff_t step = PyArray_ITEMSIZE(first);
    pass.output = Strided{PyArray_BYTES(Array(result)), nullptr, step * ptrdiff_t(kind.vector_output ? pass.n : 1), step};
    const PassKernel kernel = KernelFor(kind, isa, element, pass, last);
    if (Long(pass)) {
      Py_BEGIN_ALLOW_THREADS;
      kernel(pass);
      Py_END_ALLOW_THREADS;
    } else {
      kernel(pass);
    }
    return result;
  };
  return nb::steal(MakeCaller(std::move(body), Py_ssize_t(kind.inputs)));
}

}  // namespace

void RegisterPasses(nb::module_& m) {
  m.def("bind_pass", Bind, "operator"_a, "pass_"_a, "isa"_a, "element"_a, "arrays"_a, "threads"_a, "last"_a);
  m.def("pass_caller", Call, "operator"_a, "pass_"_a, "isa"_a, "bfloat16"_a, "last"_a);
}

}  // namespace ulproof

// From Python to kernels that work element by element: what the native halves of such families share.
#pragma once
#include "_backends/bindings.h"
// clang-format off
#include <hwy/highway.h>
#include <hwy/targets.h>
#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>
// clang-format on

#include <string>

#include "_backends/elementwise.h"

namespace ulproof {

namespace nb = nanobind;
using namespace nb::literals;

struct ElementwiseIsa {
  const char* name;
  int64_t target;
  std::vector<SweepTable (*)()> tables;
};

// ULPROOF_TABLES(name) declares SweepTable name() of every instruction set; ULPROOF_ISAS(X) is X(name, target, namespace) of those
// that this build holds, the best first.
#define ULPROOF_TABLES(name)      \
  namespace N_AVX2 {              \
  SweepTable name();              \
  }                               \
  namespace N_AVX3 {              \
  SweepTable name();              \
  }                               \
  namespace N_NEON {              \
  SweepTable name();              \
  }
#if HWY_TARGETS & HWY_AVX3
#define ULPROOF_ISAS(X) X("avx512", HWY_AVX3, N_AVX3) X("avx2", HWY_AVX2, N_AVX2)
#elif HWY_TARGETS & HWY_AVX2
#define ULPROOF_ISAS(X) X("avx2", HWY_AVX2, N_AVX2)
#else
#define ULPROOF_ISAS(X) X("neon", HWY_NEON, N_NEON)
#endif

// Defined by each family.
const std::vector<ElementwiseIsa>& ElementwiseIsas();

inline std::vector<std::string> IsasHere() {
  std::vector<std::string> names;
  for (const ElementwiseIsa& isa : ElementwiseIsas()) {
    if (hwy::SupportedTargets() & isa.target) names.push_back(isa.name);
  }
  return names;
}

inline const SweepEntry& EntryNamed(const std::string& isa_name, const std::string& op, const std::string& pass) {
  for (const ElementwiseIsa& isa : ElementwiseIsas()) {
    if (isa_name != isa.name || !(hwy::SupportedTargets() & isa.target)) continue;
    for (const auto& table : isa.tables) {
      const SweepTable found = table();
      for (size_t i = 0; i < found.count; ++i) {
        if (op == found.entries[i].name && pass == found.entries[i].pass) return found.entries[i];
      }
    }
  }
  throw nb::value_error(("there is no SIMD kernel for " + op + " " + pass + " with " + isa_name).c_str());
}

inline PyArrayObject* Array(PyObject* object) { return reinterpret_cast<PyArrayObject*>(object); }

inline Parameter ParameterOf(const View& view) { return {view.strided, view.rows, view.n}; }

// Arrays that lie close together are one long row.
inline void Flatten(Sweep& sweep, size_t inputs, size_t outputs, size_t itemsize) {
  const auto close = [&](const Strided& array) {
    return array.step == ptrdiff_t(itemsize) && !array.offsets &&
           (sweep.rows == 1 || array.row_step == ptrdiff_t(sweep.n * itemsize));
  };
  bool all = true;
  for (size_t k = 0; k < inputs; ++k) all = all && close(sweep.inputs[k]);
  for (size_t k = 0; k < outputs; ++k) all = all && close(sweep.outputs[k]);
  if (all) sweep.n *= sweep.rows, sweep.rows = 1;
}

// Results go past the caches when all arrays together take more than half of the last one, by measurement.
inline bool GoesPast(const Sweep& sweep, size_t arrays, size_t itemsize, size_t last) {
  return arrays * sweep.rows * sweep.n * itemsize > last / 2;
}

inline bool IsLong(const Sweep& sweep) { return sweep.rows * sweep.n > 4096; }

inline size_t ItemSize(Element element) { return element == Element::kFloat32 ? 4 : 2; }

// `arrays` are the inputs, then the outputs, of the workload's dtype; `learned` and `gradients` are float32.
inline nb::object BindSweep(const std::string& op, const std::string& pass, const std::string& isa, int element,
                            const std::vector<nb::object>& inputs, const std::vector<nb::object>& outputs,
                            const std::vector<nb::object>& learned, const std::vector<nb::object>& gradients,
                            const std::vector<double>& scalars, size_t threads, size_t last) {
  const SweepEntry& entry = EntryNamed(isa, op, pass);
  auto kept_scalars = std::make_shared<std::vector<double>>(scalars);
  std::vector<std::shared_ptr<std::vector<ptrdiff_t>>> offsets;
  std::vector<PyObject*> kept;
  Sweep sweep;
  const auto view = [&](const nb::object& array) {
    kept.push_back(array.ptr());
    View one(Array(array.ptr()));
    offsets.push_back(one.offsets);
    return one;
  };
  for (size_t k = 0; k < inputs.size(); ++k) {
    const View one = view(inputs[k]);
    if (k == 0) sweep.rows = one.rows, sweep.n = one.n;
    sweep.inputs[k] = one.strided;
  }
  for (size_t k = 0; k < outputs.size(); ++k) sweep.outputs[k] = view(outputs[k]).strided;
  for (size_t k = 0; k < learned.size(); ++k) sweep.learned[k] = ParameterOf(view(learned[k]));
  for (size_t k = 0; k < gradients.size(); ++k) sweep.gradients[k] = ParameterOf(view(gradients[k]));
  sweep.scalars = kept_scalars->data();
  sweep.threads = threads;
  const size_t itemsize = ItemSize(Element(element));
  if (!entry.by_column) Flatten(sweep, inputs.size(), outputs.size(), itemsize);
  sweep.past = GoesPast(sweep, inputs.size() + outputs.size(), itemsize, last);
  const SweepKernel kernel = entry.kernels[element];
  auto body = [sweep, kernel, offsets, kept_scalars] { kernel(sweep); };
  return nb::steal(MakeBound(std::move(body), IsLong(sweep), std::move(kept)));
}

// A callable from `inputs` arrays of one shape and dtype and then `learned` float32 ones to new outputs, `counts` (0 or 1) of each
// column, and gradients. A learned length of 0 is that of a row; the first of two is that of groups of columns.
inline nb::object SweepCaller(const std::string& op, const std::string& pass, const std::string& isa, int bfloat16, size_t inputs,
                              size_t outputs, size_t counts, const std::vector<std::vector<size_t>>& learned, bool gradients,
                              const std::vector<double>& scalars, size_t last) {
  const SweepEntry& entry = EntryNamed(isa, op, pass);
  auto body = [=, &entry](PyObject* const* arguments) -> PyObject* {
    if (!IsPlain(arguments[0])) return Py_NewRef(Py_NotImplemented);
    PyArrayObject* first = Array(arguments[0]);
    const int type = PyArray_TYPE(first), dimensions = PyArray_NDIM(first);
    if (type != NPY_FLOAT && type != NPY_HALF && type != bfloat16) return Py_NewRef(Py_NotImplemented);
    const Element element = type == NPY_FLOAT ? Element::kFloat32 : type == NPY_HALF ? Element::kFloat16 : Element::kBfloat16;
    const View view(first);
    Sweep sweep;
    sweep.rows = view.rows, sweep.n = view.n, sweep.scalars = scalars.data();
    sweep.inputs[0] = view.strided;
    const size_t itemsize = ItemSize(element);
    const auto dense = [&](PyObject* array, size_t n, size_t size) {
      return Strided{PyArray_BYTES(Array(array)), nullptr, ptrdiff_t(n * size), ptrdiff_t(size)};
    };
    // The others must be contiguous: then no view of theirs has to live as long as the call.
    for (size_t k = 1; k < inputs + learned.size(); ++k) {
      if (!PyArray_CheckExact(arguments[k])) return Py_NewRef(Py_NotImplemented);
      PyArrayObject* array = Array(arguments[k]);
      if (!PyArray_ISCARRAY_RO(array)) return Py_NewRef(Py_NotImplemented);
      if (k < inputs) {
        if (PyArray_TYPE(array) != type || PyArray_NDIM(array) != dimensions ||
            !PyArray_CompareLists(PyArray_DIMS(array), PyArray_DIMS(first), dimensions)) {
          return Py_NewRef(Py_NotImplemented);
        }
        sweep.inputs[k] = dense(arguments[k], sweep.n, itemsize);
      } else {
        const std::vector<size_t>& shape = learned[k - inputs];
        bool same = PyArray_TYPE(array) == NPY_FLOAT && size_t(PyArray_NDIM(array)) == shape.size();
        for (size_t axis = 0; same && axis < shape.size(); ++axis) {
          same = size_t(PyArray_DIM(array, int(axis))) == (shape[axis] ? shape[axis] : sweep.n);
        }
        if (!same || (shape.size() == 2 && sweep.n % shape[0])) return Py_NewRef(Py_NotImplemented);
        const size_t n = size_t(PyArray_SIZE(array));
        sweep.learned[k - inputs] = {dense(arguments[k], n, 4), 1, n};
      }
    }
    PyObject* results[4] = {};
    const size_t count = outputs + counts + (gradients ? learned.size() : 0);
    for (size_t k = 0; k < count; ++k) {
      const size_t gradient = k - outputs - counts;
      npy_intp columns = npy_intp(sweep.n);
      const bool counted = k >= outputs && k < outputs + counts;
      PyArrayObject* like = k < outputs ? first : counted ? nullptr : Array(arguments[inputs + gradient]);
      results[k] = like ? EmptyLike(like) : PyArray_SimpleNew(1, &columns, NPY_INT64);
      if (!results[k]) {
        for (size_t i = 0; i < k; ++i) Py_DECREF(results[i]);
        return nullptr;
      }
      if (like && k >= outputs) {
        const size_t n = size_t(PyArray_SIZE(like));
        sweep.gradients[gradient] = {dense(results[k], n, 4), 1, n};
      } else {
        sweep.outputs[k] = dense(results[k], sweep.n, like ? itemsize : 8);
      }
    }
    if (!entry.by_column) Flatten(sweep, inputs, outputs, itemsize);
    sweep.past = GoesPast(sweep, inputs + outputs, itemsize, last);
    const SweepKernel kernel = entry.kernels[int(element)];
    if (IsLong(sweep)) {
      Py_BEGIN_ALLOW_THREADS;
      kernel(sweep);
      Py_END_ALLOW_THREADS;
    } else {
      kernel(sweep);
    }
    if (count == 1) return results[0];
    PyObject* all = PyTuple_New(Py_ssize_t(count));
    for (size_t k = 0; k < count; ++k) {
      if (all) {
        PyTuple_SET_ITEM(all, Py_ssize_t(k), results[k]);
      } else {
        Py_DECREF(results[k]);
      }
    }
    return all;
  };
  return nb::steal(MakeCaller(std::move(body), Py_ssize_t(inputs + learned.size())));
}

inline void RegisterSweeps(nb::module_& m) {
  m.def("isas", IsasHere);
  m.def("bind", BindSweep, "operator"_a, "pass_"_a, "isa"_a, "element"_a, "inputs"_a, "outputs"_a, "learned"_a, "gradients"_a,
        "scalars"_a, "threads"_a, "last"_a);
  m.def("caller", SweepCaller, "operator"_a, "pass_"_a, "isa"_a, "bfloat16"_a, "inputs"_a, "outputs"_a, "counts"_a,
        "learned"_a, "gradients"_a, "scalars"_a, "last"_a);
}

}  // namespace ulproof

// From Python to a kernel in a fraction of a microsecond: views of NumPy arrays, and callables made of a capsule and a C
// function, so that two builds can live in one process (no bound class). One file of an extension defines
// ULPROOF_IMPORT_ARRAY before including this and calls import_array.
#pragma once
#define NPY_NO_DEPRECATED_API NPY_1_7_API_VERSION
#define PY_ARRAY_UNIQUE_SYMBOL ulproof_array_api
#ifndef ULPROOF_IMPORT_ARRAY
#define NO_IMPORT_ARRAY
#endif
#include <Python.h>
#include <numpy/arrayobject.h>

#include <functional>
#include <memory>
#include <utility>
#include <vector>

#include "_backends/rows.h"

namespace ulproof {

struct View {
  Strided strided;
  size_t rows = 1, n = 1;
  std::shared_ptr<std::vector<ptrdiff_t>> offsets;

  // `array` has at least one dimension.
  explicit View(PyArrayObject* array) {
    const int lead = PyArray_NDIM(array) - 1;
    const npy_intp* shape = PyArray_DIMS(array);
    const npy_intp* strides = PyArray_STRIDES(array);
    n = size_t(shape[lead]);
    strided.data = PyArray_BYTES(array);
    strided.step = n == 1 ? PyArray_ITEMSIZE(array) : strides[lead];
    // The leading axes are one when each steps over the whole of the next; axes of length 1 don't count.
    bool one = true;
    for (int axis = lead - 1; axis >= 0; --axis) {
      if (shape[axis] != 1) {
        if (rows == 1) {
          strided.row_step = strides[axis];
        } else {
          one = one && strides[axis] == strided.row_step * ptrdiff_t(rows);
        }
      }
      rows *= size_t(shape[axis]);
    }
    if (one || rows == 0) return;
    offsets = std::make_shared<std::vector<ptrdiff_t>>(1, 0);
    for (int axis = 0; axis < lead; ++axis) {
      std::vector<ptrdiff_t> next;
      next.reserve(offsets->size() * size_t(shape[axis]));
      for (ptrdiff_t base : *offsets) {
        for (npy_intp i = 0; i < shape[axis]; ++i) next.push_back(base + i * strides[axis]);
      }
      *offsets = std::move(next);
    }
    strided.offsets = offsets->data();
  }
};

// A Python callable without arguments that runs `body`; the references in `kept` live as long as it does.
struct Bound {
  std::function<void()> body;
  bool long_running;  // worth releasing the interpreter lock for
  std::vector<PyObject*> kept;

  ~Bound() {
    for (PyObject* object : kept) Py_DECREF(object);
  }
};

// A Python callable that takes `arity` arrays and gives a result, or NotImplemented for anything out of the ordinary.
struct Caller {
  std::function<PyObject*(PyObject* const*)> body;
  Py_ssize_t arity;
};

namespace internal {

template <class State>
PyObject* Wrap(PyMethodDef* method, std::unique_ptr<State> state) {
  PyObject* capsule = PyCapsule_New(state.get(), nullptr, [](PyObject* self) {
    delete static_cast<State*>(PyCapsule_GetPointer(self, nullptr));
  });
  if (!capsule) return nullptr;
  state.release();
  PyObject* function = PyCFunction_New(method, capsule);
  Py_DECREF(capsule);
  return function;
}

inline PyObject* RunBound(PyObject* self, PyObject*) {
  const Bound& bound = *static_cast<Bound*>(PyCapsule_GetPointer(self, nullptr));
  if (bound.long_running) {
    Py_BEGIN_ALLOW_THREADS;
    bound.body();
    Py_END_ALLOW_THREADS;
  } else {
    bound.body();
  }
  Py_RETURN_NONE;
}

inline PyObject* RunCaller(PyObject* self, PyObject* const* arguments, Py_ssize_t count) {
  const Caller& caller = *static_cast<Caller*>(PyCapsule_GetPointer(self, nullptr));
  if (count != caller.arity) return Py_NewRef(Py_NotImplemented);
  return caller.body(arguments);
}

}  // namespace internal

inline PyObject* MakeBound(std::function<void()> body, bool long_running, std::vector<PyObject*> kept) {
  static PyMethodDef method = {"bound", internal::RunBound, METH_NOARGS, nullptr};
  for (PyObject* object : kept) Py_INCREF(object);
  return internal::Wrap(&method, std::unique_ptr<Bound>(new Bound{std::move(body), long_running, std::move(kept)}));
}

inline PyObject* MakeCaller(std::function<PyObject*(PyObject* const*)> body, Py_ssize_t arity) {
  static PyMethodDef method = {"caller", reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(internal::RunCaller)),
                               METH_FASTCALL, nullptr};
  return internal::Wrap(&method, std::unique_ptr<Caller>(new Caller{std::move(body), arity}));
}

// Whether this is a plain NumPy array of at least one dimension and one element a row, aligned and in native byte order.
inline bool IsPlain(PyObject* object) {
  if (!PyArray_CheckExact(object)) return false;
  auto* array = reinterpret_cast<PyArrayObject*>(object);
  const int dimensions = PyArray_NDIM(array);
  return dimensions >= 1 && PyArray_DIM(array, dimensions - 1) >= 1 && PyArray_ISBEHAVED_RO(array);
}

// A new array of the same shape and dtype, in C order.
inline PyObject* EmptyLike(PyArrayObject* array) {
  PyArray_Descr* descr = PyArray_DESCR(array);
  Py_INCREF(descr);
  return PyArray_NewFromDescr(&PyArray_Type, descr, PyArray_NDIM(array), PyArray_DIMS(array), nullptr, nullptr, 0, nullptr);
}

}  // namespace ulproof

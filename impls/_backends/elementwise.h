// What a kernel that works element by element is asked to do.
#pragma once
#include <stddef.h>

#include "_backends/rows.h"

namespace ulproof {

enum class Element : int { kFloat32, kFloat16, kBfloat16 };

// A learned parameter, or its gradient: rows of n float32 numbers.
struct Parameter {
  Strided where;
  size_t rows = 0, n = 0;
};

inline constexpr size_t kMostLearned = 64;  // numbers, in all parameters of an activation

// Arrays of rows of n elements, in the card's order; unused ones have no data. Nothing depends on `threads` but the time.
struct Sweep {
  Strided inputs[3], outputs[2];
  Parameter learned[2], gradients[2];
  const double* scalars = nullptr;
  size_t rows = 0, n = 0, threads = 1;
  bool past = false;  // whether results go past the caches
};

// What a functor is made from: the learned numbers one after the other, and the operator's scalar parameters.
struct Arguments {
  const float* learned;
  const double* scalars;
  size_t group;  // of columns, where there are several
};

using SweepKernel = void (*)(const Sweep&);

// The kernels of one pass of one operator, by element.
struct SweepEntry {
  const char* name;
  const char* pass;
  bool by_column;  // so that rows must stay apart
  SweepKernel kernels[3];
};

struct SweepTable {
  const SweepEntry* entries;
  size_t count;
};

}  // namespace ulproof

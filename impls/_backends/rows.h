// Where a kernel finds its rows.
#pragma once
#include <stddef.h>

namespace ulproof {

// The rows of an array: its last axis, for every index of the others.
struct Strided {
  char* data = nullptr;
  const ptrdiff_t* offsets = nullptr;  // bytes to each row, or null when they are row_step apart
  ptrdiff_t row_step = 0;
  ptrdiff_t step = 0;  // bytes from one element to the next

  char* Row(size_t row) const { return data + (offsets ? offsets[row] : ptrdiff_t(row) * row_step); }
};

}  // namespace ulproof

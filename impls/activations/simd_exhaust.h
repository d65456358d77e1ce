// The proof on every float32 input: a kernel against scalar formulas in double.
#pragma once
#include <stdint.h>

#include <string>
#include <vector>

#include "_backends/elementwise.h"

namespace ulproof {

struct Exhausted {
  double max_ulp = 0.0;
  uint32_t worst = 0;
  uint64_t not_correctly_rounded = 0;
};

// Raises std::invalid_argument for an operator that it has no formula of.
Exhausted Exhaust(SweepKernel kernel, const std::string& op, bool backward, uint64_t begin, uint64_t end, size_t threads,
                  const std::vector<double>& scalars, const std::vector<float>& learned);

}  // namespace ulproof

// The passes beside the softmax itself, and what their kernels are asked to do.
#pragma once
#include "softmax/simd_forward.h"

namespace ulproof {

enum class PassKind : int { kLogSoftmax, kLogSumExp, kSoftmaxBackward, kLogSoftmaxBackward, kLogSumExpBackward };

inline constexpr size_t kInputs = 3;

// One pass over rows of n elements; inputs and output in the card's order, unused ones with no data. An array of one element
// a row has step 0. The result does not depend on `threads`.
struct Pass {
  Strided inputs[kInputs];
  Strided output;
  size_t rows, n;
  size_t threads;
};

using PassKernel = void (*)(const Pass&);

namespace N_AVX2 {
PassKernel LogKernel(PassKind, bool stream, Element);
PassKernel BackwardKernel(PassKind, bool stream, Element);
}  // namespace N_AVX2
namespace N_AVX3 {
PassKernel LogKernel(PassKind, bool stream, Element);
PassKernel BackwardKernel(PassKind, bool stream, Element);
}  // namespace N_AVX3
namespace N_NEON {
PassKernel LogKernel(PassKind, bool stream, Element);
PassKernel BackwardKernel(PassKind, bool stream, Element);
}  // namespace N_NEON

}  // namespace ulproof

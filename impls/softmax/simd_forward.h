// What the softmax kernels are asked to do; shared by the files of this extension.
#pragma once
#include <stddef.h>

#include "_backends/rows.h"

namespace ulproof {

enum class Element : int { kFloat32, kFloat16, kBfloat16 };

// Each is a sequence of sweeps over the row (see simd_forward.cpp): the same code, so equally tuned.
enum class Algorithm : int { kRecompute, kReload, kTwoPass, kBackwardWalk, kOnline, kPublishedRecompute, kPublishedReload, kPublishedTwoPass };

// y = softmax(x) over rows of n elements. The result does not depend on `threads`.
struct Job {
  Strided x, y;
  size_t rows, n;
  size_t threads;
};

using Kernel = void (*)(const Job&);

namespace N_AVX2 {
Kernel ForwardKernel(Algorithm, bool stream, Element);
Kernel PublishedKernel(Algorithm);
size_t WronglyRounded(Element, size_t threads);
}  // namespace N_AVX2
namespace N_AVX3 {
Kernel ForwardKernel(Algorithm, bool stream, Element);
Kernel PublishedKernel(Algorithm);
size_t WronglyRounded(Element, size_t threads);
}  // namespace N_AVX3
namespace N_NEON {
Kernel ForwardKernel(Algorithm, bool stream, Element);
Kernel PublishedKernel(Algorithm);
size_t WronglyRounded(Element, size_t threads);
}  // namespace N_NEON

}  // namespace ulproof

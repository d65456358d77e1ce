// A test of rounding to 16 bits: every float32 through the vector code, against plain integer arithmetic.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "softmax/simd_rounding.cpp"
#include <hwy/foreach_target.h>

#include <atomic>

#include "_backends/simd-inl.h"
#include "_backends/threads.h"
#include "softmax/simd_forward.h"

HWY_BEFORE_NAMESPACE();
namespace ulproof::HWY_NAMESPACE {
namespace {

// The nearest 16-bit number, ties to even, for a magnitude that is not a NaN.
HWY_INLINE uint32_t Nearest(uint32_t magnitude, Brain) { return (magnitude + 0x7FFF + ((magnitude >> 16) & 1)) >> 16; }

HWY_INLINE uint32_t Nearest(uint32_t magnitude, Half) {
  // Below 2^-14 the spacing is 2^-24, which is float32's at 0.5.
  float value;
  memcpy(&value, &magnitude, 4);
  value += 0.5f;
  uint32_t subnormal;
  memcpy(&subnormal, &value, 4);
  const uint32_t normal = (magnitude - (112u << 23) + 0xFFF + ((magnitude >> 13) & 1)) >> 13;
  return magnitude < 0x38800000 ? subnormal - 0x3F000000 : magnitude >= 0x477FF000 ? 0x7C00 : normal;
}

template <class T>
size_t Wrong(size_t threads, uint32_t infinity) {
  constexpr size_t kChunk = size_t{1} << 12, kChunks = (size_t{1} << 32) / kChunk, kPerTask = 256;
  std::atomic<size_t> wrong{0};
  ThreadPool::Instance().Run(threads, kChunks / kPerTask, [&](size_t task) HWY_ATTR {
    float from[kChunk];
    T to[kChunk];
    uint32_t count = 0;
    for (size_t chunk = task * kPerTask; chunk < (task + 1) * kPerTask; ++chunk) {
      for (size_t i = 0; i < kChunk; ++i) {
        const uint32_t bits = uint32_t(chunk * kChunk + i);
        memcpy(from + i, &bits, 4);
      }
      for (size_t i = 0; i < kChunk; i += kLanes) Store(Load(from + i), to + i);
      for (size_t i = 0; i < kChunk; ++i) {
        const uint32_t bits = uint32_t(chunk * kChunk + i), magnitude = bits & 0x7FFFFFFF, got = to[i].bits;
        const bool nan = magnitude > 0x7F800000;
        const bool good = nan ? (got & 0x7FFF) > infinity : got == ((bits >> 16 & 0x8000) | Nearest(magnitude, T()));
        count += !good;
      }
    }
    wrong += count;
  });
  return wrong;
}

}  // namespace

size_t WronglyRounded(Element element, size_t threads) {
  return element == Element::kFloat16 ? Wrong<Half>(threads, 0x7C00) : Wrong<Brain>(threads, 0x7F80);
}

}  // namespace ulproof::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

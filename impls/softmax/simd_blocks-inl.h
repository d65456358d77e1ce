// Blocks of a row, on one thread or several, and its largest element. Included once per instruction set, after foreach_target.h.
#include <hwy/cache_control.h>

#include <algorithm>
#include <vector>

#include "_backends/simd-inl.h"
#include "_backends/threads.h"

#if defined(ULPROOF_SIMD_BLOCKS_INL_H) == defined(HWY_TARGET_TOGGLE)
#ifdef ULPROOF_SIMD_BLOCKS_INL_H
#undef ULPROOF_SIMD_BLOCKS_INL_H
#else
#define ULPROOF_SIMD_BLOCKS_INL_H
#endif

HWY_BEFORE_NAMESPACE();
namespace ulproof::HWY_NAMESPACE {
namespace {

constexpr size_t kBlock = size_t{1} << 14;  // elements of a task, which are summed on their own: threads change no bit

// Calls body(begin, count) for each block of a row, on any thread, and where `backward` the last one first. (Two blocks far
// apart at a time, which suits some machines' DRAM, gained nothing where this was tuned.)
template <class Body>
HWY_INLINE void EachBlock(size_t n, size_t threads, bool backward, const Body& body) {
  const size_t blocks = (n + kBlock - 1) / kBlock;
  const auto one = [&](size_t i) HWY_ATTR {
    const size_t begin = (backward ? blocks - 1 - i : i) * kBlock;
    body(begin, std::min(kBlock, n - begin));
  };
  if (threads == 1 || blocks == 1) {
    for (size_t i = 0; i < blocks; ++i) one(i);
  } else {
    ThreadPool::Instance().Run(threads, blocks, [&](size_t i) HWY_ATTR {
      one(i);
      hwy::FlushStream();
    });
  }
}

template <class T>
HWY_NOINLINE float MaxOf(const T* x, size_t n, size_t threads) {
  if (n <= kBlock) return RowMax(x, n);
  std::vector<float> largest((n + kBlock - 1) / kBlock);
  EachBlock(n, threads, false, [&](size_t begin, size_t count) HWY_ATTR { largest[begin / kBlock] = RowMax(x + begin, count); });
  return *std::max_element(largest.begin(), largest.end());
}

}  // namespace
}  // namespace ulproof::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif  // ULPROOF_SIMD_BLOCKS_INL_H

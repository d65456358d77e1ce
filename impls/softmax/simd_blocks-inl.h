// Blocks of a row, on one thread or several, and its largest element. Included once per instruction set, after foreach_target.h.
#include <hwy/cache_control.h>

#include <algorithm>
#include <limits>
#include <type_traits>
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

// A sweep over a long row goes on at two places of it at once, far apart: the prefetchers follow both, and where they stop at a
// page's end in one they go on in the other. (Four measured best for reading alone, but worse for a whole softmax; places that
// are nearer than some 2^16 elements lose more than they gain. Zen 4.)
constexpr size_t kWays = 2;
constexpr size_t kSpan = size_t{1} << 20;  // elements of a row that are so shared out
constexpr size_t kApart = kSpan / kWays;
template <size_t ways>
using Ways = std::integral_constant<size_t, ways>;

// Calls body(begin, count, ways) for all blocks of a row, on any thread, and where `backward` the last ones first: for the
// block at begin, or for kMost blocks that are kApart elements apart from there on.
template <size_t kMost, class Body>
HWY_INLINE void EachBlocks(size_t n, size_t threads, bool backward, const Body& body) {
  constexpr size_t kTasks = kApart / kBlock;
  const size_t shared = kMost > 1 && n > kSpan ? n / kSpan * kSpan : 0, tasks = shared / kSpan * kTasks;
  const size_t all = tasks + (n - shared + kBlock - 1) / kBlock;
  const auto one = [&](size_t task) HWY_ATTR {
    const size_t i = backward ? all - 1 - task : task;
    if (i < tasks) {
      const size_t place = backward ? kTasks - 1 - i % kTasks : i % kTasks;
      body(i / kTasks * kSpan + place * kBlock, kBlock, Ways<kMost>());
    } else {
      const size_t begin = shared + (i - tasks) * kBlock;
      body(begin, std::min(kBlock, n - begin), Ways<1>());
    }
  };
  if (threads == 1 || all == 1) {
    for (size_t i = 0; i < all; ++i) one(i);
  } else {
    ThreadPool::Instance().Run(threads, all, [&](size_t i) HWY_ATTR {
      one(i);
      hwy::FlushStream();
    });
  }
}

// The same one by one, with body(begin, count).
template <class Body>
HWY_INLINE void EachBlock(size_t n, size_t threads, const Body& body) {
  EachBlocks<1>(n, threads, false, [&](size_t begin, size_t count, Ways<1>) HWY_ATTR { body(begin, count); });
}

template <class T>
HWY_NOINLINE float MaxOf(const T* x, size_t n, size_t threads) {
  if (n <= kBlock) return RowMax(x, n);
  std::vector<float> largest((n + kBlock - 1) / kBlock, -std::numeric_limits<float>::infinity());
  EachBlocks<kWays>(n, threads, false, [&](size_t begin, size_t count, auto ways) HWY_ATTR {
    largest[begin / kBlock] = RowMax<ways()>(x + begin, count, kApart);
  });
  return *std::max_element(largest.begin(), largest.end());
}

}  // namespace
}  // namespace ulproof::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif  // ULPROOF_SIMD_BLOCKS_INL_H

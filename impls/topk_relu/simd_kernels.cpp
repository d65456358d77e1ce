// topk_relu, arXiv 2210.06313: a bound from a sample, the candidates above it side by side, their k-th by bisection on the bits.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "topk_relu/simd_kernels.cpp"
#include <hwy/foreach_target.h>

#include "_backends/rowwise-inl.h"

HWY_BEFORE_NAMESPACE();
namespace ulproof::HWY_NAMESPACE {
namespace {

// The bits of positive floats rank as integers; what is not above 0 ranks as 0, and every NaN above infinity.
HWY_INLINE VI Rank(VF v) {
  const VI bits = hn::BitCast(i32, hn::IfThenZeroElse(hn::Le(v, hn::Zero(f32)), v));
  return hn::Min(hn::And(bits, hn::Set(i32, 0x7FFFFFFF)), hn::Set(i32, 0x7FC00000));
}

// `ranks` has room for a vector beyond count.
HWY_INLINE size_t CountFrom(const int32_t* ranks, size_t count, int32_t bound) {
  VI found0 = hn::Zero(i32), found1 = hn::Zero(i32);
  const VI least = hn::Set(i32, bound - 1);
  size_t i = 0;
  for (; i + 2 * kLanes <= count; i += 2 * kLanes) {
    found0 = hn::Sub(found0, hn::VecFromMask(i32, hn::Gt(hn::LoadU(i32, ranks + i), least)));
    found1 = hn::Sub(found1, hn::VecFromMask(i32, hn::Gt(hn::LoadU(i32, ranks + i + kLanes), least)));
  }
  size_t found = size_t(hn::GetLane(hn::SumOfLanes(i32, hn::Add(found0, found1))));
  for (; i < count; ++i) found += ranks[i] >= bound;
  return found;
}

// The k-th largest of count >= k >= 1 ranks, none of them below 0: the largest bound that k of them reach.
int32_t Kth(const int32_t* ranks, size_t count, size_t k) {
  int32_t least = 0x7FFFFFFF, most = 0;
  for (size_t i = 0; i < count; ++i) least = std::min(least, ranks[i]), most = std::max(most, ranks[i]);
  // All share the bits above the first in which the least and the largest differ.
  int bit = 30;
  while (bit >= 0 && !((least ^ most) >> bit & 1)) --bit;
  int32_t kth = bit < 0 ? most : most >> (bit + 1) << (bit + 1);
  for (; bit >= 0; --bit) {
    const int32_t higher = kth | int32_t{1} << bit;
    if (CountFrom(ranks, count, higher) >= k) kth = higher;
  }
  return kth;
}

struct Candidates {
  explicit Candidates(size_t n) : ranks(n + 2 * kLanes) {}
  std::vector<int32_t> ranks;
};

template <size_t kIn>
struct TopkRelu {
  static constexpr size_t kInputs = kIn, kSums = 0;
  using Scratch = Candidates;
  explicit TopkRelu(const Arguments& arguments) : k(size_t(arguments.scalars[0])) {}

  template <bool kStream, class T>
  void Row(const T* const* in, T* out, size_t n, Candidates& scratch, double*) const {
    const T *x = in[0], *value = in[kIn - 1];
    int32_t* ranks = scratch.ranks.data();
    // What ranks above kth is kept, and of what equals it the first `room`.
    int32_t kth = 0;
    size_t room = 0;
    if (k < n) {
      size_t count = Above(x, n, Bound(x, n, ranks), ranks);
      if (count < k) count = Above(x, n, 1, ranks);
      if (count > k) {
        kth = Kth(ranks, count, k);
        room = k - CountFrom(ranks, count, kth + 1);
      } else if (count == k) {
        kth = *std::min_element(ranks, ranks + count) - 1;
      }
    }
    const VI bound = hn::Set(i32, kth);
    WriteRow<kStream>(out, n, [&](size_t i, size_t lanes) HWY_ATTR {
      const VF v = LoadUpTo(x + i, lanes);
      const VI rank = Rank(v);
      auto keep = hn::Gt(rank, bound);
      if (room > 0) {
        const auto tied = hn::Eq(rank, bound);
        const size_t ties = hn::CountTrue(i32, tied);
        if (ties <= room) {
          keep = hn::Or(keep, tied);
          room -= ties;
        } else {
          HWY_ALIGN int32_t first[kLanes];
          hn::Store(hn::VecFromMask(i32, tied), i32, first);
          for (size_t lane = 0; lane < kLanes; ++lane) {
            if (first[lane] && room == 0) first[lane] = 0;
            if (first[lane]) --room;
          }
          keep = hn::Or(keep, hn::MaskFromVec(hn::Load(i32, first)));
        }
      }
      return hn::IfThenElseZero(hn::RebindMask(f32, keep), kIn == 1 ? v : LoadUpTo(value + i, lanes));
    });
  }

 private:
  // A rank that somewhat more than k elements probably reach, from every sixteenth vector; any is right, but slower.
  template <class T>
  int32_t Bound(const T* x, size_t n, int32_t* ranks) const {
    constexpr size_t kEvery = 16;
    if (n < 64 * kLanes) return 1;
    size_t size = 0;
    for (size_t i = 0; i + kLanes <= n; i += kEvery * kLanes, size += kLanes) hn::StoreU(Rank(Load(x + i)), i32, ranks + size);
    const double expected = double(k) * double(size) / double(n);
    const size_t wanted = size_t(expected + 3.0 * std::sqrt(expected)) + 2;
    return wanted >= size ? 1 : std::max(1, Kth(ranks, size, wanted));
  }

  // The ranks from `bound` on, in order, and how many.
  template <class T>
  size_t Above(const T* x, size_t n, int32_t bound, int32_t* ranks) const {
    const VI least = hn::Set(i32, bound - 1);
    size_t count = 0, i = 0;
    for (; i + kLanes <= n; i += kLanes) {
      const VI rank = Rank(Load(x + i));
      const auto found = hn::Gt(rank, least);
      hn::StoreU(hn::Compress(rank, found), i32, ranks + count);  // in registers: compressing to memory is slow on Zen 4
      count += hn::CountTrue(i32, found);
    }
    if (i < n) {
      const VI rank = Rank(LoadPart(x + i, n - i, 0.0f));
      count += hn::CompressStore(rank, hn::Gt(rank, least), i32, ranks + count);
    }
    return count;
  }

  size_t k;
};

}  // namespace

SweepTable KernelTable() {
  static constexpr SweepEntry kEntries[] = {
      RowsEntryOf<TopkRelu<1>>("topk_relu", "forward"),
      RowsEntryOf<TopkRelu<2>>("topk_relu", "backward"),
  };
  return {kEntries, sizeof(kEntries) / sizeof(kEntries[0])};
}

}  // namespace ulproof::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

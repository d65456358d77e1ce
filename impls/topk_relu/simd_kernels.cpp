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

// Whether v ranks at least as a bound above 0; every NaN does.
HWY_INLINE auto Reaches(VF v, VF bound) { return hn::Not(hn::Lt(v, bound)); }

// How many of the ranks reach the bound. They end on a whole vector, filled up with what reaches none.
HWY_INLINE size_t CountFrom(const int32_t* ranks, size_t count, int32_t bound) {
  VI found0 = hn::Zero(i32), found1 = hn::Zero(i32);
  const VI least = hn::Set(i32, bound - 1);
  size_t i = 0;
  for (; i + kLanes < count; i += 2 * kLanes) {
    found0 = hn::Sub(found0, hn::VecFromMask(i32, hn::Gt(hn::LoadU(i32, ranks + i), least)));
    found1 = hn::Sub(found1, hn::VecFromMask(i32, hn::Gt(hn::LoadU(i32, ranks + i + kLanes), least)));
  }
  if (i < count) found0 = hn::Sub(found0, hn::VecFromMask(i32, hn::Gt(hn::LoadU(i32, ranks + i), least)));
  return size_t(hn::GetLane(hn::SumOfLanes(i32, hn::Add(found0, found1))));
}

// A bound that `reach` of the ranks reach.
struct Selected {
  int32_t bound;
  size_t reach;
};

// The largest bound that k of count >= k >= 1 ranks reach, none below 0; or the first one found that from k to `most` reach.
Selected Select(int32_t* ranks, size_t count, size_t k, size_t most) {
  hn::StoreU(hn::Set(i32, -1), i32, ranks + count);
  VI low = hn::Set(i32, 0x7FFFFFFF), high = hn::Zero(i32);
  for (size_t i = 0; i < count; i += kLanes) {
    const VI rank = hn::LoadU(i32, ranks + i);
    low = hn::BitCast(i32, hn::Min(hn::BitCast(u32, low), hn::BitCast(u32, rank)));  // not of what fills up
    high = hn::Max(high, rank);
  }
  const int32_t least = hn::GetLane(hn::MinOfLanes(i32, low)), largest = hn::GetLane(hn::MaxOfLanes(i32, high));
  // All share the bits above the first in which the least and the largest differ.
  int bit = 30;
  while (bit >= 0 && !((least ^ largest) >> bit & 1)) --bit;
  Selected found = {bit < 0 ? largest : largest >> (bit + 1) << (bit + 1), count};
  for (; bit >= 0 && found.reach > most; --bit) {
    const int32_t higher = found.bound | int32_t{1} << bit;
    const size_t reach = CountFrom(ranks, count, higher);
    if (reach >= k) found = {higher, reach};
  }
  return found;
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

  template <class T>
  void Row(const T* const* in, bool past, T* out, size_t n, Candidates& scratch, double*) const {
    const T *x = in[0], *value = in[kIn - 1];
    // What reaches the bound is kept; of several that are equal to it the first `room`, where not all.
    int32_t bound = 1;
    size_t room = 0;
    if (k < n) {
      int32_t* ranks = scratch.ranks.data();
      bound = Guess(x, n, ranks);
      size_t count = Above(x, n, bound, ranks);
      if (count < k) count = Above(x, n, bound = 1, ranks);
      if (count > k) {
        const Selected found = Select(ranks, count, k, k);
        bound = found.bound;
        if (found.reach > k || bound > kInfinity) room = k - CountFrom(ranks, count, bound + 1);
      }
    }
    const VF least = hn::BitCast(f32, hn::Set(i32, bound));
    if (HWY_LIKELY(room == 0 && bound <= kInfinity)) {
      return WriteRow(past, out, n, [&](size_t i, size_t lanes) ULPROOF_EACH {
        const VF v = LoadUpTo(x + i, lanes);
        return hn::IfThenElseZero(Reaches(v, least), kIn == 1 ? v : LoadUpTo(value + i, lanes));
      });
    }
    const VI tie = hn::Set(i32, bound);
    WriteRow(past, out, n, [&](size_t i, size_t lanes) HWY_ATTR {
      const VF v = LoadUpTo(x + i, lanes);
      const VI rank = Rank(v);
      auto keep = hn::Gt(rank, tie);
      if (room > 0) {
        const auto tied = hn::Eq(rank, tie);
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
  static constexpr int32_t kInfinity = 0x7F800000;

  // A rank that somewhat more than k elements probably reach, from every sixteenth vector; any is right, but slower.
  template <class T>
  int32_t Guess(const T* x, size_t n, int32_t* ranks) const {
    constexpr size_t kEvery = 16;
    if (n < 64 * kLanes) return 1;
    size_t size = 0;
    for (size_t i = 0; i + kLanes <= n; i += kEvery * kLanes, size += kLanes) hn::StoreU(Rank(Load(x + i)), i32, ranks + size);
    const double expected = double(k) * double(size) / double(n);
    const size_t wanted = size_t(expected + 3.0 * std::sqrt(expected)) + 2;
    if (wanted >= size) return 1;
    return std::clamp(Select(ranks, size, wanted, wanted + wanted / 8).bound, 1, kInfinity);
  }

  // The ranks from `bound` on, in order, and how many; `bound` is above 0 and at most infinity's.
  template <class T>
  size_t Above(const T* x, size_t n, int32_t bound, int32_t* ranks) const {
    const VF least = hn::BitCast(f32, hn::Set(i32, bound));
    size_t count = 0;
    const auto add = [&](VF v) HWY_ATTR {
      const auto found = Reaches(v, least);
      const VI bits = hn::BitCast(i32, v);
      if constexpr (kLanes == 16) {  // in registers: compressing to memory is slow on Zen 4
        hn::StoreU(hn::Compress(bits, hn::RebindMask(i32, found)), i32, ranks + count);
        count += hn::CountTrue(f32, found);
      } else if (!hn::AllFalse(f32, found)) {  // few vectors hold one, and compressing takes tables
        HWY_ALIGN int32_t each[kLanes];
        HWY_ALIGN int32_t less[kLanes];  // -1 where found
        hn::Store(bits, i32, each);
        hn::Store(hn::VecFromMask(i32, hn::RebindMask(i32, found)), i32, less);
        for (size_t lane = 0; lane < kLanes; ++lane) ranks[count] = each[lane], count -= size_t(ptrdiff_t(less[lane]));
      }
    };
    size_t i = 0;
    for (; i + kLanes <= n; i += kLanes) add(Load(x + i));
    if (i < n) add(LoadPart(x + i, n - i, 0.0f));
    for (i = 0; i < count; i += kLanes) hn::StoreU(Rank(hn::BitCast(f32, hn::LoadU(i32, ranks + i))), i32, ranks + i);
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

// topk_relu_approx and topk_relu_stat: the k largest among the leaders of buckets, and what reaches a threshold.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "topk_relu/simd_modes.cpp"
#include <hwy/foreach_target.h>

#include "_backends/rowwise-inl.h"

HWY_BEFORE_NAMESPACE();
namespace ulproof::HWY_NAMESPACE {
namespace {

// The bits of positive floats rank as integers; what is not above 0 ranks as 0, and every NaN above infinity.
HWY_INLINE VI RankOf(VF v) {
  const VI bits = hn::BitCast(i32, hn::IfThenZeroElse(hn::Le(v, hn::Zero(f32)), v));
  return hn::Min(hn::And(bits, hn::Set(i32, 0x7FFFFFFF)), hn::Set(i32, 0x7FC00000));
}

// How many of the ranks, which end on a whole vector, are above `least`.
size_t CountAbove(const std::vector<int32_t>& ranks, size_t count, int32_t least) {
  VI found = hn::Zero(i32);
  for (size_t i = 0; i < count; i += kLanes) {
    found = hn::Sub(found, hn::VecFromMask(i32, hn::Gt(hn::LoadU(i32, &ranks[i]), hn::Set(i32, least))));
  }
  return size_t(hn::GetLane(hn::SumOfLanes(i32, found)));
}

// As the card has them: `buckets` and `deviations`.
size_t BucketsOf(size_t k, size_t n, double recall) {
  const auto expected = [k](double count) { return count / double(k) * (1.0 - std::pow(1.0 - 1.0 / count, double(k))); };
  size_t count = 64;
  while (count < n && expected(double(count)) < recall) count *= 2;
  return count < n && k < n ? count : 0;
}

double DeviationsOf(size_t k, size_t n) {
  if (k >= n) return -HUGE_VAL;
  double low = -40.0, high = 40.0;
  for (double z = 0.0; low < z || z < high; z = low + (high - low) / 2) {
    if (z <= low || z >= high) break;
    (0.5 * std::erfc(z * std::sqrt(0.5)) > double(k) / double(n) ? low : high) = z;
  }
  return low;
}

struct Leaders {
  explicit Leaders(size_t n) : ranks(n + kLanes), leaders(n + kLanes) {}
  std::vector<int32_t> ranks, leaders;
};

template <size_t kIn>
struct TopkReluApprox {
  static constexpr size_t kInputs = kIn, kSums = 0;
  using Scratch = Leaders;
  explicit TopkReluApprox(const Arguments& arguments) : k(size_t(arguments.scalars[0])), recall(arguments.scalars[1]) {}

  template <class T>
  void Row(const T* const* in, bool past, T* out, size_t n, Leaders& scratch, double*) const {
    const T *x = in[0], *value = in[kIn - 1];
    std::vector<int32_t>&ranks = scratch.ranks, &leaders = scratch.leaders;
    const size_t buckets = BucketsOf(k, n, recall), count = buckets ? buckets : n;
    for (size_t i = 0; i < n; i += kLanes) hn::StoreU(RankOf(LoadUpTo(x + i, std::min(kLanes, n - i))), i32, &ranks[i]);
    for (size_t j = 0; j < count; j += kLanes) {
      VI most = hn::LoadU(i32, &ranks[j]);
      for (size_t i = j + count; i < n; i += count) most = hn::Max(most, hn::LoadU(i32, &ranks[i]));
      hn::StoreU(most, i32, &leaders[j]);
    }
    // What ranks above kth is kept, and of what equals it the first `room`.
    int32_t kth = 0;
    size_t room = 0;
    if (k < count && CountAbove(leaders, count, 0) > k) {
      for (int32_t bit = int32_t{1} << 30; bit > 0; bit >>= 1) {
        if (CountAbove(leaders, count, (kth | bit) - 1) >= k) kth |= bit;
      }
      room = k - CountAbove(leaders, count, kth);
    }
    if (buckets) {  // of equal ones the first leads
      for (size_t i = 0; i < n; i += kLanes) {
        const VI rank = hn::LoadU(i32, &ranks[i]), most = hn::LoadU(i32, &leaders[i % count]);
        const auto leads = hn::Eq(rank, most);
        hn::StoreU(hn::IfThenElseZero(leads, rank), i32, &ranks[i]);
        hn::StoreU(hn::IfThenElse(leads, hn::Set(i32, -1), most), i32, &leaders[i % count]);
      }
    }
    const VI bound = hn::Set(i32, kth);
    WriteRow(past, out, n, [&](size_t i, size_t lanes) ULPROOF_EACH {
      VI rank = hn::LoadU(i32, &ranks[i]);
      if (room > 0 && !hn::AllFalse(i32, hn::Eq(rank, bound))) {
        HWY_ALIGN int32_t each[kLanes];
        hn::Store(rank, i32, each);
        for (size_t lane = 0; lane < lanes; ++lane) {
          if (each[lane] == kth && room > 0) --room, ++each[lane];
        }
        rank = hn::Load(i32, each);
      }
      return hn::IfThenElseZero(hn::RebindMask(f32, hn::Gt(rank, bound)), LoadUpTo(value + i, lanes));
    });
  }

 private:
  size_t k;
  double recall;
};

struct Deviations {
  explicit Deviations(size_t) {}
  double z = NAN;  // of this length, once it is known
};

template <size_t kIn>
struct TopkReluStat {
  static constexpr size_t kInputs = kIn, kSums = 0;
  using Scratch = Deviations;
  explicit TopkReluStat(const Arguments& arguments) : k(size_t(arguments.scalars[0])) {}

  template <class T>
  void Row(const T* const* in, bool past, T* out, size_t n, Deviations& scratch, double*) const {
    const T *x = in[0], *value = in[kIn - 1];
    if (std::isnan(scratch.z)) scratch.z = DeviationsOf(k, n);
    const double mean = Sum(x, n, [](VD v) HWY_ATTR { return v; }) / double(n);
    const VD middle = hn::Set(f64, mean);
    const double squares = Sum(x, n, [middle](VD v) HWY_ATTR {
      const VD apart = hn::Sub(v, middle);
      return hn::Mul(apart, apart);
    });
    const VF least = hn::Set(f32, float(mean + std::sqrt(squares / double(n)) * scratch.z)), zero = hn::Zero(f32);
    WriteRow(past, out, n, [&](size_t i, size_t lanes) ULPROOF_EACH {
      const VF v = LoadUpTo(x + i, lanes);
      return hn::IfThenZeroElse(hn::Or(hn::Lt(v, least), hn::Le(v, zero)), kIn == 1 ? v : LoadUpTo(value + i, lanes));
    });
  }

 private:
  template <class T, class F>
  static double Sum(const T* x, size_t n, const F& f) {
    VD low = hn::Zero(f64), high = hn::Zero(f64);
    const hn::Half<F32> upper;
    constexpr size_t kHalf = kLanes / 2;
    size_t i = 0;
    for (; i + kLanes <= n; i += kLanes) {
      const VF v = Load(x + i);
      low = hn::Add(low, f(hn::PromoteTo(f64, hn::LowerHalf(v))));
      high = hn::Add(high, f(hn::PromoteTo(f64, hn::UpperHalf(upper, v))));
    }
    if (const size_t rest = n - i) {
      const VF v = LoadPart(x + i, rest, 0.0f);
      const auto of = [](size_t lanes) HWY_ATTR { return hn::FirstN(f64, lanes); };
      low = hn::Add(low, hn::IfThenElseZero(of(std::min(rest, kHalf)), f(hn::PromoteTo(f64, hn::LowerHalf(v)))));
      high = hn::Add(high, hn::IfThenElseZero(of(rest > kHalf ? rest - kHalf : 0), f(hn::PromoteTo(f64, hn::UpperHalf(upper, v)))));
    }
    return hn::GetLane(hn::SumOfLanes(f64, hn::Add(low, high)));
  }

  size_t k;
};

}  // namespace

SweepTable ModesTable() {
  static constexpr SweepEntry kEntries[] = {
      RowsEntryOf<TopkReluApprox<1>>("topk_relu_approx", "forward"),
      RowsEntryOf<TopkReluApprox<2>>("topk_relu_approx", "backward"),
      RowsEntryOf<TopkReluStat<1>>("topk_relu_stat", "forward"),
      RowsEntryOf<TopkReluStat<2>>("topk_relu_stat", "backward"),
  };
  return {kEntries, sizeof(kEntries) / sizeof(kEntries[0])};
}

}  // namespace ulproof::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

// poly_norm, arXiv 2411.03884: moments of a row in double, then a cubic of each element while the row is in cache.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "poly_norm/simd_kernels.cpp"
#include <hwy/foreach_target.h>

#include "_backends/rowwise-inl.h"
#include "_backends/simd_math-inl.h"

HWY_BEFORE_NAMESPACE();
namespace ulproof::HWY_NAMESPACE {
namespace {

// A row's sums, in double: of x^2, x^4 and x^6, and with a gradient dy of dy x, dy x^2, dy x^3 and dy.
template <bool kGradient, class T>
HWY_INLINE void Moments(const T* const* in, size_t n, bool past, double* totals) {
  constexpr size_t kCount = kGradient ? 7 : 3, kInputs = kGradient ? 2 : 1;
  VD sums[2][kCount];
  for (auto& half : sums) {
    for (VD& one : half) one = hn::Zero(f64);
  }
  const auto add = [](VD* to, VD x, VD dy) ULPROOF_EACH {
    const VD square = hn::Mul(x, x), cube = hn::Mul(square, x);
    to[0] = hn::Add(to[0], square);
    to[1] = hn::MulAdd(square, square, to[1]);
    to[2] = hn::MulAdd(cube, cube, to[2]);
    if constexpr (kGradient) {
      to[3] = hn::MulAdd(dy, x, to[3]);
      to[4] = hn::MulAdd(dy, square, to[4]);
      to[5] = hn::MulAdd(dy, cube, to[5]);
      to[6] = hn::Add(to[6], dy);
    }
  };
  const hn::Half<F32> half;
  for (size_t i = 0; i < n; i += kLanes) {
    const size_t count = std::min(n - i, kLanes);
    for (size_t k = 0; k < kInputs && past; ++k) hwy::Prefetch(in[k] + i + 4096 / sizeof(T));
    const VF x = LoadUpTo(in[0] + i, count), dy = LoadUpTo(in[kInputs - 1] + i, count);
    add(sums[0], hn::PromoteTo(f64, hn::LowerHalf(x)), hn::PromoteTo(f64, hn::LowerHalf(dy)));
    add(sums[1], hn::PromoteTo(f64, hn::UpperHalf(half, x)), hn::PromoteTo(f64, hn::UpperHalf(half, dy)));
  }
  for (size_t k = 0; k < kCount; ++k) totals[k] = hn::GetLane(hn::SumOfLanes(f64, hn::Add(sums[0][k], sums[1][k])));
}

struct Nothing {
  explicit Nothing(size_t) {}
};

struct PolyNorm {
  static constexpr size_t kInputs = 1, kSums = 0;
  using Scratch = Nothing;
  explicit PolyNorm(const Arguments& arguments) : eps(arguments.scalars[0]) {
    for (size_t i = 0; i < 4; ++i) w[i] = arguments.learned[i];
  }

  template <class T>
  void Row(const T* const* in, bool past, T* out, size_t n, Nothing&, double*) const {
    double moments[3];
    Moments<false>(in, n, past, moments);
    // w i_p of the powers p = 1, 2, 3, after b.
    float c[4] = {w[3]};
    for (size_t p = 1; p <= 3; ++p) c[p] = float(double(w[3 - p]) / std::sqrt(moments[p - 1] / double(n) + eps));
    const T* x = in[0];
    WriteRow(past, out, n, [&](size_t i, size_t count) ULPROOF_EACH { return Cubic(LoadUpTo(x + i, count), c); });
  }
  float w[4];
  double eps;
};

// dx = sum_p w_p (p x^(p-1) i_p dy - p / n x^(2p-1) i_p^3 S_p), S_p = sum dy x^p; dw_p = sum of i_p S_p, db = sum of dy.
struct PolyNormBackward : PolyNorm {
  static constexpr size_t kInputs = 2, kSums = 4;
  using PolyNorm::PolyNorm;

  template <class T>
  void Row(const T* const* in, bool past, T* out, size_t n, Nothing&, double* sums) const {
    double moments[7];
    Moments<true>(in, n, past, moments);
    VD direct[3], mean[3];
    for (size_t p = 1; p <= 3; ++p) {
      const double inverse = 1.0 / std::sqrt(moments[p - 1] / double(n) + eps), s = moments[p + 2];
      const double weight = double(w[3 - p]) * double(p) * inverse;
      direct[p - 1] = hn::Set(f64, weight);
      mean[p - 1] = hn::Set(f64, weight * inverse * inverse * s / double(n));
      sums[3 - p] = inverse * s;
    }
    sums[3] = moments[6];
    const auto apply = [&](VD v, VD g) ULPROOF_EACH {
      const VD square = hn::Mul(v, v);
      const VD factor = hn::MulAdd(hn::MulAdd(direct[2], v, direct[1]), v, direct[0]);
      const VD back = hn::MulAdd(hn::MulAdd(mean[2], square, mean[1]), square, mean[0]);
      return hn::MulSub(factor, g, hn::Mul(back, v));
    };
    const T *x = in[0], *dy = in[1];
    WriteRow(past, out, n, [&](size_t i, size_t count) ULPROOF_EACH {
      const hn::Half<F32> half;
      const VF v = LoadUpTo(x + i, count), g = LoadUpTo(dy + i, count);
      const VD low = apply(hn::PromoteTo(f64, hn::LowerHalf(v)), hn::PromoteTo(f64, hn::LowerHalf(g)));
      const VD high = apply(hn::PromoteTo(f64, hn::UpperHalf(half, v)), hn::PromoteTo(f64, hn::UpperHalf(half, g)));
      return hn::Combine(f32, hn::DemoteTo(half, high), hn::DemoteTo(half, low));
    });
  }
};

}  // namespace

SweepTable KernelTable() {
  static constexpr SweepEntry kEntries[] = {
      RowsEntryOf<PolyNorm>("poly_norm", "forward"),
      RowsEntryOf<PolyNormBackward>("poly_norm", "backward"),
  };
  return {kEntries, sizeof(kEntries) / sizeof(kEntries[0])};
}

}  // namespace ulproof::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

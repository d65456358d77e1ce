// poly_norm, arXiv 2411.03884: moments of a row in double, then a cubic of each element while the row is in cache.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "poly_norm/simd_kernels.cpp"
#include <hwy/foreach_target.h>

#include "_backends/rowwise-inl.h"

HWY_BEFORE_NAMESPACE();
namespace ulproof::HWY_NAMESPACE {
namespace {

struct Nothing {
  explicit Nothing(size_t) {}
};

// c[p] = w i_p for the powers p = 1, 2, 3; c[0] = b.
struct PolyNorm {
  static constexpr size_t kInputs = 1, kSums = 0;
  using Scratch = Nothing;
  explicit PolyNorm(const Arguments& arguments) : eps(arguments.scalars[0]) {
    for (size_t i = 0; i < 4; ++i) w[i] = arguments.learned[i];
  }

  template <bool kStream, class T>
  void Row(const T* const* in, T* out, size_t n, Nothing&, double*) const {
    const T* x = in[0];
    VD m[2][3];
    for (auto& half : m) half[0] = half[1] = half[2] = hn::Zero(f64);
    const auto add = [&m](VD v, size_t half) HWY_ATTR {
      const VD square = hn::Mul(v, v), cube = hn::Mul(square, v);
      m[half][0] = hn::Add(m[half][0], square);
      m[half][1] = hn::MulAdd(square, square, m[half][1]);
      m[half][2] = hn::MulAdd(cube, cube, m[half][2]);
    };
    for (size_t i = 0; i < n; i += kLanes) {
      const VF v = n - i >= kLanes ? Load(x + i) : LoadPart(x + i, n - i, 0.0f);
      if constexpr (kStream) hwy::Prefetch(x + i + 4096 / sizeof(T));
      add(hn::PromoteTo(f64, hn::LowerHalf(v)), 0);
      add(hn::PromoteTo(f64, hn::UpperHalf(hn::Half<F32>(), v)), 1);
    }
    float c[4] = {w[3]};
    for (size_t p = 0; p < 3; ++p) {
      const double sum = hn::GetLane(hn::SumOfLanes(f64, hn::Add(m[0][p], m[1][p])));
      c[p + 1] = float(double(w[2 - p]) / std::sqrt(sum / double(n) + eps));
    }
    const VF b = hn::Set(f32, c[0]), c1 = hn::Set(f32, c[1]), c2 = hn::Set(f32, c[2]), c3 = hn::Set(f32, c[3]);
    WriteRow<kStream>(out, n, [&](size_t i, size_t count) HWY_ATTR {
      const VF v = LoadUpTo(x + i, count);
      return hn::MulAdd(hn::MulAdd(hn::MulAdd(c3, v, c2), v, c1), v, b);
    });
  }
  float w[4];
  double eps;
};

// dx = sum_p w_p (p x^(p-1) i_p dy - p / n x^(2p-1) i_p^3 S_p), S_p = sum dy x^p; dw_p = sum of i_p S_p, db = sum of dy.
struct PolyNormBackward : PolyNorm {
  static constexpr size_t kInputs = 2, kSums = 4;
  using PolyNorm::PolyNorm;

  template <bool kStream, class T>
  void Row(const T* const* in, T* out, size_t n, Nothing&, double* sums) const {
    const T *x = in[0], *dy = in[1];
    VD m[2][7];
    for (auto& half : m) {
      for (VD& one : half) one = hn::Zero(f64);
    }
    const auto add = [&m](VD v, VD g, size_t half) HWY_ATTR {
      VD* to = m[half];
      const VD square = hn::Mul(v, v), cube = hn::Mul(square, v);
      to[0] = hn::Add(to[0], square);
      to[1] = hn::MulAdd(square, square, to[1]);
      to[2] = hn::MulAdd(cube, cube, to[2]);
      to[3] = hn::MulAdd(g, v, to[3]);
      to[4] = hn::MulAdd(g, square, to[4]);
      to[5] = hn::MulAdd(g, cube, to[5]);
      to[6] = hn::Add(to[6], g);
    };
    const hn::Half<F32> upper;
    for (size_t i = 0; i < n; i += kLanes) {
      const bool whole = n - i >= kLanes;
      const VF v = whole ? Load(x + i) : LoadPart(x + i, n - i, 0.0f), g = whole ? Load(dy + i) : LoadPart(dy + i, n - i, 0.0f);
      if constexpr (kStream) hwy::Prefetch(x + i + 4096 / sizeof(T)), hwy::Prefetch(dy + i + 4096 / sizeof(T));
      add(hn::PromoteTo(f64, hn::LowerHalf(v)), hn::PromoteTo(f64, hn::LowerHalf(g)), 0);
      add(hn::PromoteTo(f64, hn::UpperHalf(upper, v)), hn::PromoteTo(f64, hn::UpperHalf(upper, g)), 1);
    }
    double total[7];
    for (size_t k = 0; k < 7; ++k) total[k] = hn::GetLane(hn::SumOfLanes(f64, hn::Add(m[0][k], m[1][k])));
    VD direct[3], mean[3];
    for (size_t p = 1; p <= 3; ++p) {
      const double inverse = 1.0 / std::sqrt(total[p - 1] / double(n) + eps), s = total[p + 2];
      const double weight = double(w[3 - p]) * double(p) * inverse;
      direct[p - 1] = hn::Set(f64, weight);
      mean[p - 1] = hn::Set(f64, weight * inverse * inverse * s / double(n));
      sums[3 - p] = inverse * s;
    }
    sums[3] = total[6];
    const auto apply = [&](VD v, VD g) HWY_ATTR {
      const VD square = hn::Mul(v, v);
      const VD factor = hn::MulAdd(hn::MulAdd(direct[2], v, direct[1]), v, direct[0]);
      const VD back = hn::MulAdd(hn::MulAdd(mean[2], square, mean[1]), square, mean[0]);
      return hn::MulSub(factor, g, hn::Mul(back, v));
    };
    WriteRow<kStream>(out, n, [&](size_t i, size_t count) HWY_ATTR {
      const VF v = LoadUpTo(x + i, count), g = LoadUpTo(dy + i, count);
      const VD low = apply(hn::PromoteTo(f64, hn::LowerHalf(v)), hn::PromoteTo(f64, hn::LowerHalf(g)));
      const VD high = apply(hn::PromoteTo(f64, hn::UpperHalf(upper, v)), hn::PromoteTo(f64, hn::UpperHalf(upper, g)));
      return hn::Combine(f32, hn::DemoteTo(upper, high), hn::DemoteTo(upper, low));
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

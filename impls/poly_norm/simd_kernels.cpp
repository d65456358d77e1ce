// poly_norm, arXiv 2411.03884: moments of a row in double, and while its values are written, from cache, those of the next one.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "poly_norm/simd_kernels.cpp"
#include <hwy/foreach_target.h>

#include "_backends/rowwise-inl.h"
#include "_backends/simd_math-inl.h"

HWY_BEFORE_NAMESPACE();
namespace ulproof::HWY_NAMESPACE {
namespace {

// Sums of a row, in double, a vector at a time: of x^2, x^4 and x^6, and with a gradient dy of dy x^p and of dy.
template <bool kGradient, class T>
class Moments {
 public:
  static constexpr size_t kCount = kGradient ? 7 : 3, kInputs = kGradient ? 2 : 1;

  HWY_INLINE Moments(const T* const* in, size_t n, bool past) : n_(in ? n : 0), past_(past) {
    for (size_t k = 0; k < kInputs; ++k) in_[k] = in ? in[k] : nullptr;
    for (VD& one : sums_) one = hn::Zero(f64);
  }
  // One vector more, if there is one.
  HWY_INLINE void Step() {
    if (i_ + kLanes > n_) return;
    for (size_t k = 0; k < kInputs && past_; ++k) hwy::Prefetch(in_[k] + i_ + 4096 / sizeof(T));
    Add(Load(in_[0] + i_), Load(in_[kInputs - 1] + i_));
    i_ += kLanes;
  }
  HWY_INLINE void Finish(double* totals) {
    while (i_ + kLanes <= n_) Step();
    if (i_ < n_) Add(LoadPart(in_[0] + i_, n_ - i_, 0.0f), LoadPart(in_[kInputs - 1] + i_, n_ - i_, 0.0f));
    for (size_t k = 0; k < kCount; ++k) totals[k] = hn::GetLane(hn::SumOfLanes(f64, sums_[k]));
  }

 private:
  HWY_INLINE void Add(VF x, VF dy) {
    const hn::Half<F32> half;
    AddHalf(hn::PromoteTo(f64, hn::LowerHalf(x)), hn::PromoteTo(f64, hn::LowerHalf(dy)));
    AddHalf(hn::PromoteTo(f64, hn::UpperHalf(half, x)), hn::PromoteTo(f64, hn::UpperHalf(half, dy)));
  }
  HWY_INLINE void AddHalf(VD x, VD dy) {
    const VD square = hn::Mul(x, x), cube = hn::Mul(square, x);
    sums_[0] = hn::Add(sums_[0], square);
    sums_[1] = hn::MulAdd(square, square, sums_[1]);
    sums_[2] = hn::MulAdd(cube, cube, sums_[2]);
    if constexpr (kGradient) {
      sums_[3] = hn::MulAdd(dy, x, sums_[3]);
      sums_[4] = hn::MulAdd(dy, square, sums_[4]);
      sums_[5] = hn::MulAdd(dy, cube, sums_[5]);
      sums_[6] = hn::Add(sums_[6], dy);
    }
  }

  const T* in_[kInputs];
  size_t n_, i_ = 0;
  bool past_;
  VD sums_[kCount];
};

// A row's moments, if they were taken while the one before was written.
struct Measured {
  explicit Measured(size_t) {}
  double moments[7];
  bool ready = false;

  template <class M, class T>
  HWY_INLINE void Take(const T* const* in, size_t n, bool past) {
    if (!ready) M(in, n, past).Finish(moments);
  }
  template <class M, class T, class F>
  HWY_INLINE void Write(bool past, T* out, size_t n, const T* const* next, const F& f) {
    M ahead(next, n, past);
    WriteRow(past, out, n, f, [&ahead]() ULPROOF_EACH { ahead.Step(); });
    ready = next != nullptr;
    if (ready) ahead.Finish(moments);
  }
};

struct PolyNorm {
  static constexpr size_t kInputs = 1, kSums = 0;
  using Scratch = Measured;
  explicit PolyNorm(const Arguments& arguments) : eps(arguments.scalars[0]) {
    for (size_t i = 0; i < 4; ++i) w[i] = arguments.learned[i];
  }

  template <class T>
  void Row(const T* const* in, const T* const* next, bool past, T* out, size_t n, Measured& measured, double*) const {
    using M = Moments<false, T>;
    measured.Take<M>(in, n, past);
    // w i_p of the powers p = 1, 2, 3, after b.
    float c[4] = {w[3]};
    for (size_t p = 1; p <= 3; ++p) c[p] = float(double(w[3 - p]) / std::sqrt(measured.moments[p - 1] / double(n) + eps));
    const T* x = in[0];
    measured.Write<M>(past, out, n, next, [&](size_t i, size_t count) ULPROOF_EACH { return Cubic(LoadUpTo(x + i, count), c); });
  }
  float w[4];
  double eps;
};

// dx = sum_p w_p (p x^(p-1) i_p dy - p / n x^(2p-1) i_p^3 S_p), S_p = sum dy x^p; dw_p = sum of i_p S_p, db = sum of dy.
struct PolyNormBackward : PolyNorm {
  static constexpr size_t kInputs = 2, kSums = 4;
  using PolyNorm::PolyNorm;

  template <class T>
  void Row(const T* const* in, const T* const* next, bool past, T* out, size_t n, Measured& measured, double* sums) const {
    using M = Moments<true, T>;
    measured.Take<M>(in, n, past);
    VD direct[3], mean[3];
    for (size_t p = 1; p <= 3; ++p) {
      const double inverse = 1.0 / std::sqrt(measured.moments[p - 1] / double(n) + eps), s = measured.moments[p + 2];
      const double weight = double(w[3 - p]) * double(p) * inverse;
      direct[p - 1] = hn::Set(f64, weight);
      mean[p - 1] = hn::Set(f64, weight * inverse * inverse * s / double(n));
      sums[3 - p] = inverse * s;
    }
    sums[3] = measured.moments[6];
    const auto apply = [&](VD v, VD g) ULPROOF_EACH {
      const VD square = hn::Mul(v, v);
      const VD factor = hn::MulAdd(hn::MulAdd(direct[2], v, direct[1]), v, direct[0]);
      const VD back = hn::MulAdd(hn::MulAdd(mean[2], square, mean[1]), square, mean[0]);
      return hn::MulSub(factor, g, hn::Mul(back, v));
    };
    const T *x = in[0], *dy = in[1];
    measured.Write<M>(past, out, n, next, [&](size_t i, size_t count) ULPROOF_EACH {
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

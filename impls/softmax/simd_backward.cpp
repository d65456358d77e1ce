// The backward passes of softmax, log_softmax and logsumexp.
//
//   softmax      dx = y (dy - sum y dy)        reads y and dy twice
//   log_softmax  dx = dy - exp(y) sum dy       reads dy twice and y once
//   logsumexp    dx = exp(x - lse) dlse        reads x once
//
// Sums are in double, and so are the factors of exponentials.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "softmax/simd_backward.cpp"
#include <hwy/foreach_target.h>

#include "softmax/simd_rows-inl.h"

HWY_BEFORE_NAMESPACE();
namespace ulproof::HWY_NAMESPACE {
namespace {

using HalfF32 = hn::Half<F32>;

// sum y dy
template <class T>
class Dot {
 public:
  HWY_INLINE Dot(const T* y, const T* dy) : y_(y), dy_(dy) {}
  HWY_INLINE void Add(size_t i) {
    if constexpr (sizeof(T) == 4) {
      for (size_t v = 0; v < 4; ++v, i += kLanes) {
        low_[v % 2] = hn::MulAdd(Wide(y_ + i), Wide(dy_ + i), low_[v % 2]);
        high_[v % 2] = hn::MulAdd(Wide(y_ + i + kLanes / 2), Wide(dy_ + i + kLanes / 2), high_[v % 2]);
      }
    } else {  // the product of two 16-bit numbers is exact in float
      const VF a = hn::Mul(Load(y_ + i), Load(dy_ + i));
      const VF b = hn::MulAdd(Load(y_ + i + kLanes), Load(dy_ + i + kLanes), a);
      const VF c = hn::Mul(Load(y_ + i + 2 * kLanes), Load(dy_ + i + 2 * kLanes));
      AddVector(hn::Add(b, hn::MulAdd(Load(y_ + i + 3 * kLanes), Load(dy_ + i + 3 * kLanes), c)), hn::Set(f32, 1.0f));
    }
  }
  HWY_INLINE void Add(size_t i, size_t count) {
    if (count == kLanes) {
      AddVector(Load(y_ + i), Load(dy_ + i));
    } else {
      AddVector(LoadPart(y_ + i, count, 0.0f), LoadPart(dy_ + i, count, 0.0f));
    }
  }
  HWY_INLINE VD Lanes() const { return hn::Add(hn::Add(low_[0], low_[1]), hn::Add(high_[0], high_[1])); }

 private:
  static HWY_INLINE VD Wide(const T* p) { return hn::PromoteTo(f64, hn::LoadU(HalfF32(), reinterpret_cast<const float*>(p))); }
  HWY_INLINE void AddVector(VF a, VF b) {
    const HalfF32 half;
    low_[0] = hn::MulAdd(hn::PromoteTo(f64, hn::LowerHalf(a)), hn::PromoteTo(f64, hn::LowerHalf(b)), low_[0]);
    high_[0] =
        hn::MulAdd(hn::PromoteTo(f64, hn::UpperHalf(half, a)), hn::PromoteTo(f64, hn::UpperHalf(half, b)), high_[0]);
  }

  const T *y_, *dy_;
  VD low_[2] = {hn::Zero(f64), hn::Zero(f64)}, high_[2] = {hn::Zero(f64), hn::Zero(f64)};
};

// sum dy
template <class T>
class Plain {
 public:
  HWY_INLINE explicit Plain(const T* dy) : dy_(dy) {}
  HWY_INLINE void Add(size_t i) {
    if constexpr (sizeof(T) == 4) {
      for (size_t v = 0; v < 2; ++v, i += 2 * kLanes) sums_[v].Add(hn::Add(Load(dy_ + i), Load(dy_ + i + kLanes)));
    } else {
      const VF a = hn::Add(Load(dy_ + i), Load(dy_ + i + kLanes));
      sums_[0].Add(hn::Add(a, hn::Add(Load(dy_ + i + 2 * kLanes), Load(dy_ + i + 3 * kLanes))));
    }
  }
  HWY_INLINE void Add(size_t i, size_t count) {
    sums_[0].Add(count == kLanes ? Load(dy_ + i) : LoadPart(dy_ + i, count, 0.0f));
  }
  HWY_INLINE VD Lanes() const { return hn::Add(sums_[0].Lanes(), sums_[1].Lanes()); }

 private:
  const T* dy_;
  DoubleSum sums_[2];
};

// y (dy - s), with one rounding of the difference and one of the result
class Centred {
 public:
  static constexpr float kFill = 0.0f;
  HWY_INLINE explicit Centred(const TwoFloats& s) : high_(hn::Set(f32, s.high)), rest_(hn::Set(f32, -s.low)) {}
  HWY_INLINE VF operator()(VF y, VF dy) const { return hn::MulAdd(y, hn::Sub(dy, high_), hn::Mul(y, rest_)); }
  double Top() const { return 0.0; }

 private:
  VF high_, rest_;
};

template <bool kStream>
struct ShortSoftmax {
  static constexpr Short kShorts = Short::kAlone;
  template <class T>
  HWY_INLINE void Alone(const T* const* inputs, T* dx, size_t n) const {
    const T *y = inputs[0], *dy = inputs[1];
    const double s = hn::GetLane(hn::SumOfLanes(f64, SumLanes(Dot<T>(y, dy), n)));
    MapBlock<kStream>(Centred(TwoFloats(s)), n, dx, y, dy);
  }
};

// factor * e^x for a factor of either sign and ordinary size, or 0, and x up to kLimit; exactly 0 for -inf. The exponential
// is the same for all rows, and the factor, in two floats, multiplies its two parts. Top() is the largest x seen.
class Factored {
 public:
  static constexpr float kFill = 0.0f;  // not -inf: products that underflow are slow
  static constexpr double kBias = 0x1p50;  // so that the exponential's floor, 2^-125, ends as 0
  static constexpr double kLimit = 50.0;   // e^kLimit is below 2^126 / kBias
  static NearExponential Shared() { return NearExponential(Reference{}, kBias); }
  static bool Takes(double factor) { return factor == 0.0 || (std::fabs(factor) > 0x1p-50 && std::fabs(factor) < 0x1p24); }

  HWY_INLINE Factored(const NearExponential& shared, double factor) : exponential_(shared), top_(hn::Set(f32, -kInfinity)) {
    const TwoFloats scaled(factor * (1.0 / (kBias * NearExponential::kFactor)));
    high_ = hn::Set(f32, scaled.high);
    low_ = hn::Set(f32, scaled.low);
  }
  HWY_INLINE VF operator()(VF x) {
    top_ = hn::Max(x, top_);
    const auto parts = exponential_(x);
    return hn::MulAdd(parts.root, high_, hn::MulAdd(parts.rest, high_, hn::Mul(parts.root, low_)));
  }
  double Top() const { return hn::GetLane(hn::MaxOfLanes(f32, top_)); }
  double Limit() const { return kLimit; }
  HWY_INLINE bool Within() const { return hn::AllFalse(f32, hn::Gt(top_, hn::Set(f32, float(kLimit)))); }

 private:
  NearExponential exponential_;
  VF high_, low_, top_;
};

// factor * e^(x - shift) for any finite factor; the factor is folded into the exponential, which is this row's own. Good for x
// up to Limit(), where the result is 2^98.
class Folded {
 public:
  static constexpr float kFill = -kInfinity;
  HWY_INLINE Folded(float shift, double factor)
      : exponential_(Reference{shift, 0.0}, NotZero(factor)),
        sign_(hn::Set(f32, std::signbit(factor) ? -0.0f : 0.0f)),
        top_(hn::Set(f32, -kInfinity)),
        limit_(double(shift) + std::min(60000.0, 98.0 * 0.69314718 - std::log(NotZero(factor)))) {}
  HWY_INLINE VF operator()(VF x) {
    top_ = hn::Max(x, top_);
    return hn::Xor(exponential_(x), sign_);
  }
  double Top() const { return hn::GetLane(hn::MaxOfLanes(f32, top_)); }
  double Limit() const { return limit_; }

 private:
  // 0 is too small a factor for the exponential's tables; this one is as good.
  static double NotZero(double factor) { return factor == 0.0 ? 0x1p-1000 : std::fabs(factor); }

  Exponential exponential_;
  VF sign_, top_;
  double limit_;
};

// dy + term(y)
template <class Term>
class Plus {
 public:
  static constexpr float kFill = Term::kFill;
  HWY_INLINE explicit Plus(const Term& term) : term_(term) {}
  HWY_INLINE VF operator()(VF y, VF dy) { return hn::Add(dy, term_(y)); }
  double Top() const { return term_.Top(); }
  double Limit() const { return term_.Limit(); }

 private:
  Term term_;
};

// e^v for |v| < 512, off by less than 2^-40 of it: a call of the library's would cost more than a short row does, registers
// with constants among it.
HWY_INLINE double ShortExp(double v) {
  constexpr double kMagic = 0x1.8p52;
  const double rounder = v * (16.0 * 1.44269504088896340736) + kMagic, whole = rounder - kMagic;
  uint64_t bits;
  memcpy(&bits, &rounder, sizeof(bits));
  const double t = v - whole * (0.693147180559945309417 / 16.0), square = t * t;
  const double tail = (1.0 / 2 + t * (1.0 / 6)) + square * (1.0 / 24 + t * (1.0 / 120));
  const uint64_t exponent = uint64_t((int64_t(bits << 12) >> 16) + 1023) << 52;
  double power;
  memcpy(&power, &exponent, sizeof(power));
  return kRoots[bits % 16] * power * ((1.0 + t) + square * tail);
}

// MapRow; returns whether the function was good for all of the row.
template <bool kStream, class Function, class T, class... Inputs>
HWY_INLINE bool MapWithin(const Function& function, size_t n, size_t threads, T* y, const Inputs*... x) {
  return MapRow<kStream>(function, n, threads, y, x...) <= function.Limit();
}

// The same in double, one element after the other: for what overflows, and for infinities and NaN.
template <class T, class Function, class... Inputs>
HWY_NOINLINE void MapSlowly(size_t n, T* y, const Function& function, const Inputs*... x) {
  for (size_t i = 0; i < n; ++i) SetScalar(float(function(double(GetScalar(x + i))...)), y + i);
}

template <bool kStream>
struct ShortLogSoftmax {
  static constexpr Short kShorts = Short::kPairs;
  static constexpr bool kStreams = kStream;
  template <size_t kCount, class T>
  HWY_INLINE bool Pair(const T* const (&inputs)[2][kInputs], T* const (&outputs)[2], size_t count, size_t n) const {
    double s[2];
    bool good = true;
    if constexpr (kCount == 0) {
      AddUp(SumLanes(Plain<T>(inputs[0][1]), n), SumLanes(Plain<T>(inputs[1][1]), n), s);
      for (size_t r = 0; r < count && good; ++r) {
        good = Factored::Takes(s[r]);
        if (!good) break;
        const Plus<Factored> function(Factored(shared, -s[r]));
        good = MapBlock<kStream>(function, n, outputs[r], inputs[r][0], inputs[r][1]) <= function.Limit();
      }
    } else {
      VF y[2][kCount], dy[2][kCount];
      VD sums[2];
      for (size_t r = 0; r < 2; ++r) {
        LoadRow(inputs[r][0], n, Factored::kFill, y[r]), LoadRow(inputs[r][1], n, 0.0f, dy[r]);
        DoubleSum sum;
        for (size_t k = 0; k < kCount; k += 2) sum.Add(k + 1 < kCount ? hn::Add(dy[r][k], dy[r][k + 1]) : dy[r][k]);
        sums[r] = sum.Lanes();
      }
      AddUp(sums[0], sums[1], s);
      for (size_t r = 0; r < 2; ++r) {
        Factored term(shared, -s[r]);
        for (size_t k = 0; k < kCount; ++k) dy[r][k] = hn::Add(dy[r][k], term(y[r][k]));
        good = good && Factored::Takes(s[r]) && term.Within();
      }
      if (!good) return false;
      for (size_t r = 0; r < 2; ++r) StoreRow(dy[r], outputs[r], n);
    }
    return good;
  }
  const NearExponential& shared;
};

template <bool kStream>
struct ShortLogSumExp {
  static constexpr Short kShorts = Short::kPairs;
  static constexpr bool kStreams = kStream;
  template <size_t kCount, class T>
  HWY_INLINE bool Pair(const T* const (&inputs)[2][kInputs], T* const (&outputs)[2], size_t count, size_t n) const {
    for (size_t r = 0; r < count; ++r) {
      const double lse = GetScalar(inputs[r][1]), dlse = GetScalar(inputs[r][2]);
      if (!(std::fabs(lse) < 512.0)) return false;
      const double factor = dlse * ShortExp(-lse);
      if (!Factored::Takes(factor)) return false;
      Factored function(shared, factor);
      if constexpr (kCount == 0) {
        if (!(MapBlock<kStream>(function, n, outputs[r], inputs[r][0]) <= function.Limit())) return false;
      } else {
        VF x[kCount];
        LoadRow(inputs[r][0], n, Factored::kFill, x);
        for (VF& v : x) v = function(v);
        if (!function.Within()) return false;
        StoreRow(x, outputs[r], n);
      }
    }
    return true;
  }
  const NearExponential& shared;
};

template <class T, bool kStream>
void SoftmaxRows(const Pass& pass) {
  const size_t n = pass.n;
  const auto row = [&](const T* const* inputs, T* dx, size_t threads) HWY_ATTR {
    const T *y = inputs[0], *dy = inputs[1];
    const double s = SumRow(n, threads, [&](size_t begin) HWY_ATTR { return Dot<T>(y + begin, dy + begin); });
    MapRow<kStream>(Centred(TwoFloats(s)), n, threads, dx, y, dy);
  };
  EachRow<T, 2, true>(pass, row, ShortSoftmax<kStream>());
}

template <class T, bool kStream>
void LogSoftmaxRows(const Pass& pass) {
  const NearExponential shared = Factored::Shared();
  const auto row = [&](const T* const* inputs, T* dx, size_t threads) HWY_ATTR {
    const T *y = inputs[0], *dy = inputs[1];
    const size_t n = pass.n;
    const double s = SumRow(n, threads, [&](size_t begin) HWY_ATTR { return Plain<T>(dy + begin); });
    if (Factored::Takes(s)) {
      if (MapWithin<kStream>(Plus<Factored>(Factored(shared, -s)), n, threads, dx, y, dy)) return;
    } else if (std::isfinite(s)) {
      if (MapWithin<false>(Plus<Folded>(Folded(0.0f, -s)), n, threads, dx, y, dy)) return;
    }
    MapSlowly(n, dx, [s](double y, double dy) { return dy - std::exp(y) * s; }, y, dy);
  };
  EachRow<T, 2, true>(pass, row, ShortLogSoftmax<kStream>{shared});
}

template <class T, bool kStream>
void LogSumExpRows(const Pass& pass) {
  const NearExponential shared = Factored::Shared();
  const auto row = [&](const T* const* inputs, T* dx, size_t threads) HWY_ATTR {
    const T* x = inputs[0];
    const size_t n = pass.n;
    const double lse = GetScalar(inputs[1]), dlse = GetScalar(inputs[2]);
    // Below 512, e^-lse is part of the factor. Beyond, x - lse is exact wherever the result is not 0 or infinite.
    const bool near = std::fabs(lse) < 512.0;
    const double factor = near ? dlse * ShortExp(-lse) : dlse;
    if (near && Factored::Takes(factor)) {
      if (MapWithin<kStream>(Factored(shared, factor), n, threads, dx, x)) return;
    } else if (std::isfinite(lse) && std::isfinite(dlse)) {
      if (MapWithin<false>(Folded(near ? 0.0f : float(lse), factor), n, threads, dx, x)) return;
    }
    MapSlowly(n, dx, [=](double x) { return std::exp(x - lse) * dlse; }, x);
  };
  EachRow<T, 1, true>(pass, row, ShortLogSumExp<kStream>{shared});
}

template <class T, bool kStream>
PassKernel KernelOf(PassKind kind) {
  switch (kind) {
    case PassKind::kSoftmaxBackward: return SoftmaxRows<T, kStream>;
    case PassKind::kLogSoftmaxBackward: return LogSoftmaxRows<T, kStream>;
    default: return LogSumExpRows<T, kStream>;
  }
}

}  // namespace

PassKernel BackwardKernel(PassKind kind, bool stream, Element element) {
  switch (element) {
    case Element::kFloat32: return stream ? KernelOf<float, true>(kind) : KernelOf<float, false>(kind);
    case Element::kFloat16: return stream ? KernelOf<Half, true>(kind) : KernelOf<Half, false>(kind);
    case Element::kBfloat16: return stream ? KernelOf<Brain, true>(kind) : KernelOf<Brain, false>(kind);
  }
  return nullptr;
}

}  // namespace ulproof::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

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

// The sum of an array, or of the products of two. Of 16-bit numbers four are added in float, where products are exact.
template <class T, size_t kFactors>
class SumOf {
 public:
  template <class... Pointers>
  HWY_INLINE explicit SumOf(Pointers... x) : x_{x...} {}
  HWY_INLINE void Add(size_t i) {
    if constexpr (sizeof(T) == 4) {
      AddQuads<4 * kLanes / kQuad>(i);
    } else {
      const VF low = hn::Add(Product(i), Product(i + kLanes)), high = hn::Add(Product(i + 2 * kLanes), Product(i + 3 * kLanes));
      wide_.Add(hn::Add(low, high));
    }
  }
  HWY_INLINE void Add(size_t i, size_t count) {
    if constexpr (sizeof(T) == 2) {
      VF v = LoadPart(x_[0] + i, count, 0.0f);
      if constexpr (kFactors == 2) v = hn::Mul(v, LoadPart(x_[1] + i, count, 0.0f));
      wide_.Add(v);
    } else if (count == kLanes) {
      AddQuads<kLanes / kQuad>(i);
    } else {
      for (; count >= kQuad; i += kQuad, count -= kQuad) AddQuads<1>(i);
      if (count > 0) sums_[0] = Plus(sums_[0], [=](const T* x) HWY_ATTR { return LoadQuad(x + i, count); });
    }
  }
  HWY_INLINE VQ Lanes() const {
    if constexpr (sizeof(T) == 2) return ToQuad(wide_.Lanes());
    return hn::Add(hn::Add(sums_[0], sums_[1]), hn::Add(sums_[2], sums_[3]));
  }

 private:
  HWY_INLINE VF Product(size_t i) const {
    if constexpr (kFactors == 1) return Load(x_[0] + i);
    return hn::Mul(Load(x_[0] + i), Load(x_[kFactors - 1] + i));
  }
  template <class LoadOne>
  HWY_INLINE VQ Plus(VQ sum, const LoadOne& load) const {
    if constexpr (kFactors == 1) return hn::Add(sum, load(x_[0]));
    return hn::MulAdd(load(x_[0]), load(x_[kFactors - 1]), sum);
  }
  template <size_t kCount>
  HWY_INLINE void AddQuads(size_t i) {
    for (size_t q = 0; q < kCount; ++q, i += kQuad) {
      sums_[q % 4] = Plus(sums_[q % 4], [=](const T* x) HWY_ATTR { return LoadQuad(x + i); });
    }
  }

  const T* x_[kFactors];
  VQ sums_[4] = {hn::Zero(quad), hn::Zero(quad), hn::Zero(quad), hn::Zero(quad)};
  DoubleSum wide_;
};

// y (dy - s), with one rounding of the difference and one of the result
class Centred {
 public:
  static constexpr float kFill = 0.0f;
  HWY_INLINE explicit Centred(const TwoFloats& s) : high_(hn::Set(f32, s.high)), rest_(hn::Set(f32, -s.low)) {}
  HWY_INLINE VF operator()(VF y, VF dy) const {
    y = InRegister(y);
    return hn::MulAdd(y, hn::Sub(dy, high_), hn::Mul(y, rest_));
  }
  double Top() const { return 0.0; }

 private:
  VF high_, rest_;
};

// factor * e^x for a factor of either sign and ordinary size, or 0, and x up to kLimit; exactly 0 for -inf. The factor, in two
// floats, multiplies the exponential's two parts. Top() is the largest x seen.
class Factored {
 public:
  static constexpr float kFill = 0.0f;  // not -inf: products that underflow are slow
  static constexpr double kBias = 0x1p50;  // so that the exponential's floor, 2^-125, ends as 0
  static constexpr double kLimit = 50.0;   // e^kLimit is below 2^126 / kBias
  static constexpr double kUnit = 1.0 / (kBias * PlainExponential::kFactor);
  static bool Takes(double factor) { return factor == 0.0 || (std::fabs(factor) > 0x1p-50 && std::fabs(factor) < 0x1p24); }
  static HWY_INLINE bool TakesAll(VQ factors) {
    const VQ size = hn::Abs(factors);
    const auto fits = hn::And(hn::Gt(size, hn::Set(quad, 0x1p-50)), hn::Lt(size, hn::Set(quad, 0x1p24)));
    return hn::AllTrue(quad, hn::Or(fits, hn::Eq(size, hn::Zero(quad))));
  }

  // The factor comes times kUnit.
  HWY_INLINE explicit Factored(const TwoFloats& scaled) : exponential_(Reference{}, kBias), top_(hn::Set(f32, -kInfinity)) {
    Scale(scaled);
  }
  HWY_INLINE void Scale(const TwoFloats& scaled) { high_ = hn::Set(f32, scaled.high), low_ = hn::Set(f32, scaled.low); }
  HWY_INLINE VF operator()(VF x) {
    top_ = hn::Max(x, top_);
    const auto parts = exponential_(x);
    return hn::MulAdd(parts.root, high_, hn::MulAdd(parts.rest, high_, hn::Mul(parts.root, low_)));
  }
  double Top() const { return hn::GetLane(hn::MaxOfLanes(f32, top_)); }
  double Limit() const { return kLimit; }
  HWY_INLINE bool Within() const { return hn::AllFalse(f32, hn::Gt(top_, hn::Set(f32, float(kLimit)))); }

 private:
  PlainExponential exponential_;
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
  HWY_INLINE void Scale(const TwoFloats& scaled) { term_.Scale(scaled); }
  HWY_INLINE bool Within() const { return term_.Within(); }

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

template <class T, bool kStream>
void SoftmaxRows(const Pass& pass) {
  const size_t n = pass.n;
  const auto row = [&](const T* const* inputs, T* dx, size_t threads) HWY_ATTR {
    const T *y = inputs[0], *dy = inputs[1];
    const double s = SumRow(n, threads, [&](size_t begin) HWY_ATTR { return SumOf<T, 2>(y + begin, dy + begin); });
    MapRow<kStream>(Centred(TwoFloats(s)), n, threads, dx, y, dy);
  };
  const auto together = [](const auto& rows) HWY_ATTR {
    const TwoFloatsPerRow s(rows.Sums([&](size_t r) HWY_ATTR { return SumOf<T, 2>(rows.Input(r, 0), rows.Input(r, 1)); }));
    for (size_t r = 0; r < rows.kCount; ++r) {
      Centred function(s[r]);
      MapBlock<1, kStream>(function, rows.n, rows.Output(r), rows.Input(r, 0), rows.Input(r, 1));
    }
    return true;
  };
  EachRow<T, 2, true, kStream>(pass, row, together);
}

template <class T, bool kStream>
void LogSoftmaxRows(const Pass& pass) {
  const auto row = [&](const T* const* inputs, T* dx, size_t threads) HWY_ATTR {
    const T *y = inputs[0], *dy = inputs[1];
    const size_t n = pass.n;
    const double s = SumRow(n, threads, [&](size_t begin) HWY_ATTR { return SumOf<T, 1>(dy + begin); });
    if (Factored::Takes(s)) {
      if (MapWithin<kStream>(Plus<Factored>(Factored(TwoFloats(-s * Factored::kUnit))), n, threads, dx, y, dy)) return;
    } else if (std::isfinite(s)) {
      if (MapWithin<false>(Plus<Folded>(Folded(0.0f, -s)), n, threads, dx, y, dy)) return;
    }
    MapSlowly(n, dx, [s](double y, double dy) { return dy - std::exp(y) * s; }, y, dy);
  };
  const auto together = [](const auto& rows) HWY_ATTR {
    const auto s = rows.Sums([&](size_t r) HWY_ATTR { return SumOf<T, 1>(rows.Input(r, 1)); });
    if (!s.All(Factored::TakesAll)) return false;
    const TwoFloatsPerRow scaled(s.Each([](VQ v) HWY_ATTR { return hn::Mul(v, hn::Set(quad, -Factored::kUnit)); }));
    Plus<Factored> function{Factored(scaled[0])};
    for (size_t r = 0; r < rows.kCount; ++r) {
      function.Scale(scaled[r]);
      MapBlock<1, kStream>(function, rows.n, rows.Output(r), rows.Input(r, 0), rows.Input(r, 1));
    }
    return function.Within();
  };
  EachRow<T, 2, true, kStream>(pass, row, together);
}

template <class T, bool kStream>
void LogSumExpRows(const Pass& pass) {
  const auto row = [&](const T* const* inputs, T* dx, size_t threads) HWY_ATTR {
    const T* x = inputs[0];
    const size_t n = pass.n;
    const double lse = GetScalar(inputs[1]), dlse = GetScalar(inputs[2]);
    // Below 512, e^-lse is part of the factor. Beyond, x - lse is exact wherever the result is not 0 or infinite.
    const bool near = std::fabs(lse) < 512.0;
    const double factor = near ? dlse * ShortExp(-lse) : dlse;
    if (near && Factored::Takes(factor)) {
      if (MapWithin<kStream>(Factored(TwoFloats(factor * Factored::kUnit)), n, threads, dx, x)) return;
    } else if (std::isfinite(lse) && std::isfinite(dlse)) {
      if (MapWithin<false>(Folded(near ? 0.0f : float(lse), factor), n, threads, dx, x)) return;
    }
    MapSlowly(n, dx, [=](double x) { return std::exp(x - lse) * dlse; }, x);
  };
  const auto together = [](const auto& rows) HWY_ATTR {
    Factored function(TwoFloats(0.0));
    for (size_t r = 0; r < rows.kCount; ++r) {
      const double lse = GetScalar(rows.Input(r, 1)), dlse = GetScalar(rows.Input(r, 2));
      const double factor = dlse * ShortExp(-lse);
      if (!(std::fabs(lse) < 512.0 && Factored::Takes(factor))) return false;
      function.Scale(TwoFloats(factor * Factored::kUnit));
      MapBlock<1, kStream>(function, rows.n, rows.Output(r), rows.Input(r));
    }
    return function.Within();
  };
  EachRow<T, 1, true, kStream>(pass, row, together);
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

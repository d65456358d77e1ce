// The activations themselves: one short functor each, y = f(x) and dx = dy f'(x). Shared by the plain, gated and fused kernels.
#if defined(ULPROOF_ACTIVATIONS_INL_H) == defined(HWY_TARGET_TOGGLE)
#ifdef ULPROOF_ACTIVATIONS_INL_H
#undef ULPROOF_ACTIVATIONS_INL_H
#else
#define ULPROOF_ACTIVATIONS_INL_H
#endif

#include "_backends/elementwise-inl.h"
#include "_backends/simd_math-inl.h"

HWY_BEFORE_NAMESPACE();
namespace ulproof::HWY_NAMESPACE {

// What has no parameters.
struct Fixed : Plain {
  explicit Fixed(const Arguments&) {}
};

// f of each element, computed in double and rounded once.
template <class F>
HWY_INLINE VF InDouble(VF x, const F& f) {
  const hn::Half<F32> half;
  const VD low = f(hn::PromoteTo(f64, hn::LowerHalf(x))), high = f(hn::PromoteTo(f64, hn::UpperHalf(half, x)));
  return hn::Combine(f32, hn::DemoteTo(half, high), hn::DemoteTo(half, low));
}

// c0 + c1 x + c2 x^2 + ... and its derivative, in float or double.
template <class D, class V, class C, size_t kCount>
HWY_INLINE V PolynomialOf(D d, V x, const C (&c)[kCount]) {
  using T = hn::TFromD<D>;
  V p = hn::Set(d, T(c[kCount - 1]));
  for (size_t i = kCount - 1; i-- > 0;) p = hn::MulAdd(p, x, hn::Set(d, T(c[i])));
  return p;
}

template <class D, class V, class C, size_t kCount>
HWY_INLINE V DerivativeOf(D d, V x, const C (&c)[kCount]) {
  C slope[kCount - 1];
  for (size_t i = 1; i < kCount; ++i) slope[i - 1] = C(i) * c[i];
  return PolynomialOf(d, x, slope);
}

struct Relu : Fixed {
  using Fixed::Fixed;
  HWY_INLINE VF operator()(VF x) const { return MaxKeepNaN(hn::Zero(f32), x); }
  HWY_INLINE VF Slope(VF x, VF dy) const { return hn::IfThenZeroElse(hn::Le(x, hn::Zero(f32)), dy); }
};

struct Relu2 : Fixed {
  using Fixed::Fixed;
  HWY_INLINE VF operator()(VF x) const {
    const VF r = MaxKeepNaN(hn::Zero(f32), x);
    return hn::Mul(r, r);
  }
  HWY_INLINE VF Slope(VF x, VF dy) const {
    const VF r = MaxKeepNaN(hn::Zero(f32), x);
    return hn::Mul(hn::Add(r, r), dy);
  }
};

struct Fatrelu : Plain {
  explicit Fatrelu(const Arguments& arguments) : threshold(float(arguments.scalars[0])) {}
  HWY_INLINE VF operator()(VF x) const { return Slope(x, x); }
  HWY_INLINE VF Slope(VF x, VF dy) const { return hn::IfThenZeroElse(hn::Lt(x, Set(threshold)), dy); }
  float threshold;
};

struct Gelu : Fixed, Mirrored<GeluCurve> {
  using Fixed::Fixed;
};

struct GeluTanh : Fixed, Mirrored<GeluTanhCurve> {
  using Fixed::Fixed;
};

struct NaturalExp : Fixed {
  using Fixed::Fixed;
  HWY_INLINE VF operator()(VF x) const { return Exp(x).Whole(); }
  HWY_INLINE VF Slope(VF x, VF dy) const { return hn::Mul(dy, Exp(x).Whole()); }  // infinite where e^x is
};

struct Sigmoid : Fixed {
  using Fixed::Fixed;
  HWY_INLINE VF operator()(VF x) const { return TimesLogistic(Set(1.0f), x); }
  HWY_INLINE VF Slope(VF x, VF dy) const { return TimesLogisticSlope(dy, x); }
};

struct Silu : Fixed {
  using Fixed::Fixed;
  HWY_INLINE VF operator()(VF x) const {
    return TimesLogistic(MaxKeepNaN(Set(-160.0f), x), x);  // so that -inf gives -0
  }
  // With e = e^-|x|: (1 + e + x e) / (1 + e)^2 on the right, e (1 + e + x) / (1 + e)^2 on the left.
  HWY_INLINE VF Slope(VF x, VF dy) const {
    const OnePlusDecay d(x);
    const auto negative = hn::Lt(x, hn::Zero(f32));
    const VF sum = hn::MulAdd(Clamp(-160.0f, x, 160.0f), hn::IfThenElse(negative, Set(1.0f), d.e), d.sum);
    const VF numerator = hn::Mul(dy, sum);
    const VF quotient = hn::Div(hn::IfThenElse(negative, d.decay.Part(numerator), numerator), d.Square());
    return Scale(quotient, hn::IfThenElseZero(negative, d.decay.power));
  }
};

struct Softplus : Fixed {
  using Fixed::Fixed;
  HWY_INLINE VF operator()(VF x) const {
    const Softening rest = LogOnePlusDecay(x);
    return hn::Add(MaxKeepNaN(hn::Zero(f32), x), Scale(rest.mantissa, rest.power));
  }
  HWY_INLINE VF Slope(VF x, VF dy) const { return TimesLogistic(dy, x); }
};

struct Tanh : Fixed {
  using Fixed::Fixed;
  // -(e^-2|x| - 1) / (e^-2|x| + 1) with the sign of x.
  HWY_INLINE VF operator()(VF x) const {
    const Power e = PowerOfE(hn::Mul(Set(-2.0f), hn::Min(Set(10.0f), hn::Abs(x))));
    const VF factor = AtMostOne(Power{hn::Zero(f32), e.power});
    const VF less_one = hn::MulAdd(factor, e.part, hn::Sub(factor, Set(1.0f)));
    return hn::CopySign(hn::Div(less_one, hn::Add(less_one, Set(2.0f))), x);
  }
  HWY_INLINE VF Slope(VF x, VF dy) const {
    return TimesLogisticSlope(hn::Mul(dy, Set(4.0f)), hn::Add(x, x));
  }
};

// max(x, 0) + eps x e^(-x^2 / 2), arXiv 2405.12954.
struct Crrelu : Plain {
  static constexpr size_t kLearned = 1;
  explicit Crrelu(const Arguments& arguments) : eps(arguments.learned[0]) {}
  HWY_INLINE VF operator()(VF x) const {
    const VF part = Gaussian(x).Times(hn::Mul(Set(eps), Clamp(-18.0f, x, 18.0f)));
    return hn::Add(MaxKeepNaN(hn::Zero(f32), x), part);
  }
  HWY_INLINE VF Slope(VF x, VF dy, SumsOf<kLearned>& sums) const {
    const Power e = Gaussian(x);
    const VF bounded = Clamp(-18.0f, x, 18.0f);
    sums.few[0] = hn::Add(sums.few[0], e.Times(hn::Mul(dy, bounded)));
    const VF bend = hn::Mul(hn::Mul(dy, Set(eps)), hn::NegMulAdd(bounded, bounded, Set(1.0f)));
    return hn::Add(hn::IfThenZeroElse(hn::Le(x, hn::Zero(f32)), dy), e.Times(bend));
  }
  float eps;
};

// Polynomials that don't overflow: in double, so that nothing is lost beside their zeros. dy's own rounding comes on top, for
// a derivative beyond float32 is infinite.
template <size_t kDegree>
struct DoublePolynomial : Plain {
  HWY_INLINE VF operator()(VF x) const {
    return InDouble(x, [this](VD v) HWY_ATTR { return PolynomialOf(f64, v, c); });
  }
  HWY_INLINE VF Slope(VF x, VF dy) const {
    return hn::Mul(dy, InDouble(x, [this](VD v) HWY_ATTR { return DerivativeOf(f64, v, c); }));
  }
  double c[kDegree + 1];
};

// arXiv 2204.14126, d >= 2.
struct Hermite : DoublePolynomial<3> {
  explicit Hermite(const Arguments& arguments) {
    const double d = arguments.scalars[0], a = std::pow(2.0, -d / 4.0), b = std::sqrt((1.0 - std::pow(2.0, 1.0 - d / 2.0)) / 2.0);
    c[0] = -b, c[1] = a - 3.0 * a / std::sqrt(6.0), c[2] = b, c[3] = a / std::sqrt(6.0);
  }
};

// The same for d = 1: odd, so a cubic of x^2 times x.
struct HermiteOfOne : Plain {
  explicit HermiteOfOne(const Arguments&) {
    const double k = 12.0 * std::sqrt(70.0);
    c[0] = std::sqrt(0.5) - 105.0 / k, c[1] = 105.0 / k, c[2] = -21.0 / k, c[3] = 1.0 / k;
    for (size_t i = 0; i < 4; ++i) slope[i] = double(2 * i + 1) * c[i];
  }
  HWY_INLINE VF operator()(VF x) const {
    return InDouble(x, [this](VD v) HWY_ATTR { return hn::Mul(PolynomialOf(f64, hn::Mul(v, v), c), v); });
  }
  HWY_INLINE VF Slope(VF x, VF dy) const {
    return hn::Mul(dy, InDouble(x, [this](VD v) HWY_ATTR { return PolynomialOf(f64, hn::Mul(v, v), slope); }));
  }
  double c[4], slope[4];
};

// What is formed of large numbers is formed in double; the rest, nearly all, in float.
HWY_INLINE bool AnyLarge(VF x) { return !hn::AllTrue(f32, hn::Le(hn::Abs(x), Set(1024.0f))); }

// f(x, dy) of both halves in double, where limits are taken of infinities.
template <class F>
HWY_INLINE VF HalvesInDouble(VF x, VF dy, const F& f) {
  const hn::Half<F32> half;
  const auto bounded = [](VD v) HWY_ATTR { return hn::Max(hn::Set(f64, -1e43), hn::Min(hn::Set(f64, 1e43), v)); };
  const VD low = f(bounded(hn::PromoteTo(f64, hn::LowerHalf(x))), hn::PromoteTo(f64, hn::LowerHalf(dy)));
  const VD high = f(bounded(hn::PromoteTo(f64, hn::UpperHalf(half, x))), hn::PromoteTo(f64, hn::UpperHalf(half, dy)));
  return hn::Combine(f32, hn::DemoteTo(half, high), hn::DemoteTo(half, low));
}

// dy times a derivative of which f(d, x, dy, sums) gives the value, adding the parameters' terms to the sums.
inline constexpr float kTermUnit = 0x1p-60f;
template <class F, class Sums>
HWY_INLINE VF SlopeOf(VF x, VF dy, Sums& sums, const F& f) {
  if (HWY_LIKELY(!AnyLarge(hn::Max(hn::Abs(x), hn::Abs(dy))))) {
    // Scaled up, so that small terms keep their digits.
    return hn::Mul(dy, f(f32, x, hn::Mul(dy, Set(1.0f / kTermUnit)), sums.few));
  }
  return hn::Mul(dy, HalvesInDouble(x, dy, [&](VD v, VD dv) HWY_ATTR { return f(f64, v, dv, sums.all); }));
}

// w_0 r^3 + w_1 r^2 + w_2 r + b, r = max(x, 0), arXiv 2411.03884.
struct PolyRelu : Plain {
  static constexpr size_t kLearned = 4;
  static constexpr float kUnit = kTermUnit;
  explicit PolyRelu(const Arguments& arguments) {
    const float* w = arguments.learned;
    c[0] = w[3], c[1] = w[2], c[2] = w[1], c[3] = w[0];
  }
  HWY_INLINE VF operator()(VF x) const {
    return InDouble(x, [this](VD v) HWY_ATTR { return PolynomialOf(f64, hn::Max(hn::Zero(f64), v), c); });
  }
  HWY_INLINE VF Slope(VF x, VF dy, SumsOf<kLearned>& sums) const {
    return SlopeOf(x, dy, sums, [this](auto d, auto v, auto dv, auto* to) HWY_ATTR {
      const auto r = hn::Max(hn::Zero(d), v), square = hn::Mul(r, r);
      to[0] = hn::MulAdd(dv, hn::Mul(square, r), to[0]);
      to[1] = hn::MulAdd(dv, square, to[1]);
      to[2] = hn::MulAdd(dv, r, to[2]);
      to[3] = hn::Add(dv, to[3]);
      return hn::IfThenZeroElse(hn::Le(v, hn::Zero(d)), DerivativeOf(d, r, c));
    });
  }
  float c[4];
};

// P / Q, P = sum a_i x^i, with Q by version: A 1 + sum |b_j x^j|, B 1 + |sum b_j x^j|, C 0.1 + the same from j = 0, N without the
// absolute value. arXiv 1907.06732.
template <char kVersion, size_t kOf = 1>
struct Rational {
  static constexpr size_t kNumerator = 6, kStart = kVersion == 'C' ? 0 : 1, kDenominator = 5 - kStart;
  static constexpr size_t kLearned = kNumerator + kDenominator, kGroups = kOf, kShared = kNumerator;
  static constexpr float kUnit = kTermUnit;

  explicit Rational(const Arguments& arguments) {
    const float* b = arguments.learned + kNumerator + arguments.group * kDenominator;
    for (size_t i = 0; i < kNumerator; ++i) p[i] = arguments.learned[i];
    q[0] = 0.0f;
    for (size_t j = 0; j < kDenominator; ++j) {
      q[kStart + j] = kVersion == 'A' ? std::fabs(b[j]) : b[j];
      sign[j] = kVersion == 'A' ? float((b[j] > 0.0f) - (b[j] < 0.0f)) : 1.0f;
    }
  }

  HWY_INLINE VF operator()(VF x) const {
    if (HWY_LIKELY(!AnyLarge(x))) return hn::Div(PolynomialOf(f32, x, p), Below(f32, x));
    return HalvesInDouble(x, x, [this](VD v, VD) HWY_ATTR { return hn::Div(PolynomialOf(f64, v, p), Below(f64, v)); });
  }

  HWY_INLINE VF Slope(VF x, VF dy, SumsOf<kLearned>& sums) const {
    return SlopeOf(x, dy, sums, [this](auto d, auto v, auto dv, auto* to) HWY_ATTR {
      using T = hn::TFromD<decltype(d)>;
      const auto u = kVersion == 'A' ? hn::Abs(v) : v;
      const auto one = hn::Div(hn::Set(d, T(1)), Below(d, v));
      const auto r = hn::Mul(PolynomialOf(d, v, p), one);
      // The sign with which sum b_j x^j, or |x|, enters Q.
      auto side = hn::Set(d, T(1));
      if constexpr (kVersion != 'N') {
        const auto inner = kVersion == 'A' ? v : PolynomialOf(d, v, q);
        side = hn::IfThenZeroElse(hn::Eq(inner, hn::Zero(d)), hn::CopySign(side, inner));
      }
      auto term = hn::Mul(dv, one), below = hn::Neg(hn::Mul(term, r));
      if constexpr (kVersion == 'B' || kVersion == 'C') below = hn::Mul(below, side);
      for (size_t i = 0; i < kNumerator; ++i) {
        to[i] = hn::Add(to[i], term);
        term = hn::Mul(term, v);
      }
      if constexpr (kStart == 1) below = hn::Mul(below, u);
      for (size_t j = 0; j < kDenominator; ++j) {
        if constexpr (kVersion == 'A') {
          to[kNumerator + j] = hn::MulAdd(below, hn::Set(d, T(sign[j])), to[kNumerator + j]);
        } else {
          to[kNumerator + j] = hn::Add(to[kNumerator + j], below);
        }
        below = hn::Mul(below, u);
      }
      const auto slope = hn::Mul(DerivativeOf(d, u, q), side);
      return hn::Div(hn::NegMulAdd(r, slope, DerivativeOf(d, v, p)), Below(d, v));
    });
  }

 private:
  template <class D, class V>
  HWY_INLINE V Below(D d, V x) const {
    using T = hn::TFromD<D>;
    const V one = hn::Set(d, T(kVersion == 'C' ? 0.1 : 1.0));
    if constexpr (kVersion == 'A') return hn::Add(PolynomialOf(d, hn::Abs(x), q), one);
    const V sum = PolynomialOf(d, x, q);
    return hn::Add(kVersion == 'N' ? sum : hn::Abs(sum), one);
  }

  float p[kNumerator], q[5], sign[kDenominator];
};
using RationalA = Rational<'A'>;
using RationalB = Rational<'B'>;
using RationalC = Rational<'C'>;
using RationalN = Rational<'N'>;
using RationalGroup = Rational<'A', 8>;

}  // namespace ulproof::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif  // ULPROOF_ACTIVATIONS_INL_H

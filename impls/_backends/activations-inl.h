// The activations themselves: one short functor each, y = f(x) and dx = dy f'(x). Shared by the plain, gated and fused kernels.
#if defined(ULPROOF_ACTIVATIONS_INL_H) == defined(HWY_TARGET_TOGGLE)
#ifdef ULPROOF_ACTIVATIONS_INL_H
#undef ULPROOF_ACTIVATIONS_INL_H
#else
#define ULPROOF_ACTIVATIONS_INL_H
#endif

#include "_backends/elementwise-inl.h"

HWY_BEFORE_NAMESPACE();
namespace ulproof::HWY_NAMESPACE {

// What has no parameters.
struct Fixed : Plain {
  explicit Fixed(const Arguments&) {}
};

// c0 + c1 x + c2 x^2 + ..., in float or double.
template <class D, class V, class C, size_t kCount>
HWY_INLINE V PolynomialOf(D d, V x, const C (&c)[kCount]) {
  using T = hn::TFromD<D>;
  V p = hn::Set(d, T(c[kCount - 1]));
  for (size_t i = kCount - 1; i-- > 0;) p = hn::MulAdd(p, x, hn::Set(d, T(c[i])));
  return p;
}

// The same from x^2 too, in fewer steps that wait for each other; the last one is Horner's, as small x want it.
template <class D, class V, class C, size_t kCount>
HWY_INLINE V Estrin(D d, V x, V square, const C (&c)[kCount]) {
  using T = hn::TFromD<D>;
  constexpr size_t kLast = kCount / 2 * 2 - 1;
  V p = hn::Set(d, T(c[kLast]));
  if constexpr (kLast + 1 < kCount) p = hn::MulAdd(hn::Set(d, T(c[kLast + 1])), x, p);
  for (size_t i = kLast; i > 1; i -= 2) {
    p = hn::MulAdd(p, square, hn::MulAdd(hn::Set(d, T(c[i - 1])), x, hn::Set(d, T(c[i - 2]))));
  }
  return hn::MulAdd(p, x, hn::Set(d, T(c[0])));
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
  static constexpr bool kTwoWays = true, kTwoSlopes = true;
};

struct GeluTanh : Fixed, Mirrored<GeluTanhCurve> {
  using Fixed::Fixed;
  static constexpr bool kTwoWays = true, kTwoSlopes = true;
};

// What is within kNear goes the shorter way.
struct UsualIfNear : Fixed {
  using Fixed::Fixed;
  static constexpr bool kTwoWays = true, kTwoSlopes = true;
  static HWY_INLINE Lanes Unusual(VF x) { return Beyond(kNear, x); }
  static HWY_INLINE Lanes UnusualSlope(VF x, VF) { return Beyond(kNear, x); }
};

struct NaturalExp : UsualIfNear {
  using UsualIfNear::UsualIfNear;
  HWY_INLINE VF Usual(VF x) const { return TwoParts::Of(x).Sum(); }
  HWY_INLINE VF operator()(VF x) const {
    const Lanes beyond = Unusual(x);
    if (HWY_LIKELY(None(beyond))) return Usual(x);
    return Where(beyond, Exp(x).Whole(), Usual(Clamp(-kNear, x, kNear)));
  }
  HWY_INLINE VF UsualSlope(VF x, VF dy) const { return hn::Mul(dy, Usual(x)); }
  HWY_INLINE VF Slope(VF x, VF dy) const { return hn::Mul(dy, (*this)(x)); }  // infinite where e^x is
};

struct Sigmoid : UsualIfNear {
  using UsualIfNear::UsualIfNear;
  // 1.5 / (1.5 + 1.5 e^-x): the sum rounds least where the quotient's digits are finest.
  HWY_INLINE VF Usual(VF x) const {
    const VF more = Set(1.5f);
    return hn::Div(more, hn::Add(TwoParts::Of<-1, kMoreRoots>(x).Sum(), more));
  }
  HWY_INLINE VF operator()(VF x) const {
    if (HWY_LIKELY(None(Unusual(x)))) return Usual(x);
    return hn::IfThenElse(hn::Lt(x, Set(-kNear)), Exp(x).Whole(), Usual(Clamp(-kNear, x, kNear)));
  }
  HWY_INLINE VF UsualSlope(VF x, VF dy) const { return TimesLogisticSlope<true>(dy, x); }
  HWY_INLINE VF Slope(VF x, VF dy) const { return TimesLogisticSlope<false>(dy, x); }
};

struct Silu : UsualIfNear {
  using UsualIfNear::UsualIfNear;
  static HWY_INLINE Lanes Unusual(VF x) { return Beyond(kClose, x); }
  HWY_INLINE VF Usual(VF x) const { return TimesLogistic(x, x); }
  HWY_INLINE VF operator()(VF x) const {
    const Lanes beyond = Unusual(x);
    if (HWY_LIKELY(None(beyond))) return Usual(x);
    const Lanes far = Beyond(kNear, x);
    const auto near = [&](VF v) HWY_ATTR {
      const auto e = TwoParts::Of<-1>(v);
      return hn::Div(x, Where(beyond, e.OnePlus(), hn::Add(e.Sum(), Set(1.0f))));
    };
    if (HWY_LIKELY(None(far))) return near(x);
    const VF left = Exp(x).Times(MaxKeepNaN(Set(-160.0f), x));  // so that -inf gives -0
    return hn::IfThenElse(hn::Lt(x, Set(-kNear)), left, near(Clamp(-kNear, x, kNear)));
  }
  // s (1 + x t), t = 1 - s = e^-x s: on either side the one that rounds less where it counts. A gate's backward pass shares the
  // exponential with Usual.
  HWY_INLINE VF UsualSlope(VF x, VF dy) const {
    const VF one = Set(1.0f), e = TwoParts::Of<-1>(x).Sum(), s = hn::Div(one, hn::Add(e, one));
    const VF t = hn::IfNegativeThenElse(x, hn::Sub(one, s), hn::Mul(e, s));
    return hn::Mul(dy, hn::Mul(s, hn::MulAdd(x, t, one)));
  }
  HWY_INLINE VF Slope(VF x, VF dy) const {
    if (HWY_LIKELY(None(UnusualSlope(x, dy)))) return UsualSlope(x, dy);
    const VF far = MaxKeepNaN(Set(-160.0f), x), near = UsualSlope(Clamp(-kNear, x, kNear), dy);
    const Power e = Exp(far), more{e.part, hn::Add(e.power, Set(8.0f))};  // so that dy (x + 1) overflows nothing
    const VF left = more.Times(hn::Mul(hn::Mul(dy, Set(0x1p-8f)), hn::Add(far, Set(1.0f))));
    return hn::IfThenElse(hn::Lt(x, Set(-kNear)), left, near);
  }
};

struct Softplus : Fixed, Mirrored<SoftplusCurve> {
  using Fixed::Fixed;
  static constexpr bool kTwoWays = true, kTwoSlopes = true;
  static HWY_INLINE Lanes UnusualSlope(VF x, VF) { return Beyond(kNear, x); }
  HWY_INLINE VF UsualSlope(VF x, VF dy) const { return TimesLogistic(dy, x); }
  HWY_INLINE VF Slope(VF x, VF dy) const {
    if (HWY_LIKELY(None(UnusualSlope(x, dy)))) return UsualSlope(x, dy);
    return hn::IfThenElse(hn::Lt(x, Set(-kNear)), Exp(x).Times(dy), UsualSlope(Clamp(-kNear, x, kNear), dy));
  }
};

struct Tanh : Fixed {
  using Fixed::Fixed;
  static constexpr bool kTwoSlopes = true;
  // -(e^-2|x| - 1) / (e^-2|x| + 1) with the sign of x.
  HWY_INLINE VF operator()(VF x) const {
    const Power e = PowerOfE(hn::Mul(Set(-2.0f), hn::Min(Set(10.0f), hn::Abs(x))));
    const VF factor = AtMostOne(Power{hn::Zero(f32), e.power});
    const VF less_one = hn::MulAdd(factor, e.part, hn::Sub(factor, Set(1.0f)));
    return hn::CopySign(hn::Div(less_one, hn::Add(less_one, Set(2.0f))), x);
  }
  HWY_INLINE Lanes UnusualSlope(VF x, VF) const { return Beyond(kNear / 2, x); }
  HWY_INLINE VF UsualSlope(VF x, VF dy) const { return TimesLogisticSlope<true, 2>(dy, hn::Add(x, x)); }
  HWY_INLINE VF Slope(VF x, VF dy) const { return TimesLogisticSlope<false, 2>(dy, hn::Add(x, x)); }
};

// max(x, 0) + eps x e^(-x^2 / 2), arXiv 2405.12954.
struct Crrelu : Plain {
  static constexpr size_t kLearned = 1;
  static constexpr bool kTwoWays = true, kTwoSlopes = true;
  explicit Crrelu(const Arguments& arguments) : eps(arguments.learned[0]) {}
  static HWY_INLINE Lanes Unusual(VF x) { return Beyond(kBell * kBell, hn::Mul(x, x)); }
  static HWY_INLINE Lanes UnusualSlope(VF x, VF) { return Unusual(x); }
  HWY_INLINE VF Usual(VF x) const { return Value(x, MaxKeepNaN(hn::Zero(f32), x)); }
  HWY_INLINE VF operator()(VF x) const {
    const Lanes beyond = Unusual(x);
    if (HWY_LIKELY(None(beyond))) return Usual(x);
    // What is near gets the same result whatever its neighbours are; far out, x is bounded where the bell is 0.
    const VF right = MaxKeepNaN(hn::Zero(f32), x), v = Clamp(-kNothing, x, kNothing);
    const VF far = Lowered(hn::Mul(hn::Mul(Set(eps), v), Bell<kRaisedRoots>(v)));
    return Where(beyond, hn::Add(far, right), Value(Clamp(-kBell, x, kBell), right));
  }
  HWY_INLINE VF UsualSlope(VF x, VF dy, SumsOf<kLearned>& sums) const {
    const VF bell = Bell(x);
    return SlopeOf(x, x, dy, sums, [&](VF v, VF sum) HWY_ATTR { return hn::MulAdd(v, bell, sum); });
  }
  HWY_INLINE VF Slope(VF x, VF dy, SumsOf<kLearned>& sums) const {
    const Lanes beyond = Unusual(x);
    if (HWY_LIKELY(None(beyond))) return UsualSlope(x, dy, sums);
    const VF bounded = Clamp(-kNothing, x, kNothing), near = Bell(Clamp(-kBell, x, kBell)), far = Bell<kRaisedRoots>(bounded);
    return SlopeOf(x, bounded, dy, sums, [&](VF v, VF sum) HWY_ATTR {
      return Where(beyond, hn::Add(Lowered(hn::Mul(v, far)), sum), hn::MulAdd(v, near, sum));
    });
  }

 private:
  static constexpr float kBell = 13.0f, kNothing = 17.5f;  // up to which e^(-x^2 / 2) is normal, from which it is nothing

  // eps x e^(-x^2 / 2) + right, with eps a factor of the polynomial.
  HWY_INLINE VF Value(VF x, VF right) const {
    const auto e = TwoParts::OfSquare(x);
    const VF p = hn::MulAdd(Reduction::Tail<-1, 2>(e.t, eps), e.t, Set(eps));
    return hn::MulAdd(hn::Mul(x, e.root), p, right);
  }
  template <const ShortRoots& roots = kShortRoots>
  static HWY_INLINE VF Bell(VF x) {
    const auto e = TwoParts::OfSquare<roots>(x);
    return hn::MulAdd(hn::Mul(e.root, e.t), Reduction::Tail<-1, 2>(e.t), e.root);
  }
  // v is x, bounded where the bell is 0; add_bell multiplies by e^(-x^2 / 2) and adds.
  template <class AddBell>
  HWY_INLINE VF SlopeOf(VF x, VF v, VF dy, SumsOf<kLearned>& sums, const AddBell& add_bell) const {
    sums.few[0] = add_bell(hn::Mul(dy, v), sums.few[0]);
    const VF bend = hn::Mul(hn::Mul(dy, Set(eps)), hn::NegMulAdd(v, v, Set(1.0f)));
    return add_bell(bend, hn::IfThenZeroElse(hn::Le(x, hn::Zero(f32)), dy));
  }
  float eps;
};

// What is formed of large numbers is formed in double; the rest, nearly all, in float.
inline constexpr float kLarge = 1024.0f;

// f(x, dy) of both halves in double, where limits are taken of infinities.
template <class F>
HWY_NOINLINE VF HalvesInDouble(VF x, VF dy, const F& f) {
  const hn::Half<F32> half;
  const auto bounded = [](VD v) HWY_ATTR { return hn::Max(hn::Set(f64, -1e43), hn::Min(hn::Set(f64, 1e43), v)); };
  const VD low = f(bounded(hn::PromoteTo(f64, hn::LowerHalf(x))), hn::PromoteTo(f64, hn::LowerHalf(dy)));
  const VD high = f(bounded(hn::PromoteTo(f64, hn::UpperHalf(half, x))), hn::PromoteTo(f64, hn::UpperHalf(half, dy)));
  return hn::Combine(f32, hn::DemoteTo(half, high), hn::DemoteTo(half, low));
}

// f of x: the usual way, or `formula` in double in the lanes for which that is not enough.
template <class F, class Formula>
HWY_INLINE VF PartlyInDouble(const F& f, VF x, const Formula& formula) {
  const Lanes large = f.Unusual(x);
  if (HWY_LIKELY(None(large))) return f.Usual(x);
  return Where(large, HalvesInDouble(x, x, [&](VD v, VD) HWY_ATTR { return formula(v); }), f.Usual(x));
}

// arXiv 2204.14126, d >= 2.
struct Hermite : Plain {
  static constexpr bool kTwoWays = true;
  explicit Hermite(const Arguments& arguments) {
    const double d = arguments.scalars[0], a = std::pow(2.0, -d / 4.0), b = std::sqrt((1.0 - std::pow(2.0, 1.0 - d / 2.0)) / 2.0);
    exact[0] = -b, exact[1] = a - 3.0 * a / std::sqrt(6.0), exact[2] = b, exact[3] = a / std::sqrt(6.0);
    for (size_t i = 0; i < 4; ++i) c[i] = float(exact[i]);
    for (size_t i = 0; i < 3; ++i) slope[i] = float(double(i + 1) * exact[i + 1]);
  }
  HWY_INLINE Lanes Unusual(VF x) const { return Beyond(kLarge, x); }
  HWY_INLINE VF Usual(VF x) const { return Cubic(x, c); }
  HWY_INLINE VF operator()(VF x) const {
    return PartlyInDouble(*this, x, [this](VD v) HWY_ATTR { return PolynomialOf(f64, v, exact); });
  }
  HWY_INLINE VF Slope(VF x, VF dy) const { return hn::Mul(dy, PolynomialOf(f32, x, slope)); }
  double exact[4];
  float c[4], slope[3];
};

// The same for d = 1: odd, so a cubic of x^2 times x.
struct HermiteOfOne : Plain {
  static constexpr bool kTwoWays = true;
  explicit HermiteOfOne(const Arguments&) {
    const double k = 12.0 * std::sqrt(70.0);
    exact[0] = std::sqrt(0.5) - 105.0 / k, exact[1] = 105.0 / k, exact[2] = -21.0 / k, exact[3] = 1.0 / k;
    for (size_t i = 0; i < 4; ++i) c[i] = float(exact[i]), slope[i] = float(double(2 * i + 1) * exact[i]);
  }
  HWY_INLINE Lanes Unusual(VF x) const { return Beyond(8.0f, x); }  // where float alone can't keep within 2 ULP
  HWY_INLINE VF Usual(VF x) const { return hn::Mul(OfSquare(x, c), x); }
  HWY_INLINE VF operator()(VF x) const {
    return PartlyInDouble(*this, x, [this](VD v) HWY_ATTR { return hn::Mul(PolynomialOf(f64, hn::Mul(v, v), exact), v); });
  }
  HWY_INLINE VF Slope(VF x, VF dy) const {
    return hn::Mul(dy, OfSquare(Clamp(-3e7f, x, 3e7f), slope));  // infinite there
  }

 private:
  static HWY_INLINE VF OfSquare(VF x, const float (&of)[4]) {
    const VF square = hn::Mul(x, x);
    return Cubic<true>(square, of, hn::MulSub(x, x, square));
  }
  double exact[4];
  float c[4], slope[4];
};

// F::Terms(d, x, dy, to) gives dx in float, and the derivative alone in double, where it may be infinite as a float; it adds the
// parameters' terms to the sums: those that are in units keep the digits of small ones.
inline constexpr float kTermUnit = 0x1p-40f;
template <class F>
HWY_NOINLINE VF LargeSlopeOf(const F& f, VF x, VF dy, VD* all) {
  return hn::Mul(dy, HalvesInDouble(x, dy, [&](VD v, VD dv) HWY_ATTR {
                   VD terms[F::kLearned];
                   for (VD& term : terms) term = hn::Zero(f64);
                   const VD slope = f.Terms(f64, v, dv, terms);
                   for (size_t k = 0; k < F::kLearned; ++k) all[k] = hn::MulAdd(terms[k], hn::Set(f64, f.Unit(k)), all[k]);
                   return slope;
                 }));
}

// The slope of an F with Terms.
template <class F, class Sums>
HWY_INLINE VF SlopeOf(const F& f, VF x, VF dy, Sums& sums) {
  const Lanes large = f.UnusualSlope(x, dy);
  if (HWY_LIKELY(None(large))) return f.UsualSlope(x, dy, sums);
  VF unused[F::kLearned] = {};
  for (VF& one : unused) one = hn::Zero(f32);
  return Where(large, LargeSlopeOf(f, x, dy, sums.all), f.Terms(f32, x, dy, unused));
}

// w_0 r^3 + w_1 r^2 + w_2 r + b, r = max(x, 0), arXiv 2411.03884.
struct PolyRelu : Plain {
  static constexpr size_t kLearned = 4;
  static constexpr bool kTwoWays = true, kTwoSlopes = true;
  explicit PolyRelu(const Arguments& arguments) {
    const float* w = arguments.learned;
    c[0] = w[3], c[1] = w[2], c[2] = w[1], c[3] = w[0];
    for (size_t i = 0; i < 3; ++i) slope[i] = float(i + 1) * c[i + 1];
  }
  static double Unit(size_t) { return kTermUnit; }
  HWY_INLINE Lanes Unusual(VF x) const { return Beyond(kLarge, x); }
  HWY_INLINE VF Usual(VF x) const { return Cubic(MaxKeepNaN(hn::Zero(f32), x), c); }
  HWY_INLINE VF operator()(VF x) const {
    const VF r = MaxKeepNaN(hn::Zero(f32), x);
    return PartlyInDouble(*this, r, [this](VD v) HWY_ATTR { return PolynomialOf(f64, v, c); });
  }
  HWY_INLINE Lanes UnusualSlope(VF x, VF dy) const { return hn::Or(Beyond(kLarge, x), Beyond(kLarge, dy)); }
  HWY_INLINE VF UsualSlope(VF x, VF dy, SumsOf<kLearned>& sums) const { return Terms(f32, x, dy, sums.few); }
  HWY_INLINE VF Slope(VF x, VF dy, SumsOf<kLearned>& sums) const { return SlopeOf(*this, x, dy, sums); }
  template <class D, class V>
  HWY_INLINE V Terms(D d, V x, V dy, V* to) const {
    using T = hn::TFromD<D>;
    const V r = hn::Max(hn::Zero(d), x);
    V term = hn::Mul(dy, hn::Set(d, T(1.0f / kTermUnit)));
    for (size_t k = kLearned; k-- > 0; term = hn::Mul(term, r)) to[k] = hn::Add(to[k], term);
    const V d_r = hn::IfThenZeroElse(hn::Le(x, hn::Zero(d)), PolynomialOf(d, r, slope));
    return sizeof(T) == 4 ? hn::Mul(dy, d_r) : d_r;
  }
  float c[4], slope[3];
};

// P / Q, P = sum a_i x^i, with Q by version: A 1 + sum |b_j x^j|, B 1 + |sum b_j x^j|, C 0.1 + the same from j = 0, N without the
// absolute value. arXiv 1907.06732.
template <char kVersion, size_t kOf = 1>
struct Rational {
  static constexpr size_t kNumerator = 6, kStart = kVersion == 'C' ? 0 : 1, kDenominator = 5 - kStart;
  static constexpr size_t kLearned = kNumerator + kDenominator, kGroups = kOf, kShared = kNumerator;
  static constexpr bool kTwoWays = true, kTwoSlopes = true;

  explicit Rational(const Arguments& arguments) {
    const float* b = arguments.learned + kNumerator + arguments.group * kDenominator;
    for (size_t i = 0; i < kNumerator; ++i) p[i] = arguments.learned[i], p_units[i] = p[i] * kTermUnit;
    q[0] = kFolded ? 1.0f : 0.0f;
    for (size_t j = 0; j < kDenominator; ++j) {
      q[kStart + j] = kVersion == 'A' ? std::fabs(b[j]) : b[j];
      sign[j] = kVersion == 'A' ? double((b[j] > 0.0f) - (b[j] < 0.0f)) : 1.0;
    }
    for (size_t i = 1; i < kNumerator; ++i) p_slope[i - 1] = float(i) * p_units[i];
    for (size_t j = 1; j < 5; ++j) q_slope[j - 1] = float(j) * q[j] * kTermUnit;
  }

  HWY_INLINE Lanes Unusual(VF x) const {
    const Lanes large = Beyond(6.0f, x);  // where float alone can't keep within 2 ULP
    if constexpr (kVersion != 'N') return large;
    return hn::Or(large, Less(hn::Abs(Denominator(f32, x)), Set(0x1p-8f)));  // beside a pole
  }
  HWY_INLINE VF Usual(VF x) const { return Value(f32, x); }
  HWY_INLINE VF operator()(VF x) const {
    return PartlyInDouble(*this, x, [this](VD v) HWY_ATTR { return Value(f64, v); });
  }
  HWY_INLINE Lanes UnusualSlope(VF x, VF dy) const {
    const Lanes large = hn::Or(Beyond(kLarge, x), Beyond(kLarge, dy));
    if constexpr (kVersion != 'C') return large;
    // The derivative jumps where the sum is 0: a float may be on the wrong side of it.
    const VF square = hn::Mul(x, x), sum = Estrin(f32, x, square, q);
    const VF close = hn::Mul(Set(0x1p-20f), hn::Max(Set(1.0f), hn::Mul(square, square)));
    return hn::Or(large, Less(hn::Abs(sum), close));
  }
  HWY_INLINE VF UsualSlope(VF x, VF dy, SumsOf<kLearned>& sums) const { return Terms(f32, x, dy, sums.few); }
  HWY_INLINE VF Slope(VF x, VF dy, SumsOf<kLearned>& sums) const { return SlopeOf(*this, x, dy, sums); }

  // Of db_j, the sign that -P / Q^2 and b_j give it.
  HWY_INLINE double Unit(size_t k) const { return double(kTermUnit) * (k < kNumerator ? 1.0 : -sign[k - kNumerator]); }

  // P, P' and Q' are in units, and so is the other way round what they are divided by Q with.
  template <class D, class V>
  HWY_INLINE V Terms(D d, V x, V dy, V* to) const {
    using T = hn::TFromD<D>;
    const V square = hn::Mul(x, x), u = kVersion == 'A' ? hn::Abs(x) : x;
    const V sum = Estrin(d, u, square, q), inverse = hn::Div(hn::Set(d, T(1.0f / kTermUnit)), Below(d, sum));
    const V ratio = hn::Mul(Estrin(d, x, square, p_units), inverse), slope = Estrin(d, x, square, p_slope);
    V sided = ratio;  // times the sign with which |x|, or the sum, enters Q
    if constexpr (kVersion != 'N') {
      const V inner = kVersion == 'A' ? x : sum;
      sided = hn::IfThenZeroElse(hn::Eq(inner, hn::Zero(d)), hn::Xor(ratio, hn::And(inner, hn::Set(d, T(-0.0)))));
    }
    V term[kNumerator] = {hn::Mul(dy, inverse)};
    for (size_t i = 0; i < kNumerator; ++i) {
      if (i > 0) term[i] = i == 1 ? hn::Mul(term[0], x) : hn::Mul(term[i - 2], square);
      to[i] = hn::Add(to[i], term[i]);
      if (i < kStart || i - kStart >= kDenominator) continue;
      V& below = to[kNumerator + i - kStart];
      below = hn::MulAdd(term[i], kVersion == 'A' && i % 2 == 0 ? ratio : sided, below);
    }
    const V both = hn::NegMulAdd(sided, Estrin(d, u, square, q_slope), slope);
    return hn::Mul(both, sizeof(T) == 4 ? term[0] : inverse);
  }

 private:
  // Whether Q's own 1 is the sum's constant term.
  static constexpr bool kFolded = kVersion == 'A' || kVersion == 'N';

  template <class D, class V>
  HWY_INLINE V Below(D d, V sum) const {
    using T = hn::TFromD<D>;
    return kFolded ? sum : hn::Add(hn::Abs(sum), hn::Set(d, T(kVersion == 'C' ? 0.1 : 1.0)));
  }

  template <class D, class V>
  HWY_INLINE V Denominator(D d, V x) const {
    using T = hn::TFromD<D>;
    const V square = hn::Mul(x, x), u = kVersion == 'A' ? hn::Abs(x) : x;
    if constexpr (!kFolded) return Below(d, Estrin(d, u, square, q));
    const auto c = [&](size_t j) HWY_ATTR { return hn::Set(d, T(q[j])); };
    const V even = hn::Mul(hn::MulAdd(c(4), square, c(2)), square), sum = hn::Add(even, c(0));
    const V low = hn::Sub(even, hn::Sub(sum, c(0)));  // what the sum, which is small in most cases, lacks
    return hn::Add(sum, hn::MulAdd(hn::MulAdd(c(3), square, c(1)), u, low));
  }

  // P and Q from the same x^2, whose rounding cancels in P / Q where x is large; even and odd terms apart, as steps that make up
  // half of the sum round half as much.
  template <class D, class V>
  HWY_INLINE V Value(D d, V x) const {
    using T = hn::TFromD<D>;
    const V square = hn::Mul(x, x);
    const auto c = [&](size_t i) HWY_ATTR { return hn::Set(d, T(p[i])); };
    const V even = hn::MulAdd(hn::MulAdd(c(4), square, c(2)), square, c(0));
    const V odd = hn::MulAdd(hn::MulAdd(c(5), square, c(3)), square, c(1));
    return hn::Div(hn::MulAdd(odd, x, even), Denominator(d, x));
  }

  float p[kNumerator], p_units[kNumerator], p_slope[kNumerator - 1], q[5], q_slope[4];
  double sign[kDenominator];
};
using RationalA = Rational<'A'>;
using RationalB = Rational<'B'>;
using RationalC = Rational<'C'>;
using RationalN = Rational<'N'>;
using RationalGroup = Rational<'A', 8>;

}  // namespace ulproof::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif  // ULPROOF_ACTIVATIONS_INL_H

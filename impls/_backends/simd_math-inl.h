// Elementary functions of float vectors, on top of simd-inl.h and included as it is. Accuracies, in ULPs of float32, are the
// largest over all inputs, found by trying each.
#include <stddef.h>
#include <stdint.h>

#include "_backends/simd_tables.h"

#if defined(ULPROOF_SIMD_MATH_INL_H) == defined(HWY_TARGET_TOGGLE)
#ifdef ULPROOF_SIMD_MATH_INL_H
#undef ULPROOF_SIMD_MATH_INL_H
#else
#define ULPROOF_SIMD_MATH_INL_H
#endif

#include "_backends/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace ulproof::HWY_NAMESPACE {

HWY_INLINE VF Set(float value) { return hn::Set(f32, value); }

// c0 + c1 x + c2 x^2 + ...
HWY_INLINE VF Polynomial(VF, float c) { return Set(c); }
template <class... Rest>
HWY_INLINE VF Polynomial(VF x, float c, Rest... rest) {
  return hn::MulAdd(Polynomial(x, rest...), x, Set(c));
}

// c0 + c1 v + c2 v^2 + c3 v^3 at v = x + low, the errors of the first two steps carried along: within 1 ULP of the sum of the
// terms' sizes, for |x| of up to 1e12.
template <bool kLow = false>
HWY_INLINE VF Cubic(VF x, const float (&c)[4], VF low = hn::Zero(f32)) {
  const VF first = hn::MulAdd(Set(c[3]), x, Set(c[2])), second = hn::MulAdd(first, x, Set(c[1]));
  VF error = hn::Add(hn::MulSub(Set(c[3]), x, first), Set(c[2]));
  VF next = hn::Add(hn::MulSub(first, x, second), Set(c[1]));
  VF last = Set(c[0]);
  if constexpr (kLow) {
    error = hn::MulAdd(Set(c[3]), low, error);
    next = hn::MulAdd(first, low, next);
    last = hn::MulAdd(second, low, last);
  }
  next = hn::MulAdd(error, x, next);
  return hn::MulAdd(second, x, hn::MulAdd(next, x, last));
}

// v * 2^power, rounded once more where that is subnormal; power is an integer of at most 250 in size.
HWY_INLINE VF Scale(VF v, VF power) {
#if HWY_TARGET == HWY_AVX3
  return VF{_mm512_scalef_ps(v.raw, power.raw)};
#else
  const VI whole = hn::ConvertTo(i32, power), half = hn::ShiftRight<1>(whole);
  const VI one = hn::Set(i32, 127);
  const VF first = hn::BitCast(f32, hn::ShiftLeft<23>(hn::Add(half, one)));
  const VF second = hn::BitCast(f32, hn::ShiftLeft<23>(hn::Add(hn::Sub(whole, half), one)));
  return hn::Mul(hn::Mul(v, first), second);
#endif
}

// e^v = (1 + part) * 2^power, part in (-0.3, 0.42) and within 2^-24; for |v| < 2^20. part is e^r - 1 with the relative accuracy
// of a float, r being the argument less the logarithm of 2^power.
struct Power {
  VF part, power;

  // v times the exponential.
  HWY_INLINE VF Times(VF v) const { return Scale(hn::MulAdd(v, part, v), power); }
  HWY_INLINE VF Whole() const { return Scale(hn::Add(part, Set(1.0f)), power); }
};

HWY_INLINE Power PowerOfE(VF v) {
  const VF magic = Set(0x1.8p23f);
  const VF power = hn::Sub(hn::MulAdd(v, Set(0x1.715476p+0f), magic), magic);
  VF r = hn::NegMulAdd(power, Set(0x1.62E430p-1f), v);
  r = hn::MulAdd(power, Set(0x1.05C610p-29f), r);
  const VF tail = Polynomial(r, 0x1.fffffcp-2f, 0x1.555492p-3f, 0x1.5558bcp-5f, 0x1.1239c6p-7f, 0x1.6a4154p-10f);
  return {hn::MulAdd(hn::Mul(r, r), tail, r), power};
}

// x brought into [low, high]; NaN stays NaN.
HWY_INLINE VF Clamp(float low, VF x, float high) { return MaxKeepNaN(Set(low), hn::Min(Set(high), x)); }

// e^x, 1.02 ULP.
HWY_INLINE Power Exp(VF x) { return PowerOfE(Clamp(-150.0f, x, 150.0f)); }

inline constexpr int kRootShift = kLanes == 16 ? 19 : kLanes == 8 ? 20 : 21;  // 23 - log2(kLanes)
// factor 2^(power + j / kLanes) in 21 digits, less the index's own bits, and the relative error of that; factor from 1 to 2.
struct ShortRoots {
  constexpr explicit ShortRoots(double factor, int32_t power = 0) : root(), error() {
    for (size_t j = 0; j < kLanes; ++j) {
      double exact = factor * kRoots[j * (16 / kLanes)];
      const int32_t exponent = exact < 2.0 ? 0 : 1;
      exact /= 1 << exponent;
      const int32_t digits = int32_t(exact * 0x1p20 + 0.5);
      root[j] = 0x3F800000 + ((power + exponent) << 23) + ((digits - (1 << 20)) << 3) - (int32_t(j) << kRootShift);
      error[j] = float((exact - digits * 0x1p-20) / exact);
    }
  }
  alignas(64) int32_t root[kLanes];
  alignas(64) float error[kLanes];
};
inline constexpr ShortRoots kShortRoots(1.0), kMoreRoots(1.5);

// An exponential as the sum of two floats, root + scaled * tail, the second part below a twentieth of the first. Its exponent is
// added as an integer, so the argument is of at most kNear in size, and what is rarer takes another way.
inline constexpr float kNear = 87.0f;
// Which lanes something is true of: negative integers there. (Comparisons into masks take the pipes of multiply-adds on x86.)
using Lanes = VI;
// Where |x| exceeds a bound or is NaN.
HWY_INLINE Lanes Beyond(float bound, VF x) {
  return hn::Sub(hn::BitCast(i32, Set(bound)), hn::BitCast(i32, hn::Abs(x)));
}
// Where a < b, or perhaps where one of them is NaN.
HWY_INLINE Lanes Less(VF a, VF b) { return hn::BitCast(i32, hn::Sub(a, b)); }
HWY_INLINE bool None(Lanes lanes) { return hn::AllFalse(i32, hn::Lt(lanes, hn::Zero(i32))); }
HWY_INLINE VF Where(Lanes lanes, VF yes, VF no) { return hn::IfNegativeThenElse(hn::BitCast(f32, lanes), yes, no); }

class TwoParts {
 public:
  // e^(c x), c a power of two or its negative; times the roots' factor.
  template <int c = 1, const ShortRoots& roots = kShortRoots>
  static HWY_INLINE TwoParts Of(VF x) {
    const Rooted e = RootOf<c, roots>(x);
    return {e.root, hn::Mul(e.root, e.t), Reduction::Tail<c>(e.t)};
  }
  HWY_INLINE VF Sum() const { return hn::MulAdd(scaled, tail, root); }
  // One and the exponential, rounded once but for a little: what 1 + root lacks joins the small part.
  HWY_INLINE VF OnePlus() const {
    const VF one = Set(1.0f), leading = hn::Add(root, one);
    return hn::Add(leading, hn::MulAdd(scaled, tail, hn::Add(hn::Sub(root, leading), one)));
  }

  VF root, scaled, tail;

  // root e^(c t)
  struct Rooted {
    template <int up, int down = 1, const ShortRoots& roots = kShortRoots>
    static HWY_INLINE Rooted Of(VF k, VF t) {
      const VF error = hn::Mul(hn::Load(f32, roots.error), Set(float(down) / up));
      const VF entry = Reduction::Entry(hn::BitCast(f32, hn::Load(i32, roots.root)), k);
      const VI root = hn::Add(hn::BitCast(i32, entry), hn::ShiftLeft<kRootShift>(hn::BitCast(i32, k)));
      return {hn::BitCast(f32, root), hn::Add(t, Reduction::Entry(error, k))};
    }
    VF root, t;
  };
  // e^(c x) as root e^(c t)
  template <int c, const ShortRoots& roots>
  static HWY_INLINE Rooted RootOf(VF x) {
    const VF k = hn::MulAdd(x, Set(c * 0x1.715476p+0f), Set(kMagic)), whole = hn::Sub(k, Set(kMagic));
    const VF t = hn::NegMulAdd(whole, Set(0x1.62E430p-1f / c), x);
    return Rooted::template Of<c, 1, roots>(k, hn::MulAdd(whole, Set(0x1.05C610p-29f / c), t));
  }
  // e^(-x^2 / 2) as root e^(-t / 2), x^2 as if it were exact, of at most 307.
  template <const ShortRoots& roots = kShortRoots>
  static HWY_INLINE Rooted OfSquare(VF x) {
    const VF k = hn::MulAdd(hn::Mul(x, x), Set(-0x1.715476p-1f), Set(kMagic)), whole = hn::Sub(k, Set(kMagic));
    const VF t = hn::MulAdd(x, x, hn::Mul(whole, Set(0x1.62Ep+0f)));  // so short a factor that this is exact
    return Rooted::template Of<-1, 2, roots>(k, hn::MulAdd(whole, Set(0x1.0BFBE8p-14f), t));
  }

 private:
  static constexpr float kMagic = 1.5f * float(1 << kRootShift);

  HWY_INLINE TwoParts(VF r, VF s, VF p) : root(r), scaled(s), tail(p) {}
};

// An exponential of at most 1, for adding to numbers of at least 1: 2^-126 at the least.
HWY_INLINE VF AtMostOne(const Power& e) {
#if HWY_TARGET == HWY_AVX3
  return e.Whole();
#else
  const VI power = hn::ConvertTo(i32, hn::Max(e.power, Set(-126.0f)));
  const VF factor = hn::BitCast(f32, hn::ShiftLeft<23>(hn::Add(power, hn::Set(i32, 127))));
  return hn::MulAdd(factor, e.part, factor);
#endif
}

// numerator / (1 + e^-x) for |x| <= kNear: 2.5 ULP; where |x| <= kClose, 2, as a sum of up to 2^24 takes the one with no error.
inline constexpr float kClose = 16.6f;
HWY_INLINE VF TimesLogistic(VF numerator, VF x) { return hn::Div(numerator, hn::Add(TwoParts::Of<-1>(x).Sum(), Set(1.0f))); }

// numerator * 2^power e^-|x| / (1 + e^-|x|)^2, the logistic function's derivative: 4 ULP. kUsual: every x is within kNear.
template <bool kUsual, int power = 0>
HWY_INLINE VF TimesLogisticSlope(VF numerator, VF x) {
  const VF t = hn::Abs(x);
  const auto near = [numerator](VF v) HWY_ATTR {
    constexpr float part = 1.0f / (1 << power);
    const VF e = TwoParts::Of<-1>(v).Sum();
    const VF more = power == 0 ? hn::Add(e, Set(2.0f)) : hn::MulAdd(e, Set(part), Set(2 * part));
    return hn::Div(hn::Mul(numerator, e), hn::MulAdd(e, more, Set(part)));
  };
  if (kUsual || HWY_LIKELY(None(Beyond(kNear, x)))) return near(t);
  const Power e = Exp(hn::Neg(t)), far{e.part, hn::Add(e.power, Set(power))};
  return hn::IfThenElse(hn::Gt(t, Set(kNear)), far.Times(numerator), near(hn::Min(Set(kNear), t)));
}

// A table's entry for k's low bits; of eight entries, or one a lane.
HWY_INLINE VF EntryOf(const float* HWY_RESTRICT table, VF k) {
  if constexpr (kLanes >= 8) {
    return Reduction::Entry(hn::Load(f32, table), k);
  } else {  // two vectors hold the eight entries
    const VI fourth = hn::And(hn::BitCast(i32, k), hn::Set(i32, 4));
    const auto low = hn::RebindMask(f32, hn::Eq(fourth, hn::Zero(i32)));
    return hn::IfThenElse(low, Reduction::Entry(hn::Load(f32, table), k), Reduction::Entry(hn::Load(f32, table + kLanes), k));
  }
}

// ---- f with f(x) = x + f(-x), so that f'(x) = 1 - f'(-x): gelu, its tanh form and softplus

// A function of t from a table of polynomials, one a lane: each about a centre where the function lies next to a float, so that
// the centre's value is exact.
template <class Rows>
class Pieces {
 public:
  HWY_INLINE explicit Pieces(const Rows& rows) : rows_(rows) {}
  HWY_INLINE VF operator()(VF t) const {
    const VF k = hn::MulAdd(t, Set(rows_.per_unit), Set(0x1.8p23f));
    const VF d = hn::Sub(t, EntryOf(rows_.entry[0], k));
    VF p = EntryOf(rows_.entry[Rows::kDegree + 1], k);
    for (size_t i = Rows::kDegree; i >= 1; --i) p = hn::MulAdd(p, d, EntryOf(rows_.entry[i], k));
    return p;
  }

 private:
  const Rows& rows_;
};

// Of two tables of the same the one that suits the vectors.
template <class Wide, class Narrow>
constexpr const auto& TableOf(const Wide& sixteen, const Narrow& eight) {
  if constexpr (kLanes >= 16) {
    return sixteen;
  } else {
    return eight;
  }
}

// What is far out is found times 2^kRaised, where it is normal.
inline constexpr int kRaised = 100;
inline constexpr float kLowering = 0x1p-100f;
inline constexpr ShortRoots kRaisedRoots(1.0, kRaised);
// v / 2^kRaised, rounded once more where that is subnormal: as integers, since subnormal products are slow.
HWY_INLINE VF Lowered(VF v) {
#if HWY_TARGET == HWY_AVX3
  return VF{_mm512_scalef_ps(v.raw, Set(float(-kRaised)).raw)};
#else
  const VF size = hn::Abs(v);
  const Lanes small = hn::Sub(hn::BitCast(i32, size), hn::BitCast(i32, Set(0x1p-126f / kLowering)));
  if (HWY_LIKELY(None(small))) return hn::Mul(v, Set(kLowering));
  const VF magic = Set(0x1p23f * 0x1p-149f / kLowering);  // whose last digit is the least number's
  const VI subnormal = hn::Sub(hn::BitCast(i32, hn::Add(size, magic)), hn::BitCast(i32, magic));
  const VF normal = hn::Mul(MaxKeepNaN(Set(0x1p-126f / kLowering), size), Set(kLowering));
  return hn::CopySignToAbs(Where(small, hn::BitCast(f32, subnormal), normal), v);
#endif
}

// Curve has tables of f(-t) and of the derivative f'(-t) up to kFar, and gives 2^kRaised times f(-t) and -f'(-t) from there to
// kNothing, where they are nothing.
template <class Curve>
struct Mirrored {
  HWY_INLINE Lanes Unusual(VF x) const { return Beyond(Curve::kFar, x); }
  HWY_INLINE Lanes UnusualSlope(VF x, VF) const { return Beyond(Curve::kFar, x); }

  // max(x, 0) + f(-t)
  HWY_INLINE VF Usual(VF x) const { return hn::Add(MaxKeepNaN(hn::Zero(f32), x), Pieces(Curve::Value())(hn::Abs(x))); }
  HWY_INLINE VF operator()(VF x) const {
    const VF y = Usual(x);
    const Lanes beyond = Unusual(x);
    if (HWY_LIKELY(None(beyond))) return y;
    const VF far = Lowered(Curve::Far(hn::Min(Set(Curve::kNothing), hn::Abs(x))));
    return Where(beyond, hn::Add(MaxKeepNaN(Set(-0.0f), x), far), y);
  }

  HWY_INLINE VF UsualSlope(VF x, VF dy) const {
    const VF d = Pieces(Curve::Slope())(hn::Abs(x));
    const VI negative = hn::ShiftRight<31>(hn::BitCast(i32, x)), sign = hn::BitCast(i32, Set(-0.0f));
    const VF with_sign = hn::BitCast(f32, hn::Xor(hn::BitCast(i32, d), hn::AndNot(negative, sign)));
    return hn::MulAdd(dy, with_sign, hn::BitCast(f32, hn::AndNot(negative, hn::BitCast(i32, dy))));
  }
  HWY_INLINE VF Slope(VF x, VF dy) const {
    const VF usual = UsualSlope(x, dy);
    const Lanes beyond = UnusualSlope(x, dy);
    if (HWY_LIKELY(None(beyond))) return usual;
    const VF far = Curve::FarSlope(hn::Min(Set(Curve::kNothing), hn::Abs(x)));
    VF product = Lowered(hn::Mul(dy, far));
    const Lanes large = Beyond(0x1p37f, dy);
    if (HWY_UNLIKELY(!None(large))) {  // their products overflow
      const VF fewer = hn::Mul(hn::Mul(hn::Mul(dy, Set(0x1p-90f)), far), Set(0x1p90f * kLowering));
      product = Where(large, fewer, product);
    }
    return Where(beyond, hn::IfNegativeThenElse(x, hn::Neg(product), hn::Add(dy, product)), usual);
  }
};

// e^-t as root (1 + part) / 2^kRaised, and whole.
struct RaisedPower {
  HWY_INLINE RaisedPower(VF t, VF low = hn::Zero(f32)) {
    const auto e = TwoParts::RootOf<-1, kRaisedRoots>(t);
    const VF rest = hn::Add(e.t, low);
    root = e.root, part = hn::Mul(rest, Reduction::Tail<-1>(rest));
    const VF raised = hn::Max(hn::MulAdd(root, part, root), Set(0x1p36f));  // what is below 2^-64 adds nothing to 1
    whole = hn::Mul(raised, Set(kLowering));
  }
  // Of (1 + part) (1 - v), what is more than 1.
  HWY_INLINE VF PartLess(VF v) const { return hn::NegMulAdd(v, part, hn::Sub(part, v)); }
  VF root, part, whole;
};

// x Phi(x). Far out, t Phi(-t) = e^(-t^2 / 2) V(t^2) and -f'(-t) = t e^(-t^2 / 2) U(t^2), V and U close to 1 / sqrt(2 pi), times
// kGauss here, which makes that a float, and 2^kRaised besides, by the roots. Minimax: 2^-30, 2^-25.6.
inline constexpr double kGauss = 0.475f / 0.39894228040143267794;
inline constexpr ShortRoots kGaussRoots(2.0 / kGauss, kRaised - 1);
struct GeluCurve {
  // The wider pieces of eight entries lose accuracy towards the end of the last one.
  static constexpr float kFar = kLanes >= 16 ? 4.275f : 3.8f, kNothing = 17.5f;
  static HWY_INLINE const auto& Value() { return TableOf(kGelu16, kGelu8); }
  static HWY_INLINE const auto& Slope() { return TableOf(kGeluSlope16, kGeluSlope8); }
  static HWY_INLINE VF Far(VF t) {
    const VF u = hn::Mul(t, t);
    const VF above = Polynomial(u, 0x1.9b9bcep+3f, 0x1.8b0a58p+2f, 0x1.e6665cp-2f);
    const VF below = hn::MulAdd(hn::MulAdd(hn::Add(u, Set(0x1.ffd412p+3f)), u, Set(0x1.e09df0p+5f)), u, Set(0x1.639c7cp+5f));
    return Bell(t, hn::Sub(hn::Div(above, below), Set(0.475f)));
  }
  static HWY_INLINE VF FarSlope(VF t) {
    const VF u = hn::Mul(t, t);
    const VF above = Polynomial(u, 0x1.cb0898p+0f, 0x1.e6651ap-2f);
    const VF below = hn::MulAdd(hn::Add(u, Set(0x1.317c04p+2f)), u, Set(0x1.dedf72p+0f));
    return hn::Mul(t, Bell(t, hn::Sub(Set(0.475f), hn::Div(above, below))));
  }

 private:
  // 2^kRaised v e^(-t^2 / 2) / kGauss
  static HWY_INLINE VF Bell(VF t, VF v) {
    const auto e = TwoParts::OfSquare<kGaussRoots>(t);
    return hn::Mul(e.root, hn::MulAdd(hn::Mul(v, e.t), Reduction::Tail<-1, 2>(e.t), v));
  }
};

// x s(z), z = x (sqrt(8 / pi) + 0.044715 sqrt(8 / pi) x^2), which is taken to twice the precision.
struct GeluTanhCurve {
  static constexpr float kFar = kLanes >= 16 ? 4.13f : 3.8f, kNothing = 12.3f;
  static HWY_INLINE const auto& Value() { return TableOf(kGeluTanh16, kGeluTanh8); }
  static HWY_INLINE const auto& Slope() { return TableOf(kGeluTanhSlope16, kGeluTanhSlope8); }
  // With e = e^-z below 2^-14, 1 / (1 + e) is 1 - e.
  static HWY_INLINE VF Far(VF t) {
    const RaisedPower e = Exponential(t);
    return hn::Mul(e.root, hn::NegMulSub(t, e.PartLess(e.whole), t));
  }
  static HWY_INLINE VF FarSlope(VF t) {
    const RaisedPower e = Exponential(t);
    const VF slope = hn::MulAdd(hn::Mul(t, t), Set(3.0f * kCubic), Set(kLinear));
    const VF less = hn::MulSub(t, slope, hn::Add(e.whole, Set(1.0f)));
    return hn::Mul(e.root, hn::MulAdd(less, e.PartLess(hn::Add(e.whole, e.whole)), less));
  }

 private:
  static constexpr float kLinear = 0x1.988454p+0f, kLinearRest = -0x1.857936p-25f, kCubic = 0x1.2444f2p-4f,
                         kCubicRest = 0x1.49b16ap-29f;
  // e^-z
  static HWY_INLINE RaisedPower Exponential(VF t) {
    const VF square = hn::Mul(t, t), square_low = hn::MulSub(t, t, square);
    const VF cubic = hn::Mul(square, Set(kCubic));
    VF low = hn::MulSub(square, Set(kCubic), cubic);
    low = hn::MulAdd(square_low, Set(kCubic), hn::MulAdd(square, Set(kCubicRest), low));
    // The exact sum of two numbers of any size (Knuth).
    const VF sum = hn::Add(cubic, Set(kLinear)), rest = hn::Sub(sum, cubic);
    const VF error = hn::Add(hn::Sub(cubic, hn::Sub(sum, rest)), hn::Sub(Set(kLinear), rest));
    low = hn::Add(hn::Add(low, error), Set(kLinearRest));
    const VF z = hn::Mul(t, sum);
    return {z, hn::MulAdd(t, low, hn::MulSub(t, sum, z))};
  }
};

// log(1 + e^x), of which far out two terms are left. Its slope is the logistic function.
struct SoftplusCurve {
  static constexpr float kFar = kLanes >= 16 ? 13.77f : 11.99f, kNothing = 110.0f;
  static HWY_INLINE const auto& Value() { return TableOf(kSoftplus16, kSoftplus8); }
  static HWY_INLINE VF Far(VF t) {
    const RaisedPower e(t);
    return hn::MulAdd(e.root, e.PartLess(hn::Mul(Set(0.5f), e.whole)), e.root);
  }
};

}  // namespace ulproof::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif  // ULPROOF_SIMD_MATH_INL_H

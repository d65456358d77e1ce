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

// e^(v + low) = (1 + part) * 2^power, part in (-0.3, 0.42) and within 2^-24; for |v| < 2^20 and |low| small. part is e^r - 1 with
// the relative accuracy of a float, r being the argument less the logarithm of 2^power.
struct Power {
  VF part, power;

  HWY_INLINE VF Mantissa() const { return hn::Add(part, Set(1.0f)); }
  // v times the exponential.
  HWY_INLINE VF Times(VF v) const { return Scale(hn::MulAdd(v, part, v), power); }
  HWY_INLINE VF Whole() const { return Scale(Mantissa(), power); }
  // v times the exponential without its power of two, which Scale adds in the end.
  HWY_INLINE VF Part(VF v) const { return hn::MulAdd(v, part, v); }
};

template <bool kLow = false>
HWY_INLINE Power PowerOfE(VF v, VF low = hn::Zero(f32)) {
  const VF magic = Set(0x1.8p23f);
  const VF power = hn::Sub(hn::MulAdd(v, Set(0x1.715476p+0f), magic), magic);
  VF r = hn::NegMulAdd(power, Set(0x1.62E430p-1f), v);
  r = hn::MulAdd(power, Set(0x1.05C610p-29f), r);
  if constexpr (kLow) r = hn::Add(r, low);
  const VF tail = Polynomial(r, 0x1.fffffcp-2f, 0x1.555492p-3f, 0x1.5558bcp-5f, 0x1.1239c6p-7f, 0x1.6a4154p-10f);
  return {hn::MulAdd(hn::Mul(r, r), tail, r), power};
}

// x brought into [low, high]; NaN stays NaN.
HWY_INLINE VF Clamp(float low, VF x, float high) { return MaxKeepNaN(Set(low), hn::Min(Set(high), x)); }

// e^x, 1.02 ULP.
HWY_INLINE Power Exp(VF x) { return PowerOfE(Clamp(-150.0f, x, 150.0f)); }

// e^-|x|, as far as subnormal results need it.
HWY_INLINE Power Decay(VF x) {
  return PowerOfE(MaxKeepNaN(Set(-160.0f), hn::Or(x, Set(-0.0f))));
}

// e^(-x^2 / 2), the square taken to twice the precision.
HWY_INLINE Power Gaussian(VF x) {
  const VF bound = hn::Min(Set(18.0f), hn::Abs(x));  // NaN stays: Min gives its second operand then
  const VF square = hn::Mul(bound, bound), low = hn::MulSub(bound, bound, square);
  const VF half = Set(-0.5f);
  return PowerOfE<true>(hn::Mul(half, square), hn::Mul(half, low));
}

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

// e = e^-|x|, and 1 + e as a sum of two floats.
struct OnePlusDecay {
  HWY_INLINE explicit OnePlusDecay(VF x)
      : decay(Decay(x)), e(AtMostOne(decay)), sum(hn::Add(e, Set(1.0f))), low(hn::Sub(e, hn::Sub(sum, Set(1.0f)))) {}
  HWY_INLINE VF Square() const { return hn::MulAdd(sum, sum, hn::Mul(sum, hn::Add(low, low))); }
  Power decay;
  VF e, sum, low;
};

// numerator * s(x), s(x) = 1 / (1 + e^-x): 2 ULP, subnormal results included.
HWY_INLINE VF TimesLogistic(VF numerator, VF x) {
  const OnePlusDecay d(x);
  const auto negative = hn::Lt(x, hn::Zero(f32));
  // Where e is small and what it is multiplied by large, the low part is worth its place.
  const VF part = hn::NegMulAdd(d.low, d.decay.Mantissa(), d.decay.part);
  const VF above = hn::IfThenElse(negative, hn::MulAdd(numerator, part, numerator), numerator);
  return Scale(hn::Div(above, d.sum), hn::IfThenElseZero(negative, d.decay.power));
}

// numerator * e^-|x| / (1 + e^-|x|)^2, the logistic function's derivative: 3.5 ULP.
HWY_INLINE VF TimesLogisticSlope(VF numerator, VF x) {
  const OnePlusDecay d(x);
  return Scale(hn::Div(d.decay.Part(numerator), d.Square()), d.decay.power);
}

// log(1 + e^-|x|) = 2 atanh(s), s = e^-|x| / (2 + e^-|x|), without its power of two: 1.5 ULP. Nearly all of it is s, which is
// taken to twice the precision.
struct Softening {
  VF mantissa, power;
};
HWY_INLINE Softening LogOnePlusDecay(VF x) {
  const VF one = Set(1.0f), two = Set(2.0f);
  const Power decay = Decay(x);
  const VF e = AtMostOne(decay);
  const VF below = hn::Add(e, two), below_low = hn::Sub(e, hn::Sub(below, two)), inverse = hn::Div(one, below);
  const VF above = decay.Mantissa(), above_low = hn::Sub(decay.part, hn::Sub(above, one));
  const VF s = hn::Mul(above, inverse);
  const VF rest = hn::NegMulAdd(s, below_low, hn::Add(hn::NegMulAdd(s, below, above), above_low));
  const VF scaled = hn::Mul(e, inverse), w = hn::Mul(scaled, scaled);
  const VF tail = hn::Mul(w, Polynomial(w, 0x1.555502p-2f, 0x1.99d1cap-3f, 0x1.1ec070p-3f, 0x1.1ec906p-3f));
  const VF sum = hn::Add(s, hn::MulAdd(s, tail, hn::Mul(rest, inverse)));
  return {hn::Add(sum, sum), decay.power};
}

// ---- f with f(x) = x + f(-x), so that f'(x) = 1 - f'(-x): gelu and its tanh form

// A function of t in [0, kFar] from a table of polynomials, one a lane: each about a centre where the function lies next to a
// float, so that the centre's value is exact.
template <class Rows>
class Pieces {
 public:
  HWY_INLINE explicit Pieces(const Rows& rows) : rows_(rows) {}
  HWY_INLINE VF operator()(VF t) const {
    const VF k = hn::MulAdd(t, Set(Rows::kPerUnit), Set(0x1.8p23f));
    const VF d = hn::Sub(t, Entry(0, k));
    VF p = Entry(Rows::kDegree + 1, k);
    for (size_t i = Rows::kDegree; i >= 1; --i) p = hn::MulAdd(p, d, Entry(i, k));
    return p;
  }

 private:
  HWY_INLINE VF Entry(size_t row, VF k) const {
    if constexpr (kLanes >= 8) {
      return Reduction::Entry(hn::Load(f32, rows_.entry[row]), k);
    } else {  // two vectors hold the eight entries
      const VI fourth = hn::And(hn::BitCast(i32, k), hn::Set(i32, 4));
      const auto low = hn::RebindMask(f32, hn::Eq(fourth, hn::Zero(i32)));
      return hn::IfThenElse(low, Reduction::Entry(hn::Load(f32, rows_.entry[row]), k),
                            Reduction::Entry(hn::Load(f32, rows_.entry[row] + kLanes), k));
    }
  }
  const Rows& rows_;
};

// Curve has tables of q(t) = -f(-t) / t and of the derivative f'(-t), and gives t q(t) and f'(-t) beyond the tables, for t up to
// kNothing, where they are 0.
template <class Curve>
struct Mirrored {
  HWY_INLINE VF operator()(VF x) const {
    const VF t = hn::Abs(x);
    const auto negative = hn::Lt(x, hn::Zero(f32));
    const VF q = Pieces(Curve::Value())(t);
    const VF y = hn::Mul(x, hn::IfThenElse(negative, q, hn::Sub(Set(1.0f), q)));
    const auto near = hn::Le(t, Set(kFar));
    if (HWY_LIKELY(hn::AllTrue(f32, near))) return y;
    const Softening far = Curve::Far(hn::Min(Set(kNothing), t));
    const VF g = Scale(far.mantissa, far.power);
    return hn::IfThenElse(near, y, hn::IfThenElse(negative, hn::Neg(g), hn::Sub(x, g)));
  }

  HWY_INLINE VF Slope(VF x, VF dy) const {
    const VF t = hn::Abs(x), one = Set(1.0f);
    const auto negative = hn::Lt(x, hn::Zero(f32));
    const VF d = Pieces(Curve::Slope())(t);
    const VF dx = hn::Mul(dy, hn::IfThenElse(negative, d, hn::Sub(one, d)));
    const auto near = hn::Le(t, Set(kFar));
    if (HWY_LIKELY(hn::AllTrue(f32, near))) return dx;
    const Softening far = Curve::FarSlope(hn::Min(Set(kNothing), t));
    const VF left = Scale(hn::Mul(dy, far.mantissa), far.power);
    const VF right = hn::Mul(dy, hn::Sub(one, Scale(far.mantissa, far.power)));
    return hn::IfThenElse(near, dx, hn::IfThenElse(negative, left, right));
  }

  // The wider pieces of eight entries lose accuracy towards the end of the last one.
  static constexpr float kFar = kLanes >= 16 ? 3.8725f : 3.8f, kNothing = 18.0f;
};

// x Phi(x). Far out, t Phi(-t) = e^(-t^2 / 2) V(1 / t^2).
struct GeluCurve {
  static HWY_INLINE const auto& Value() { return GeluPieces<kLanes>(); }
  static HWY_INLINE const auto& Slope() { return GeluSlopePieces<kLanes>(); }
  static HWY_INLINE VF V(VF s) {
    return Polynomial(s, 0x1.988450p-2f, -0x1.987f16p-2f, 0x1.31a1c0p+0f, -0x1.716336p+2f, 0x1.0a5d1ap+5f, -0x1.437e6ep+7f,
                      0x1.9e9eaap+8f);
  }
  static HWY_INLINE Softening Far(VF t) {
    const Power e = Gaussian(t);
    return {e.Part(V(hn::Div(Set(1.0f), hn::Mul(t, t)))), e.power};
  }
  static HWY_INLINE Softening FarSlope(VF t) {
    const Power e = Gaussian(t);
    const VF s = hn::Div(Set(1.0f), hn::Mul(t, t));
    return {e.Part(hn::Mul(t, hn::MulSub(V(s), s, Set(0x1.988454p-2f)))), e.power};
  }
};

// x s(z), z = x (sqrt(8 / pi) + 0.044715 sqrt(8 / pi) x^2), which is taken to twice the precision.
struct GeluTanhCurve {
  static constexpr float kLinear = 0x1.988454p+0f, kLinearRest = -0x1.857936p-25f, kCubic = 0x1.2444f2p-4f,
                         kCubicRest = 0x1.49b16ap-29f;
  static HWY_INLINE const auto& Value() { return GeluTanhPieces<kLanes>(); }
  static HWY_INLINE const auto& Slope() { return GeluTanhSlopePieces<kLanes>(); }
  static HWY_INLINE Power Exponential(VF t) {
    const VF square = hn::Mul(t, t), square_low = hn::MulSub(t, t, square);
    const VF cubic = hn::Mul(square, Set(kCubic));
    VF low = hn::MulSub(square, Set(kCubic), cubic);
    low = hn::MulAdd(square_low, Set(kCubic), hn::MulAdd(square, Set(kCubicRest), low));
    // The exact sum of two numbers of any size (Knuth).
    const VF sum = hn::Add(cubic, Set(kLinear)), part = hn::Sub(sum, cubic);
    const VF error = hn::Add(hn::Sub(cubic, hn::Sub(sum, part)), hn::Sub(Set(kLinear), part));
    low = hn::Add(hn::Add(low, error), Set(kLinearRest));
    const VF z = hn::Mul(t, sum);
    const VF z_low = hn::MulAdd(t, low, hn::MulSub(t, sum, z));
    return PowerOfE<true>(MaxKeepNaN(Set(-160.0f), hn::Neg(z)), hn::Neg(z_low));
  }
  // With e below 2^-14, 1 / (1 + e) is 1 - e.
  static HWY_INLINE Softening Far(VF t) {
    const Power e = Exponential(t);
    const VF part = e.Part(t);
    return {hn::NegMulAdd(part, AtMostOne(e), part), e.power};
  }
  static HWY_INLINE Softening FarSlope(VF t) {
    const Power power = Exponential(t);
    const VF e = AtMostOne(power);
    const VF slope = hn::MulAdd(hn::Mul(t, t), Set(3.0f * kCubic), Set(kLinear));
    const VF part = power.Part(hn::NegMulAdd(t, slope, hn::Add(e, Set(1.0f))));
    return {hn::NegMulAdd(part, hn::Add(e, e), part), power.power};
  }
};

}  // namespace ulproof::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif  // ULPROOF_SIMD_MATH_INL_H

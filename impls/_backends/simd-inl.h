// Vector code that the SIMD kernels share: loads and stores of the three element types, rounding to 16 bits, the
// exponential with an exact reference, and the sum of a row's exponentials. Included once per instruction set:
//
//   #undef HWY_TARGET_INCLUDE
//   #define HWY_TARGET_INCLUDE "softmax/simd_x.cpp"
//   #include <hwy/foreach_target.h>
//   #include "_backends/simd-inl.h"
//   HWY_BEFORE_NAMESPACE();
//   namespace ulproof::HWY_NAMESPACE { ... }
//   HWY_AFTER_NAMESPACE();
//
// A caller picks ulproof::N_AVX2:: or ulproof::N_AVX3:: by name at bind; nothing here is process-wide.
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <algorithm>
#include <cmath>
#include <limits>

#ifndef ULPROOF_SIMD_ONCE
#define ULPROOF_SIMD_ONCE
namespace ulproof {

// The element types by their bits; float stands for itself.
struct Half {
  uint16_t bits;
};
struct Brain {
  uint16_t bits;
};

// sum_i exp(x_i) = sum * 2^power * e^shift. The sum is NaN when a NaN is in the row, and +inf when a +inf is but no NaN;
// it is 0 when every element is -inf.
struct ExpSum {
  double sum = 0.0;
  double power = 0.0;
  float shift = 0.0f;

  double Log() const { return std::log(sum) + power * 0.693147180559945309417 + double(shift); }
};

// Where the exponential is measured from. Subtracting `shift` is exact for every x near it: it is 0 for a row whose
// largest elements are below 256, and beyond that x and shift are within a factor of two (Sterbenz).
struct Reference {
  float shift = 0.0f;
  double power = 0.0;

  static Reference Near(float largest) {
    Reference r;
    if (!(std::fabs(largest) <= std::numeric_limits<float>::max())) return r;
    if (std::fabs(largest) >= 256.0f) {
      r.shift = largest;
    } else {
      r.power = std::floor(double(largest) * 1.44269504088896340736);  // e^largest / 2^power is in [1, 2)
    }
    return r;
  }
  // Whether 2^-power, and a factor from 2^-28 to 2^28 too, can be folded into an exponential's table.
  bool Near() const { return shift == 0.0f && std::fabs(power) <= 96.0; }
};

// A sum that is not below this was measured from a reference that is too low.
inline constexpr double kTooLarge = 0x1p98;

// 2^(j/16), rounded to double.
inline constexpr double kRoots[16] = {
    1.0,
    1.0442737824274138,
    1.0905077326652577,
    1.1387886347566916,
    1.189207115002721,
    1.241857812073484,
    1.2968395546510096,
    1.3542555469368927,
    1.4142135623730951,
    1.4768261459394993,
    1.5422108254079407,
    1.6104903319492543,
    1.681792830507429,
    1.7562521603732995,
    1.8340080864093424,
    1.9152065613971472,
};

}  // namespace ulproof
#endif  // ULPROOF_SIMD_ONCE

#if defined(ULPROOF_SIMD_INL_H) == defined(HWY_TARGET_TOGGLE)
#ifdef ULPROOF_SIMD_INL_H
#undef ULPROOF_SIMD_INL_H
#else
#define ULPROOF_SIMD_INL_H
#endif

#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace ulproof::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

using F32 = hn::ScalableTag<float>;
using I32 = hn::ScalableTag<int32_t>;
using U32 = hn::ScalableTag<uint32_t>;
using F64 = hn::ScalableTag<double>;
using VF = hn::Vec<F32>;
using VI = hn::Vec<I32>;
using VU = hn::Vec<U32>;
using VD = hn::Vec<F64>;
inline constexpr F32 f32;
inline constexpr I32 i32;
inline constexpr U32 u32;
inline constexpr F64 f64;
inline constexpr size_t kLanes = hn::MaxLanes(F32());
static_assert(kLanes == 4 || kLanes == 8 || kLanes == 16, "the exponential's table has one entry a lane");

// ---- loads and stores; count < kLanes for the parts

HWY_INLINE VF Load(const float* p) { return hn::LoadU(f32, p); }

HWY_INLINE VF Load(const Half* p) {
  const hn::Rebind<hwy::float16_t, F32> half;
  return hn::PromoteTo(f32, hn::LoadU(half, reinterpret_cast<const hwy::float16_t*>(p)));
}

HWY_INLINE VF Load(const Brain* p) {
  const hn::Rebind<uint16_t, F32> bits;
  const VU wide = hn::PromoteTo(u32, hn::LoadU(bits, reinterpret_cast<const uint16_t*>(p)));
  return hn::BitCast(f32, hn::ShiftLeft<16>(wide));
}

// v, loaded once: GCC reads what is used twice from memory twice, which takes longer than a few operations.
HWY_INLINE VF InRegister(VF v) {
#if HWY_ARCH_X86
  asm("" : "+v"(v.raw));
#endif
  return v;
}

// The nearest bfloat16, ties to even, in the low halves. A NaN stays a NaN (its payload is cut, the quiet bit set).
HWY_INLINE VU RoundToBrain(VF v) {
  const VU bits = hn::BitCast(u32, v);
  const VU odd = hn::And(hn::ShiftRight<16>(bits), hn::Set(u32, 1));
  const VU rounded = hn::ShiftRight<16>(hn::Add(bits, hn::Add(odd, hn::Set(u32, 0x7FFF))));
  const VU quiet = hn::Or(hn::ShiftRight<16>(bits), hn::Set(u32, 0x40));
  return hn::IfThenElse(hn::RebindMask(u32, hn::IsNaN(v)), quiet, rounded);
}

HWY_INLINE void Store(VF v, float* p) { hn::StoreU(v, f32, p); }

HWY_INLINE void Store(VF v, Half* p) {
  const hn::Rebind<hwy::float16_t, F32> half;
  hn::StoreU(hn::DemoteTo(half, v), half, reinterpret_cast<hwy::float16_t*>(p));
}

HWY_INLINE void Store(VF v, Brain* p) {
  const hn::Rebind<uint16_t, F32> bits;
  hn::StoreU(hn::DemoteTo(bits, hn::BitCast(i32, RoundToBrain(v))), bits, reinterpret_cast<uint16_t*>(p));
}

// Past the caches. p must be aligned to the size of what is stored.
HWY_INLINE void Stream(VF v, float* p) { hn::Stream(v, f32, p); }

HWY_INLINE void Stream(VF v, Half* p) {
  const hn::Rebind<hwy::float16_t, F32> half;
  const hn::Rebind<uint16_t, F32> bits;
  hn::Stream(hn::BitCast(bits, hn::DemoteTo(half, v)), bits, reinterpret_cast<uint16_t*>(p));
}

HWY_INLINE void Stream(VF v, Brain* p) {
  const hn::Rebind<uint16_t, F32> bits;
  hn::Stream(hn::DemoteTo(bits, hn::BitCast(i32, RoundToBrain(v))), bits, reinterpret_cast<uint16_t*>(p));
}

// Past the caches with kPast, for which p is on a boundary of vectors.
template <bool kPast, class T>
HWY_INLINE void Put(VF v, T* p) {
  if constexpr (kPast) {
    Stream(v, p);
  } else {
    Store(v, p);
  }
}

// Elements since the last boundary of vectors.
template <class T>
HWY_INLINE size_t Offset(const T* p) {
  return reinterpret_cast<uintptr_t>(p) / sizeof(T) % kLanes;
}

template <class T>
HWY_INLINE VF LoadPart(const T* p, size_t count, float fill) {
  if constexpr (sizeof(T) == 4) {
    const auto mask = hn::FirstN(f32, count);
    return hn::IfThenElse(mask, hn::MaskedLoad(mask, f32, p), hn::Set(f32, fill));
  } else {
    T buffer[kLanes] = {};
    memcpy(buffer, p, count * sizeof(T));
    return hn::IfThenElse(hn::FirstN(f32, count), Load(buffer), hn::Set(f32, fill));
  }
}

template <class T>
HWY_INLINE void StorePart(VF v, T* p, size_t count) {
  if constexpr (sizeof(T) == 4) {
    hn::BlendedStore(v, hn::FirstN(f32, count), f32, p);
  } else {
    T buffer[kLanes];
    Store(v, buffer);
    memcpy(p, buffer, count * sizeof(T));
  }
}

// The larger; NaN when x is (x86's maximum returns its second operand then).
HWY_INLINE VF MaxKeepNaN(VF bound, VF x) { return hn::Max(bound, x); }

// ---- the exponential

// factor = Mantissa(factor) * 2^Exponent(factor), the mantissa in [1, 2), for a positive normal factor.
HWY_INLINE double Exponent(double factor) {
  uint64_t bits;
  memcpy(&bits, &factor, sizeof(bits));
  return double(int64_t(bits >> 52) - 1023);
}
HWY_INLINE double Mantissa(double factor) {
  uint64_t bits;
  memcpy(&bits, &factor, sizeof(bits));
  bits = (bits & 0xFFFFFFFFFFFFF) | 0x3FF0000000000000;
  memcpy(&factor, &bits, sizeof(bits));
  return factor;
}

// v * 2^floor(power), rounded once, whatever the power, where that is one instruction.
#if HWY_TARGET == HWY_AVX3
inline constexpr bool kScales = true;
HWY_INLINE VF TimesPower(VF v, VF power) { return VF{_mm512_scalef_ps(v.raw, power.raw)}; }
#else
inline constexpr bool kScales = false;
HWY_INLINE VF TimesPower(VF v, VF) { return v; }
#endif

inline constexpr double kLn2Rest = 0x1.05C610p-29;  // what the nearest float has more than the logarithm of 2

// Where there are registers to spare, the relative errors of the roots, as rounded to float, are added to t.
inline constexpr bool kCorrected = kLanes == 16;

// e^x is root * (1 + t * tail(t)): k = x log2(e) is rounded to 1/kLanes, the root is 2^k from a table as wide as the vector,
// and a polynomial of degree 3 (16 entries), 4 (8) or 5 (4) does the rest with a relative error below 0.03 * 2^-24.
// A factor and a power of two are folded into the table, both formed in double, so they cost neither an instruction nor a
// rounding; without kShifted, only small powers can be.
template <bool kShifted>
class BasicReduction {
 public:
  // For mantissa * 2^exponent * e^(x - shift) / 2^power; roots[j] is mantissa * 2^(j / kLanes).
  HWY_INLINE BasicReduction(const Reference& reference, const float* HWY_RESTRICT roots, double exponent)
      : shift_(hn::Set(f32, reference.shift)) {
    const VF table = hn::Load(f32, roots);
    const double scale = exponent - reference.power;
    if constexpr (kScales) {
      power_ = hn::Set(f32, float(scale));
      table_ = kShifted ? table : TimesPower(table, power_);
      rounder_ = hn::Set(f32, kMagic);
      floor_ = hn::Set(f32, -60000.0f);
    } else {
      // k's low bits, the table's index, are taken out beforehand, as the addition in Root puts them into the mantissa.
      table_ = hn::BitCast(f32, hn::Sub(hn::BitCast(i32, table), hn::ShiftLeft<kExponentShift>(hn::Iota(i32, 0))));
      rounder_ = hn::Set(f32, float(kMagic + scale));
      floor_ = hn::Set(f32, float((kLowest - scale) * 0.69314718055994531));
    }
  }

  // Measure from another power of two, with the same table.
  HWY_INLINE void MeasureFrom(VF power, const float* HWY_RESTRICT roots, double exponent) {
    static_assert(!kShifted);
    if constexpr (kScales) {
      table_ = TimesPower(hn::Load(f32, roots), hn::Sub(hn::Set(f32, float(exponent)), power));
    } else {
      rounder_ = hn::Sub(hn::Set(f32, float(kMagic + exponent)), power);
      floor_ =
          hn::MulAdd(power, hn::Set(f32, 0x1.62E430p-1f), hn::Set(f32, float((kLowest - exponent) * 0.69314718055994531)));
    }
  }

  // x - shift, with kFloored not below the floor (so that -inf is an ordinary number); NaN stays NaN.
  template <bool kFloored>
  HWY_INLINE VF Shifted(VF x) const {
    const VF v = kShifted ? hn::Sub(x, shift_) : x;
    return kFloored ? MaxKeepNaN(floor_, v) : v;
  }
  HWY_INLINE VF Rounded(VF v) const { return hn::MulAdd(v, hn::Set(f32, 0x1.715476p+0f), rounder_); }
  HWY_INLINE VF Whole(VF k) const { return hn::Sub(k, rounder_); }
  template <bool kBrief = false>
  HWY_INLINE VF Rest(VF v, VF whole) const {
    const VF t = hn::NegMulAdd(whole, hn::Set(f32, 0x1.62E430p-1f), v);
    return kBrief ? t : hn::MulAdd(whole, hn::Set(f32, float(kLn2Rest)), t);
  }
  // The entry of a table for k.
  static HWY_INLINE VF Entry(VF table, VF k) { return hn::TableLookupLanes(table, Index(k)); }
  HWY_INLINE VF FromTable(VF k) const { return Entry(table_, k); }
  // v, of which FromTable(k) is a factor, times what that lacks of the root.
  HWY_INLINE VF Scaled(VF v, VF whole) const { return TimesPower(v, kShifted ? hn::Add(whole, power_) : whole); }
  // The root. Without kScales the exponent is added as an integer; what is negative then is below all floats, and so 0 (not
  // subnormal, which would slow down what follows), and with kCapped nothing is beyond 2^126.
  template <bool kCapped>
  HWY_INLINE VF Root(VF k, VF whole) const {
    if constexpr (kScales) {
      return Scaled(FromTable(k), whole);
    } else {
      VI bits = hn::BitCast(i32, k);
      if constexpr (kCapped) bits = hn::Min(bits, hn::Set(i32, kMagicBits + 126 * int32_t(kLanes) - 1));
      const VI root = hn::Add(hn::BitCast(i32, FromTable(k)), hn::ShiftLeft<kExponentShift>(bits));
      return hn::BitCast(f32, hn::Max(root, hn::Zero(i32)));
    }
  }
  // factor (e^(c t) - 1) / t, c = up / down a power of two or its negative, coefficients minimax relative to the exponential.
  template <int up = 1, int down = 1>
  static HWY_INLINE VF Tail(VF t, float factor = 1.0f) {
    constexpr float c = float(up) / float(down), c2 = c * c, c3 = c2 * c, c4 = c2 * c2, c5 = c4 * c;
    const auto of = [&](float coefficient) HWY_ATTR { return hn::Set(f32, coefficient * factor); };
    VF p;
    if constexpr (kLanes == 16) {
      p = hn::MulAdd(of(c3 * 0x1.55559Ap-3f), t, of(c2 * 0x1.00021Ep-1f));
    } else if constexpr (kLanes == 8) {
      p = hn::MulAdd(of(c4 * 0x1.552CD8p-5f), t, of(c3 * 0x1.555CAAp-3f));
      p = hn::MulAdd(p, t, of(c2 * 0x1.000002p-1f));
    } else {
      p = hn::MulAdd(of(c5 * 0x1.11443Ap-7f), t, of(c4 * 0x1.557ACAp-5f));
      p = hn::MulAdd(p, t, of(c3 * 0x1.55555p-3f));
      p = hn::MulAdd(p, t, of(c2 * 0x1.fffffcp-2f));
    }
    return hn::MulAdd(p, t, of(c));
  }

 private:
  static constexpr int kFraction = kLanes == 16 ? 4 : kLanes == 8 ? 3 : 2;  // log2(kLanes)
  static constexpr int kExponentShift = 23 - kFraction;
  static constexpr double kLowest = -128.0;  // a power of two below those of normal floats
  static constexpr float kMagic = 1.5f * float(1 << (23 - kFraction));
  static constexpr int32_t kMagicBits = ((127 + 23 - kFraction) << 23) | 0x400000;

#if HWY_TARGET == HWY_AVX3
  static HWY_INLINE hn::Indices512<float> Index(VF k) { return hn::Indices512<float>{hn::BitCast(i32, k).raw}; }
#elif HWY_TARGET == HWY_AVX2
  static HWY_INLINE hn::Indices256<float> Index(VF k) { return hn::Indices256<float>{hn::BitCast(i32, k).raw}; }
#else
  static HWY_INLINE decltype(hn::IndicesFromVec(f32, VI())) Index(VF k) {
    return hn::IndicesFromVec(f32, hn::And(hn::BitCast(i32, k), hn::Set(i32, int32_t(kLanes) - 1)));
  }
#endif

  VF shift_, power_, floor_, rounder_, table_;
};
using Reduction = BasicReduction<true>;

// factor * e^(x - shift) / 2^power: within 1.1 ULP with AVX-512 and 1.6 elsewhere, subnormal results rounded once more,
// exactly 0 below them, NaN for NaN. Results above 2^99 are still above 2^98, or anything with kBounded, which is for results
// that are known to be smaller. Without kShifted the shift is 0 and factor / 2^power from 2^-124 to 2^124. x - shift must be exact,
// and at most 2^16, where the result is not 0.
template <bool kShifted = true, bool kBounded = false>
class BasicExponential {
 public:
  HWY_INLINE BasicExponential(const Reference& reference, double factor)
      : BasicExponential(reference, Roots(factor), Exponent(factor)) {}
  HWY_INLINE VF operator()(VF x) const {
    const VF v = reduction_.template Shifted<true>(x);
    const VF k = reduction_.Rounded(v);
    const VF whole = reduction_.Whole(k);
    VF t = reduction_.Rest(v, whole);
    if constexpr (kCorrected) t = hn::Add(t, reduction_.Entry(errors_, k));
    const VF root = kScales ? reduction_.FromTable(k) : reduction_.template Root<!kBounded>(k, whole);
    const VF result = hn::MulAdd(hn::Mul(root, t), reduction_.Tail(t), root);
    return kScales ? reduction_.Scaled(result, whole) : hn::Mul(result, hn::Set(f32, 0x1p-26f));
  }

 private:
  struct HWY_ALIGN Roots {
    HWY_INLINE explicit Roots(double factor) {
      const double mantissa = Mantissa(factor);
      for (size_t j = 0; j < kLanes; ++j) {
        const double exact = mantissa * kRoots[j * (16 / kLanes)];
        entry[j] = float(exact);
        if constexpr (kCorrected) error[j] = float((exact - double(entry[j])) * (1.0 / mantissa) * kRoots[(16 - j) % 16] *
                                                   (j == 0 ? 1.0 : 0.5));
      }
    }
    float entry[kLanes], error[kLanes];
  };

  HWY_INLINE BasicExponential(const Reference& reference, const Roots& roots, double exponent)
      : reduction_(reference, roots.entry, exponent + (kScales ? 0.0 : 26.0)),
        errors_(kCorrected ? hn::Load(f32, roots.error) : hn::Zero(f32)) {}

  BasicReduction<kShifted> reduction_;
  VF errors_;
};
using Exponential = BasicExponential<>;

// A factor, found by search, that puts all roots within 0.04 ULP of a float (8 entries, 4), or the more closely the less an
// exponential of theirs may exceed a power of two (16): with its rounding it is off by less than 1.07 * 2^-24 of itself.
inline constexpr double kSumFactor = kLanes == 16  ? 0x1.09E2860ADAB9FP+0
                                     : kLanes == 8 ? 0x1.16747BF75A98DP+0
                                                   : 0x1.0F5725FE93D25P+0;
struct HWY_ALIGN SumRoots {
  constexpr SumRoots() : entry(), error() {
    for (size_t j = 0; j < kLanes; ++j) {
      const double exact = kSumFactor * kRoots[j * (16 / kLanes)];
      entry[j] = float(exact);
      error[j] = float(exact / double(entry[j]) - 1.0);
    }
  }
  float entry[kLanes], error[kLanes];
};
inline constexpr SumRoots kSumRoots;

// e^(x - shift) / 2^power times kFactor, for summing: the root, and the rest of at most 0.045 of it, whose rounding is
// negligible, as a product. Results above 2^126 are still above 2^125; far below 2^-126 they are 0. Without kShifted the
// reference is Near, and the factor from 2^-28 to 2^28, or to 2^60 if the reference is 0. Without kFloored, -inf and some x
// below -2^18 may give NaN. With kBrief, an exponential of about 2^p lacks p * kLn2Rest of itself.
template <bool kShifted, bool kCorrect = kCorrected, bool kFloored = true, bool kBrief = false>
class BasicSumExponential {
 public:
  static constexpr double kFactor = kSumFactor;

  struct Product {
    VF root, part, tail;  // the rest is part * tail
    VF k;                 // by which the root was looked up
    HWY_INLINE VF Whole() const { return hn::MulAdd(part, tail, root); }
    // What the root lacks of the exact one, where it was not corrected.
    HWY_INLINE VF Lacking() const {
      return hn::Mul(root, BasicReduction<kShifted>::Entry(hn::Load(f32, kSumRoots.error), k));
    }
  };
  struct Parts {
    VF root, rest;
  };

  // The factor is a power of two.
  HWY_INLINE BasicSumExponential(const Reference& reference, double factor)
      : reduction_(reference, kSumRoots.entry, Exponent(factor)),
        errors_(kCorrect ? hn::Load(f32, kSumRoots.error) : hn::Zero(f32)) {}
  // Measure from 2^power instead, an integer, with 2^exponent for a factor.
  HWY_INLINE void MeasureFrom(VF power, double exponent) { reduction_.MeasureFrom(power, kSumRoots.entry, exponent); }
  HWY_INLINE Product Factors(VF x) const {
    const VF v = reduction_.template Shifted<kFloored || !kScales>(x);
    const VF k = reduction_.Rounded(v);
    const VF whole = reduction_.Whole(k);
    VF t = reduction_.template Rest<kBrief>(v, whole);
    if constexpr (kCorrect) t = hn::Add(t, reduction_.Entry(errors_, k));
    const VF root = reduction_.template Root<true>(k, whole);
    return {root, hn::Mul(root, t), reduction_.Tail(t), k};
  }
  HWY_INLINE Parts operator()(VF x) const {
    const Product e = Factors(x);
    return {e.root, hn::Mul(e.part, e.tail)};
  }

 private:
  BasicReduction<kShifted> reduction_;
  VF errors_;
};
using SumExponential = BasicSumExponential<true>;
using PlainExponential = BasicSumExponential<false, false>;  // near, and of roots as they are

// ---- sums

// A running sum in double of float vectors.
class DoubleSum {
 public:
  HWY_INLINE DoubleSum() : low_(hn::Zero(f64)), high_(hn::Zero(f64)) {}
  HWY_INLINE void Add(VF v) {
    low_ = hn::Add(low_, hn::PromoteTo(f64, hn::LowerHalf(v)));
    high_ = hn::Add(high_, hn::PromoteTo(f64, hn::UpperHalf(hn::Half<F32>(), v)));
  }
  HWY_INLINE void Add(const DoubleSum& other) {
    low_ = hn::Add(low_, other.low_);
    high_ = hn::Add(high_, other.high_);
  }
  HWY_INLINE VD Lanes() const { return hn::Add(low_, high_); }
  HWY_INLINE double Total() const { return hn::GetLane(hn::SumOfLanes(f64, Lanes())); }

 private:
  VD low_, high_;
};

// The largest of n >= 1 elements, or of that many at each of `ways` places. A NaN may be passed over, but the exponentials' sum
// keeps it.
template <size_t ways = 1, class T>
HWY_INLINE float RowMax(const T* HWY_RESTRICT x, size_t n, size_t apart = 0) {
  const VF lowest = hn::Set(f32, -std::numeric_limits<float>::infinity());
  VF m0 = lowest, m1 = lowest, m2 = lowest, m3 = lowest;
  size_t i = 0;
  for (; i + 4 * kLanes <= n; i += 4 * kLanes) {
    for (size_t way = 0; way < ways; ++way) {
      const T* p = x + way * apart + i;
      m0 = MaxKeepNaN(m0, Load(p)), m1 = MaxKeepNaN(m1, Load(p + kLanes));
      m2 = MaxKeepNaN(m2, Load(p + 2 * kLanes)), m3 = MaxKeepNaN(m3, Load(p + 3 * kLanes));
    }
  }
  for (size_t way = 0; way < ways; ++way) {
    const T* p = x + way * apart;
    size_t j = i;
    for (; j + kLanes <= n; j += kLanes) m0 = MaxKeepNaN(m0, Load(p + j));
    if (j < n) m1 = MaxKeepNaN(m1, LoadPart(p + j, n - j, -std::numeric_limits<float>::infinity()));
  }
  return hn::GetLane(hn::MaxOfLanes(f32, hn::Max(hn::Max(m0, m1), hn::Max(m2, m3))));
}

// Whether one of n elements is a NaN; for rows that are out of the ordinary already.
template <class T>
HWY_INLINE bool AnyNaN(const T* x, size_t n) {
  for (size_t i = 0; i < n; i += kLanes) {
    const VF v = n - i >= kLanes ? Load(x + i) : LoadPart(x + i, n - i, 0.0f);
    if (!hn::AllFalse(f32, hn::IsNaN(v))) return true;
  }
  return false;
}

// A running sum of SumExponential's results, in which nothing drifts or stagnates. The rest is added in float for a few steps
// at a time; roots are added in double or, with registers to spare, where it is faster, in float with the exact error of each
// addition (Fast2Sum, which wants the larger term first; positive floats are ordered as integers, which is cheaper).
class PartsSum {
 public:
  HWY_INLINE PartsSum() : roots_(hn::Zero(f32)), errors_(hn::Zero(f32)), rest_(hn::Zero(f32)) {}
  template <class Product>
  HWY_INLINE void Add(const Product& e) {
    AddRoot(e.root);
    rest_ = hn::MulAdd(e.part, e.tail, rest_);
  }
  // To be called after at most 16 additions.
  HWY_INLINE void Flush() {
    sum_.Add(rest_);
    rest_ = hn::Zero(f32);
  }
  HWY_INLINE double Total() {
    if constexpr (kLanes == 16) sum_.Add(roots_), sum_.Add(errors_);
    sum_.Add(rest_);
    return sum_.Total();
  }

 private:
  HWY_INLINE void AddRoot(VF value) {
    if constexpr (kLanes == 16) {
      const VI sum = hn::BitCast(i32, roots_), root = hn::BitCast(i32, value);
      const VF high = hn::BitCast(f32, hn::Max(sum, root)), low = hn::BitCast(f32, hn::Min(sum, root));
      roots_ = hn::Add(high, low);
      errors_ = hn::Add(errors_, hn::Sub(low, hn::Sub(roots_, high)));
    } else {
      sum_.Add(value);
    }
  }

  DoubleSum sum_;
  VF roots_, errors_, rest_;
};

// The same for a vector or two, where adding in double costs least.
class DoublePartsSum {
 public:
  HWY_INLINE DoublePartsSum() {}
  template <class Product>
  HWY_INLINE void Add(const Product& e) {
    sum_.Add(e.root);
    sum_.Add(hn::Mul(e.part, e.tail));
  }
  HWY_INLINE double Total() const { return sum_.Total(); }

 private:
  DoubleSum sum_;
};

// The sum of e^(x_i - shift) / 2^power.
template <class T>
HWY_INLINE double SumWith(const Reference& reference, const T* HWY_RESTRICT x, size_t n) {
  const SumExponential exponential(reference, 1.0);
  PartsSum sum;
  size_t i = 0;
  for (; i + 4 * kLanes <= n; i += 4 * kLanes) {
    for (size_t v = 0; v < 4; ++v) sum.Add(exponential.Factors(Load(x + i + v * kLanes)));
    sum.Flush();
  }
  for (; i + kLanes <= n; i += kLanes) sum.Add(exponential.Factors(Load(x + i)));
  if (i < n) sum.Add(exponential.Factors(LoadPart(x + i, n - i, -std::numeric_limits<float>::infinity())));
  return sum.Total() / SumExponential::kFactor;
}

// The sum of the exponentials of n >= 1 elements, measured from their maximum.
template <class T>
HWY_INLINE ExpSum SumExp(const T* HWY_RESTRICT x, size_t n) {
  ExpSum result;
  const float largest = RowMax(x, n);
  if (!(std::fabs(largest) <= std::numeric_limits<float>::max())) {
    // Every element is -inf or NaN, or there is a +inf.
    result.sum = AnyNaN(x, n) ? std::numeric_limits<double>::quiet_NaN() : largest < 0.0f ? 0.0 : double(largest);
    return result;
  }
  const Reference reference = Reference::Near(largest);
  result.power = reference.power;
  result.shift = reference.shift;
  result.sum = SumWith(reference, x, n);
  return result;
}

}  // namespace ulproof::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif  // ULPROOF_SIMD_INL_H

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
      r.power = std::rint(double(largest) * 1.44269504088896340736);
    }
    return r;
  }
};

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

// factor * e^(x - shift) / 2^power for every x up to where that overflows, exactly 0 far below, NaN for NaN.
//
// k = x log2(e) is rounded to 1/kLanes; one entry of a table as wide as the vector holds 2^(fraction of k) times the
// factor, and a polynomial of degree 3 (16 entries), 4 (8) or 5 (4) finishes. The factor and the power are folded into
// the table and into the constant that rounds k, in double, so they cost neither an instruction nor an error: relative
// error < 0.03 * 2^-24 beside the rounding of the table entry and of the result, below 1.6 ULP together. Results below
// 2^-126 are subnormal with AVX-512 and 0 elsewhere. x - shift must be exact and at most 2^17 in the range that matters.
class Exponential {
 public:
  HWY_INLINE Exponential(const Reference& reference, double factor) {
    int exponent = 0;
    const double mantissa = std::frexp(factor, &exponent) * 2.0;  // [1, 2)
    const double scale = exponent - 1 - reference.power;           // factor / 2^power = mantissa * 2^scale
    // Rotate the table until all of it lies in one binade: then a result is below 2^-126 exactly when its k is.
    int steps = 0;
    while (steps + 1 < int(kLanes) && Root(steps + 1) <= mantissa) ++steps;
    const double rest = mantissa / Root(steps);
    HWY_ALIGN float table[kLanes];
    for (size_t j = 0; j < kLanes; ++j) table[j] = std::min(float(rest * Root(j)), 0x1.fffffep0f);
    shift_ = hn::Set(f32, reference.shift);
    rounder_ = hn::Set(f32, float(kMagic + scale + double(steps) / kLanes));
    table_ = hn::Load(f32, table);
    if constexpr (!kScalef) {
      const VI j = hn::Iota(i32, 0);
      table_ = hn::BitCast(f32, hn::Sub(hn::BitCast(i32, table_), hn::ShiftLeft<kExponentShift>(j)));
    }
    const double floor = (-512.0 - scale) * 0.69314718;
    floor_ = hn::Set(f32, float(std::max(floor, -60000.0)));
  }

  HWY_INLINE VF operator()(VF x) const {
    const VF v = MaxKeepNaN(floor_, hn::Sub(x, shift_));
    const VF k = hn::MulAdd(v, hn::Set(f32, 0x1.715476p+0f), rounder_);
    const VF whole = hn::Sub(k, rounder_);
    VF t = hn::NegMulAdd(whole, hn::Set(f32, 0x1.62E430p-1f), v);
    t = hn::MulAdd(whole, hn::Set(f32, 0x1.05C610p-29f), t);
    const VF root = hn::TableLookupLanes(table_, Index(k));
    if constexpr (kScalef) {
      return Scalef(hn::MulAdd(hn::Mul(root, t), Tail(t), root), hn::Sub(k, hn::Set(f32, kMagic)));
    } else {
      const VI bits = hn::Add(hn::BitCast(i32, root), hn::ShiftLeft<kExponentShift>(hn::BitCast(i32, k)));
      const auto normal = hn::RebindMask(f32, hn::Gt(hn::BitCast(i32, k), hn::Set(i32, kSmallest)));
      const VF scaled = hn::IfThenElseZero(normal, hn::BitCast(f32, bits));
      return hn::MulAdd(hn::Mul(scaled, t), Tail(t), scaled);
    }
  }

 private:
  static constexpr bool kScalef = HWY_TARGET == HWY_AVX3;
  static constexpr int kFraction = kLanes == 16 ? 4 : kLanes == 8 ? 3 : 2;  // log2(kLanes)
  static constexpr int kExponentShift = 23 - kFraction;
  static constexpr float kMagic = 1.5f * float(1 << (23 - kFraction));
  static constexpr int32_t kMagicBits = ((127 + 23 - kFraction) << 23) | 0x400000;
  static constexpr int32_t kSmallest = kMagicBits - 126 * int32_t(kLanes) - 1;

  static double Root(size_t j) { return kRoots[j * (16 / kLanes)]; }

  // (e^t - 1) / t, coefficients minimax relative to e^t.
  static HWY_INLINE VF Tail(VF t) {
    VF p;
    if constexpr (kLanes == 16) {
      p = hn::MulAdd(hn::Set(f32, 0x1.55559Ap-3f), t, hn::Set(f32, 0x1.00021Ep-1f));
    } else if constexpr (kLanes == 8) {
      p = hn::MulAdd(hn::Set(f32, 0x1.552CD8p-5f), t, hn::Set(f32, 0x1.555CAAp-3f));
      p = hn::MulAdd(p, t, hn::Set(f32, 0x1.000002p-1f));
    } else {
      p = hn::MulAdd(hn::Set(f32, 0x1.11443Ap-7f), t, hn::Set(f32, 0x1.557ACAp-5f));
      p = hn::MulAdd(p, t, hn::Set(f32, 0x1.55555p-3f));
      p = hn::MulAdd(p, t, hn::Set(f32, 0x1.fffffcp-2f));
    }
    return hn::MulAdd(p, t, hn::Set(f32, 1.0f));
  }

#if HWY_TARGET == HWY_AVX3
  static HWY_INLINE hn::Indices512<float> Index(VF k) { return hn::Indices512<float>{hn::BitCast(i32, k).raw}; }
  static HWY_INLINE VF Scalef(VF m, VF n) { return VF{_mm512_scalef_ps(m.raw, n.raw)}; }
#elif HWY_TARGET == HWY_AVX2
  static HWY_INLINE hn::Indices256<float> Index(VF k) { return hn::Indices256<float>{hn::BitCast(i32, k).raw}; }
  static HWY_INLINE VF Scalef(VF m, VF) { return m; }
#else
  static HWY_INLINE auto Index(VF k) {
    return hn::IndicesFromVec(f32, hn::And(hn::BitCast(i32, k), hn::Set(i32, int32_t(kLanes) - 1)));
  }
  static HWY_INLINE VF Scalef(VF m, VF) { return m; }
#endif

  VF shift_, floor_, rounder_, table_;
};

// ---- sums

// A running sum in double of float vectors.
class DoubleSum {
 public:
  HWY_INLINE DoubleSum() : low_(hn::Zero(f64)), high_(hn::Zero(f64)) {}
  HWY_INLINE void Add(VF v) {
    low_ = hn::Add(low_, hn::PromoteTo(f64, hn::LowerHalf(v)));
    high_ = hn::Add(high_, hn::PromoteTo(f64, hn::UpperHalf(hn::Half<F32>(), v)));
  }
  HWY_INLINE double Total() const { return hn::GetLane(hn::SumOfLanes(f64, hn::Add(low_, high_))); }

 private:
  VD low_, high_;
};

// The largest of n >= 1 elements. A NaN may be passed over, but the exponentials' sum keeps it.
template <class T>
HWY_INLINE float RowMax(const T* HWY_RESTRICT x, size_t n) {
  const VF lowest = hn::Set(f32, -std::numeric_limits<float>::infinity());
  VF m0 = lowest, m1 = lowest, m2 = lowest, m3 = lowest;
  size_t i = 0;
  for (; i + 4 * kLanes <= n; i += 4 * kLanes) {
    m0 = MaxKeepNaN(m0, Load(x + i)), m1 = MaxKeepNaN(m1, Load(x + i + kLanes));
    m2 = MaxKeepNaN(m2, Load(x + i + 2 * kLanes)), m3 = MaxKeepNaN(m3, Load(x + i + 3 * kLanes));
  }
  for (; i + kLanes <= n; i += kLanes) m0 = MaxKeepNaN(m0, Load(x + i));
  if (i < n) m1 = MaxKeepNaN(m1, LoadPart(x + i, n - i, -std::numeric_limits<float>::infinity()));
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

// sum of exponential(x_i): four vectors are added in float, the rest in double, so nothing drifts or stagnates.
template <class T>
HWY_INLINE double SumWith(const Exponential& exponential, const T* HWY_RESTRICT x, size_t n) {
  DoubleSum sum;
  size_t i = 0;
  for (; i + 4 * kLanes <= n; i += 4 * kLanes) {
    const VF a = exponential(Load(x + i)), b = exponential(Load(x + i + kLanes));
    const VF c = exponential(Load(x + i + 2 * kLanes)), d = exponential(Load(x + i + 3 * kLanes));
    sum.Add(hn::Add(hn::Add(a, b), hn::Add(c, d)));
  }
  for (; i + kLanes <= n; i += kLanes) sum.Add(exponential(Load(x + i)));
  if (i < n) sum.Add(exponential(LoadPart(x + i, n - i, -std::numeric_limits<float>::infinity())));
  return sum.Total();
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
  result.sum = SumWith(Exponential(reference, 1.0), x, n);
  return result;
}

}  // namespace ulproof::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif  // ULPROOF_SIMD_INL_H

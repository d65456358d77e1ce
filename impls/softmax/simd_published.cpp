// Softmax as the Two-Pass paper (arXiv 2001.04438) has it, both three-pass algorithms beside it: its polynomial, its lane
// sums in float32, and the unrolls that its authors' tuning chose for each instruction set. Kept as a yardstick, with its
// defects: AVX2 two-pass gives NaN for a masked row, sums stagnate at 2^24 a lane, and |x| is limited to 1.16e7.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "softmax/simd_published.cpp"
#include <hwy/foreach_target.h>

#include <vector>

#include "_backends/simd-inl.h"
#include "softmax/simd_forward.h"

HWY_BEFORE_NAMESPACE();
namespace ulproof::HWY_NAMESPACE {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr bool kWide = kLanes == 16;

// Unrolls in vectors, and accumulators, from the authors' table (Skylake-X for AVX-512, the default for AVX2).
constexpr size_t kTwoPassSum = kWide ? 9 : 12, kTwoPassAccumulators = kWide ? 3 : 1, kTwoPassWrite = kWide ? 1 : 5;
constexpr size_t kRecomputeSum = kWide ? 8 : 12, kRecomputeAccumulators = kWide ? 4 : 1, kRecomputeWrite = kWide ? 1 : 3;
constexpr size_t kReloadSum = 8, kReloadAccumulators = 2, kReloadScale = 4;

// 2^n for integral n; on AVX2 n >= -127, and -127 gives 0.
HWY_INLINE VF TimesPower(VF m, VF n) {
#if HWY_TARGET == HWY_AVX3
  return VF{_mm512_scalef_ps(m.raw, n.raw)};
#else
  const VI bits = hn::BitCast(i32, hn::Add(n, hn::Set(f32, 0x1.8000FEp23f)));
  return hn::Mul(m, hn::BitCast(f32, hn::ShiftLeft<23>(bits)));
#endif
}
HWY_INLINE VF Clamped(VF n) { return kWide ? n : hn::Max(n, hn::Set(f32, -127.0f)); }

struct Extended {
  VF m, n;
};

// e^x = m 2^n.
HWY_INLINE Extended ExtExp(VF x) {
  const VF n = hn::Round(hn::Mul(x, hn::Set(f32, 0x1.715476p+0f)));
  VF t = hn::MulAdd(n, hn::Set(f32, -0x1.62E43p-1f), x);
  t = hn::MulAdd(n, hn::Set(f32, 0x1.05C61p-29f), t);
  VF p = hn::Set(f32, 0x1.0F9F9Cp-7f);
  p = hn::MulAdd(p, t, hn::Set(f32, 0x1.573A1Ap-5f));
  p = hn::MulAdd(p, t, hn::Set(f32, 0x1.555A80p-3f));
  p = hn::MulAdd(p, t, hn::Set(f32, 0x1.FFFDC6p-2f));
  p = hn::MulAdd(p, t, hn::Set(f32, 0x1.FFFFF6p-1f));
  return {hn::MulAdd(p, t, hn::Set(f32, 1.0f)), n};
}

// e^x for x <= 0.
HWY_INLINE VF Exp(VF x) {
  const Extended e = ExtExp(x);
  if constexpr (kWide) return TimesPower(e.m, e.n);
  const VF y = TimesPower(e.m, Clamped(e.n));
  return hn::IfThenElseZero(hn::Ge(x, hn::Set(f32, -0x1.5D589Ep6f)), y);
}

// Calls step(i, count) for groups of kVectors whole vectors, then for single ones, then for the rest.
template <size_t kVectors, class Group, class Single>
HWY_INLINE void Unrolled(size_t n, const Group& group, const Single& single) {
  size_t i = 0;
  for (; i + kVectors * kLanes <= n; i += kVectors * kLanes) group(i);
  for (; i < n; i += kLanes) single(i, std::min(kLanes, n - i));
}

HWY_INLINE VF LoadSome(const float* x, size_t count) { return count == kLanes ? Load(x) : LoadPart(x, count, -kInfinity); }
HWY_INLINE void StoreSome(VF v, float* y, size_t count) { count == kLanes ? Store(v, y) : StorePart(v, y, count); }

template <size_t kVectors, class Function>
HWY_INLINE void Map(const float* x, float* y, size_t n, const Function& function) {
  Unrolled<kVectors>(
      n,
      [&](size_t i) HWY_ATTR {
        VF v[kVectors];
        for (size_t k = 0; k < kVectors; ++k) v[k] = function(Load(x + i + k * kLanes));
        for (size_t k = 0; k < kVectors; ++k) Store(v[k], y + i + k * kLanes);
      },
      [&](size_t i, size_t count) HWY_ATTR { StoreSome(function(LoadSome(x + i, count)), y + i, count); });
}

void TwoPass(const float* x, float* y, size_t n) {
  constexpr size_t kV = kTwoPassSum, kA = kTwoPassAccumulators;
  VF m[kA], e[kA];
  for (size_t a = 0; a < kA; ++a) m[a] = hn::Zero(f32), e[a] = hn::Set(f32, -kInfinity);
  const auto fold = [&](size_t a, const Extended* from, size_t count) HWY_ATTR {
    VF top = e[a];
    for (size_t k = 0; k < count; ++k) top = hn::Max(top, from[k * kA].n);
    VF sum = TimesPower(m[a], Clamped(hn::Sub(e[a], top)));
    for (size_t k = 0; k < count; ++k) {
      const Extended& one = from[k * kA];
      sum = hn::Add(sum, TimesPower(one.m, Clamped(hn::Sub(one.n, top))));
    }
    m[a] = sum, e[a] = top;
  };
  size_t i = 0;
  for (; i + kV * kLanes <= n; i += kV * kLanes) {
    Extended some[kV];
    for (size_t k = 0; k < kV; ++k) some[k] = ExtExp(Load(x + i + k * kLanes));
    for (size_t a = 0; a < kA; ++a) fold(a, some + a, kV / kA);
  }
  float sum = 0.0f, power = -kInfinity;
  const auto merge = [&](float sm, float sn) {
    const float top = std::max(power, sn);
    if (top == -kInfinity) {
      sum += sm;
      return;
    }
    sum = std::ldexp(sum, int(std::max(power - top, -1000.0f))) + std::ldexp(sm, int(std::max(sn - top, -1000.0f)));
    power = top;
  };
  for (; i < n; i += kLanes) {
    // Beyond the row the elements are left out, as a masked load and accumulation does.
    const size_t count = std::min(kLanes, n - i);
    const Extended one = ExtExp(count == kLanes ? Load(x + i) : LoadPart(x + i, count, x[i]));
    const auto inside = hn::FirstN(f32, count);
    const Extended some{hn::IfThenElseZero(inside, one.m), hn::IfThenElse(inside, one.n, hn::Set(f32, -kInfinity))};
    fold(0, &some, 1);
  }
  HWY_ALIGN float sums[kLanes], powers[kLanes];
  for (size_t a = 0; a < kA; ++a) {
    hn::Store(m[a], f32, sums), hn::Store(e[a], f32, powers);
    for (size_t k = 0; k < kLanes; ++k) merge(sums[k], powers[k]);
  }
  const VF scale = hn::Set(f32, 1.0f / sum), minus = hn::Set(f32, power);
  Map<kTwoPassWrite>(x, y, n, [&](VF v) HWY_ATTR {
    const Extended one = ExtExp(v);
    return TimesPower(hn::Mul(one.m, scale), Clamped(hn::Sub(one.n, minus)));
  });
}

template <bool kStore, size_t kV, size_t kA>
HWY_INLINE float SumOfExp(const float* x, float* y, size_t n, VF largest) {
  VF sum[kA];
  for (VF& s : sum) s = hn::Zero(f32);
  Unrolled<kV>(
      n,
      [&](size_t i) HWY_ATTR {
        VF e[kV];
        for (size_t k = 0; k < kV; ++k) e[k] = Exp(hn::Sub(Load(x + i + k * kLanes), largest));
        for (size_t k = 0; k < kV; ++k) {
          if constexpr (kStore) Store(e[k], y + i + k * kLanes);
          sum[k % kA] = hn::Add(sum[k % kA], e[k]);
        }
      },
      [&](size_t i, size_t count) HWY_ATTR {
        VF e = Exp(hn::Sub(LoadSome(x + i, count), largest));
        e = hn::IfThenElseZero(hn::FirstN(f32, count), e);
        if constexpr (kStore) StoreSome(e, y + i, count);
        sum[0] = hn::Add(sum[0], e);
      });
  for (size_t a = 1; a < kA; ++a) sum[0] = hn::Add(sum[0], sum[a]);
  return hn::GetLane(hn::SumOfLanes(f32, sum[0]));
}

void Recompute(const float* x, float* y, size_t n) {
  const VF largest = hn::Set(f32, RowMax(x, n));
  const VF scale = hn::Set(f32, 1.0f / SumOfExp<false, kRecomputeSum, kRecomputeAccumulators>(x, y, n, largest));
  Map<kRecomputeWrite>(x, y, n, [&](VF v) HWY_ATTR { return hn::Mul(Exp(hn::Sub(v, largest)), scale); });
}

void Reload(const float* x, float* y, size_t n) {
  const VF largest = hn::Set(f32, RowMax(x, n));
  const VF scale = hn::Set(f32, 1.0f / SumOfExp<true, kReloadSum, kReloadAccumulators>(x, y, n, largest));
  Map<kReloadScale>(y, y, n, [&](VF v) HWY_ATTR { return hn::Mul(v, scale); });
}

template <void kRow(const float*, float*, size_t)>
void Rows(const Job& job) {
  std::vector<float> from(job.x.step == 4 ? 0 : job.n), to(job.y.step == 4 ? 0 : job.n);
  for (size_t r = 0; r < job.rows; ++r) {
    const char* x = job.x.Row(r);
    char* y = job.y.Row(r);
    for (size_t i = 0; i < from.size(); ++i) memcpy(&from[i], x + ptrdiff_t(i) * job.x.step, 4);
    kRow(from.empty() ? reinterpret_cast<const float*>(x) : from.data(), to.empty() ? reinterpret_cast<float*>(y) : to.data(),
         job.n);
    for (size_t i = 0; i < to.size(); ++i) memcpy(y + ptrdiff_t(i) * job.y.step, &to[i], 4);
  }
}

}  // namespace

Kernel PublishedKernel(Algorithm algorithm) {
  switch (algorithm) {
    case Algorithm::kPublishedRecompute: return Rows<Recompute>;
    case Algorithm::kPublishedReload: return Rows<Reload>;
    case Algorithm::kPublishedTwoPass: return Rows<TwoPass>;
    default: return nullptr;
  }
}

}  // namespace ulproof::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

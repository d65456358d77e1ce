// log_softmax and logsumexp forward: the sum of a row's exponentials in one sweep, its logarithm in double, and for
// log_softmax a second sweep that subtracts it in two floats. log_softmax reads x twice and writes y once; logsumexp reads x
// once.
//
// The exponentials are measured from the largest of a row's first elements (see Exponential for why that is enough); a row
// whose sum shows that this was too low is done again from its maximum.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "softmax/simd_log.cpp"
#include <hwy/foreach_target.h>

#include "softmax/simd_rows-inl.h"

HWY_BEFORE_NAMESPACE();
namespace ulproof::HWY_NAMESPACE {
namespace {

constexpr size_t kSample = 512;
constexpr double kTooLarge = 0x1p100;
constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

// Roots are added to a double sum in pairs, the small rests four at once (see SumExponential): at most one rounding of the
// sum's terms, which the logarithm turns into half an ULP of 1.
template <class T>
class SumOfExponentials {
 public:
  HWY_INLINE SumOfExponentials(const SumExponential& exponential, const T* x) : exponential_(exponential), x_(x) {}
  HWY_INLINE void Add(size_t i) {
    const auto a = exponential_(Load(x_ + i)), b = exponential_(Load(x_ + i + kLanes));
    const auto c = exponential_(Load(x_ + i + 2 * kLanes)), d = exponential_(Load(x_ + i + 3 * kLanes));
    sum_.Add(hn::Add(a.root, b.root)), sum_.Add(hn::Add(c.root, d.root));
    sum_.Add(hn::Add(hn::Add(a.rest, b.rest), hn::Add(c.rest, d.rest)));
  }
  HWY_INLINE void Add(size_t i, size_t count) {
    const auto parts = exponential_(count == kLanes ? Load(x_ + i) : LoadPart(x_ + i, count, -kInfinity));
    sum_.Add(parts.root), sum_.Add(parts.rest);
  }
  HWY_INLINE double Total() const { return sum_.Total() / SumExponential::kFactor; }

 private:
  SumExponential exponential_;
  const T* x_;
  DoubleSum sum_;
};

template <class T>
HWY_NOINLINE double MaxOfRow(const T* x, size_t n, size_t threads) {
  std::vector<float> largest((n + kBlock - 1) / kBlock);
  ThreadPool::Instance().Run(threads, largest.size(), [&](size_t block) {
    largest[block] = RowMax(x + block * kBlock, std::min(kBlock, n - block * kBlock));
  });
  return *std::max_element(largest.begin(), largest.end());
}

// log sum_i exp(x_i), as two doubles of which the second is small.
struct LogSum {
  double high, low;
};

template <class T>
HWY_NOINLINE LogSum LogSumOf(const T* x, size_t n, size_t threads) {
  Reference reference;
  const auto sum_from = [&](double largest) HWY_ATTR {
    reference = Reference::Near(float(largest));
    const SumExponential exponential(reference, 1.0);
    return SumRow(n, threads, [&](size_t begin) HWY_ATTR { return SumOfExponentials<T>(exponential, x + begin); });
  };
  double sum = kNaN;
  if (const double sampled = RowMax(x, std::min(n, kSample)); std::fabs(sampled) <= kLargest) sum = sum_from(sampled);
  if (!(sum < kTooLarge)) {
    const double largest = MaxOfRow(x, n, threads);
    if (!(std::fabs(largest) <= kLargest)) return {AnyNaN(x, n) ? kNaN : largest, 0.0};
    sum = sum_from(largest);
  }
  // The shift is 0 or much larger than the logarithm beside it, so this sum is exact (Fast2Sum).
  const double shift = reference.shift, logarithm = std::log(sum) + reference.power * 0.693147180559945309417;
  if (shift == 0.0) return {logarithm, 0.0};
  const double high = shift + logarithm;
  return {high, logarithm - (high - shift)};
}

class Subtract {
 public:
  static constexpr float kFill = 0.0f;
  HWY_INLINE explicit Subtract(const TwoFloats& value) : high_(hn::Set(f32, value.high)), low_(hn::Set(f32, value.low)) {}
  HWY_INLINE VF operator()(VF x) const { return hn::Sub(hn::Sub(x, high_), low_); }
  double Top() const { return 0.0; }

 private:
  VF high_, low_;
};

template <class T, bool kStream>
void LogSoftmaxRows(const Pass& pass) {
  EachRow<T, 1, true>(pass, [&](const T* const* inputs, T* y, size_t threads) HWY_ATTR {
    const T* x = inputs[0];
    LogSum sum = LogSumOf(x, pass.n, threads);
    if (!(std::fabs(sum.high) <= std::numeric_limits<double>::max())) sum.high = kNaN;
    MapRow<kStream>(Subtract(TwoFloats(sum.high, sum.low)), pass.n, threads, y, x);
  });
}

template <class T>
void LogSumExpRows(const Pass& pass) {
  EachRow<T, 1, false>(pass, [&](const T* const* inputs, T* lse, size_t threads) HWY_ATTR {
    const LogSum sum = LogSumOf(inputs[0], pass.n, threads);
    SetScalar(float(sum.high + sum.low), lse);
  });
}

template <class T>
PassKernel KernelOf(PassKind kind, bool stream) {
  if (kind == PassKind::kLogSumExp) return LogSumExpRows<T>;
  return stream ? LogSoftmaxRows<T, true> : LogSoftmaxRows<T, false>;
}

}  // namespace

PassKernel LogKernel(PassKind kind, bool stream, Element element) {
  switch (element) {
    case Element::kFloat32: return KernelOf<float>(kind, stream);
    case Element::kFloat16: return KernelOf<Half>(kind, stream);
    case Element::kBfloat16: return KernelOf<Brain>(kind, stream);
  }
  return nullptr;
}

}  // namespace ulproof::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

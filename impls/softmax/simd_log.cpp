// log_softmax and logsumexp forward: the sum of a row's exponentials in one sweep, its logarithm in double, and for
// log_softmax a second sweep that subtracts it in two floats. log_softmax reads x twice and writes y once; logsumexp reads x
// once.
//
// Most rows need no maximum: the sum of e^x itself is accurate over a wide range (see SumExponential) and shows when it was
// not. Then the exponentials are measured from the largest of a row's first elements, and if that was too low from its maximum.
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

// Adds the first `count` lanes. (The others could be exponentials of -inf instead, but the products that underflow then are
// slow.)
template <class Parts>
HWY_INLINE void AddFirst(DoubleSum& sum, const Parts& parts, size_t count) {
  const auto mask = hn::FirstN(f32, count);
  sum.Add(hn::IfThenElseZero(mask, parts.root)), sum.Add(hn::IfThenElseZero(mask, parts.rest));
}

// Roots are added to a double sum in pairs, the small rests four at once (see SumExponential): at most one rounding of the
// sum's terms, which the logarithm turns into half an ULP of 1.
template <class T, class E>
class SumOfExponentials {
 public:
  HWY_INLINE SumOfExponentials(const E& exponential, const T* x) : exponential_(exponential), x_(x) {}
  HWY_INLINE void Add(size_t i) {
    const auto a = exponential_(Load(x_ + i)), b = exponential_(Load(x_ + i + kLanes));
    const auto c = exponential_(Load(x_ + i + 2 * kLanes)), d = exponential_(Load(x_ + i + 3 * kLanes));
    sum_.Add(hn::Add(a.root, b.root)), sum_.Add(hn::Add(c.root, d.root));
    sum_.Add(hn::Add(hn::Add(a.rest, b.rest), hn::Add(c.rest, d.rest)));
  }
  HWY_INLINE void Add(size_t i, size_t count) {
    AddFirst(sum_, exponential_(count == kLanes ? Load(x_ + i) : LoadPart(x_ + i, count, 0.0f)), count);
  }
  // Times SumExponential::kFactor.
  HWY_INLINE VD Lanes() const { return sum_.Lanes(); }

 private:
  E exponential_;
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

template <class T, class E>
HWY_INLINE double SumRowOf(const E& exponential, const T* x, size_t n, size_t threads) {
  const double sum = SumRow(n, threads, [&](size_t begin) HWY_ATTR { return SumOfExponentials<T, E>(exponential, x + begin); });
  return sum * (1.0 / SumExponential::kFactor);
}

// For rows that the exponentials of x itself don't serve.
template <class T>
HWY_NOINLINE LogSum LogSumFromLargest(const T* x, size_t n, size_t threads) {
  Reference reference;
  const auto sum_from = [&](double largest) HWY_ATTR {
    reference = Reference::Near(float(largest));
    return SumRowOf(SumExponential(reference, 1.0), x, n, threads);
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

// log(v) of a positive normal number, off by less than 2^-34: a call of the library's would cost more than a short row does.
// With m in [sqrt(1/2), sqrt(2)) and s = (m - 1) / (m + 1), log(2^k m) = k log(2) + 2 artanh(s).
HWY_INLINE double ShortLog(double v) {
  uint64_t bits;
  memcpy(&bits, &v, sizeof(bits));
  const int64_t k = int64_t(bits - 0x3FE6A09E667F3BCD) >> 52;
  bits -= uint64_t(k) << 52;
  double m;
  memcpy(&m, &bits, sizeof(m));
  const double s = (m - 1.0) / (m + 1.0), z = s * s;
  const double series = (1.0 / 3 + z * (1.0 / 5)) + z * z * ((1.0 / 7 + z * (1.0 / 9)) + z * z * (1.0 / 11));
  return double(k) * 0.693147180559945309417 + 2.0 * s * (1.0 + z * series);
}

// Whether the sum of e^x says that it is good: neither too large nor so small that the floor of the terms, 2^-125, shows in
// 2^26 of them. False for NaN.
HWY_INLINE bool Good(double sum) { return sum > 0x1p-64 && sum < kTooLarge; }

// `plain` gives e^x.
template <class T>
HWY_INLINE LogSum LogSumOf(const NearExponential& plain, const T* x, size_t n, size_t threads) {
  // A long row is not summed in vain.
  if (n <= kBlock || std::fabs(RowMax(x, kSample)) < 40.0f) {
    const double sum = SumRowOf(plain, x, n, threads);
    if (Good(sum)) return {ShortLog(sum), 0.0};
  }
  return LogSumFromLargest(x, n, threads);
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

template <bool kStream>
struct ShortLogSoftmax {
  static constexpr Short kShorts = Short::kPairs;
  static constexpr bool kStreams = kStream;
  template <size_t kCount, class T>
  HWY_INLINE bool Pair(const T* const (&inputs)[2][kInputs], T* const (&outputs)[2], size_t count, size_t n) const {
    double s[2];
    const auto subtract =
        [&](size_t r) HWY_ATTR { return Subtract(TwoFloats(ShortLog(s[r] * (1.0 / SumExponential::kFactor)))); };
    if constexpr (kCount == 0) {
      using Sum = SumOfExponentials<T, NearExponential>;
      AddUp(SumLanes(Sum(plain, inputs[0][0]), n), SumLanes(Sum(plain, inputs[1][0]), n), s);
      if (!Good(s[0]) || !Good(s[1])) return false;
      for (size_t r = 0; r < count; ++r) MapBlock<kStream>(subtract(r), n, outputs[r], inputs[r][0]);
    } else {
      VF x[2][kCount];
      VD sums[2];
      for (size_t r = 0; r < 2; ++r) {
        LoadRow(inputs[r][0], n, 0.0f, x[r]);
        DoubleSum sum;
        for (size_t k = 0; k + 1 < kCount; ++k) {
          const auto parts = plain(x[r][k]);
          sum.Add(parts.root), sum.Add(parts.rest);
        }
        AddFirst(sum, plain(x[r][kCount - 1]), n - (kCount - 1) * kLanes);
        sums[r] = sum.Lanes();
      }
      AddUp(sums[0], sums[1], s);
      if (!Good(s[0]) || !Good(s[1])) return false;
      for (size_t r = 0; r < 2; ++r) {
        const Subtract function = subtract(r);
        for (VF& v : x[r]) v = function(v);
        StoreRow(x[r], outputs[r], n);
      }
    }
    return true;
  }
  const NearExponential& plain;
};

template <class T, bool kStream>
void LogSoftmaxRows(const Pass& pass) {
  const NearExponential plain(Reference{}, 1.0);
  const auto row = [&](const T* const* inputs, T* y, size_t threads) HWY_ATTR {
    const T* x = inputs[0];
    LogSum sum = LogSumOf(plain, x, pass.n, threads);
    if (!(std::fabs(sum.high) <= std::numeric_limits<double>::max())) sum.high = kNaN;
    MapRow<kStream>(Subtract(TwoFloats(sum.high, sum.low)), pass.n, threads, y, x);
  };
  EachRow<T, 1, true>(pass, row, ShortLogSoftmax<kStream>{plain});
}

template <class T>
void LogSumExpRows(const Pass& pass) {
  const NearExponential plain(Reference{}, 1.0);
  EachRow<T, 1, false>(pass, [&](const T* const* inputs, T* lse, size_t threads) HWY_ATTR {
    const LogSum sum = LogSumOf(plain, inputs[0], pass.n, threads);
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

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

// Roots are added to a double sum in pairs, the small rests four at once (see SumExponential), and the exponentials of a vector
// alone whole: one rounding of the sum's terms, which the logarithm turns into half an ULP of 1.
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
    if (count == kLanes) {
      sum_.Add(exponential_.Factors(Load(x_ + i)).Whole());
    } else {  // not exponentials of -inf: products that underflow are slow
      const VF whole = exponential_.Factors(LoadPart(x_ + i, count, 0.0f)).Whole();
      sum_.Add(hn::IfThenElseZero(hn::FirstN(f32, count), whole));
    }
  }
  // Times SumExponential::kFactor.
  HWY_INLINE VQ Lanes() const { return ToQuad(sum_.Lanes()); }

 private:
  E exponential_;
  const T* x_;
  DoubleSum sum_;
};

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
    const double largest = MaxOf(x, n, threads);
    if (!(std::fabs(largest) <= kLargest)) return {AnyNaN(x, n) ? kNaN : largest, 0.0};
    sum = sum_from(largest);
  }
  // The shift is 0 or much larger than the logarithm beside it, so this sum is exact (Fast2Sum).
  const double shift = reference.shift, logarithm = std::log(sum) + reference.power * 0.693147180559945309417;
  if (shift == 0.0) return {logarithm, 0.0};
  const double high = shift + logarithm;
  return {high, logarithm - (high - shift)};
}

// log(v) of positive normal numbers, off by less than 2^-34: a call of the library's would cost more than a short row does.
// With m in [sqrt(1/2), sqrt(2)) and s = (m - 1) / (m + 1), log(2^k m) = k log(2) + 2 artanh(s).
HWY_INLINE VQ ShortLog(VQ v) {
  const hn::RebindToUnsigned<Quad> u64;
  const auto set = [](double value) HWY_ATTR { return hn::Set(quad, value); };
  const auto half = hn::Set(u64, 0x3FE6A09E667F3BCD);  // the bits of sqrt(1/2)
  const auto bits = hn::Sub(hn::BitCast(u64, v), half);
  const VQ m = hn::BitCast(quad, hn::Add(hn::And(bits, hn::Set(u64, (uint64_t{1} << 52) - 1)), half));
  // k + 1024, which is positive, as the lowest bits of 2^52 and more
  const auto exponent = hn::ShiftRight<52>(hn::Add(bits, hn::Set(u64, uint64_t{1024} << 52)));
  const VQ k = hn::Sub(hn::BitCast(quad, hn::Or(exponent, hn::BitCast(u64, set(0x1p52)))), set(0x1p52 + 1024));
  const VQ s = hn::Div(hn::Sub(m, set(1.0)), hn::Add(m, set(1.0))), z = hn::Mul(s, s), z2 = hn::Mul(z, z);
  const VQ low = hn::MulAdd(z, set(1.0 / 5), set(1.0 / 3)), high = hn::MulAdd(z, set(1.0 / 9), set(1.0 / 7));
  const VQ series = hn::MulAdd(z2, hn::MulAdd(z2, set(1.0 / 11), high), low);
  const VQ twice = hn::Add(s, s);
  return hn::MulAdd(k, set(0.693147180559945309417), hn::MulAdd(twice, hn::Mul(z, series), twice));
}

// Whether the sum of e^x says that it is good: neither too large nor so small that the floor of the terms, 2^-125, shows in
// 2^26 of them. False for NaN.
HWY_INLINE bool Good(VQ sums) {
  return hn::AllTrue(quad, hn::And(hn::Gt(sums, hn::Set(quad, 0x1p-64)), hn::Lt(sums, hn::Set(quad, kTooLarge))));
}

// `plain` gives e^x.
template <class T>
HWY_INLINE LogSum LogSumOf(const PlainExponential& plain, const T* x, size_t n, size_t threads) {
  // A long row is not summed in vain.
  if (n <= kBlock || std::fabs(RowMax(x, kSample)) < 40.0f) {
    const VQ sum = hn::Set(quad, SumRowOf(plain, x, n, threads));
    if (Good(sum)) return {hn::GetLane(ShortLog(sum)), 0.0};
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

// The sums of e^x of short rows.
template <class T, class Rows>
HWY_INLINE auto SumsOf(const Rows& rows) {
  const PlainExponential plain(Reference{}, 1.0);
  const auto sums = rows.Sums([&](size_t r) HWY_ATTR { return SumOfExponentials<T, PlainExponential>(plain, rows.Input(r)); });
  return sums.Each([](VQ v) HWY_ATTR { return hn::Mul(v, hn::Set(quad, 1.0 / SumExponential::kFactor)); });
}

template <class T, bool kStream>
void LogSoftmaxRows(const Pass& pass) {
  const PlainExponential plain(Reference{}, 1.0);
  const auto row = [&](const T* const* inputs, T* y, size_t threads) HWY_ATTR {
    const T* x = inputs[0];
    LogSum sum = LogSumOf(plain, x, pass.n, threads);
    if (!(std::fabs(sum.high) <= std::numeric_limits<double>::max())) sum.high = kNaN;
    MapRow<kStream>(Subtract(TwoFloats(sum.high, sum.low)), pass.n, threads, y, x);
  };
  const auto together = [](const auto& rows) HWY_ATTR {
    const auto sums = SumsOf<T>(rows);
    if (!sums.All(Good)) return false;
    const TwoFloatsPerRow logs(sums.Each(ShortLog));
    for (size_t r = 0; r < rows.kCount; ++r) {
      Subtract function(logs[r]);
      MapBlock<1, kStream>(function, rows.n, rows.Output(r), rows.Input(r));
    }
    return true;
  };
  EachRow<T, 1, true, kStream>(pass, row, together);
}

template <class T>
void LogSumExpRows(const Pass& pass) {
  const PlainExponential plain(Reference{}, 1.0);
  const auto row = [&](const T* const* inputs, T* lse, size_t threads) HWY_ATTR {
    const LogSum sum = LogSumOf(plain, inputs[0], pass.n, threads);
    SetScalar(float(sum.high + sum.low), lse);
  };
  const auto together = [](const auto& rows) HWY_ATTR {
    const auto sums = SumsOf<T>(rows);
    if (!sums.All(Good)) return false;
    const FloatPerRow logs(sums.Each(ShortLog));
    for (size_t r = 0; r < rows.kCount; ++r) SetScalar(logs[r], rows.Output(r));
    return true;
  };
  EachRow<T, 1, false, false>(pass, row, together);
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

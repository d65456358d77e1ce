// Softmax forward: five algorithms from the same sweeps.
//
//   three-pass-recompute   Max, Sum, Write          reads x three times, writes y once
//   three-pass-reload      Max, SumStore, Scale     reads x twice and y once, writes y twice
//   two-pass               Sample, Sum, Write       reads x twice, writes y once
//   online                 Sample, SumStore, Scale  reads x and y once, writes y twice
//
// Sample looks at a row's first elements only, and not even at them in a short row. Its maximum is a good enough reference,
// because the exponential keeps its accuracy over hundreds of binades (see Reduction); a row that leaves them is found by its
// sum and done again from its maximum.
// A row is summed in fixed blocks, so that threads change no bit of the result, at some places of a long one at once. Prefetching
// by software slowed every sweep down where this was tuned (Zen 4).
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "softmax/simd_forward.cpp"
#include <hwy/foreach_target.h>

#include <hwy/aligned_allocator.h>
#include <hwy/cache_control.h>

#include <atomic>
#include <type_traits>
#include <vector>

#include "softmax/simd_blocks-inl.h"
#include "softmax/simd_forward.h"

HWY_BEFORE_NAMESPACE();
namespace ulproof::HWY_NAMESPACE {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kLargest = std::numeric_limits<float>::max();
constexpr size_t kGroup = 4 * kLanes;       // elements of one step
constexpr size_t kTree = kLanes == 16 ? 8 : 16;  // vectors whose exponentials are added in float
constexpr size_t kPart = 256;               // elements that are summed on their own, at least
constexpr size_t kBuffer = size_t{1} << 16;  // elements of a row whose exponentials wait in a buffer when results are streamed
constexpr size_t kSample = 512;
constexpr double kStoredUnit = kScales ? 0x1p24 : 0x1p40;
constexpr double kBias = 0x1.8p-27;    // of a sum; more would be felt
constexpr double kTooSmall = 0x1p-15;  // a sum below this was measured from a reference that is too high

// ---- sweeps over a block. Functions come by value, so that their constants stay in registers.

template <bool kStore, bool kStream>
HWY_INLINE void Keep(VF v, float* e) {
  if constexpr (kStore && kStream) hn::Stream(v, f32, e);
  if constexpr (kStore && !kStream) Store(v, e);
}

// Sum, and with kStore also SumStore into e.
template <bool kStore, bool kStream, class T, class E>
HWY_INLINE double SumBlock(E exponential, const T* HWY_RESTRICT x, float* HWY_RESTRICT e, size_t n) {
  PartsSum sum;
  const auto one = [&](size_t i) HWY_ATTR {
    const auto product = exponential.Factors(Load(x + i));
    sum.Add(product);
    Keep<kStore, kStream>(product.Whole(), e + i);
  };
  size_t i = 0;
  for (; i + kGroup <= n; i += kGroup) {
    for (size_t v = 0; v < kGroup; v += kLanes) one(i + v);
    if (i / kGroup % 4 == 3) sum.Flush();
  }
  sum.Flush();
  for (; i + kLanes <= n; i += kLanes) one(i);
  if (i < n) {
    const auto product = exponential.Factors(LoadPart(x + i, n - i, -kInfinity));
    sum.Add(product);
    if constexpr (kStore) StorePart(product.Whole(), e + i, n - i);
  }
  return sum.Total();
}

// The same of kCount vectors, each rounded, as a tree of float additions. each(product) sees them before they are rounded.
template <size_t kCount, bool kStore, bool kStream, class T, class E, class Each>
HWY_INLINE VF SumTree(const E& exponential, const T* x, float* e, const Each& each) {
  if constexpr (kCount == 1) {
    const auto product = exponential.Factors(Load(x));
    each(product);
    const VF v = product.Whole();
    Keep<kStore, kStream>(v, e);
    return v;
  } else {
    constexpr size_t kHalf = kCount / 2;
    const VF first = SumTree<kHalf, kStore, kStream>(exponential, x, e, each);
    return hn::Add(first, SumTree<kHalf, kStore, kStream>(exponential, x + kHalf * kLanes, e + kHalf * kLanes, each));
  }
}

// The sum of kCount vectors, in the order of SumTree.
template <size_t kCount>
HWY_INLINE VF AddTree(const float* e) {
  if constexpr (kCount == 1) {
    return Load(e);
  } else {
    constexpr size_t kHalf = kCount / 2;
    return hn::Add(AddTree<kHalf>(e), AddTree<kHalf>(e + kHalf * kLanes));
  }
}

// Which trees of a row are summed exactly too: one of 2^power, at a place that has no period. Eight of them at least: n samples
// that lack the same are sqrt(n) standard errors from nothing, so that four would never be enough to be believed.
struct Samples {
  HWY_INLINE explicit Samples(size_t n) {
    const size_t trees = n / (kTree * kLanes);
    const auto many = [this] { return kLanes == 16 ? size_t{16} << (power < 6 ? 0 : 3) : size_t{8} << power / 2; };
    while (trees >> power >= many()) ++power;
  }
  HWY_INLINE bool Has(size_t tree) const {
    const uint32_t hash = uint32_t(tree >> power) * 0x9E3779B9u;
    return ((tree ^ (hash >> 26 | (hash >> 6 & ~uint32_t{63}))) & ((size_t{1} << power) - 1)) == 0;
  }
  // The harmonic mean of the elements' exponentials, almost, from the lanes' sums in samples of n elements.
  HWY_INLINE double MeanOf(size_t n, double inverses) const {
    constexpr size_t kTreeSize = kTree * kLanes, kDoubles = hn::MaxLanes(f64);
    return double((n / kTreeSize >> power) * kDoubles * kDoubles) / double(kTreeSize) / inverses;
  }
  uint32_t power = 0;
};

// The rough sum of a part of a row, and how far it is from the exact one where that was sampled.
struct RoughSum {
  double sum = 0.0;
  double sampled = 0.0, lacking = 0.0, squares = 0.0;
  double inverses = 0.0;  // of the sums of the sampled trees' lanes
};

// A tree's products, summed exactly.
class Sample {
 public:
  HWY_INLINE Sample() : rest_(hn::Zero(f32)) {}
  template <class Product>
  HWY_INLINE void Add(const Product& e) {
    sum_.Add(e.root);
    rest_ = hn::MulAdd(e.part, e.tail, rest_);
    if constexpr (kCorrected) rest_ = hn::Add(rest_, e.Lacking());
  }
  HWY_INLINE VD Lanes() {
    sum_.Add(rest_);
    return sum_.Lanes();
  }

 private:
  DoubleSum sum_;
  VF rest_;
};

// SumBlock in about two thirds of its time, of n elements at each of `ways` places; each of them gets its RoughSum. The
// roundings on the way outweigh each other, as a rule: a tree may be off by 5 * 2^-24 of its sum, and trees that are alike by
// as much together, which samples show (but for a row that is built to hide it from them).
template <size_t ways, bool kStore, bool kStream, class T, class E>
HWY_INLINE void SumRoughly(E exponential, const T* HWY_RESTRICT x, float* HWY_RESTRICT e, size_t n, size_t tree,
                           Samples samples, RoughSum* HWY_RESTRICT parts, size_t size) {
  constexpr size_t kTreeSize = kTree * kLanes;
  const auto unseen = [](const auto&) HWY_ATTR {};
  DoubleSum sums[ways];
  struct {
    VD sum, lacking, squares, inverses;
  } sampled[ways];
  for (auto& own : sampled) own = {hn::Zero(f64), hn::Zero(f64), hn::Zero(f64), hn::Zero(f64)};
  size_t i = 0, samples_seen = 0;
  for (; i + kTreeSize <= n; i += kTreeSize, ++tree) {
    for (size_t way = 0; way < ways; ++way) {
      const T* from = x + way * kApart + i;
      float* to = e + way * kApart + i;
      if (HWY_LIKELY(!samples.Has(tree + way * (kApart / kTreeSize)))) {
        sums[way].Add(SumTree<kTree, kStore, kStream>(exponential, from, to, unseen));
      } else {
        Sample exact;
        DoubleSum rough;
        rough.Add(SumTree<kTree, kStore, kStream>(exponential, from, to, [&](const auto& product) HWY_ATTR { exact.Add(product); }));
        const VD lanes = rough.Lanes(), lack = hn::Sub(exact.Lanes(), lanes);
        sums[way].Add(rough);
        auto& own = sampled[way];
        const VD inverse = hn::IfThenElseZero(hn::Gt(lanes, hn::Zero(f64)), hn::Div(hn::Set(f64, 1.0), lanes));
        own = {hn::Add(own.sum, lanes), hn::Add(own.lacking, lack), hn::MulAdd(lack, lack, own.squares),
               hn::Add(own.inverses, inverse)};
        ++samples_seen;
      }
    }
  }
  const auto total = [](VD v) HWY_ATTR { return hn::GetLane(hn::SumOfLanes(f64, v)); };
  for (size_t way = 0; way < ways; ++way) {
    const T* from = x + way * kApart;
    float* to = e + way * kApart;
    size_t j = i;
    for (; j + kLanes <= n; j += kLanes) {
      sums[way].Add(SumTree<1, kStore, kStream>(exponential, from + j, to + j, unseen));
    }
    if (j < n) {
      // No number is below every row's and fit for an exponential without a floor: what stands past the end is taken out after it.
      const VF v = hn::IfThenElseZero(hn::FirstN(f32, n - j), exponential.Factors(LoadPart(from + j, n - j, 0.0f)).Whole());
      sums[way].Add(v);
      if constexpr (kStore) StorePart(v, to + j, n - j);
    }
    RoughSum& part = parts[way * (kApart / size)];
    part = {sums[way].Total()};
    if (samples_seen > 0) {
      part.sampled = total(sampled[way].sum), part.lacking = total(sampled[way].lacking);
      part.squares = total(sampled[way].squares), part.inverses = total(sampled[way].inverses);
    }
  }
}

// The same out of line: with two such loops in one function, GCC made both slower by a quarter.
template <bool kStore, bool kStream, class T, class E>
HWY_NOINLINE void SumRoughlyElsewhere(const E& exponential, const T* x, float* e, size_t n, size_t tree, const Samples& samples,
                                      RoughSum* part, size_t size) {
  SumRoughly<1, kStore, kStream>(exponential, x, e, n, tree, samples, part, size);
}

// What was summed roughly, exactly.
template <class T, class E>
HWY_NOINLINE double SumAgain(const E& exact, const T* x, size_t n) {
  return SumBlock<false, false>(exact, x, nullptr, n);
}

// SumRoughly of exponentials that it stored, but for those of kPart elements whose sum is above `heavy`: SumBlock of these, or of
// all if the others amount to four times that.
template <class T, class E>
HWY_INLINE double SumFromStored(const E& exact, const T* HWY_RESTRICT x, const float* HWY_RESTRICT e, size_t n, double heavy) {
  double total = 0.0, rest = 0.0;
  for (size_t i = 0; i < n; i += kPart) {
    const size_t count = std::min(kPart, n - i);
    DoubleSum sum;
    if (count == kPart) {
      for (size_t j = 0; j < kPart; j += kTree * kLanes) sum.Add(AddTree<kTree>(e + i + j));
    }
    const double part = sum.Total();
    if (count == kPart && part <= heavy) {
      rest += part;
    } else {
      total += SumAgain(exact, x + i, count);
    }
  }
  return rest <= 4 * heavy ? total + rest : SumAgain(exact, x, n);
}

// Whether other parts than the largest have elements that are equal to `top`. A few parts tell, as each that has one is as large.
template <class T>
HWY_NOINLINE bool Tied(VF top, double e, const T* x, size_t n, const std::vector<RoughSum>& parts, size_t size, size_t largest) {
  for (size_t part = 0, seen = 0; part < parts.size() && seen < 3; ++part) {
    if (parts[part].sum < 0.99 * e || part == largest) continue;
    ++seen;
    const T* from = x + part * size;
    const size_t count = std::min(size, n - part * size);
    for (size_t i = 0; i < count; i += kLanes) {
      const VF v = count - i >= kLanes ? Load(from + i) : LoadPart(from + i, count - i, -kInfinity);
      if (!hn::AllFalse(f32, hn::Eq(v, top))) return true;
    }
  }
  return false;
}

// Write (the function is an exponential) and Scale (it is Inverse).
template <size_t ways, bool kStream, class Function, class S, class T>
HWY_INLINE void MapBlock(Function function, const S* x, T* y, size_t n) {
  size_t i = 0;
  const auto part = [&](size_t count) HWY_ATTR {
    if (count == 0) return;
    for (size_t at = i; at < i + ways * kApart; at += kApart) {
      StorePart(function(LoadPart(x + at, count, -kInfinity)), y + at, count);
    }
    i += count;
  };
  if constexpr (kStream) part(std::min(n, (kLanes - Offset(y)) % kLanes));
  for (; i + kGroup <= n; i += kGroup) {
    for (size_t way = 0; way < ways; ++way) {
      const size_t at = way * kApart + i;
      for (size_t v = at; v < at + kGroup; v += kLanes) {
        const VF result = function(Load(x + v));
        Put<kStream>(result, y + v);
      }
    }
  }
  for (; i + kLanes <= n; i += kLanes) {
    for (size_t at = i; at < i + ways * kApart; at += kApart) Store(function(Load(x + at)), y + at);
  }
  part(n - i);
}

// e * inverse, rounded once, and a product of at most 2^-5 of it once more. (With as many bits in `high` as it has, the
// products would be below 2^-126 for many ordinary results, and those are slow.)
struct Inverse {
  HWY_INLINE explicit Inverse(double inverse) {
    uint64_t bits;
    memcpy(&bits, &inverse, sizeof(bits));
    bits &= ~uint64_t{0} << 47;  // five bits after the point
    double leading;
    memcpy(&leading, &bits, sizeof(leading));
    high = hn::Set(f32, float(leading)), low = hn::Set(f32, float(inverse - leading));
  }
  HWY_INLINE VF operator()(VF e) const {
    e = InRegister(e);
    return hn::MulAdd(e, high, hn::Mul(e, low));
  }
  VF high, low;
};

// ---- sweeps over a row

// The sum of e^(x_i - shift) / 2^power, times factor and SumExponential::kFactor. A long row is summed roughly, part by part,
// and then the parts that matter most once more, exactly; or all of it, when the samples say that its roundings add up.
template <bool kShifted, bool kStore, bool kStream, class T>
HWY_NOINLINE double SumOf(const Reference& reference, double factor, const T* x, float* e, size_t n, size_t threads) {
  const BasicSumExponential<kShifted> exact(reference, factor);
  if (n <= 24 * kPart) return SumBlock<kStore, kStream>(exact, x, e, n);
  // What is stored must be right on its own; a part's sum lacks about as much of itself as exponentials of its size do.
  constexpr bool kBrief = !kShifted && !kStore;
  const BasicSumExponential<kShifted, false, false, kBrief> plain(reference, factor);
  const BasicSumExponential<kShifted, false, true, kBrief> floored(reference, factor);
  const Samples samples(n);
  size_t size = kPart;  // a part's own cost against that of summing some again
  while (size < kBlock && (kStore ? size * 64 <= n : size * size < 16 * n)) size *= 2;
  std::atomic<bool> masked = false;  // what had to be done once had better be done at once
  std::vector<RoughSum> parts((n + size - 1) / size);
  EachBlocks<kShifted ? 1 : kWays>(n, threads, false, [&](size_t begin, size_t count, auto ways) HWY_ATTR {
    for (size_t i = begin; i < begin + count; i += size) {
      RoughSum* part = &parts[i / size];
      const size_t some = std::min(size, begin + count - i), tree = i / (kTree * kLanes);
      if (!masked.load(std::memory_order_relaxed)) {
        SumRoughly<ways(), kStore, kStream>(plain, x + i, e + i, some, tree, samples, part, size);
        bool good = true;
        for (size_t way = 0; kScales && way < ways(); ++way) good = good && part[way * (kApart / size)].sum <= kLargest;
        if (good) continue;
        masked.store(true, std::memory_order_relaxed);
      }
      for (size_t at = 0; at < ways() * kApart; at += kApart) {
        SumRoughlyElsewhere<kStore, kStream>(floored, x + i + at, e + i + at, some, tree + at / (kTree * kLanes), samples,
                                             part + at / size, size);
      }
    }
  });
  if constexpr (kBrief) {
    // Exponentials that make up a part's sum are of its size if there are few, and of its mean's size if they are alike.
    const double between = reference.power - 0.75 * std::log2(double(size));
    for (RoughSum& part : parts) part.sum *= 1.0 + kLn2Rest * (Exponent(part.sum) + between);
  }
  const auto total = [&] {
    double sum = 0.0;
    for (const RoughSum& part : parts) sum += part.sum;
    return sum;
  };
  const double sum = total();
  if (!(sum < kTooLarge * SumExponential::kFactor)) return sum;
  // Parts above this are summed again: roundings of more parts than are left outweigh each other.
  double heavy = sum * std::max(1.0 / 32, 3.0 / double(parts.size()));
  RoughSum light;
  const RoughSum* largest = nullptr;
  double inverses = 0.0;
  for (const RoughSum& part : parts) {
    inverses += part.inverses;
    if (part.sum > heavy) continue;
    light.sum += part.sum, light.sampled += part.sampled, light.lacking += part.lacking, light.squares += part.squares;
    if (largest == nullptr || part.sum > largest->sum) largest = &part;
  }
  // By so many times that bias, and so many squared standard errors: not when it comes from a few elements.
  const auto lacks = [&light](double biases, double errors) {
    return std::fabs(light.lacking) > biases * kBias * light.sampled && light.lacking * light.lacking > errors * light.squares;
  };
  const bool biased = lacks(1.0, 4.0);
  if (!biased && light.sum > sum / 8) {
    // What is likely, but not sure enough for all of the row, is enough for its largest parts.
    if (lacks(2.5, 2.0)) heavy = std::min(heavy, largest->sum / 4);
    // Elements that are equal may lack something alike, too many to stand out and too few for the samples, and so may others that
    // make up the sum and are of a size, so far above most that additions lose the bits of these.
    const size_t place = size_t(largest - parts.data());
    const VF top = hn::Set(f32, RowMax(x + place * size, std::min(size, n - place * size)));
    const double e = hn::GetLane(plain.Factors(top).Whole()), most = samples.MeanOf(n, inverses);
    bool alike = e > 0x1p17 * most && light.sum > 0x1p6 * most * double(n);
    if (alike) {
      double like_top = 0.0;
      for (const RoughSum& part : parts) like_top += part.sum <= heavy && part.sum > e / 4 ? part.sum : 0.0;
      alike = like_top > 0.9 * light.sum;
    }
    if (alike || (e > sum / double(size_t{32} << samples.power) && Tied(top, e, x, n, parts, size, place))) {
      heavy = std::min(heavy, e / 4);
    }
  }
  EachBlock(n, biased ? threads : 1, [&](size_t begin, size_t block) HWY_ATTR {
    for (size_t i = begin; i < begin + block; i += size) {
      double& part = parts[i / size].sum;
      const size_t count = std::min(size, begin + block - i);
      if (biased) {
        part = SumAgain(exact, x + i, count);
      } else if (part > heavy) {
        part = kStore && count > kPart ? SumFromStored(exact, x + i, e + i, count, std::min(heavy, sum / 128))
                                       : SumAgain(exact, x + i, count);
      }
    }
  });
  return total();
}

template <bool kStream, class Function, class S, class T>
HWY_NOINLINE void MapTo(const Function& function, const S* x, T* y, size_t n, size_t threads, bool backward) {
  EachBlocks<kWays>(n, threads, backward, [&](size_t begin, size_t count, auto ways) HWY_ATTR {
    MapBlock<ways(), kStream>(function, x + begin, y + begin, count);
  });
}

template <class T>
void FillNaN(T* y, size_t n) {
  T one[kLanes];
  Store(hn::NaN(f32), one);
  std::fill(y, y + n, one[0]);
}

// A thread's own memory for n floats.
HWY_NOINLINE float* Buffer(size_t n) {
  static thread_local hwy::AlignedFreeUniquePtr<float[]> buffer;
  static thread_local size_t capacity = 0;
  if (capacity < n) {
    capacity = std::max(n, kBuffer);
    buffer = hwy::AllocateAligned<float>(capacity);
  }
  return buffer.get();
}

template <class T, Algorithm kAlgorithm, bool kStream>
HWY_NOINLINE void Row(const T* x, T* y, size_t n, size_t threads, Reference& hint) {
  constexpr bool kSampled = kAlgorithm != Algorithm::kRecompute && kAlgorithm != Algorithm::kReload;
  constexpr bool kStored = kAlgorithm == Algorithm::kReload || kAlgorithm == Algorithm::kOnline;
  // Exponentials wait in the output, but in a buffer where they would be rounded twice or sent past the caches too early.
  const bool buffered = kStored && (sizeof(T) == 2 || (kStream && n <= kBuffer));
  float* e = buffered ? Buffer(n) : reinterpret_cast<float*>(y);
  [[maybe_unused]] const bool stream_sum = kStream && !buffered && reinterpret_cast<uintptr_t>(e) % 64 == 0;  // whole lines only

  // What is stored is larger by this, so that every result has a normal exponential, and what lies below becomes 0.
  constexpr double kUnit = (kStored ? kStoredUnit : 1.0) * SumExponential::kFactor;
  Reference reference;
  double sum = 0.0;
  const auto sum_from = [&](const Reference& from) HWY_ATTR {
    reference = from;
    const auto sum_of = [&](auto shifted, auto stream) HWY_ATTR {
      return SumOf<shifted(), kStored, stream()>(reference, kUnit / SumExponential::kFactor, x, e, n, threads);
    };
    using CanStream = std::bool_constant<kStream && kStored && sizeof(T) == 4>;
    using No = std::false_type;
    sum = !reference.Near() ? sum_of(std::true_type(), No())
          : stream_sum      ? sum_of(No(), CanStream())
                            : sum_of(No(), No());
    return sum < kTooLarge * SumExponential::kFactor && sum >= kTooSmall * kUnit;
  };
  const auto sum_from_largest = [&](float largest) HWY_ATTR {
    return std::fabs(largest) <= kLargest && sum_from(Reference::Near(largest));
  };
  // A short row is first measured from where the one before it was: without a shift, that changes no bit of the result.
  bool good = false;
  if constexpr (kSampled) {
    good = n > 2 * kSample ? sum_from_largest(MaxOf(x, kSample, 1)) : hint.shift == 0.0f && sum_from(hint);
  }
  if (!good && !sum_from_largest(MaxOf(x, n, threads))) return FillNaN(y, n);
  hint = reference;

  constexpr bool kBackward = kAlgorithm == Algorithm::kBackwardWalk;
  if constexpr (kStored) {
    MapTo<kStream>(Inverse(1.0 / sum), e, y, n, threads, kBackward);
  } else {
    // With rounded roots, a quarter of 2^-24 less keeps a probability just below 1 from being rounded above it.
    const double factor = kUnit / sum * (kLanes == 16 ? 1.0 : 1.0 - 0x1p-26);
    // With a smaller factor, products on the way would be subnormal, and those are slow.
    if (reference.shift == 0.0f && std::fabs(Exponent(factor) - reference.power) <= 104.0) {
      MapTo<kStream>(BasicExponential<false, true>(reference, factor), x, y, n, threads, kBackward);
    } else {
      MapTo<kStream>(BasicExponential<true, true>(reference, factor), x, y, n, threads, kBackward);
    }
  }
}

// `online` for rows of a few vectors: a row, and then its exponentials, stay in registers. What is left of a row after its
// whole vectors is done with the elements before it, twice to the same result, as partial stores are slow. A row whose
// largest element is far from 0 or not finite takes the general way.
constexpr size_t kShort = 8 * kLanes;

template <size_t kVectors, class T>
HWY_NOINLINE void ShortRows(const Job& job, size_t begin, size_t end) {
  BasicSumExponential<false> exponential(Reference(), 1.0);
  const size_t n = job.n, whole = n / kLanes, vectors = (n + kLanes - 1) / kLanes;
  const auto place = [=](size_t j) { return j < whole ? j * kLanes : n - kLanes; };
  const auto again = hn::FirstN(f32, vectors * kLanes - n);  // lanes of the last vector that the one before it had
  for (size_t r = begin; r < end; ++r) {
    const T* x = reinterpret_cast<const T*>(job.x.Row(r));
    T* y = reinterpret_cast<T*>(job.y.Row(r));
    VF v[kVectors];
    VF largest = hn::Set(f32, -kInfinity);
    for (size_t j = 0; j < kVectors && j < vectors; ++j) {
      v[j] = whole > 0 ? Load(x + place(j)) : LoadPart(x, n, -kInfinity);
      largest = MaxKeepNaN(largest, v[j]);
    }
    largest = hn::MaxOfLanes(f32, largest);
    if (!(std::fabs(hn::GetLane(largest)) < (kScales ? 64.0f : 256.0f))) {
      Reference unknown;
      Row<T, Algorithm::kOnline, false>(x, y, n, 1, unknown);
      continue;
    }
    exponential.MeasureFrom(hn::Round(hn::Mul(largest, hn::Set(f32, 0x1.715476p+0f))), Exponent(kStoredUnit));
    std::conditional_t<kVectors <= 2, DoublePartsSum, PartsSum> sum;
    for (size_t j = 0; j < kVectors && j < vectors; ++j) {
      auto e = exponential.Factors(v[j]);
      v[j] = e.Whole();
      if (j == whole && whole > 0) {
        e.root = hn::IfThenZeroElse(again, e.root);
        e.part = hn::IfThenZeroElse(again, e.part);
      }
      sum.Add(e);
    }
    const Inverse inverse(1.0 / sum.Total());
    for (size_t j = 0; j < kVectors && j < vectors; ++j) {
      if (whole > 0) {
        Store(inverse(v[j]), y + place(j));
      } else {
        StorePart(inverse(v[j]), y, n);
      }
    }
  }
}

template <class T>
void ShortRowsOf(const Job& job, size_t begin, size_t end) {
  if (job.n <= kLanes) return ShortRows<1, T>(job, begin, end);
  if (job.n <= 2 * kLanes) return ShortRows<2, T>(job, begin, end);
  if (job.n <= 4 * kLanes) return ShortRows<4, T>(job, begin, end);
  return ShortRows<8, T>(job, begin, end);
}

// All rows, each by a Row; `few` if short ones are of `online` that doesn't stream.
template <class T>
HWY_NOINLINE void RowsBy(decltype(Row<T, Algorithm::kOnline, false>)* row_of, bool few, const Job& job) {
  // Rows that are not contiguous, or not aligned to their elements, go through a copy.
  const auto awkward = [](const Strided& s) {
    const auto odd = reinterpret_cast<uintptr_t>(s.data) | uintptr_t(s.row_step) | uintptr_t(s.offsets ? s.offsets[0] : 0);
    return s.step != ptrdiff_t(sizeof(T)) || odd % sizeof(T) != 0;
  };
  const bool gather = awkward(job.x), scatter = awkward(job.y);
  const auto row = [&](size_t r, size_t threads, Reference& hint) {
    const char* x = job.x.Row(r);
    char* y = job.y.Row(r);
    std::vector<T> from(gather ? job.n : 0), to(scatter ? job.n : 0);
    for (size_t i = 0; i < from.size(); ++i) memcpy(&from[i], x + ptrdiff_t(i) * job.x.step, sizeof(T));
    row_of(gather ? from.data() : reinterpret_cast<const T*>(x),
           scatter ? to.data() : reinterpret_cast<T*>(y), job.n, threads, hint);
    for (size_t i = 0; i < to.size(); ++i) memcpy(y + ptrdiff_t(i) * job.y.step, &to[i], sizeof(T));
  };
  few = few && job.n <= kShort && !gather && !scatter;
  const auto some = [&](size_t begin, size_t end) {
    if (few) return ShortRowsOf<T>(job, begin, end);
    Reference hint;
    for (size_t r = begin; r < end; ++r) row(r, 1, hint);
  };
  if (job.threads == 1) {
    some(0, job.rows);
  } else if (job.rows >= 4 * job.threads || job.n <= 2 * kBlock) {
    // Whole rows, some 64 Ki elements to a task.
    const size_t chunk = std::max<size_t>(1, std::min((size_t{1} << 16) / job.n, job.rows / (4 * job.threads)));
    ThreadPool::Instance().Run(job.threads, (job.rows + chunk - 1) / chunk, [&](size_t task) {
      some(task * chunk, std::min(job.rows, (task + 1) * chunk));
      hwy::FlushStream();
    });
  } else {
    Reference hint;
    for (size_t r = 0; r < job.rows; ++r) row(r, job.threads, hint);
  }
}

template <class T, Algorithm kAlgorithm, bool kStream>
void Rows(const Job& job) {
  RowsBy<T>(Row<T, kAlgorithm, kStream>, kAlgorithm == Algorithm::kOnline && !kStream, job);
  if (kStream) hwy::FlushStream();
}

template <class T, bool kStream>
Kernel KernelOf(Algorithm algorithm) {
  switch (algorithm) {
    case Algorithm::kRecompute: return Rows<T, Algorithm::kRecompute, kStream>;
    case Algorithm::kReload: return Rows<T, Algorithm::kReload, kStream>;
    case Algorithm::kTwoPass: return Rows<T, Algorithm::kTwoPass, kStream>;
    case Algorithm::kBackwardWalk: return Rows<T, Algorithm::kBackwardWalk, kStream>;
    case Algorithm::kOnline: return Rows<T, Algorithm::kOnline, kStream>;
    default: return nullptr;
  }
}

}  // namespace

Kernel ForwardKernel(Algorithm algorithm, bool stream, Element element) {
  switch (element) {
    case Element::kFloat32: return stream ? KernelOf<float, true>(algorithm) : KernelOf<float, false>(algorithm);
    case Element::kFloat16: return stream ? KernelOf<Half, true>(algorithm) : KernelOf<Half, false>(algorithm);
    case Element::kBfloat16: return stream ? KernelOf<Brain, true>(algorithm) : KernelOf<Brain, false>(algorithm);
  }
  return nullptr;
}

}  // namespace ulproof::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

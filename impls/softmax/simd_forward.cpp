// Softmax forward: five algorithms from the same sweeps.
//
//   three-pass-recompute   Max, Sum, Write          reads x three times, writes y once
//   three-pass-reload      Max, SumStore, Scale     reads x twice and y once, writes y twice
//   two-pass               Sample, Sum, Write       reads x twice, writes y once
//   online                 Sample, SumStore, Scale  reads x and y once, writes y twice
//
// Sample looks at a row's first elements only. Its maximum is a good enough reference, because the exponential keeps its
// accuracy over 2^226 (see Exponential); a row that leaves this range is found by its sum and done again from its maximum.
// A row is summed in fixed blocks, so that threads and streams change no bit of the result.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "softmax/simd_forward.cpp"
#include <hwy/foreach_target.h>

#include <hwy/aligned_allocator.h>
#include <hwy/cache_control.h>

#include <vector>

#include "_backends/simd-inl.h"
#include "_backends/threads.h"
#include "softmax/simd_forward.h"

HWY_BEFORE_NAMESPACE();
namespace ulproof::HWY_NAMESPACE {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr size_t kGroup = 4 * kLanes;   // elements of one step
constexpr size_t kBlock = size_t{1} << 14;  // elements that are summed on their own
constexpr size_t kSample = 512;
constexpr size_t kAhead = 4096;  // bytes of prefetching

template <class T>
HWY_INLINE void PrefetchGroup(const T* x) {
  const char* p = reinterpret_cast<const char*>(x) + kAhead;
  for (size_t line = 0; line < kGroup * sizeof(T); line += 64) hwy::Prefetch(p + line);
}

// Each sweep is a class with Step, a group of four vectors, and Finish, the rest of the block; two blocks far apart can
// then be swept alternately.

template <class T>
class Max {
 public:
  HWY_INLINE Max(const T* x, size_t n) : x_(x), n_(n) {
    for (VF& m : max_) m = hn::Set(f32, -kInfinity);
  }
  HWY_INLINE bool More() const { return i_ + kGroup <= n_; }
  HWY_INLINE void Step() {
    PrefetchGroup(x_ + i_);
    for (size_t v = 0; v < 4; ++v) max_[v] = MaxKeepNaN(max_[v], Load(x_ + i_ + v * kLanes));
    i_ += kGroup;
  }
  HWY_INLINE double Finish() {
    for (; i_ + kLanes <= n_; i_ += kLanes) max_[0] = MaxKeepNaN(max_[0], Load(x_ + i_));
    if (i_ < n_) max_[1] = MaxKeepNaN(max_[1], LoadPart(x_ + i_, n_ - i_, -kInfinity));
    const VF all = hn::Max(hn::Max(max_[0], max_[1]), hn::Max(max_[2], max_[3]));
    return hn::GetLane(hn::MaxOfLanes(f32, all));
  }

 private:
  const T* x_;
  size_t n_, i_ = 0;
  VF max_[4];
};

// Sum, and with kStore also SumStore into e.
template <class T, bool kStore, bool kStream>
class Sum {
 public:
  HWY_INLINE Sum(const SumExponential& exponential, const T* x, float* e, size_t n)
      : exponential_(exponential), x_(x), e_(e), n_(n) {}
  HWY_INLINE bool More() const { return i_ + kGroup <= n_; }
  HWY_INLINE void Step() {
    PrefetchGroup(x_ + i_);
    const VF a = One(0), b = One(1), c = One(2), d = One(3);
    sum_.Add(hn::Add(hn::Add(a, b), hn::Add(c, d)));
    i_ += kGroup;
  }
  HWY_INLINE double Finish() {
    for (; i_ + kLanes <= n_; i_ += kLanes) sum_.Add(One(0));
    if (i_ < n_) {
      const auto v = exponential_(LoadPart(x_ + i_, n_ - i_, -kInfinity));
      if constexpr (kStore) StorePart(hn::Add(v.root, v.rest), e_ + i_, n_ - i_);
      sum_.Add(v.root), sum_.Add(v.rest);
    }
    return sum_.Total();
  }

 private:
  HWY_INLINE VF One(size_t v) {
    const auto parts = exponential_(Load(x_ + i_ + v * kLanes));
    sum_.Add(parts.root);
    if constexpr (kStore) {
      const VF e = hn::Add(parts.root, parts.rest);
      if constexpr (kStream) {
        hn::Stream(e, f32, e_ + i_ + v * kLanes);
      } else {
        Store(e, e_ + i_ + v * kLanes);
      }
    }
    return parts.rest;
  }

  const SumExponential& exponential_;
  const T* x_;
  float* e_;
  size_t n_, i_ = 0;
  DoubleSum sum_;
};

struct Inverse {
  HWY_INLINE explicit Inverse(double inverse)
      : high(hn::Set(f32, float(inverse))), low(hn::Set(f32, float(inverse - double(float(inverse))))) {}
  HWY_INLINE VF operator()(VF e) const { return hn::MulAdd(e, high, hn::Mul(e, low)); }
  VF high, low;
};

// Write (Function is Exponential, S is T) and Scale (Function is Inverse, S is float).
template <class Function, class S, class T, bool kStream>
class Map {
 public:
  HWY_INLINE Map(const Function& function, const S* x, T* y, size_t n) : function_(function), x_(x), y_(y), n_(n) {
    if constexpr (kStream) {
      constexpr size_t kBytes = kLanes * sizeof(T);
      const size_t head = std::min(n, (kBytes - reinterpret_cast<uintptr_t>(y) % kBytes) % kBytes / sizeof(T));
      Part(head);
    }
  }
  HWY_INLINE bool More() const { return i_ + kGroup <= n_; }
  HWY_INLINE void Step() {
    PrefetchGroup(x_ + i_);
    for (size_t v = 0; v < 4; ++v) {
      const VF result = function_(Load(x_ + i_ + v * kLanes));
      if constexpr (kStream) {
        Stream(result, y_ + i_ + v * kLanes);
      } else {
        Store(result, y_ + i_ + v * kLanes);
      }
    }
    i_ += kGroup;
  }
  HWY_INLINE double Finish() {
    for (; i_ + kLanes <= n_; i_ += kLanes) Store(function_(Load(x_ + i_)), y_ + i_);
    Part(n_ - i_);
    return 0.0;
  }

 private:
  HWY_INLINE void Part(size_t count) {
    if (count > 0) StorePart(function_(LoadPart(x_ + i_, count, -kInfinity)), y_ + i_, count);
    i_ += count;
  }

  const Function& function_;
  const S* x_;
  T* y_;
  size_t n_, i_ = 0;
};

// Runs a sweep over a row, block by block; `make(begin, count)` gives the sweep of a block, `done(block, result)` takes
// its result. With one thread, two blocks half a row apart are swept alternately: DRAM serves two streams better than one.
template <class Make, class Done>
HWY_INLINE void Sweep(size_t n, size_t threads, bool backward, const Make& make, const Done& done) {
  const size_t blocks = (n + kBlock - 1) / kBlock;
  const size_t half = (blocks + 1) / 2;
  const auto pair = [&](size_t task) HWY_ATTR {
    const size_t first = backward ? half - 1 - task : task;
    auto a = make(first * kBlock, std::min(kBlock, n - first * kBlock));
    const size_t second = first + half;
    if (second < blocks) {
      auto b = make(second * kBlock, std::min(kBlock, n - second * kBlock));
      while (a.More() && b.More()) a.Step(), b.Step();
      while (a.More()) a.Step();
      done(first, a.Finish());
      done(second, b.Finish());
    } else {
      while (a.More()) a.Step();
      done(first, a.Finish());
    }
  };
  if (threads > 1 && blocks > 2) {
    ThreadPool::Instance().Run(threads, half, [&](size_t task) HWY_ATTR {
      pair(task);
      hwy::FlushStream();
    });
  } else {
    for (size_t task = 0; task < half; ++task) pair(task);
  }
}

template <class T>
HWY_NOINLINE double MaxOf(const T* x, size_t n, size_t threads) {
  if (n <= kBlock) {
    Max<T> sweep(x, n);
    while (sweep.More()) sweep.Step();
    return sweep.Finish();
  }
  std::vector<double> part((n + kBlock - 1) / kBlock);
  Sweep(
      n, threads, false, [&](size_t begin, size_t count) HWY_ATTR { return Max<T>(x + begin, count); },
      [&](size_t block, double result) { part[block] = result; });
  return *std::max_element(part.begin(), part.end());
}

template <class T, bool kStore, bool kStream>
HWY_NOINLINE double SumOf(const SumExponential& exponential, const T* x, float* e, size_t n, size_t threads) {
  if (n <= kBlock) {
    Sum<T, kStore, kStream> sweep(exponential, x, e, n);
    while (sweep.More()) sweep.Step();
    return sweep.Finish();
  }
  std::vector<double> part((n + kBlock - 1) / kBlock);
  Sweep(
      n, threads, false,
      [&](size_t begin, size_t count) HWY_ATTR { return Sum<T, kStore, kStream>(exponential, x + begin, e + begin, count); },
      [&](size_t block, double result) { part[block] = result; });
  double sum = 0.0;
  for (double p : part) sum += p;
  return sum;
}

template <class Function, class S, class T, bool kStream>
HWY_NOINLINE void MapTo(const Function& function, const S* x, T* y, size_t n, size_t threads, bool backward) {
  if (n <= kBlock) {
    Map<Function, S, T, kStream> sweep(function, x, y, n);
    while (sweep.More()) sweep.Step();
    sweep.Finish();
    return;
  }
  Sweep(
      n, threads, backward,
      [&](size_t begin, size_t count) HWY_ATTR { return Map<Function, S, T, kStream>(function, x + begin, y + begin, count); },
      [](size_t, double) {});
}

template <class T>
void FillNaN(T* y, size_t n) {
  T one[kLanes];
  Store(hn::NaN(f32), one);
  std::fill(y, y + n, one[0]);
}

template <class T, Algorithm kAlgorithm, bool kStream>
HWY_NOINLINE void Row(const T* x, T* y, size_t n, size_t threads) {
  constexpr bool kSampled = kAlgorithm != Algorithm::kRecompute && kAlgorithm != Algorithm::kReload;
  constexpr bool kStored = kAlgorithm == Algorithm::kReload || kAlgorithm == Algorithm::kOnline;
  // Exponentials wait in the output, but in a buffer where they would be rounded twice or sent past the caches too early.
  static thread_local hwy::AlignedFreeUniquePtr<float[]> buffer;
  static thread_local size_t capacity = 0;
  const bool buffered = kStored && (sizeof(T) == 2 || (kStream && n <= kBlock));
  float* e = reinterpret_cast<float*>(y);
  if (buffered) {
    if (capacity < n) {
      capacity = std::max(n, kBlock);
      buffer = hwy::AllocateAligned<float>(capacity);
    }
    e = buffer.get();
  }
  [[maybe_unused]] const bool stream_sum = kStream && !buffered && reinterpret_cast<uintptr_t>(e) % (4 * kLanes) == 0;

  // What is stored is 2^25 times larger, so that every result has a normal exponential.
  constexpr double kBias = kStored ? 0x1p25 : 1.0;
  Reference reference;
  double sum = 0.0;
  const auto add = [&](double largest) HWY_ATTR {
    if (!(std::fabs(largest) <= std::numeric_limits<float>::max())) return false;
    reference = Reference::Near(float(largest));
    const SumExponential exponential(reference, kBias);
    if constexpr (kStream && kStored && sizeof(T) == 4) {
      sum = stream_sum ? SumOf<T, kStored, true>(exponential, x, e, n, threads)
                       : SumOf<T, kStored, false>(exponential, x, e, n, threads);
    } else {
      sum = SumOf<T, kStored, false>(exponential, x, e, n, threads);
    }
    sum /= SumExponential::kFactor * kBias;
    return sum < kTooLarge;
  };
  bool good = false;
  if (kSampled && n > 2 * kSample) good = add(MaxOf(x, kSample, 1));
  if (!good) good = add(MaxOf(x, n, threads));
  if (!good) return FillNaN(y, n);

  constexpr bool kBackward = kAlgorithm == Algorithm::kBackwardWalk;
  if constexpr (kStored) {
    MapTo<Inverse, float, T, kStream>(Inverse(1.0 / (sum * SumExponential::kFactor * kBias)), e, y, n, threads, kBackward);
  } else {
    MapTo<Exponential, T, T, kStream>(Exponential(reference, 1.0 / sum), x, y, n, threads, kBackward);
  }
}

template <class T, Algorithm kAlgorithm, bool kStream>
void Rows(const Job& job) {
  // Rows that are not contiguous, or not aligned to their elements, go through a copy.
  const auto awkward = [](const Strided& s) {
    const auto odd = reinterpret_cast<uintptr_t>(s.data) | uintptr_t(s.row_step) | uintptr_t(s.offsets ? s.offsets[0] : 0);
    return s.step != ptrdiff_t(sizeof(T)) || odd % sizeof(T) != 0;
  };
  const bool gather = awkward(job.x), scatter = awkward(job.y);
  const auto row = [&](size_t r, size_t threads) {
    const char* x = job.x.Row(r);
    char* y = job.y.Row(r);
    std::vector<T> from(gather ? job.n : 0), to(scatter ? job.n : 0);
    for (size_t i = 0; i < from.size(); ++i) memcpy(&from[i], x + ptrdiff_t(i) * job.x.step, sizeof(T));
    Row<T, kAlgorithm, kStream>(gather ? from.data() : reinterpret_cast<const T*>(x),
                                scatter ? to.data() : reinterpret_cast<T*>(y), job.n, threads);
    for (size_t i = 0; i < to.size(); ++i) memcpy(y + ptrdiff_t(i) * job.y.step, &to[i], sizeof(T));
  };
  if (job.threads == 1) {
    for (size_t r = 0; r < job.rows; ++r) row(r, 1);
  } else if (job.rows >= 4 * job.threads || job.n <= 2 * kBlock) {
    // Whole rows, some 64 Ki elements to a task.
    const size_t chunk = std::max<size_t>(1, std::min((size_t{1} << 16) / job.n, job.rows / (4 * job.threads)));
    ThreadPool::Instance().Run(job.threads, (job.rows + chunk - 1) / chunk, [&](size_t task) {
      for (size_t r = task * chunk; r < std::min(job.rows, (task + 1) * chunk); ++r) row(r, 1);
      hwy::FlushStream();
    });
  } else {
    for (size_t r = 0; r < job.rows; ++r) row(r, job.threads);
  }
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

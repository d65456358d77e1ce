// Sweeps over rows for the passes that read several arrays: sums and maps in steps of four vectors, the blocks a long row
// is cut into, and rows of any strides. Included once per instruction set, after foreach_target.h.
#include <hwy/cache_control.h>

#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include "_backends/simd-inl.h"
#include "_backends/threads.h"
#include "softmax/simd_passes.h"

#if defined(ULPROOF_SIMD_ROWS_INL_H) == defined(HWY_TARGET_TOGGLE)
#ifdef ULPROOF_SIMD_ROWS_INL_H
#undef ULPROOF_SIMD_ROWS_INL_H
#else
#define ULPROOF_SIMD_ROWS_INL_H
#endif

HWY_BEFORE_NAMESPACE();
namespace ulproof::HWY_NAMESPACE {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kLargest = std::numeric_limits<float>::max();
constexpr size_t kGroup = 4 * kLanes;       // elements of one step
constexpr size_t kBlock = size_t{1} << 14;  // elements that are summed on their own, whatever the number of threads

template <class T>
HWY_INLINE float GetScalar(const T* p) {
  return hn::GetLane(LoadPart(p, 1, 0.0f));
}

template <class T>
HWY_INLINE void SetScalar(float value, T* p) {
  StorePart(hn::Set(f32, value), p, 1);
}

// A value in two floats, whose sum is off by less than 2^-48 of it. The low part of an infinity is 0.
struct TwoFloats {
  explicit TwoFloats(double high_part, double low_part = 0.0) : high(float(high_part)) {
    if (std::fabs(high) <= kLargest) low = float((high_part - double(high)) + low_part);
  }
  float high, low = 0.0f;
};

// ---- sums of one array or two, block by block. Sum has Add(i), four vectors from i on, and Add(i, count), count <= kLanes.

template <class Sum>
class SumSweep {
 public:
  HWY_INLINE SumSweep(const Sum& sum, size_t n) : sum_(sum), n_(n) {}
  HWY_INLINE bool More() const { return i_ + kGroup <= n_; }
  HWY_INLINE void Step() {
    sum_.Add(i_);
    i_ += kGroup;
  }
  HWY_INLINE VD Lanes() {
    for (; i_ < n_; i_ += kLanes) sum_.Add(i_, std::min(kLanes, n_ - i_));
    return sum_.Lanes();
  }
  HWY_INLINE double Finish() { return hn::GetLane(hn::SumOfLanes(f64, Lanes())); }

 private:
  Sum sum_;
  size_t n_, i_ = 0;
};

// ---- maps. Function has operator()(VF...) for the inputs, kFill for what stands in for the elements past the end of the
// first input (0 for the others), and Top(), a number whose maximum over all elements is returned.

template <class Function, bool kStream, class T, class... Inputs>
class MapSweep {
 public:
  HWY_INLINE MapSweep(const Function& function, size_t n, T* y, const Inputs*... x)
      : function_(function), n_(n), y_(y), x_(x...) {
    if constexpr (kStream) {
      constexpr size_t kBytes = kLanes * sizeof(T);
      Part(std::min(n, (kBytes - reinterpret_cast<uintptr_t>(y) % kBytes) % kBytes / sizeof(T)));
    }
  }
  HWY_INLINE bool More() const { return i_ + kGroup <= n_; }
  HWY_INLINE void Step() {
    for (size_t v = 0; v < 4; ++v, i_ += kLanes) {
      const VF result = Whole();
      if constexpr (kStream) {
        Stream(result, y_ + i_);
      } else {
        Store(result, y_ + i_);
      }
    }
  }
  HWY_INLINE double Finish() {
    for (; i_ + kLanes <= n_; i_ += kLanes) Store(Whole(), y_ + i_);
    Part(n_ - i_);
    return function_.Top();
  }

 private:
  // Not std::apply: it is compiled without this instruction set, so nothing that uses vectors is inlined into it.
  using Indices = std::index_sequence_for<Inputs...>;
  template <size_t... kIndex>
  HWY_INLINE VF WholeOf(std::index_sequence<kIndex...>) {
    return function_(Load(std::get<kIndex>(x_) + i_)...);
  }
  template <size_t... kIndex>
  HWY_INLINE VF PartOf(std::index_sequence<kIndex...>, size_t count) {
    return function_(LoadPart(std::get<kIndex>(x_) + i_, count, kIndex == 0 ? Function::kFill : 0.0f)...);
  }
  HWY_INLINE VF Whole() { return WholeOf(Indices()); }
  HWY_INLINE void Part(size_t count) {
    if (count == 0) return;
    StorePart(PartOf(Indices(), count), y_ + i_, count);
    i_ += count;
  }

  Function function_;
  size_t n_;
  T* y_;
  std::tuple<const Inputs*...> x_;
  size_t i_ = 0;
};

// Runs a sweep over a row, block by block; make(begin, count) gives the sweep of a block, done(block, result) takes its
// result. (Two blocks far apart at a time, which suits some machines' DRAM, gained nothing here.)
template <class Make, class Done>
HWY_INLINE void SweepBlocks(size_t n, size_t threads, const Make& make, const Done& done) {
  const size_t blocks = (n + kBlock - 1) / kBlock;
  const auto one = [&](size_t block) HWY_ATTR {
    auto sweep = make(block * kBlock, std::min(kBlock, n - block * kBlock));
    while (sweep.More()) sweep.Step();
    done(block, sweep.Finish());
  };
  if (threads == 1) {
    for (size_t block = 0; block < blocks; ++block) one(block);
  } else {
    ThreadPool::Instance().Run(threads, blocks, [&](size_t block) HWY_ATTR {
      one(block);
      hwy::FlushStream();
    });
  }
}

// The sum over a row; make(begin) gives the Sum that starts there.
template <class Make>
HWY_INLINE double SumRow(size_t n, size_t threads, const Make& make) {
  using Sum = decltype(make(size_t{0}));
  const auto sweep = [&](size_t begin, size_t count) HWY_ATTR { return SumSweep<Sum>(make(begin), count); };
  if (n <= kBlock) {
    auto only = sweep(0, n);
    while (only.More()) only.Step();
    return only.Finish();
  }
  std::vector<double> parts((n + kBlock - 1) / kBlock);
  SweepBlocks(n, threads, sweep, [&](size_t block, double part) { parts[block] = part; });
  double sum = 0.0;
  for (const double part : parts) sum += part;
  return sum;
}

// Maps a row of inputs to y; returns the largest Top().
template <bool kStream, class Function, class T, class... Inputs>
HWY_INLINE double MapRow(const Function& function, size_t n, size_t threads, T* y, const Inputs*... x) {
  using Sweep = MapSweep<Function, kStream, T, Inputs...>;
  const auto sweep = [&](size_t begin, size_t count)
                         HWY_ATTR { return Sweep(function, count, y + begin, (x + begin)...); };
  if (n <= kBlock) {
    auto only = sweep(0, n);
    while (only.More()) only.Step();
    return only.Finish();
  }
  std::vector<double> tops((n + kBlock - 1) / kBlock);
  SweepBlocks(n, threads, sweep, [&](size_t block, double top) { tops[block] = top; });
  return *std::max_element(tops.begin(), tops.end());
}

// ---- rows of any strides

// A row of up to kShort vectors stays in registers: one of so many vectors, and what fills it up.
constexpr size_t kShort = 4;

template <size_t kCount, class T>
HWY_INLINE void LoadRow(const T* x, size_t n, float fill, VF (&v)[kCount]) {
  for (size_t k = 0; k + 1 < kCount; ++k) v[k] = Load(x + k * kLanes);
  const size_t last = (kCount - 1) * kLanes;
  v[kCount - 1] = n == kCount * kLanes ? Load(x + last) : LoadPart(x + last, n - last, fill);
}

template <size_t kCount, class T>
HWY_INLINE void StoreRow(const VF (&v)[kCount], T* y, size_t n) {
  for (size_t k = 0; k + 1 < kCount; ++k) Store(v[k], y + k * kLanes);
  const size_t last = (kCount - 1) * kLanes;
  if (n == kCount * kLanes) {
    Store(v[kCount - 1], y + last);
  } else {
    StorePart(v[kCount - 1], y + last, n - last);
  }
}

// The lanes of a Sum over a row of at most a block.
template <class Sum>
HWY_INLINE VD SumLanes(const Sum& sum, size_t n) {
  SumSweep<Sum> sweep(sum, n);
  while (sweep.More()) sweep.Step();
  return sweep.Lanes();
}

// Maps a row of at most a block; returns its Top().
template <bool kStream, class Function, class T, class... Inputs>
HWY_INLINE double MapBlock(const Function& function, size_t n, T* y, const Inputs*... x) {
  MapSweep<Function, kStream, T, Inputs...> sweep(function, n, y, x...);
  while (sweep.More()) sweep.Step();
  return sweep.Finish();
}

// The sums of the lanes of two vectors, in SumOfLanes's order.
HWY_INLINE void AddUp(VD a, VD b, double (&sums)[2]) {
  const hn::FixedTag<double, 2> two;
  const auto fold = [](auto v) HWY_ATTR {
    return hn::Add(hn::LowerHalf(v), hn::UpperHalf(hn::Half<hn::DFromV<decltype(v)>>(), v));
  };
  const auto folded = [&](auto v) HWY_ATTR {  // a template, so that what a narrower vector can't do is not compiled
    if constexpr (kLanes == 16) {
      return fold(fold(v));
    } else if constexpr (kLanes == 8) {
      return fold(v);
    } else {
      return v;
    }
  };
  const auto first = folded(a), second = folded(b);
  hn::StoreU(hn::Add(hn::InterleaveLower(two, first, second), hn::InterleaveUpper(two, first, second)), two, sums);
}

// What EachRow does with rows that are not long: kPairs two at a time, up to kMedium elements, or one at a time, up to a block.
enum class Short { kNone, kPairs, kAlone };
struct NoShort {
  static constexpr Short kShorts = Short::kNone;
};
constexpr size_t kMedium = 256;  // elements up to which rows are taken in pairs; beyond, two rows at once are slower

// Calls row(inputs, output, threads) for every row, or shorts.Pair<kCount>(inputs, outputs, count, n) for two short ones, of
// which the second counts only where count is 2: they hide each other's latencies. kCount is the number of vectors where a
// row fits into registers, and otherwise 0. Where Pair returns false for a row alone, row is called too. The first `kVectors`
// inputs, and the output where kVectorOutput, hold whole rows, the others one element of each; where one of them is not
// contiguous, copies are used. shorts.Alone(inputs, output, n) takes a row of up to a block: a small function, for short rows.
template <class T, size_t kVectors, bool kVectorOutput, class Row, class Shorts = NoShort>
void EachRow(const Pass& pass, const Row& row, const Shorts& shorts = {}) {
  constexpr bool kPairs = Shorts::kShorts == Short::kPairs;
  const auto contiguous = [&](const Strided& array) { return array.step == ptrdiff_t(sizeof(T)) || pass.n == 1; };
  bool copy = kVectorOutput && !contiguous(pass.output);
  for (size_t k = 0; k < kVectors; ++k) copy = copy || !contiguous(pass.inputs[k]);
  const auto each = [&](const Pass& part, size_t begin, size_t end, const auto& one) HWY_ATTR {
    for (size_t r = begin; r < end; ++r) {
      const T* inputs[kInputs];
      for (size_t k = 0; k < kInputs; ++k) inputs[k] = reinterpret_cast<const T*>(part.inputs[k].Row(r));
      T* output = reinterpret_cast<T*>(part.output.Row(r));
      one(inputs, output);
    }
  };
  const auto pairs = [&](const Pass& part, size_t begin, size_t end, auto vectors) HWY_ATTR {
    const Pass local = part;  // which no store can change
    size_t singles = 0;  // rows to take alone, so that no row depends on its neighbour
    for (size_t r = begin; r < end;) {
      const size_t count = singles ? 1 : std::min<size_t>(2, end - r);
      const T* inputs[2][kInputs];
      T* outputs[2];
      for (size_t i = 0; i < 2; ++i) {
        const size_t one = i < count ? r + i : r;
        for (size_t k = 0; k < kInputs; ++k) inputs[i][k] = reinterpret_cast<const T*>(local.inputs[k].Row(one));
        outputs[i] = reinterpret_cast<T*>(local.output.Row(one));
      }
      if (!shorts.template Pair<decltype(vectors)::value>(inputs, outputs, count, local.n)) {
        if (count == 2) {
          singles = 2;
          continue;
        }
        row(inputs[0], outputs[0], 1);
      }
      r += count;
      if (singles) --singles;
    }
  };
  const auto in_place = [&](const Pass& part, size_t begin, size_t end, size_t threads) HWY_ATTR {
    const size_t vectors = (part.n + kLanes - 1) / kLanes;
    if (Shorts::kShorts == Short::kNone || part.n > (kPairs ? kMedium : kBlock)) {
      each(part, begin, end, [&](const T** inputs, T* output) HWY_ATTR { row(inputs, output, threads); });
    } else if constexpr (Shorts::kShorts == Short::kAlone) {
      const size_t n = part.n;
      each(part, begin, end, [&](const T** inputs, T* output) HWY_ATTR { shorts.Alone(inputs, output, n); });
    } else if constexpr (kPairs) {
      if (Shorts::kStreams || vectors > kShort) {
        pairs(part, begin, end, std::integral_constant<size_t, 0>());
      } else if constexpr (!Shorts::kStreams) {
        if (vectors == 1) pairs(part, begin, end, std::integral_constant<size_t, 1>());
        if (vectors == 2) pairs(part, begin, end, std::integral_constant<size_t, 2>());
        if (vectors == 3) pairs(part, begin, end, std::integral_constant<size_t, 3>());
        if (vectors == 4) pairs(part, begin, end, std::integral_constant<size_t, 4>());
      }
    }
    hwy::FlushStream();
  };
  const auto copied = [&](const T** inputs, T* output, size_t threads) {
    std::vector<T> copies[kVectors], result(pass.n);
    Pass one = pass;
    for (size_t k = 0; k < kInputs; ++k) one.inputs[k] = Strided{reinterpret_cast<char*>(const_cast<T*>(inputs[k]))};
    for (size_t k = 0; k < kVectors; ++k) {
      copies[k].resize(pass.n);
      const char* data = one.inputs[k].data;
      for (T& element : copies[k]) memcpy(&element, data, sizeof(T)), data += pass.inputs[k].step;
      one.inputs[k].data = reinterpret_cast<char*>(copies[k].data());
    }
    one.output = Strided{reinterpret_cast<char*>(result.data())};
    in_place(one, 0, 1, threads);
    char* data = reinterpret_cast<char*>(output);
    for (size_t i = 0; i < (kVectorOutput ? pass.n : 1); ++i, data += pass.output.step) memcpy(data, &result[i], sizeof(T));
  };
  const auto rows = [&](size_t begin, size_t end, size_t threads) HWY_ATTR {
    if (!copy) return in_place(pass, begin, end, threads);
    each(pass, begin, end, [&](const T** inputs, T* output) HWY_ATTR { copied(inputs, output, threads); });
  };
  if (pass.threads == 1 || (pass.rows < 4 * pass.threads && pass.n > 2 * kBlock)) return rows(0, pass.rows, pass.threads);
  // Whole rows, some 64 Ki elements to a task.
  const size_t most = std::max<size_t>(1, pass.rows / (4 * pass.threads));
  const size_t chunk = std::clamp<size_t>((size_t{1} << 16) / pass.n, 1, most);
  ThreadPool::Instance().Run(pass.threads, (pass.rows + chunk - 1) / chunk, [&](size_t task) {
    rows(task * chunk, std::min(pass.rows, (task + 1) * chunk), 1);
  });
}

}  // namespace
}  // namespace ulproof::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif  // ULPROOF_SIMD_ROWS_INL_H

// Sweeps over rows for the passes that read several arrays: sums and maps in steps of four vectors, the blocks a long row
// is cut into, and rows of any strides. Included once per instruction set, after foreach_target.h.
#include <hwy/cache_control.h>

#include <iterator>
#include <type_traits>
#include <vector>

#include "softmax/simd_blocks-inl.h"
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

template <class T>
HWY_INLINE float GetScalar(const T* p) {
  if constexpr (sizeof(T) == 2) return hn::GetLane(LoadPart(p, 1, 0.0f));
  float value;
  memcpy(&value, p, sizeof(value));
  return value;
}

template <class T>
HWY_INLINE void SetScalar(float value, T* p) {
  if constexpr (sizeof(T) == 2) {
    StorePart(hn::Set(f32, value), p, 1);
  } else {
    memcpy(p, &value, sizeof(value));
  }
}

// A value in two floats, whose sum is off by less than 2^-48 of it. The low part of an infinity is 0.
struct TwoFloats {
  explicit TwoFloats(double high_part, double low_part = 0.0) : high(float(high_part)) {
    if (std::fabs(high) <= kLargest) low = float((high_part - double(high)) + low_part);
  }
  TwoFloats(float high_part, float low_part) : high(high_part), low(low_part) {}
  float high, low = 0.0f;
};

// ---- sums in double of four lanes, whatever the instruction set: floats are converted as they are loaded, which is faster than
// from a wide vector. Short rows are taken some at a time: what is made of their sums is made in vectors with a lane a row.

using Quad = hn::CappedTag<double, 4>;
using QuadF32 = hn::Rebind<float, Quad>;
using VQ = hn::Vec<Quad>;
inline constexpr Quad quad;
inline constexpr QuadF32 quad_f32;
constexpr size_t kQuad = hn::MaxLanes(Quad());

HWY_INLINE VQ LoadQuad(const float* p) { return hn::PromoteTo(quad, hn::LoadU(quad_f32, p)); }
HWY_INLINE VQ LoadQuad(const float* p, size_t count) {
  return hn::PromoteTo(quad, hn::MaskedLoad(hn::FirstN(quad_f32, count), quad_f32, p));
}

template <class V>
HWY_INLINE VQ ToQuad(V v) {
  if constexpr (hn::MaxLanes(hn::DFromV<V>()) > kQuad) {
    return hn::Add(hn::LowerHalf(v), hn::UpperHalf(quad, v));
  } else {
    return v;
  }
}

// A number for each of some rows.
template <size_t kRows>
struct PerRow {
  VQ quads[(kRows + kQuad - 1) / kQuad];

  template <class Function>
  HWY_INLINE PerRow Each(const Function& function) const {
    PerRow result;
    for (size_t i = 0; i < std::size(quads); ++i) result.quads[i] = function(quads[i]);
    return result;
  }
  template <class Predicate>
  HWY_INLINE bool All(const Predicate& predicate) const {
    bool all = true;
    for (const VQ& v : quads) all = all && predicate(v);
    return all;
  }
};

// The sums of the lanes of `rows`, which are of the same bits whatever their number is.
template <size_t kRows>
HWY_INLINE PerRow<kRows> AddUp(const VQ (&rows)[kRows]) {
  const auto two = [](VQ a, VQ b) HWY_ATTR { return hn::Add(hn::InterleaveLower(quad, a, b), hn::InterleaveUpper(quad, a, b)); };
  PerRow<kRows> sums;
  for (size_t r = 0; r < kRows; r += kQuad) {
    const VQ first = two(rows[r], rows[(r + 1) % kRows]);
    if constexpr (kQuad == 2) {
      sums.quads[r / kQuad] = first;
    } else {
      const VQ second = two(rows[(r + 2) % kRows], rows[(r + 3) % kRows]);
      sums.quads[r / kQuad] = hn::Add(hn::ConcatLowerLower(quad, second, first), hn::ConcatUpperUpper(quad, second, first));
    }
  }
  return sums;
}

// A number for each of some rows, rounded to float.
template <size_t kRows>
class FloatPerRow {
 public:
  HWY_INLINE explicit FloatPerRow(const PerRow<kRows>& v) {
    for (size_t i = 0; i < std::size(v.quads); ++i) hn::Store(hn::DemoteTo(quad_f32, v.quads[i]), quad_f32, value_ + i * kQuad);
  }
  HWY_INLINE float operator[](size_t row) const { return value_[row]; }

 private:
  HWY_ALIGN float value_[kRows + kQuad - 1];
};

template <size_t kRows>
class TwoFloatsPerRow {
 public:
  HWY_INLINE explicit TwoFloatsPerRow(const PerRow<kRows>& v) : high_(v), low_(v.Each(Low)) {}
  HWY_INLINE TwoFloats operator[](size_t row) const { return {high_[row], low_[row]}; }

 private:
  static HWY_INLINE VQ Low(VQ v) {
    const auto high = hn::PromoteTo(quad, hn::DemoteTo(quad_f32, v));
    return hn::IfThenElseZero(hn::IsFinite(high), hn::Sub(v, high));
  }
  const FloatPerRow<kRows> high_, low_;
};

// ---- sweeps over a row of at most a block

// Sum has Add(i), four vectors from i on, Add(i, count), count <= kLanes, and Lanes(), to be added.
template <class Sum>
HWY_INLINE VQ SumBlock(Sum sum, size_t n) {
  size_t i = 0;
  for (; i + kGroup <= n; i += kGroup) sum.Add(i);
  for (; i + kLanes <= n; i += kLanes) sum.Add(i, kLanes);
  if (i < n) sum.Add(i, n - i);
  return sum.Lanes();
}

// Function has operator()(VF...) for the inputs, and kFill for what stands in for elements past the end. (No lambda captures
// it: its constants would be read from memory for every vector.)
template <class Function, class... Inputs>
HWY_INLINE VF MapOne(Function& function, size_t i, const Inputs*... x) {
  return function(Load(x + i)...);
}

template <class Function, class T, class... Inputs>
HWY_INLINE void MapPart(Function& function, size_t i, size_t count, T* y, const Inputs*... x) {
  if (count > 0) StorePart(function(LoadPart(x + i, count, Function::kFill)...), y + i, count);
}

template <size_t ways, bool kStream, class Function, class T, class... Inputs>
HWY_INLINE void MapBlock(Function& function, size_t n, T* y, const Inputs*... x) {
  size_t i = 0;
  const auto part = [&](size_t count) HWY_ATTR {
    for (size_t at = i; at < i + ways * kApart; at += kApart) MapPart(function, at, count, y, x...);
    i += count;
  };
  if constexpr (kStream) part(std::min(n, (kLanes - Offset(y)) % kLanes));
  for (; i + kGroup <= n; i += kGroup) {
    for (size_t at = i; at < i + ways * kApart; at += kApart) {
      for (size_t v = at; v < at + kGroup; v += kLanes) {
        const VF result = MapOne(function, v, x...);
        Put<kStream>(result, y + v);
      }
    }
  }
  for (; i + kLanes <= n; i += kLanes) {
    for (size_t at = i; at < i + ways * kApart; at += kApart) Store(MapOne(function, at, x...), y + at);
  }
  part(n - i);
}

// ---- sweeps over a row, block by block

// The sum over a row; make(begin) gives the Sum that starts there.
template <class Make>
HWY_INLINE double SumRow(size_t n, size_t threads, const Make& make) {
  const auto total = [](VQ lanes) HWY_ATTR {
    const VQ rows[] = {lanes};
    return hn::GetLane(AddUp(rows).quads[0]);
  };
  if (n <= kBlock) return total(SumBlock(make(0), n));
  std::vector<double> parts((n + kBlock - 1) / kBlock);
  EachBlocks<kWays>(n, threads, false, [&](size_t begin, size_t count, auto ways) HWY_ATTR {
    if constexpr (ways() == 1) {
      parts[begin / kBlock] = total(SumBlock(make(begin), count));
    } else {
      auto first = make(begin), second = make(begin + kApart);
      for (size_t i = 0; i < kBlock; i += kGroup) first.Add(i), second.Add(i);
      parts[begin / kBlock] = total(first.Lanes()), parts[(begin + kApart) / kBlock] = total(second.Lanes());
    }
  });
  double sum = 0.0;
  for (const double part : parts) sum += part;
  return sum;
}

// Maps a row of inputs to y; returns the largest Top() of the function, which has seen a block of it.
template <bool kStream, class Function, class T, class... Inputs>
HWY_INLINE double MapRow(const Function& function, size_t n, size_t threads, T* y, const Inputs*... x) {
  const auto map = [&](size_t begin, size_t count, auto ways) HWY_ATTR {
    Function own = function;
    MapBlock<ways(), kStream>(own, count, y + begin, (x + begin)...);
    return own.Top();
  };
  if (n <= kBlock) return map(0, n, Ways<1>());
  std::vector<double> tops((n + kBlock - 1) / kBlock, -std::numeric_limits<double>::infinity());
  EachBlocks<kWays>(n, threads, false, [&](size_t begin, size_t count, auto ways) HWY_ATTR {
    tops[begin / kBlock] = map(begin, count, ways);
  });
  return *std::max_element(tops.begin(), tops.end());
}

// ---- rows of any strides

// Up to so many elements rows are taken eight (of four lanes), or else four, at a time: they hide each other's latencies, and
// what is read twice is still in the first-level cache.
constexpr size_t kShort = 128, kMedium = 256;

// Some rows of n elements: a size_t, or a constant, for which sweeps are unrolled.
template <class T, size_t kRows, class N>
class Rows {
 public:
  static constexpr size_t kCount = kRows;
  const N n;

  HWY_INLINE Rows(const Pass& pass, size_t r, N length) : n(length), output_(pass.output.Row(r)), step_(pass.output.row_step) {
    for (size_t k = 0; k < kInputs; ++k) inputs_[k] = pass.inputs[k].Row(r), steps_[k] = pass.inputs[k].row_step;
  }
  HWY_INLINE const T* Input(size_t r, size_t k = 0) const {
    return reinterpret_cast<const T*>(inputs_[k] + ptrdiff_t(r) * steps_[k]);
  }
  HWY_INLINE T* Output(size_t r) const { return reinterpret_cast<T*>(output_ + ptrdiff_t(r) * step_); }
  // make(r) gives a row's Sum.
  template <class Make>
  HWY_INLINE PerRow<kRows> Sums(const Make& make) const {
    VQ sums[kRows];
    for (size_t r = 0; r < kRows; ++r) sums[r] = SumBlock(make(r), n);
    return AddUp(sums);
  }

 private:
  const char* inputs_[kInputs];
  char* output_;
  ptrdiff_t steps_[kInputs], step_;
};

// Calls row(inputs, output, threads) for every row, or together(Rows) for short ones. That returns false where one of the rows
// needs the other way, and then each is taken alone, so that none depends on its neighbours. The first `kVectors` inputs, and
// the output where kVectorOutput, hold whole rows, the others one element of each; where one of them is not contiguous, copies
// are used. Where memory binds, and of 16 bits, sweeps are not unrolled for a row's length: they took half the build.
template <class T, size_t kVectors, bool kVectorOutput, bool kStream, class Row, class Together>
void EachRow(const Pass& pass, const Row& row, const Together& together) {
  const auto contiguous = [&](const Strided& array) { return array.step == ptrdiff_t(sizeof(T)) || pass.n == 1; };
  bool copy = kVectorOutput && !contiguous(pass.output), scattered = pass.output.offsets;
  for (size_t k = 0; k < kVectors; ++k) copy = copy || !contiguous(pass.inputs[k]);
  for (const Strided& input : pass.inputs) scattered = scattered || input.offsets;
  const auto each = [&](const Pass& part, size_t begin, size_t end, const auto& one) HWY_ATTR {
    for (size_t r = begin; r < end; ++r) {
      const T* inputs[kInputs];
      for (size_t k = 0; k < kInputs; ++k) inputs[k] = reinterpret_cast<const T*>(part.inputs[k].Row(r));
      one(inputs, reinterpret_cast<T*>(part.output.Row(r)));
    }
  };
  const auto in_place = [&](const Pass& part, size_t begin, size_t end, size_t threads) HWY_ATTR {
    const Pass local = part;  // which no store can change
    const auto alone = [&](const T** inputs, T* output) HWY_ATTR { row(inputs, output, threads); };
    size_t r = begin, singles = scattered ? end - begin : 0;
    // `count` rows at a time until fewer are left, or until some need another way.
    const auto groups = [&](auto count, auto n) HWY_ATTR {
      while (singles == 0 && end - r >= count()) {
        if (together(Rows<T, count(), decltype(n)>(local, r, n))) {
          r += count();
        } else {
          singles = count();
        }
      }
    };
    constexpr std::integral_constant<size_t, kQuad> four;
    constexpr std::integral_constant<size_t, 2 * kQuad> eight;
    if (local.n > kMedium) {
      each(local, begin, end, alone);
      r = end;
    }
    while (r < end) {
      if constexpr (!kStream && sizeof(T) == 4) {
        switch (local.n) {
          case 16: groups(eight, std::integral_constant<size_t, 16>()); break;
          case 32: groups(eight, std::integral_constant<size_t, 32>()); break;
          case 64: groups(eight, std::integral_constant<size_t, 64>()); break;
          case 128: groups(eight, std::integral_constant<size_t, 128>()); break;
        }
      }
      if constexpr (!kStream) {
        if (local.n <= kShort) groups(eight, local.n);
      }
      groups(four, local.n);
      do {
        if (r == end) break;
        if (!together(Rows<T, 1, size_t>(local, r, local.n))) each(local, r, r + 1, alone);
        ++r;
      } while (singles && --singles);
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

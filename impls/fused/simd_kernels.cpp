// Activations fused with a bias before them or a count of zeros after them. Rows are taken kRows at a time; a column's sum is in
// float within these and in double, in order, over all of them, so that it is the same for every number of threads. Beyond the
// caches four are taken side by side, so far apart that the prefetchers follow each: what belongs to a column is loaded once for
// four. (Neighbours confuse the prefetchers; strips of columns that stay in the first cache were slower: memory likes whole
// rows.)
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "fused/simd_kernels.cpp"
#include <hwy/foreach_target.h>

#include <hwy/aligned_allocator.h>

#include <algorithm>
#include <type_traits>

#include "_backends/activations-inl.h"
#include "_backends/rowwise-inl.h"

HWY_BEFORE_NAMESPACE();
namespace ulproof::HWY_NAMESPACE {
namespace {

constexpr size_t kMostInputs = 2, kRows = 32;
constexpr size_t kPlaces = 4;             // rows that are taken side by side
constexpr size_t kFar = size_t{1} << 18;  // elements that they are apart, about; long rows more
constexpr size_t kLine = 64;              // bytes of a cache line

// y = f(x + bias). With kBias, in[0] is x + bias already.
template <class F>
struct BiasForward {
  static constexpr size_t kInputs = 1;
  static constexpr bool kBias = true, kSums = false;
  static constexpr bool kTwoWays = std::is_base_of_v<UsualIfNear, F>;  // gelu's bound is so near that groups often exceed it
  explicit BiasForward(const Arguments& arguments) : f(arguments) {}
  HWY_INLINE VF operator()(const VF* in, VF&) const { return f(in[0]); }
  HWY_INLINE auto Unusual(const VF* in) const { return f.Unusual(in[0]); }
  HWY_INLINE VF Usual(const VF* in, VF&) const { return f.Usual(in[0]); }
  F f;
};

// dx = dy f'(x + bias), summed over the rows too
template <class F>
struct BiasBackward {
  static constexpr size_t kInputs = 2;
  static constexpr bool kBias = true, kSums = true;
  static constexpr bool kTwoWays = std::is_base_of_v<UsualIfNear, F>;
  explicit BiasBackward(const Arguments& arguments) : f(arguments) {}
  HWY_INLINE VF operator()(const VF* in, VF& sum) const {
    const VF dx = f.Slope(in[0], in[1]);
    sum = hn::Add(sum, dx);
    return dx;
  }
  HWY_INLINE auto Unusual(const VF* in) const { return f.UnusualSlope(in[0], in[1]); }
  HWY_INLINE VF Usual(const VF* in, VF& sum) const {
    const VF dx = f.UsualSlope(in[0], in[1]);
    sum = hn::Add(sum, dx);
    return dx;
  }
  F f;
};

// y = f(x), its zeros counted
template <class F>
struct ZerosForward {
  static constexpr size_t kInputs = 1;
  static constexpr bool kBias = false, kSums = true;
  static constexpr bool kTwoWays = false;
  explicit ZerosForward(const Arguments& arguments) : f(arguments) {}
  HWY_INLINE VF operator()(const VF* in, VF& count) const {
    const VF y = f(in[0]);
    count = hn::Add(count, hn::IfThenElseZero(hn::Eq(y, hn::Zero(f32)), Set(1.0f)));
    return y;
  }
  F f;
};

template <class F>
struct ZerosBackward {
  static constexpr size_t kInputs = 2;
  static constexpr bool kBias = false, kSums = false;
  static constexpr bool kTwoWays = false;
  explicit ZerosBackward(const Arguments& arguments) : f(arguments) {}
  HWY_INLINE VF operator()(const VF* in, VF&) const { return f.Slope(in[0], in[1]); }
  F f;
};

template <class Op>
HWY_INLINE VF Usual(const Op& op, const VF* in, VF& sum) {
  if constexpr (Op::kTwoWays) {
    return op.Usual(in, sum);
  } else {
    return op(in, sum);
  }
}

// Some rows at once, so that what belongs to a column is loaded and stored once for all of them. With kPast their outputs
// are equally far from a boundary of vectors.
template <size_t kCount, bool kPast, class Op, class T>
HWY_NOINLINE ULPROOF_INTERLEAVED void SomeRows(const Sweep& sweep, const T* const (*from_rows)[kMostInputs], T* const* to_rows,
                                               const float* bias, float* columns) {
  const Op op(Arguments{nullptr, sweep.scalars, 0});
  const size_t n = sweep.n;
  const T* in[kCount][Op::kInputs];
  T* out[kCount];
  for (size_t r = 0; r < kCount; ++r) {
    std::copy(from_rows[r], from_rows[r] + Op::kInputs, in[r]);
    out[r] = to_rows[r];
  }
  const auto step = [&](size_t i, size_t count) ULPROOF_EACH {
    const VF shift = Op::kBias ? LoadUpTo(bias + i, count) : hn::Zero(f32);
    VF sum = Op::kSums ? LoadUpTo(columns + i, count) : hn::Zero(f32);
    for (size_t r = 0; r < kCount; ++r) {
      VF from[Op::kInputs];
      for (size_t k = 0; k < Op::kInputs; ++k) {
        from[k] = LoadUpTo(in[r][k] + i, count);
      }
      if constexpr (Op::kBias) from[0] = hn::Add(from[0], shift);
      const VF y = op(from, sum);
      if (count < kLanes) {
        StorePart(y, out[r] + i, count);
      } else {
        Put<kPast>(y, out[r] + i);
      }
    }
    if (Op::kSums && count < kLanes) StorePart(sum, columns + i, count);
    if (Op::kSums && count == kLanes) Store(sum, columns + i);
  };
  const auto part = [&step](size_t i, size_t count) HWY_ATTR __attribute__((noinline)) { step(i, count); };
  size_t i = kPast ? std::min(n, (kLanes - Offset(out[0])) % kLanes) : 0;
  if (i > 0) part(0, i);
  if constexpr (kPast) {  // whole lines: of one that is begun at several places, memory may get halves
    for (; reinterpret_cast<uintptr_t>(out[0] + i) % kLine != 0 && i + kLanes <= n; i += kLanes) part(i, kLanes);
  }
  // A line at each place; with two ways of computing, more vectors together.
  constexpr size_t kOfLine = kCount > 1 ? std::max<size_t>(1, 16 / kLanes) : 1;
  constexpr size_t kEach = std::max<size_t>(kOfLine, !Op::kTwoWays ? 1 : kCount > 1 ? 2 : 4);
  for (; kCount * kEach > 1 && i + kEach * kLanes <= n; i += kEach * kLanes) {
    VF from[kCount][kEach][Op::kInputs];
    [[maybe_unused]] Lanes unusual = hn::Zero(i32);
    for (size_t v = 0; v < kEach; ++v) {
      const size_t at = i + v * kLanes;
      const VF shift = Op::kBias ? Load(bias + at) : hn::Zero(f32);
      for (size_t r = 0; r < kCount; ++r) {
        for (size_t k = 0; k < Op::kInputs; ++k) from[r][v][k] = Load(in[r][k] + at);
        if constexpr (Op::kBias) from[r][v][0] = hn::Add(from[r][v][0], shift);
        if constexpr (Op::kTwoWays) unusual = hn::Or(unusual, op.Unusual(from[r][v]));
      }
    }
    if constexpr (Op::kTwoWays) {
      if (HWY_UNLIKELY(!None(unusual))) {
        for (size_t v = 0; v < kEach; ++v) part(i + v * kLanes, kLanes);
        continue;
      }
    }
    for (size_t line = 0; line < kEach; line += kOfLine) {
      VF sum[kOfLine];
      for (size_t v = 0; v < kOfLine; ++v) sum[v] = Op::kSums ? Load(columns + i + (line + v) * kLanes) : hn::Zero(f32);
      for (size_t r = 0; r < kCount; ++r) {
        for (size_t v = 0; v < kOfLine; ++v) {
          Put<kPast>(Usual(op, from[r][line + v], sum[v]), out[r] + i + (line + v) * kLanes);
        }
      }
      for (size_t v = 0; Op::kSums && v < kOfLine; ++v) Store(sum[v], columns + i + (line + v) * kLanes);
    }
  }
  for (; i + kLanes <= n; i += kLanes) step(i, kLanes);
  if (i < n) part(i, n - i);
}

// What the walk over rows of T must know of an Op.
template <class T>
struct RowKernels {
  using Kernel = void(const Sweep&, const T* const (*)[kMostInputs], T* const*, const float*, float*);
  size_t inputs;
  bool biased, sums;
  Kernel *one, *one_past, *side_by_side;
};

template <class T>
HWY_NOINLINE void RunRows(const Sweep& sweep, const RowKernels<T>& op) {
  const size_t n = sweep.n;
  // Of each span of kPlaces * far rows, those are taken side by side that are `far` apart.
  constexpr size_t kTurns = kRows / kPlaces;
  const size_t far = sweep.past && n > 0 ? std::max<size_t>(1, kFar / n / kTurns) * kTurns : 0, span = kPlaces * far;
  const size_t placed = far > 0 ? sweep.rows / span * span : 0, placed_tasks = placed / kRows;
  const size_t tasks = placed_tasks + (sweep.rows - placed + kRows - 1) / kRows;
  CloseRow<float> biases(sweep.learned[0].where, op.biased ? n : 0);
  const float* bias = op.biased ? biases.Read(0) : nullptr;
  const bool several = sweep.threads > 1 && tasks > 1;
  // Columns are as far from a boundary of vectors as outputs.
  const size_t width = (n + 2 * kLanes - 1) / kLanes * kLanes;
  const auto sums = hwy::AllocateAligned<float>(op.sums ? (several ? tasks : 1) * width : 1);
  const auto columns_of = [&](size_t task) {
    return op.sums ? sums.get() + task * width + Offset(reinterpret_cast<const T*>(sweep.outputs[0].Row(0))) : nullptr;
  };
  std::vector<double> totals(op.sums ? n : 0);
  const auto add_up = [&](const float* columns) {
    for (size_t j = 0; j < totals.size(); ++j) totals[j] += double(columns[j]);
  };
  const auto task = [&](size_t index) HWY_ATTR {
    std::vector<CloseRow<T>> in;
    for (size_t k = 0; k < op.inputs; ++k) in.emplace_back(sweep.inputs[k], n);
    CloseRow<T> out(sweep.outputs[0], n);
    bool close = out.Close();
    for (const CloseRow<T>& each : in) close = close && each.Close();
    float* columns = columns_of(several ? index : 0);
    if (op.sums) std::fill(columns, columns + n, 0.0f);
    const bool apart = index < placed_tasks;
    const size_t each = std::max<size_t>(1, far / kTurns);  // tasks a span
    const size_t begin = apart ? index / each * span + index % each * kTurns : placed + (index - placed_tasks) * kRows;
    const size_t end = apart ? begin + kTurns : std::min(sweep.rows, begin + kRows), places = apart ? kPlaces : 1;
    for (size_t row = begin; row < end; ++row) {
      const T* from[kPlaces][kMostInputs];
      T* to[kPlaces];
      bool alike = apart && close;
      for (size_t p = 0; alike && p < kPlaces; ++p) {
        to[p] = out.Write(row + p * far);
        alike = Offset(to[p]) == Offset(to[0]);
        for (size_t k = 0; k < op.inputs; ++k) from[p][k] = in[k].Read(row + p * far);
      }
      if (alike) {
        op.side_by_side(sweep, from, to, bias, columns);
        continue;
      }
      for (size_t p = 0; p < places; ++p) {
        const size_t place = row + p * far;
        const T* from[1][kMostInputs];
        T* to[1] = {out.Write(place)};
        for (size_t k = 0; k < op.inputs; ++k) from[0][k] = in[k].Read(place);
        (sweep.past && close ? op.one_past : op.one)(sweep, from, to, bias, columns);
        out.Done(place);
      }
    }
    if (several && sweep.past) hwy::FlushStream();
    if (!several) add_up(columns);
  };
  if (several) {
    ThreadPool::Instance().Run(sweep.threads, tasks, task);
    for (size_t index = 0; index < tasks; ++index) add_up(columns_of(index));
  } else {
    for (size_t index = 0; index < tasks; ++index) task(index);
    if (sweep.past) hwy::FlushStream();
  }
  const auto put = [&](const Strided& to, auto zero) {
    using To = decltype(zero);
    char* p = to.Row(0);
    if (to.step == ptrdiff_t(sizeof(To))) {
      for (size_t j = 0; j < totals.size(); ++j) reinterpret_cast<To*>(p)[j] = To(totals[j]);
    } else {
      for (size_t j = 0; j < totals.size(); ++j, p += to.step) *reinterpret_cast<To*>(p) = To(totals[j]);
    }
  };
  if (op.sums && op.biased) put(sweep.gradients[0].where, float());
  if (op.sums && !op.biased) put(sweep.outputs[1], int64_t());
}

template <class Op, class T>
void Run(const Sweep& sweep) {
  RunRows<T>(sweep, {Op::kInputs, Op::kBias, Op::kSums, SomeRows<1, false, Op, T>, SomeRows<1, true, Op, T>, SomeRows<kPlaces, true, Op, T>});
}

template <class Op>
constexpr SweepEntry FusedEntryOf(const char* name, const char* pass) {
  return {name, pass, true, {Run<Op, float>, Run<Op, Half>, Run<Op, Brain>}};
}

}  // namespace

SweepTable KernelTable() {
  static constexpr SweepEntry kEntries[] = {
      FusedEntryOf<BiasForward<Gelu>>("bias_gelu", "forward"),
      FusedEntryOf<BiasBackward<Gelu>>("bias_gelu", "backward"),
      FusedEntryOf<BiasForward<Silu>>("bias_silu", "forward"),
      FusedEntryOf<BiasBackward<Silu>>("bias_silu", "backward"),
      FusedEntryOf<BiasForward<Relu2>>("bias_relu2", "forward"),
      FusedEntryOf<BiasBackward<Relu2>>("bias_relu2", "backward"),
      FusedEntryOf<ZerosForward<Relu>>("relu_zeros", "forward"),
      FusedEntryOf<ZerosBackward<Relu>>("relu_zeros", "backward"),
      FusedEntryOf<ZerosForward<Fatrelu>>("fatrelu_zeros", "forward"),
      FusedEntryOf<ZerosBackward<Fatrelu>>("fatrelu_zeros", "backward"),
  };
  return {kEntries, sizeof(kEntries) / sizeof(kEntries[0])};
}

}  // namespace ulproof::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

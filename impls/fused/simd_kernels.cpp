// Activations fused with a bias before them or a count of zeros after them. Rows are taken kRows at a time; a column's sum is in
// float within these and in double, in order, over all of them, so that it is the same for every number of threads.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "fused/simd_kernels.cpp"
#include <hwy/foreach_target.h>

#include "_backends/activations-inl.h"
#include "_backends/rowwise-inl.h"

HWY_BEFORE_NAMESPACE();
namespace ulproof::HWY_NAMESPACE {
namespace {

constexpr size_t kRows = 32;

// y = f(x + bias)
template <class F>
struct BiasForward {
  static constexpr size_t kInputs = 1;
  static constexpr bool kBias = true, kSums = false;
  explicit BiasForward(const Arguments& arguments) : f(arguments) {}
  HWY_INLINE VF operator()(const VF* in, VF bias, VF&) const { return f(hn::Add(in[0], bias)); }
  F f;
};

// dx = dy f'(x + bias), summed over the rows too
template <class F>
struct BiasBackward {
  static constexpr size_t kInputs = 2;
  static constexpr bool kBias = true, kSums = true;
  explicit BiasBackward(const Arguments& arguments) : f(arguments) {}
  HWY_INLINE VF operator()(const VF* in, VF bias, VF& sum) const {
    const VF dx = f.Slope(hn::Add(in[0], bias), in[1]);
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
  explicit ZerosForward(const Arguments& arguments) : f(arguments) {}
  HWY_INLINE VF operator()(const VF* in, VF, VF& count) const {
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
  explicit ZerosBackward(const Arguments& arguments) : f(arguments) {}
  HWY_INLINE VF operator()(const VF* in, VF, VF&) const { return f.Slope(in[0], in[1]); }
  F f;
};

template <class Op, class T>
void Run(const Sweep& sweep) {
  const size_t n = sweep.n, tasks = (sweep.rows + kRows - 1) / kRows;
  const Op op(Arguments{nullptr, sweep.scalars, 0});
  CloseRow<float> biases(sweep.learned[0].where, Op::kBias ? n : 0);
  const float* bias = Op::kBias ? biases.Read(0) : nullptr;
  std::vector<float> sums(Op::kSums ? tasks * n : 0);
  const auto task = [&](size_t index) HWY_ATTR {
    std::vector<CloseRow<T>> in;
    for (size_t k = 0; k < Op::kInputs; ++k) in.emplace_back(sweep.inputs[k], n);
    CloseRow<T> out(sweep.outputs[0], n);
    float* columns = sums.data() + (Op::kSums ? index * n : 0);
    for (size_t row = index * kRows; row < std::min(sweep.rows, (index + 1) * kRows); ++row) {
      const T* x[Op::kInputs];
      for (size_t k = 0; k < Op::kInputs; ++k) x[k] = in[k].Read(row);
      WriteRow(sweep.past, out.Write(row), n, [&](size_t i, size_t count) ULPROOF_EACH {
        VF from[Op::kInputs];
        for (size_t k = 0; k < Op::kInputs; ++k) {
          if (sweep.past) hwy::Prefetch(x[k] + i + 4096 / sizeof(T));
          from[k] = LoadUpTo(x[k] + i, count);
        }
        const VF shift = Op::kBias ? LoadUpTo(bias + i, count) : hn::Zero(f32);
        VF sum = Op::kSums ? LoadUpTo(columns + i, count) : hn::Zero(f32);
        const VF y = op(from, shift, sum);
        if constexpr (Op::kSums) {
          if (count == kLanes) {
            Store(sum, columns + i);
          } else {
            StorePart(sum, columns + i, count);
          }
        }
        return y;
      });
      out.Done(row);
    }
    if (sweep.past) hwy::FlushStream();
  };
  if (sweep.threads == 1 || tasks < 2) {
    for (size_t index = 0; index < tasks; ++index) task(index);
  } else {
    ThreadPool::Instance().Run(sweep.threads, tasks, task);
  }
  if constexpr (Op::kSums) {
    const Strided& to = Op::kBias ? sweep.gradients[0].where : sweep.outputs[1];
    for (size_t j = 0; j < n; ++j) {
      double total = 0.0;
      for (size_t index = 0; index < tasks; ++index) total += double(sums[index * n + j]);
      char* p = to.Row(0) + ptrdiff_t(j) * to.step;
      if constexpr (Op::kBias) {
        *reinterpret_cast<float*>(p) = float(total);
      } else {
        *reinterpret_cast<int64_t*>(p) = int64_t(total);
      }
    }
  }
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

// One sweep for all kernels that work element by element: loads, stores, tails, strides, rounding to 16 bits, stores past the
// caches, threads, and sums over all elements. Included as simd-inl.h is.
//
// An Op says how many arrays it reads (kInputs) and writes (kOutputs) and how many sums it adds up (kSums), and computes one
// vector of each: void operator()(const VF* in, VF* out, Sums& sums) const. With kTwoWays it has a shorter way, too, which gives the
// same bits: Usual, of the same arguments, for what Unusual(in) is false of in every lane. An Op with kGroups > 1 is made for
// each of that many equal ranges of columns; its first kShared sums are taken over all of them.
#include <stddef.h>

#include <vector>

#include "_backends/elementwise.h"
#include "_backends/threads.h"

// GCC leaves instructions in their order on x86, so that one vector after the other would wait for its own results.
#ifndef ULPROOF_INTERLEAVED
#if defined(__GNUC__) && !defined(__clang__)
#define ULPROOF_INTERLEAVED __attribute__((optimize("schedule-insns", "sched-pressure")))
#else
#define ULPROOF_INTERLEAVED
#endif
#endif

#if defined(ULPROOF_ELEMENTWISE_INL_H) == defined(HWY_TARGET_TOGGLE)
#ifdef ULPROOF_ELEMENTWISE_INL_H
#undef ULPROOF_ELEMENTWISE_INL_H
#else
#define ULPROOF_ELEMENTWISE_INL_H
#endif

#include <hwy/cache_control.h>

#include "_backends/simd_math-inl.h"

HWY_BEFORE_NAMESPACE();
namespace ulproof::HWY_NAMESPACE {

// The work is cut into tasks of about this many elements, at places that depend on the shape alone; sums are taken task by
// task, in order, so that they are the same for every number of threads.
inline constexpr size_t kTask = size_t{1} << 16;
inline constexpr size_t kBuffer = 1024;  // elements of a strided row that are gathered at a time
inline constexpr size_t kTogether = 4;   // vectors that are computed side by side
inline constexpr size_t kAhead = 2048;   // bytes by which light sweeps of one array prefetch: they outrun the hardware
inline constexpr size_t kApart = 16;     // vectors that are computed one by one when there is something unusual among them

// Sums over elements: `few` in float and in the op's units, of at most kFlush vectors, which are then added to `all` in double;
// what might overflow a float goes straight there.
inline constexpr size_t kFlush = 64;
template <size_t kCount>
struct SumsOf {
  VF few[kCount + 1];
  VD* all;

  HWY_INLINE explicit SumsOf(VD* to) : all(to) {
    for (size_t k = 0; k < kCount; ++k) few[k] = hn::Zero(f32);
  }
  template <class Op>
  HWY_INLINE void Flush(const Op& op) {
    for (size_t k = 0; k < kCount; ++k) {
      const VD unit = hn::Set(f64, op.Unit(k));
      all[k] = hn::MulAdd(hn::PromoteTo(f64, hn::LowerHalf(few[k])), unit, all[k]);
      all[k] = hn::MulAdd(hn::PromoteTo(f64, hn::UpperHalf(hn::Half<F32>(), few[k])), unit, all[k]);
    }
  }
};

// What a thread adds up of a task.
template <class Op>
struct LanesOf {
  VD all[Op::kSums + 1];
  HWY_INLINE LanesOf() {
    for (VD& one : all) one = hn::Zero(f64);
  }
};

// Tasks, threads, parameters and sums, for arrays of any type: part(op, sweep, row, begin, n, lanes) does n elements of a row.
template <class Op>
class ElementwiseTasks {
 public:
  using Part = void(const Op&, const Sweep&, size_t, size_t, size_t, LanesOf<Op>&);
  static HWY_NOINLINE void Run(const Sweep& sweep, Part* part_of) {
    float learned[kMostLearned];
    Gather(sweep.learned, learned);
    std::vector<Op> ops;
    for (size_t group = 0; group < kGroups; ++group) ops.emplace_back(Arguments{learned, sweep.scalars, group});
    const size_t width = kGroups > 1 ? sweep.n : kTask;                        // of a task's columns
    const size_t columns = (sweep.n + width - 1) / (width + !width);           // tasks a row
    const size_t together = sweep.n < kTask ? kTask / (sweep.n + !sweep.n) : 1;  // rows a task
    const size_t tasks = columns * ((sweep.rows + together - 1) / together);
    std::vector<double> sums(tasks * kGroups * Op::kSums);
    const auto task = [&](size_t index) HWY_ATTR {
      const size_t row = index / columns * together, begin = index % columns * width;
      const size_t end = begin + width < sweep.n ? begin + width : sweep.n;
      const size_t part = (end - begin) / kGroups;
      LanesOf<Op> lanes[kGroups];
      for (size_t r = row; r < row + together && r < sweep.rows; ++r) {
        for (size_t g = 0; g < kGroups; ++g) part_of(ops[g], sweep, r, begin + g * part, part, lanes[g]);
      }
      for (size_t g = 0; g < kGroups; ++g) {
        for (size_t k = 0; k < Op::kSums; ++k) {
          sums[(index * kGroups + g) * Op::kSums + k] = hn::GetLane(hn::SumOfLanes(f64, lanes[g].all[k]));
        }
      }
      if (sweep.past) hwy::FlushStream();
    };
    if (sweep.threads == 1 || tasks < 2) {
      for (size_t index = 0; index < tasks; ++index) task(index);
    } else {
      ThreadPool::Instance().Run(sweep.threads, tasks, task);
    }
    if constexpr (Op::kSums > 0) Total(sweep, sums, tasks);
  }

 private:
  static constexpr size_t kGroups = Op::kGroups;

  static void Total(const Sweep& sweep, const std::vector<double>& sums, size_t tasks) {
    constexpr size_t kShared = kGroups > 1 ? Op::kShared : 0, kOwn = Op::kSums - kShared;
    double totals[kShared + kOwn * kGroups] = {};
    for (size_t i = 0; i < tasks * kGroups; ++i) {
      for (size_t k = 0; k < Op::kSums; ++k) {
        totals[k < kShared ? k : k + i % kGroups * kOwn] += sums[i * Op::kSums + k];
      }
    }
    const double* next = totals;
    for (const Parameter& gradient : sweep.gradients) {
      for (size_t r = 0; r < gradient.rows; ++r) {
        for (size_t i = 0; i < gradient.n; ++i) {
          *reinterpret_cast<float*>(gradient.where.Row(r) + ptrdiff_t(i) * gradient.where.step) = float(*next++);
        }
      }
    }
  }

  static void Gather(const Parameter (&from)[2], float* to) {
    for (const Parameter& one : from) {
      for (size_t r = 0; r < one.rows; ++r) {
        for (size_t i = 0; i < one.n; ++i) {
          *to++ = *reinterpret_cast<const float*>(one.where.Row(r) + ptrdiff_t(i) * one.where.step);
        }
      }
    }
  }
};

template <class Op, class T>
class ElementwiseSweep {
 public:
  static void Run(const Sweep& sweep) { ElementwiseTasks<Op>::Run(sweep, Part); }

 private:
  using Sums = SumsOf<Op::kSums>;
  using Lanes = LanesOf<Op>;
  static constexpr size_t kIn = Op::kInputs, kOut = Op::kOutputs;

  static void Part(const Op& op, const Sweep& sweep, size_t row, size_t begin, size_t n, Lanes& lanes) {
    const T* in[kIn];
    T* out[kOut];
    bool dense = true;
    const auto at = [&](const Strided& array) {
      dense = dense && array.step == ptrdiff_t(sizeof(T));
      return array.Row(row) + ptrdiff_t(begin) * array.step;
    };
    for (size_t k = 0; k < kIn; ++k) in[k] = reinterpret_cast<const T*>(at(sweep.inputs[k]));
    for (size_t k = 0; k < kOut; ++k) out[k] = reinterpret_cast<T*>(at(sweep.outputs[k]));
    if (HWY_LIKELY(dense)) return Dense(op, in, out, n, sweep.past, lanes.all);
    Apart(op, sweep, in, out, n, lanes.all);
  }

  // Through buffers, a piece at a time.
  static HWY_NOINLINE void Apart(const Op& op, const Sweep& sweep, const T** in, T** out, size_t n, VD* all) {
    HWY_ALIGN T from[kIn][kBuffer];
    HWY_ALIGN T to[kOut][kBuffer];
    const T* near[kIn];
    T* result[kOut];
    for (size_t begin = 0; begin < n; begin += kBuffer) {
      const size_t count = n - begin < kBuffer ? n - begin : kBuffer;
      for (size_t k = 0; k < kIn; ++k) {
        const char* p = reinterpret_cast<const char*>(in[k]) + ptrdiff_t(begin) * sweep.inputs[k].step;
        for (size_t i = 0; i < count; ++i, p += sweep.inputs[k].step) memcpy(&from[k][i], p, sizeof(T));
        near[k] = from[k];
      }
      for (size_t k = 0; k < kOut; ++k) result[k] = to[k];
      Dense(op, near, result, count, false, all);
      for (size_t k = 0; k < kOut; ++k) {
        char* p = reinterpret_cast<char*>(out[k]) + ptrdiff_t(begin) * sweep.outputs[k].step;
        for (size_t i = 0; i < count; ++i, p += sweep.outputs[k].step) memcpy(p, &to[k][i], sizeof(T));
      }
    }
  }

  // Fewer elements than a vector holds.
  static HWY_NOINLINE void Few(const Op& op, const T** in, T** out, size_t at, size_t count, VD* all) {
    VF x[kIn], y[kOut];
    for (size_t k = 0; k < kIn; ++k) x[k] = LoadPart(in[k] + at, count, 0.0f);
    Sums sums(all);
    op(x, y, sums);
    for (size_t k = 0; k < kOut; ++k) StorePart(y[k], out[k] + at, count);
    if constexpr (Op::kSums > 0) sums.Flush(op);
  }

  static void Dense(const Op& op, const T** in, T** out, size_t n, bool past, VD* all) {
    size_t i = 0;
    if (past) {
      if (const size_t offset = Offset(out[0])) {
        i = kLanes - offset < n ? kLanes - offset : n;
        Few(op, in, out, 0, i, all);
      }
      for (size_t k = 1; k < kOut; ++k) past = past && Offset(out[k]) == Offset(out[0]);
    }
    const size_t end = n - (n - i) % kLanes;
    if (past) {
      Vectors<true>(op, in, out, i, end, all);
    } else {
      Vectors<false>(op, in, out, i, end, all);
    }
    if (end < n) Few(op, in, out, end, n - end, all);
  }

  static HWY_INLINE void LoadAll(const T* const* in, size_t i, VF* x) {
    for (size_t k = 0; k < kIn; ++k) x[k] = Load(in[k] + i);
  }

  template <bool kPast>
  static HWY_INLINE void StoreAll(const VF* y, T* const* out, size_t i) {
    for (size_t k = 0; k < kOut; ++k) Put<kPast>(y[k], out[k] + i);
  }

  // Whole vectors, whatever they hold.
  template <bool kPast>
  static HWY_NOINLINE void Any(const Op& op, const T* const* in, T* const* out, size_t i, size_t end, VD* all) {
    Sums sums(all);
    for (; i < end; i += kLanes) {
      VF x[kIn], y[kOut];
      LoadAll(in, i, x);
      op(x, y, sums);
      StoreAll<kPast>(y, out, i);
    }
    if constexpr (Op::kSums > 0) sums.Flush(op);
  }

  // Whole vectors, kTogether at a time. The inner loop calls nothing and has a copy of the op, so that its constants stay in
  // registers.
  template <bool kPast>
  static HWY_NOINLINE ULPROOF_INTERLEAVED void Vectors(const Op& op, const T* const* from, T* const* to, size_t i, size_t n, VD* all) {
    constexpr size_t kStep = kTogether * kLanes;
    const Op kept(op);
    const T* in[kIn];
    T* out[kOut];
    for (size_t k = 0; k < kIn; ++k) in[k] = from[k];
    for (size_t k = 0; k < kOut; ++k) out[k] = to[k];
    while (i < n) {
      Sums sums(all);
      const size_t end = Op::kSums > 0 && n - i > kFlush * kLanes ? i + kFlush * kLanes : n;
      while (i < end) {
        for (; i + kStep <= end; i += kStep) {
          VF x[kTogether][kIn], y[kOut];
          if constexpr (kPast && kIn == 1 && !Op::kTwoWays) {
            for (size_t v = 0; v < kTogether; ++v) hwy::Prefetch(in[0] + i + v * kLanes + kAhead / sizeof(T));
          }
          for (size_t v = 0; v < kTogether; ++v) LoadAll(in, i + v * kLanes, x[v]);
          if constexpr (Op::kTwoWays) {
            auto unusual = kept.Unusual(x[0]);
            for (size_t v = 1; v < kTogether; ++v) unusual = hn::Or(unusual, kept.Unusual(x[v]));
            if (HWY_UNLIKELY(!None(unusual))) break;
          }
          for (size_t v = 0; v < kTogether; ++v) {
            if constexpr (Op::kTwoWays) {
              kept.Usual(x[v], y, sums);
            } else {
              kept(x[v], y, sums);
            }
            StoreAll<kPast>(y, out, i + v * kLanes);
          }
        }
        if (i == end) break;
        const size_t next = i + kApart * kLanes < end ? i + kApart * kLanes : end;
        Any<kPast && Op::kTwoWays>(op, from, to, i, next, all);
        i = next;
      }
      if constexpr (Op::kSums > 0) sums.Flush(op);
    }
  }
};

template <class Op>
constexpr SweepEntry EntryOf(const char* name, const char* pass) {
  return {name, pass, Op::kGroups > 1,
          {ElementwiseSweep<Op, float>::Run, ElementwiseSweep<Op, Half>::Run, ElementwiseSweep<Op, Brain>::Run}};
}

// From an activation to what the sweep wants. An activation F has VF operator()(VF x) and VF Slope(VF x, VF dy); with learned
// parameters, kLearned > 0 and VF Slope(VF x, VF dy, SumsOf<kLearned>& sums), which adds each gradient's terms. With kTwoWays it
// has Unusual(VF x) and Usual(VF x), with kTwoSlopes UnusualSlope(VF x, VF dy) and UsualSlope of Slope's arguments.

// What most have.
struct Plain {
  static constexpr size_t kLearned = 0, kGroups = 1, kShared = 0;
  static constexpr bool kTwoWays = false, kTwoSlopes = false;
  static double Unit(size_t) { return 1.0; }  // of a sum's terms in float
};

template <class F>
struct Forward {
  static constexpr size_t kInputs = 1, kOutputs = 1, kSums = 0, kGroups = F::kGroups;
  static constexpr bool kTwoWays = F::kTwoWays;
  explicit Forward(const Arguments& arguments) : f(arguments) {}
  template <class Sums>
  HWY_INLINE void operator()(const VF* in, VF* out, Sums&) const {
    out[0] = f(in[0]);
  }
  HWY_INLINE auto Unusual(const VF* in) const { return f.Unusual(in[0]); }
  template <class Sums>
  HWY_INLINE void Usual(const VF* in, VF* out, Sums&) const {
    out[0] = f.Usual(in[0]);
  }
  F f;
};

template <class F>
struct Backward {
  static constexpr size_t kInputs = 2, kOutputs = 1, kSums = F::kLearned, kGroups = F::kGroups, kShared = F::kShared;
  static constexpr bool kTwoWays = F::kTwoSlopes;
  explicit Backward(const Arguments& arguments) : f(arguments) {}
  HWY_INLINE double Unit(size_t k) const { return f.Unit(k); }
  template <class Sums>
  HWY_INLINE void operator()(const VF* in, VF* out, Sums& sums) const {
    if constexpr (kSums > 0) {
      out[0] = f.Slope(in[0], in[1], sums);
    } else {
      out[0] = f.Slope(in[0], in[1]);
    }
  }
  HWY_INLINE auto Unusual(const VF* in) const { return f.UnusualSlope(in[0], in[1]); }
  template <class Sums>
  HWY_INLINE void Usual(const VF* in, VF* out, Sums& sums) const {
    if constexpr (kSums > 0) {
      out[0] = f.UsualSlope(in[0], in[1], sums);
    } else {
      out[0] = f.UsualSlope(in[0], in[1]);
    }
  }
  F f;
};

}  // namespace ulproof::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif  // ULPROOF_ELEMENTWISE_INL_H

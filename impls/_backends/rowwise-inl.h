// Kernels that need a whole row at once, or sums over columns: rows, strides, tasks and threads. Included as simd-inl.h is.
#include <stddef.h>

#include <vector>

#include "_backends/elementwise.h"
#include "_backends/threads.h"

#if defined(ULPROOF_ROWWISE_INL_H) == defined(HWY_TARGET_TOGGLE)
#ifdef ULPROOF_ROWWISE_INL_H
#undef ULPROOF_ROWWISE_INL_H
#else
#define ULPROOF_ROWWISE_INL_H
#endif

#include <hwy/cache_control.h>

#include "_backends/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace ulproof::HWY_NAMESPACE {

// A vector from `count` elements; a whole one where that is known.
template <class T>
HWY_INLINE VF LoadUpTo(const T* p, size_t count) {
  return count == kLanes ? Load(p) : LoadPart(p, count, 0.0f);
}

// What a lambda needs that is called for every vector: GCC makes calls of long ones otherwise.
#define ULPROOF_EACH HWY_ATTR __attribute__((always_inline))

// Calls f(i, count) for the n elements of a row, a vector at a time, and stores what it returns.
template <class T, class F>
HWY_INLINE void WriteRow(bool past, T* out, size_t n, const F& f) {
  const auto part = [&f, out](size_t begin, size_t count) HWY_ATTR __attribute__((noinline)) {
    StorePart(f(begin, count), out + begin, count);
  };
  size_t i = 0;
  if (past) {
    if (const size_t offset = Offset(out)) {
      i = kLanes - offset < n ? kLanes - offset : n;
      part(0, i);
    }
  }
  for (; i + kLanes <= n; i += kLanes) {
    const VF v = f(i, kLanes);
    if (past) {
      Stream(v, out + i);
    } else {
      Store(v, out + i);
    }
  }
  if (i < n) part(i, n - i);
}

// Rows as if they lay close: those whose elements are apart go through a buffer.
template <class T>
class CloseRow {
 public:
  CloseRow(const Strided& array, size_t n)
      : array_(array), n_(n), apart_(array.step != ptrdiff_t(sizeof(T)) ? n : 0) {}
  bool Close() const { return apart_.empty(); }
  const T* Read(size_t row) {
    const char* p = array_.Row(row);
    if (apart_.empty()) return reinterpret_cast<const T*>(p);
    for (size_t i = 0; i < n_; ++i, p += array_.step) memcpy(&apart_[i], p, sizeof(T));
    return apart_.data();
  }
  T* Write(size_t row) { return apart_.empty() ? reinterpret_cast<T*>(array_.Row(row)) : apart_.data(); }
  void Done(size_t row) {
    if (apart_.empty()) return;
    char* p = array_.Row(row);
    for (size_t i = 0; i < n_; ++i, p += array_.step) memcpy(p, &apart_[i], sizeof(T));
  }

 private:
  const Strided& array_;
  size_t n_;
  std::vector<T> apart_;
};

inline void GatherLearned(const Parameter (&from)[2], float* to) {
  for (const Parameter& one : from) {
    for (size_t i = 0; i < one.rows * one.n; ++i) {
      *to++ = *reinterpret_cast<const float*>(one.where.Row(i / one.n) + ptrdiff_t(i % one.n) * one.where.step);
    }
  }
}

inline void ScatterGradients(const Parameter (&to)[2], const double* from) {
  for (const Parameter& one : to) {
    for (size_t i = 0; i < one.rows * one.n; ++i) {
      *reinterpret_cast<float*>(one.where.Row(i / one.n) + ptrdiff_t(i % one.n) * one.where.step) = float(*from++);
    }
  }
}

// An Op has kInputs, one output, kSums, a Scratch(n), and
//   template <class T> void Row(const T* const* in, bool past, T* out, size_t n, Scratch&, double* sums) const
// which sets this row's sums; they are added in the order of the rows.
template <class Op, class T>
void RunRows(const Sweep& sweep) {
  float learned[kMostLearned];
  GatherLearned(sweep.learned, learned);
  const Op op(Arguments{learned, sweep.scalars, 0});
  std::vector<double> sums(sweep.rows * Op::kSums);
  const size_t together = std::max<size_t>(1, (size_t{1} << 16) / std::max<size_t>(1, sweep.n));
  const size_t tasks = (sweep.rows + together - 1) / together;
  const auto task = [&](size_t index) HWY_ATTR {
    std::vector<CloseRow<T>> in;
    for (size_t k = 0; k < Op::kInputs; ++k) in.emplace_back(sweep.inputs[k], sweep.n);
    CloseRow<T> out(sweep.outputs[0], sweep.n);
    typename Op::Scratch scratch(sweep.n);
    for (size_t row = index * together; row < std::min(sweep.rows, (index + 1) * together); ++row) {
      const T* from[Op::kInputs];
      for (size_t k = 0; k < Op::kInputs; ++k) from[k] = in[k].Read(row);
      op.Row(from, sweep.past, out.Write(row), sweep.n, scratch, sums.data() + row * Op::kSums);
      out.Done(row);
    }
    if (sweep.past) hwy::FlushStream();
  };
  if (sweep.threads == 1 || tasks < 2) {
    for (size_t index = 0; index < tasks; ++index) task(index);
  } else {
    ThreadPool::Instance().Run(sweep.threads, tasks, task);
  }
  if constexpr (Op::kSums > 0) {
    double totals[Op::kSums] = {};
    for (size_t i = 0; i < sums.size(); ++i) totals[i % Op::kSums] += sums[i];
    ScatterGradients(sweep.gradients, totals);
  }
}

template <class Op>
constexpr SweepEntry RowsEntryOf(const char* name, const char* pass) {
  return {name, pass, true, {RunRows<Op, float>, RunRows<Op, Half>, RunRows<Op, Brain>}};
}

}  // namespace ulproof::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif  // ULPROOF_ROWWISE_INL_H

// Gated units from the activations of _backends/activations-inl.h.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "gated/simd_kernels.cpp"
#include <hwy/foreach_target.h>

#include "_backends/activations-inl.h"

HWY_BEFORE_NAMESPACE();
namespace ulproof::HWY_NAMESPACE {
namespace {

// y = f(gate) up
template <class F>
struct Gated {
  static constexpr size_t kInputs = 2, kOutputs = 1, kSums = 0, kGroups = 1;
  static constexpr bool kTwoWays = F::kTwoWays;
  explicit Gated(const Arguments& arguments) : f(arguments) {}
  template <class Sums>
  HWY_INLINE void operator()(const VF* in, VF* out, Sums&) const {
    out[0] = hn::Mul(f(in[0]), in[1]);
  }
  HWY_INLINE auto Unusual(const VF* in) const { return f.Unusual(in[0]); }
  template <class Sums>
  HWY_INLINE void Usual(const VF* in, VF* out, Sums&) const {
    out[0] = hn::Mul(f.Usual(in[0]), in[1]);
  }
  F f;
};

// dgate = dy up f'(gate), dup = dy f(gate)
template <class F>
struct GatedBackward {
  static constexpr size_t kInputs = 3, kOutputs = 2, kSums = 0, kGroups = 1;
  static constexpr bool kTwoWays = F::kTwoWays;
  explicit GatedBackward(const Arguments& arguments) : f(arguments) {}
  template <class Sums>
  HWY_INLINE void operator()(const VF* in, VF* out, Sums&) const {
    out[0] = f.Slope(in[0], hn::Mul(in[2], in[1]));
    out[1] = hn::Mul(in[2], f(in[0]));
  }
  HWY_INLINE auto Unusual(const VF* in) const {
    return hn::Or(f.Unusual(in[0]), f.UnusualSlope(in[0], hn::Mul(in[2], in[1])));
  }
  template <class Sums>
  HWY_INLINE void Usual(const VF* in, VF* out, Sums&) const {
    out[0] = f.UsualSlope(in[0], hn::Mul(in[2], in[1]));
    out[1] = hn::Mul(in[2], f.Usual(in[0]));
  }
  F f;
};

}  // namespace

SweepTable KernelTable() {
  static constexpr SweepEntry kEntries[] = {
      EntryOf<Gated<Silu>>("swiglu", "forward"),
      EntryOf<GatedBackward<Silu>>("swiglu", "backward"),
      EntryOf<Gated<Gelu>>("geglu", "forward"),
      EntryOf<GatedBackward<Gelu>>("geglu", "backward"),
      EntryOf<Gated<Relu>>("reglu", "forward"),
      EntryOf<GatedBackward<Relu>>("reglu", "backward"),
      EntryOf<Gated<Fatrelu>>("fatrelu_and_mul", "forward"),
      EntryOf<GatedBackward<Fatrelu>>("fatrelu_and_mul", "backward"),
  };
  return {kEntries, sizeof(kEntries) / sizeof(kEntries[0])};
}

}  // namespace ulproof::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

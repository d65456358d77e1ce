// The forward passes of all activations.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "activations/simd_forward.cpp"
#include <hwy/foreach_target.h>

#include "_backends/activations-inl.h"
#include "activations/simd_list.h"

HWY_BEFORE_NAMESPACE();
namespace ulproof::HWY_NAMESPACE {

SweepTable ForwardTable() {
#define ULPROOF_ENTRY(name, functor) EntryOf<Forward<functor>>(#name, "forward"),
  static constexpr SweepEntry kEntries[] = {ULPROOF_ACTIVATIONS(ULPROOF_ENTRY)};
#undef ULPROOF_ENTRY
  return {kEntries, sizeof(kEntries) / sizeof(kEntries[0])};
}

}  // namespace ulproof::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

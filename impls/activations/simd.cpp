// The native half of simd.py.
#define ULPROOF_IMPORT_ARRAY
#include "_backends/elementwise_bindings.h"
#include "activations/simd_exhaust.h"

namespace ulproof {

ULPROOF_TABLES(ForwardTable)
ULPROOF_TABLES(BackwardTable)

const std::vector<ElementwiseIsa>& ElementwiseIsas() {
#define ULPROOF_ISA(name, target, where) {name, target, {where::ForwardTable, where::BackwardTable}},
  static const std::vector<ElementwiseIsa> isas = {ULPROOF_ISAS(ULPROOF_ISA)};
#undef ULPROOF_ISA
  return isas;
}

NB_MODULE(_simd, m) {
  if (_import_array() < 0) throw nb::python_error();
  RegisterSweeps(m);
  m.def(
      "exhaust",
      [](const std::string& op, const std::string& pass, const std::string& isa, uint64_t begin, uint64_t end, size_t threads,
         const std::vector<double>& scalars, const std::vector<float>& learned) {
        if (begin > end || end > uint64_t{1} << 32) throw nb::value_error("begin and end are the bits of inputs, up to 2^32");
        const SweepKernel kernel = EntryNamed(isa, op, pass).kernels[0][0];
        Exhausted found;
        {
          nb::gil_scoped_release release;
          found = Exhaust(kernel, op, pass == "backward", begin, end, threads, scalars, learned);
        }
        return nb::make_tuple(found.max_ulp, found.worst, found.not_correctly_rounded);
      },
      "operator"_a, "pass_"_a, "isa"_a, "begin"_a, "end"_a, "threads"_a, "scalars"_a, "learned"_a,
      "Of all float32 inputs with bits in [begin, end), dy being 1: the largest error in ULPs (of the card's scale backward), the\n"
      "bits of the input that has it, and how many results are not the nearest float32.");
}

}  // namespace ulproof

// The native half of simd.py.
#define ULPROOF_IMPORT_ARRAY
#include "_backends/elementwise_bindings.h"

namespace ulproof {

ULPROOF_TABLES(KernelTable)
ULPROOF_TABLES(ModesTable)

const std::vector<ElementwiseIsa>& ElementwiseIsas() {
#define ULPROOF_ISA(name, target, where) {name, target, {where::KernelTable, where::ModesTable}},
  static const std::vector<ElementwiseIsa> isas = {ULPROOF_ISAS(ULPROOF_ISA)};
#undef ULPROOF_ISA
  return isas;
}

NB_MODULE(_simd, m) {
  if (_import_array() < 0) throw nb::python_error();
  RegisterSweeps(m);
}

}  // namespace ulproof

// Every activation of this folder: the operator's name and its functor in _backends/activations-inl.h.
#pragma once
#define ULPROOF_ACTIVATIONS(X) \
  X(relu, Relu)                \
  X(relu2, Relu2)              \
  X(fatrelu, Fatrelu)          \
  X(gelu, Gelu)                \
  X(gelu_tanh, GeluTanh)       \
  X(silu, Silu)                \
  X(sigmoid, Sigmoid)          \
  X(softplus, Softplus)        \
  X(tanh, Tanh)                \
  X(exp, NaturalExp)           \
  X(crrelu, Crrelu)            \
  X(hermite_act, Hermite) \
  X(hermite_act_1, HermiteOfOne) \
  X(poly_relu, PolyRelu) \
  X(rational, RationalA) \
  X(rational_b, RationalB) \
  X(rational_c, RationalC) \
  X(rational_n, RationalN) \
  X(rational_group, RationalGroup)

// The truth about activations of one number, in double, and the errors of float32 results against it: fast enough for all
// 2^32 inputs. The formulas are those of impls/activations/reference.py, which is the oracle; a test holds them to it.
#include <math.h>
#include <stdint.h>
#include <string.h>

#include <algorithm>
#include <limits>
#include <string>
#include <vector>

#include <hwy/highway.h>
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

namespace nb = nanobind;
using namespace nb::literals;

// libmvec is off by at most 4 ULPs of double. Without it, and beside it in a test, the C library does the same, one by one.
#if defined(ULPROOF_MVEC) && HWY_STATIC_TARGET == HWY_AVX2
#define ULPROOF_VECTOR(name, scalar)                       \
  extern "C" __m256d _ZGVdN4v_##scalar(__m256d);           \
  inline Wide name##OfLanes(Wide x) { return hn::Vec<D>{_ZGVdN4v_##scalar(x.v.raw)}; }
#else
#define ULPROOF_VECTOR(name, scalar)                                  \
  inline Wide name##OfLanes(Wide x) {                                 \
    HWY_ALIGN double lanes[hn::MaxLanes(D())];                        \
    hn::Store(x.v, D(), lanes);                                       \
    for (size_t i = 0; i < hn::Lanes(D()); ++i) lanes[i] = ::scalar(lanes[i]); \
    return hn::Load(D(), lanes);                                    \
  }
#endif
#define ULPROOF_FUNCTION(name, scalar) \
  ULPROOF_VECTOR(name, scalar)         \
  inline double name##OfLanes(double x) { return ::scalar(x); }

HWY_BEFORE_NAMESPACE();
namespace ulproof {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kLargest = 0x1.fffffep127, kBeyond = 0x1p128;
constexpr double kRounded = 0x1.fffffefffffffp127;  // the largest that is not rounded to infinity
constexpr double kLimit = 1e43;  // stands for infinity

// Formulas are written once, for a vector of doubles and for one double.

using D = hn::ScalableTag<double>;

struct Mask {
  hn::Mask<D> m;
};

struct Wide {
  hn::Vec<D> v;
  Wide(hn::Vec<D> vector) : v(vector) {}
  Wide(double x) : v(hn::Set(D(), x)) {}
};

inline Wide operator+(Wide a, Wide b) { return hn::Add(a.v, b.v); }
inline Wide operator-(Wide a, Wide b) { return hn::Sub(a.v, b.v); }
inline Wide operator*(Wide a, Wide b) { return hn::Mul(a.v, b.v); }
inline Wide operator/(Wide a, Wide b) { return hn::Div(a.v, b.v); }
inline Wide operator-(Wide a) { return hn::Neg(a.v); }
inline Mask operator<(Wide a, Wide b) { return {hn::Lt(a.v, b.v)}; }
inline Mask operator<=(Wide a, Wide b) { return {hn::Le(a.v, b.v)}; }
inline Wide If(Mask where, Wide yes, Wide no) { return hn::IfThenElse(where.m, yes.v, no.v); }
inline Wide Abs(Wide x) { return hn::Abs(x.v); }

inline double If(bool where, double yes, double no) { return where ? yes : no; }
inline double Abs(double x) { return fabs(x); }

ULPROOF_FUNCTION(Exp, exp)
ULPROOF_FUNCTION(Erfc, erfc)
ULPROOF_FUNCTION(Log1p, log1p)
ULPROOF_FUNCTION(Tanh, tanh)

template <class T>
T Max(T a, T b) { return If(a < b, b, a); }
template <class T>
T Between(T x, double low, double high) { return If(x < T(low), T(low), If(T(high) < x, T(high), x)); }  // NaN stays

// Arguments of which a float32 result knows nothing don't reach the functions, which are slow there.
template <class T>
T Exp(T x) {
  const T y = ExpOfLanes(Between(x, -700.0, 700.0));
  return If(x < T(-700.0), T(0.0), If(T(700.0) < x, T(kInfinity), y));
}
template <class T>
T Erfc(T x) { return If(T(26.0) < x, T(0.0), ErfcOfLanes(Between(x, -7.0, 26.0))); }
template <class T>
T Tanh(T x) { return TanhOfLanes(Between(x, -20.0, 20.0)); }

template <class T>
T Sign(T x) { return If(x < T(0.0), T(-1.0), If(T(0.0) < x, T(1.0), x * T(0.0))); }
template <class T>
T Rectified(T x) { return If(x < T(0.0), T(0.0), x); }
template <class T>
T Step(T x) { return If(x <= T(0.0), T(0.0), T(1.0)); }
template <class T>
T Logistic(T x) {
  const T e = Exp(-Abs(x));
  return If(x < T(0.0), e, T(1.0)) / (T(1.0) + e);
}
template <class T>
T Gaussian(T x) { return Exp(T(-0.5) * x * x); }
template <class T>
T Cdf(T x) { return T(0.5) * Erfc(x * T(-0.70710678118654752440)); }
template <class T>
T Density(T x) { return Gaussian(x) * T(0.39894228040143267794); }

template <int kCount>
struct Polynomial {
  double c[kCount];

  template <class T>
  T operator()(T x) const {
    T y = T(c[kCount - 1]);
    for (int i = kCount - 2; i >= 0; --i) y = y * x + T(c[i]);
    return y;
  }
  Polynomial Sizes() const {
    Polynomial found;
    for (int i = 0; i < kCount; ++i) found.c[i] = fabs(c[i]);
    return found;
  }
  Polynomial<kCount - 1> Derivative() const {
    Polynomial<kCount - 1> found;
    for (int i = 1; i < kCount; ++i) found.c[i - 1] = i * c[i];
    return found;
  }
};

// What is right, and the value whose ULP is the unit of error.
template <class T>
struct Truth {
  T y, scale;
};

template <class T>
Truth<T> Value(T y) { return {y, Between(Abs(y), 0.0, kLargest)}; }
template <class T>
Truth<T> Value(T y, T terms) { return {y, Max(Abs(y), terms)}; }
template <class T>
Truth<T> Slope(T slope, T terms) {  // beyond float32 it is infinite
  const T y = slope * If(T(kRounded) < Abs(slope), T(kInfinity), T(1.0));
  return {y, Max(Abs(y), terms * T(0.5))};
}
template <class T>
Truth<T> Slope(T slope) { return Slope(slope, T(0.0)); }

struct Given {
  const double* scalars;
  const float* learned;
  size_t group;
};

#define ULPROOF_FORWARD template <class T> Truth<T> Forward(T x) const
#define ULPROOF_BACKWARD template <class T> Truth<T> Backward(T x) const

struct Plain {
  explicit Plain(const Given&) {}
};

struct Relu : Plain {
  using Plain::Plain;
  ULPROOF_FORWARD { return Value(Rectified(x)); }
  ULPROOF_BACKWARD { return Slope(Step(x)); }
};

struct Relu2 : Plain {
  using Plain::Plain;
  ULPROOF_FORWARD { return Value(Rectified(x) * Rectified(x)); }
  ULPROOF_BACKWARD { return Slope(T(2.0) * Rectified(x)); }
};

struct Fatrelu {
  explicit Fatrelu(const Given& given) : t(float(given.scalars[0])) {}  // the threshold is a float32 number
  ULPROOF_FORWARD { return Value(If(x < T(t), T(0.0), x)); }
  ULPROOF_BACKWARD { return Slope(If(x < T(t), T(0.0), T(1.0))); }
  double t;
};

struct Gelu : Plain {
  using Plain::Plain;
  ULPROOF_FORWARD { return Value(x * Cdf(x)); }
  ULPROOF_BACKWARD {
    const T cdf = Cdf(x), moved = x * Density(x);
    return Slope(cdf + moved, cdf + Abs(moved));
  }
};

struct GeluTanh : Plain {
  using Plain::Plain;
  static constexpr double kRoot = 1.59576912160573071176, kCube = 0.044715;  // sqrt(8 / pi)
  template <class T>
  static T Inner(T x) { return T(kRoot) * (x + T(kCube) * x * x * x); }
  ULPROOF_FORWARD { return Value(x * Logistic(Inner(x))); }
  ULPROOF_BACKWARD {
    const T s = Logistic(Inner(x));
    const T moved = x * s * Logistic(-Inner(x)) * T(kRoot) * (T(1.0) + T(3.0 * kCube) * x * x);
    return Slope(s + moved, s + Abs(moved));
  }
};

struct Silu : Plain {
  using Plain::Plain;
  ULPROOF_FORWARD { return Value(x * Logistic(x)); }
  ULPROOF_BACKWARD {
    const T s = Logistic(x), moved = x * Logistic(-x);
    return Slope(s * (T(1.0) + moved), s * (T(1.0) + Abs(moved)));
  }
};

struct Sigmoid : Plain {
  using Plain::Plain;
  ULPROOF_FORWARD { return Value(Logistic(x)); }
  ULPROOF_BACKWARD { return Slope(Logistic(x) * Logistic(-x)); }
};

struct Softplus : Plain {
  using Plain::Plain;
  ULPROOF_FORWARD { return Value(Rectified(x) + Log1pOfLanes(Exp(-Abs(x)))); }
  ULPROOF_BACKWARD { return Slope(Logistic(x)); }
};

struct HyperbolicTangent : Plain {
  using Plain::Plain;
  ULPROOF_FORWARD { return Value(Tanh(x)); }
  ULPROOF_BACKWARD { return Slope(T(4.0) * Logistic(T(2.0) * x) * Logistic(T(-2.0) * x)); }
};

struct Exponential : Plain {
  using Plain::Plain;
  ULPROOF_FORWARD { return Value(Exp(x)); }
  ULPROOF_BACKWARD { return Slope(Exp(x)); }
};

struct Crrelu {
  explicit Crrelu(const Given& given) : eps(given.learned[0]) {}
  ULPROOF_FORWARD { return Value(Rectified(x) + T(eps) * x * Gaussian(x)); }
  ULPROOF_BACKWARD {
    const T moved = T(eps) * Gaussian(x);
    return Slope(Step(x) + moved * (T(1.0) - x * x), Step(x) + Abs(moved) * (T(1.0) + x * x));
  }
  double eps;
};

struct Hermite {
  explicit Hermite(const Given& given) : Hermite(given.scalars[0]) {}
  explicit Hermite(double d) : y{} {
    if (d == 1) {
      const double k = 12 * sqrt(70);
      y = {0, -105 / k + sqrt(0.5), 0, 105 / k, 0, -21 / k, 0, 1 / k};
    } else {
      const double a = pow(2, -d / 4), c = sqrt((1 - pow(2, 1 - d / 2)) / 2);
      y = {-c, a - 3 * a / sqrt(6), c, a / sqrt(6), 0, 0, 0, 0};
    }
    sizes = y.Sizes(), slope = y.Derivative(), slopes = slope.Sizes();
  }
  ULPROOF_FORWARD { return Value(y(x), sizes(Abs(x))); }
  ULPROOF_BACKWARD { return Slope(slope(x), T(2.0) * slopes(Abs(x))); }
  Polynomial<8> y, sizes;
  Polynomial<7> slope, slopes;
};

struct HermiteOfOne : Hermite {
  explicit HermiteOfOne(const Given&) : Hermite(1.0) {}
};

struct PolyRelu {
  explicit PolyRelu(const Given& given) {
    for (int i = 0; i < 4; ++i) y.c[i] = given.learned[i < 1 ? 3 : 3 - i];
    sizes = y.Sizes(), slope = y.Derivative(), slopes = slope.Sizes();
  }
  ULPROOF_FORWARD { return Value(y(Rectified(x)), sizes(Rectified(x))); }
  ULPROOF_BACKWARD {
    const T r = Rectified(x);
    return Slope(Step(x) * slope(r), T(2.0) * Step(x) * slopes(r));
  }
  Polynomial<4> y, sizes;
  Polynomial<3> slope, slopes;
};

// P / Q by the form of Q: A is 1 + sum |b_j x^j|, B 1 + |sum b_j x^j|, C 0.1 + the same from j = 0, N 1 + sum b_j x^j.
template <char kForm>
struct Rational {
  explicit Rational(const Given& given) : b{} {
    constexpr int kFirst = kForm == 'C' ? 0 : 1;
    for (int i = 0; i < 6; ++i) a.c[i] = given.learned[i];
    for (int j = kFirst; j < 5; ++j) b.c[j] = given.learned[6 + 4 * given.group + j - kFirst];
    a_sizes = a.Sizes(), b_sizes = b.Sizes();
    da = a.Derivative(), da_sizes = da.Sizes(), db = b.Derivative(), db_sizes = db.Sizes();
  }

  template <class T>
  struct Parts {
    T q, dq, r, loses, terms;
  };

  // Q, its derivative, P / Q, what Q loses where its terms cancel, and what rounding P and Q does to P / Q.
  template <class T>
  Parts<T> At(T x) const {
    const T one(kForm == 'C' ? 0.1 : 1.0);
    const T most = one + b_sizes(Abs(x));
    T q = most, dq = Sign(x) * db_sizes(Abs(x));
    if (kForm != 'A') {
      const T s = b(x);
      q = one + (kForm == 'N' ? s : Abs(s));
      dq = (kForm == 'N' ? T(1.0) : Sign(s)) * db(x);
    }
    const T r = a(x) / q;
    return {q, dq, r, most / Abs(q), (a_sizes(Abs(x)) + Abs(r) * most) / Abs(q)};
  }

  ULPROOF_FORWARD {
    const Parts<T> at = At(x);
    return Value(at.r, at.terms);
  }
  ULPROOF_BACKWARD {
    const Parts<T> at = At(x);
    const T terms = da_sizes(Abs(x)) + at.terms * db_sizes(Abs(x));
    return Slope((da(x) - at.r * at.dq) / at.q, T(2.0) * terms / Abs(at.q) * at.loses);
  }

  Polynomial<6> a, a_sizes;
  Polynomial<5> b, b_sizes, da, da_sizes;
  Polynomial<4> db, db_sizes;
};

// Results of x, which is padded to whole vectors.
template <class F, class T>
void Evaluate(const Given& given, bool backward, const float* x, size_t n, double* y, double* scale) {
  const F formula(given);
  for (size_t i = 0; i < n; i += sizeof(T) / 8) {
    if constexpr (sizeof(T) == 8) {
      const double at = Between(double(x[i]), -kLimit, kLimit);
      const Truth<T> truth = backward ? formula.Backward(at) : formula.Forward(at);
      y[i] = truth.y, scale[i] = truth.scale;
    } else {
      const hn::Rebind<float, D> half;
      const Wide at = Between(Wide(hn::PromoteTo(D(), hn::LoadU(half, x + i))), -kLimit, kLimit);
      const Truth<T> truth = backward ? formula.Backward(at) : formula.Forward(at);
      hn::StoreU(truth.y.v, D(), y + i), hn::StoreU(truth.scale.v, D(), scale + i);
    }
  }
}

using Evaluator = void (*)(const Given&, bool, const float*, size_t, double*, double*);

struct Formula {
  const char* name;
  size_t scalars, learned, groups;
  Evaluator vectors, singly;
};

#define ULPROOF_FORMULA(name, scalars, learned, groups, ...) \
  {name, scalars, learned, groups, Evaluate<__VA_ARGS__, Wide>, Evaluate<__VA_ARGS__, double>}

constexpr Formula kFormulas[] = {
    ULPROOF_FORMULA("relu", 0, 0, 1, Relu),
    ULPROOF_FORMULA("relu2", 0, 0, 1, Relu2),
    ULPROOF_FORMULA("fatrelu", 1, 0, 1, Fatrelu),
    ULPROOF_FORMULA("gelu", 0, 0, 1, Gelu),
    ULPROOF_FORMULA("gelu_tanh", 0, 0, 1, GeluTanh),
    ULPROOF_FORMULA("silu", 0, 0, 1, Silu),
    ULPROOF_FORMULA("sigmoid", 0, 0, 1, Sigmoid),
    ULPROOF_FORMULA("softplus", 0, 0, 1, Softplus),
    ULPROOF_FORMULA("tanh", 0, 0, 1, HyperbolicTangent),
    ULPROOF_FORMULA("exp", 0, 0, 1, Exponential),
    ULPROOF_FORMULA("crrelu", 0, 1, 1, Crrelu),
    ULPROOF_FORMULA("hermite_act", 1, 0, 1, Hermite),
    ULPROOF_FORMULA("hermite_act_1", 0, 0, 1, HermiteOfOne),
    ULPROOF_FORMULA("poly_relu", 0, 4, 1, PolyRelu),
    ULPROOF_FORMULA("rational", 0, 10, 1, Rational<'A'>),
    ULPROOF_FORMULA("rational_b", 0, 10, 1, Rational<'B'>),
    ULPROOF_FORMULA("rational_c", 0, 11, 1, Rational<'C'>),
    ULPROOF_FORMULA("rational_n", 0, 10, 1, Rational<'N'>),
    ULPROOF_FORMULA("rational_group", 0, 38, 8, Rational<'A'>),
};

struct Found {
  double largest = 0.0;
  size_t worst = 0;
  uint64_t misrounded = 0, flushed = 0;
};

// The errors as benchmarks/measure/ulp.py has them; whether a result is the nearest float32 is asked of the truth itself.
void Compare(const double* expected, const double* scale, const float* actual, size_t n, size_t at, Found& found) {
  const D d;
  const hn::Rebind<float, D> half;
  const hn::RebindToSigned<D> i64;
  using V = hn::Vec<D>;
  const V largest = hn::Set(d, kLargest), beyond = hn::Set(d, kBeyond), zero = hn::Zero(d), infinity = hn::Set(d, kInfinity);
  for (size_t i = 0; i < n; i += hn::Lanes(d)) {
    const auto results = hn::LoadU(half, actual + i);
    V want = hn::LoadU(d, expected + i), got = hn::PromoteTo(d, results);
    const auto nearest = hn::Eq(hn::PromoteTo(d, hn::DemoteTo(half, want)), got);
    if (hn::AllTrue(d, found.largest < 0.5 ? hn::Eq(want, got) : nearest)) continue;  // which adds nothing to what was found
    const auto none = hn::And(hn::IsNaN(got), hn::IsNaN(want));
    const V size = hn::Abs(want);
    const auto flushed = hn::And(hn::Eq(got, zero), hn::And(hn::Lt(size, hn::Set(d, 0x1p-126)), hn::Gt(size, hn::Set(d, 0x1p-150))));
    const auto fine = hn::Or(nearest, hn::Or(none, flushed));
    const auto past = hn::And(hn::Ge(size, largest), hn::Lt(size, infinity));
    want = hn::IfThenElse(past, hn::Max(hn::Min(want, beyond), hn::Neg(beyond)), want);
    // A NaN stays one, also where the minimum of it and a number is the number.
    got = hn::IfThenElse(hn::AndNot(hn::IsNaN(got), past), hn::Max(hn::Min(got, beyond), hn::Neg(beyond)), got);
    auto bits = hn::ShiftRight<52>(hn::BitCast(i64, hn::Abs(hn::LoadU(d, scale + i))));
    bits = hn::Min(hn::Max(bits, hn::Set(i64, 1023 - 126)), hn::Set(i64, 2046));
    const V spacing = hn::BitCast(d, hn::ShiftLeft<52>(hn::Sub(bits, hn::Set(i64, 23))));
    V error = hn::Div(hn::Abs(hn::Sub(got, want)), spacing);
    error = hn::IfThenElse(hn::IsNaN(error), infinity, error);
    error = hn::IfThenElse(hn::Or(flushed, hn::Or(none, hn::Eq(got, want))), zero, error);
    found.misrounded += hn::Lanes(d) - hn::CountTrue(d, fine);
    found.flushed += hn::CountTrue(d, flushed);
    if (HWY_UNLIKELY(!hn::AllFalse(d, hn::Gt(error, hn::Set(d, found.largest))))) {
      HWY_ALIGN double errors[hn::MaxLanes(d)];
      hn::Store(error, d, errors);
      for (size_t lane = 0; lane < hn::Lanes(d); ++lane) {
        if (errors[lane] > found.largest) found.largest = errors[lane], found.worst = at + i + lane;
      }
    }
  }
}

constexpr size_t kBlock = 1024, kPad = 16;

// Calls do(at, count, expected, scale) for the blocks of x; all four are padded with inputs of 0.
template <class Do>
void Blocks(const Formula& formula, const Given& given, bool backward, bool singly, const float* x, size_t n, size_t columns,
            Do&& each) {
  std::vector<float> inputs(kBlock + kPad);
  std::vector<double> y(kBlock + kPad), scale(kBlock + kPad);
  const size_t run = columns / formula.groups;
  for (size_t at = 0; at < n;) {
    Given of = given;
    of.group = at / run % formula.groups;
    size_t count = std::min(kBlock, n - at);
    if (formula.groups > 1) count = std::min(count, run - at % run);
    std::fill(inputs.begin(), inputs.end(), 0.0f);
    memcpy(inputs.data(), x + at, 4 * count);
    (singly ? formula.singly : formula.vectors)(of, backward, inputs.data(), count, y.data(), scale.data());
    each(at, count, y.data(), scale.data());
    at += count;
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace ulproof
HWY_AFTER_NAMESPACE();

namespace ulproof {
namespace {
using namespace HWY_NAMESPACE;

using Floats = nb::ndarray<const float, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Doubles = nb::ndarray<double, nb::numpy, nb::ndim<1>>;

const Formula& Named(const std::string& op, const std::string& pass, const std::vector<double>& scalars,
                     const std::vector<float>& learned, size_t n, size_t columns) {
  for (const Formula& formula : kFormulas) {
    if (op != formula.name) continue;
    if (pass != "forward" && pass != "backward") throw nb::value_error("pass is forward or backward");
    if (scalars.size() != formula.scalars || learned.size() != formula.learned) {
      throw nb::value_error((op + " takes " + std::to_string(formula.scalars) + " scalar and " +
                             std::to_string(formula.learned) + " learned parameters").c_str());
    }
    if (columns == 0 || columns % formula.groups || n % columns) throw nb::value_error("x must be whole rows of whole groups");
    return formula;
  }
  throw nb::value_error(("there is no formula of " + op + " to judge by").c_str());
}

Doubles Array(size_t n) {
  double* data = new double[n];
  return Doubles(data, {n}, nb::capsule(data, [](void* p) noexcept { delete[] static_cast<double*>(p); }));
}

}  // namespace

NB_MODULE(_judge, m) {
  m.def("operators", [] {
    std::vector<std::string> names;
    for (const Formula& formula : kFormulas) names.push_back(formula.name);
    return names;
  }, "The operators that there are formulas of.");
  m.def(
      "truth",
      [](const std::string& op, const std::string& pass, Floats x, const std::vector<double>& scalars,
         const std::vector<float>& learned, size_t columns, bool singly) {
        const Formula& formula = Named(op, pass, scalars, learned, x.shape(0), columns);
        Doubles y = Array(x.shape(0)), scale = Array(x.shape(0));
        Blocks(formula, {scalars.data(), learned.data(), 0}, pass == "backward", singly, x.data(), x.shape(0), columns,
               [&](size_t at, size_t count, const double* expected, const double* unit) {
                 memcpy(y.data() + at, expected, 8 * count);
                 memcpy(scale.data() + at, unit, 8 * count);
               });
        return nb::make_tuple(y, scale);
      },
      "operator"_a, "pass_"_a, "x"_a, "scalars"_a, "learned"_a, "columns"_a = 1, "singly"_a = false,
      "What the operator, or its derivative, is at each float32 of x (n,), and the value whose ULP is the unit of error: float64\n"
      "(n,) both. x is rows of so many columns, one after the other. singly: from the C library's functions of one number.");
  m.def(
      "judge",
      [](const std::string& op, const std::string& pass, Floats x, const std::vector<Floats>& results,
         const std::vector<double>& scalars, const std::vector<float>& learned, size_t columns) {
        const Formula& formula = Named(op, pass, scalars, learned, x.shape(0), columns);
        for (const Floats& each : results) {
          if (each.shape(0) != x.shape(0)) throw nb::value_error("results must be as many as inputs");
        }
        std::vector<Found> found(results.size());
        {
          nb::gil_scoped_release release;
          std::vector<float> actual(kBlock + kPad);
          Blocks(formula, {scalars.data(), learned.data(), 0}, pass == "backward", false, x.data(), x.shape(0), columns,
                 [&](size_t at, size_t count, double* expected, const double* unit) {
                   std::fill(expected + count, expected + count + kPad, 0.0);
                   for (size_t side = 0; side < results.size(); ++side) {
                     memcpy(actual.data(), results[side].data() + at, 4 * count);
                     std::fill(actual.begin() + count, actual.begin() + count + kPad, 0.0f);
                     Compare(expected, unit, actual.data(), count, at, found[side]);
                   }
                 });
        }
        nb::list answers;
        for (const Found& each : found) answers.append(nb::make_tuple(each.largest, each.worst, each.misrounded, each.flushed));
        return answers;
      },
      "operator"_a, "pass_"_a, "x"_a, "results"_a, "scalars"_a, "learned"_a, "columns"_a = 1,
      "Of each of the results, float32 (n,), of the float32 inputs x (n,), dy being 1: the largest error in ULPs (of the card's\n"
      "scale), its place, how many are not the nearest float32, and how many are 0 in place of a subnormal, which counts as right.");
}

}  // namespace ulproof

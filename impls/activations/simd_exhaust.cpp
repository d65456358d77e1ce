// The truth once more, in C++: glibc's functions of double, by which 2^32 inputs are judged in minutes.
#include "activations/simd_exhaust.h"

#include <math.h>
#include <string.h>

#include <algorithm>
#include <limits>
#include <stdexcept>

#include "_backends/threads.h"

namespace ulproof {
namespace {

struct Given {
  const double* scalars;
  const float* learned;
};

constexpr double kInfinity = std::numeric_limits<double>::infinity();

double Logistic(double x) {
  const double e = exp(-fabs(x));
  return (x < 0 ? e : 1.0) / (1.0 + e);
}
double Gaussian(double x) { return exp(-0.5 * x * x); }
double Density(double x) { return Gaussian(x) * 0.39894228040143267794; }
double Cdf(double x) { return 0.5 * erfc(-x * 0.70710678118654752440); }
double Step(double x) { return x <= 0 ? 0.0 : 1.0; }

// sqrt(8 / pi) (x + 0.044715 x^3) and its derivative.
double Inner(double x) { return 1.59576912160573071176 * (x + 0.044715 * x * x * x); }
double InnerSlope(double x) { return 1.59576912160573071176 * (1.0 + 3.0 * 0.044715 * x * x); }

// y, dy/dx and the size of dy/dx's terms, at x; infinities come as 1e43.
struct Formula {
  const char* name;
  double (*value)(double, const Given&);
  double (*slope)(double, const Given&);
  double (*terms)(double, const Given&);
};

constexpr double (*kNoTerms)(double, const Given&) = nullptr;

constexpr Formula kFormulas[] = {
    {"relu", [](double x, const Given&) { return x > 0 ? x : x * 0.0; }, [](double x, const Given&) { return Step(x); }, kNoTerms},
    {"relu2", [](double x, const Given&) { return x > 0 ? x * x : x * 0.0; },
     [](double x, const Given&) { return x > 0 ? 2.0 * x : x * 0.0; }, kNoTerms},
    {"fatrelu", [](double x, const Given& given) { return x < given.scalars[0] ? 0.0 : x; },
     [](double x, const Given& given) { return x < given.scalars[0] ? 0.0 : 1.0; }, kNoTerms},
    {"gelu", [](double x, const Given&) { return x * Cdf(x); }, [](double x, const Given&) { return Cdf(x) + x * Density(x); },
     [](double x, const Given&) { return Cdf(x) + fabs(x) * Density(x); }},
    {"gelu_tanh", [](double x, const Given&) { return x * Logistic(Inner(x)); },
     [](double x, const Given&) {
       const double z = Inner(x), s = Logistic(z);
       return s + x * s * Logistic(-z) * InnerSlope(x);
     },
     [](double x, const Given&) {
       const double z = Inner(x), s = Logistic(z);
       return s + fabs(x) * s * Logistic(-z) * InnerSlope(x);
     }},
    {"silu", [](double x, const Given&) { return x * Logistic(x); },
     [](double x, const Given&) { return Logistic(x) * (1.0 + x * Logistic(-x)); },
     [](double x, const Given&) { return Logistic(x) * (1.0 + fabs(x) * Logistic(-x)); }},
    {"sigmoid", [](double x, const Given&) { return Logistic(x); },
     [](double x, const Given&) { return Logistic(x) * Logistic(-x); }, kNoTerms},
    {"softplus", [](double x, const Given&) { return (x > 0 ? x : 0.0) + log1p(exp(-fabs(x))); },
     [](double x, const Given&) { return Logistic(x); }, kNoTerms},
    {"tanh", [](double x, const Given&) { return tanh(x); },
     [](double x, const Given&) { return 4.0 * Logistic(2.0 * x) * Logistic(-2.0 * x); }, kNoTerms},
    {"exp", [](double x, const Given&) { return exp(x); }, [](double x, const Given&) { return exp(x); }, kNoTerms},
    {"crrelu", [](double x, const Given& given) { return (x > 0 ? x : 0.0) + given.learned[0] * x * Gaussian(x); },
     [](double x, const Given& given) { return Step(x) + given.learned[0] * (1.0 - x * x) * Gaussian(x); },
     [](double x, const Given& given) { return Step(x) + fabs(given.learned[0]) * (1.0 + x * x) * Gaussian(x); }},
};

float FloatOf(uint32_t bits) {
  float value;
  memcpy(&value, &bits, 4);
  return value;
}

// The distance of float32 numbers at a value, as benchmarks/measure/ulp.py has it.
double Spacing(double value) {
  uint64_t bits;
  memcpy(&bits, &value, 8);
  const int64_t exponent = int64_t(bits >> 52 & 0x7FF);
  bits = uint64_t(std::clamp<int64_t>(exponent, 1023 - 126, 1023 + 127) - 23) << 52;
  memcpy(&value, &bits, 8);
  return value;
}

constexpr double kLargest = 0x1.fffffep127, kBeyond = 0x1p128;

double Error(float actual, double expected, double scale) {
  double got = actual;
  if (got == expected || (isnan(got) && isnan(expected))) return 0.0;
  if (fabs(expected) >= kLargest) {
    expected = std::clamp(expected, -kBeyond, kBeyond);
    got = std::clamp(got, -kBeyond, kBeyond);
    if (got == expected) return 0.0;
  }
  const double error = fabs(got - expected) / Spacing(std::min(fabs(scale), kLargest));
  return isnan(error) ? kInfinity : error;
}

}  // namespace

Exhausted Exhaust(SweepKernel kernel, const std::string& op, bool backward, uint64_t begin, uint64_t end, size_t threads,
                  const std::vector<double>& scalars, const std::vector<float>& learned) {
  const Formula* formula = nullptr;
  for (const Formula& one : kFormulas) {
    if (op == one.name) formula = &one;
  }
  if (!formula) throw std::invalid_argument("there is no formula of " + op + " to judge by");
  const Given given{scalars.data(), learned.data()};
  constexpr size_t kChunk = 4096, kPerTask = 64;
  const size_t tasks = size_t((end - begin + kChunk * kPerTask - 1) / (kChunk * kPerTask));
  std::vector<Exhausted> parts(tasks);
  ThreadPool::Instance().Run(threads, tasks, [&](size_t task) {
    std::vector<float> x(kChunk), dy(kChunk, 1.0f), y(kChunk), gradient(kMostLearned);
    Exhausted& part = parts[task];
    const uint64_t first = begin + task * kChunk * kPerTask, last = std::min<uint64_t>(first + kChunk * kPerTask, end);
    for (uint64_t at = first; at < last; at += kChunk) {
      const size_t count = size_t(std::min<uint64_t>(kChunk, last - at));
      for (size_t i = 0; i < count; ++i) x[i] = FloatOf(uint32_t(at + i));
      const auto dense = [&](const float* p, size_t n) {
        return Strided{reinterpret_cast<char*>(const_cast<float*>(p)), nullptr, ptrdiff_t(4 * n), 4};
      };
      Sweep sweep;
      sweep.inputs[0] = dense(x.data(), count), sweep.inputs[1] = dense(dy.data(), count);
      sweep.outputs[0] = dense(y.data(), count);
      sweep.learned[0] = {dense(learned.data(), learned.size()), 1, learned.size()};
      if (backward) sweep.gradients[0] = {dense(gradient.data(), learned.size()), 1, learned.size()};
      sweep.scalars = scalars.data();
      sweep.rows = 1, sweep.n = count;
      kernel(sweep);
      for (size_t i = 0; i < count; ++i) {
        const double bounded = isinf(x[i]) ? copysign(1e43, x[i]) : double(x[i]);
        double truth = (backward ? formula->slope : formula->value)(bounded, given), scale = truth;
        if (backward && fabs(truth) > kLargest) truth = copysign(kInfinity, truth);
        if (backward && formula->terms) scale = std::max(fabs(truth), formula->terms(bounded, given) / 2);
        const double error = Error(y[i], truth, scale);
        if (!(error <= part.max_ulp)) part.max_ulp = error, part.worst = uint32_t(at + i);
        part.not_correctly_rounded += !(y[i] == float(truth) || (isnan(y[i]) && isnan(truth)));
      }
    }
  });
  Exhausted all;
  for (const Exhausted& part : parts) {
    if (part.max_ulp > all.max_ulp) all.max_ulp = part.max_ulp, all.worst = part.worst;
    all.not_correctly_rounded += part.not_correctly_rounded;
  }
  return all;
}

}  // namespace ulproof

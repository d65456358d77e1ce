// ---- the mathematics of the activations: cuda_common.cuh stands before this
//
// An activation is a struct of two functions, its value and its slope. Either may return its result as Parts, q 2^n, so that
// whoever multiplies by another factor (a gate, a gradient) rounds a denormal result once and after that factor. `P` asks for
// float32's precision; the 16-bit types may use ex2.approx and rcp.approx (relative error 2^-22 and 2^-23). Arguments are
// limited before exponents are taken, so the infinities give the limits; NaN gives NaN.

#ifdef __CUDACC__
__device__ __forceinline__ float rcp(float x) {
  float y;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

__device__ __forceinline__ float min_nan(float x, float y) {  // NaN when either is
  float z;
  asm("min.NaN.f32 %0, %1, %2;" : "=f"(z) : "f"(x), "f"(y));
  return z;
}
#endif

struct Parts {
  float q;
  int n = 0;
};

struct Fine : Parts {  // (q + low) 2^n: a product of several factors is then rounded once, in `times`
  float low;
};

DEVICE float power(int n) { return __uint_as_float((u32)(n + 127) << 23); }  // 2^n for a normal result

DEVICE float scaled(Parts v, float factor = 1.0f) {  // factor q 2^n, n in [-252, 254]
  int half = v.n >> 1;
  return v.q * factor * power(half) * power(v.n - half);
}

DEVICE float to_float(Parts v) { return v.q * power(v.n < -126 ? -126 : v.n); }  // for n <= 127, where tiny values don't matter

DEVICE float limited(float x, float most) { return min_nan(fabsf(x), most); }

template <bool P>
DEVICE float divide(float x, float y) {
  if constexpr (P) return x / y;
  return x * rcp(y);
}

// 1 / (x + y) for a sum in [1, 2^100], y being 1, 2 or 3: of the exact sum, within 0.51 ULP; or of the rounded one.
template <bool P>
DEVICE float reciprocal(float x, float y) {
  float d = x + y, r = rcp(d);
  if constexpr (!P) return r;
  return fmaf(fmaf(-r, x - (d - y), fmaf(-d, r, 1.0f)), r, r);
}

template <int N>
DEVICE float horner(const float (&c)[N], float x) {  // highest power first
  float p = c[0];
#pragma unroll
  for (int i = 1; i < N; ++i) p = fmaf(p, x, c[i]);
  return p;
}

// The same in x^2: its rounding error is worth three of a seventh power.
template <bool P, int N>
DEVICE float horner_of_square(const float (&c)[N], float x) {
  float square = x * x, p = horner(c, square);
  if constexpr (P) {
    float slope = (N - 1) * c[0];
#pragma unroll
    for (int i = 1; i < N - 1; ++i) slope = fmaf(slope, square, (N - 1 - i) * c[i]);
    float low = fmaf(x, x, -square) * slope;
    p += fabsf(low) < INF ? low : 0.0f;
  }
  return p;
}

// v times a number, rounded once or kept in two floats.
template <bool P>
DEVICE Parts times(Fine v, float x) {
  return {P ? fmaf(v.q, x, v.low * x) : v.q * x, v.n};
}

template <bool P>
DEVICE Fine fine_times(Fine v, float x, float x_low = 0.0f) {
  float q = v.q * x;
  return {{q, v.n}, P ? fmaf(v.low, x, fmaf(v.q, x, -q)) + v.q * x_low : 0.0f};
}

// exp(z + low) for z in [-172, 176].
template <bool P>
DEVICE Fine exp_parts(float z, float low = 0.0f) {
  float r = fmaf(z, LOG2E_HI, MAGIC);
  float f = fmaf(z, LOG2E_HI, MAGIC - r);
  int n = (int)(__float_as_uint(r) - __float_as_uint(MAGIC));
  if constexpr (!P) return {{ex2_ftz(f), n}, 0.0f};
  f = fmaf(z, LOG2E_LO, f);
  f = fmaf(low, LOG2E_HI, f);
  float slope = exp2_slope(f), q = fmaf(slope, f, 1.0f);
  return {{q, n}, fmaf(slope, f, 1.0f - q)};
}

// exp(-t^2 / 2) for t in [0, 18], the square in two floats.
template <bool P>
DEVICE Fine gaussian(float t) {
  float square = t * t;
  return exp_parts<P>(-0.5f * square, P ? -0.5f * fmaf(t, t, -square) : 0.0f);
}

// exp(t^2 / 2) erfc(t / sqrt(2)) / 2 for t in [0, 15]: r = 1 / (t + 3) times a polynomial in 1 - 6 r, within 2^-29.9, or 2^-18.2.
// In two floats.
template <bool P>
DEVICE Pair mills(float t) {
  constexpr float wide[] = {5.44894028e-05f, 1.31330773e-04f, -2.44730181e-04f, -1.0325741e-03f, 1.0247539e-03f,
                            6.96931127e-03f, -1.04625132e-02f, -4.72626872e-02f, 2.30017707e-01f, -5.09332001e-01f};
  constexpr float narrow[] = {1.37004012e-03f, 6.1293277e-03f, -1.07866386e-02f, -4.7033608e-02f,
                              2.30075046e-01f, -5.09349823e-01f, 7.29082525e-01f};
  float r = reciprocal<P>(t, 3.0f), q = fmaf(-6.0f, r, 1.0f);
  if constexpr (!P) return {r * horner(narrow, q), 0.0f};
  constexpr float last = 7.29083717e-01f;
  float d = t + 3.0f, r_low = fmaf(-r, t - (d - 3.0f), fmaf(-d, r, 1.0f)) * r;
  q = fmaf(fmaf(-q, t, fmaf(-3.0f, q + 1.0f, t)), r, q);
  float rest = horner(wide, q), p = fmaf(rest, q, last), p_low = fmaf(rest, q, last - p), product = r * p;
  return {product, fmaf(r, p, -product) + fmaf(r, p_low, r_low * p)};
}

// log(1 + e) / e for e in [0, 1], within 2^-27.7, or 2^-19.6.
template <bool P>
DEVICE float log1p_ratio(float e) {
  constexpr float wide[] = {-3.24398093e-03f, 1.98512636e-02f, -5.69591597e-02f, 1.06036171e-01f, -1.53055698e-01f,
                            1.96759313e-01f,  -2.49541327e-01f, 3.33299637e-01f, -4.99999017e-01f, 1.0f};
  constexpr float narrow[] = {1.41408434e-02f, -6.64012581e-02f, 1.49223268e-01f, -2.3503828e-01f,
                              3.31094414e-01f, -4.99869645e-01f, 9.99998748e-01f};
  if constexpr (P) return horner(wide, e);
  return horner(narrow, e);
}

// The logistic function of x and of -x at once: exp(-|x|) = e, and r = 1 / (1 + exp(-|x|)).
struct Logistic {
  Fine e;
  float flat, r;  // flat is e as a float
};

template <bool P>
DEVICE Logistic logistic(float t, float low = 0.0f) {  // t >= 0
  Fine e = exp_parts<P>(-t, -low);
  float flat = to_float(e);
  return {e, flat, reciprocal<P>(flat, 1.0f)};
}

// x s(z) for z of x's sign: s is the logistic function of z, t = |x|.
template <bool P>
DEVICE Parts gate_by(Logistic s, float x, float t) {
  return x < 0.0f ? times<P>(fine_times<P>(s.e, s.r), -t) : Parts{x * s.r};
}

// Its slope, given w + w_low = |x| z'.
template <bool P>
DEVICE Parts gate_by_slope(Logistic s, float x, float w, float w_low = 0.0f) {
  if (x < 0.0f) return times<P>(fine_times<P>(s.e, s.r), fmaf(-w, s.r, fmaf(-w_low, s.r, 1.0f)));
  return {fmaf(w * (s.flat * s.r), s.r, s.r)};
}

// ---- activations that several families use; `a` and `b` are its parameters

struct Plain {  // no gradients of parameters
  static constexpr int first = 0, second = 0;
};

struct Relu : Plain {
  template <bool P>
  static DEVICE Parts value(float x, const float*, const float*) {
    return {x <= 0.0f ? 0.0f : x};
  }
  template <bool P>
  static DEVICE Parts slope(float x, const float*, const float*) {
    return {x <= 0.0f ? 0.0f : 1.0f};
  }
};

struct Relu2 : Plain {
  template <bool P>
  static DEVICE Parts value(float x, const float*, const float*) {
    return {x <= 0.0f ? 0.0f : x * x};
  }
  template <bool P>
  static DEVICE Parts slope(float x, const float*, const float*) {
    return {x <= 0.0f ? 0.0f : x + x};
  }
};

struct Fatrelu : Plain {  // a[0] is the smallest number kept
  template <bool P>
  static DEVICE Parts value(float x, const float* a, const float*) {
    return {x < a[0] ? 0.0f : x};
  }
  template <bool P>
  static DEVICE Parts slope(float x, const float* a, const float*) {
    return {x < a[0] ? 0.0f : 1.0f};
  }
};

struct Silu : Plain {
  template <bool P>
  static DEVICE Parts value(float x, const float*, const float*) {
    float t = limited(x, 120.0f);
    return gate_by<P>(logistic<P>(t), x, t);
  }
  template <bool P>
  static DEVICE Parts slope(float x, const float*, const float*) {
    float t = limited(x, 120.0f);
    return gate_by_slope<P>(logistic<P>(t), x, t);
  }
};

struct Gelu : Plain {  // max(x, 0) - |x| Phi(-|x|): nothing cancels
  template <bool P>
  static DEVICE Parts value(float x, const float*, const float*) {
    float t = limited(x, 15.0f);
    Pair ratio = mills<P>(t);
    Fine e = gaussian<P>(t);
    if (x < 0.0f) return times<P>(fine_times<P>(e, ratio.high, ratio.low), -t);
    return {fmaf(-to_float(e), t * (ratio.high + ratio.low), x)};
  }
  template <bool P>
  static DEVICE Parts slope(float x, const float*, const float*) {
    float t = limited(x, 15.0f);
    Pair ratio = mills<P>(t);
    float low = P ? fmaf(0x1.857936p-27f, t, ratio.low) : 0.0f;  // of 1 / sqrt(2 pi) too
    float d = ratio.high + fmaf(-0.398942280f, t, low);
    Fine e = gaussian<P>(t);
    return x < 0.0f ? times<P>(e, d) : Parts{fmaf(-to_float(e), d, 1.0f)};
  }
};

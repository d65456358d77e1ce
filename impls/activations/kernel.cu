// Activations, element by element: cuda_common.cuh, cuda_math.cuh and cuda_elementwise.cuh stand before this, and hold
// the ones that other families use too.

struct Sigmoid : Plain {
  template <bool P>
  static DEVICE Parts value(float x, const float*, const float*) {
    Logistic s = logistic<P>(limited(x, 120.0f));
    return x < 0.0f ? times<P>(s.e, s.r) : Parts{s.r};
  }
  template <bool P>
  static DEVICE Parts slope(float x, const float*, const float*) {
    Logistic s = logistic<P>(limited(x, 120.0f));
    return times<P>(fine_times<P>(s.e, s.r), s.r);
  }
};

struct Softplus : Plain {
  template <bool P>
  static DEVICE Parts value(float x, const float*, const float*) {
    Fine e = exp_parts<P>(-limited(x, 120.0f));
    float flat = to_float(e), ratio = log1p_ratio<P>(flat);
    return x < 0.0f ? times<P>(e, ratio) : Parts{fmaf(flat, ratio, x)};
  }
  template <bool P>
  static DEVICE Parts slope(float x, const float* a, const float* b) {
    return Sigmoid::value<P>(x, a, b);
  }
};

struct Tanh : Plain {  // expm1(2t) / (expm1(2t) + 2)
  template <bool P>
  static DEVICE Parts value(float x, const float*, const float*) {
    float t = limited(x, 10.0f), z = t + t;
    float r = fmaf(z, LOG2E_HI, MAGIC);
    float f = fmaf(z, LOG2E_LO, fmaf(z, LOG2E_HI, MAGIC - r));
    float whole = power((int)(__float_as_uint(r) - __float_as_uint(MAGIC)));
    float e = fmaf(f * exp2_slope(f), whole, whole - 1.0f);
    float y = e * reciprocal<P>(e, 2.0f);
    return {t < 0.000244140625f ? x : copysignf(y, x)};
  }
  template <bool P>
  static DEVICE Parts slope(float x, const float*, const float*) {
    Logistic s = logistic<P>(2.0f * limited(x, 60.0f));
    return times<P>(fine_times<P>(s.e, s.r), 4.0f * s.r);
  }
};

struct Exp : Plain {
  template <bool P>
  static DEVICE Parts value(float x, const float*, const float*) {
    return exp_parts<P>(max_nan(min_nan(x, 100.0f), -120.0f));
  }
  template <bool P>
  static DEVICE Parts slope(float x, const float* a, const float* b) {
    return x > 88.7228394f ? Parts{INF} : value<P>(x, a, b);
  }
};

struct GeluTanh : Plain {  // x s(z), z = sqrt(8 / pi) (x + 0.044715 x^3) in two floats
  static constexpr float ONE = 0x1.988454p+0f, ONE_LOW = -0x1.857936p-25f;  // sqrt(8 / pi)
  static constexpr float CUBE = 0x1.2444f2p-4f, CUBE_LOW = 0x1.49b16ap-29f;    // 0.044715 sqrt(8 / pi)

  template <bool P>
  static DEVICE Logistic weight(float t) {
    float square = t * t, cube = CUBE * square;
    if constexpr (!P) return logistic<P>(t * (ONE + cube));
    float rest = fmaf(CUBE, square, -cube) + fmaf(CUBE, fmaf(t, t, -square), CUBE_LOW * square);
    Pair sum = two_sum(ONE, cube);
    float z = t * sum.high;
    return logistic<P>(z, fmaf(t, sum.high, -z) + t * (sum.low + (rest + ONE_LOW)));
  }
  template <bool P>
  static DEVICE Parts value(float x, const float*, const float*) {
    float t = limited(x, 12.0f);
    return gate_by<P>(weight<P>(t), x, t);
  }
  template <bool P>
  static DEVICE Parts slope(float x, const float*, const float*) {
    float t = limited(x, 12.0f);
    float square = t * t, slope = fmaf(3.0f * CUBE, square, ONE), w = t * slope;
    if constexpr (!P) return gate_by_slope<P>(weight<P>(t), x, w);
    return gate_by_slope<P>(weight<P>(t), x, w, fmaf(t, slope, -w) + t * fmaf(3.0f * CUBE, square, ONE - slope));
  }
};

struct Hermite1 : Plain {  // a: coefficients of x^7, x^5, x^3, x
  template <bool P>
  static DEVICE Parts value(float x, const float* a, const float*) {
    const float c[] = {a[0], a[1], a[2], a[3]};
    return {x * horner_of_square<P>(c, x)};
  }
  template <bool P>
  static DEVICE Parts slope(float x, const float* a, const float*) {
    const float c[] = {7.0f * a[0], 5.0f * a[1], 3.0f * a[2], a[3]};
    return {horner_of_square<P>(c, x)};
  }
};

struct Hermite : Plain {  // a: coefficients of x^3, x^2, x, 1
  template <bool P>
  static DEVICE Parts value(float x, const float* a, const float*) {
    const float c[] = {a[0], a[1], a[2], a[3]};
    return {horner(c, x)};
  }
  template <bool P>
  static DEVICE Parts slope(float x, const float* a, const float*) {
    const float c[] = {3.0f * a[0], 2.0f * a[1], a[2]};
    return {horner(c, x)};
  }
};

struct Crrelu {  // max(x, 0) + eps x exp(-x^2 / 2)
  static constexpr int first = 1, second = 0;

  template <bool P>
  static DEVICE Parts value(float x, const float* a, const float*) {
    float t = limited(x, 18.0f), v = a[0] * copysignf(t, x);
    Fine e = gaussian<P>(t);
    return x > 0.0f ? Parts{fmaf(v, to_float(e), x)} : times<P>(e, v);
  }
  template <bool P>
  static DEVICE Parts slope(float x, const float* a, const float*) {
    float t = limited(x, 18.0f), v = a[0] * fmaf(-t, t, 1.0f);
    Fine e = gaussian<P>(t);
    return x > 0.0f ? Parts{fmaf(v, to_float(e), 1.0f)} : times<P>(e, v);
  }
  template <bool P>
  static DEVICE void terms(float x, const float*, const float*, float (&t)[1]) {
    float limit = limited(x, 18.0f);
    Fine e = gaussian<P>(limit);
    t[0] = scaled({copysignf(limit, x) * e.q, e.n});
  }
};

struct PolyRelu {  // w0 r^3 + w1 r^2 + w2 r + b, r = max(x, 0)
  static constexpr int first = 3, second = 1;

  template <bool P>
  static DEVICE Parts value(float x, const float* a, const float* b) {
    const float c[] = {a[0], a[1], a[2], b[0]};
    return {x <= 0.0f ? b[0] : horner(c, x)};
  }
  template <bool P>
  static DEVICE Parts slope(float x, const float* a, const float*) {
    const float c[] = {3.0f * a[0], 2.0f * a[1], a[2]};
    return {x <= 0.0f ? 0.0f : horner(c, x)};
  }
  template <bool P>
  static DEVICE void terms(float x, const float*, const float*, float (&t)[4]) {
    float r = x <= 0.0f ? 0.0f : x;
    t[0] = r * r * r, t[1] = r * r, t[2] = r, t[3] = 1.0f;
  }
};

// P(x) / Q(x), degrees 5 and 4. Version A: Q = 1 + sum |b_j x^j|; B: 1 + |sum b_j x^j|; C: 0.1 + |sum b_j x^j|, j from 0;
// N: 1 + sum b_j x^j. From 2^16 on, where x^5 might overflow, both are taken of v = 1 / x, with their coefficients reversed.
template <char Version>
struct Rational {
  static constexpr int first = 6, second = Version == 'C' ? 5 : 4;

  struct At {  // Q, P / Q, and the slope of P / Q in v
    float v, q, ratio, slope, sign;
  };

  template <bool P, bool Far>
  static DEVICE At at(float x, const float* a, const float* b) {
    At r;
    r.v = Far ? 1.0f / x : x;
    float c[6], d[5];
    for (int i = 0; i < 6; ++i) c[i] = a[Far ? i : 5 - i];
    for (int j = 0; j < 5; ++j) {
      int from = Far ? j : 4 - j;  // the power of x that b's element goes with
      float each = Version == 'C' ? b[from] : from ? b[from - 1] : 0.0f;
      d[j] = Version == 'A' ? fabsf(each) : each;
    }
    float s = Version == 'A' ? fabsf(r.v) : r.v;
    float sum = horner(d, s);
    const float dc[] = {5.0f * c[0], 4.0f * c[1], 3.0f * c[2], 2.0f * c[3]};
    const float dd[] = {4.0f * d[0], 3.0f * d[1], 2.0f * d[2], d[3]};
    r.sign = Version == 'A' || Version == 'N' || sum > 0.0f ? 1.0f : sum < 0.0f ? -1.0f : 0.0f;
    float cube = r.v * r.v * r.v, one = Version == 'C' ? 0.1f : 1.0f;
    r.q = (Far ? one * cube * r.v : one) + (Version == 'N' ? sum : fabsf(sum));
    float along = Version == 'A' ? (r.v < 0.0f ? -1.0f : r.v > 0.0f ? 1.0f : 0.0f) : r.sign;
    float dq = along * horner(dd, s) + (Far ? 4.0f * one * cube : 0.0f);
    r.ratio = divide<P>(horner(c, r.v), r.q);
    r.slope = divide<P>(c[4] + fmaf(horner(dc, r.v), r.v, -r.ratio * dq), r.q);  // near 0 the first term is all but alone
    return r;
  }
  static DEVICE float sign(float b) { return Version != 'A' ? 1.0f : b > 0.0f ? 1.0f : b < 0.0f ? -1.0f : 0.0f; }
  static DEVICE bool far(float x) { return fabsf(x) > 65536.0f; }

  template <bool P>
  static DEVICE Parts value(float x, const float* a, const float* b) {
    if (far(x)) return {x * at<P, true>(x, a, b).ratio};
    return {at<P, false>(x, a, b).ratio};
  }
  template <bool P>
  static DEVICE Parts slope(float x, const float* a, const float* b) {
    if (!far(x)) return {at<P, false>(x, a, b).slope};
    At r = at<P, true>(x, a, b);
    return {fmaf(-r.v, r.slope, r.ratio)};
  }
  template <bool P, bool Far>
  static DEVICE void terms_at(float x, const float* a, const float* b, float (&t)[first + second]) {
    At r = at<P, Far>(x, a, b);
    float inverse = divide<P>(1.0f, r.q), each = inverse;
    for (int i = 0; i < 5; ++i, each *= r.v) t[Far ? 4 - i : i] = each;
    t[5] = Far ? x * inverse : each;
    const float size = Version == 'A' ? fabsf(r.v) : r.v, turn = Version == 'A' && Far ? copysignf(1.0f, x) : 1.0f;
    each = -r.ratio * inverse * r.sign;
    for (int j = 0; j < 5; ++j) {  // far away x^j / x^3, whose size is that of v^(3 - j)
      const int power = Far ? 3 - j : j, to = Version == 'C' ? power : power - 1;
      if (to >= 0) t[first + to] = turn * sign(b[to]) * each;
      if (Far && j == 0) t[first + second - 1] = sign(b[second - 1]) * each * x;
      each *= size;
    }
  }
  template <bool P>
  static DEVICE void terms(float x, const float* a, const float* b, float (&t)[first + second]) {
    if (far(x))
      terms_at<P, true>(x, a, b, t);
    else
      terms_at<P, false>(x, a, b, t);
  }
};

typedef Rational<'A'> RationalA;
typedef Rational<'B'> RationalB;
typedef Rational<'C'> RationalC;
typedef Rational<'N'> RationalN;

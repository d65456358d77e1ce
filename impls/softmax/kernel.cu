// Softmax, log_softmax and logsumexp over rows, forward and backward, for float32, float16 and bfloat16.
//
// Four ways to own a row: some lanes of a warp (warp_per_row), a block that holds the row in registers or shared memory
// (block_per_row), a cluster of blocks whose shared memories hold it together (cluster_per_row), many blocks that each hold a
// chunk (partials, combine, write_rows). All share one arithmetic:
//
//   exp(x) = 2^f * 2^n,  n = rint(x * log2(e)),  f = x * log2(e) - n by two FMAs with log2(e) in two parts
//
// and a row's reference is an integer N, so that 2^(n - N) is exact where x - max would round. Far from zero, where n would
// not fit, a multiple of 256 near the maximum is subtracted first: that difference is exact wherever exp() is not 0.
// float32 evaluates 2^f by a polynomial, because the documented error of ex2.approx (2^-22) would enter numerator and sum
// alike; the 16-bit types, whose outputs round at 2^-9 and 2^-12, use ex2.approx. The file is compiled without FMA
// contraction: what is fused says so.

// ---- the exponential

constexpr float FLUSH = 105.0f;      // exp(-105) < 2^-151: below half the smallest denormal
constexpr float CENTRED = 1024.0f;   // from this maximum on, a multiple of 256 is subtracted first

// What a row's exponentials are taken relative to: center + exponent * ln(2) is within half a bit of the maximum.
struct Reference {
  float center, exponent, floor;
};

DEVICE Reference reference(float max) {
  float center = fabsf(max) >= CENTRED ? 256.0f * rintf(max * 0.00390625f) : 0.0f;
  float top = max - center;
  return {center, rintf(top * LOG2E_HI), top - FLUSH};
}

// exp(x) relative to the reference, times 2^BIAS; what the output would round to 0 becomes too small to matter.
template <class T>
struct Exp {
  static constexpr float BIAS = T::precise ? 32.0f : 16.0f;  // room below for denormal outputs
  float center, shift, floor;

  DEVICE Exp() {}
  DEVICE explicit Exp(Reference r)
      : center(r.center), shift(T::precise ? MAGIC + BIAS - r.exponent : BIAS - r.exponent), floor(r.floor) {}

  DEVICE float operator()(float x) const {
    if constexpr (T::precise) {
      float t = fmaxf(x - center, floor);
      float r = fmaf(t, LOG2E_HI, shift);
      float f = fmaf(t, LOG2E_HI, shift - r);
      f = fmaf(t, LOG2E_LO, f);
      return scale_exponent(exp2_fraction(f), __float_as_uint(r));
    } else {
      return ex2_ftz(fmaf(x - center, LOG2E_HI, shift));
    }
  }
};

// exp(t + low) for any t as a product of two floats, so that the caller multiplies it in with one rounding even where the
// exponential alone would be denormal. -inf gives an exact 0, NaN gives NaN.
struct Product {
  float first, second;
};

template <class T>
DEVICE Product exp_product(float t, float low) {
  float clamped = fminf(fmaxf(t, -FLUSH), 90.0f);
  Product p;
  if constexpr (T::precise) {
    float r = fmaf(clamped, LOG2E_HI, MAGIC);
    float f = fmaf(clamped, LOG2E_HI, MAGIC - r);
    f = fmaf(clamped, LOG2E_LO, f);
    f = fmaf(low, LOG2E_HI, f);
    int n = (int)(__float_as_uint(r) - __float_as_uint(MAGIC));
    int half = n >> 1;
    p.first = scale_exponent(exp2_fraction(f), (u32)half);
    p.second = scale_exponent(1.0f, (u32)(n - half));
  } else {
    p.first = ex2(fmaf(clamped, LOG2E_HI, low * LOG2E_HI));
    p.second = 1.0f;
  }
  if (!(t > -FLUSH)) p.first = t != t ? t : 0.0f;
  return p;
}

// Sums what Exp gives. float32 keeps each addition's error: the sum starts above every term, so three operations are enough.
template <class T>
struct SumOfExps {
  static constexpr float START = 0x1p+33f;  // above 2^(BIAS + 1/2)
  float sum = T::precise ? START : 0.0f, error = 0.0f;

  DEVICE void add(const float (&e)[T::lanes]) {
    if constexpr (T::precise) {
      for (int k = 0; k < T::lanes; ++k) {
        float next = sum + e[k];
        error += e[k] - (next - sum);
        sum = next;
      }
    } else {
      sum += tree(e);
    }
  }
  DEVICE Pair result() const { return {T::precise ? sum - START : sum, error}; }
};

// ---- the operators: what a chunk contributes, what a row needs to know, and its outputs

struct Partial {
  float max;
  Pair sum;
};

struct Row {  // what the outputs of a row are computed from
  Reference reference;
  float a, b;
};

template <class T>
struct Forward {
  static constexpr int inputs = 1;
  static constexpr bool reduces = true, keeps = false, scalar = false;
  static DEVICE float fill() { return -INF; }  // exp(-inf) adds nothing

  template <bool Keep, class Hold, class Group>
  static DEVICE Partial reduce(Hold& hold, Group group) {
    float max = -INF;
    hold.each([&](int, uint4& v, uint4&) {
      float x[T::lanes];
      T::unpack(v, x);
      for (int k = 0; k < T::lanes; ++k) max = max_nan(max, x[k]);
    });
    max = group.reduce(max);
    const Exp<T> exp(reference(max));
    SumOfExps<T> sum;
    hold.each([&](int, uint4& v, uint4&) {
      float e[T::lanes];
      T::unpack(v, e);
      for (int k = 0; k < T::lanes; ++k) e[k] = exp(e[k]);
      sum.add(e);
      if constexpr (Keep) v = T::pack(e);
    });
    return {max, group.reduce(sum.result())};
  }

  // A chunk's sum in units of the row's reference.
  static DEVICE Pair rescale(Partial p, float max) {
    if (p.max == -INF) return {0.0f, 0.0f};
    Reference from = reference(p.max), to = reference(max);
    float t = fmaxf(from.center - to.center, -4096.0f);
    float n = rintf(t * LOG2E_HI);
    float f = fmaf(t, LOG2E_LO, fmaf(t, LOG2E_HI, -n));
    n = fmaxf(n + (from.exponent - to.exponent), -126.0f);
    float factor = t == 0.0f ? 1.0f : exp2_fraction(f);
    float power = scale_exponent(1.0f, (u32)(int)n);
    Pair product = {p.sum.high * factor, 0.0f};
    product.low = fmaf(p.sum.high, factor, -product.high) + p.sum.low * factor;
    return {product.high * power, product.low * power};
  }
};

DEVICE bool finite(float x) { return fabsf(x) < INF; }

DEVICE float not_a_number() { return __uint_as_float(0x7fffffffu); }

// The logarithm of a row's sum, relative to its center, as a pair.
template <class T>
DEVICE Pair log_of_sum(Reference r, Pair sum) {
  Pair s = two_sum(sum.high, sum.low);
  int k = (int)(__float_as_uint(s.high) - 0x3f400000u) >> 23;  // s = m * 2^k with m in [3/4, 3/2)
  float m = scale_exponent(s.high, (u32)-k);
  float log_m = logf(m) + s.low * scale_exponent(1.0f, (u32)-k) / m;
  float q = r.exponent + ((float)k - Exp<T>::BIAS);
  return two_sum(q * LN2_HI, fmaf(q, LN2_LO, log_m));
}

template <class T>
struct SoftmaxForward : Forward<T> {
  static constexpr bool keeps = T::precise;  // the exponentials replace the inputs on chip

  static DEVICE Row row(Partial p) {
    Pair s = two_sum(p.sum.high, p.sum.low);
    float inverse = 1.0f / s.high;
    float rest = inverse * fmaf(-inverse, s.low, fmaf(-inverse, s.high, 1.0f));
    if (!finite(p.max)) inverse = not_a_number();
    return {reference(p.max), inverse, rest};
  }
  static DEVICE float scaled(const Row& r, float e) { return T::precise ? fmaf(e, r.a, e * r.b) : e * r.a; }

  template <bool Kept>
  struct Output {
    Row r;
    Exp<T> exp;
    DEVICE explicit Output(const Row& r) : r(r), exp(r.reference) {}
    DEVICE float operator()(float x, float) const { return scaled(r, Kept ? x : exp(x)); }
  };
};

template <class T>
struct LogSoftmaxForward : Forward<T> {
  static DEVICE Row row(Partial p) {
    Reference r = reference(p.max);
    Pair log = log_of_sum<T>(r, p.sum);
    return {r, finite(p.max) ? log.high : not_a_number(), log.low};
  }

  template <bool Kept>
  struct Output {
    Row r;
    DEVICE explicit Output(const Row& r) : r(r) {}
    DEVICE float operator()(float x, float) const { return ((x - r.reference.center) - r.a) - (finite(x) ? r.b : 0.0f); }
  };
};

template <class T>
struct LogSumExpForward : Forward<T> {
  static constexpr bool scalar = true;

  static DEVICE Row row(Partial p) {
    Reference r = reference(p.max);
    Pair log = log_of_sum<T>(r, p.sum);
    Pair sum = two_sum(r.center, log.high);
    return {r, finite(p.max) ? sum.high + (sum.low + log.low) : p.max, 0.0f};
  }
};

// Backward passes reduce a sum over the row: of y * dy, or of dy.
template <class T, bool Products>
struct Backward {
  static constexpr int inputs = 2;
  static constexpr bool reduces = true, keeps = false, scalar = false;
  static DEVICE float fill() { return 0.0f; }

  template <bool Keep, class Hold, class Group>
  static DEVICE Partial reduce(Hold& hold, Group group) {
    Sum<T> sum;
    hold.each([&](int, uint4& u, uint4& v) {
      float y[T::lanes], dy[T::lanes];
      T::unpack(u, y);
      T::unpack(v, dy);
      if constexpr (Products)
        for (int k = 0; k < T::lanes; ++k) dy[k] *= y[k];
      sum.add(dy);
    });
    return {0.0f, group.reduce(sum.result())};
  }
  static DEVICE Pair rescale(Partial p, float) { return p.sum; }

  static DEVICE Row row(Partial p) {  // an infinite sum's correction is NaN: drop it
    float low = finite(p.sum.high) ? p.sum.low : 0.0f;
    return {Reference{0.0f, 0.0f, 0.0f}, p.sum.high, low};
  }
};

template <class T>
struct SoftmaxBackward : Backward<T, true> {
  template <bool Kept>
  struct Output {
    Row r;
    DEVICE explicit Output(const Row& r) : r(r) {}
    DEVICE float operator()(float y, float dy) const { return y * ((dy - r.a) - r.b); }
  };
};

template <class T>
struct LogSoftmaxBackward : Backward<T, false> {
  template <bool Kept>
  struct Output {
    float sum;
    DEVICE explicit Output(const Row& r) : sum(r.a + r.b) {}
    DEVICE float operator()(float y, float dy) const {
      Product p = exp_product<T>(y, 0.0f);
      return fmaf(-(p.first * sum), p.second, dy);
    }
  };
};

template <class T>
struct LogSumExpBackward {
  static constexpr int inputs = 1;
  static constexpr bool reduces = false, keeps = false, scalar = false;
  static DEVICE float fill() { return 0.0f; }

  static DEVICE Row row(float lse, float dlse) { return {Reference{0.0f, 0.0f, 0.0f}, lse, dlse}; }

  template <bool Kept>
  struct Output {
    Row r;
    DEVICE explicit Output(const Row& r) : r(r) {}
    DEVICE float operator()(float x, float) const {
      Pair t = two_sum(x, -r.a);
      Product p = exp_product<T>(t.high, t.low);
      return p.first * r.b * p.second;
    }
  };
};

// ---- the kernels. All take the same arguments; lengths and strides are in elements.

#define ARGUMENTS                                                                                                              \
  typename T::Bits *a_data, Index a_row, Index a_step, typename T::Bits *b_data, Index b_row, Index b_step,                    \
      typename T::Bits *out_data, Index out_row, Index out_step, typename T::Bits *lse, Index lse_step,                        \
      typename T::Bits *dlse, Index dlse_step, float *work, Index rows, Index n, Index chunks

// Writes the outputs of what is on chip.
template <class Op, class T, bool Kept, class Hold>
DEVICE void write(Hold& hold, const Window<T>& out, const Row& row) {
  const typename Op::template Output<Kept> output(row);
  hold.each([&](int v, uint4& first, uint4& second) {
    float x[T::lanes], y[T::lanes];
    T::unpack(first, x);
    if constexpr (Op::inputs == 2) T::unpack(second, y);
    for (int k = 0; k < T::lanes; ++k) x[k] = output(x[k], y[k]);
    out.store(v, x);
  });
}

// A row that a group holds on chip, or of which each block of a cluster holds a span.
template <class Op, class T, class Group, class Hold>
DEVICE void on_chip(Hold& hold, const Span<T>& span, bool there, ARGUMENTS) {
  const Rows<T> a = {a_data, a_row, a_step}, b = {b_data, b_row, b_step}, out = {out_data, out_row, out_step};
  const Index r = span.r;
  hold.load(Window<T>(a, span), Op::inputs == 2 ? Window<T>(b, span) : Window<T>(), Op::fill());
  Row row;
  if constexpr (Op::reduces)
    row = Op::row(Op::template reduce<Op::keeps>(hold, Group()));
  else
    row = there ? Op::row(T::value(lse[r * lse_step]), T::value(dlse[r * dlse_step])) : Row();
  if constexpr (Op::scalar) {
    if (there && Group::leads()) out_data[r * out_row] = T::round(row.a);
  } else {
    write<Op, T, Op::keeps>(hold, Window<T>(out, span), row);
  }
}

#define PASS                                                                                                            \
  a_data, a_row, a_step, b_data, b_row, b_step, out_data, out_row, out_step, lse, lse_step, dlse, dlse_step, work, rows, n, \
      chunks

// `Lanes` neighbouring lanes hold a row, K vectors each; 128 threads a block.
template <template <class> class Operator, class T, int Lanes, int K>
__global__ void __launch_bounds__(128) warp_per_row(ARGUMENTS) {
  typedef Operator<T> Op;
  typedef WarpGroup<Lanes> Group;
  Registers<T, Group, Op::inputs, K> hold;
  Index r = (Index)blockIdx.x * (128 / Lanes) + threadIdx.x / Lanes;
  bool there = r < rows;  // lanes beyond the last row still take part in the shuffles
  on_chip<Op, T, Group>(hold, Span<T>::row({a_data, a_row, a_step}, there ? r : 0, there ? n : 0), there, PASS);
}

// A block holds a row: K vectors a thread in registers, or in dynamic shared memory when K is 0.
template <template <class> class Operator, class T, int Threads, int K, int Blocks>
__global__ void __launch_bounds__(Threads, Blocks) block_per_row(ARGUMENTS) {
  typedef Operator<T> Op;
  typedef BlockGroup<Threads> Group;
  const Span<T> span = Span<T>::row({a_data, a_row, a_step}, blockIdx.x, n);
  if constexpr (K > 0) {
    Registers<T, Group, Op::inputs, K> hold;
    on_chip<Op, T, Group>(hold, span, true, PASS);
  } else {
    Shared<T, Group, Op::inputs> hold;
    on_chip<Op, T, Group>(hold, span, true, PASS);
  }
}

// `Blocks` blocks of a cluster share a row, each holding `chunks` vectors of it in dynamic shared memory.
#ifdef CLUSTERS
template <template <class> class Operator, class T, int Threads, int Blocks>
__global__ void __cluster_dims__(Blocks, 1, 1) __launch_bounds__(Threads) cluster_per_row(ARGUMENTS) {
  typedef Operator<T> Op;
  typedef ClusterGroup<Threads, Blocks> Group;
  Shared<T, Group, Op::inputs> hold;
  on_chip<Op, T, Group>(hold, Span<T>::chunk({a_data, a_row, a_step}, blockIdx.x / Blocks, n, cluster_rank(), chunks), true, PASS);
  cluster_sync();  // a block's shared memory must outlast its neighbours' reading
}
#endif

// The online scheme in three kernels. `work` holds 4 floats a chunk (maximum, sum, its error), then 8 floats a row.
template <template <class> class Operator, class T, int Threads, int K>
__global__ void __launch_bounds__(Threads) partials(ARGUMENTS) {
  typedef Operator<T> Op;
  typedef BlockGroup<Threads> Group;
  Index r = blockIdx.x / (u32)chunks, chunk = blockIdx.x % (u32)chunks;
  const Rows<T> a = {a_data, a_row, a_step}, b = {b_data, b_row, b_step};
  const Span<T> span = Span<T>::chunk(a, r, n, chunk, Threads * K);
  Registers<T, Group, Op::inputs, K> hold;
  hold.load(Window<T>(a, span), Op::inputs == 2 ? Window<T>(b, span) : Window<T>(), Op::fill());
  Partial p = Op::template reduce<false>(hold, Group());
  if (threadIdx.x == 0) {
    float* to = work + (Index)blockIdx.x * 4;
    to[0] = p.max, to[1] = p.sum.high, to[2] = p.sum.low;
  }
}

template <template <class> class Operator, class T, int Threads>
__global__ void __launch_bounds__(Threads) combine(ARGUMENTS) {  // one block a row, always the same order
  typedef Operator<T> Op;
  typedef BlockGroup<Threads> Group;
  Index r = blockIdx.x;
  const float* from = work + r * chunks * 4;
  float max = -INF;
  for (Index c = threadIdx.x; c < chunks; c += Threads) max = max_nan(max, from[4 * c]);
  max = Group::reduce(max);
  Pair sum = {0.0f, 0.0f};
  for (Index c = threadIdx.x; c < chunks; c += Threads)
    sum = merge(sum, Op::rescale(Partial{from[4 * c], {from[4 * c + 1], from[4 * c + 2]}}, max));
  sum = Group::reduce(sum);
  if (threadIdx.x == 0) {
    Row row = Op::row(Partial{max, sum});
    if constexpr (Op::scalar)
      out_data[r * out_row] = T::round(row.a);
    else
      *(Row*)(work + rows * chunks * 4 + r * 8) = row;
  }
}

// Walks backwards, over what the first kernel read last and the L2 cache may still hold.
template <template <class> class Operator, class T, int Threads, int K>
__global__ void __launch_bounds__(Threads) write_rows(ARGUMENTS) {
  typedef Operator<T> Op;
  u32 block = gridDim.x - 1 - blockIdx.x;
  Index r = block / (u32)chunks, chunk = block % (u32)chunks;
  const Rows<T> a = {a_data, a_row, a_step}, b = {b_data, b_row, b_step}, out = {out_data, out_row, out_step};
  const Span<T> span = Span<T>::chunk(a, r, n, chunk, Threads * K);
  Registers<T, BlockGroup<Threads>, Op::inputs, K> hold;
  hold.load(Window<T>(a, span), Op::inputs == 2 ? Window<T>(b, span) : Window<T>(), Op::fill());
  Row row;
  if constexpr (Op::reduces)
    row = *(const Row*)(work + rows * chunks * 4 + r * 8);
  else
    row = Op::row(T::value(lse[r * lse_step]), T::value(dlse[r * dlse_step]));
  write<Op, T, false>(hold, Window<T>(out, span), row);
}

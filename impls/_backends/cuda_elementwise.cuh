// ---- one thread, 16 bytes: the kernels of all elementwise activations. cuda_common.cuh and cuda_math.cuh stand before this
//
// `map` writes one or two outputs of up to three inputs. `map_and_sum` also sums the terms of the gradients of parameters: a
// block sums what it owns, which depends on the size alone, and `totals` adds the blocks' sums in a fixed order. `columns`
// sums down the columns of a matrix instead, `column_totals` adds its chunks. There is no atomic anywhere.
// All kernels take the same arguments; lengths and strides are in elements.

constexpr int THREADS = 256;

#define ARGUMENTS                                                                                                              \
  typename T::Bits *x0, Index x0_row, Index x0_step, typename T::Bits *x1, Index x1_row, Index x1_step, typename T::Bits *x2,  \
      Index x2_row, Index x2_step, typename T::Bits *y0, Index y0_row, Index y0_step, typename T::Bits *y1, Index y1_row,      \
      Index y1_step, const float *a, const float *b, void *da, void *db, double *work, Index rows, Index n, Index groups,      \
      Index blocks, Index each

// A matrix in memory, read and written 16 bytes at a time where it is aligned so, else element by element.
template <class T>
struct Matrix {
  typedef typename T::Bits Bits;
  Bits* data;
  Index row, step;
  bool wide;

  DEVICE Matrix(Bits* p, Index row, Index step, Index rows) : data(p), row(row), step(step) {
    wide = step == 1 && (unsigned long long)p % 16 == 0 && (rows == 1 || row % T::lanes == 0);
  }
  DEVICE uint4 load(Index r, Index i, Index count) const {
    const Bits* p = data + r * row + i * step;
    if (wide && count >= T::lanes) return load16(p);
    uint4 v = make_uint4(0, 0, 0, 0);
#pragma unroll 1
    for (int k = 0; k < T::lanes; ++k) v = T::push(v, k < count ? p[k * step] : (Bits)0);
    return v;
  }
  DEVICE void store(Index r, Index i, Index count, const float (&y)[T::lanes]) const {
    Bits* p = data + r * row + i * step;
    uint4 v = T::pack(y);
    if (wide && count >= T::lanes) {
      store16(p, v);
    } else {
#pragma unroll 1
      for (int k = 0; k < T::lanes; ++k) {
        if (k < count) p[k * step] = (Bits)v.x;
        v = T::push(v, 0);
      }
    }
  }
};

// The vectors of a matrix, counted along its rows.
template <class T>
struct Place {
  Index r, i, count;  // row, first element, and how many from there to the row's end: none when out of range

  static DEVICE Place of(Index base, u32 offset, Index rows, Index n) {
    if (rows == 1) {
      Index i = (base + offset) * T::lanes;
      return {0, i, n - i};
    }
    Index each = (n + T::lanes - 1) / T::lanes, first = base / each;
    u32 rest = (u32)(base - first * each) + offset, down = rest / (u32)each;
    Index i = (Index)(rest - down * (u32)each) * T::lanes;
    return {first + down, i, first + down < rows ? n - i : 0};
  }
};

// What is computed of an element: values of f, their products with gradients, gated products.
template <class A>
struct Forward {
  static constexpr int inputs = 1, outputs = 1, terms = 0;
  template <bool P>
  static DEVICE void apply(const float (&x)[3], float (&y)[2], const float* a, const float* b) {
    y[0] = scaled(A::template value<P>(x[0], a, b));
  }
};

template <class A>
struct Backward {
  static constexpr int inputs = 2, outputs = 1, terms = A::first + A::second;
  template <bool P>
  static DEVICE void apply(const float (&x)[3], float (&y)[2], const float* a, const float* b) {
    y[0] = scaled(A::template slope<P>(x[0], a, b), x[1]);
  }
  template <bool P, int N>
  static DEVICE void sum(const float (&x)[3], float (&sums)[N], const float* a, const float* b) {
    float t[N];
    A::template terms<P>(x[0], a, b, t);
    for (int j = 0; j < N; ++j) sums[j] = fmaf(x[1], t[j], sums[j]);
  }
};

template <class A>
struct Gated {
  static constexpr int inputs = 2, outputs = 1, terms = 0;
  template <bool P>
  static DEVICE void apply(const float (&x)[3], float (&y)[2], const float* a, const float* b) {
    y[0] = scaled(A::template value<P>(x[0], a, b), x[1]);
  }
};

template <class A>
struct GatedBackward {
  static constexpr int inputs = 3, outputs = 2, terms = 0;
  template <bool P>
  static DEVICE void apply(const float (&x)[3], float (&y)[2], const float* a, const float* b) {
    y[0] = scaled(A::template slope<P>(x[0], a, b), x[1] * x[2]);
    y[1] = scaled(A::template value<P>(x[0], a, b), x[2]);
  }
};

template <class F, class T>
struct Vectors {  // one vector of each input; all loads of a thread are on their way before the first is used
  uint4 v[F::inputs];

  DEVICE void load(const Matrix<T> (&in)[3], Place<T> at) {
    for (int j = 0; j < F::inputs; ++j)
      v[j] = at.count > 0 ? in[j].load(at.r, at.i, at.count) : make_uint4(0, 0, 0, 0);
  }
  template <class Visit>
  DEVICE void each(Visit visit) {
    float x[3][T::lanes];
    for (int j = 0; j < F::inputs; ++j) T::unpack(v[j], x[j]);
#pragma unroll
    for (int k = 0; k < T::lanes; ++k) {
      float element[3];
      for (int j = 0; j < F::inputs; ++j) element[j] = x[j][k];
      visit(k, element);
    }
  }
  DEVICE void write(const Matrix<T> (&out)[2], Place<T> at, const float* a, const float* b) {
    float y[2][T::lanes];
    each([&](int k, const float(&x)[3]) {
      float result[2];
      F::template apply<T::precise>(x, result, a, b);
      for (int j = 0; j < F::outputs; ++j) y[j][k] = result[j];
    });
    for (int j = 0; j < F::outputs; ++j)
      if (at.count > 0) out[j].store(at.r, at.i, at.count, y[j]);
  }
};

#define MATRICES(SHIFT)                                                                                                        \
  const Matrix<T> in[3] = {{x0 + (SHIFT) * x0_step, x0_row, x0_step, rows},                                                    \
                           {x1 + (SHIFT) * x1_step, x1_row, x1_step, rows},                                                    \
                           {x2 + (SHIFT) * x2_step, x2_row, x2_step, rows}};                                                   \
  const Matrix<T> out[2] = {{y0 + (SHIFT) * y0_step, y0_row, y0_step, rows}, {y1 + (SHIFT) * y1_step, y1_row, y1_step, rows}}

// `groups` matrices of n columns lie side by side; each has b's next `each` elements.
template <class F, class T, int K>
__global__ void __launch_bounds__(THREADS) map(ARGUMENTS) {
  const Index group = groups == 1 ? 0 : blockIdx.x / (u32)blocks, block = groups == 1 ? blockIdx.x : blockIdx.x % (u32)blocks;
  MATRICES(group * n);
  Place<T> at[K];
  Vectors<F, T> v[K];
#pragma unroll
  for (int k = 0; k < K; ++k) at[k] = Place<T>::of(block * (THREADS * K), k * THREADS + threadIdx.x, rows, n);
#pragma unroll
  for (int k = 0; k < K; ++k) v[k].load(in, at[k]);
#pragma unroll
  for (int k = 0; k < K; ++k) v[k].write(out, at[k], a, b + group * each);
}

DEVICE double sum_of(Pair p) { return fabsf(p.high) < INF ? (double)p.high + (double)p.low : (double)p.high; }

// Term j of group g by block i goes to work[(j * groups + g) * blocks + i]; a block owns every blocks-th tile.
template <class F, class T, int K>
__global__ void __launch_bounds__(THREADS, 2) map_and_sum(ARGUMENTS) {
  const Index group = blockIdx.x / (u32)blocks, block = blockIdx.x % (u32)blocks;
  MATRICES(group * n);
  const float* own = b + group * each;
  const Index vectors = rows * ((n + T::lanes - 1) / T::lanes);
  Pair sums[F::terms];
  for (int j = 0; j < F::terms; ++j) sums[j] = {0.0f, 0.0f};
  for (Index base = block * (THREADS * K); base < vectors; base += blocks * (THREADS * K)) {
    Place<T> at[K];
    Vectors<F, T> v[K];
#pragma unroll
    for (int k = 0; k < K; ++k) at[k] = Place<T>::of(base, k * THREADS + threadIdx.x, rows, n);
#pragma unroll
    for (int k = 0; k < K; ++k) v[k].load(in, at[k]);
#pragma unroll
    for (int k = 0; k < K; ++k) {
      float partial[F::terms];
      for (int j = 0; j < F::terms; ++j) partial[j] = 0.0f;
      v[k].each([&](int lane, const float(&x)[3]) {
        if (lane < at[k].count) F::template sum<T::precise>(x, partial, a, own);
      });
      for (int j = 0; j < F::terms; ++j) sums[j] = merge(sums[j], Pair{partial[j], 0.0f});
      v[k].write(out, at[k], a, own);
    }
  }
  __shared__ Pair scratch[F::terms][THREADS / 32];
  for (int j = 0; j < F::terms; ++j) {
    Pair sum = WarpGroup<32>::reduce(sums[j]);
    if (threadIdx.x % 32 == 0) scratch[j][threadIdx.x / 32] = sum;
  }
  __syncthreads();
  if (threadIdx.x < F::terms) {
    double sum = 0.0;
    for (int warp = 0; warp < THREADS / 32; ++warp) sum += sum_of(scratch[threadIdx.x][warp]);
    work[(threadIdx.x * groups + group) * blocks + block] = sum;
  }
}

// One block adds `count` doubles, in an order that depends on `count` alone; the result stands in thread 0.
DEVICE double sum_doubles(const double* from, Index count) {
  __shared__ double scratch[THREADS];
  double sum = 0.0;
#pragma unroll 4
  for (Index i = threadIdx.x; i < count; i += THREADS) sum += from[i];
  scratch[threadIdx.x] = sum;
  for (int half = THREADS / 2; half; half >>= 1) {
    __syncthreads();
    if (threadIdx.x < half) scratch[threadIdx.x] += scratch[threadIdx.x + half];
  }
  return scratch[0];
}

// One block for each of the `First` elements of da, then for each of the groups' elements of db.
template <class T, int First>
__global__ void __launch_bounds__(THREADS) totals(ARGUMENTS) {
  const Index c = blockIdx.x;
  const bool leads = threadIdx.x == 0;
  if (c < First) {
    double sum = sum_doubles(work + c * groups * blocks, groups * blocks);
    if (leads) ((float*)da)[c] = (float)sum;
  } else {
    const Index group = (c - First) % groups, j = (c - First) / groups;
    double sum = sum_doubles(work + ((First + j) * groups + group) * blocks, blocks);
    if (leads) ((float*)db)[group * each + j] = (float)sum;
  }
}

// ---- sums down the columns: 32 threads side by side own a vector each, 8 share the rows of a chunk

// The bias is `a`; the gradient is also that of the bias.
template <class A>
struct Biased : Forward<A> {
  static constexpr bool biased = true, sums = false;
};

template <class A>
struct BiasedBackward : Backward<A> {
  static constexpr bool biased = true, sums = true;  // to float32 whatever the type
  static DEVICE float term(float y) { return y; }
};

template <class A>
struct Counted : Forward<A> {  // how many outputs are 0
  static constexpr bool biased = false, sums = true;
  static DEVICE float term(float y) { return y == 0.0f ? 1.0f : 0.0f; }
};

// A chunk is `each` rows; a strip 32 vectors of columns. Column i's sum over a chunk goes to work[chunk * n + i].
template <class F, class T>
__global__ void __launch_bounds__(THREADS) columns(ARGUMENTS) {
  constexpr int DEEP = THREADS / 32, AHEAD = 4;
  const u32 strips = (u32)((n + 32 * T::lanes - 1) / (32 * T::lanes));
  const Index chunk = blockIdx.x / strips, i = ((Index)(blockIdx.x % strips) * 32 + threadIdx.x % 32) * T::lanes;
  const Index end = (chunk + 1) * each < rows ? (chunk + 1) * each : rows;
  MATRICES(0);
  Pair sums[T::lanes];
  float bias[T::lanes];
  for (int k = 0; k < T::lanes; ++k) {
    sums[k] = {0.0f, 0.0f};
    bias[k] = F::biased && i + k < n ? a[i + k] : 0.0f;
  }
  for (Index r = chunk * each + threadIdx.x / 32; r < end; r += DEEP * AHEAD) {
    Place<T> at[AHEAD];
    Vectors<F, T> v[AHEAD];
#pragma unroll
    for (int k = 0; k < AHEAD; ++k) {
      at[k] = {r + k * DEEP, i, r + k * DEEP < end ? n - i : 0};
      v[k].load(in, at[k]);
    }
#pragma unroll
    for (int k = 0; k < AHEAD; ++k) {
      float y[T::lanes];
      v[k].each([&](int lane, float(&x)[3]) {
        float result[2];
        if constexpr (F::biased) x[0] += bias[lane];
        F::template apply<T::precise || (F::biased && F::sums)>(x, result, a, b);
        y[lane] = result[0];
        if constexpr (F::sums)
          if (at[k].count > 0) sums[lane] = merge(sums[lane], Pair{F::term(result[0]), 0.0f});
      });
      if (at[k].count > 0) out[0].store(at[k].r, i, at[k].count, y);
    }
  }
  if constexpr (F::sums) {
    __shared__ double scratch[DEEP][T::lanes][32];
    for (int k = 0; k < T::lanes; ++k) scratch[threadIdx.x / 32][k][threadIdx.x % 32] = sum_of(sums[k]);
    __syncthreads();
    for (int k = threadIdx.x / 32; k < T::lanes; k += DEEP) {
      double sum = 0.0;
      for (int deep = 0; deep < DEEP; ++deep) sum += scratch[deep][k][threadIdx.x % 32];
      if (i + k < n) work[chunk * n + i + k] = sum;
    }
  }
}

// Adds the chunks: 32 columns a block, 8 threads each.
template <class T, class Out>
__global__ void __launch_bounds__(THREADS) column_totals(ARGUMENTS) {
  constexpr int DEEP = THREADS / 32;
  __shared__ double scratch[DEEP][32];
  const Index i = (Index)blockIdx.x * 32 + threadIdx.x % 32;
  double sum = 0.0;
#pragma unroll 4
  for (Index chunk = threadIdx.x / 32; chunk < blocks; chunk += DEEP) sum += i < n ? work[chunk * n + i] : 0.0;
  scratch[threadIdx.x / 32][threadIdx.x % 32] = sum;
  __syncthreads();
  if (threadIdx.x >= 32 || i >= n) return;
  sum = 0.0;
  for (int deep = 0; deep < DEEP; ++deep) sum += scratch[deep][threadIdx.x];
  ((Out*)da)[i] = (Out)sum;
}

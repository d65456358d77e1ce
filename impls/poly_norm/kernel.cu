// PolyNorm, forward and backward: a block holds a row in registers, or reads it twice. cuda_rows.cuh stands before this.
//
// Moments are summed in pairs of float32; what follows from them, once a row, is computed in float64. The backward pass takes
// x in units of a power of two near its root mean square, so that no coefficient of x^5 leaves float32.

// N sums over a block; the result stands in every element of `sums` of thread 0.
template <int Threads, int N>
DEVICE void reduce_block(Pair (&sums)[N]) {
  __shared__ Pair scratch[N][32];
  for (int j = 0; j < N; ++j) {
    sums[j] = WarpGroup<32>::reduce(sums[j]);
    if (threadIdx.x % 32 == 0) scratch[j][threadIdx.x / 32] = sums[j];
  }
  __syncthreads();
  if (threadIdx.x >= 32) return;
  for (int j = 0; j < N; ++j)
    sums[j] = WarpGroup<32>::reduce(threadIdx.x < Threads / 32 ? scratch[j][threadIdx.x] : Pair{0.0f, 0.0f});
}

DEVICE void inverses(const Pair* sums, Index n, float eps, double (&i)[3]) {  // 1 / sqrt(mean x^(2p) + eps)
  for (int p = 0; p < 3; ++p) i[p] = 1.0 / sqrt(sum_of(sums[p]) / (double)n + (double)eps);
}

DEVICE float eps_of(Index each) { return __uint_as_float((u32)each); }

template <class T, int Threads, int K>
__global__ void __launch_bounds__(Threads, Threads > 512 ? 1 : 512 / Threads) poly_norm_forward(ARGUMENTS) {
  MATRICES(0);
  Row<T, 1, Threads, K> row(in, n);
  Pair sums[3] = {};
  row.vectors([&](Vectors<Inputs<1>, T>& v, Place<T>) {
    float part[3] = {};
    v.each([&](int, const float(&x)[3]) {  // absent elements are 0
      float square = x[0] * x[0], fourth = square * square;
      part[0] += square, part[1] += fourth, part[2] += square * fourth;
    });
    for (int p = 0; p < 3; ++p) sums[p] = merge(sums[p], Pair{part[p], 0.0f});
  });
  reduce_block<Threads>(sums);
  __shared__ float shared[3];
  if (threadIdx.x == 0) {
    double i[3];
    inverses(sums, n, eps_of(each), i);
    for (int p = 0; p < 3; ++p) shared[p] = (float)(a[2 - p] * i[p]);
  }
  __syncthreads();
  const float c[] = {shared[2], shared[1], shared[0], b[0]};
  row.write(out[0], [&](Index, const float(&x)[3]) { return horner(c, x[0]); });
}

// Also what the row adds to dw_0, dw_1, dw_2 and db: work[j * rows + r].
template <class T, int Threads, int K>
__global__ void __launch_bounds__(Threads, Threads > 512 ? 1 : 512 / Threads) poly_norm_backward(ARGUMENTS) {
  MATRICES(0);
  Row<T, 2, Threads, K> row(in, n);
  Pair sums[7] = {};
  row.vectors([&](Vectors<Inputs<2>, T>& v, Place<T>) {
    float part[7] = {};
    v.each([&](int, const float(&x)[3]) {
      float square = x[0] * x[0], fourth = square * square, one = x[1] * x[0];
      part[0] += square, part[1] += fourth, part[2] += square * fourth;
      part[3] += one, part[4] += one * x[0], part[5] += one * square, part[6] += x[1];
    });
    for (int j = 0; j < 7; ++j) sums[j] = merge(sums[j], Pair{part[j], 0.0f});
  });
  reduce_block<Threads>(sums);
  __shared__ float shared[7];
  if (threadIdx.x == 0) {
    double i[3], s[3];
    inverses(sums, n, eps_of(each), i);
    float unit = __uint_as_float(__float_as_uint((float)i[0]) & 0x7f800000u);
    double back = 1.0 / (double)unit, up = 1.0;  // x = back * its value in units
    for (int p = 0; p < 3; ++p, up *= back) {
      s[p] = sum_of(sums[3 + p]);
      double w = (p + 1) * (double)a[2 - p];
      shared[p] = (float)(w * i[p] * up);
      shared[3 + p] = (float)(-w / (double)n * i[p] * i[p] * i[p] * s[p] * up * up * back);
      work[(2 - p) * rows + blockIdx.x] = i[p] * s[p];
    }
    shared[6] = unit;
    work[3 * rows + blockIdx.x] = sum_of(sums[6]);
  }
  __syncthreads();
  const float c[] = {shared[2], shared[1], shared[0]}, d[] = {shared[5], shared[4], shared[3]}, unit = shared[6];
  row.write(out[0], [&](Index, const float(&x)[3]) {
    float t = x[0] * unit;
    return fmaf(x[1], horner(c, t), t * horner(d, t * t));
  });
}

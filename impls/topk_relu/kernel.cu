// The k largest of a row, rectified: a block holds a row in registers, or reads it anew. cuda_rows.cuh stands before this.
//
// A radix select, 8 bits at a time, over keys that are ordered as the numbers are: 0 for what the rectifier drops, the bits
// of a positive number, and one number above infinity for NaN. Among equals a second select takes the lowest indices.
// Atomics add or compare integers in shared memory alone, so their order doesn't matter.

typedef unsigned long long u64;

constexpr u32 NAN_KEY = 0x7fc00000u;

DEVICE u32 key_of(float x) { return x <= 0.0f ? 0u : x != x ? NAN_KEY : __float_as_uint(x); }

// The value of which exactly `need` of the matching elements are at least as large, or, among equals, more; `need` becomes how
// many of the equals count, `equals` how many there are. False when fewer than `need` match.
template <class Hold, class T, class Match>
DEVICE bool select(Hold& row, int bits, int last, u32& prefix, u32& need, u32& equals, Match match) {
  __shared__ u32 histogram[257], digit, left, same;
  prefix = 0;
  for (int high = bits; high > last; high -= 8) {
    const int shift = high > 8 ? high - 8 : 0, width = high - shift;
    for (int i = threadIdx.x; i < 257; i += blockDim.x) histogram[i] = 0;
    if (threadIdx.x == 0) digit = 256;
    __syncthreads();
    row.vectors([&](auto& v, Place<T> at) {
      v.each([&](int lane, const float(&x)[3]) {
        u32 value;
        if (lane < at.count && match(x[0], at.i + lane, value) && (high >= bits || value >> high == prefix >> high))
          atomicAdd(&histogram[value >> shift & ((1u << width) - 1)], 1u);
      });
    });
    __syncthreads();
    for (int distance = 1; distance < 256; distance *= 2) {  // counts of a digit become counts from there up
      u32 sum = 0;
      if (threadIdx.x < 256) sum = histogram[threadIdx.x] + (threadIdx.x + distance < 256 ? histogram[threadIdx.x + distance] : 0);
      __syncthreads();
      if (threadIdx.x < 256) histogram[threadIdx.x] = sum;
      __syncthreads();
    }
    if (threadIdx.x < 256 && histogram[threadIdx.x] >= need && histogram[threadIdx.x + 1] < need) {
      digit = threadIdx.x;
      left = need - histogram[threadIdx.x + 1];
      same = histogram[threadIdx.x] - histogram[threadIdx.x + 1];
    }
    __syncthreads();
    const bool found = digit < 256;
    if (found) prefix |= digit << shift, need = left, equals = same;
    __syncthreads();
    if (!found) return false;
  }
  return true;
}

// A key and, among equal ones, the lower index: the larger the better.
DEVICE u64 ranked(float x, Index i) { return (u64)key_of(x) << 32 | (u32)~(u32)i; }

// `each` is k; N inputs: x, and dy in the backward pass. With B buckets, a power of two, only the first largest of each takes
// part, element i being in bucket i mod B.
template <class T, int Threads, int N, int K, int B>
__global__ void __launch_bounds__(Threads, Threads > 512 ? 1 : 512 / Threads) topk_relu(ARGUMENTS) {
  MATRICES(0);
  Row<T, N, Threads, K> row(in, n);
  u64* leader = (u64*)dynamic_shared();
  if constexpr (B > 0) {
    for (int i = threadIdx.x; i < B; i += Threads) leader[i] = 0;
    __syncthreads();
    row.vectors([&](auto& v, Place<T> at) {
      v.each([&](int lane, const float(&x)[3]) {
        if (lane < at.count) atomicMax(&leader[(at.i + lane) & (B - 1)], ranked(x[0], at.i + lane));
      });
    });
    __syncthreads();
  }
  auto key = [&](float x, Index i) -> u32 {
    if constexpr (B > 0)
      if (leader[i & (B - 1)] != ranked(x, i)) return 0;
    return key_of(x);
  };
  u32 least = 0, need = (u32)(each < n ? each : n), equals = 0, first = 0;
  const bool full = each < n && select<decltype(row), T>(row, 31, T::absent, least, need, equals, [&](float x, Index i, u32& value) {
    value = key(x, i);
    return value > 0;
  });
  u32 most = 0xffffffffu;  // the last index of an equal that is kept
  if (full && equals > need) {
    select<decltype(row), T>(row, 32, 0, first, need, equals, [&](float x, Index i, u32& value) {
      value = ~(u32)i;
      return key(x, i) == least;
    });
    most = ~first;
  }
  row.write(out[0], [&](Index i, const float(&x)[3]) {
    u32 own = key(x[0], i);
    bool kept = own > 0 && (!full || own > least || (own == least && (u32)i <= most));
    return kept ? x[N - 1] : 0.0f;
  });
}

template <int Threads>
DEVICE double block_total(double x) {  // for every thread, always added in the same order
  __shared__ double sums[Threads];
  sums[threadIdx.x] = x;
  for (u32 half = Threads / 2; half > 0; half /= 2) {
    __syncthreads();
    if (threadIdx.x < half) sums[threadIdx.x] += sums[threadIdx.x + half];
  }
  __syncthreads();
  const double total = sums[0];
  __syncthreads();
  return total;
}

// What reaches mean + std z; `each` holds the bits of z.
template <class T, int Threads, int N, int K>
__global__ void __launch_bounds__(Threads, Threads > 512 ? 1 : 512 / Threads) topk_relu_stat(ARGUMENTS) {
  MATRICES(0);
  Row<T, N, Threads, K> row(in, n);
  double sum = 0.0, squares = 0.0;
  row.vectors([&](auto& v, Place<T>) {
    v.each([&](int, const float(&x)[3]) { sum += x[0]; });  // absent elements are 0
  });
  const double mean = block_total<Threads>(sum) / (double)n;
  row.vectors([&](auto& v, Place<T> at) {
    v.each([&](int lane, const float(&x)[3]) {
      const double apart = x[0] - mean;
      if (lane < at.count) squares += apart * apart;
    });
  });
  const float least = (float)(mean + sqrt(block_total<Threads>(squares) / (double)n) * __longlong_as_double(each));
  row.write(out[0], [&](Index, const float(&x)[3]) { return x[0] < least || x[0] <= 0.0f ? 0.0f : x[N - 1]; });
}

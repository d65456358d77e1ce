// The k largest of a row, rectified: a block holds a row in registers, or reads it anew. cuda_rows.cuh stands before this.
//
// A radix select, 8 bits at a time, over keys that are ordered as the numbers are: 0 for what the rectifier drops, the bits
// of a positive number, and one number above infinity for NaN. Among equals a second select takes the lowest indices.
// Atomics add integers in shared memory alone, so their order doesn't matter.

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

template <class T, int Threads, int N, int K>
__global__ void __launch_bounds__(Threads, Threads > 512 ? 1 : 512 / Threads) topk_relu(ARGUMENTS) {  // `each` is k; N inputs: x, and dy in the backward pass
  MATRICES(0);
  Row<T, N, Threads, K> row(in, n);
  u32 least = 0, need = (u32)(each < n ? each : n), equals = 0, first = 0;
  const bool full = each < n && select<decltype(row), T>(row, 31, T::absent, least, need, equals, [](float x, Index, u32& value) {
    value = key_of(x);
    return value > 0;
  });
  u32 most = 0xffffffffu;  // the last index of an equal that is kept
  if (full && equals > need) {
    select<decltype(row), T>(row, 32, 0, first, need, equals, [&](float x, Index i, u32& value) {
      value = ~(u32)i;
      return key_of(x) == least;
    });
    most = ~first;
  }
  row.write(out[0], [&](Index i, const float(&x)[3]) {
    u32 key = key_of(x[0]);
    bool kept = key > 0 && (!full || key > least || (key == least && (u32)i <= most));
    return kept ? x[N - 1] : 0.0f;
  });
}

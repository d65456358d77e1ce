// What CUDA kernels share: element types and their rounding, the exponential of a fraction, compensated sums, rows in memory,
// groups of threads, and what holds a row on chip. NVRTC gets it in front of a family's kernel.cu, without FMA contraction:
// what is fused says so.

typedef long long Index;

#ifdef __CUDACC__  // the tests compile this file for the CPU too, with their own stand-ins for what follows

typedef unsigned int u32;
typedef unsigned short u16;

__device__ __forceinline__ float ex2_ftz(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

__device__ __forceinline__ float ex2(float x) {  // keeps denormal results
  float y;
  asm("ex2.approx.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

__device__ __forceinline__ float max_nan(float x, float y) {  // NaN when either is
  float z;
  asm("max.NaN.f32 %0, %1, %2;" : "=f"(z) : "f"(x), "f"(y));
  return z;
}

// Two floats rounded to nearest even, the first into the low half. NaN stays NaN.
__device__ __forceinline__ u32 pack_float16(float low, float high) {
  u32 pair;
  asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
  return pair;
}

__device__ __forceinline__ u32 pack_bfloat16(float low, float high) {
  u32 pair;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
  return pair;
}

__device__ __forceinline__ float float16_value(u16 bits) {
  float x;
  asm("cvt.f32.f16 %0, %1;" : "=f"(x) : "h"(bits));
  return x;
}

__device__ __forceinline__ uint4 load16(const void* from) {  // read-only while the kernel runs: outputs never overlap inputs
  uint4 v;
  asm("ld.global.nc.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];" : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w) : "l"(from));
  return v;
}

// Keeps the compiler from carrying what it derived from v (unpacked elements, say) from one pass over a row to the next: the
// registers are better spent on more rows in flight.
__device__ __forceinline__ void forget(uint4& v) { asm volatile("" : "+r"(v.x), "+r"(v.y), "+r"(v.z), "+r"(v.w)); }

__device__ __forceinline__ void store16(void* to, uint4 v) { *(uint4*)to = v; }

__device__ __forceinline__ void copy16(uint4* shared, const void* from) {
  u32 to = (u32)__cvta_generic_to_shared(shared);
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(to), "l"(from) : "memory");
}

__device__ __forceinline__ void await_copies() { asm volatile("cp.async.wait_all;" ::: "memory"); }

__device__ __forceinline__ uint4* dynamic_shared() {
  extern __shared__ uint4 memory[];
  return memory;
}

#if __CUDA_ARCH__ >= 900
__device__ __forceinline__ u32 cluster_rank() {
  u32 rank;
  asm("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
  return rank;
}

__device__ __forceinline__ void cluster_sync() {
  asm volatile("barrier.cluster.arrive.aligned;\nbarrier.cluster.wait.aligned;" ::: "memory");
}

__device__ __forceinline__ void publish(float* slot, float x) { *slot = x; }

__device__ __forceinline__ float published(float* slot, u32 rank) {  // what another block of the cluster wrote to its slot
  float x;
  u32 own = (u32)__cvta_generic_to_shared(slot), there;
  asm volatile("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(there) : "r"(own), "r"(rank));
  asm volatile("ld.shared::cluster.f32 %0, [%1];" : "=f"(x) : "r"(there) : "memory");
  return x;
}
#define CLUSTERS
#endif

#endif

#define DEVICE __device__ __forceinline__

// ---- the element types: 16 bytes unpack into and pack from `lanes` floats

#define INF __uint_as_float(0x7f800000u)

struct Float32 {
  typedef u32 Bits;
  static constexpr int lanes = 4;
  static constexpr bool precise = true;
  static constexpr int absent = 0;  // low bits of a value that are always 0
  static DEVICE float value(Bits bits) { return __uint_as_float(bits); }
  static DEVICE Bits round(float x) { return __float_as_uint(x); }
  static DEVICE void unpack(uint4 v, float (&x)[4]) {
    x[0] = value(v.x), x[1] = value(v.y), x[2] = value(v.z), x[3] = value(v.w);
  }
  static DEVICE uint4 pack(const float (&x)[4]) { return make_uint4(round(x[0]), round(x[1]), round(x[2]), round(x[3])); }
  static DEVICE uint4 push(uint4 v, Bits b) { return make_uint4(v.y, v.z, v.w, b); }  // drops the first element
};

template <class T>
struct Half {
  typedef u16 Bits;
  static constexpr int lanes = 8;
  static constexpr bool precise = false;
  static DEVICE Bits round(float x) { return (Bits)T::round_pair(x, 0.0f); }
  static DEVICE void unpack(uint4 v, float (&x)[8]) {
    const u32 words[4] = {v.x, v.y, v.z, v.w};
    for (int i = 0; i < 4; ++i) x[2 * i] = T::value((u16)words[i]), x[2 * i + 1] = T::value((u16)(words[i] >> 16));
  }
  static DEVICE uint4 pack(const float (&x)[8]) {
    return make_uint4(T::round_pair(x[0], x[1]), T::round_pair(x[2], x[3]), T::round_pair(x[4], x[5]), T::round_pair(x[6], x[7]));
  }
  static DEVICE uint4 push(uint4 v, Bits b) {
    return make_uint4(v.x >> 16 | v.y << 16, v.y >> 16 | v.z << 16, v.z >> 16 | v.w << 16, v.w >> 16 | (u32)b << 16);
  }
};

struct Float16 : Half<Float16> {
  static constexpr int absent = 13;
  static DEVICE float value(u16 bits) { return float16_value(bits); }
  static DEVICE u32 round_pair(float low, float high) { return pack_float16(low, high); }
};

struct Bfloat16 : Half<Bfloat16> {
  static constexpr int absent = 16;
  static DEVICE float value(u16 bits) { return __uint_as_float((u32)bits << 16); }
  static DEVICE u32 round_pair(float low, float high) { return pack_bfloat16(low, high); }
};

// ---- the exponential of a fraction

constexpr float LOG2E_HI = 0x1.715476p+0f;
constexpr float LOG2E_LO = 0x1.4ae0c0p-26f;
constexpr float LN2_HI = 0x1.62ep-1f;  // 13 bits: its product with an integer below 2^11 is exact
constexpr float LN2_LO = 0x1.0bfbe8p-15f;
constexpr float MAGIC = 0x1.8p+23f;  // adding it rounds to an integer, which then stands in the low bits

// 2^f = 1 + f * (C1 + f * (C2 + ...)) on [-1/2, 1/2], minimax; relative error 0.05 * 2^-24
constexpr float C1 = 0x1.62e430p-1f;
constexpr float C2 = 0x1.ebfbdcp-3f;
constexpr float C3 = 0x1.c6af7cp-5f;
constexpr float C4 = 0x1.3b2de0p-7f;
constexpr float C5 = 0x1.5f082ep-10f;
constexpr float C6 = 0x1.416b5ep-13f;

DEVICE float exp2_slope(float f) {  // (2^f - 1) / f
  float p = fmaf(C6, f, C5);
  p = fmaf(p, f, C4);
  p = fmaf(p, f, C3);
  p = fmaf(p, f, C2);
  return fmaf(p, f, C1);
}

DEVICE float exp2_fraction(float f) { return fmaf(exp2_slope(f), f, 1.0f); }

DEVICE float scale_exponent(float x, u32 n) { return __uint_as_float(__float_as_uint(x) + (n << 23)); }

// ---- sums: (high, low) pairs, whose value is high + low

struct Pair {
  float high, low;
};

DEVICE Pair two_sum(float a, float b) {
  float s = a + b;
  float bb = s - a;
  return {s, (a - (s - bb)) + (b - bb)};
}

DEVICE Pair merge(Pair a, Pair b) {
  Pair s = two_sum(a.high, b.high);
  s.low += a.low + b.low;
  return s;
}

DEVICE Pair across(Pair v, int distance) {
  return {__shfl_xor_sync(0xffffffffu, v.high, distance), __shfl_xor_sync(0xffffffffu, v.low, distance)};
}

DEVICE float merge(float a, float b) { return max_nan(a, b); }

DEVICE float across(float v, int distance) { return __shfl_xor_sync(0xffffffffu, v, distance); }

template <int N>
DEVICE float tree(const float (&x)[N]) {
  if constexpr (N == 4) return (x[0] + x[1]) + (x[2] + x[3]);
  if constexpr (N == 8) return ((x[0] + x[1]) + (x[2] + x[3])) + ((x[4] + x[5]) + (x[6] + x[7]));
}

// Sums terms of any sign.
template <class T>
struct Sum {
  Pair sum = {0.0f, 0.0f};

  DEVICE void add(const float (&x)[T::lanes]) {
    if constexpr (T::precise) {
      for (int k = 0; k < T::lanes; ++k) sum = merge(sum, Pair{x[k], 0.0f});
    } else {
      sum.high += tree(x);
    }
  }
  DEVICE Pair result() const { return sum; }
};

// ---- the rows in memory

template <class T>
struct Rows {  // element i of row r stands at data[r * row + i * step]
  typename T::Bits* data;
  Index row, step;
};

// What a group of threads owns: n elements of row r from `first` on. `shift` more before them would complete the first
// vector of 16 bytes.
template <class T>
struct Span {
  Index r, first;
  int n, shift;

  static DEVICE int misalignment(const typename T::Bits* p) {
    return (int)(((unsigned long long)p & 15) / sizeof(typename T::Bits));
  }
  static DEVICE int misalignment(Rows<T> rows, Index r) { return rows.step == 1 ? misalignment(rows.data + r * rows.row) : 0; }

  static DEVICE Span row(Rows<T> rows, Index r, Index length) { return {r, 0, (int)length, misalignment(rows, r)}; }
  static DEVICE Span chunk(Rows<T> rows, Index r, Index length, Index chunk, Index vectors) {
    Index begin = chunk * vectors * T::lanes - misalignment(rows, r), end = begin + vectors * T::lanes;
    Index first = begin < 0 ? 0 : begin;
    return {r, first, (int)((end < length ? end : length) - first), (int)(first - begin)};
  }
};

// A span of one array as vectors. An array that lies like the one the span was made for (`wide`) is read 16 aligned bytes at
// a time, which at the span's ends may include neighbouring elements of the same 16 bytes; they are dropped. Writes never
// leave the span. Other arrays are gathered and scattered element by element, in loops kept rolled to keep the code small.
template <class T>
struct Window {
  typedef typename T::Bits Bits;
  Bits* data;
  Index step;
  int n, shift;
  bool wide;

  DEVICE Window() {}
  DEVICE Window(Rows<T> rows, Span<T> span)
      : data(rows.data + span.r * rows.row + span.first * rows.step), step(rows.step), n(span.n), shift(span.shift) {
    wide = step == 1 && Span<T>::misalignment(data) == shift;
  }

  DEVICE int vectors() const { return n > 0 ? (n + shift + T::lanes - 1) / T::lanes : 0; }
  DEVICE int begin(int v) const { return v * T::lanes - shift; }
  DEVICE bool inside(int i) const { return i >= 0 && i < n; }
  DEVICE bool whole(int i) const { return wide && i >= 0 && i + T::lanes <= n; }

  // Loading takes two steps, so that a thread's 16-byte loads are all on their way before the first is looked at.
  DEVICE uint4 fetch(int v) const {
    int i = begin(v);
    return wide && i + T::lanes > 0 && i < n ? load16(data + i) : make_uint4(0, 0, 0, 0);
  }
  DEVICE uint4 complete(int v, uint4 from, float fill) const {
    int i = begin(v);
    if (whole(i)) return from;
    uint4 to = from;
#pragma unroll 1
    for (int k = 0; k < T::lanes; ++k) {
      Bits bits = inside(i + k) ? wide ? (Bits)from.x : data[(Index)(i + k) * step] : T::round(fill);
      from = T::push(from, 0);
      to = T::push(to, bits);
    }
    return to;
  }
  DEVICE void store(int v, const float (&y)[T::lanes]) const {
    int i = begin(v);
    uint4 from = T::pack(y);
    if (whole(i)) {
      store16(data + i, from);
    } else {
#pragma unroll 1
      for (int k = 0; k < T::lanes; ++k) {
        if (inside(i + k)) data[(Index)(i + k) * step] = (Bits)from.x;
        from = T::push(from, 0);
      }
    }
  }
};

// ---- the threads that own a row together

template <int Lanes>
struct WarpGroup {
  static constexpr int size = Lanes;
  static DEVICE int rank() { return threadIdx.x % Lanes; }
  static DEVICE bool leads() { return rank() == 0; }

  template <class V>
  static DEVICE V reduce(V v) {  // the same bits in every lane: merging is commutative
    for (int distance = Lanes / 2; distance; distance >>= 1) v = merge(v, across(v, distance));
    return v;
  }
};

template <int Threads>
struct BlockGroup {
  static constexpr int size = Threads;
  static constexpr int warps = Threads / 32;
  static DEVICE int rank() { return threadIdx.x; }
  static DEVICE bool leads() { return rank() == 0; }

  template <class V>
  static DEVICE V reduce(V v) {  // at most once for each type V in a kernel: the scratch memory is not reused
    __shared__ V scratch[warps];
    v = WarpGroup<32>::reduce(v);
    if (threadIdx.x % 32 == 0) scratch[threadIdx.x / 32] = v;
    __syncthreads();
    v = scratch[threadIdx.x % warps];
    return WarpGroup<warps>::reduce(v);
  }
};

#ifdef CLUSTERS
DEVICE void publish(Pair* slot, Pair v) { publish(&slot->high, v.high), publish(&slot->low, v.low); }

DEVICE Pair published(Pair* slot, u32 rank) { return {published(&slot->high, rank), published(&slot->low, rank)}; }

template <int Threads, int Blocks>
struct ClusterGroup {
  static constexpr int size = Threads;
  static DEVICE int rank() { return threadIdx.x; }
  static DEVICE bool leads() { return threadIdx.x == 0 && cluster_rank() == 0; }

  template <class V>
  static DEVICE V reduce(V v) {  // as BlockGroup, at most once for each type; always in the order of the blocks
    __shared__ V slot;
    v = BlockGroup<Threads>::reduce(v);
    if (threadIdx.x == 0) publish(&slot, v);
    cluster_sync();
    v = published(&slot, 0);
    for (u32 block = 1; block < Blocks; ++block) v = merge(v, published(&slot, block));
    return v;
  }
};
#endif

// ---- what holds a row, or a chunk of one, on chip: K vectors a thread in registers, or shared memory

template <class T, class Group, int Inputs, int K>
struct Registers {
  uint4 a[K], b[Inputs == 2 ? K : 1];

  DEVICE void load(const Window<T>& x, const Window<T>& y, float fill) {
#pragma unroll
    for (int k = 0; k < K; ++k) {
      a[k] = x.fetch(Group::rank() + k * Group::size);
      if constexpr (Inputs == 2) b[k] = y.fetch(Group::rank() + k * Group::size);
    }
#pragma unroll
    for (int k = 0; k < K; ++k) {
      a[k] = x.complete(Group::rank() + k * Group::size, a[k], fill);
      if constexpr (Inputs == 2) b[k] = y.complete(Group::rank() + k * Group::size, b[k], fill);
    }
  }
  template <class F>
  DEVICE void each(F visit) {
#pragma unroll
    for (int k = 0; k < K; ++k) {
      forget(a[k]);
      if constexpr (Inputs == 2) forget(b[k]);
      visit(Group::rank() + k * Group::size, a[k], b[Inputs == 2 ? k : 0]);
    }
  }
};

template <class T, class Group, int Inputs>
struct Shared {  // every thread reads back only what it copied itself, so no barrier is needed
  uint4 *a, *b;
  int count;

  DEVICE void fetch(const Window<T>& x, uint4* to, float fill) {
    for (int v = Group::rank(); v < count; v += Group::size) {
      if (x.whole(x.begin(v)))
        copy16(to + v, x.data + x.begin(v));
      else
        to[v] = x.complete(v, x.fetch(v), fill);
    }
  }
  DEVICE void load(const Window<T>& x, const Window<T>& y, float fill) {
    count = x.vectors();
    a = dynamic_shared();
    b = a + count;
    fetch(x, a, fill);
    if constexpr (Inputs == 2) fetch(y, b, fill);
    await_copies();
  }
  template <class F>
  DEVICE void each(F visit) {
    for (int v = Group::rank(); v < count; v += Group::size) visit(v, a[v], b[Inputs == 2 ? v : 0]);
  }
};

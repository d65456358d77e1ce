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
  static DEVICE float value(u16 bits) { return float16_value(bits); }
  static DEVICE u32 round_pair(float low, float high) { return pack_float16(low, high); }
};

struct Bfloat16 : Half<Bfloat16> {
  static DEVICE float value(u16 bits) { return __uint_as_float((u32)bits << 16); }
  static DEVICE u32 round_pair(float low, float high) { return pack_bfloat16(low, high); }
};

// ---- the exponential

constexpr float LOG2E_HI = 0x1.715476p+0f;
constexpr float LOG2E_LO = 0x1.4ae0c0p-26f;
constexpr float LN2_HI = 0x1.62ep-1f;  // 13 bits: its product with an integer below 2^11 is exact
constexpr float LN2_LO = 0x1.0bfbe8p-15f;
constexpr float MAGIC = 0x1.8p+23f;  // adding it rounds to an integer, which then stands in the low bits
constexpr float FLUSH = 105.0f;      // exp(-105) < 2^-151: below half the smallest denormal
constexpr float CENTRED = 1024.0f;   // from this maximum on, a multiple of 256 is subtracted first

// 2^f = 1 + f * (C1 + f * (C2 + ...)) on [-1/2, 1/2], minimax; relative error 0.05 * 2^-24
constexpr float C1 = 0x1.62e430p-1f;
constexpr float C2 = 0x1.ebfbdcp-3f;
constexpr float C3 = 0x1.c6af7cp-5f;
constexpr float C4 = 0x1.3b2de0p-7f;
constexpr float C5 = 0x1.5f082ep-10f;
constexpr float C6 = 0x1.416b5ep-13f;

DEVICE float exp2_fraction(float f) {
  float p = fmaf(C6, f, C5);
  p = fmaf(p, f, C4);
  p = fmaf(p, f, C3);
  p = fmaf(p, f, C2);
  p = fmaf(p, f, C1);
  return fmaf(p, f, 1.0f);
}

DEVICE float scale_exponent(float x, u32 n) { return __uint_as_float(__float_as_uint(x) + (n << 23)); }

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

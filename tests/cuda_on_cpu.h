// Stand-ins that let a host compiler build and run a kernel.cu: every CUDA thread is a fiber. A warp's lanes meet
// at each shuffle, a block's warps only at __syncthreads and a cluster's blocks only at cluster_sync; each runs as far as it can
// before the next one starts, so that a missing barrier shows as a wrong result.
#pragma once

#include <setjmp.h>
#include <ucontext.h>

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <vector>

typedef unsigned int u32;
typedef unsigned short u16;

#define __device__
#define __global__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __cluster_dims__(...)
#define CLUSTERS
#define __shared__ static

struct alignas(16) uint4 {
  u32 x, y, z, w;
};
inline uint4 make_uint4(u32 x, u32 y, u32 z, u32 w) { return {x, y, z, w}; }

// ---- fibers

enum State { RUNNING, AT_SHUFFLE, AT_BARRIER, AT_CLUSTER, DONE };

struct Copy {
  uint4* to;
  const void* from;
};

struct Fiber {
  u32 index, block;  // in its block, and in its cluster
  State state;
  bool started;
  int parity;
  ucontext_t start;
  jmp_buf here;
  std::vector<char> stack;
  std::vector<Copy> copies;
};

struct Dim {
  u32 x;
};

static std::vector<Fiber> fibers;
static Fiber* current;
static jmp_buf scheduler;
static const std::function<void()>* body;
static Dim gridDim;
static u32 threads_of_block;
static u32 first_block;  // of the cluster that runs
static std::vector<float> exchanged[2];
static std::vector<std::vector<uint4>> shared_memory;  // a block each
static std::map<std::pair<u32, const float*>, float> slots;  // by block: static variables stand for one block's memory only
#define threadIdx (Dim{current->index})
#define blockIdx (Dim{first_block + current->block})

[[noreturn]] inline void fail(const char* what) {
  std::fprintf(stderr, "kernel on the CPU: %s\n", what);
  std::abort();
}

inline void pause(State state) {
  current->state = state;
  if (!_setjmp(current->here)) _longjmp(scheduler, 1);
}

inline void enter() {
  (*body)();
  current->state = DONE;
  _longjmp(scheduler, 1);
}

inline void resume(Fiber& fiber) {
  current = &fiber;
  fiber.state = RUNNING;
  if (_setjmp(scheduler)) return;
  if (fiber.started) _longjmp(fiber.here, 1);
  fiber.started = true;
  setcontext(&fiber.start);
}

// Runs the lanes of a warp until all stand at a barrier or are done.
inline State run_warp(u32 first, u32 lanes) {
  for (;;) {
    for (u32 lane = 0; lane < lanes; ++lane) resume(fibers[first + lane]);
    State state = fibers[first].state;
    for (u32 lane = 0; lane < lanes; ++lane)
      if (fibers[first + lane].state != state) fail("the lanes of a warp went different ways around a shuffle or a barrier");
    if (state != AT_SHUFFLE) return state;
  }
}

// Runs a block until all of its threads stand at a cluster's barrier or are done.
inline State run_block(u32 first, u32 threads) {
  for (;;) {
    State state = run_warp(first, 32);
    for (u32 warp = 32; warp < threads; warp += 32)
      if (run_warp(first + warp, 32) != state) fail("the warps of a block went different ways around a barrier");
    if (state != AT_BARRIER) return state;
  }
}

inline void run_cluster(u32 blocks, u32 threads, const std::function<void()>& kernel) {
  body = &kernel;
  threads_of_block = threads;
  slots.clear();
  if (fibers.size() < blocks * threads) fibers.resize(blocks * threads);
  for (auto& side : exchanged) side.assign(blocks * threads, 0.0f);
  for (u32 i = 0; i < blocks * threads; ++i) {
    Fiber& fiber = fibers[i];
    fiber.stack.resize(1 << 16);
    fiber.index = i % threads, fiber.block = i / threads, fiber.started = false, fiber.parity = 0;
    fiber.copies.clear();
    getcontext(&fiber.start);
    fiber.start.uc_stack.ss_sp = fiber.stack.data();
    fiber.start.uc_stack.ss_size = fiber.stack.size();
    fiber.start.uc_link = nullptr;
    makecontext(&fiber.start, enter, 0);
  }
  for (;;) {
    State state = run_block(0, threads);
    for (u32 block = 1; block < blocks; ++block)
      if (run_block(block * threads, threads) != state) fail("the blocks of a cluster went different ways around a barrier");
    if (state == DONE) return;
  }
}

inline void cluster_sync() { pause(AT_CLUSTER); }
inline u32 cluster_rank() { return current->block; }
inline void publish(float* slot, float x) { slots[{current->block, slot}] = x; }
inline float published(float* slot, u32 block) {
  size_t threads = current->block ? (current - fibers.data() - current->index) / current->block : 0;
  if (threads && fibers[block * threads].state == DONE) fail("a block reads the memory of one that has ended");
  return slots.at({block, slot});
}

#define blockDim (Dim{threads_of_block})
inline u32 atomicAdd(u32* to, u32 by) { return *to += by, *to - by; }  // fibers take turns
inline unsigned long long atomicMax(unsigned long long* to, unsigned long long other) {
  unsigned long long before = *to;
  *to = before < other ? other : before;
  return before;
}
inline void __syncthreads() { pause(AT_BARRIER); }

inline float __shfl_xor_sync(u32, float value, int distance) {
  std::vector<float>& lanes = exchanged[current->parity];
  size_t own = current - fibers.data();
  current->parity ^= 1;
  lanes[own] = value;
  pause(AT_SHUFFLE);
  return lanes[own ^ (size_t)distance];
}

// ---- arithmetic

inline double __longlong_as_double(long long bits) {
  double x;
  memcpy(&x, &bits, sizeof(x));
  return x;
}
inline float __uint_as_float(u32 bits) {
  float x;
  std::memcpy(&x, &bits, 4);
  return x;
}
inline u32 __float_as_uint(float x) {
  u32 bits;
  std::memcpy(&bits, &x, 4);
  return bits;
}

// ex2.approx with the documented relative error, 2^-22: none, always up, always down, or by a hash of the argument.
static int ex2_error = 0;

inline float flush(float x) { return std::fabs(x) < 0x1p-126f ? std::copysign(0.0f, x) : x; }
inline float ex2(float x) {
  int sign = ex2_error == 3 ? ((__float_as_uint(x) * 2654435761u) >> 31 ? 1 : -1) : ex2_error == 2 ? -1 : ex2_error;
  return (float)(std::exp2((double)x) * (1.0 + sign * 0x1p-22));
}
inline float ex2_ftz(float x) { return flush(ex2(flush(x))); }
inline float rcp(float x) { return flush(1.0f / flush(x)); }
inline float min_nan(float x, float y) { return x != x ? x : y != y ? y : x < y ? x : y; }
inline float max_nan(float x, float y) { return x != x ? x : y != y ? y : x > y ? x : y; }

inline u16 float16_bits(float x) {
  _Float16 h = (_Float16)x;
  u16 bits;
  std::memcpy(&bits, &h, 2);
  return bits;
}
inline u16 bfloat16_bits(float x) {
  u32 bits = __float_as_uint(x);
  return x != x ? 0x7fff : (u16)((bits + 0x7fffu + (bits >> 16 & 1)) >> 16);
}
inline u32 pack_float16(float low, float high) { return float16_bits(low) | (u32)float16_bits(high) << 16; }
inline u32 pack_bfloat16(float low, float high) { return bfloat16_bits(low) | (u32)bfloat16_bits(high) << 16; }
inline float float16_value(u16 bits) {
  _Float16 h;
  std::memcpy(&h, &bits, 2);
  return (float)h;
}

// ---- memory

inline const uint4* aligned(const void* p) {
  if ((size_t)p % 16) fail("a 16-byte access is misaligned");
  return (const uint4*)p;
}
inline uint4 load16(const void* from) { return *aligned(from); }
inline void forget(uint4&) {}
inline void store16(void* to, uint4 v) { *const_cast<uint4*>(aligned(to)) = v; }
inline void copy16(uint4* shared, const void* from) { current->copies.push_back({shared, aligned(from)}); }
inline void await_copies() {
  for (Copy& copy : current->copies) *copy.to = *(const uint4*)copy.from;
  current->copies.clear();
}
inline uint4* dynamic_shared() { return shared_memory[current->block].data(); }

// Stand-ins that let a host compiler build and run impls/softmax/kernel.cu: every CUDA thread is a fiber. A warp's lanes meet
// at each shuffle and a block's warps only at __syncthreads, each warp running as far as it can before the next one starts,
// so that a missing barrier shows as a wrong result.
#pragma once

#include <setjmp.h>
#include <ucontext.h>

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <vector>

typedef unsigned int u32;
typedef unsigned short u16;

#define __device__
#define __global__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __shared__ static

struct alignas(16) uint4 {
  u32 x, y, z, w;
};
inline uint4 make_uint4(u32 x, u32 y, u32 z, u32 w) { return {x, y, z, w}; }

// ---- fibers

enum State { RUNNING, AT_SHUFFLE, AT_BARRIER, DONE };

struct Copy {
  uint4* to;
  const void* from;
};

struct Fiber {
  u32 index;
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
static Dim blockIdx, gridDim;
static std::vector<float> exchanged[2];
static std::vector<uint4> shared_memory;
#define threadIdx (Dim{current->index})

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

inline void run_block(u32 threads, const std::function<void()>& kernel) {
  body = &kernel;
  if (fibers.size() < threads) fibers.resize(threads);
  for (auto& side : exchanged) side.assign(threads, 0.0f);
  for (u32 i = 0; i < threads; ++i) {
    Fiber& fiber = fibers[i];
    fiber.stack.resize(1 << 16);
    fiber.index = i, fiber.started = false, fiber.parity = 0;
    fiber.copies.clear();
    getcontext(&fiber.start);
    fiber.start.uc_stack.ss_sp = fiber.stack.data();
    fiber.start.uc_stack.ss_size = fiber.stack.size();
    fiber.start.uc_link = nullptr;
    makecontext(&fiber.start, enter, 0);
  }
  for (;;) {
    u32 done = 0, waiting = 0;
    for (u32 first = 0; first < threads; first += 32) (run_warp(first, 32) == DONE ? done : waiting) += 32;
    if (done == threads) return;
    if (waiting != threads) fail("some warps ended while others wait at a barrier");
  }
}

inline void __syncthreads() { pause(AT_BARRIER); }

inline float __shfl_xor_sync(u32, float value, int distance) {
  std::vector<float>& slots = exchanged[current->parity];
  current->parity ^= 1;
  slots[current->index] = value;
  pause(AT_SHUFFLE);
  return slots[current->index ^ (u32)distance];
}

// ---- arithmetic

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
inline uint4* dynamic_shared() { return shared_memory.data(); }

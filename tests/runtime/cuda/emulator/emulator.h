// A CPU model of fused_prims.h, so that fused_max.cu itself, not a copy of it, runs under g++.
//
// Every CUDA thread is a fiber. The model follows the PTX ISA and takes every freedom that it grants:
//   * a copy_async leaves a poison NaN at its destination and lands no sooner than its thread waits for it;
//     multiplying poison is an error, so a missing wait or barrier shows;
//   * one warp at a time, chosen at random, runs as far as its next barrier, so that warps drift as far apart
//     as they may; lanes and blocks too run in a seeded random order;
//   * shared memory is poison again when its block ends.
// Out-of-bounds global accesses, misaligned copies, collectives that not all lanes reach, deadlocks and the
// multiplication of poison end the launch with an error; shared-memory bank conflicts are counted.
//
// What it cannot show: that it reads the PTX ISA's lane maps rightly, how tensor cores round, how global memory
// orders, and speed.
#pragma once
#undef _FORTIFY_SOURCE  // its longjmp refuses to jump between stacks
#include <setjmp.h>
#include <ucontext.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <deque>
#include <functional>
#include <random>
#include <set>
#include <string>
#include <vector>

#define KERNEL extern "C" void
#define MAX_THREADS(n)
#define DEVICE inline
#define SHARED alignas(16) static

namespace emulator {

constexpr half_t kPoison = 0x7e5a;  // a NaN that no input contains
constexpr int kWarp = 32;

struct Dim { unsigned x = 0, y = 0, z = 0; };
struct Copy { half_t* to; const half_t* from; bool inside; };
struct Range { uintptr_t begin, end; };

enum class State { kReady, kAtBarrier, kAtCollective, kDone };
enum class Collective { kNone, kLoadMatrices, kMultiply, kExchange };

struct Fiber {
  jmp_buf resume;
  ucontext_t start;
  bool started = false;
  State state = State::kReady;
  Dim thread;
  Collective collective = Collective::kNone;
  const void *in0 = nullptr, *in1 = nullptr;
  void* out = nullptr;
  int mask = 0;
  std::vector<Copy> open;                   // copies not yet committed
  std::deque<std::vector<Copy>> committed;  // groups under way, oldest first
};

// Stacks outlive launches: creating them is most of a small block's cost.
inline std::vector<std::vector<char>> stacks;
inline std::vector<Fiber> fibers;
inline jmp_buf scheduler;
inline int current = 0;
inline Dim block, block_size, grid_size;
inline std::function<void()> body;
inline std::mt19937 random_source;
inline std::vector<Range> global_memory;
inline std::set<half_t*> shared_written;
inline std::string error;
inline uint64_t bank_conflicts = 0, tile_products = 0;

inline Fiber& self() { return fibers[current]; }

// _setjmp and _longjmp, unlike swapcontext, make no system call: a switch costs nanoseconds.
inline void give_way() {
  if (!_setjmp(self().resume)) _longjmp(scheduler, 1);
}

// Ends the launch. Fibers are abandoned as they are; the caller reads `error`.
[[noreturn]] inline void fail(const std::string& what) {
  error = what + " (block " + std::to_string(block.x) + "," + std::to_string(block.y) + ", thread " +
          std::to_string(current) + ")";
  _longjmp(scheduler, 2);
}

inline void check_global(const void* at, size_t bytes) {
  const uintptr_t a = (uintptr_t)at;
  for (const Range& range : global_memory)
    if (a >= range.begin && a + bytes <= range.end) return;
  fail("global access out of bounds");
}

// ---- halves

inline float half_value(half_t h) {
  const int exponent = h >> 10 & 31, mantissa = h & 1023;
  float v;
  if (exponent == 0) v = std::ldexp((float)mantissa, -24);
  else if (exponent == 31) v = mantissa ? NAN : INFINITY;
  else v = std::ldexp((float)(mantissa | 1024), exponent - 25);
  return h >> 15 ? -v : v;
}
inline float half_table(half_t h) {
  static const std::vector<float> table = [] {
    std::vector<float> t(1 << 16);
    for (int i = 0; i < 1 << 16; ++i) t[i] = half_value((half_t)i);
    return t;
  }();
  return table[h];
}
// Round to nearest even, by the definition: scale so that the last kept bit is one, round, scale back.
inline half_t half_nearest(float v) {
  const half_t sign = std::signbit(v) ? 0x8000 : 0;
  const float a = std::fabs(v);
  if (std::isnan(v)) return 0x7fff;
  if (a == 0.f) return sign;
  if (a >= 65520.f) return sign | 0x7c00;
  int exponent = 0;
  std::frexp(a, &exponent);
  exponent = std::max(exponent, -13);  // below 2^-14 halves are evenly spaced
  const int steps = (int)std::nearbyint(std::ldexp(a, 11 - exponent));  // 1024..2048, or fewer if subnormal
  return sign | (half_t)(steps + (exponent + 13) * 1024);
}

// ---- warp collectives, computed for all lanes by the last one to arrive

inline void load_matrices(Fiber* lanes) {
  for (int m = 0; m < 4; ++m) {
    unsigned groups = 0;  // of four banks, touched by this matrix's eight rows
    for (int r = 0; r < 8; ++r) {
      const uintptr_t row = (uintptr_t)lanes[8 * m + r].in0;
      if (row % 16) fail("ldmatrix address not 16-byte aligned");
      const unsigned group = 1u << (row / 16 % 8);
      bank_conflicts += (groups & group) != 0;
      groups |= group;
    }
  }
  for (int i = 0; i < kWarp; ++i)
    for (int m = 0; m < 4; ++m)
      std::memcpy((u32*)lanes[i].out + m, (const half_t*)lanes[8 * m + i / 4].in0 + 2 * (i % 4), 4);
}

inline void multiply_tile(Fiber* lanes) {
  float a[16][16], b[16][8];
  for (int i = 0; i < kWarp; ++i) {
    const int g = i / 4, t = i % 4;
    const half_t *x = (const half_t*)lanes[i].in0, *y = (const half_t*)lanes[i].in1;
    for (int e = 0; e < 8; ++e)
      if (x[e] == kPoison || (e < 4 && y[e] == kPoison)) fail("multiplied data that has not landed");
    for (int e = 0; e < 2; ++e) {
      a[g][2 * t + e] = half_table(x[e]), a[g + 8][2 * t + e] = half_table(x[2 + e]);
      a[g][2 * t + 8 + e] = half_table(x[4 + e]), a[g + 8][2 * t + 8 + e] = half_table(x[6 + e]);
      b[2 * t + e][g] = half_table(y[e]), b[2 * t + 8 + e][g] = half_table(y[2 + e]);
    }
  }
  for (int i = 0; i < kWarp; ++i)
    for (int e = 0; e < 4; ++e) {
      const int row = i / 4 + e / 2 * 8, column = 2 * (i % 4) + e % 2;
      float& sum = ((float*)lanes[i].out)[e];
      for (int k = 0; k < 16; ++k) sum += a[row][k] * b[k][column];
    }
  ++tile_products;
}

inline void exchange(Fiber* lanes) {
  u64 values[kWarp];
  for (int i = 0; i < kWarp; ++i) values[i] = *(const u64*)lanes[i].in0;
  for (int i = 0; i < kWarp; ++i) *(u64*)lanes[i].out = values[i ^ lanes[i].mask];
}

inline void collective(Collective kind, const void* in0, const void* in1, void* out, int mask = 0) {
  Fiber& me = self();
  me.collective = kind, me.in0 = in0, me.in1 = in1, me.out = out, me.mask = mask;
  me.state = State::kAtCollective;
  Fiber* lanes = &fibers[current / kWarp * kWarp];
  for (int i = 0; i < kWarp; ++i)
    if (lanes[i].state != State::kAtCollective) return give_way();
  for (int i = 0; i < kWarp; ++i)
    if (lanes[i].collective != kind || lanes[i].mask != mask) fail("lanes of a warp at different collectives");
  if (kind == Collective::kLoadMatrices) load_matrices(lanes);
  if (kind == Collective::kMultiply) multiply_tile(lanes);
  if (kind == Collective::kExchange) exchange(lanes);
  for (int i = 0; i < kWarp; ++i) lanes[i].state = State::kReady;
}

// ---- the scheduler

inline void fiber_main() {
  body();
  self().state = State::kDone;
  _longjmp(scheduler, 1);
}

inline void prepare_fibers(int threads) {
  fibers.clear();
  fibers.resize(threads);
  while ((int)stacks.size() < threads) stacks.emplace_back(64 << 10);
  for (int i = 0; i < threads; ++i) fibers[i].thread.x = i;
}

inline void resume(int i) {
  current = i;
  Fiber& fiber = fibers[i];
  if (fiber.started) _longjmp(fiber.resume, 1);
  fiber.started = true;
  getcontext(&fiber.start);
  fiber.start.uc_stack.ss_sp = stacks[i].data();
  fiber.start.uc_stack.ss_size = stacks[i].size();
  fiber.start.uc_link = nullptr;
  makecontext(&fiber.start, fiber_main, 0);
  setcontext(&fiber.start);
}

// Runs fiber i until it gives way. False if the launch failed.
inline bool step(int i) {
  const int jump = _setjmp(scheduler);
  if (jump == 0) resume(i);
  return jump == 1;
}

inline bool run_warp(int warp) {
  int lanes[kWarp];
  for (int i = 0; i < kWarp; ++i) lanes[i] = warp * kWarp + i;
  for (bool moved = true; moved;) {
    moved = false;
    std::shuffle(lanes, lanes + kWarp, random_source);
    for (int i : lanes)
      if (fibers[i].state == State::kReady) {
        moved = true;
        if (!step(i)) return false;
      }
  }
  return true;
}

inline bool run_block(Dim which, int threads) {
  block = which;
  prepare_fibers(threads);
  for (;;) {
    std::vector<int> ready;
    int done = 0, waiting = 0;
    for (int i = 0; i < threads; ++i) {
      if (fibers[i].state == State::kReady) ready.push_back(i);
      done += fibers[i].state == State::kDone;
      waiting += fibers[i].state == State::kAtBarrier;
    }
    if (done == threads) break;
    if (!ready.empty()) {
      if (!run_warp(ready[random_source() % ready.size()] / kWarp)) return false;
    } else if (waiting == threads) {
      for (Fiber& fiber : fibers) fiber.state = State::kReady;
    } else {
      error = "deadlock: a barrier or collective that not every thread reaches";
      return false;
    }
  }
  for (half_t* at : shared_written) std::fill(at, at + 8, kPoison);
  shared_written.clear();
  return true;
}

// Runs one kernel over its grid. False, with `error` set, if it did what a GPU must not be asked to do.
inline bool launch(std::function<void()> kernel, Dim grid, int threads) {
  error.clear();
  body = std::move(kernel);
  grid_size = grid;
  block_size.x = threads;
  std::vector<Dim> blocks;
  for (unsigned y = 0; y < grid.y; ++y)
    for (unsigned x = 0; x < grid.x; ++x) blocks.push_back({x, y, 0});
  std::shuffle(blocks.begin(), blocks.end(), random_source);
  for (const Dim& b : blocks)
    if (!run_block(b, threads)) return false;
  return true;
}

}  // namespace emulator

#define threadIdx (emulator::self().thread)
#define blockIdx emulator::block
#define blockDim emulator::block_size
#define gridDim emulator::grid_size

inline u32 bits_of(float value) {
  u32 bits;
  std::memcpy(&bits, &value, 4);
  return bits;
}
inline float float_of(u32 bits) {
  float value;
  std::memcpy(&value, &bits, 4);
  return value;
}
inline float multiply_add(float a, float b, float c) { return std::fma(a, b, c); }
inline half_t narrow(float value) { return emulator::half_nearest(value); }
inline float widen(half_t bits) { return emulator::half_table(bits); }

template <typename T> inline T load(const T* from) {
  emulator::check_global(from, sizeof(T));
  return *from;
}
template <typename T> inline void store(T* to, T value) {
  emulator::check_global(to, sizeof(T));
  *to = value;
}
inline void atomic_max(u64* to, u64 value) {
  emulator::check_global(to, 8);
  *to = std::max(*to, value);
}

inline void copy_async(half_t* to, const half_t* from, bool inside) {
  if (((uintptr_t)to | (uintptr_t)from) % 16) emulator::fail("cp.async address not 16-byte aligned");
  if (inside) emulator::check_global(from, 16);
  std::fill(to, to + 8, emulator::kPoison);
  emulator::shared_written.insert(to);
  emulator::self().open.push_back({to, from, inside});
}
inline void copy_commit() {
  emulator::self().committed.push_back(std::move(emulator::self().open));
  emulator::self().open.clear();
}
template <int PENDING> inline void copy_wait() {
  auto& groups = emulator::self().committed;
  for (; (int)groups.size() > PENDING; groups.pop_front())
    for (const emulator::Copy& copy : groups.front()) {
      if (copy.inside) std::memcpy(copy.to, copy.from, 16);
      else std::memset(copy.to, 0, 16);
    }
}
inline void sync_threads() {
  emulator::self().state = emulator::State::kAtBarrier;
  emulator::give_way();
}
inline void load_matrices(u32 (&fragment)[4], const half_t* row) {
  emulator::collective(emulator::Collective::kLoadMatrices, row, nullptr, fragment);
}
inline void multiply_tile(float (&sum)[4], const u32 (&a)[4], const u32 (&b)[2]) {
  emulator::collective(emulator::Collective::kMultiply, a, b, sum);
}
inline u64 exchange(u64 value, int mask) {
  u64 other = 0;
  emulator::collective(emulator::Collective::kExchange, &value, nullptr, &other, mask);
  return other;
}
inline float exchange(float value, int mask) { return float_of((u32)exchange((u64)bits_of(value), mask)); }

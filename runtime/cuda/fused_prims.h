// The hardware primitives of fused_max.cu: every instruction that C++ has no word for, and nothing else.
//
// Each is one PTX instruction, written after the PTX ISA 8.5, section 9.7 ("Instructions"); its subsection is
// named beside it. Tests define LINEWARD_EMULATOR and get a host model of the same functions instead, so that
// the kernels themselves, this very text, run under g++. What a model cannot prove is that it reads the PTX
// ISA rightly: that is settled by the first run on a GPU, and none of this has run on one yet.
#pragma once

typedef unsigned short half_t;  // the bits of an IEEE half: cuda_fp16.h is not needed, so NVRTC needs no headers
typedef unsigned int u32;
typedef unsigned long long u64;

#ifdef LINEWARD_EMULATOR
#include "emulator.h"
#else

#define KERNEL extern "C" __global__ void
#define MAX_THREADS(n) __launch_bounds__(n)
#define DEVICE __device__ __forceinline__
#define SHARED __shared__ __align__(16)

DEVICE u32 bits_of(float value) { return __float_as_uint(value); }
DEVICE float float_of(u32 bits) { return __uint_as_float(bits); }
DEVICE float multiply_add(float a, float b, float c) { return __fmaf_rn(a, b, c); }

// Data movement and conversion: cvt. Rounds to nearest even; out of range becomes infinity.
DEVICE half_t narrow(float value) {
  half_t bits;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(value));
  return bits;
}
DEVICE float widen(half_t bits) {
  float value;
  asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(bits));
  return value;
}

// Plain global memory accesses. They have names only so that the emulator can check their bounds.
template <typename T> DEVICE T load(const T* from) { return *from; }
template <typename T> DEVICE void store(T* to, T value) { *to = value; }
DEVICE void atomic_max(u64* to, u64 value) { atomicMax(to, value); }

// Asynchronous copy of 16 bytes, global to shared: cp.async. When not `inside`, src-size is 0: nothing is
// read and the 16 bytes are zeroed. `.cg` goes past L1: a tile is read once per block.
DEVICE void copy_async(half_t* to, const half_t* from, bool inside) {
  const u32 shared = (u32)__cvta_generic_to_shared(to);
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared), "l"(from), "r"(inside ? 16 : 0)
               : "memory");
}
// cp.async.commit_group, cp.async.wait_group: wait until at most PENDING of this thread's groups are under way.
DEVICE void copy_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int PENDING> DEVICE void copy_wait() { asm volatile("cp.async.wait_group %0;" ::"n"(PENDING) : "memory"); }

// Barrier over the block, which also orders shared memory: bar.sync.
DEVICE void sync_threads() { __syncthreads(); }

// Four 8x8 matrices of halves from shared memory: ldmatrix. Lane 8*m + r gives the address of row r of matrix
// m; lane i receives, of each matrix, the two halves at row i/4, columns 2*(i%4) and 2*(i%4) + 1.
DEVICE void load_matrices(u32 (&fragment)[4], const half_t* row) {
  const u32 shared = (u32)__cvta_generic_to_shared(row);
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(fragment[0]), "=r"(fragment[1]), "=r"(fragment[2]), "=r"(fragment[3])
               : "r"(shared)
               : "memory");
}

// sum[16x8] += a[16x16] b[16x8] on the tensor cores, halves in, floats out: mma.m16n8k16.
// With g = lane/4 and t = lane%4, a lane holds sum[g][2t], sum[g][2t+1], sum[g+8][2t], sum[g+8][2t+1].
DEVICE void multiply_tile(float (&sum)[4], const u32 (&a)[4], const u32 (&b)[2]) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

// The value held by lane ^ mask: shfl.sync.bfly.
DEVICE u64 exchange(u64 value, int mask) { return __shfl_xor_sync(0xffffffffu, value, mask); }
DEVICE float exchange(float value, int mask) { return __shfl_xor_sync(0xffffffffu, value, mask); }

#endif

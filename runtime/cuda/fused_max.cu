// Cosine nearest neighbour in one pass: for each query the largest dot product with any row of the bank, and
// the lowest index that reaches it. The [queries x rows] similarity matrix is never written: it passes through
// registers, tile by tile. Three steps, each a kernel, on one stream:
//
//   narrow_*    embeddings [n, width] -> halves [n, padded], zero-padded to a multiple of kSlice
//   fused_max   halves x halves -> best[q], the winner's similarity and index in one 64-bit key
//   rescore_*   best[q] -> the winner's dot product in float32, so that a score owes nothing to half precision
//
// fused_max reads halves and sums in float32 on the tensor cores. With unit rows its error is at most about
// 2^-10 (two roundings to half, each 2^-11 relative, and sum |q_k b_k| <= 1), so the row that it picks is within
// 2^-9 of the best one, and the rescored similarity is never above the true maximum: rounding can raise a
// patch score (1 - similarity) by about 2^-9, never lower it.
//
// NaN ranks above every number, as in numpy.max: one NaN among a query's similarities makes its result NaN.
// A NaN score is a reject; a NaN that lost to a number would be a pass.
//
// Verified on a CPU emulator of fused_prims.h and compiled for sm_80 to sm_110. Not yet run on a GPU.
#include "fused_prims.h"

constexpr int kQueries = 64;  // queries per block
constexpr int kRows = 128;    // bank rows per tile
constexpr int kSlice = 32;    // components per pipeline stage: 64 bytes of a row
constexpr int kStages = 3;    // one slice being multiplied, two on their way
constexpr int kWarpsQ = 2, kWarpsB = 2, kThreads = 32 * kWarpsQ * kWarpsB;
constexpr int kWarpQueries = kQueries / kWarpsQ, kWarpRows = kRows / kWarpsB;  // a warp's share of a tile
constexpr int kTilesQ = kWarpQueries / 16, kTilesB = kWarpRows / 8;            // in tensor-core tiles, 16x8
// Rows lie 80 bytes apart in shared memory: eight consecutive rows then start in eight different groups of four
// banks (80/16 = 5, odd), so ldmatrix never meets a bank conflict, and every row stays 16-byte aligned.
constexpr int kPitch = kSlice + 8;
static_assert(kWarpQueries % 16 == 0 && kWarpRows % 16 == 0, "a warp's share must be whole tensor-core tiles");

constexpr u32 kNobody = 0xffffffffu;

// A winner as one integer whose order is the one wanted: similarity first, then the lower index. The maximum of
// such keys does not depend on the order in which blocks arrive, so the result is the same on every run.
// A float's bits order like the number once negative ones are inverted and positive ones get the top bit
// (M. Herf, "Radix Tricks", 2001). -0 becomes +0, since the two are equal; NaN takes the top. Key 0 means
// that no row won, and reads back as NaN, index -1.
DEVICE u64 key_of(float similarity, u32 index) {
  const u32 bits = bits_of(similarity == 0.f ? 0.f : similarity);
  const u32 ordered = (bits & 0x80000000u) ? ~bits : (bits | 0x80000000u);
  return (u64)(similarity == similarity ? ordered : 0xffffffffu) << 32 | (u32)~index;
}
DEVICE float similarity_of(u64 key) {
  const u32 ordered = (u32)(key >> 32);
  return float_of((ordered & 0x80000000u) ? (ordered & 0x7fffffffu) : ~ordered);
}
DEVICE int index_of(u64 key) { return (int)~(u32)key; }

// The best similarity that one thread has seen for one query.
struct Best {
  float similarity;
  u32 index;

  // Rows come in rising order, so a strict comparison keeps the lowest index. The first NaN is kept for good.
  DEVICE void see(float candidate, u32 row) {
    if (similarity == similarity && !(candidate <= similarity)) {
      similarity = candidate;
      index = row;
    }
  }
};

// Where in the bank a pipeline stage is: slice by slice along a tile's rows, then on to the next tile.
struct Cursor {
  int row, k, stage;

  DEVICE void advance(int width) {
    stage = stage + 1 == kStages ? 0 : stage + 1;
    k += kSlice;
    if (k == width) {
      k = 0;
      row += kRows;
    }
  }
};

// Starts the copy of matrix[row .. row+ROWS, k .. k+kSlice] into one stage. Rows past the end become zeros.
template <int ROWS>
DEVICE void fetch(half_t* stage, const half_t* matrix, int row, int rows, int k, int width) {
  constexpr int kChunks = kSlice / 8;  // of 16 bytes, per row
#pragma unroll
  for (int i = threadIdx.x; i < ROWS * kChunks; i += kThreads) {
    const int r = i / kChunks, c = i % kChunks * 8;
    const bool inside = row + r < rows;
    copy_async(stage + r * kPitch + c, matrix + (size_t)(inside ? row + r : 0) * width + k + c, inside);
  }
}

// sums += (this warp's queries) x (this warp's bank rows), over the kSlice components in one stage.
DEVICE void multiply(float (&sums)[kTilesQ][kTilesB][4], const half_t* queries, const half_t* rows, int lane) {
  // A query tile is four 8x8 matrices: rows 0-7 and 8-15 of its first eight components, then of its last eight.
  const half_t* const query = queries + (lane & 15) * kPitch + (lane >> 4) * 8;
  // Two bank tiles in one load: matrices 0 and 1 are the first tile's halves along k, 2 and 3 the second's.
  // The bank is row-major, which is the column-major `b` that the instruction wants.
  const half_t* const row = rows + ((lane & 7) + (lane >> 4) * 8) * kPitch + ((lane >> 3) & 1) * 8;
#pragma unroll
  for (int k = 0; k < kSlice; k += 16) {
    u32 a[kTilesQ][4], b[kTilesB][2];
#pragma unroll
    for (int i = 0; i < kTilesQ; ++i) load_matrices(a[i], query + i * 16 * kPitch + k);
#pragma unroll
    for (int j = 0; j < kTilesB; j += 2) {
      u32 pair[4];
      load_matrices(pair, row + j * 8 * kPitch + k);
      b[j][0] = pair[0], b[j][1] = pair[1], b[j + 1][0] = pair[2], b[j + 1][1] = pair[3];
    }
#pragma unroll
    for (int i = 0; i < kTilesQ; ++i)
#pragma unroll
      for (int j = 0; j < kTilesB; ++j) multiply_tile(sums[i][j], a[i], b[j]);
  }
}

// Shows a finished tile's similarities to the running maxima, and clears the sums for the next tile.
// Zero rows past the end of the bank would beat a negative similarity: they are not shown.
DEVICE void fold(Best (&best)[kTilesQ][2], float (&sums)[kTilesQ][kTilesB][4], int row, int rows, int lane) {
#pragma unroll
  for (int i = 0; i < kTilesQ; ++i)
#pragma unroll
    for (int j = 0; j < kTilesB; ++j)
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const int b = row + j * 8 + (lane & 3) * 2 + (e & 1);
        if (b < rows) best[i][e >> 1].see(sums[i][j][e], b);
        sums[i][j][e] = 0.f;
      }
}

// best[q] = the key of max over m of <queries[q], bank[m]>.
//   queries [nq, width], bank [nb, width]: halves, 16-byte aligned; width a multiple of kSlice, at least one.
//   best [nq]: zeroed by the caller.
//   grid: (ceil(nq / kQueries), splits); block (x, y) compares its queries with the `tiles` bank tiles from
//   y * tiles on. Splits fill the device when there are few queries; the result does not depend on them.
KERNEL MAX_THREADS(kThreads) fused_max(const half_t* queries, const half_t* bank, int nq, int nb, int width,
                                       int tiles, u64* best) {
  SHARED half_t stagesQ[kStages][kQueries * kPitch];
  SHARED half_t stagesB[kStages][kRows * kPitch];

  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
  const int warpQ = warp % kWarpsQ * kWarpQueries, warpB = warp / kWarpsQ * kWarpRows;
  const int firstQ = blockIdx.x * kQueries, firstTile = blockIdx.y * tiles;
  const int left = (nb + kRows - 1) / kRows - firstTile;
  const int steps = (left < tiles ? left : tiles) * (width / kSlice);

  float sums[kTilesQ][kTilesB][4] = {};
  Best running[kTilesQ][2];
#pragma unroll
  for (int i = 0; i < kTilesQ; ++i) running[i][0] = running[i][1] = {float_of(0xff800000u /* -inf */), kNobody};

  Cursor here{firstTile * kRows, 0, 0}, ahead = here;
  auto fetch_ahead = [&] {
    fetch<kQueries>(stagesQ[ahead.stage], queries, firstQ, nq, ahead.k, width);
    fetch<kRows>(stagesB[ahead.stage], bank, ahead.row, nb, ahead.k, width);
    ahead.advance(width);
  };
#pragma unroll
  for (int s = 0; s < kStages - 1; ++s) {
    if (s < steps) fetch_ahead();
    copy_commit();
  }

  // The pipeline runs on across tiles: while a tile is folded, the next one's first slices are arriving.
  for (int step = 0; step < steps; ++step) {
    copy_wait<kStages - 2>();  // this thread's share of the oldest slice has landed,
    sync_threads();            // now everyone's has, and nobody still reads the stage that is overwritten next
    if (step + kStages - 1 < steps) fetch_ahead();
    copy_commit();  // even when empty, so that the count of groups stays right
    multiply(sums, stagesQ[here.stage] + warpQ * kPitch, stagesB[here.stage] + warpB * kPitch, lane);
    if (here.k + kSlice == width) fold(running, sums, here.row + warpB, nb, lane);
    here.advance(width);
  }

  // The four lanes of a quad hold the same queries; each quad then gives one key per query.
#pragma unroll
  for (int i = 0; i < kTilesQ; ++i)
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const Best mine = running[i][h];
      u64 key = mine.index == kNobody ? 0 : key_of(mine.similarity, mine.index);
#pragma unroll
      for (int mask = 1; mask <= 2; mask *= 2) {
        const u64 other = exchange(key, mask);
        key = other > key ? other : key;
      }
      const int q = firstQ + warpQ + i * 16 + h * 8 + (lane >> 2);
      if ((lane & 3) == 0 && q < nq) atomic_max(best + q, key);
    }
}

DEVICE half_t to_half(float value) { return narrow(value); }
DEVICE half_t to_half(half_t value) { return value; }
DEVICE float to_float(float value) { return value; }
DEVICE float to_float(half_t value) { return widen(value); }

template <typename T> DEVICE void narrow_rows(const T* from, int n, int width, int padded, half_t* to) {
  const size_t total = (size_t)n * padded, stride = (size_t)gridDim.x * blockDim.x;
  for (size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x; i < total; i += stride) {
    const size_t row = i / padded;
    const int k = (int)(i % padded);
    store(to + i, k < width ? to_half(load(from + row * width + k)) : (half_t)0);
  }
}

// One warp per query. The order of the sum is fixed: lane l takes components l, l+32, ...; then a butterfly.
template <typename T>
DEVICE void rescore(const T* queries, const float* bank, const u64* best, int nq, int width, float* similarity,
                    int* index) {
  const int lane = threadIdx.x & 31, q = (blockIdx.x * blockDim.x + threadIdx.x) >> 5;
  if (q >= nq) return;  // the whole warp
  const u64 winner = load(best + q);
  const int m = index_of(winner);
  float sum = 0.f;
  if (m >= 0)
    for (int k = lane; k < width; k += 32)
      sum = multiply_add(to_float(load(queries + (size_t)q * width + k)), load(bank + (size_t)m * width + k), sum);
#pragma unroll
  for (int mask = 16; mask > 0; mask /= 2) sum += exchange(sum, mask);
  if (lane == 0) {
    const float coarse = similarity_of(winner);
    store(similarity + q, coarse == coarse ? sum : coarse);  // NaN stays NaN
    store(index + q, m);
  }
}

// from [n, width] -> to [n, padded] halves. Any grid.
KERNEL narrow_f32(const float* from, int n, int width, int padded, half_t* to) {
  narrow_rows(from, n, width, padded, to);
}
KERNEL narrow_f16(const half_t* from, int n, int width, int padded, half_t* to) {
  narrow_rows(from, n, width, padded, to);
}

// queries [nq, width] as they came, bank [nb, width] floats, best [nq] -> similarity [nq], index [nq] (-1: none).
// grid: ceil(32 nq / threads per block).
KERNEL rescore_f32(const float* queries, const float* bank, const u64* best, int nq, int width, float* similarity,
                   int* index) {
  rescore(queries, bank, best, nq, width, similarity, index);
}
KERNEL rescore_f16(const half_t* queries, const float* bank, const u64* best, int nq, int width, float* similarity,
                   int* index) {
  rescore(queries, bank, best, nq, width, similarity, index);
}

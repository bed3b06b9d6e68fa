// The kernels' entry points for ctypes: each runs one shipped kernel in the emulator over the grid it wants.
// They return nullptr, or the reason why the launch failed.
#define LINEWARD_EMULATOR
#include "fused_max.cu"

namespace {

template <typename T> emulator::Range range(const T* at, size_t count) {
  return {(uintptr_t)at, (uintptr_t)(at + count)};
}
const char* outcome(bool fine) { return fine ? nullptr : emulator::error.c_str(); }

}  // namespace

extern "C" {

u64 run_key(float similarity, u32 index) { return key_of(similarity, index); }

const char* run_max(const half_t* queries, const half_t* bank, int nq, int nb, int width, int splits,
                    unsigned seed, u64* best, u64* bank_conflicts, u64* tile_products) {
  emulator::random_source.seed(seed);
  emulator::bank_conflicts = emulator::tile_products = 0;
  emulator::global_memory = {range(queries, (size_t)nq * width), range(bank, (size_t)nb * width), range(best, nq)};
  const int all = (nb + kRows - 1) / kRows, tiles = (all + splits - 1) / splits;
  const emulator::Dim grid{(unsigned)((nq + kQueries - 1) / kQueries), (unsigned)splits, 1};
  const bool fine = emulator::launch([=] { fused_max(queries, bank, nq, nb, width, tiles, best); }, grid, kThreads);
  *bank_conflicts = emulator::bank_conflicts;
  *tile_products = emulator::tile_products;
  return outcome(fine);
}

const char* run_narrow(const void* from, int is_half, int n, int width, int padded, unsigned blocks, half_t* to) {
  emulator::global_memory = {is_half ? range((const half_t*)from, (size_t)n * width)
                                     : range((const float*)from, (size_t)n * width),
                             range(to, (size_t)n * padded)};
  return outcome(emulator::launch(
      [=] {
        if (is_half) narrow_f16((const half_t*)from, n, width, padded, to);
        else narrow_f32((const float*)from, n, width, padded, to);
      },
      {blocks, 1, 1}, 64));
}

const char* run_rescore(const void* queries, int is_half, const float* bank, const u64* best, int nq, int nb,
                        int width, float* similarity, int* index) {
  emulator::global_memory = {is_half ? range((const half_t*)queries, (size_t)nq * width)
                                     : range((const float*)queries, (size_t)nq * width),
                             range(bank, (size_t)nb * width), range(best, nq), range(similarity, nq),
                             range(index, nq)};
  return outcome(emulator::launch(
      [=] {
        if (is_half) rescore_f16((const half_t*)queries, bank, best, nq, width, similarity, index);
        else rescore_f32((const float*)queries, bank, best, nq, width, similarity, index);
      },
      {(unsigned)((nq + 1) / 2), 1, 1}, 64));
}

}  // extern "C"

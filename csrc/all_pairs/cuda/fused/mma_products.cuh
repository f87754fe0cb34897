// Products of a block of threads that store coefficients, or multiply them, by the instructions of Ampere and later
// GPUs: see stored.cuh.
//
// Four warps multiply factors of 128 rows by factors of 128 columns, in slabs of 32 values. Each warp has 64 x 64 of
// the results, because on a GPU with fast tensor cores the factors of a smaller part would take about as long to load
// from shared memory as to multiply. Every GPU has registers and shared memory for two such blocks of threads on a
// multiprocessor: while one turns its products into coefficients, the tensor cores multiply for the other.
#pragma once

#include "all_pairs/cuda/fused/stored.cuh"

namespace fastccsa::all_pairs::cuda {

constexpr int kProductThreads = kGroupThreads, kProductWarps = kGroupWarps;
constexpr int kSlab = kBlock / 2, kSlabBlockBytes = kBlockBytes / 2;  // values of a slab, and bytes of 64 x 32 values
constexpr int kProductSteps = kSlab / 16, kProductStages = 3;
constexpr int kRowGroups = kBlock / 16, kColumnGroups = kBlock / 8;   // of a warp's results
// Of both factors. A stage has the blocks of the first factor, and then those of the second.
constexpr int kFactorBytes = 2 * kSlabBlockBytes, kProductStageBytes = 2 * kFactorBytes;

// The shared memory of two blocks of threads on a multiprocessor with 100 KiB, of which each takes 1 KiB more.
constexpr int kMemoryOfTwo = 49 * 1024;

// The results of a warp, by group of 16 rows, in the layout of pair.cuh.
using WarpProducts = float[kRowGroups][kColumnGroups * 4];

// The factors of a step of 16 values.
struct Fragments {
  uint32_t a[kRowGroups][4], b[kColumnGroups / 2][4];
};

// The place of a 16-byte chunk of a row of 32 values.
__device__ __forceinline__ int place_in_slab(int row, int chunk) {
  return row * kSlab * 2 + (chunk ^ (row >> 1 & 3)) * 16;
}

// Where a lane finds the factors of its warp: the first one's block of the warp's rows, and the second one's of its
// columns. These lie in shared memory with a row of 32 values for each row or column of the results, or kTransposed: a
// row of 64 results for each value. Their 16-byte chunks are swizzled, so that the instructions which read 8 rows at a
// time use all banks.
template <bool kTransposedA, bool kTransposedB>
class Factors {
 public:
  // `stages`: where they begin.
  __device__ __forceinline__ explicit Factors(uint32_t stages) {
    const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
    // A lane passes the address of a row of one of four matrices of 8 x 8: those of the second and the fourth are the
    // next 8 rows of A, or values of B; those of the last two are the next 8 values of A, or columns of B.
    const int x7 = lane & 7, second = lane >> 3 & 1, last = lane >> 4;
    a_ = stages + warp / 2 * kSlabBlockBytes + place<kTransposedA>(second, last, x7);
    b_ = stages + kFactorBytes + warp % 2 * kSlabBlockBytes + place<kTransposedB>(last, second, x7);
  }

  // Loads the factors of a step from a stage.
  __device__ __forceinline__ void load(Fragments& to, int stage, int step) const {
    const uint32_t a = a_ + stage * kProductStageBytes, b = b_ + stage * kProductStageBytes;
#pragma unroll
    for (int m = 0; m < kRowGroups; ++m) load_group<kTransposedA>(to.a[m], a, m, step);
#pragma unroll
    for (int n = 0; n < kColumnGroups / 2; ++n) load_group<kTransposedB>(to.b[n], b, n, step);
  }

 private:
  // Of row x7 of a matrix that is 8 `results` and 8 `values` further.
  template <bool kTransposed>
  static __device__ __forceinline__ uint32_t place(int results, int values, int x7) {
    return kTransposed ? (values * 8 + x7) * kBlock * 2 + swizzled(results, x7) * 16
                       : place_in_slab(results * 8 + x7, values);
  }

  // Of 16 results and 16 values.
  template <bool kTransposed>
  static __device__ __forceinline__ void load_group(uint32_t (&to)[4], uint32_t from, int group, int step) {
    if constexpr (kTransposed) {
      load_matrices_transposed(to, (from ^ uint32_t(group * 32)) + step * 16 * kBlock * 2);
    } else {
      load_matrices(to, (from ^ uint32_t(step * 32)) + group * 16 * kSlab * 2);
    }
  }

  uint32_t a_, b_;
};

// s += A B, of a step.
template <typename T>
__device__ __forceinline__ void multiply(WarpProducts& s, const Fragments& f) {
#pragma unroll
  for (int n = 0; n < kColumnGroups; ++n) {
#pragma unroll
    for (int m = 0; m < kRowGroups; ++m) {
      float(&d)[4] = *reinterpret_cast<float(*)[4]>(&s[m][n * 4]);
      multiply_16x8x16<T>(d, f.a[m], f.b[n / 2][n % 2 * 2], f.b[n / 2][n % 2 * 2 + 1]);
    }
  }
}

// Adds the products of a stage's slab to s, and moves on to the next stage. f[0] has the factors of the first step;
// then it has those of the next stage, which are of no use if there is no more slab. When all warps have read the
// stage, `copy` is called to start the copies of another slab to it.
template <typename T, typename FactorsOfWarp, typename Copy>
__device__ __forceinline__ void multiply_slab(WarpProducts& s, Fragments (&f)[2], const FactorsOfWarp& factors,
                                              int& stage, Copy copy) {
  static_assert(kProductSteps == 2);
  factors.load(f[1], stage, 1);
  multiply<T>(s, f[0]);
  wait_for_copies<kProductStages - 2>();  // the next stage is there
  __syncthreads();
  copy(stage);
  stage = stage + 1 == kProductStages ? 0 : stage + 1;
  factors.load(f[0], stage, 0);
  multiply<T>(s, f[1]);
}

// Starts to copy a half of each row of a block, by all threads.
__device__ __forceinline__ void copy_half_rows(uint32_t to, const unsigned char* block, int half) {
  constexpr int kChunks = kSlab / 8, kStep = kProductThreads / kChunks;
  const int own_row = threadIdx.x / kChunks, chunk = threadIdx.x % kChunks;
  to += place_in_slab(own_row, chunk);
  block += own_row * kBlock * 2 + swizzled(half * kChunks + chunk, own_row) * 16;
#pragma unroll
  for (int row = 0; row < kBlock; row += kStep) copy_async_16(to + row * kSlab * 2, block + row * kBlock * 2);
}

// Starts to copy the first half of the rows of a block from `from` on.
__device__ __forceinline__ void copy_half_block(uint32_t to, const unsigned char* from) {
  const int own = threadIdx.x * 16;
#pragma unroll
  for (int k = 0; k < kSlabBlockBytes; k += kProductThreads * 16) copy_async_16(to + own + k, from + own + k);
}

}  // namespace fastccsa::all_pairs::cuda

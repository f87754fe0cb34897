// Products of a warp from blocks of 64 x 64 swizzled values in shared memory, by the instructions of Ampere and later
// GPUs: see stored.cuh. Eight warps multiply two blocks by two others: each has 64 x 32 of the 128 x 128 results.
#pragma once

#include "all_pairs/cuda/fused/stored.cuh"

namespace fastccsa::all_pairs::cuda {

constexpr int kProductColumns = 32, kAcross = kTile / kProductColumns;  // columns of a warp, and warps side by side
constexpr int kRowGroups = kBlock / 16;                               // of a warp's rows
constexpr int kColumnGroups = kProductColumns / 8;                       // of its columns
constexpr int kProductSteps = kBlock / 16;                            // of 16 values of a block

// The results of 16 rows in the layout of pair.cuh, by group of rows.
using WarpProducts = float[kRowGroups][kColumnGroups * 4];

// The factors of a step.
struct Fragments {
  uint32_t a[kRowGroups][4], b[kColumnGroups / 2][4];
};

// Where a lane finds the factors of its warp. A block of the first factor has 64 rows of 16-byte chunks of their values,
// or kTransposedA: a row for each value, with chunks of the results' rows. In the same way a block of the second factor
// has a row for each of the results' columns, or kTransposedB: for each value.
template <bool kTransposedA, bool kTransposedB>
class Factors {
 public:
  // `a` and `b`: where two blocks of each factor begin in a stage.
  __device__ __forceinline__ Factors(uint32_t a, uint32_t b) {
    const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp, x7 = lane & 7;
    // A lane passes the address of one of four rows of chunks: as the instructions want them in this order, those of the
    // second pair are 8 values further, or 8 rows.
    const int first = lane >> 3 & 1, second = lane >> 4;
    const int column = warp % kAcross % 2 * kProductColumns;  // in its block
    a_ = a + warp / kAcross * kBlockBytes + place(kTransposedA ? second : first, kTransposedA ? first : second, x7);
    b_ = b + warp % kAcross / 2 * kBlockBytes;
    b_ += kTransposedB ? place(first, column / 8 + second, x7) : column * kRowBytes + place(second, first, x7);
  }

  // Loads the factors of a step from a stage that begins `stage` bytes behind the first one.
  __device__ __forceinline__ void load(Fragments& to, uint32_t stage, int step) const {
    const uint32_t a = a_ + stage, b = b_ + stage;
#pragma unroll
    for (int m = 0; m < kRowGroups; ++m) {
      if constexpr (kTransposedA) {
        load_matrices_transposed(to.a[m], (a ^ uint32_t(m * 32)) + step * 16 * kRowBytes);
      } else {
        load_matrices(to.a[m], (a ^ uint32_t(step * 32)) + m * 16 * kRowBytes);
      }
    }
#pragma unroll
    for (int n = 0; n < kColumnGroups / 2; ++n) {
      if constexpr (kTransposedB) {
        load_matrices_transposed(to.b[n], (b ^ uint32_t(n * 32)) + step * 16 * kRowBytes);
      } else {
        load_matrices(to.b[n], (b ^ uint32_t(step * 32)) + n * 16 * kRowBytes);
      }
    }
  }

 private:
  static constexpr int kRowBytes = kBlock * 2;

  // Of row x7 of a matrix: `rows` times 8 rows further, and in chunk `chunk`.
  static __device__ __forceinline__ uint32_t place(int rows, int chunk, int x7) {
    return uint32_t((rows * 8 + x7) * kRowBytes + swizzled(chunk, x7) * 16);
  }

  uint32_t a_, b_;
};

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

// Starts to copy kBytes to shared memory, by all threads of a block.
template <int kBytes>
__device__ __forceinline__ void copy_by_block(uint32_t to, const unsigned char* from) {
  static_assert(kBytes % (kThreads * 16) == 0);
  const int own = threadIdx.x * 16;
#pragma unroll
  for (int k = 0; k < kBytes; k += kThreads * 16) copy_async_16(to + own + k, from + own + k);
}

}  // namespace fastccsa::all_pairs::cuda

// The products of the fused kernel for Hopper GPUs.
#pragma once

#include "all_pairs/cuda/fused/params.h"
#include "core/cuda_reduce.cuh"
#include "core/tensor_core.cuh"

namespace fastccsa::all_pairs::cuda {

using namespace fastccsa::cuda;

template <int kWidth>
struct WgmmaShape {
  static constexpr int kRows = 64, kColumns = 64, kUnit = 2 * kColumns;  // kColumns of a tile
  static constexpr int kHalf = kWidth / 2;
  static constexpr int kSlab = 64 * 128;          // bytes of 64 values of 64 rows, in the 128-byte swizzle
  static constexpr int kSlabs = kWidth / 64;
  static constexpr int kTileBytes = kSlabs * kSlab;
  // Shared memory, in bytes: rows, two tiles, and the coefficients of both.
  static constexpr int kTiles = kTileBytes, kCoefficients = 3 * kTileBytes, kNorms = kCoefficients + 2 * kSlab;
  static constexpr int kLabels = kNorms + kUnit * 4, kRowSums = kLabels + kUnit * 4;
  static constexpr int kAny = kRowSums + 2 * kRows * 4, kBarriers = kAny + 2 * 4 * 4;
  static constexpr int kBytes = kBarriers + 16 * 8;
};

// Starts products of a warpgroup; the caller fences, commits and waits.
//
// The instructions take descriptors of matrices in shared memory, of which only the low half depends on the address. It
// is taken from lane 0 right before it is used, which tells the compiler that all lanes agree: then it computes with
// the registers of the warp, which the instructions need. Computed by each lane, descriptors take longer than the
// products.
template <typename T, int kWidth>
class WgmmaProducts {
  using Shape = WgmmaShape<kWidth>;
  static constexpr int kSlab = Shape::kSlab, kHalf = Shape::kHalf;

 public:
  __device__ __forceinline__ explicit WgmmaProducts(uint32_t base)
      : rows_(low_half(base, 16)),
        columns_(low_half(base + Shape::kTiles, 16)),
        values_(low_half(base + Shape::kTiles, kSlab)),
        coefficients_(low_half(base + Shape::kCoefficients, 16)) {}

  // Starts one half of the products of the rows with a tile.
  __device__ __forceinline__ void multiply(float (&s)[32], int tile, int half, bool first) const {
    const uint64_t rows = of_warp(rows_), columns = of_warp(columns_);
#pragma unroll
    for (int k = 0; k < kWidth / 32; ++k) {
      const int step = half * (kWidth / 32) + k, bytes = (step >> 2) * kSlab + (step & 3) * 32;
      wgmma_k<T, 64>(s, at(rows, bytes), at(columns, tile * Shape::kTileBytes + bytes), !first || k > 0);
    }
  }

  // Start kb += K B for a tile, with K from registers or from shared memory.
  __device__ __forceinline__ void multiply_back(float (&kb)[kHalf / 2], const uint32_t (&k)[16], int tile,
                                                int group) const {
    const uint64_t values = of_warp(values_);
#pragma unroll
    for (int step = 0; step < 4; ++step) {
      const uint32_t part[4] = {k[4 * step], k[4 * step + 1], k[4 * step + 2], k[4 * step + 3]};
      wgmma_mn<T, kHalf>(kb, part, at(values, values_at(tile, group) + step * 2048));
    }
  }
  // The same in two parts, where a thread has not enough registers for instructions of this width.
  __device__ __forceinline__ void multiply_back(float (&kb)[2][kHalf / 4], int tile, int group) const {
    const uint64_t k = of_warp(coefficients_), values = of_warp(values_);
#pragma unroll
    for (int step = 0; step < 4; ++step) {
#pragma unroll
      for (int part = 0; part < 2; ++part) {
        const int from = values_at(tile, group) + part * (Shape::kSlabs / 4) * kSlab;
        wgmma_mn<T, kHalf / 2>(kb[part], at(k, tile * kSlab + step * 32), at(values, from + step * 2048));
      }
    }
  }
  __device__ __forceinline__ void multiply_back(float (&kb)[kHalf / 2], int tile, int group) const {
    const uint64_t k = of_warp(coefficients_), values = of_warp(values_);
#pragma unroll
    for (int step = 0; step < 4; ++step) {
      wgmma_mn<T, kHalf>(kb, at(k, tile * kSlab + step * 32), at(values, values_at(tile, group) + step * 2048));
    }
  }

 private:
  static constexpr uint64_t kHighHalf = uint64_t(1024 >> 4 | 1 << 30) << 32;  // see matrix_descriptor
  static __device__ __forceinline__ uint32_t low_half(uint32_t address, uint32_t leading_bytes) {
    return uint32_t(matrix_descriptor(address, leading_bytes, 1024));
  }
  static __device__ __forceinline__ uint64_t of_warp(uint32_t low) {
    return kHighHalf | uint64_t(__shfl_sync(kAllLanes, low, 0));
  }
  static __device__ __forceinline__ uint64_t at(uint64_t descriptor, int bytes) {
    return descriptor + uint64_t(bytes >> 4);
  }

  // Where the half of a tile's values begins that a group accumulates.
  static __device__ __forceinline__ int values_at(int tile, int group) {
    return tile * Shape::kTileBytes + group * (Shape::kSlabs / 2) * kSlab;
  }

  // Low halves of descriptors: of the rows and of tile 0 as factors of S, of tile 0 as a factor of K B, and of K.
  const uint32_t rows_, columns_, values_, coefficients_;
};

}  // namespace fastccsa::all_pairs::cuda

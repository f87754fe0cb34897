// What the kernels that read columns once have in common: see streamed_kernel.cuh.
#pragma once

#include "all_pairs/cuda/fused/tile_memory.cuh"
#include "all_pairs/cuda/fused/wgmma_products.cuh"

namespace fastccsa::all_pairs::cuda {

constexpr int kStreamedThreads = 4 * kGroupThreads;

// Shared memory: the rows, the stages and their coefficients are where WgmmaProducts finds them.
struct StreamedShape {
  using Products = WgmmaShape<kLargestFusedWidth>;
  static constexpr int kRows = Products::kRows, kColumns = Products::kColumns, kStages = 2;
  static constexpr int kNorms = Products::kNorms, kLabels = kNorms + kStages * kColumns * 4;
  static constexpr int kRowNorms = kLabels + kStages * kColumns * 4, kRowLabels = kRowNorms + kRows * 4;
  static constexpr int kRowSums = kRowLabels + kRows * 8, kAny = kRowSums + kRows * 4;
  static constexpr int kLosses = kAny + kStages * kGroupWarps * 4;
  static constexpr int kBarriers = kLosses + kGroupWarps * 2 * 8, kBytes = kBarriers + 4 * kStages * 8;
};

// The blocks of threads of a block of rows: each takes every so-many-th tile of columns.
template <typename T>
FASTCCSA_HOST_DEVICE int streamed_parts(const Fused<T>& p) {
  return p.plan.threads_blocks / p.row_blocks();
}

}  // namespace fastccsa::all_pairs::cuda

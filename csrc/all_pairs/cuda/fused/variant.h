// Which of the fused kernels a GPU runs, by its instructions and its shared memory.
#pragma once

#include "all_pairs/cuda/fused/params.h"

#include <cstddef>

namespace fastccsa::all_pairs::cuda {

enum class FusedKernel {
  kMma64, kMma128, kMma256, kMma512Small, kMma512, kMma512Large, kWgmma128, kWgmma256, kWgmma512
};
constexpr int kFusedKernels = int(FusedKernel::kWgmma512) + 1;

// Returns the kernel for features of a padded width. `wgmma`: whether the GPU has these instructions and the build has
// code for them.
inline FusedKernel fused_kernel(int padded_width, bool wgmma, size_t shared_bytes) {
  if (wgmma && padded_width <= 128) return FusedKernel::kWgmma128;
  if (wgmma) return padded_width == 256 ? FusedKernel::kWgmma256 : FusedKernel::kWgmma512;
  if (padded_width == 64) return FusedKernel::kMma64;
  if (padded_width == 128) return FusedKernel::kMma128;
  if (padded_width == 256) return FusedKernel::kMma256;
  constexpr size_t kKiB = 1024;
  return shared_bytes >= 208 * kKiB   ? FusedKernel::kMma512Large
         : shared_bytes >= 136 * kKiB ? FusedKernel::kMma512
                                      : FusedKernel::kMma512Small;
}

// The width to which features are padded for a kernel.
inline int padded_width(FusedKernel kernel) {
  switch (kernel) {
    case FusedKernel::kMma64: return 64;
    case FusedKernel::kMma128:
    case FusedKernel::kWgmma128: return 128;
    case FusedKernel::kMma256:
    case FusedKernel::kWgmma256: return 256;
    default: return 512;
  }
}

struct FusedVariant {
  FusedKernel kernel;
  FusedShape shape;
  int threads_blocks;  // how many run at the same time on the GPU
};

// What tests and benchmarks may ask for.
enum class FusedChoice { kByDevice, kMma };

}  // namespace fastccsa::all_pairs::cuda

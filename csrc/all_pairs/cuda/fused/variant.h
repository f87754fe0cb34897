// The variants of the fused kernel. launch.cuh chooses one by the instructions and the shared memory of a GPU.
#pragma once

#include "all_pairs/cuda/fused/params.h"

namespace fastccsa::all_pairs::cuda {

enum class FusedKernel {
  kMma64, kMma128, kMma256, kMma512Small, kMma512, kMma512Large, kWgmma128, kWgmma256, kWgmma512,
  kStored,       // two kernels, which store coefficients: see stored.cuh
  kStreamed512,  // few rows against many: see streamed_kernel.cuh
  kStoredMma     // as kStored, without the instructions of Hopper GPUs
};
constexpr int kFusedKernels = int(FusedKernel::kStoredMma) + 1;

inline bool stores_coefficients(FusedKernel kernel) {
  return kernel == FusedKernel::kStored || kernel == FusedKernel::kStoredMma;
}

// The width to which features are padded for a kernel. Those that store coefficients take any width: wider features are
// padded to whole groups of 128 columns.
inline int padded_width(FusedKernel kernel, int64_t width) {
  switch (kernel) {
    case FusedKernel::kMma64: return 64;
    case FusedKernel::kMma128:
    case FusedKernel::kWgmma128: return 128;
    case FusedKernel::kMma256:
    case FusedKernel::kWgmma256: return 256;
    case FusedKernel::kStored:
    case FusedKernel::kStoredMma:
      return width <= kLargestFusedWidth ? kLargestFusedWidth : int((width + 127) / 128 * 128);
    default: return 512;
  }
}

struct FusedVariant {
  FusedKernel kernel;
  FusedShape shape;
  int threads_blocks;  // how many run at the same time on the GPU
};

// What may be asked for: what is fastest on the GPU, in general or for many rows on both sides; instructions of older
// GPUs; or kernels that store coefficients or, where there are any, that read one side once for the gradient of the
// other.
enum class FusedChoice { kByDevice, kManyRows, kMma, kStored, kStreamed };

}  // namespace fastccsa::all_pairs::cuda

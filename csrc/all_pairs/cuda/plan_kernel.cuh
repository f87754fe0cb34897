// The kernels that prepare the sweep over tiles on CUDA.
#pragma once

#include "all_pairs/cuda/params.h"
#include "core/cuda_memory.cuh"
#include "core/cuda_reduce.cuh"

namespace fastccsa::all_pairs::cuda {

using namespace fastccsa::cuda;

// One block of threads per block of rows.
template <typename T>
__global__ void __launch_bounds__(kThreads) radii_kernel(const Radii<T> p) {
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  const double* mean = p.mean + int64_t(blockIdx.x) * p.width;
  double largest = 0;
  for (int64_t k = p.offset[blockIdx.x] + warp; k < p.offset[blockIdx.x + 1]; k += kWarps) {
    const T* z = p.side.features.row(p.side.order[k]);
    double squares = 0;
    for (int64_t d = lane; d < p.width; d += kWarp) {
      const double difference = double(load(z[d * p.side.features.column_stride])) - mean[d];
      squares += difference * difference;
    }
    largest = Max()(largest, reduce<kWarp>(squares, Add()));
  }
  largest = reduce<kThreads>(largest, Max());
  if (threadIdx.x == 0) p.radius[blockIdx.x] = sqrt(largest);
}

// One thread per value.
__global__ void __launch_bounds__(kThreads) split_kernel(const Split p) {
  const int64_t k = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  if (k >= p.count) return;
  const Tf32Parts parts = split_tf32(p.value[k]);
  p.large[k] = parts.large;
  p.small[k] = parts.small;
}

}  // namespace fastccsa::all_pairs::cuda

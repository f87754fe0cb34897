// The last kernels of the loss over all pairs on CUDA: they put the gradients together, and add up the terms in an
// order that depends only on sizes.
#pragma once

#include "all_pairs/params.h"
#include "core/cuda_memory.cuh"
#include "core/cuda_reduce.cuh"

namespace fastccsa::all_pairs::cuda {

using namespace fastccsa::cuda;

template <typename T>
__device__ const T* row_of(const Side<T>& side, int64_t sorted_row) {
  return side.features.row(side.order[sorted_row]);
}

// One warp per row.
template <typename T, typename Mean>
__global__ void __launch_bounds__(kThreads) finish_kernel(const Finish<T, Mean> p) {
  const int lane = threadIdx.x % kWarp;
  const int64_t k = int64_t(blockIdx.x) * kWarps + threadIdx.x / kWarp;
  if (k >= p.rows) return;
  const T* z = row_of(p.side, k);
  const int64_t stride = p.side.features.column_stride;
  for (int64_t d = lane; d < p.width; d += kWarp) finish_value(p, k, d, double(load(z[d * stride])));
}

// One block.
template <typename Acc>
__global__ void __launch_bounds__(kThreads) terms_kernel(const Terms<Acc> p) {
  double alignment = 0, separation = 0;
  for (int64_t c = threadIdx.x; c < p.classes; c += kThreads) alignment += p.alignment[c];
  for (int64_t k = threadIdx.x; k < p.rows; k += kThreads) separation += p.separation[k];
  alignment = reduce<kThreads>(alignment, Add());
  separation = reduce<kThreads>(separation, Add());
  if (threadIdx.x == 0) p.finish(alignment, separation);
}

}  // namespace fastccsa::all_pairs::cuda

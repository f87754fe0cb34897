// The last kernel of the fused loss over all pairs: adds the partial sums of gradients, and the loss.
#pragma once

#include "all_pairs/cuda/fused/gradient.cuh"
#include "all_pairs/cuda/fused/work.cuh"
#include "core/tensor_core.cuh"

namespace fastccsa::all_pairs::cuda {

// A block of threads adds the partial sums of one row: each group of threads takes every kFinishGroups-th of them.
constexpr int kFinishGroups = 2, kFinishThreads = kThreads / kFinishGroups;

// Adds the terms of all blocks of threads, in a fixed order.
template <typename T>
__device__ void finish_loss(const Fused<T>& p) {
  const int groups = p.plan.threads_blocks;
  double sum[2] = {};
  for (int k = threadIdx.x; k < groups; k += kThreads) {
    for (int term = 0; term < 2; ++term) sum[term] += p.loss[term * groups + k];
  }
  for (double& value : sum) value = reduce<kThreads>(value, Add());
  if (threadIdx.x != 0) return;
  const float poison = p.zero_or_nan();
  for (int term = 0; term < 2; ++term) {
    if (p.terms >> term & 1) p.results[1][term] = float(p.scale * sum[term]) + poison;
  }
  if (p.results[0] != nullptr) *p.results[0] = p.results[1][0] + p.results[1][1];
}

// Block (x, y): row y of block of rows x among those that may be cut; the last x adds the loss.
template <typename T>
__global__ void __launch_bounds__(kThreads) fused_finish_kernel(const Fused<T> p) {
  wait_for_kernel_before();
  const int split = p.row_blocks() - p.split_from(), of = blockIdx.x, row = blockIdx.y;
  if (of == split) {
    if (row == 0 && p.results[1] != nullptr) finish_loss(p);
    return;
  }
  const RowBlock block = row_block(p, p.split_from() + of);
  const FusedSide<T>& own = p.side[block.side];
  if (own.gradient == nullptr || row >= block.rows) return;
  __shared__ int range[2];  // the blocks of threads that have a part
  if (threadIdx.x < 2) {
    const int begin = first_unit(p, of), end = first_unit(p, of + 1);
    range[threadIdx.x] = begin == end ? -int(threadIdx.x) : thread_block_of_unit(p, threadIdx.x == 0 ? begin : end - 1);
  }
  __syncthreads();
  const int from = range[0], to = range[1];  // to < from: there are no columns
  if (from == to) return;                    // written by the only one
  const int group = threadIdx.x / kFinishThreads, lane = threadIdx.x % kFinishThreads;
  const GradientTarget target = result_target(p, block.side, block.first + row, gradient_factor(p));
  const T* z = own.features + int64_t(block.first + row) * own.stride;
  __shared__ float of_group[kFinishGroups][4][kFinishThreads];
  constexpr int kColumns = 4 * kFinishThreads;
  for (int first = 0; first < p.width; first += kColumns) {
    float sum[4] = {};
#pragma unroll 4
    for (int c = from + group; c <= to; c += kFinishGroups) {
      if (p.plan.share != nullptr && p.plan.share[c] == p.plan.share[c + 1]) continue;  // this one has no work
      const int slot = 2 * c + (c == from);  // `from` has the first part: see Segment
      const float* part = p.partial + (int64_t(slot) * p.shape.rows + row) * p.width + first + lane;
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        if (first + j * kFinishThreads + lane < p.width) sum[j] += part[j * kFinishThreads];
      }
    }
    __syncthreads();  // the sums of the previous columns have been read
#pragma unroll
    for (int j = 0; j < 4; ++j) of_group[group][j][lane] = sum[j];
    __syncthreads();
    for (int j = group; j < 4; j += kFinishGroups) {
      const int d = first + j * kFinishThreads + lane;
      if (d >= p.width) continue;
      float total = 0;
      for (int g = 0; g < kFinishGroups; ++g) total += of_group[g][j][lane];
      target.to[d] = target.value(d, load(z[d]), total);
    }
  }
}

}  // namespace fastccsa::all_pairs::cuda

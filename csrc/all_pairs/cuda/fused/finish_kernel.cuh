// The last kernel of the fused loss over all pairs: adds the partial sums of gradients, and the loss.
#pragma once

#include "all_pairs/cuda/fused/pair.cuh"
#include "all_pairs/cuda/fused/work.cuh"

namespace fastccsa::all_pairs::cuda {

constexpr int kFinishRows = 8;  // rows of a block of threads

// What sums of coefficients times differences are multiplied by to become gradients.
template <typename T>
__device__ __forceinline__ float gradient_factor(const Fused<T>& p) {
  return float(-2.0 * p.scale / double(coefficient_scale(p)));
}

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
  const float poison = p.found->poison;
  for (int term = 0; term < 2; ++term) {
    if (p.terms >> term & 1) p.results[1][term] = float(p.scale * sum[term]) + poison;
  }
  if (p.results[0] != nullptr) *p.results[0] = p.results[1][0] + p.results[1][1];
}

// Block (x, y): kFinishRows rows of block of rows x among those that may be cut; the last x adds the loss.
template <typename T>
__global__ void __launch_bounds__(kThreads) fused_finish_kernel(const Fused<T> p) {
  const int split = p.row_blocks() - p.split_from(), of = blockIdx.x;
  if (of == split) {
    if (blockIdx.y == 0 && p.results[1] != nullptr) finish_loss(p);
    return;
  }
  const RowBlock block = row_block(p, p.split_from() + of);
  const FusedSide<T>& own = p.side[block.side];
  const int first = blockIdx.y * kFinishRows, rows = block.rows - first < kFinishRows ? block.rows - first : kFinishRows;
  if (own.gradient == nullptr || rows <= 0) return;
  const int begin = p.plan.first_unit[of], end = p.plan.first_unit[of + 1];
  int from = 0, to = -1;  // the blocks of threads that have a part; none if there are no columns
  if (begin < end) {
    from = find(p.plan.share, p.plan.threads_blocks, begin);
    to = find(p.plan.share, p.plan.threads_blocks, end - 1);
    if (from == to) return;  // written by the only one
  }
  const float factor = gradient_factor(p), poison = p.found->poison;
  float* gradient = own.gradient + int64_t(block.first + first) * p.width;
  for (int k = threadIdx.x; k < rows * p.width; k += kThreads) {
    float sum = 0;
    for (int c = from; c <= to; ++c) {
      if (p.plan.share[c] == p.plan.share[c + 1]) continue;  // this one has no work
      const int slot = 2 * c + (c == from);                  // `from` has the first part, see Segment
      sum += p.partial[(int64_t(slot) * p.shape.rows + first) * p.width + k];
    }
    gradient[k] = factor * sum + poison;
  }
}

}  // namespace fastccsa::all_pairs::cuda

// The last kernel of the fused loss over all pairs: adds the partial sums of gradients, and the loss.
#pragma once

#include "all_pairs/cuda/fused/gradient.cuh"
#include "all_pairs/cuda/fused/work.cuh"

namespace fastccsa::all_pairs::cuda {

constexpr int kFinishRows = 8;  // rows of a block of threads

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
  const float factor = gradient_factor(p);
  const int lane = threadIdx.x % kWarp;
  for (int r = threadIdx.x / kWarp; r < rows; r += kWarps) {
    const GradientTarget target = result_target(p, block.side, block.first + first + r, factor);
    const T* z = own.features + int64_t(block.first + first + r) * own.stride;
    for (int d = lane; d < p.width; d += kWarp) {
      float sum = 0;
      for (int c = from; c <= to; ++c) {
        if (p.plan.share[c] == p.plan.share[c + 1]) continue;  // this one has no work
        const int slot = 2 * c + (c == from);                  // `from` has the first part, see Segment
        sum += p.partial[(int64_t(slot) * p.shape.rows + first + r) * p.width + d];
      }
      target.to[d] = target.value(d, load(z[d]), sum);
    }
  }
}

}  // namespace fastccsa::all_pairs::cuda

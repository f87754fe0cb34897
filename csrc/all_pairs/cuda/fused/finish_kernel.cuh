// The last kernel of the fused loss over all pairs: adds the partial sums of gradients, and the loss.
#pragma once

#include "all_pairs/cuda/fused/gradient.cuh"
#include "all_pairs/cuda/fused/work.cuh"

namespace fastccsa::all_pairs::cuda {

// A block of threads adds the partial sums of one row. Each group of kFinishThreads threads takes every kFinishGroups-th
// of them, and has its loads in flight together.
constexpr int kFinishGroups = 4, kFinishThreads = kThreads / kFinishGroups;

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
  const int split = p.row_blocks() - p.split_from(), of = blockIdx.x, row = blockIdx.y;
  if (of == split) {
    if (row == 0 && p.results[1] != nullptr) finish_loss(p);
    return;
  }
  const RowBlock block = row_block(p, p.split_from() + of);
  const FusedSide<T>& own = p.side[block.side];
  if (own.gradient == nullptr || row >= block.rows) return;
  const int begin = first_unit(p, of), end = first_unit(p, of + 1);
  int from = 0, to = -1;  // the blocks of threads that have a part; none if there are no columns
  if (begin < end) {
    from = thread_block_of_unit(p, begin);
    to = thread_block_of_unit(p, end - 1);
    if (from == to) return;  // written by the only one
  }
  const int group = threadIdx.x / kFinishThreads, lane = threadIdx.x % kFinishThreads;
  // Slots, see Segment: `from` has the first part. A block of threads without work has no part, but leaves none between
  // others either, except at the end of the units.
  const auto part = [&](int c) { return p.partial + (int64_t(2 * c + (c == from)) * p.shape.rows + row) * p.width; };
  const auto has_part = [&](int c) { return share(p, c) < share(p, c + 1); };
  const GradientTarget target = result_target(p, block.side, block.first + row, gradient_factor(p));
  const T* z = own.features + int64_t(block.first + row) * own.stride;
  __shared__ float of_group[kFinishGroups][kFinishThreads];
  for (int first = 0; first < p.width; first += kFinishThreads) {
    const int d = first + lane;
    float sum = 0;
#pragma unroll 4
    for (int c = from + group; c <= to; c += kFinishGroups) {
      if (d < p.width && has_part(c)) sum += part(c)[d];
    }
    __syncthreads();  // the sums of the previous columns have been read
    of_group[group][lane] = sum;
    __syncthreads();
    if (group != 0 || d >= p.width) continue;
    for (int g = 1; g < kFinishGroups; ++g) sum += of_group[g][lane];
    target.to[d] = target.value(d, load(z[d]), sum);
  }
}

}  // namespace fastccsa::all_pairs::cuda

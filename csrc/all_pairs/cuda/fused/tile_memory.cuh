// The parts of the fused kernels that do not depend on the kind of tensor-core instructions.
//
// Rows in shared memory consist of 16-byte chunks. Chunk c of row r is stored at chunk c ^ (r % 8) of its group of 8
// (`swizzled`), so that the instructions which read 8 rows at a time use all banks.
#pragma once

#include "all_pairs/cuda/fused/gradient.cuh"
#include "all_pairs/cuda/fused/work.cuh"

namespace fastccsa::all_pairs::cuda {

// Of a warpgroup.
constexpr int kGroupThreads = 128, kGroupWarps = kGroupThreads / kWarp;

__device__ __forceinline__ int swizzled(int chunk, int row) { return chunk ^ (row & 7); }

// Starts to copy the norm and the label of column v of a block of rows, if it exists, to those of a tile.
template <typename T>
__device__ __forceinline__ void copy_column(const FusedSide<T>& others, const RowBlock& block, int v, float* norm,
                                            int* label) {
  if (v < block.columns) {
    const int column = block.column(v);
    copy_async_4(shared_address(norm), others.norm + column);
    copy_async_4(shared_address(label), others.label + column);
  } else {
    *norm = kFar;
    *label = kNoColumn;
  }
}

template <typename T>
__device__ __forceinline__ LaneRow lane_row(const FusedSide<T>& own, const RowBlock& block, const PairRules<T>& rules,
                                            int row) {
  if (row >= block.rows) return {kFar, kNoRow, 0};
  const int label = own.label[block.first + row];
  return {own.norm[block.first + row], label, label * rules.row_stride};
}

// Adds the sums of a warp's rows over the lanes that share them, and stores them.
__device__ __forceinline__ void store_row_sums(const float (&sums)[2], float* to, int first_row) {
  const int lane = threadIdx.x % kWarp;
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    float sum = sums[h];
    sum += __shfl_xor_sync(kAllLanes, sum, 1);
    sum += __shfl_xor_sync(kAllLanes, sum, 2);
    if (lane % 4 == 0) to[first_row + lane / 4 + h * 8] = sum;
  }
}

// Where the gradient of a row of a segment goes: to the result, or to the partial sums.
template <typename T>
__device__ __forceinline__ GradientTarget gradient_target(const Fused<T>& p, const RowBlock& block, const Segment& s,
                                                          int row, float factor) {
  if (s.slot < 0) return result_target(p, block.side, block.first + row, factor);
  GradientTarget target{};
  target.to = p.partial + (int64_t(s.slot) * p.shape.rows + row) * p.width;
  target.factor = 1.0f;
  return target;
}

// Writes two neighbouring values of a row's gradient, given sums of K (a - b).
__device__ __forceinline__ void store_gradient(const GradientTarget& target, int width, int column, float a0, float a1,
                                               float sum0, float sum1) {
  if (column >= width) return;
  const bool both = column + 1 < width;
  const float first = target.value(column, a0, sum0), second = both ? target.value(column + 1, a1, sum1) : 0.0f;
  if (width % 2 == 0) {
    *reinterpret_cast<float2*>(target.to + column) = make_float2(first, second);
  } else {
    target.to[column] = first;
    if (both) target.to[column + 1] = second;
  }
}

// Adds to two neighbouring values of a row's gradient, which has been written before.
__device__ __forceinline__ void add_to_gradient(const GradientTarget& target, int width, int column, float sum0,
                                                float sum1) {
  if (column >= width) return;
  float* const to = target.to + column;
  if (width % 2 == 0) {
    float2 both = *reinterpret_cast<float2*>(to);
    both.x = fmaf(target.factor, sum0, both.x);
    both.y = fmaf(target.factor, sum1, both.y);
    *reinterpret_cast<float2*>(to) = both;
    return;
  }
  to[0] = fmaf(target.factor, sum0, to[0]);
  if (column + 1 < width) to[1] = fmaf(target.factor, sum1, to[1]);
}

// Stores the sums of a block of threads' terms in its slot. `scratch` holds two values per warp; `synchronise` waits for
// the first `warps` warps, which all call this.
template <typename T, typename Synchronise>
__device__ __forceinline__ void store_loss(const Fused<T>& p, double (&loss)[2], double* scratch, int warps, int slot,
                                           Synchronise synchronise) {
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
#pragma unroll
  for (int term = 0; term < 2; ++term) loss[term] = reduce<kWarp>(loss[term], Add());
  synchronise();
  if (lane < 2) scratch[2 * warp + lane] = lane == 0 ? loss[0] : loss[1];
  synchronise();
  if (threadIdx.x >= 2) return;
  double sum = 0;
  for (int w = 0; w < warps; ++w) sum += scratch[2 * w + threadIdx.x];
  p.loss[int(threadIdx.x) * p.plan.threads_blocks + slot] = sum;
}

}  // namespace fastccsa::all_pairs::cuda

// The kernels of the loss over all pairs on CUDA that need no pairs: class means, alignment, and the last steps. Each sum
// is computed by one group of threads, in an order that depends only on sizes.
#pragma once

#include "all_pairs/params.h"
#include "core/cuda_distance.cuh"

namespace fastccsa::all_pairs::cuda {

using namespace fastccsa::cuda;

constexpr int kRowGroups = kThreads / kChunkColumns;

template <typename T>
__device__ const T* row_of(const Side<T>& side, int64_t sorted_row) {
  return side.features.row(side.order[sorted_row]);
}

// Returns the sum of one column's values over the groups of a block, in the order of the groups.
__device__ inline double over_row_groups(double value, int group, int column) {
  __shared__ double of_group[kRowGroups][kChunkColumns];
  __syncthreads();  // the values of the previous sum have been read
  of_group[group][column] = value;
  __syncthreads();
  double sum = 0;
  for (int g = 0; g < kRowGroups; ++g) sum += of_group[g][column];
  return sum;
}

// Block (x, y): class x, chunk y of columns. Each group of kChunkColumns threads takes every kRowGroups-th row.
template <typename T>
__global__ void __launch_bounds__(kThreads) classes_kernel(const Classes<T> p) {
  const int column = threadIdx.x % kChunkColumns, group = threadIdx.x / kChunkColumns;
  const int64_t c = blockIdx.x, d = int64_t(blockIdx.y) * kChunkColumns + column;
  const int64_t first = p.offset[c], last = p.offset[c + 1];
  const int64_t at = d * p.side.features.column_stride;
  const bool inside = d < p.width;
  double sum = 0;
  for (int64_t k = first + group; inside && k < last; k += kRowGroups) sum += double(load(row_of(p.side, k)[at]));
  sum = over_row_groups(sum, group, column);
  const double mean = first < last ? sum / double(last - first) : 0.0;
  if (inside && group == 0) p.mean[c * p.width + d] = mean;
  double squares = 0;
  for (int64_t k = first + group; inside && k < last; k += kRowGroups) {
    const double difference = double(load(row_of(p.side, k)[at])) - mean;
    squares += difference * difference;
  }
  squares = over_row_groups(squares, group, column);
  const double spread = reduce<kThreads>(group == 0 ? squares : 0.0, Add());
  if (threadIdx.x == 0) p.spread[c * gridDim.y + blockIdx.y] = spread;
}

// One block per class, then one thread per column of the centre.
template <typename Acc>
__global__ void __launch_bounds__(kThreads) align_kernel(const Align<Acc> p) {
  const int64_t c = blockIdx.x;
  if (c < p.classes) {
    double between = 0;
    for (int64_t d = threadIdx.x; p.has_pairs(c) && d < p.width; d += kThreads) {
      const double difference = p.mean[0][c * p.width + d] - p.mean[1][c * p.width + d];
      between += difference * difference;
    }
    between = reduce<kThreads>(between, Add());
    if (threadIdx.x == 0) p.finish_class(c, double(p.own_weight(c)), between);
    return;
  }
  const int64_t d = (c - p.classes) * kThreads + threadIdx.x;
  if (d >= p.width) return;
  double total = 0;
  for (int64_t of = p.next_class(-1); of < p.classes; of = p.next_class(of)) {
    for (int side = 0; side < 2; ++side) total += double(p.count(side, of)) * p.mean[side][of * p.width + d];
  }
  p.set_centre(d, total);
}

// One warp per row.
template <typename T>
__global__ void __launch_bounds__(kThreads) finish_kernel(const Finish<T> p) {
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

// The kernels that prepare labels and weights on CUDA.
#pragma once

#include "all_pairs/cuda/params.h"
#include "core/cuda_memory.cuh"
#include "core/cuda_reduce.cuh"

#include <math_constants.h>

namespace fastccsa::all_pairs::cuda {

using namespace fastccsa::cuda;

// Concurrent writes of NaN are harmless: they store the same value. Of several concurrent reports, one is kept.
template <typename Acc>
__device__ void report(Acc* poison, FaultWord* word, const FaultReport& found) {
  *static_cast<volatile FaultWord*>(word) = encode(found);
  *static_cast<volatile Acc*>(poison) = Acc(CUDART_NAN);
}

// One thread per label, those of side 0 first, then one per weight.
template <typename Acc>
__global__ void __launch_bounds__(kThreads) inputs_kernel(const Inputs<Acc> p, FaultWord* fault) {
  int64_t k = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  for (int side = 0; side < 2; ++side, k -= p.rows[side - 1]) {
    if (k >= p.rows[side]) continue;
    int64_t label = p.given_label[side][k];
    if (p.poison != nullptr && (label < 0 || label >= p.classes)) {
      report(p.poison, fault, {side == 0 ? Fault::kTarget1 : Fault::kTarget2, k, label});
      label = 0;
    }
    p.label[side][k] = label;
    return;
  }
  if (p.given_weight.data == nullptr || k >= p.classes * p.classes) return;
  const Acc weight = p.given_weight.row(k / p.classes)[k % p.classes * p.given_weight.column_stride];
  if (p.poison != nullptr && !(weight >= Acc(0))) report(p.poison, fault, {Fault::kPairWeight, 0, k});
  p.weight[k] = weight;
}

// Returns the number of values below `value`.
__device__ inline int64_t lower_bound(const int64_t* sorted, int64_t count, int64_t value) {
  int64_t first = 0;
  while (count > 0) {
    const int64_t half = count / 2;
    if (sorted[first + half] < value) {
      first += half + 1;
      count -= half + 1;
    } else {
      count = half;
    }
  }
  return first;
}

// One thread per row, those of side 0 first.
__global__ void __launch_bounds__(kThreads) ranks_kernel(const Ranks p) {
  const int64_t k = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  const int side = k >= p.rows[0];
  const int64_t row = side == 0 ? k : k - p.rows[0];
  if (row >= p.rows[side]) return;
  const int64_t label = p.sorted[side][row];
  p.label[side][row] = lower_bound(p.sorted[0], p.rows[0], label) + lower_bound(p.sorted[1], p.rows[1], label);
}

// For each side, one thread per class and one for the end.
__global__ void __launch_bounds__(kThreads) offsets_kernel(const Offsets p) {
  const int64_t k = int64_t(blockIdx.x) * kThreads + threadIdx.x, side = k / (p.classes + 1), c = k % (p.classes + 1);
  if (side < 2) p.offset[side][c] = lower_bound(p.label[side], p.rows[side], c);
}

}  // namespace fastccsa::all_pairs::cuda

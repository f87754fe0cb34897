// The kernels that check labels and weights, and sort the rows of both sides by class.
#pragma once

#include "all_pairs/cuda/prepare_params.h"
#include "core/cuda_memory.cuh"
#include "core/cuda_reduce.cuh"

#include <math_constants.h>

namespace fastccsa::all_pairs::cuda {

using namespace fastccsa::cuda;

static_assert(kSortRows == kThreads, "one thread per row");
static_assert(kCountedClasses % kThreads == 0, "all threads scan equally many classes");

// ---- labels and weights ----

// Concurrent writes of NaN are harmless: they store the same value. Of several concurrent reports, one is kept.
template <typename Acc>
__device__ void report(Acc* poison, FaultWord* word, const FaultReport& found) {
  *static_cast<volatile FaultWord*>(word) = encode(found);
  *static_cast<volatile Acc*>(poison) = Acc(CUDART_NAN);
}

// What a block works on: kSortRows rows of a side, or weights, which have side 2.
struct SortPart {
  int side;
  int64_t chunk;
  int64_t first;  // row
};

template <typename Acc>
__device__ SortPart part_of_block(const Given<Acc>& p, int64_t block) {
  int side = 0;
  for (; side < 2 && block >= p.chunks(side); ++side) block -= p.chunks(side);
  return {side, block, block * kSortRows};
}

// The whole block calls this before its threads report anything.
template <typename Acc>
__device__ void clear_poison(const Given<Acc>& p) {
  if (p.poison == nullptr) return;
  if (threadIdx.x == 0) p.poison[blockIdx.x] = Acc(0);
  __syncthreads();
}

// Returns the label of a row, or 0 if it is bad.
template <typename Acc>
__device__ int64_t checked(int64_t label, const Given<Acc>& p, int side, int64_t row, bool reports, FaultWord* fault) {
  if (p.poison == nullptr || (label >= 0 && label < p.classes)) return label;
  if (reports) report(p.poison + blockIdx.x, fault, {side == 0 ? Fault::kTarget1 : Fault::kTarget2, row, label});
  return 0;
}

template <typename Acc>
__device__ int64_t checked_label(const Given<Acc>& p, int side, int64_t row, bool reports, FaultWord* fault) {
  return checked(p.given_label[side][row], p, side, row, reports, fault);
}

template <typename Acc>
__device__ void check_weights(const Given<Acc>& p, int64_t chunk, FaultWord* fault) {
  for (int64_t k = chunk * kCheckedWeights + threadIdx.x; k < p.weights() && k < (chunk + 1) * kCheckedWeights;
       k += kThreads) {
    const Acc weight = p.given_weight.row(k / p.classes)[k % p.classes * p.given_weight.column_stride];
    if (p.poison != nullptr && !is_weight(weight)) {
      report(p.poison + blockIdx.x, fault, {Fault::kPairWeight, 0, k});
    }
    p.weight[k] = weight;
  }
}

template <typename Acc>
__global__ void __launch_bounds__(kThreads) inputs_kernel(const Inputs<Acc> p, FaultWord* fault) {
  clear_poison(p);
  const SortPart part = part_of_block(p, blockIdx.x);
  if (part.side == 2) return check_weights(p, part.chunk, fault);
  const int64_t row = part.first + threadIdx.x;
  if (row < p.rows[part.side]) p.label[part.side][row] = checked_label(p, part.side, row, true, fault);
}

// ---- sorting by counting ----

// Returns the sum of the values of the earlier lanes.
__device__ inline int sum_of_earlier_lanes(int value, int lane) {
  int sum = value;
#pragma unroll
  for (int offset = 1; offset < kWarp; offset *= 2) {
    const int earlier = __shfl_sync(kAllLanes, sum, lane < offset ? lane : lane - offset);
    if (lane >= offset) sum += earlier;
  }
  return sum - value;
}

// Replaces each of kCountedClasses values in shared memory by the sum of the values before it.
__device__ inline void sum_before(unsigned* values) {
  constexpr int kEach = int(kCountedClasses / kThreads);
  __shared__ int of_warp[kWarps];
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  unsigned* own = values + threadIdx.x * kEach;
  int sum = 0;
  for (int k = 0; k < kEach; ++k) sum += int(own[k]);
  int before = sum_of_earlier_lanes(sum, lane);
  if (lane == kWarp - 1) of_warp[warp] = before + sum;
  __syncthreads();
  for (int w = 0; w < warp; ++w) before += of_warp[w];
  for (int k = 0; k < kEach; ++k) {
    const int count = int(own[k]);
    own[k] = unsigned(before);
    before += count;
  }
  __syncthreads();
}

// Places the rows of a block, one per thread. `start`, in shared memory, is where each class begins, and `before` the
// number of rows of the thread's class in earlier chunks.
template <typename Acc>
__device__ void place_rows(const CountingSort<Acc>& p, const SortPart& part, const unsigned* start, int64_t label,
                           int64_t before) {
  __shared__ int of_row[kThreads];
  const SortedRows& to = p.sorted[part.side];
  const int64_t row = part.first + threadIdx.x, rows = p.rows[part.side];
  const bool inside = row < rows;
  of_row[threadIdx.x] = inside ? int(label) : -1;
  __syncthreads();
  const int own = int(threadIdx.x), end_of_warp = (own / kWarp + 1) * kWarp;
  int rank = 0;
#pragma unroll 8
  for (int k = 0; k < end_of_warp; ++k) rank += int(of_row[k] == int(label) && k < own);
  if (inside) {
    const int64_t position = int64_t(start[label]) + before + rank;
    to.order[position] = row;
    to.label[position] = label;
    to.label32[position] = int32_t(label);
  }
  if (part.chunk > 0) return;
  for (int64_t c = threadIdx.x; c <= p.classes; c += kThreads) to.offset[c] = c < p.classes ? int64_t(start[c]) : rows;
}

// Few rows: each block counts all rows of its side, so that blocks need not wait for each other.
template <typename Acc>
__global__ void __launch_bounds__(kThreads) sort_few_kernel(const CountingSort<Acc> p, FaultWord* fault) {
  __shared__ unsigned total[kCountedClasses], earlier[kCountedClasses];
  clear_poison(p);
  const SortPart part = part_of_block(p, blockIdx.x);
  if (part.side == 2) return check_weights(p, part.chunk, fault);
  for (int c = threadIdx.x; c < kCountedClasses; c += kThreads) total[c] = earlier[c] = 0;
  __syncthreads();
  constexpr int kLoads = 8;  // that a thread waits for at the same time
  const int64_t rows = p.rows[part.side];
  int64_t own = 0;
  for (int64_t begin = threadIdx.x; begin < rows; begin += kLoads * kSortRows) {
    int64_t given[kLoads];
#pragma unroll
    for (int k = 0; k < kLoads; ++k) {
      const int64_t row = begin + k * kSortRows;
      given[k] = row < rows ? p.given_label[part.side][row] : 0;
    }
#pragma unroll
    for (int k = 0; k < kLoads; ++k) {
      const int64_t row = begin + k * kSortRows;
      if (row >= rows) break;
      const bool is_own = row == part.first + threadIdx.x;
      const int64_t label = checked(given[k], p, part.side, row, is_own, fault);
      if (is_own) own = label;
      atomicAdd(&total[label], 1u);
      if (row < part.first) atomicAdd(&earlier[label], 1u);
    }
  }
  __syncthreads();
  sum_before(total);
  place_rows(p, part, total, own, earlier[own]);
}

// Many rows, the first launch.
template <typename Acc>
__global__ void __launch_bounds__(kThreads) count_rows_kernel(const CountingSort<Acc> p, FaultWord* fault) {
  __shared__ unsigned total[kCountedClasses];
  clear_poison(p);
  const SortPart part = part_of_block(p, blockIdx.x);
  if (part.side == 2) return check_weights(p, part.chunk, fault);
  for (int c = threadIdx.x; c < p.classes; c += kThreads) total[c] = 0;
  __syncthreads();
  const int64_t row = part.first + threadIdx.x;
  if (row < p.rows[part.side]) atomicAdd(&total[checked_label(p, part.side, row, true, fault)], 1u);
  __syncthreads();
  int32_t* to = p.count[part.side] + part.chunk;
  for (int64_t c = threadIdx.x; c < p.classes; c += kThreads) to[c * p.chunks(part.side)] = int32_t(total[c]);
}

// The second launch: one warp per class of each side.
template <typename Acc>
__global__ void __launch_bounds__(kThreads) add_counts_kernel(const CountingSort<Acc> p) {
  const int lane = threadIdx.x % kWarp;
  const int64_t k = int64_t(blockIdx.x) * kWarps + threadIdx.x / kWarp, side = k / p.classes, c = k % p.classes;
  if (side > 1) return;
  const int64_t chunks = p.chunks(int(side));
  int32_t* count = p.count[side] + c * chunks;
  int sum = 0;
#pragma unroll 4
  for (int64_t first = 0; first < chunks; first += kWarp) {
    const int64_t chunk = first + lane;
    const int own = chunk < chunks ? count[chunk] : 0, before = sum_of_earlier_lanes(own, lane);
    if (chunk < chunks) count[chunk] = sum + before;
    sum += __shfl_sync(kAllLanes, before + own, kWarp - 1);
  }
  if (lane == 0) p.total[side][c] = sum;
}

// The third launch: one thread per row.
template <typename Acc>
__global__ void __launch_bounds__(kThreads) place_rows_kernel(const CountingSort<Acc> p) {
  __shared__ unsigned start[kCountedClasses];
  const SortPart part = part_of_block(p, blockIdx.x);
  for (int c = threadIdx.x; c < kCountedClasses; c += kThreads) {
    start[c] = c < p.classes ? unsigned(p.total[part.side][c]) : 0u;
  }
  const int64_t row = part.first + threadIdx.x;
  const int64_t label = row < p.rows[part.side] ? checked_label(p, part.side, row, false, nullptr) : 0;
  const int64_t before = p.count[part.side][label * p.chunks(part.side) + part.chunk];
  __syncthreads();
  sum_before(start);
  place_rows(p, part, start, label, before);
}

// ---- labels that are already sorted ----

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

// The kernels below are templates so that several files can include them.

// One thread per row, those of side 0 first.
template <typename Parameters>
__global__ void __launch_bounds__(kThreads) numbers_kernel(const Parameters p) {
  const int64_t k = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  const int side = k >= p.rows[0];
  const int64_t row = side == 0 ? k : k - p.rows[0];
  if (row >= p.rows[side]) return;
  int64_t label = p.sorted[side][row];
  if (p.by_rank) label = lower_bound(p.sorted[0], p.rows[0], label) + lower_bound(p.sorted[1], p.rows[1], label);
  p.label[side][row] = label;
  p.label32[side][row] = int32_t(label);
}

// For each side, one thread per class and one for the end.
template <typename Parameters>
__global__ void __launch_bounds__(kThreads) offsets_kernel(const Parameters p) {
  const int64_t k = int64_t(blockIdx.x) * kThreads + threadIdx.x, side = k / (p.classes + 1), c = k % (p.classes + 1);
  if (side < 2) p.offset[side][c] = lower_bound(p.label[side], p.rows[side], c);
}

}  // namespace fastccsa::all_pairs::cuda

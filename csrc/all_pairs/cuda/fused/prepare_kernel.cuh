// The first kernel of the fused loss over all pairs: labels in 32 bits, norms, packed copies of rows, and the plan.
#pragma once

#include "all_pairs/cuda/fused/pair.cuh"
#include "all_pairs/cuda/fused/stored_params.h"
#include "all_pairs/cuda/fused/work.cuh"
#include "all_pairs/cuda/prepare_sort.cuh"

namespace fastccsa::all_pairs::cuda {

// The number of threads of a block: the plan is made by a single block.
constexpr int kPlanThreads = 1024, kPlanWarps = kPlanThreads / kWarp;

// Returns the sum of the values of earlier threads of the block, and sets `total` to the sum of all.
__device__ inline int64_t sum_of_earlier(int64_t value, int64_t& total) {
  __shared__ int64_t of_warp[kPlanWarps];
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  int64_t sum = value;
#pragma unroll
  for (int offset = 1; offset < kWarp; offset *= 2) {
    const int64_t earlier = __shfl_sync(kAllLanes, sum, lane - offset < 0 ? lane : lane - offset);
    if (lane >= offset) sum += earlier;
  }
  __syncthreads();  // the sums of the previous call have been read
  if (lane == kWarp - 1) of_warp[warp] = sum;
  __syncthreads();
  int64_t before = 0;
  total = 0;
  for (int w = 0; w < kPlanWarps; ++w) {
    if (w < warp) before += of_warp[w];
    total += of_warp[w];
  }
  return before + sum - value;
}

// Numbers the units, and evens out the work of the blocks of threads.
template <typename T>
__device__ void make_plan(const Fused<T>& p) {
  const auto units = [&](int block) {
    const auto label = [&](int side, int row) { return p.source[side].label[row]; };
    return units_of(p, row_block(p, block, label));
  };
  const int groups = p.plan.threads_blocks, split = p.row_blocks() - p.split_from();
  int64_t before = 0, total = 0;
  for (int first = 0; first < split; first += kPlanThreads) {
    const int block = first + int(threadIdx.x);
    const int own = block < split ? units(p.split_from() + block) : 0;
    const int64_t earlier = sum_of_earlier(own, total);
    if (block < split) p.plan.first_unit[block] = int32_t(before + earlier);
    before += total;
  }
  const int64_t split_units = before;
  if (threadIdx.x == 0) p.plan.first_unit[split] = int32_t(split_units);

  // The work of whole blocks of rows, by block of threads.
  int64_t whole_units = 0;
  const auto whole = [&](int group) {
    int64_t sum = 0;
    for (int wave = 0; group < groups && wave < p.plan.waves; ++wave) sum += units(wave * groups + group);
    return sum;
  };
  for (int first = 0; first < groups; first += kPlanThreads) {
    sum_of_earlier(whole(first + int(threadIdx.x)), total);
    whole_units += total;
  }
  const int64_t target = (whole_units + split_units + groups - 1) / groups;
  before = 0;
  for (int first = 0; first < groups; first += kPlanThreads) {
    const int group = first + int(threadIdx.x);
    const int64_t work = group < groups ? whole(group) : target;
    const int64_t earlier = before + sum_of_earlier(work < target ? target - work : 0, total);
    if (group < groups) p.plan.share[group] = int32_t(earlier < split_units ? earlier : split_units);
    before += total;
  }
  if (threadIdx.x == 0) p.plan.share[groups] = int32_t(split_units);
}

// Reports a bad label or weight: see `report`.
template <typename T>
__device__ void check_weight(const Fused<T>& p, int64_t k, FaultWord* fault) {
  const float weight = p.weight.row(k / p.labels)[k % p.labels * p.weight.column_stride];
  if (p.check && !is_weight(weight)) report(&p.found->poison, fault, {Fault::kPairWeight, 0, k});
  if (std::is_same_v<T, half> && weight > 0.0f) atomicMax(&p.found->largest_weight, __float_as_uint(weight));
}

// Stores a row's label in 32 bits.
template <typename T>
__device__ void prepare_label(const Fused<T>& p, int side, int row, int64_t label, FaultWord* fault) {
  if (p.check && p.labels > 0 && (label < 0 || label >= p.labels)) {
    report(&p.found->poison, fault, {side == 0 ? Fault::kTarget1 : Fault::kTarget2, row, label});
    label = 0;
  }
  if (label != int64_t(int32_t(label)) || label < 0) *static_cast<volatile int*>(&p.found->wide_labels) = 1;
  p.source[side].label32[row] = int32_t(label);
}

// One warp per row: its label, its norm and, if it is copied, its values. All loads of a step of kLargestFusedWidth
// values are started before the first is used. Sums of each step apart keep the rounding errors of wide rows small.
template <typename T, bool kPacked>
__device__ void prepare_row(const Fused<T>& p, int side, int row, FaultWord* fault) {
  const FusedSource<T>& from = p.source[side];
  const int lane = threadIdx.x % kWarp, padded = p.padded_width;
  // The place of value d, if rows are copied.
  const auto place = [&](int d) {
    if (from.row_blocks == 0) return from.packed + int64_t(row) * padded + d;
    return from.packed + place_in_blocks(row, d / 8, from.row_blocks) / int64_t(sizeof(T)) + d % 8;
  };
  if (row >= from.count) {  // padding
    for (int d = lane; d < padded; d += kWarp) *place(d) = T{0};
    if (lane == 0) {
      from.label32[row] = kNoColumn;
      from.norm[row] = kFar;
    }
    return;
  }
  const Vector<const T> z = from.features.strided_row(from.order == nullptr ? row : from.order[row]);
  const int64_t label = lane == 0 ? from.label[row] : 0;
  float norm = 0;
#pragma unroll 1
  for (int first = 0; first < padded; first += kLargestFusedWidth) {
    float sum = 0;
    if (kPacked) {
      constexpr int kSize = Pack<T>::kSize, kMost = kLargestFusedWidth / (kWarp * kSize);
      Pack<T> pack[kMost];
#pragma unroll
      for (int k = 0; k < kMost; ++k) {
        const int d = first + (k * kWarp + lane) * kSize;
        pack[k] = d < p.width ? load_pack(z.data + d) : Pack<T>{};
      }
#pragma unroll
      for (int k = 0; k < kMost; ++k) {
        const int d = first + (k * kWarp + lane) * kSize;
#pragma unroll
        for (int j = 0; j < kSize; ++j) sum = fmaf(load(pack[k].value[j]), load(pack[k].value[j]), sum);
        if (from.packed != nullptr && d < padded) *reinterpret_cast<Pack<T>*>(place(d)) = pack[k];
      }
    } else {
      for (int d = first + lane; d < min(first + kLargestFusedWidth, padded); d += kWarp) {
        const T value = d < p.width ? z[d] : T{0};
        sum = fmaf(load(value), load(value), sum);
        if (from.packed != nullptr) *place(d) = value;
      }
    }
    norm += sum;
  }
  norm = reduce<kWarp>(norm, Add());
  if (lane != 0) return;
  prepare_label(p, side, row, label, fault);
  from.norm[row] = norm;
  if (std::is_same_v<T, half> && norm > 0) atomicMax(&p.found->largest_norm, __float_as_uint(norm));
}

// Block 0 makes the plan, if it is stored; the others take one row per warp, those of side 0 first, and then one weight
// per thread.
template <typename T, bool kPacked>
__global__ void __launch_bounds__(kPlanThreads) fused_prepare_kernel(const Fused<T> p, FaultWord* fault) {
  let_next_kernel_start();
  if (blockIdx.x == 0) {
    if (p.plan.first_unit != nullptr) make_plan(p);
    return;
  }
  const int64_t rows = int64_t(p.source[0].padded_count) + p.source[1].padded_count;
  const int64_t row_blocks = (rows + kPlanWarps - 1) / kPlanWarps, block = int64_t(blockIdx.x) - 1;
  if (block >= row_blocks) {
    const int64_t k = (block - row_blocks) * kPlanThreads + threadIdx.x;
    if (p.weight.data != nullptr && k < p.labels * p.labels) check_weight(p, k, fault);
    return;
  }
  const int64_t row = block * kPlanWarps + threadIdx.x / kWarp;
  if (row >= rows) return;
  const int side = row >= p.source[0].padded_count;
  prepare_row<T, kPacked>(p, side, int(side ? row - p.source[0].padded_count : row), fault);
}

// Labels that may be any numbers are replaced, if they do not fit into 32 bits, by the number of rows with a smaller
// label. One thread per row. This is rare, so it may be slow.
template <typename T>
__global__ void __launch_bounds__(kThreads) fused_ranks_kernel(const Fused<T> p) {
  if (p.found->wide_labels == 0) return;
  const int64_t k = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  const int side = k >= p.source[0].count;
  const int64_t row = side ? k - p.source[0].count : k;
  if (row >= p.source[side].count) return;
  const int64_t label = p.source[side].label[row];
  int32_t smaller = 0;
  for (int other = 0; other < 2; ++other) {
    for (int j = 0; j < p.source[other].count; ++j) smaller += p.source[other].label[j] < label;
  }
  p.source[side].label32[row] = smaller;
}

}  // namespace fastccsa::all_pairs::cuda

// The kernels that write float32 features as parts in blocks: see parts.cuh.
#pragma once

#include "all_pairs/cuda/fused/parts.cuh"

namespace fastccsa::all_pairs::cuda {

__device__ inline float centred_value(const Side<float>& side, const float* centre, int64_t row, int64_t d) {
  return side.features.row(side.order[row])[d * side.features.column_stride] - centre[d];
}

__device__ inline void raise_to(uint32_t& largest, float value) {
  if (value > 0) atomicMax(&largest, __float_as_uint(value));
}

// Grid (blocks, sides); a warp takes every n-th row. Blocks of side 0 also read the weights.
template <typename Parameters>
__global__ void __launch_bounds__(kThreads) find_range_kernel(const Parameters p) {
  const int lane = threadIdx.x % kWarp, which = blockIdx.y;
  const auto finite = [](float x) { return x - x == 0 ? x : 0.0f; };
  const int64_t warps = int64_t(gridDim.x) * kWarps, threads = int64_t(gridDim.x) * kThreads;
  float value = 0, norm = 0, weight = 0;
  for (int64_t row = int64_t(blockIdx.x) * kWarps + threadIdx.x / kWarp; row < p.rows[which]; row += warps) {
    float sum = 0;
    for (int64_t d = lane; d < p.width; d += kWarp) {
      const float x = centred_value(p.side[which], p.centre, row, d);
      value = fmaxf(value, finite(fabsf(x)));
      sum = fmaf(x, x, sum);
    }
    norm = fmaxf(norm, finite(reduce<kWarp>(sum, Add())));
  }
  const int64_t weights = p.weight == nullptr || which == 1 ? 0 : p.classes * p.classes;
  for (int64_t k = int64_t(blockIdx.x) * kThreads + threadIdx.x; k < weights; k += threads) {
    weight = fmaxf(weight, finite(p.weight[k]));
  }
  value = reduce<kThreads>(value, Max());
  norm = reduce<kThreads>(norm, Max());
  weight = reduce<kThreads>(weight, Max());
  if (threadIdx.x != 0) return;
  raise_to(p.range->value, value);
  raise_to(p.range->norm, norm);
  raise_to(p.range->weight, weight);
}

// Grid (warps of padded rows, sides): one warp per row. With kPacked, rows can be read in packs. Norms are summed in
// float64: see split_rows_kernel.
template <typename P, bool kPacked>
__global__ void __launch_bounds__(kThreads) split_blocks_kernel(const SplitBlocks<P> p) {
  using Part = typename P::Part;
  constexpr int kColumns = 4;
  const int lane = threadIdx.x % kWarp, which = blockIdx.y, padded_rows = padded_to_tiles(int(p.rows[which]));
  const int64_t row = int64_t(blockIdx.x) * kWarps + threadIdx.x / kWarp, row_blocks = padded_rows / kBlock;
  if (row >= padded_rows) return;
  const bool exists = row < p.rows[which];
  const float scale = parts_scale(p.range, 0, false).value;
  const Side<float>& side = p.side[which];
  const float* const z = exists ? side.features.row(side.order[row]) : nullptr;
  double norm = 0;
  for (int d = lane * kColumns; d < p.slabs * kBlock; d += kWarp * kColumns) {
    float x[kColumns] = {};
    if (kPacked && exists && d + kColumns <= p.width) {
      const float4 values = *reinterpret_cast<const float4*>(z + d);
      x[0] = values.x, x[1] = values.y, x[2] = values.z, x[3] = values.w;
    } else {
      for (int e = 0; exists && e < kColumns && d + e < p.width; ++e) x[e] = z[(d + e) * side.features.column_stride];
    }
    for (int e = 0; exists && e < kColumns && d + e < p.width; ++e) x[e] = (x[e] - p.centre[d + e]) * scale;
    uint32_t parts[2][P::kParts];
    for (int two = 0; two < 2; ++two) split_pair<P>(x[2 * two], x[2 * two + 1], parts[two]);
#pragma unroll
    for (int e = 0; e < kColumns; ++e) norm += double(x[e]) * double(x[e]);
    const int64_t at = place_in_blocks(row, d / 8, row_blocks) + d % 8 * int(sizeof(Part));
#pragma unroll
    for (int part = 0; part < P::kParts; ++part) {
      unsigned char* const to = reinterpret_cast<unsigned char*>(p.parts[which]) +
                                part * (row_blocks * p.slabs * kBlockBytes) + at;
      *reinterpret_cast<uint2*>(to) = uint2{parts[0][part], parts[1][part]};
    }
  }
  norm = reduce<kWarp>(norm, Add());
  if (lane != 0) return;
  p.norm[which][row] = exists ? float(norm / (double(scale) * double(scale))) : kFar;
  p.label[which][row] = exists ? int32_t(side.label[row]) : which == 0 ? kNoRow : kNoColumn;
}

}  // namespace fastccsa::all_pairs::cuda

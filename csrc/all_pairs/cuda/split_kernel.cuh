// The kernel that writes the factors of products: sorted rows as parts.
#pragma once

#include "all_pairs/cuda/tile.h"
#include "core/cuda_memory.cuh"
#include "core/cuda_reduce.cuh"

namespace fastccsa::all_pairs::cuda {

using namespace fastccsa::cuda;

__device__ inline void round_to(double& part, double x) { part = x; }
__device__ inline void round_to(float& part, float x) { part = round_to_tf32(x); }
__device__ inline void round_to(bfloat16& part, float x) { store(part, x); }

// Splits x into parts, the largest first, and replaces it by their sum. Each part holds what the parts before it leave
// over, rounded.
template <typename P, typename Acc>
__device__ P split(Acc& x) {
  P parts;
  Acc sum = 0, rest = x;
#pragma unroll
  for (int k = 0; k < P::kParts; ++k) {
    round_to(parts.part[k], rest);
    const Acc part = load(parts.part[k]);
    rest -= part;
    sum += part;
  }
  x = sum;
  return parts;
}

// Several values that are stored at once.
template <typename Part, int kCount>
struct alignas(sizeof(Part) * kCount) Several {
  Part value[kCount];
};

// A lane splits this many neighbouring columns at once.
constexpr int kSplitColumns = 4;

// Grid (warps of rows, sides): one warp per row. With kPacked, rows can be read in packs. Norms are summed in float64,
// because all pairs of a row share the error of its norm: it does not average out.
template <typename T, typename P, bool kPacked>
__global__ void __launch_bounds__(kThreads) split_rows_kernel(const SplitRows<T, P> p) {
  using Acc = acc_t<T>;
  using Part = typename P::Part;
  using Values = Several<T, kSplitColumns>;
  const int lane = threadIdx.x % kWarp, which = blockIdx.y;
  const int64_t row = int64_t(blockIdx.x) * kWarps + threadIdx.x / kWarp;
  if (row >= p.rows[which]) return;
  const Side<T>& side = p.side[which];
  const T* z = side.features.row(side.order[row]);
  Part* to = p.parts[which] + row * P::kParts * p.stride;
  double norm = 0;
  for (int64_t d = int64_t(lane) * kSplitColumns; d < p.stride; d += kWarp * kSplitColumns) {
    Values values;
    const bool whole = kPacked && d + kSplitColumns <= p.width;
    if (whole) values = *reinterpret_cast<const Values*>(z + d);
    Several<Part, kSplitColumns> parts[P::kParts];
#pragma unroll
    for (int e = 0; e < kSplitColumns; ++e) {
      Acc x = 0;
      if (d + e < p.width) {
        x = load(whole ? values.value[e] : z[(d + e) * side.features.column_stride]);
        if (p.centre != nullptr) x -= p.centre[d + e];
      }
      const P split_x = split<P>(x);
      norm += double(x) * double(x);
#pragma unroll
      for (int k = 0; k < P::kParts; ++k) parts[k].value[e] = split_x.part[k];
    }
#pragma unroll
    for (int k = 0; k < P::kParts; ++k) {
      const int at = which == 0 ? k : P::kParts - 1 - k;
      *reinterpret_cast<Several<Part, kSplitColumns>*>(to + at * p.stride + d) = parts[k];
    }
  }
  norm = reduce<kWarp>(norm, Add());
  if (lane == 0) p.norm[which][row] = Acc(norm);
}

}  // namespace fastccsa::all_pairs::cuda

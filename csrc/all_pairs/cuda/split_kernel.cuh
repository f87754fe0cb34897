// The kernel that writes the factors of products: sorted rows as parts.
#pragma once

#include "all_pairs/cuda/tile.h"
#include "core/cuda_memory.cuh"
#include "core/cuda_reduce.cuh"

#include <cstring>

namespace fastccsa::all_pairs::cuda {

using namespace fastccsa::cuda;

// Several neighbouring values, which are stored at once. Those in bfloat16 are the bits of one integer,
// the first value lowest.
template <typename Part, int kCount>
struct alignas(sizeof(Part) * kCount) Several {
  Part value[kCount];
};
template <>
struct Several<bfloat16, 2> {
  uint32_t bits;
};
template <>
struct Several<bfloat16, 4> {
  uint64_t bits;
};

// Rounds x to parts, and subtracts them from x: what is left over is for the next parts.
template <int kCount>
__device__ void round_to(Several<double, kCount>& parts, double (&x)[kCount]) {
  for (int e = 0; e < kCount; ++e) {
    parts.value[e] = x[e];
    x[e] = 0;
  }
}
template <int kCount>
__device__ void round_to(Several<float, kCount>& parts, float (&x)[kCount]) {
#pragma unroll
  for (int e = 0; e < kCount; ++e) {
    parts.value[e] = round_to_tf32(x[e]);
    x[e] -= parts.value[e];
  }
}
template <int kCount>
__device__ void round_to(Several<bfloat16, kCount>& parts, float (&x)[kCount]) {
  parts.bits = 0;
#pragma unroll
  for (int e = 0; e < kCount; e += 2) {
    const __nv_bfloat162 rounded = __floats2bfloat162_rn(x[e], x[e + 1]);
    uint32_t two;
    std::memcpy(&two, &rounded, sizeof two);
    parts.bits |= decltype(parts.bits)(two) << (16 * e);
    x[e] -= __uint_as_float(two << 16);
    x[e + 1] -= __uint_as_float(two & 0xffff0000u);
  }
}

// Splits values into parts, the largest first, and replaces them by the sums of their parts.
template <typename P, int kCount, typename Acc>
__device__ void split(Acc (&x)[kCount], Several<typename P::Part, kCount> (&parts)[P::kParts]) {
  Acc rest[kCount];
#pragma unroll
  for (int e = 0; e < kCount; ++e) rest[e] = x[e];
#pragma unroll
  for (int k = 0; k < P::kParts; ++k) round_to(parts[k], rest);
#pragma unroll
  for (int e = 0; e < kCount; ++e) x[e] -= rest[e];
}

// A lane splits this many neighbouring columns at once.
constexpr int kSplitColumns = 4;

// Grid (warps of rows, sides): one warp per row. With kPacked, rows can be read in packs. Norms are summed in float64,
// because all pairs of a row share the error of its norm: it does not average out.
template <typename T, typename P, bool kPacked>
__global__ void __launch_bounds__(kThreads) split_rows_kernel(const SplitRows<T, P> p) {
  using Acc = acc_t<T>;
  using Part = typename P::Part;
  const int lane = threadIdx.x % kWarp, which = blockIdx.y;
  const int64_t row = int64_t(blockIdx.x) * kWarps + threadIdx.x / kWarp;
  if (row >= p.rows[which]) return;
  const Side<T>& side = p.side[which];
  const T* z = side.features.row(side.order[row]);
  Part* to = p.parts[which] + row * P::kParts * p.stride;
  double norm = 0;
  for (int64_t d = int64_t(lane) * kSplitColumns; d < p.stride; d += kWarp * kSplitColumns) {
    Acc x[kSplitColumns] = {};
    if (kPacked && d + kSplitColumns <= p.width) {
      struct alignas(sizeof(T) * kSplitColumns) Values {
        T value[kSplitColumns];
      };
      const Values values = *reinterpret_cast<const Values*>(z + d);
#pragma unroll
      for (int e = 0; e < kSplitColumns; ++e) x[e] = load(values.value[e]);
    } else {
      for (int e = 0; e < kSplitColumns && d + e < p.width; ++e) x[e] = load(z[(d + e) * side.features.column_stride]);
    }
    for (int e = 0; p.centre != nullptr && e < kSplitColumns && d + e < p.width; ++e) x[e] -= p.centre[d + e];
    Several<Part, kSplitColumns> parts[P::kParts];
    split<P>(x, parts);
#pragma unroll
    for (int e = 0; e < kSplitColumns; ++e) norm += double(x[e]) * double(x[e]);
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

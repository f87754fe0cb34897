// The pairs of a tile in the fused kernels: from dot products to coefficients.
//
// A warp holds 16 rows x 8 n columns of products in the layout of the tensor cores' accumulators: lane l has, for each
// group of 8 columns, rows l / 4 and l / 4 + 8, columns 2 (l % 4) and 2 (l % 4) + 1.
#pragma once

#include "all_pairs/cuda/fused/params.h"
#include "core/cuda_memory.cuh"
#include "core/cuda_reduce.cuh"
#include "core/tensor_core.cuh"

namespace fastccsa::all_pairs::cuda {

using namespace fastccsa::cuda;

// The norm of rows and columns that do not exist, so that they are beyond every margin. Their labels differ from all
// others.
constexpr float kFar = 1e30f;
constexpr int kNoRow = -1, kNoColumn = -2;

// Keeps d^2 of products positive.
constexpr float kTiny = 1e-30f;

// The two values of a packed pair.
template <typename T>
__device__ __forceinline__ void unpack_pair(uint32_t packed, float& low, float& high) {
  low = load(T{uint16_t(packed)});
  high = load(T{uint16_t(packed >> 16)});
}

// The factor by which coefficients are multiplied before they are rounded to T: a power of 2. float16 has few
// exponents; with this factor, coefficients of typical pairs are about 2^-4, and only a pair that is 2^20 times closer
// exceeds the largest number. Bad values leave it finite.
template <typename T>
__device__ __forceinline__ float coefficient_scale(const Fused<T>&) {
  return 1.0f;
}

template <>
__device__ __forceinline__ float coefficient_scale<half>(const Fused<half>& p) {
  const float norm = sqrtf(__uint_as_float(p.found->largest_norm));
  const float weight = p.weight.data == nullptr ? 1.0f : __uint_as_float(p.found->largest_weight);
  const float ratio = norm > 0 ? p.margin / norm : 1.0f;
  const float typical = weight * (ratio > 1.0f ? ratio : 1.0f);
  if (!(typical > 1e-30f && typical < 1e30f)) return 1.0f;
  int exponent;
  frexpf(typical, &exponent);
  return ldexpf(1.0f, -4 - exponent);
}

constexpr float kLargestHalf = 65504.0f;

// What the pairs of a launch have in common.
template <typename T>
struct PairRules {
  float margin, scale;  // see coefficient_scale
  const float* weight;
  int row_stride, column_stride;  // of the weights, by the class of a row and of a column of this pass

  __device__ __forceinline__ float weight_of(int row_offset, int column_class) const {
    return weight == nullptr ? 1.0f : weight[row_offset + (column_class < 0 ? 0 : column_class) * column_stride];
  }
};

template <typename T>
__device__ __forceinline__ PairRules<T> pair_rules(const Fused<T>& p, int side) {
  const Matrix<const float>& w = p.weight;
  const int row = int(w.row_stride), column = int(w.column_stride);
  return {p.margin, coefficient_scale(p), w.data, side == 0 ? row : column, side == 0 ? column : row};
}

// One of a lane's two rows.
struct LaneRow {
  float norm;
  int label;
  int weights;  // offset of its class among the weights
};

struct LaneSums {
  float loss[2];      // alignment and separation of this lane's pairs
  float row[2];       // sums of rounded coefficients of the lane's two rows
};

// Replaces products by scaled coefficients. With -2 K = `coefficient` of pair_term, the gradient of a row a is the sum
// of -2 K (a - b). Returns a bit for each pair whose distance must be computed from its rows; its coefficient is 0 so far.
template <int kTerms, int kGroups, typename T>
__device__ __forceinline__ uint32_t pair_coefficients(float (&s)[kGroups * 4], const PairRules<T>& rules,
                                                      const LaneRow (&rows)[2], const float* norms, const int* labels,
                                                      float (&loss)[2]) {
  constexpr bool kAlign = (kTerms & kAlignmentTerm) != 0, kSeparate = (kTerms & kSeparationTerm) != 0;
  const int lane_column = threadIdx.x % 4 * 2;
  uint32_t near = 0;
#pragma unroll
  for (int n = 0; n < kGroups; ++n) {
    const float2 norm = *reinterpret_cast<const float2*>(norms + n * 8 + lane_column);
    const int2 label = *reinterpret_cast<const int2*>(labels + n * 8 + lane_column);
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      const LaneRow& row = rows[e / 2];
      const int other = e % 2 ? label.y : label.x;
      const float sum = row.norm + (e % 2 ? norm.y : norm.x);
      const float d2 = fmaf(-2.0f, s[n * 4 + e], sum);
      const bool same = row.label == other;
      const bool exact = d2 > (kAlign && same ? kFusedNearOfOneClass : kFusedNear) * sum;  // false for NaN
      const float positive = fmaxf(d2, kTiny), inverse = reciprocal_square_root(positive);
      const float gap = kSeparate && !same && exact ? fmaxf(fmaf(-positive, inverse, rules.margin), 0.0f) : 0.0f;
      const float weight = rules.weight_of(row.weights, other);
      const float pull = weight * gap;
      float k = pull * inverse;
      if (kSeparate) loss[1] = fmaf(pull, gap, loss[1]);
      if (kAlign && same) {
        k = -weight;
        if (exact) loss[0] = fmaf(weight, d2, loss[0]);
      }
      if (!exact && (same ? kAlign : kSeparate)) near |= 1u << (n * 4 + e);
      s[n * 4 + e] = k * rules.scale;
    }
  }
  return near;
}

// |a - b|^2 of a row and a column in shared memory, by a warp. `a(chunk)` and `b(chunk)` are the places of their 16-byte
// chunks.
template <int kWidth, typename T, typename A, typename B>
__device__ __forceinline__ float squared_distance_in_shared(A a, B b, int lane) {
  float sum = 0;
  for (int chunk = lane; chunk < kWidth / 8; chunk += kWarp) {
    const uint4 x = *reinterpret_cast<const uint4*>(a(chunk)), y = *reinterpret_cast<const uint4*>(b(chunk));
    const uint32_t xs[4] = {x.x, x.y, x.z, x.w}, ys[4] = {y.x, y.y, y.z, y.w};
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      float x0, x1, y0, y1;
      unpack_pair<T>(xs[i], x0, x1);
      unpack_pair<T>(ys[i], y0, y1);
      sum = fmaf(x0 - y0, x0 - y0, sum);
      sum = fmaf(x1 - y1, x1 - y1, sum);
    }
  }
  return reduce<kWarp>(sum, Add());
}

// Computes the pairs in `near` from their rows, one after the other, by the whole warp. `distance(row, column)` returns
// |a - b|^2 of a row in [0, 16) and a column of the warp's part of the tile to all lanes.
template <int kTerms, int kGroups, typename T, typename Distance>
__device__ __forceinline__ void compute_near_pairs(uint32_t near, float (&s)[kGroups * 4], const PairRules<T>& rules,
                                                   const LaneRow (&rows)[2], const int* labels, float (&loss)[2],
                                                   Distance distance) {
  const int lane = threadIdx.x % kWarp;
#pragma unroll 1
  for (unsigned lanes = __ballot_sync(kAllLanes, near != 0); lanes != 0; lanes = __ballot_sync(kAllLanes, near != 0)) {
    const int of = __ffs(int(lanes)) - 1;
    const int pair = __ffs(int(__shfl_sync(kAllLanes, near, of))) - 1;
    const int column = pair / 4 * 8 + of % 4 * 2 + pair % 2;
    const float d2 = distance(of / 4 + pair / 2 % 2 * 8, column);
    if (lane != of) continue;
    near &= near - 1;
    const bool second = pair / 2 % 2 != 0;
    const bool same = (second ? rows[1].label : rows[0].label) == labels[column];
    const float weight = rules.weight_of(second ? rows[1].weights : rows[0].weights, labels[column]);
    const PairTerm<float> term = pair_term(d2, same, weight, rules.margin);
    loss[0] += term.alignment;
    loss[1] += term.separation;
#pragma unroll
    for (int i = 0; i < kGroups * 4; ++i) {
      if (i == pair) s[i] = -0.5f * term.coefficient * rules.scale;
    }
  }
}

// Rounds the coefficients to T, packs those of neighbouring columns, and adds them to the sums of rows. Sums are of the
// rounded values, so that sum K (a - b) = (sum K) a - sum K b stays a sum of differences. packed[2 n + h] belongs to
// group n of columns and row h of the lane.
template <int kGroups, typename T>
__device__ __forceinline__ uint32_t pack_coefficients(const float (&s)[kGroups * 4], uint32_t (&packed)[kGroups * 2],
                                                      float (&row_sum)[2]) {
  uint32_t any = 0;
#pragma unroll
  for (int i = 0; i < kGroups * 2; ++i) {
    float low = s[2 * i], high = s[2 * i + 1];
    if (sizeof(T) == 2 && !std::is_same_v<T, bfloat16>) {  // NaN stays NaN
      low = low > kLargestHalf ? kLargestHalf : low;
      high = high > kLargestHalf ? kLargestHalf : high;
    }
    packed[i] = pack_pair<T>(low, high);
    row_sum[i % 2] += low + high;
    any |= packed[i];
  }
  return any;
}

}  // namespace fastccsa::all_pairs::cuda

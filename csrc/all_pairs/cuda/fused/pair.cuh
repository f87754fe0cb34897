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
  if constexpr (std::is_same_v<T, bfloat16>) {  // as pack_pair() does, so that the compiler does it once
    low = __uint_as_float(packed << 16);
    high = __uint_as_float(packed & 0xffff0000u);
  } else {
    low = load(T{uint16_t(packed)});
    high = load(T{uint16_t(packed >> 16)});
  }
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
  bool sorted;                    // whether columns are sorted by class

  __device__ __forceinline__ float weight_of(int row_offset, int column_class) const {
    return weight == nullptr ? 1.0f : weight[row_offset + (column_class < 0 ? 0 : column_class) * column_stride];
  }
};

template <typename T>
__device__ __forceinline__ PairRules<T> pair_rules(const Fused<T>& p, int side) {
  const Matrix<const float>& w = p.weight;
  const int row = int(w.row_stride), column = int(w.column_stride);
  return {p.margin, coefficient_scale(p), w.data, side == 0 ? row : column, side == 0 ? column : row,
          p.side[0].offset != nullptr};
}

// One of a lane's two rows.
struct LaneRow {
  float norm;
  int label;
  int weights;  // offset of its class among the weights
};

// Keeps the compiler from loading the norms and labels of all columns first, which takes more registers than there are.
__device__ __forceinline__ void keep_order() {
#if defined(__CUDACC__)
  asm volatile("" ::: "memory");
#endif
}

// |a - b|^2 of a row and a column in shared memory, by a warp. `a(chunk)` and `b(chunk)` are the places of their
// 16-byte chunks.
template <typename T, typename A, typename B>
__device__ __forceinline__ float squared_distance_in_shared(int width, A a, B b, int lane) {
  float sum = 0;
  for (int chunk = lane; chunk < width / 8; chunk += kWarp) {
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

// Computes the pairs in `near` from their rows, one after the other, by the whole warp: bit 2 h + e is the pair of the
// lane's row h and column e of a group of 8. `distance(row, column)` returns |a - b|^2 of a row in [0, 16) and a column
// of the group to all lanes.
template <typename T, typename Distance>
__device__ __forceinline__ void compute_near_pairs(uint32_t near, float (&k)[4], const PairRules<T>& rules,
                                                   const LaneRow (&rows)[2], const int* labels, float (&loss)[2],
                                                   Distance distance) {
  const int lane = threadIdx.x % kWarp;
#pragma unroll 1
  for (unsigned lanes = __ballot_sync(kAllLanes, near != 0); lanes != 0; lanes = __ballot_sync(kAllLanes, near != 0)) {
    const int of = __ffs(int(lanes)) - 1;
    const int pair = __ffs(int(__shfl_sync(kAllLanes, near, of))) - 1;
    const int column = of % 4 * 2 + pair % 2;
    const float d2 = distance(of / 4 + pair / 2 * 8, column);
    if (lane != of) continue;
    near &= near - 1;
    const bool same = (pair / 2 ? rows[1].label : rows[0].label) == labels[column];
    const float weight = rules.weight_of(pair / 2 ? rows[1].weights : rows[0].weights, labels[column]);
    const PairTerm<float> term = pair_term(d2, same, weight, rules.margin);
    loss[0] += term.alignment;
    loss[1] += term.separation;
#pragma unroll
    for (int i = 0; i < 4; ++i) k[i] = i == pair ? -0.5f * term.coefficient * rules.scale : k[i];
  }
}

// Rounds two coefficients of neighbouring columns to T, packs them, and adds them to the sum of their row. Sums are of
// the rounded values, so that sum K (a - b) = (sum K) a - sum K b stays a sum of differences.
template <typename T>
__device__ __forceinline__ uint32_t pack_coefficients(float low, float high, float& row_sum) {
  if (std::is_same_v<T, half>) {  // NaN stays NaN
    low = low > kLargestHalf ? kLargestHalf : low;
    high = high > kLargestHalf ? kLargestHalf : high;
  }
  const uint32_t packed = pack_pair<T>(low, high);
  row_sum += low + high;
  return packed;
}

// The pair of a lane that is nearest to the limit of near pairs, as d^2 minus the limit.
struct Nearest {
  float beyond = kFar;

  __device__ __forceinline__ void add(float d2, float norms, float share) {
    beyond = fminf(beyond, fmaf(-share, norms, d2));
  }

  // Whether all lanes' pairs are far from each other; otherwise what was computed from their products is of no use. NaN
  // makes a sum NaN, and so do distances that are 0 or less.
  __device__ __forceinline__ bool far(const float (&sums)[2]) const {
    return __all_sync(kAllLanes, (beyond > 0) & (sums[0] == sums[0]) & (sums[1] == sums[1]));
  }
};

// Coefficients of pairs of different classes whose columns are all of one class, as most tiles of sorted rows are:
// `weight` is that of the lane's two rows, with the scale. Adds up squares of gaps, without weights, and sums of rows.
template <bool kWeighted, int kGroups, typename T>
__device__ __forceinline__ void separation_coefficients(const float (&s)[kGroups * 4], uint32_t (&packed)[kGroups * 2],
                                                        const PairRules<T>& rules, const LaneRow (&rows)[2],
                                                        const float (&weight)[2], const float* norms,
                                                        float (&squares)[2], float (&row_sum)[2], Nearest& nearest) {
  const int lane_column = threadIdx.x % 4 * 2;
#pragma unroll
  for (int n = 0; n < kGroups; ++n) {
    const float2 norm = *reinterpret_cast<const float2*>(norms + n * 8 + lane_column);
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      float k[2];
#pragma unroll
      for (int e = 0; e < 2; ++e) {
        const float sum = rows[h].norm + (e ? norm.y : norm.x), d2 = fmaf(-2.0f, s[n * 4 + h * 2 + e], sum);
        nearest.add(d2, sum, kFusedNear);
        const float inverse = reciprocal_square_root(d2);
        const float gap = fmaxf(fmaf(-d2, inverse, rules.margin), 0.0f);
        squares[h] = fmaf(gap, gap, squares[h]);
        k[e] = kWeighted ? gap * weight[h] * inverse : gap * inverse;
      }
      packed[n * 2 + h] = pack_coefficients<T>(k[0], k[1], row_sum[h]);
    }
  }
}

// The same for columns of any classes; adds up the loss. For alignment, of the pairs of one class those are near that
// are so close that its value would suffer.
template <int kTerms, bool kWeighted, int kGroups, typename T>
__device__ __forceinline__ void mixed_coefficients(const float (&s)[kGroups * 4], uint32_t (&packed)[kGroups * 2],
                                                   const PairRules<T>& rules, const LaneRow (&rows)[2],
                                                   const float* norms, const int* labels, float (&loss)[2],
                                                   float (&row_sum)[2], Nearest& nearest) {
  constexpr bool kAlign = kTerms == kBothTerms;
  const int lane_column = threadIdx.x % 4 * 2;
#pragma unroll
  for (int n = 0; n < kGroups; ++n) {
    if (kGroups > 4) keep_order();
    const float2 norm = *reinterpret_cast<const float2*>(norms + n * 8 + lane_column);
    const int2 label = *reinterpret_cast<const int2*>(labels + n * 8 + lane_column);
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      float k[2];
#pragma unroll
      for (int e = 0; e < 2; ++e) {
        const int other = e ? label.y : label.x;
        const float sum = rows[h].norm + (e ? norm.y : norm.x), d2 = fmaf(-2.0f, s[n * 4 + h * 2 + e], sum);
        const bool same = rows[h].label == other;
        if (kAlign || !same) nearest.add(d2, sum, same ? kFusedNearOfOneClass : kFusedNear);
        const float weight = kWeighted ? rules.weight_of(rows[h].weights, other) : 1.0f;
        const float inverse = reciprocal_square_root(d2);
        const float gap = fmaxf(fmaf(-d2, inverse, rules.margin), 0.0f), pull = kWeighted ? weight * gap : gap;
        const float value = same ? (kAlign ? -weight : 0.0f) : pull * inverse;
        if (!same) loss[1] = fmaf(pull, gap, loss[1]);
        if (kAlign && same) loss[0] = kWeighted ? fmaf(weight, d2, loss[0]) : loss[0] + d2;
        k[e] = std::is_same_v<T, half> ? value * rules.scale : value;
      }
      packed[n * 2 + h] = pack_coefficients<T>(k[0], k[1], row_sum[h]);
    }
  }
}

// The same for any tile. Pairs that are near, and NaN, are computed from their rows. The products move to local memory
// and the columns are taken in a loop, so that this code, which rarely runs, takes no registers from the rest.
template <int kGroups, typename T, typename Distance>
__device__ __forceinline__ void near_coefficients(const float (&s)[kGroups * 4], uint32_t (&packed)[kGroups * 2],
                                                  int terms, const PairRules<T>& rules, const LaneRow (&rows)[2],
                                                  const float* norms, const int* labels, float (&loss)[2],
                                                  float (&row_sum)[2], Distance distance) {
  const bool align = (terms & kAlignmentTerm) != 0, separate = (terms & kSeparationTerm) != 0;
  const int lane_column = threadIdx.x % 4 * 2;
  float products[kGroups * 4];
  uint32_t results[kGroups * 2];
#pragma unroll
  for (int i = 0; i < kGroups * 4; ++i) products[i] = s[i];
#pragma unroll 1
  for (int n = 0; n < kGroups; ++n) {
    uint32_t near = 0;
    float k[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const LaneRow& row = rows[i / 2];
      const int column = n * 8 + lane_column + i % 2, other = labels[column];
      const float sum = row.norm + norms[column], d2 = fmaf(-2.0f, products[n * 4 + i], sum);
      const bool same = row.label == other, counts = same ? align : separate;
      const bool exact = d2 > (same ? kFusedNearOfOneClass : kFusedNear) * sum;  // false for NaN
      if (counts && !exact) near |= 1u << i;
      const float weight = counts && exact ? rules.weight_of(row.weights, other) : 0.0f;
      const float positive = fmaxf(d2, kTiny), inverse = reciprocal_square_root(positive);
      const float gap = same ? 0.0f : fmaxf(fmaf(-positive, inverse, rules.margin), 0.0f), pull = weight * gap;
      loss[1] = fmaf(pull, gap, loss[1]);
      loss[0] = fmaf(weight, same && exact ? d2 : 0.0f, loss[0]);
      k[i] = rules.scale * (same ? -weight : pull * inverse);
    }
    if (__any_sync(kAllLanes, near != 0)) {
      const auto of_group = [&](int row, int column) { return distance(row, n * 8 + column); };
      compute_near_pairs(near, k, rules, rows, labels + n * 8, loss, of_group);
    }
#pragma unroll
    for (int h = 0; h < 2; ++h) results[n * 2 + h] = pack_coefficients<T>(k[2 * h], k[2 * h + 1], row_sum[h]);
  }
#pragma unroll
  for (int i = 0; i < kGroups * 2; ++i) packed[i] = results[i];
}

// Turns a warp's products with its part of a tile into packed coefficients: packed[2 n + h] belongs to group n of 8
// columns and row h of the lane. Adds up the loss and the sums of rows. `distance`: see compute_near_pairs.
template <int kGroups, typename T, typename Distance>
__device__ __forceinline__ void tile_coefficients(const float (&s)[kGroups * 4], uint32_t (&packed)[kGroups * 2],
                                                  int terms, const PairRules<T>& rules, const LaneRow (&rows)[2],
                                                  const float* norms, const int* labels, float (&loss)[2],
                                                  float (&row_sum)[2], Distance distance) {
  float found[2] = {}, sums[2] = {};
  bool done = false;
  Nearest nearest;
  if (terms == kSeparationTerm && rules.sorted) {
    const int of_tile = labels[0];
    const bool differ = labels[kGroups * 8 - 1] == of_tile && rows[0].label != of_tile && rows[1].label != of_tile;
    if (__all_sync(kAllLanes, differ)) {
      float squares[2] = {}, weight[2] = {1.0f, 1.0f};
      if (rules.weight == nullptr && rules.scale == 1.0f) {
        separation_coefficients<false, kGroups>(s, packed, rules, rows, weight, norms, squares, sums, nearest);
      } else {
        const float plain[2] = {rules.weight_of(rows[0].weights, of_tile), rules.weight_of(rows[1].weights, of_tile)};
        for (int h = 0; h < 2; ++h) weight[h] = plain[h] * rules.scale;
        separation_coefficients<true, kGroups>(s, packed, rules, rows, weight, norms, squares, sums, nearest);
        for (int h = 0; h < 2; ++h) squares[h] *= plain[h];
      }
      found[1] = squares[0] + squares[1];
      done = nearest.far(sums);
    } else {
      constexpr int kTerm = kSeparationTerm;
      rules.weight == nullptr
          ? mixed_coefficients<kTerm, false, kGroups>(s, packed, rules, rows, norms, labels, found, sums, nearest)
          : mixed_coefficients<kTerm, true, kGroups>(s, packed, rules, rows, norms, labels, found, sums, nearest);
      done = nearest.far(sums);
    }
  } else if (terms == kBothTerms) {
    rules.weight == nullptr
        ? mixed_coefficients<kBothTerms, false, kGroups>(s, packed, rules, rows, norms, labels, found, sums, nearest)
        : mixed_coefficients<kBothTerms, true, kGroups>(s, packed, rules, rows, norms, labels, found, sums, nearest);
    // NaN of a pair of one class does not reach its coefficient, but it reaches the loss.
    const float with_loss[2] = {sums[0] + 0.0f * found[0], sums[1]};
    done = nearest.far(with_loss);
  }
  if (!done) {
    for (int k = 0; k < 2; ++k) found[k] = sums[k] = 0;
    near_coefficients<kGroups>(s, packed, terms, rules, rows, norms, labels, found, sums, distance);
  }
  for (int k = 0; k < 2; ++k) {
    loss[k] += found[k];
    row_sum[k] += sums[k];
  }
}

// Whether any of packed coefficients is not 0.
template <size_t kCount>
__device__ __forceinline__ bool any_coefficient(const uint32_t (&packed)[kCount]) {
  uint32_t any = 0;
#pragma unroll
  for (const uint32_t both : packed) any |= both;
  return any != 0;
}

}  // namespace fastccsa::all_pairs::cuda

// Where the fused kernels write gradients.
#pragma once

#include "all_pairs/cuda/fused/pair.cuh"

namespace fastccsa::all_pairs::cuda {

// What sums of coefficients times differences are multiplied by to become gradients.
template <typename T>
__device__ __forceinline__ float gradient_factor(const Fused<T>& p) {
  return float(-2.0 * p.scale / double(coefficient_scale(p)));
}

// Where the gradient of a row goes.
struct GradientTarget {
  float* to;
  float factor, poison;
  float alignment;          // coefficient of the alignment gradient
  const float* other_mean;  // of the row's class; nullptr: no alignment is added here
  float* alignment_to;      // nullptr: it is added to the rest

  // Returns value `d` of the gradient, and writes that of alignment if it goes elsewhere. `a` is the row's value, and
  // `sum` the sum of K (a - b).
  __device__ __forceinline__ float value(int d, float a, float sum) const {
    float result = fmaf(factor, sum, poison);
    if (other_mean == nullptr) return result;
    const float pull = alignment == 0.0f ? 0.0f : alignment * (a - other_mean[d]);
    if (alignment_to == nullptr) return result + pull;
    alignment_to[d] = pull + poison;
    return result;
  }
};

// The target of row `row` of a side in the results.
template <typename T>
__device__ __forceinline__ GradientTarget result_target(const Fused<T>& p, int side, int row, float factor) {
  const FusedSide<T>& own = p.side[side];
  const int64_t to = own.order == nullptr ? row : own.order[row];
  GradientTarget target{own.gradient + to * p.width, factor, p.zero_or_nan(), 0.0f, nullptr, nullptr};
  const FusedAlignment& alignment = own.alignment;
  if (alignment.coefficient == nullptr) return target;
  const int label = own.label[row];
  target.alignment = float(p.scale * alignment.coefficient[label]);
  if (alignment.gradient != nullptr) target.alignment_to = alignment.gradient + to * p.width;
  // A class without pairs has no mean, but its part of the separate gradient must be written.
  const int64_t place = target.alignment == 0.0f ? 0 : alignment.place == nullptr ? label : alignment.place[label];
  if (target.alignment != 0.0f || target.alignment_to != nullptr) {
    target.other_mean = alignment.other_mean + place * p.width;
  }
  return target;
}

}  // namespace fastccsa::all_pairs::cuda

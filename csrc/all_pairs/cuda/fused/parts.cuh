// The loss over all pairs of float32 features on Hopper GPUs, by products of 16-bit parts.
//
// As for 16-bit features (stored.cuh), one kernel stores the coefficients of pairs, and a second one multiplies them by
// the features of the other side. Here both factors of each product are sums of parts (parts.h), and so are the
// coefficients. Each slab of 64 values is loaded once, with all of its parts, for all products of parts, the smallest
// first. Everything else is as in sweep.h: rows are sorted and centred, and pairs that are close are left to TileSums.
#pragma once

#include "all_pairs/cuda/fused/parts_params.h"
#include "all_pairs/cuda/fused/stored.cuh"
#include "all_pairs/cuda/pairs_kernel.cuh"

// Follows the parameters of a lambda with products in registers, which must not move to memory.
#define FASTCCSA_INLINE_LAMBDA __attribute__((always_inline))

namespace fastccsa::all_pairs::cuda {

constexpr int kPartsThreads = 3 * kGroupThreads;  // two warpgroups compute, and a warp of the third copies
constexpr int kPartsWarps = 2 * kGroupWarps;      // that compute

// Tensor cores cut off what they add to a sum, instead of rounding it. Where float32's accuracy is promised, each slab
// has a sum of its own, and these are added in float32: the largest products are added up over 64 values.
//
// So the error of a dot product grows slowly with the width. In the worst case, products of one sign, a slab loses
// about 1.7 u of its sum if tensor cores keep 24 bits after each of its four steps, and so any number of slabs lose
// 1.7 u of the whole sum; u is the unit roundoff, 2^-24. The additions of n slabs are rounded independently, by about
// 0.4 u of partial sums that grow evenly: 0.4 u sqrt(n / 3) of the whole sum. Both together are 1.8 u for 512 columns,
// 2.1 u for 2048 and 3.1 u for 8192. The sums over 128 values of cuBLAS's products (products.h) lose about 3.1 u, which
// makes 3.1, 3.2 and 3.6 u. These figures are derived, not measured.
template <typename P>
constexpr bool kPromotes = P::kParts == 3;

template <typename P>
constexpr bool kScales = std::is_same_v<typename P::Part, half>;

// Calls visit(a, b) for the products of parts a and b of which the larger number is `part`, the smallest product first.
// They are started once part `part` has arrived, in descending order.
template <int kParts, typename Visit>
__device__ __forceinline__ void for_each_product(int part, Visit visit) {
#pragma unroll
  for (int sum = kParts - 1; sum >= part; --sum) {
    const int other = sum - part;
    if (other > part) continue;
    visit(part, other);
    if (other != part) visit(other, part);
  }
}

// The power of 2 that brings `largest` to [2^exponent, 2^(exponent + 1)), within limits; 1 for 0.
__device__ __forceinline__ float scale_to(float largest, int exponent) {
  if (!(largest > 0)) return 1.0f;
  int own;
  frexpf(largest, &own);
  const int wanted = exponent + 1 - own;
  return ldexpf(1.0f, wanted < -100 ? -100 : wanted > 100 ? 100 : wanted);
}

// Values use all exponents of float16. Coefficients of typical pairs are scaled to about 2^-3, so that only a pair that
// is 2^18 times closer exceeds the largest number.
__device__ __forceinline__ PartsScale parts_scale(const PartsRange* range, float margin, bool weighted) {
  if (range == nullptr) return {};
  const float value = scale_to(__uint_as_float(range->value), 14), norm = sqrtf(__uint_as_float(range->norm));
  const float weight = weighted ? __uint_as_float(range->weight) : 1.0f, ratio = norm > 0 ? margin / norm : 1.0f;
  const float typical = weight * fmaxf(ratio, 1.0f);
  const float coefficient = scale_to(typical < 1e30f ? typical : 1e30f, -4);
  return {value, 1 / value, coefficient, 1 / coefficient};
}

// Rounds two values to parts, packs these, and replaces the values by the sums of their parts.
template <typename P>
__device__ __forceinline__ void split_pair(float& low, float& high, uint32_t (&parts)[P::kParts]) {
  using Part = typename P::Part;
  float rest[2] = {low, high};
#pragma unroll
  for (int k = 0; k < P::kParts; ++k) {
    float a = rest[0], b = rest[1];
    parts[k] = pack_pair<Part>(a, b);
    rest[0] -= a;
    rest[1] -= b;
  }
  low -= rest[0];
  high -= rest[1];
}

}  // namespace fastccsa::all_pairs::cuda

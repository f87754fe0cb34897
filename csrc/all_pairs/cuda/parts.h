// Numbers as sums of parts that tensor cores multiply exactly.
//
// Tensor cores multiply TF32, with 11 significant bits, or bfloat16, with 8; they add the products up in float32. A
// factor of more bits is the sum of several parts. Of the products of parts, those of the smallest parts are left out:
// with n parts a_0, a_1, .. of one factor and b_0, b_1, .. of the other, the products a_i b_j with i + j < n remain.
#pragma once

#include "core/half.h"
#include "core/macros.h"

#include <cstdint>
#include <cstring>

namespace fastccsa::all_pairs::cuda {

// How the factors of products are stored: as kCount parts of type Part.
template <typename Part_, int kCount>
struct Parts {
  using Part = Part_;
  static constexpr int kParts = kCount;
  Part part[kCount];
};

using Float64 = Parts<double, 1>;     // not split
using Tf32 = Parts<float, 1>;         // one product, errors of about 2^-11 of the factors
using Bfloat16 = Parts<bfloat16, 1>;  // one product, exact for features in bfloat16
using Bf16x3 = Parts<bfloat16, 2>;    // three products, errors of about 2^-16; two parts hold a float16 exactly
using Bf16x6 = Parts<bfloat16, 3>;    // six products, as accurate as float32

// Rounds to the 11 significant bits of TF32, to nearest, ties to even; tensor cores would truncate. Infinity and NaN
// stay unchanged.
FASTCCSA_HOST_DEVICE float round_to_tf32(float x) {
  if (!(x - x == 0)) return x;
  uint32_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  bits = (bits + 0xfffu + (bits >> 13 & 1u)) & ~0x1fffu;
  std::memcpy(&x, &bits, sizeof x);
  return x;
}

}  // namespace fastccsa::all_pairs::cuda

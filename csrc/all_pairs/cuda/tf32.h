// Splits float32 into the sum of two TF32 values. Tensor cores multiply float32 as TF32.
#pragma once

#include "core/macros.h"

#include <cstdint>
#include <cstring>

namespace fastccsa::all_pairs::cuda {

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

struct Tf32Parts {
  float large, small;
};

// Splits x into large + small, up to 2^-23 of x. Three products of these parts replace one float32 product: the fourth,
// of the small parts, is about 2^-24 of the result.
FASTCCSA_HOST_DEVICE Tf32Parts split_tf32(float x) {
  const float large = round_to_tf32(x);
  return {large, round_to_tf32(x - large)};
}

}  // namespace fastccsa::all_pairs::cuda

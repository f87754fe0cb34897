// Sixteen-bit floats on the host: storage, and conversions that compilers vectorise.
//
// Kernels never include torch, and C++17 has no such types; these have torch's memory layout.
#pragma once

#include <cstdint>
#include <cstring>
#if defined(__F16C__)
#include <immintrin.h>
#endif

namespace fastccsa {

inline float float_of_bits(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

inline uint32_t bits_of_float(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits;
}

struct bfloat16 {
  uint16_t bits;
};

struct half {
  uint16_t bits;
};

inline float to_float(bfloat16 value) { return float_of_bits(uint32_t(value.bits) << 16); }

// Rounds to nearest, ties to even. NaN stays NaN.
inline bfloat16 to_bfloat16(float value) {
  const uint32_t bits = bits_of_float(value);
  const uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  return {uint16_t(value != value ? 0x7fc0u : rounded)};
}

#if defined(__F16C__)

inline float to_float(half value) { return _cvtsh_ss(value.bits); }
inline half to_half(float value) { return {uint16_t(_cvtss_sh(value, _MM_FROUND_TO_NEAREST_INT))}; }

#else

// The exponent is shifted by 112 = 127 - 15. Subnormal halves are small integers times 2^-24.
inline float to_float(half value) {
  const uint32_t sign = uint32_t(value.bits & 0x8000u) << 16;
  const uint32_t magnitude = value.bits & 0x7fffu;
  const uint32_t normal = (magnitude << 13) + (112u << 23);
  const uint32_t special = (magnitude << 13) | 0x7f800000u;
  const uint32_t subnormal = bits_of_float(float(int32_t(magnitude)) * 0x1p-24f);
  const uint32_t bits = magnitude >= 0x7c00u ? special : magnitude < 0x0400u ? subnormal : normal;
  return float_of_bits(sign | bits);
}

// Rounds to nearest, ties to even, subnormals included. Values beyond the largest half become infinity; NaN stays NaN.
inline half to_half(float value) {
  const uint32_t sign = (bits_of_float(value) >> 16) & 0x8000u;
  const uint32_t magnitude = bits_of_float(value) & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return {uint16_t(sign | 0x7e00u)};
  if (magnitude >= 0x477ff000u) return {uint16_t(sign | 0x7c00u)};  // 65520 or more
  if (magnitude < 0x38800000u) {                                    // below 2^-14: let the adder round
    const float shifted = float_of_bits(magnitude) + 0.5f;
    return {uint16_t(sign | (bits_of_float(shifted) - bits_of_float(0.5f)))};
  }
  const uint32_t rounded = magnitude + 0xfffu + ((magnitude >> 13) & 1u);
  return {uint16_t(sign | ((rounded - (112u << 23)) >> 13))};
}

#endif

}  // namespace fastccsa

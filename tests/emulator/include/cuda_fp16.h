// Replaces CUDA's header of this name: the conversions between float and half.
#pragma once

#include "core/half.h"

using __half = fastccsa::half;

inline __half __ushort_as_half(unsigned short bits) { return {bits}; }
inline unsigned short __half_as_ushort(__half value) { return value.bits; }
inline float __half2float(__half value) { return fastccsa::to_float(value); }
inline __half __float2half_rn(float value) { return fastccsa::to_half(value); }

struct __half2 {
  __half x, y;
};

inline __half2 __floats2half2_rn(float x, float y) { return {fastccsa::to_half(x), fastccsa::to_half(y)}; }

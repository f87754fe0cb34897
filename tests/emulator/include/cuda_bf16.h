// Replaces CUDA's header of this name: the conversions between float and bfloat16.
#pragma once

#include "core/half.h"

using __nv_bfloat16 = fastccsa::bfloat16;

inline __nv_bfloat16 __ushort_as_bfloat16(unsigned short bits) { return {bits}; }
inline unsigned short __bfloat16_as_ushort(__nv_bfloat16 value) { return value.bits; }
inline float __bfloat162float(__nv_bfloat16 value) { return fastccsa::to_float(value); }
inline __nv_bfloat16 __float2bfloat16_rn(float value) { return fastccsa::to_bfloat16(value); }

struct __nv_bfloat162 {
  __nv_bfloat16 x, y;
};
inline __nv_bfloat162 __floats2bfloat162_rn(float x, float y) { return {__float2bfloat16_rn(x), __float2bfloat16_rn(y)}; }

// Loads and stores of CUDA kernels: 16-bit values as floats, and 16 bytes at a time.
#pragma once

#include "core/half.h"

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>

namespace fastccsa::cuda {

__device__ inline float load(float x) { return x; }
__device__ inline double load(double x) { return x; }
__device__ inline float load(bfloat16 x) { return __bfloat162float(__ushort_as_bfloat16(x.bits)); }
__device__ inline float load(half x) { return __half2float(__ushort_as_half(x.bits)); }

__device__ inline void store(float& to, float x) { to = x; }
__device__ inline void store(double& to, double x) { to = x; }
__device__ inline void store(bfloat16& to, float x) { to.bits = __bfloat16_as_ushort(__float2bfloat16_rn(x)); }
__device__ inline void store(half& to, float x) { to.bits = __half_as_ushort(__float2half_rn(x)); }

template <typename T>
struct alignas(16) Pack {
  static constexpr int kSize = 16 / sizeof(T);
  T value[kSize];
};

template <typename T>
__device__ inline Pack<T> load_pack(const T* from) {
  return *reinterpret_cast<const Pack<T>*>(from);
}

// Whether the rows of a matrix can be read and written in packs.
template <typename T>
bool aligned(const T* data, int64_t row_stride, int64_t column_stride) {
  return column_stride == 1 && reinterpret_cast<uintptr_t>(data) % 16 == 0 && row_stride * sizeof(T) % 16 == 0;
}

}  // namespace fastccsa::cuda

// Loads and stores of CUDA kernels: 16-bit values as floats, and 16 bytes at a time.
#pragma once

#include "core/half.h"
#include "core/types.h"

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>
#include <cstring>

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

// Sixteen bytes of values, as four registers: two 16-bit values share one, where each of a Pack's takes one of its own.
struct alignas(16) Words {
  uint32_t word[4];
};

template <typename T>
__device__ inline Words load_words(const T* from) {
  return *reinterpret_cast<const Words*>(from);
}

// Stores past the first-level cache, which keeps its space for inputs.
template <typename T>
__device__ inline void store_words(T* to, const Words& words) {
#if defined(__CUDACC__)
  __stcs(reinterpret_cast<uint4*>(to), uint4{words.word[0], words.word[1], words.word[2], words.word[3]});
#else
  *reinterpret_cast<Words*>(to) = words;
#endif
}

__device__ inline void load_two(bfloat16, uint32_t word, float* to) {
  const uint32_t bits[2] = {word << 16, word & 0xffff0000u};
  memcpy(to, bits, sizeof bits);
}
__device__ inline void load_two(half, uint32_t word, float* to) {
  to[0] = load(half{uint16_t(word & 0xffffu)});
  to[1] = load(half{uint16_t(word >> 16)});
}

// Returns both values as one word; one instruction rounds them.
__device__ inline uint32_t store_two(bfloat16, float x, float y) {
  const __nv_bfloat162 two = __floats2bfloat162_rn(x, y);
  uint32_t word;
  memcpy(&word, &two, sizeof word);
  return word;
}
__device__ inline uint32_t store_two(half, float x, float y) {
  const __half2 two = __floats2half2_rn(x, y);
  uint32_t word;
  memcpy(&word, &two, sizeof word);
  return word;
}

// The conversions of Words to values of T in the type of its sums, and back.
template <typename T>
struct Values {
  static constexpr int kSize = 16 / sizeof(T);
  using Acc = acc_t<T>;

  __device__ static void load_from(const Words& words, Acc (&values)[kSize]) {
    if constexpr (sizeof(T) == 2) {
#pragma unroll
      for (int w = 0; w < 4; ++w) load_two(T{}, words.word[w], values + 2 * w);
    } else {
      memcpy(values, &words, sizeof words);
    }
  }

  __device__ static Words store_from(const Acc (&values)[kSize]) {
    Words words;
    if constexpr (sizeof(T) == 2) {
#pragma unroll
      for (int w = 0; w < 4; ++w) words.word[w] = store_two(T{}, values[2 * w], values[2 * w + 1]);
    } else {
      memcpy(&words, values, sizeof words);
    }
    return words;
  }

  // Flips the sign of every value.
  __device__ static Words negative(Words words) {
    constexpr uint32_t kSigns = sizeof(T) == 2 ? 0x80008000u : 0x80000000u;
#pragma unroll
    for (int w = 0; w < 4; ++w) {
      if (sizeof(T) < 8 || w % 2 == 1) words.word[w] ^= kSigns;
    }
    return words;
  }
};

// Whether the rows of a matrix can be read and written in packs.
template <typename T>
bool aligned(const T* data, int64_t row_stride, int64_t column_stride) {
  return column_stride == 1 && reinterpret_cast<uintptr_t>(data) % 16 == 0 && row_stride * sizeof(T) % 16 == 0;
}

}  // namespace fastccsa::cuda

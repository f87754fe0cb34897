// The keywords and functions of CUDA C++ that kernels use, for a C++ compiler. Include this file before the kernels.
#pragma once

#if defined(__CUDACC__)
#error "nvcc defines these itself"
#endif

#include "emulator/multiprocessor.h"

#include <math.h>  // exp and log of a float return a float, as in CUDA

#include <cstdint>
#include <cstring>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
// In a function, this is a static variable, one per multiprocessor.
#define __shared__ thread_local

#define threadIdx (::emulator::coordinates().thread)
#define blockIdx (::emulator::coordinates().block)
#define blockDim (::emulator::coordinates().block_size)
#define gridDim (::emulator::coordinates().grid_size)

using emulator::dim3;

inline void __syncthreads(const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
  emulator::synchronise({"__syncthreads", file, line});
}

namespace emulator {

template <typename T>
T shuffle(unsigned mask, T value, unsigned from, Site site) {
  static_assert(sizeof(T) <= sizeof(uint64_t), "an exchange carries up to 64 bits");
  uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof value);
  bits = exchange(mask, bits, from, site);
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

}  // namespace emulator

template <typename T>
T __shfl_sync(unsigned mask, T value, int from, const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
  return emulator::shuffle(mask, value, unsigned(from) % emulator::kWarpSize, {"__shfl_sync", file, line});
}

template <typename T>
T __shfl_xor_sync(unsigned mask, T value, int lane_mask, const char* file = __builtin_FILE(),
                  int line = __builtin_LINE()) {
  return emulator::shuffle(mask, value, emulator::lane() ^ unsigned(lane_mask), {"__shfl_xor_sync", file, line});
}

inline unsigned __ballot_sync(unsigned mask, int predicate, const char* file = __builtin_FILE(),
                              int line = __builtin_LINE()) {
  unsigned votes = 0;
  for (unsigned lane = 0; lane < emulator::kWarpSize; ++lane) {
    if ((mask >> lane & 1) == 0) continue;
    if (emulator::shuffle(mask, predicate, lane, {"__ballot_sync", file, line}) != 0) votes |= 1u << lane;
  }
  return votes;
}

inline int __ffs(int bits) { return __builtin_ffs(bits); }

inline float __uint_as_float(unsigned bits) {
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

// CUDA's has an error of up to 2 units in the last place; this one has one rounding more than 1.
inline float rsqrtf(float x) { return 1.0f / sqrtf(x); }

inline void __threadfence() { emulator::fences().fence(); }

inline unsigned atomicAdd(unsigned* address, unsigned value) { return emulator::fences().add(address, value); }

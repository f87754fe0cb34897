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
#define __grid_constant__
// In a function, this is a static variable, one per multiprocessor.
#define __shared__ thread_local

#define threadIdx (::emulator::coordinates().thread)
#define blockIdx (::emulator::coordinates().block)
#define blockDim (::emulator::coordinates().block_size)
#define gridDim (::emulator::coordinates().grid_size)

using emulator::dim3;

inline void __syncthreads(EMULATOR_CALLER) { emulator::synchronise({"__syncthreads", file, line}); }

inline int __syncthreads_or(int predicate, EMULATOR_CALLER) {
  return emulator::synchronise({"__syncthreads_or", file, line}, predicate != 0);
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

template <typename To, typename From>
To same_bits(From value) {
  static_assert(sizeof(To) == sizeof(From));
  To bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits;
}

}  // namespace emulator

template <typename T>
T __shfl_sync(unsigned mask, T value, int from, EMULATOR_CALLER) {
  return emulator::shuffle(mask, value, unsigned(from) % emulator::kWarpSize, {"__shfl_sync", file, line});
}

template <typename T>
T __shfl_xor_sync(unsigned mask, T value, int lane_mask, EMULATOR_CALLER) {
  return emulator::shuffle(mask, value, emulator::lane() ^ unsigned(lane_mask), {"__shfl_xor_sync", file, line});
}

// The first lanes keep their value.
template <typename T>
T __shfl_up_sync(unsigned mask, T value, unsigned distance, EMULATOR_CALLER) {
  const unsigned lane = emulator::lane();
  return emulator::shuffle(mask, value, lane < distance ? lane : lane - distance, {"__shfl_up_sync", file, line});
}

// The last lanes keep their value.
template <typename T>
T __shfl_down_sync(unsigned mask, T value, unsigned distance, EMULATOR_CALLER) {
  const unsigned lane = emulator::lane(), from = lane + distance;
  return emulator::shuffle(mask, value, from < emulator::kWarpSize ? from : lane, {"__shfl_down_sync", file, line});
}

inline unsigned __ballot_sync(unsigned mask, int predicate, EMULATOR_CALLER) {
  return emulator::vote(mask, predicate != 0, {"__ballot_sync", file, line});
}

inline int __any_sync(unsigned mask, int predicate, EMULATOR_CALLER) {
  return emulator::vote(mask, predicate != 0, {"__any_sync", file, line}) != 0;
}

inline int __all_sync(unsigned mask, int predicate, EMULATOR_CALLER) {
  return emulator::vote(mask, predicate != 0, {"__all_sync", file, line}) == mask;
}

inline void __syncwarp(unsigned mask = 0xffffffffu, EMULATOR_CALLER) {
  emulator::vote(mask, false, {"__syncwarp", file, line});
}

// Selects four of the eight bytes of y and x.
inline unsigned __byte_perm(unsigned x, unsigned y, unsigned selector) {
  const uint64_t both = uint64_t(y) << 32 | x;
  unsigned result = 0;
  for (int j = 0; j < 4; ++j) result |= unsigned(both >> (8 * (selector >> (4 * j) & 7)) & 0xffu) << (8 * j);
  return result;
}

inline int __ffs(int bits) { return __builtin_ffs(bits); }
inline int __popc(unsigned bits) { return __builtin_popcount(bits); }

inline float __uint_as_float(unsigned bits) { return emulator::same_bits<float>(bits); }
inline float __int_as_float(int bits) { return emulator::same_bits<float>(bits); }
inline unsigned __float_as_uint(float value) { return emulator::same_bits<unsigned>(value); }
inline int __float_as_int(float value) { return emulator::same_bits<int>(value); }

template <typename T>
T __ldg(const T* address) {
  return *address;
}

template <typename T>
constexpr T min(T a, T b) {
  return b < a ? b : a;
}
template <typename T>
constexpr T max(T a, T b) {
  return a < b ? b : a;
}

// CUDA's has an error of up to 2 units in the last place; this one has one rounding more than 1.
inline float rsqrtf(float x) { return 1.0f / sqrtf(x); }

inline void __threadfence() { emulator::fences().fence(); }

inline unsigned atomicAdd(unsigned* address, unsigned value) { return emulator::fences().add(address, value); }
inline int atomicMax(int* address, int value) { return emulator::fences().max(address, value); }
inline unsigned atomicMax(unsigned* address, unsigned value) { return emulator::fences().max(address, value); }

// Vectors, which a thread loads and stores at once.
#define EMULATOR_VECTORS(NAME, T)                                                        \
  struct alignas(2 * sizeof(T)) NAME##2 {                                                \
    T x, y;                                                                              \
  };                                                                                     \
  struct alignas(4 * sizeof(T)) NAME##4 {                                                \
    T x, y, z, w;                                                                        \
  };                                                                                     \
  constexpr NAME##2 make_##NAME##2(T x, T y) { return {x, y}; }                          \
  constexpr NAME##4 make_##NAME##4(T x, T y, T z, T w) { return {x, y, z, w}; }
EMULATOR_VECTORS(float, float)
EMULATOR_VECTORS(int, int)
EMULATOR_VECTORS(uint, unsigned)
#undef EMULATOR_VECTORS

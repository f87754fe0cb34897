// The squared distance of two rows on CUDA.
#pragma once

#include "core/cuda_memory.cuh"
#include "core/cuda_reduce.cuh"
#include "core/strided.h"
#include "core/types.h"

namespace fastccsa::cuda {

// Returns |a - b|^2 to every thread of the group that computes it. With kPacked, both rows are read in packs.
template <int kGroup, bool kPacked, typename T>
__device__ acc_t<T> squared_distance(Vector<const T> a, Vector<const T> b, int64_t width, int lane) {
  using Acc = acc_t<T>;
  Acc sum = 0;
  const auto add = [&](T x, T y) {
    const Acc difference = load(x) - load(y);
    sum += difference * difference;
  };
  int64_t rest = 0;
  if (kPacked) {
    constexpr int kSize = Pack<T>::kSize;
    rest = width / kSize * kSize;
#pragma unroll 4
    for (int64_t d = int64_t(lane) * kSize; d < rest; d += kGroup * kSize) {
      const Pack<T> pa = load_pack(a.data + d), pb = load_pack(b.data + d);
#pragma unroll
      for (int j = 0; j < kSize; ++j) add(pa.value[j], pb.value[j]);
    }
  }
  for (int64_t d = rest + lane; d < width; d += kGroup) add(a[d], b[d]);
  return reduce<kGroup>(sum, Add());
}

}  // namespace fastccsa::cuda

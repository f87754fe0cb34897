// Groups of CUDA threads, and reductions over them.
#pragma once

namespace fastccsa::cuda {

constexpr int kWarp = 32;
constexpr int kThreads = 256;  // per block
constexpr int kWarps = kThreads / kWarp;
constexpr unsigned kAllLanes = 0xffffffffu;

struct Add {
  template <typename Acc>
  __device__ Acc operator()(Acc a, Acc b) const {
    return a + b;
  }
};

// Keeps NaN, as torch does: log(sum(exp)) of a row with a NaN is NaN.
struct Max {
  template <typename Acc>
  __device__ Acc operator()(Acc a, Acc b) const {
    return (a > b || a != a) ? a : b;
  }
};

// Combines the values of a group, which is one thread, a warp or the whole block. All threads of the group must call it together,
// and all of them get the result.
template <int kGroup, typename Acc, typename Combine>
__device__ Acc reduce(Acc value, Combine combine) {
#pragma unroll
  for (int offset = kGroup == 1 ? 0 : kWarp / 2; offset > 0; offset /= 2) {
    value = combine(value, __shfl_xor_sync(kAllLanes, value, offset));
  }
  if (kGroup > kWarp) {
    __shared__ Acc of_warp[kWarps];
    __syncthreads();  // the values of the previous reduction have been read
    if (threadIdx.x % kWarp == 0) of_warp[threadIdx.x / kWarp] = value;
    __syncthreads();
    value = of_warp[0];
#pragma unroll
    for (int warp = 1; warp < kWarps; ++warp) value = combine(value, of_warp[warp]);
  }
  return value;
}

}  // namespace fastccsa::cuda

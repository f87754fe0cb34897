// The last kernel of the fused loss of few rows with many columns: adds the partial sums that streamed_kernel.cuh leaves.
#pragma once

#include "all_pairs/cuda/fused/finish_kernel.cuh"
#include "all_pairs/cuda/fused/streamed.cuh"

namespace fastccsa::all_pairs::cuda {

// A block of threads adds the partial sums of so many values of a row: each warp every kWarps-th of them, in a fixed
// order.
constexpr int kStreamedValues = kWarp * 4;

template <typename T>
FASTCCSA_HOST_DEVICE int streamed_value_blocks(const Fused<T>& p) {
  return (p.width + kStreamedValues - 1) / kStreamedValues;
}

// Block 0 adds the loss, and the others the gradients.
template <typename T>
__global__ void __launch_bounds__(kThreads) fused_streamed_finish_kernel(const __grid_constant__ Fused<T> p) {
  wait_for_kernel_before();
  if (blockIdx.x == 0) return finish_loss(p);
  __shared__ float4 of_warp[kWarps][kWarp];
  const int side = p.side[0].blocks > 0 ? 0 : 1, parts = streamed_parts(p), blocks = streamed_value_blocks(p);
  const int block = int(blockIdx.x) - 1, row = block / blocks, first = block % blocks * kStreamedValues;
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  constexpr int64_t kStep = int64_t(StreamedShape::kRows) * kLargestFusedWidth;
  const int64_t own = row / StreamedShape::kRows * (parts * kStep) + row % StreamedShape::kRows * kLargestFusedWidth;
  const float* const from = p.partial + own + first + lane * 4;
  float4 sum{};
#pragma unroll 8
  for (int part = warp; part < parts; part += kWarps) {
    const float4 more = *reinterpret_cast<const float4*>(from + part * kStep);
    sum = make_float4(sum.x + more.x, sum.y + more.y, sum.z + more.z, sum.w + more.w);
  }
  of_warp[warp][lane] = sum;
  __syncthreads();
  const int d = threadIdx.x;
  if (d >= kStreamedValues || first + d >= p.width) return;
  float total = 0;
  for (int w = 0; w < kWarps; ++w) total += reinterpret_cast<const float*>(of_warp[w])[d];
  const GradientTarget target = result_target(p, side, row, gradient_factor(p));
  target.to[first + d] = target.value(first + d, 0.0f, total);
}

}  // namespace fastccsa::all_pairs::cuda

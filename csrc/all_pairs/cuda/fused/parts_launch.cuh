// The grids of the kernels that multiply float32 features in parts: see fused/launch.cuh for `launch`.
#pragma once

#include "all_pairs/cuda/fused/launch.cuh"
#include "all_pairs/cuda/fused/parts_coefficients_kernel.cuh"
#include "all_pairs/cuda/fused/parts_gradients_kernel.cuh"

namespace fastccsa::all_pairs::cuda {

template <typename P>
constexpr bool kFitsHopper = PartsShape<P>::kBytes <= kLargeMemory && PartsGradientsShape<P>::kBytes <= kLargeMemory;
static_assert(kFitsHopper<BlocksOfHalf> && kFitsHopper<BlocksOfBf16x3> && kFitsHopper<BlocksOfBf16x6>);

template <typename P, typename Launch>
void launch_parts_coefficients(const PairsInBlocks<P>& p, Launch launch) {
  launch(&parts_coefficients_kernel<P>,
         FusedGrid{dim3(unsigned(p.blocks())), kPartsThreads, size_t(PartsShape<P>::kBytes), kCluster}, p);
}

template <typename P, typename Launch>
void launch_parts_gradients(const PairsInBlocks<P>& p, Launch launch) {
  using Shape = PartsGradientsShape<P>;
  const int blocks = (jobs_of_side(p, 0) + jobs_of_side(p, 1)) * kCluster * ranges_of_columns(p);
  launch(&parts_gradients_kernel<P>, FusedGrid{dim3(unsigned(blocks)), kPartsThreads, size_t(Shape::kBytes), kCluster},
         p);
}

}  // namespace fastccsa::all_pairs::cuda

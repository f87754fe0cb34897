// The grids of the fused kernels. `launch(kernel, grid, arguments...)` starts a kernel: on a GPU in fused.cu, and in
// the emulator in the tests.
#pragma once

#include "all_pairs/cuda/fused/finish_kernel.cuh"
#include "all_pairs/cuda/fused/mma_kernel.cuh"
#include "all_pairs/cuda/fused/prepare_kernel.cuh"
#include "all_pairs/cuda/fused/variant.h"
#include "all_pairs/cuda/fused/wgmma_kernel.cuh"

namespace fastccsa::all_pairs::cuda {

struct FusedGrid {
  dim3 blocks;
  int threads;
  size_t shared_bytes;
};

template <typename T, typename Launch>
void launch_fused_prepare(const Fused<T>& p, FaultWord* fault, Launch launch) {
  const auto parts = [](int64_t count, int64_t size) { return (count + size - 1) / size; };
  bool packed = p.width % Pack<T>::kSize == 0;
  for (const FusedSource<T>& from : p.source) {
    packed = packed && aligned(from.features.data, from.features.row_stride, from.features.column_stride);
  }
  const bool reads_weights = p.weight.data != nullptr && (p.check || std::is_same_v<T, half>);
  const int64_t weights = reads_weights ? p.labels * p.labels : 0;
  const int64_t blocks =
      1 + parts(int64_t(p.source[0].count) + p.source[1].count, kPlanWarps) + parts(weights, kPlanThreads);
  const auto kernel = packed ? &fused_prepare_kernel<T, true> : &fused_prepare_kernel<T, false>;
  launch(kernel, FusedGrid{dim3(unsigned(blocks)), kPlanThreads, 0}, p, fault);
}

template <typename T, typename Launch>
void launch_fused_ranks(const Fused<T>& p, Launch launch) {
  const int64_t rows = int64_t(p.source[0].count) + p.source[1].count;
  launch(&fused_ranks_kernel<T>, FusedGrid{dim3(unsigned((rows + kThreads - 1) / kThreads)), kThreads, 0}, p);
}

// Calls `visit(kernel, threads, shared bytes, FusedShape)` for the main kernel of a variant.
template <typename T, typename Visit>
void with_fused_kernel(FusedKernel kernel, Visit visit) {
  const auto mma = [&](auto width, auto rows, auto columns) {
    using Shape = MmaShape<width.value, rows.value, columns.value>;
    visit(&fused_mma_kernel<T, width.value, rows.value, columns.value>, kThreads, size_t(Shape::kBytes),
          FusedShape{rows.value, columns.value});
  };
  const auto wgmma = [&](auto width) {
    using Shape = WgmmaShape<width.value>;
    visit(&fused_wgmma_kernel<T, width.value>, kWgmmaThreads, size_t(Shape::kBytes),
          FusedShape{Shape::kRows, Shape::kUnit});
  };
  using std::integral_constant;
  using N32 = integral_constant<int, 32>;
  using N64 = integral_constant<int, 64>;
  using N128 = integral_constant<int, 128>;
  using N256 = integral_constant<int, 256>;
  using N512 = integral_constant<int, 512>;
  switch (kernel) {
    case FusedKernel::kMma64: return mma(N64(), N64(), N64());
    case FusedKernel::kMma128: return mma(N128(), N64(), N64());
    case FusedKernel::kMma256: return mma(N256(), N64(), N32());
    case FusedKernel::kMma512Small: return mma(N512(), N32(), N32());
    case FusedKernel::kMma512: return mma(N512(), N64(), N32());
    case FusedKernel::kMma512Large: return mma(N512(), N64(), N64());
    case FusedKernel::kWgmma128: return wgmma(N128());
    case FusedKernel::kWgmma256: return wgmma(N256());
    case FusedKernel::kWgmma512: return wgmma(N512());
  }
}

template <typename T, typename Launch>
void launch_fused_main(const Fused<T>& p, FusedKernel kernel, Launch launch) {
  with_fused_kernel<T>(kernel, [&](auto function, int threads, size_t bytes, FusedShape) {
    launch(function, FusedGrid{dim3(unsigned(p.plan.threads_blocks)), threads, bytes}, p);
  });
}

template <typename T, typename Launch>
void launch_fused_finish(const Fused<T>& p, Launch launch) {
  const unsigned split = unsigned(p.row_blocks() - p.split_from());
  const dim3 blocks(split + 1, unsigned(p.shape.rows));
  launch(&fused_finish_kernel<T>, FusedGrid{blocks, kThreads, 0}, p);
}

}  // namespace fastccsa::all_pairs::cuda

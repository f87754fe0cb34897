// The grids of the fused kernels. `launch(kernel, grid, arguments...)` starts a kernel: on a GPU in fused.cu, and in
// the emulator in the tests.
#pragma once

#include "all_pairs/cuda/fused/coefficients_kernel.cuh"
#include "all_pairs/cuda/fused/finish_kernel.cuh"
#include "all_pairs/cuda/fused/gradients_kernel.cuh"
#include "all_pairs/cuda/fused/mma_coefficients_kernel.cuh"
#include "all_pairs/cuda/fused/mma_gradients_kernel.cuh"
#include "all_pairs/cuda/fused/mma_kernel.cuh"
#include "all_pairs/cuda/fused/prepare_kernel.cuh"
#include "all_pairs/cuda/fused/streamed_finish_kernel.cuh"
#include "all_pairs/cuda/fused/streamed_kernel.cuh"
#include "all_pairs/cuda/fused/variant.h"
#include "all_pairs/cuda/fused/wgmma_kernel.cuh"

#include <cstddef>

namespace fastccsa::all_pairs::cuda {

// ---- which kernel a GPU runs ----

using Mma64 = MmaShape<64, 64, 64>;
using Mma128 = MmaShape<128, 64, 64>;
using Mma256 = MmaShape<256, 64, 32>;
using Mma512Small = MmaShape<512, 32, 32>;
using Mma512 = MmaShape<512, 64, 32>;
using Mma512Large = MmaShape<512, 64, 64>;

// The shared memory that a block of threads may use: on 8.6, 8.9 and 12.0, on 8.0 and 8.7, and on 9.0 and 10.0.
constexpr size_t kSmallMemory = 99 * 1024, kMediumMemory = 163 * 1024, kLargeMemory = 227 * 1024;

static_assert(Mma64::kBytes <= kSmallMemory && Mma128::kBytes <= kSmallMemory && Mma256::kBytes <= kSmallMemory &&
                  Mma512Small::kBytes <= kSmallMemory,
              "a kernel for each width must run on every GPU");
static_assert(MmaCoefficientsShape::kBytes <= kMemoryOfTwo && MmaGradientsShape::kBytes <= kMemoryOfTwo,
              "two blocks of threads must fit on every GPU");
static_assert(Mma512::kBytes > kSmallMemory && Mma512::kBytes <= kMediumMemory, "this kernel is for 8.0");
static_assert(Mma512Large::kBytes > kMediumMemory && Mma512Large::kBytes <= kLargeMemory, "this kernel is for 10.0");
static_assert(WgmmaShape<512>::kBytes <= kLargeMemory && CoefficientsShape<kNarrowSlabs>::kBytes <= kLargeMemory &&
                  CoefficientsShape<kWideSlabs>::kBytes <= kLargeMemory &&
                  GradientsShape<128>::kBytes <= kLargeMemory && GradientsShape<256>::kBytes <= kLargeMemory &&
                  StreamedShape::kBytes <= kLargeMemory,
              "these kernels are for 9.0");

// Returns the kernel for features of a padded width. `wgmma`: whether the GPU has these instructions and the build has
// code for them. `shared_bytes`: what a block of threads may use.
constexpr FusedKernel fused_kernel(int padded_width, bool wgmma, FusedChoice choice, size_t shared_bytes) {
  const bool stored = choice == FusedChoice::kStored, many = choice == FusedChoice::kManyRows;
  if (padded_width > kLargestFusedWidth) return wgmma ? FusedKernel::kStored : FusedKernel::kStoredMma;
  if (stored && !wgmma && padded_width == 512) return FusedKernel::kStoredMma;
  if (wgmma && (stored || many) && padded_width == 512) return FusedKernel::kStored;
  if (wgmma && choice == FusedChoice::kStreamed && padded_width == 512) return FusedKernel::kStreamed512;
  if (wgmma && padded_width <= 128) return FusedKernel::kWgmma128;
  if (wgmma) return padded_width == 256 ? FusedKernel::kWgmma256 : FusedKernel::kWgmma512;
  if (padded_width == 64) return FusedKernel::kMma64;
  if (padded_width == 128) return FusedKernel::kMma128;
  if (padded_width == 256) return FusedKernel::kMma256;
  return shared_bytes >= Mma512Large::kBytes ? FusedKernel::kMma512Large
         : shared_bytes >= Mma512::kBytes    ? FusedKernel::kMma512
                                             : FusedKernel::kMma512Small;
}

// ---- launches ----

struct FusedGrid {
  dim3 blocks;
  int threads;
  size_t shared_bytes;
  int cluster = 1;        // blocks that run together
  bool overlaps = false;  // whether it may start before the kernel before it has ended, for which it waits
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
  const int64_t rows = int64_t(p.source[0].padded_count) + p.source[1].padded_count;
  const int64_t blocks = 1 + parts(rows, kPlanWarps) + parts(weights, kPlanThreads);
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
  const auto mma = [&](auto shape) {
    using Shape = decltype(shape);
    visit(&fused_mma_kernel<T, Shape::kWidth, Shape::kRows, Shape::kColumns>, kThreads, size_t(Shape::kBytes),
          FusedShape{Shape::kRows, Shape::kColumns});
  };
  const auto wgmma = [&](auto width) {
    using Shape = WgmmaShape<width.value>;
    visit(&fused_wgmma_kernel<T, width.value>, kWgmmaThreads, size_t(Shape::kBytes),
          FusedShape{Shape::kRows, Shape::kUnit});
  };
  switch (kernel) {
    case FusedKernel::kMma64: return mma(Mma64());
    case FusedKernel::kMma128: return mma(Mma128());
    case FusedKernel::kMma256: return mma(Mma256());
    case FusedKernel::kMma512Small: return mma(Mma512Small());
    case FusedKernel::kMma512: return mma(Mma512());
    case FusedKernel::kMma512Large: return mma(Mma512Large());
    case FusedKernel::kWgmma128: return wgmma(std::integral_constant<int, 128>());
    case FusedKernel::kWgmma256: return wgmma(std::integral_constant<int, 256>());
    case FusedKernel::kWgmma512: return wgmma(std::integral_constant<int, 512>());
    case FusedKernel::kStored:
    case FusedKernel::kStoredMma: return;    // see launch_coefficients() and launch_gradients()
    case FusedKernel::kStreamed512: return;  // see launch_streamed()
  }
}

template <typename T, typename Launch>
void launch_fused_main(const Fused<T>& p, FusedKernel kernel, Launch launch) {
  with_fused_kernel<T>(kernel, [&](auto function, int threads, size_t bytes, FusedShape) {
    launch(function, FusedGrid{dim3(unsigned(p.plan.threads_blocks)), threads, bytes}, p);
  });
}

// Calls `visit(kernel, shared bytes, blocks of a cluster)` for the kernel that stores coefficients of the terms, with
// or without weights. kSlabs: kNarrowSlabs or kWideSlabs.
template <typename T, int kSlabs, typename Visit>
void with_coefficients_kernel(FusedTerms terms, bool weighted, Visit visit) {
  using Shape = CoefficientsShape<kSlabs>;
  const size_t bytes = Shape::kBytes;
  if (terms == kSeparationTerm) {
    return weighted ? visit(&coefficients_kernel<T, kSlabs, kSeparationTerm, true>, bytes, Shape::kBlocks)
                    : visit(&coefficients_kernel<T, kSlabs, kSeparationTerm, false>, bytes, Shape::kBlocks);
  }
  return weighted ? visit(&coefficients_kernel<T, kSlabs, kBothTerms, true>, bytes, Shape::kBlocks)
                  : visit(&coefficients_kernel<T, kSlabs, kBothTerms, false>, bytes, Shape::kBlocks);
}

// Calls `visit(kernel, shared bytes)` for the kernel whose blocks of threads compute that many columns of gradients.
template <typename T, typename Visit>
void with_gradients_kernel(int columns, Visit visit) {
  return columns == 256 ? visit(&gradients_kernel<T, 256>, size_t(GradientsShape<256>::kBytes))
                        : visit(&gradients_kernel<T, 128>, size_t(GradientsShape<128>::kBytes));
}

// The same for the kernel of other GPUs.
template <typename T, typename Visit>
void with_mma_coefficients_kernel(FusedTerms terms, bool weighted, Visit visit) {
  const size_t bytes = MmaCoefficientsShape::kBytes;
  if (terms == kSeparationTerm) {
    return weighted ? visit(&mma_coefficients_kernel<T, kSeparationTerm, true>, bytes)
                    : visit(&mma_coefficients_kernel<T, kSeparationTerm, false>, bytes);
  }
  return weighted ? visit(&mma_coefficients_kernel<T, kBothTerms, true>, bytes)
                  : visit(&mma_coefficients_kernel<T, kBothTerms, false>, bytes);
}

template <typename T, typename Launch>
void launch_coefficients(const Fused<T>& p, const Stored<T>& part, FusedKernel kernel, Launch launch) {
  const bool weighted = p.weight.data != nullptr;
  if (kernel == FusedKernel::kStoredMma) {
    return with_mma_coefficients_kernel<T>(p.terms, weighted, [&](auto function, size_t bytes) {
      launch(function, FusedGrid{dim3(unsigned(part.blocks())), kProductThreads, bytes, 1, true}, p, part);
    });
  }
  const auto start = [&](auto function, size_t bytes, int cluster) {
    launch(function, FusedGrid{dim3(unsigned(part.blocks())), kCoefficientsThreads, bytes, cluster, true}, p, part);
  };
  if (p.padded_width > kLargestFusedWidth) return with_coefficients_kernel<T, kWideSlabs>(p.terms, weighted, start);
  with_coefficients_kernel<T, kNarrowSlabs>(p.terms, weighted, start);
}

// `at_once`: how many blocks of threads run at the same time. If blocks of 256 columns are too few for that, or do not
// divide the width, blocks of 128 run.
template <typename T, typename Launch>
void launch_gradients(const Fused<T>& p, const Stored<T>& part, FusedKernel kernel, int at_once, Launch launch) {
  const int tiles = (jobs_of_side(p, part, 0) + jobs_of_side(p, part, 1)) * kCluster;
  if (tiles == 0) return;
  if (part.jobs != nullptr) launch(&order_jobs_kernel<T>, FusedGrid{dim3(1), kOrderThreads, 0, 1, true}, p, part);
  if (kernel == FusedKernel::kStoredMma) {
    const dim3 blocks(unsigned(tiles * (p.padded_width / MmaGradientsShape::kColumns)));
    const FusedGrid grid{blocks, kProductThreads, size_t(MmaGradientsShape::kBytes), 1, true};
    return launch(&mma_gradients_kernel<T>, grid, p, part);
  }
  const bool many = int64_t(tiles) * (p.padded_width / 256) * 4 >= at_once * 3;
  const int columns = many && p.padded_width % 256 == 0 ? 256 : 128;
  with_gradients_kernel<T>(columns, [&](auto kernel, size_t bytes) {
    const dim3 blocks(unsigned(tiles * (p.padded_width / columns)));
    launch(kernel, FusedGrid{blocks, kGradientsThreads, bytes, kCluster, true}, p, part);
  });
}

// The kernels that read one side once, for the gradient of the other.
template <typename T, typename Launch>
void launch_streamed(const Fused<T>& p, FaultWord* fault, Launch launch) {
  const FusedGrid grid{dim3(unsigned(p.plan.threads_blocks)), kStreamedThreads, size_t(StreamedShape::kBytes)};
  launch(&fused_streamed_kernel<T>, grid, p, fault);
  unsigned sums = 0;
  for (const FusedSide<T>& side : p.side) {
    if (side.gradient != nullptr) sums = unsigned(side.count * streamed_value_blocks(p));
  }
  launch(&fused_streamed_finish_kernel<T>, FusedGrid{dim3(1 + sums), kThreads, 0, 1, true}, p);
}

template <typename T, typename Launch>
void launch_fused_finish(const Fused<T>& p, Launch launch) {
  const unsigned split = unsigned(p.row_blocks() - p.split_from());
  const bool stored = p.row_blocks() == 0;  // then only the loss is left
  const dim3 blocks(split + 1, stored ? 1 : unsigned(p.shape.rows));
  launch(&fused_finish_kernel<T>, FusedGrid{blocks, kThreads, 0, 1, stored}, p);
}

}  // namespace fastccsa::all_pairs::cuda

// The grids of the kernels for all pairs. `launch_kernels(parameters, fault, launch)` starts the kernels for these
// parameters by `launch(kernel, blocks, arguments...)`, with kThreads threads per block: on a GPU in cuda.cu, and in
// the emulator in the tests. Kernels report bad labels and weights in `fault`.
#pragma once

#include "all_pairs/cuda/direct_kernel.cuh"
#include "all_pairs/cuda/finish_kernel.cuh"
#include "all_pairs/cuda/fused/parts_prepare_kernel.cuh"
#include "all_pairs/cuda/pairs_kernel.cuh"
#include "all_pairs/cuda/prepare_kernel.cuh"
#include "all_pairs/cuda/split_kernel.cuh"

namespace fastccsa::all_pairs::cuda {

inline unsigned parts(int64_t count, int64_t size) { return unsigned((count + size - 1) / size); }

template <typename T, typename P, typename Launch>
void launch_kernels(const SplitRows<T, P>& p, FaultWord*, Launch launch) {
  bool packed = true;
  for (const Side<T>& side : p.side) {
    packed = packed && aligned(side.features.data, side.features.row_stride, side.features.column_stride);
  }
  const dim3 blocks(parts(p.rows[0] > p.rows[1] ? p.rows[0] : p.rows[1], kWarps), 2);
  launch(packed ? &split_rows_kernel<T, P, true> : &split_rows_kernel<T, P, false>, blocks, p);
}

template <typename Launch>
void launch_kernels(const FindRange& p, FaultWord*, Launch launch) {
  constexpr int64_t kMostBlocks = 512;
  const int64_t rows = p.rows[0] > p.rows[1] ? p.rows[0] : p.rows[1], blocks = (rows + kWarps - 1) / kWarps;
  launch(&find_range_kernel<FindRange>, dim3(unsigned(blocks < kMostBlocks ? blocks : kMostBlocks), 2), p);
}

template <typename P, typename Launch>
void launch_kernels(const SplitBlocks<P>& p, FaultWord*, Launch launch) {
  bool packed = true;
  for (const Side<float>& side : p.side) {
    packed = packed && aligned(side.features.data, side.features.row_stride, side.features.column_stride);
  }
  const int64_t rows = padded_to_tiles(int(p.rows[0] > p.rows[1] ? p.rows[0] : p.rows[1]));
  launch(packed ? &split_blocks_kernel<P, true> : &split_blocks_kernel<P, false>, dim3(parts(rows, kWarps), 2), p);
}

template <typename T, typename P, typename Launch>
void launch_kernels(const TilePairs<T, P>& p, FaultWord*, Launch launch) {
  const dim3 blocks(unsigned(blocks_of_columns<P>(p.columns)), unsigned(blocks_of_rows(p.rows)));
  launch(&tile_pairs_kernel<T, P>, blocks, p);
}

template <typename Acc, typename Launch>
void launch_kernels(const AddPieces<Acc>& p, FaultWord*, Launch launch) {
  launch(&add_pieces_kernel<Acc>, dim3(parts(p.values, kThreads)), p);
}

template <typename T, typename P, typename Launch>
void launch_kernels(const TileSums<T, P>& p, FaultWord*, Launch launch) {
  launch(&tile_sums_kernel<T, P>, dim3(unsigned(1 + blocks_for_rows(p) + blocks_for_columns(p))), p);
}

template <typename T, typename Mean, typename Launch>
void launch_kernels(const Finish<T, Mean>& p, FaultWord*, Launch launch) {
  launch(&finish_kernel<T, Mean>, dim3(parts(p.rows, kWarps)), p);
}

template <typename Acc, typename Launch>
void launch_kernels(const Terms<Acc>& p, FaultWord*, Launch launch) {
  launch(&terms_kernel<Acc>, dim3(1), p);
}

template <typename T, typename Launch>
void launch_kernels(const Direct<T>& p, FaultWord* fault, Launch launch) {
  bool packed = true;
  for (const Matrix<const T>& features : p.features) {
    packed = packed && aligned(features.data, features.row_stride, features.column_stride);
  }
  const auto pairs_kernel = packed ? &direct_pairs_kernel<T, true> : &direct_pairs_kernel<T, false>;
  launch(pairs_kernel, dim3(unsigned(direct_blocks(p.rows[0], p.rows[1]))), p, fault);
  // One block for the terms, and the blocks for the gradients.
  const int64_t groups = groups_of(p, 0) + groups_of(p, 1);
  const unsigned chunks = groups == 0 || p.width == 0 ? 1 : parts(p.width, kThreads);
  launch(&direct_gradients_kernel<T>, dim3(unsigned(1 + groups), chunks), p);
}

}  // namespace fastccsa::all_pairs::cuda

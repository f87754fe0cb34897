// The grids of the kernels for all pairs. `launch(kernel, blocks, parameters)` starts one, with kThreads threads a block:
// on a GPU in cuda.cu, on a CPU in the tests.
#pragma once

#include "all_pairs/cuda/direct_kernel.cuh"
#include "all_pairs/cuda/tile_kernel.cuh"

namespace fastccsa::all_pairs::cuda {

inline unsigned parts(int64_t count, int64_t size) { return unsigned((count + size - 1) / size); }

template <typename Acc, typename Launch>
void launch_labels(const Labels<Acc>& p, FaultWord* fault, Launch launch) {
  launch(&labels_kernel<Acc>, dim3(parts(p.rows[0] + p.rows[1], kThreads)), p, fault);
}

template <typename T, typename Launch>
void launch_classes(const Classes<T>& p, Launch launch) {
  launch(&classes_kernel<T>, dim3(unsigned(p.classes), parts(p.width, kChunkColumns)), p);
}

template <typename Acc, typename Launch>
void launch_align(const Align<Acc>& p, FaultWord* fault, Launch launch) {
  launch(&align_kernel<Acc>, dim3(unsigned(p.classes) + parts(p.width, kThreads)), p, fault);
}

template <typename T, typename Launch>
void launch_centre(const Centre<T>& p, Launch launch) {
  launch(&centre_kernel<T>, dim3(parts(p.rows, kWarps)), p);
}

template <typename T, typename Launch>
void launch_tile(const Tile<T>& p, FaultWord* fault, Launch launch) {
  launch(&tile_rows_kernel<T>, dim3(parts(p.rows, kWarps), unsigned(tile_chunks(p.columns))), p, fault);
  launch(&tile_sums_kernel<T>, dim3(parts(p.rows, kWarps)), p);
  if (p.gradient[1] != nullptr) launch(&tile_columns_kernel<T>, dim3(parts(p.columns, kWarp)), p);
}

template <typename T, typename Launch>
void launch_finish(const Finish<T>& p, Launch launch) {
  launch(&finish_kernel<T>, dim3(parts(p.rows, kWarps)), p);
}

template <typename Acc, typename Launch>
void launch_terms(const Terms<Acc>& p, Launch launch) {
  launch(&terms_kernel<Acc>, dim3(1), p);
}

template <typename T, typename Launch>
void launch_direct(const Direct<T>& p, FaultWord* fault, Launch launch) {
  bool packed = true;
  for (const Matrix<const T>& features : p.features) {
    packed = packed && aligned(features.data, features.row_stride, features.column_stride);
  }
  const auto pairs_kernel = packed ? &direct_pairs_kernel<T, true> : &direct_pairs_kernel<T, false>;
  launch(pairs_kernel, dim3(unsigned(direct_blocks(p.rows[0], p.rows[1]))), p, fault);
  // One block for the terms, and those of the gradients.
  const int64_t groups = groups_of(p, 0) + groups_of(p, 1);
  const unsigned chunks = groups == 0 || p.width == 0 ? 1 : parts(p.width, kThreads);
  launch(&direct_gradients_kernel<T>, dim3(unsigned(1 + groups), chunks), p);
}

}  // namespace fastccsa::all_pairs::cuda

// The grids of the kernels for all pairs. `launch(kernel, blocks, parameters)` starts one, with kThreads threads a block:
// on a GPU in cuda.cu, on a CPU in the tests.
#pragma once

#include "allpairs/cuda_kernel.cuh"

namespace fastccsa::allpairs::cuda {

inline unsigned parts(int64_t count, int64_t size) { return unsigned((count + size - 1) / size); }

template <typename T, typename Launch>
void launch_classes(const Classes<T>& p, Launch launch) {
  launch(&classes_kernel<T>, dim3(unsigned(p.classes), parts(p.width, kChunkColumns)), p);
}

template <typename T, typename Launch>
void launch_centre(const Centre<T>& p, Launch launch) {
  launch(&centre_kernel<T>, dim3(parts(p.rows, kWarps)), p);
}

template <typename T, typename Launch>
void launch_tile(const Tile<T>& p, Launch launch) {
  launch(&tile_rows_kernel<T>, dim3(parts(p.rows, kWarps)), p);
  launch(&tile_columns_kernel<T>, dim3(parts(p.columns, kWarp)), p);
}

template <typename T, typename Launch>
void launch_finish(const Finish<T>& p, Launch launch) {
  launch(&finish_kernel<T>, dim3(parts(p.rows, kWarps)), p);
}

}  // namespace fastccsa::allpairs::cuda

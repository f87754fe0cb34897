// Launches the loss over all pairs on CUDA.
#include "allpairs/cuda.h"
#include "allpairs/cuda_kernel.cuh"

#include <cuda_runtime.h>

#include <stdexcept>
#include <string>

namespace fastccsa::allpairs::cuda {
namespace {

template <typename Kernel, typename Parameters>
void launch(Kernel kernel, dim3 blocks, const Parameters& p, void* stream) {
  if (blocks.x == 0 || blocks.y == 0) return;
  kernel<<<blocks, kThreads, 0, static_cast<cudaStream_t>(stream)>>>(p);
  const cudaError_t error = cudaGetLastError();
  if (error != cudaSuccess) {
    throw std::runtime_error(std::string("fastccsa: launching a kernel failed: ") + cudaGetErrorString(error));
  }
}

unsigned parts(int64_t count, int64_t size) { return unsigned((count + size - 1) / size); }

}  // namespace

template <typename T>
void classes(const Classes<T>& p, void* stream) {
  launch(&classes_kernel<T>, dim3(unsigned(p.classes), parts(p.width, kChunkColumns)), p, stream);
}

template <typename T>
void tile(const Tile<T>& p, void* stream) {
  launch(&tile_rows_kernel<T>, dim3(parts(p.rows, kWarps)), p, stream);
  launch(&tile_columns_kernel<T>, dim3(parts(p.columns, kWarp)), p, stream);
}

template <typename T>
void finish(const Finish<T>& p, void* stream) {
  launch(&finish_kernel<T>, dim3(parts(p.rows, kWarps)), p, stream);
}

#define FASTCCSA_INSTANCES(T)                        \
  template void classes(const Classes<T>&, void*);   \
  template void tile(const Tile<T>&, void*);         \
  template void finish(const Finish<T>&, void*);
FASTCCSA_INSTANCES(float)
FASTCCSA_INSTANCES(double)
FASTCCSA_INSTANCES(bfloat16)
FASTCCSA_INSTANCES(half)

}  // namespace fastccsa::allpairs::cuda

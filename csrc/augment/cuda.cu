// Launches augmentation on CUDA.
#include "augment/cuda.h"
#include "augment/launch.cuh"
#include "core/cuda_check.h"

namespace fastccsa::augment::cuda {

template <typename T>
void augment(const Batch<T>& p, void* stream) {
  launch_augment(p, [&](auto kernel, unsigned across, unsigned down, unsigned images, const auto&... arguments) {
    kernel<<<dim3(across, down, images), kThreads, 0, static_cast<cudaStream_t>(stream)>>>(arguments...);
    check_cuda(cudaGetLastError(), "launching a kernel");
  });
}

template void augment(const Batch<float>&, void*);
template void augment(const Batch<bfloat16>&, void*);

}  // namespace fastccsa::augment::cuda

// Runs the kernels of the loss over all pairs on CUDA.
#include "all_pairs/cuda/cuda.h"
#include "all_pairs/cuda/launch.cuh"
#include "core/cuda_check.h"
#include "core/cuda_fault.h"

namespace fastccsa::all_pairs::cuda {

template <typename Parameters>
void run(const Parameters& p, void* stream) {
  launch_kernels(p, fault_word(), [stream](auto kernel, dim3 blocks, const auto&... arguments) {
    if (blocks.x == 0 || blocks.y == 0) return;
    kernel<<<blocks, kThreads, 0, static_cast<cudaStream_t>(stream)>>>(arguments...);
    check_cuda(cudaGetLastError(), "launching a kernel");
  });
}

#define FASTCCSA_INSTANCES(T)                     \
  template void run(const Classes<T>&, void*);    \
  template void run(const Radii<T>&, void*);      \
  template void run(const Centre<T>&, void*);     \
  template void run(const Tile<T>&, void*);       \
  template void run(const Finish<T, mean_t<T>>&, void*); \
  template void run(const ClassSums<T>&, void*);  \
  template void run(const AlignClasses<T>&, void*); \
  template void run(const Direct<T>&, void*);
FASTCCSA_INSTANCES(float)
FASTCCSA_INSTANCES(double)
FASTCCSA_INSTANCES(bfloat16)
FASTCCSA_INSTANCES(half)

#define FASTCCSA_SUM_INSTANCES(Acc)               \
  template void run(const Inputs<Acc>&, void*);   \
  template void run(const CountingSort<Acc>&, void*); \
  template void run(const Terms<Acc>&, void*);
FASTCCSA_SUM_INSTANCES(float)
FASTCCSA_SUM_INSTANCES(double)

template void run(const Numbers&, void*);
template void run(const Offsets&, void*);
template void run(const Split&, void*);

void set_to_zero(void* data, size_t bytes, void* stream) {
  check_cuda(cudaMemsetAsync(data, 0, bytes, static_cast<cudaStream_t>(stream)), "setting memory to zero");
}

void copy_to_device(void* to, const void* from, size_t bytes, void* stream) {
  const auto on = static_cast<cudaStream_t>(stream);
  check_cuda(cudaMemcpyAsync(to, from, bytes, cudaMemcpyHostToDevice, on), "copying to the GPU");
  check_cuda(cudaStreamSynchronize(on), "waiting for the GPU");
}

void copy_to_host(void* to, const void* from, size_t bytes, void* stream) {
  const auto on = static_cast<cudaStream_t>(stream);
  check_cuda(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToHost, on), "copying from the GPU");
  check_cuda(cudaStreamSynchronize(on), "waiting for the GPU");
}

bool is_capturing(void* stream) {
  cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
  check_cuda(cudaStreamIsCapturing(static_cast<cudaStream_t>(stream), &status), "asking for the state of a stream");
  return status != cudaStreamCaptureStatusNone;
}

}  // namespace fastccsa::all_pairs::cuda

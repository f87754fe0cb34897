// Launches the kernels of the zipped loss on CUDA.
#include "core/cuda_check.h"
#include "core/cuda_fault.h"
#include "zipped/cuda.h"
#include "zipped/launch.cuh"

#include <atomic>

namespace fastccsa::zipped::cuda {
namespace {

unsigned next_ticket(void* stream) {
  static std::atomic<unsigned> launches[2]{};
  cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
  check_cuda(cudaStreamIsCapturing(static_cast<cudaStream_t>(stream), &status), "asking whether a stream is captured");
  const unsigned captured = status != cudaStreamCaptureStatusNone;
  return captured * kTickets + launches[captured]++ % kTickets;
}

struct OnStream {
  cudaStream_t stream;

  template <typename Kernel, typename... Arguments>
  void operator()(Kernel kernel, unsigned blocks, const Arguments&... arguments) const {
    kernel<<<blocks, kThreads, 0, stream>>>(arguments...);
    check_cuda(cudaGetLastError(), "launching a kernel");
  }
};

}  // namespace

template <typename T>
void forward(const Forward<T>& p, void* stream) {
  launch_forward(p, fault_word(), next_ticket(stream), OnStream{static_cast<cudaStream_t>(stream)},
                 run_length(p.in.pairs));
}

template <typename T>
void backward(const Backward<T>& p, void* stream) {
  launch_backward(p, OnStream{static_cast<cudaStream_t>(stream)}, run_length(p.in.pairs));
}

template void forward(const Forward<float>&, void*);
template void forward(const Forward<double>&, void*);
template void forward(const Forward<bfloat16>&, void*);
template void forward(const Forward<half>&, void*);
template void backward(const Backward<float>&, void*);
template void backward(const Backward<double>&, void*);
template void backward(const Backward<bfloat16>&, void*);
template void backward(const Backward<half>&, void*);

}  // namespace fastccsa::zipped::cuda

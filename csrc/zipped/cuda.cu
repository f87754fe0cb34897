// Launches the zipped loss on CUDA.
#include "core/cuda_check.h"
#include "zipped/cuda.h"
#include "zipped/launch.cuh"

#include <atomic>

namespace fastccsa::zipped::cuda {
namespace {

unsigned next_ticket() {
  static std::atomic<unsigned> launches{0};
  return launches++ % kTickets;
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

// One word of host memory that every device can write. It lives as long as the process.
FaultWord* fault_word() {
  static FaultWord* const word = [] {
    // Allowed even while a stream is being captured into a graph: nothing here touches that stream.
    cudaStreamCaptureMode mode = cudaStreamCaptureModeRelaxed;
    cudaThreadExchangeStreamCaptureMode(&mode);
    void* memory = nullptr;
    const cudaError_t error = cudaHostAlloc(&memory, sizeof(FaultWord), cudaHostAllocPortable | cudaHostAllocMapped);
    cudaThreadExchangeStreamCaptureMode(&mode);
    check_cuda(error, "allocating pinned memory");
    *static_cast<FaultWord*>(memory) = 0;
    return static_cast<FaultWord*>(memory);
  }();
  return word;
}

template <typename T>
void forward(const Forward<T>& p, void* stream) {
  launch_forward(p, fault_word(), next_ticket(), OnStream{static_cast<cudaStream_t>(stream)});
}

template <typename T>
void backward(const Backward<T>& p, void* stream) {
  launch_backward(p, OnStream{static_cast<cudaStream_t>(stream)});
}

FaultReport take_fault() {
  volatile FaultWord* word = fault_word();
  if (*word == 0) return {};
  const FaultReport report = decode(*word);
  *word = 0;
  return report;
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

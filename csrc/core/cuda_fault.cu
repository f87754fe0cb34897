// Allocates and reads the word of host memory in which CUDA kernels report a bad label or weight.
#include "core/cuda_check.h"
#include "core/cuda_fault.h"

namespace fastccsa::cuda {

FaultWord* fault_word() {
  static FaultWord* const word = [] {
    const BesideCapture beside;
    void* memory = nullptr;
    check_cuda(cudaHostAlloc(&memory, sizeof(FaultWord), cudaHostAllocPortable | cudaHostAllocMapped),
               "allocating pinned memory");
    *static_cast<FaultWord*>(memory) = 0;
    return static_cast<FaultWord*>(memory);
  }();
  return word;
}

FaultReport take_fault() {
  volatile FaultWord* word = fault_word();
  if (*word == 0) return {};
  const FaultReport report = decode(*word);
  *word = 0;
  return report;
}

}  // namespace fastccsa::cuda

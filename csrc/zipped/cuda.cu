// Launchers of the zipped loss on CUDA.
#include "zipped/cuda.h"
#include "zipped/cuda_kernel.cuh"

#include <cuda_runtime.h>

#include <atomic>
#include <stdexcept>
#include <string>

namespace fastccsa::zipped::cuda {
namespace {

void check(cudaError_t error, const char* what) {
  if (error != cudaSuccess) {
    throw std::runtime_error(std::string("fastccsa: ") + what + " failed: " + cudaGetErrorString(error));
  }
}

// One word of host memory that every device can write. It lives as long as the process.
FaultWord* fault_word() {
  static FaultWord* const word = [] {
    // Allowed even while a stream is being captured into a graph: nothing here touches that stream.
    cudaStreamCaptureMode mode = cudaStreamCaptureModeRelaxed;
    cudaThreadExchangeStreamCaptureMode(&mode);
    void* memory = nullptr;
    const cudaError_t error = cudaHostAlloc(&memory, sizeof(FaultWord), cudaHostAllocPortable | cudaHostAllocMapped);
    cudaThreadExchangeStreamCaptureMode(&mode);
    check(error, "allocating pinned memory");
    *static_cast<FaultWord*>(memory) = 0;
    return static_cast<FaultWord*>(memory);
  }();
  return word;
}

unsigned next_ticket() {
  static std::atomic<unsigned> launches{0};
  return launches++ % kTickets;
}

// Rows can be read 16 bytes at a time.
template <typename T>
bool aligned(const T* data, int64_t row_stride, int64_t column_stride) {
  return column_stride == 1 && reinterpret_cast<uintptr_t>(data) % 16 == 0 && row_stride * sizeof(T) % 16 == 0;
}

template <typename T>
bool packed(const Inputs<T>& in) {
  for (const Matrix<const T>& features : in.features) {
    if (!aligned(features.data, features.row_stride, features.column_stride)) return false;
  }
  return true;
}

template <typename T>
bool packed(const Backward<T>& p) {
  for (const T* gradient : p.grad_features) {
    if (gradient != nullptr && !aligned(gradient, p.in.width, 1)) return false;
  }
  return packed(p.in);
}

// Few wide pairs: a block each, to have enough loads in flight. Otherwise a warp each.
template <typename T>
bool block_per_pair(const Inputs<T>& in) {
  return in.pairs <= 512 && (in.width * int64_t(sizeof(T)) >= 2048 || in.classes >= 512);
}

// A function of the number of pairs alone, so that sums are the same on every GPU.
unsigned block_count(int64_t pairs, int groups) {
  const int64_t wanted = (pairs + groups - 1) / groups;
  return unsigned(wanted < 1 ? 1 : wanted > kMaxPartials ? kMaxPartials : wanted);
}

template <typename T, int kGroup, bool kPacked>
void launch(const Forward<T>& p, cudaStream_t stream) {
  const unsigned blocks = block_count(p.in.pairs, kThreads / kGroup);
  forward_kernel<T, kGroup, kPacked><<<blocks, kThreads, 0, stream>>>(p, fault_word(), next_ticket());
}

template <typename T, int kGroup, bool kPacked>
void launch(const Backward<T>& p, cudaStream_t stream) {
  const unsigned blocks = block_count(p.in.pairs, kThreads / kGroup);
  backward_kernel<T, kGroup, kPacked><<<blocks, kThreads, 0, stream>>>(p);
}

// Picks the kernel for these sizes and strides.
template <typename T, typename Params>
void dispatch(const Params& p, bool rows_packed, cudaStream_t stream) {
  if (block_per_pair(p.in)) {
    rows_packed ? launch<T, kThreads, true>(p, stream) : launch<T, kThreads, false>(p, stream);
  } else {
    rows_packed ? launch<T, kWarp, true>(p, stream) : launch<T, kWarp, false>(p, stream);
  }
  check(cudaGetLastError(), "launching a kernel");
}

}  // namespace

template <typename T>
void forward(const Forward<T>& p, void* stream) {
  dispatch<T>(p, packed(p.in), static_cast<cudaStream_t>(stream));
}

template <typename T>
void backward(const Backward<T>& p, void* stream) {
  if (p.in.pairs == 0) return;
  dispatch<T>(p, packed(p), static_cast<cudaStream_t>(stream));
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

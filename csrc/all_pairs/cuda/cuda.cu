// Launches the loss over all pairs on CUDA.
#include "all_pairs/cuda/cuda.h"
#include "all_pairs/cuda/launch.cuh"
#include "core/cuda_check.h"
#include "core/cuda_fault.h"

namespace fastccsa::all_pairs::cuda {
namespace {

auto on(void* stream) {
  return [stream](auto kernel, dim3 blocks, const auto&... parameters) {
    if (blocks.x == 0 || blocks.y == 0) return;
    kernel<<<blocks, kThreads, 0, static_cast<cudaStream_t>(stream)>>>(parameters...);
    check_cuda(cudaGetLastError(), "launching a kernel");
  };
}

}  // namespace

template <typename Acc>
void labels(const Labels<Acc>& p, void* stream) {
  launch_labels(p, fault_word(), on(stream));
}

template <typename Acc>
void align(const Align<Acc>& p, void* stream) {
  launch_align(p, fault_word(), on(stream));
}

template <typename Acc>
void terms(const Terms<Acc>& p, void* stream) {
  launch_terms(p, on(stream));
}

template <typename T>
void classes(const Classes<T>& p, void* stream) {
  launch_classes(p, on(stream));
}

template <typename T>
void centre(const Centre<T>& p, void* stream) {
  launch_centre(p, on(stream));
}

template <typename T>
void tile(const Tile<T>& p, void* stream) {
  launch_tile(p, fault_word(), on(stream));
}

template <typename T>
void finish(const Finish<T>& p, void* stream) {
  launch_finish(p, on(stream));
}

template <typename T>
void direct(const Direct<T>& p, void* stream) {
  launch_direct(p, fault_word(), on(stream));
}

#define FASTCCSA_INSTANCES(T)                        \
  template void classes(const Classes<T>&, void*);   \
  template void centre(const Centre<T>&, void*);     \
  template void tile(const Tile<T>&, void*);         \
  template void finish(const Finish<T>&, void*);     \
  template void direct(const Direct<T>&, void*);
FASTCCSA_INSTANCES(float)
FASTCCSA_INSTANCES(double)
FASTCCSA_INSTANCES(bfloat16)
FASTCCSA_INSTANCES(half)

#define FASTCCSA_SUM_INSTANCES(Acc)                  \
  template void labels(const Labels<Acc>&, void*);   \
  template void align(const Align<Acc>&, void*);     \
  template void terms(const Terms<Acc>&, void*);
FASTCCSA_SUM_INSTANCES(float)
FASTCCSA_SUM_INSTANCES(double)

}  // namespace fastccsa::all_pairs::cuda

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
  template void run(const Finish<T, mean_t<T>>&, void*); \
  template void run(const ClassSums<T>&, void*);  \
  template void run(const AlignClasses<T>&, void*); \
  template void run(const Direct<T>&, void*);
FASTCCSA_INSTANCES(float)
FASTCCSA_INSTANCES(double)
FASTCCSA_INSTANCES(bfloat16)
FASTCCSA_INSTANCES(half)

#define FASTCCSA_PRODUCT_INSTANCES(T, P)              \
  template void run(const SplitRows<T, P>&, void*);   \
  template void run(const TilePairs<T, P>&, void*);   \
  template void run(const TileSums<T, P>&, void*);
FASTCCSA_PRODUCT_INSTANCES(double, Float64)
FASTCCSA_PRODUCT_INSTANCES(float, Tf32)
FASTCCSA_PRODUCT_INSTANCES(float, Bf16x3)
FASTCCSA_PRODUCT_INSTANCES(float, Bf16x6)
FASTCCSA_PRODUCT_INSTANCES(bfloat16, Bfloat16)
FASTCCSA_PRODUCT_INSTANCES(half, Bf16x3)

#define FASTCCSA_BLOCKS_INSTANCES(P)                \
  template void run(const SplitBlocks<P>&, void*);  \
  template void run(const TileSums<float, P>&, void*);
FASTCCSA_BLOCKS_INSTANCES(BlocksOfHalf)
FASTCCSA_BLOCKS_INSTANCES(BlocksOfBf16x3)
FASTCCSA_BLOCKS_INSTANCES(BlocksOfBf16x6)
template void run(const FindRange&, void*);

#define FASTCCSA_SUM_INSTANCES(Acc)               \
  template void run(const Inputs<Acc>&, void*);   \
  template void run(const CountingSort<Acc>&, void*); \
  template void run(const Terms<Acc>&, void*);    \
  template void run(const AddPieces<Acc>&, void*);
FASTCCSA_SUM_INSTANCES(float)
FASTCCSA_SUM_INSTANCES(double)

template void run(const Numbers&, void*);
template void run(const Offsets&, void*);

void set_to_zero(void* data, size_t bytes, void* stream) {
  check_cuda(cudaMemsetAsync(data, 0, bytes, static_cast<cudaStream_t>(stream)), "setting memory to zero");
}

}  // namespace fastccsa::all_pairs::cuda

// Runs the kernels that multiply float32 features in parts.
#include "all_pairs/cuda/fused/parts_cuda.h"
#include "all_pairs/cuda/fused/parts_launch.cuh"
#include "core/cuda_check.h"

#include <array>
#include <atomic>

namespace fastccsa::all_pairs::cuda {
namespace {

constexpr int kDevices = 64;

// kKernel: of the two kernels, which have the same type.
template <int kKernel>
auto launch_on(void* stream) {
  return [stream](auto kernel, const FusedGrid& grid, const auto& p) {
    if (grid.blocks.x == 0) return;
    // Kernels may have this much shared memory on a device once it has been asked for.
    static std::array<std::atomic<bool>, kDevices> known{};
    int device = 0;
    check_cuda(cudaGetDevice(&device), "asking for the current GPU");
    if (device >= kDevices || !known[device].load()) {
      const BesideCapture beside;
      check_cuda(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, int(grid.shared_bytes)),
                 "reserving shared memory");
      if (device < kDevices) known[device].store(true);
    }
    cudaLaunchConfig_t config{};
    config.gridDim = grid.blocks;
    config.blockDim = dim3(unsigned(grid.threads));
    config.dynamicSmemBytes = grid.shared_bytes;
    config.stream = static_cast<cudaStream_t>(stream);
    cudaLaunchAttribute cluster{};
    cluster.id = cudaLaunchAttributeClusterDimension;
    cluster.val.clusterDim = {unsigned(grid.cluster), 1, 1};
    config.attrs = &cluster;
    config.numAttrs = 1;
    check_cuda(cudaLaunchKernelEx(&config, kernel, p), "launching a kernel");
  };
}

}  // namespace

int parts_multiprocessors() {
#if defined(FASTCCSA_HOPPER)
  const auto attribute = [](cudaDeviceAttr name) {
    int device = 0, value = 0;
    check_cuda(cudaGetDevice(&device), "asking for the current GPU");
    check_cuda(cudaDeviceGetAttribute(&value, name, device), "asking for the properties of the GPU");
    return value;
  };
  if (attribute(cudaDevAttrComputeCapabilityMajor) == 9) return attribute(cudaDevAttrMultiProcessorCount);
#endif
  return 0;
}

template <typename P>
void run_parts_coefficients(const PairsInBlocks<P>& p, void* stream) {
  launch_parts_coefficients(p, launch_on<0>(stream));
}

template <typename P>
void run_parts_gradients(const PairsInBlocks<P>& p, void* stream) {
  launch_parts_gradients(p, launch_on<1>(stream));
}

#define FASTCCSA_PARTS_INSTANCES(P)                                       \
  template void run_parts_coefficients(const PairsInBlocks<P>&, void*);   \
  template void run_parts_gradients(const PairsInBlocks<P>&, void*);
FASTCCSA_PARTS_INSTANCES(BlocksOfHalf)
FASTCCSA_PARTS_INSTANCES(BlocksOfBf16x3)
FASTCCSA_PARTS_INSTANCES(BlocksOfBf16x6)

}  // namespace fastccsa::all_pairs::cuda

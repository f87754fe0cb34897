// Runs the fused kernels of the loss over all pairs on CUDA.
#include "all_pairs/cuda/fused/fused.h"
#include "all_pairs/cuda/fused/launch.cuh"
#include "core/cuda_check.h"
#include "core/cuda_fault.h"

#include <array>
#include <atomic>

namespace fastccsa::all_pairs::cuda {
namespace {

int attribute(cudaDeviceAttr name, int device) {
  int value = 0;
  check_cuda(cudaDeviceGetAttribute(&value, name, device), "asking for the properties of the GPU");
  return value;
}

int current_device() {
  int device = 0;
  check_cuda(cudaGetDevice(&device), "asking for the current GPU");
  return device;
}

constexpr int kDevices = 64;

// Whether a kernel may start before the kernel before it has ended. Code that was compiled for older GPUs does not wait
// for it: see wait_for_kernel_before().
bool has_overlap() {
  static std::array<std::atomic<int>, kDevices> known{};  // 0: not asked for yet; 1: no; 2: yes
  const int device = current_device();
  int answer = device < kDevices ? known[device].load() : 0;
  if (answer == 0) {
    const BesideCapture beside;
    cudaFuncAttributes code{};  // that of all kernels here is compiled for the same GPUs
    check_cuda(cudaFuncGetAttributes(&code, fused_finish_kernel<bfloat16>), "asking for the properties of a kernel");
    answer = attribute(cudaDevAttrComputeCapabilityMajor, device) >= 9 && code.ptxVersion >= 90 ? 2 : 1;
    if (device < kDevices) known[device].store(answer);
  }
  return answer == 2;
}

auto launch_on(void* stream) {
  return [stream](auto kernel, const FusedGrid& grid, const auto&... arguments) {
    if (grid.blocks.x == 0) return;
    cudaLaunchConfig_t config{};
    config.gridDim = grid.blocks;
    config.blockDim = dim3(unsigned(grid.threads));
    config.dynamicSmemBytes = grid.shared_bytes;
    config.stream = static_cast<cudaStream_t>(stream);
    cudaLaunchAttribute attributes[2]{};
    config.attrs = attributes;
    if (grid.cluster > 1) {
      cudaLaunchAttribute& cluster = attributes[config.numAttrs++];
      cluster.id = cudaLaunchAttributeClusterDimension;
      cluster.val.clusterDim = {unsigned(grid.cluster), 1, 1};
    }
    if (grid.overlaps && has_overlap()) {
      cudaLaunchAttribute& overlap = attributes[config.numAttrs++];
      overlap.id = cudaLaunchAttributeProgrammaticStreamSerialization;
      overlap.val.programmaticStreamSerializationAllowed = 1;
    }
    check_cuda(cudaLaunchKernelEx(&config, kernel, arguments...), "launching a kernel");
  };
}

// Whether the GPU has the instructions of compute capability 9.0a, and this build has code for them.
bool has_wgmma(int device) {
#if defined(FASTCCSA_HOPPER)
  return attribute(cudaDevAttrComputeCapabilityMajor, device) == 9;
#else
  (void)device;
  return false;
#endif
}

// Allows a kernel its shared memory on the current device.
template <typename Kernel>
void reserve(Kernel kernel, size_t bytes) {
  const BesideCapture beside;
  check_cuda(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, int(bytes)),
             "reserving shared memory");
}

// How many blocks of threads run at once on a multiprocessor.
template <typename Kernel>
int blocks_at_once(Kernel kernel, int threads, size_t bytes) {
  const BesideCapture beside;
  int count = 0;
  check_cuda(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&count, kernel, threads, bytes),
             "asking for the occupancy of a kernel");
  return count > 0 ? count : 1;  // then the launch fails with CUDA's message
}

// Allows the main kernel its shared memory on this device, and returns how many blocks of threads run at once.
template <typename T>
FusedVariant find_variant(FusedKernel kernel, int device) {
  FusedVariant variant{kernel, {}, 0};
  with_fused_kernel<T>(kernel, [&](auto function, int threads, size_t bytes, FusedShape shape) {
    variant.shape = shape;
    // Blocks per multiprocessor, by kernel and device; 0: not asked for yet. Several threads may find a value at once.
    static std::array<std::array<std::atomic<int>, kDevices>, kFusedKernels> known{};
    std::atomic<int>& blocks = known[int(kernel)][device % kDevices];
    int count = device < kDevices ? blocks.load() : 0;
    if (count == 0) {
      reserve(function, bytes);
      count = blocks_at_once(function, threads, bytes);
      if (device < kDevices) blocks.store(count);
    }
    variant.threads_blocks = count * attribute(cudaDevAttrMultiProcessorCount, device);
  });
  return variant;
}

// Allows the kernel that reads one side once its shared memory on this device.
template <typename T>
FusedVariant streamed_variant(int device) {
  static std::array<std::atomic<bool>, kDevices> known{};
  if (device >= kDevices || !known[device].load()) {
    reserve(&fused_streamed_kernel<T>, StreamedShape::kBytes);
    if (device < kDevices) known[device].store(true);
  }
  return {FusedKernel::kStreamed512,
          {StreamedShape::kRows, StreamedShape::kColumns},
          attribute(cudaDevAttrMultiProcessorCount, device)};
}

// Allows the kernels that store coefficients their shared memory on this device.
template <typename T>
FusedVariant stored_variant(int device) {
  static std::array<std::atomic<bool>, kDevices> known{};
  if (device >= kDevices || !known[device].load()) {
    const auto allow = [](auto kernel, size_t bytes, auto...) { reserve(kernel, bytes); };
    for (const FusedTerms terms : {kSeparationTerm, kBothTerms}) {
      for (const bool weighted : {false, true}) {
        with_coefficients_kernel<T, kNarrowSlabs>(terms, weighted, allow);
        with_coefficients_kernel<T, kWideSlabs>(terms, weighted, allow);
      }
    }
    for (const int columns : {128, 256}) {
      with_gradients_kernel<T>(columns, allow);
    }
    if (device < kDevices) known[device].store(true);
  }
  return {FusedKernel::kStored, {kTile, kTile}, attribute(cudaDevAttrMultiProcessorCount, device)};
}

// The same for those of other GPUs, where as many blocks of threads run at once as registers and memory suffice for.
template <typename T>
FusedVariant stored_mma_variant(int device) {
  static std::array<std::atomic<int>, kDevices> known{};
  int count = device < kDevices ? known[device].load() : 0;
  if (count == 0) {
    reserve(&mma_gradients_kernel<T>, MmaGradientsShape::kBytes);
    for (const FusedTerms terms : {kSeparationTerm, kBothTerms}) {
      for (const bool weighted : {false, true}) {
        with_mma_coefficients_kernel<T>(terms, weighted, [&](auto kernel, size_t bytes) {
          reserve(kernel, bytes);
          count = blocks_at_once(kernel, kProductThreads, bytes);
        });
      }
    }
    if (device < kDevices) known[device].store(count);
  }
  return {FusedKernel::kStoredMma, {kTile, kTile}, count * attribute(cudaDevAttrMultiProcessorCount, device)};
}

}  // namespace

template <typename T>
FusedVariant fused_variant(int64_t width, FusedChoice choice) {
  const int device = current_device();
  const int padded = width <= 64    ? 64
                     : width <= 128 ? 128
                     : width <= 256 ? 256
                                    : padded_width(FusedKernel::kStored, width);
  const bool wgmma = choice != FusedChoice::kMma && has_wgmma(device);
  const int shared = attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin, device);
  const FusedKernel kernel = fused_kernel(padded, wgmma, choice, size_t(shared));
  if (kernel == FusedKernel::kStreamed512) return streamed_variant<T>(device);
  if (kernel == FusedKernel::kStoredMma) return stored_mma_variant<T>(device);
  return kernel == FusedKernel::kStored ? stored_variant<T>(device) : find_variant<T>(kernel, device);
}

template <typename T>
void run_fused_prepare(const Fused<T>& p, void* stream) {
  launch_fused_prepare(p, fault_word(), launch_on(stream));
}

template <typename T>
void run_fused_ranks(const Fused<T>& p, void* stream) {
  launch_fused_ranks(p, launch_on(stream));
}

template <typename T>
void run_fused_main(const Fused<T>& p, FusedKernel kernel, void* stream) {
  launch_fused_main(p, kernel, launch_on(stream));
}

template <typename T>
void run_coefficients(const Fused<T>& p, const Stored<T>& part, FusedKernel kernel, void* stream) {
  launch_coefficients(p, part, kernel, launch_on(stream));
}

template <typename T>
void run_gradients(const Fused<T>& p, const Stored<T>& part, FusedKernel kernel, int at_once, void* stream) {
  launch_gradients(p, part, kernel, at_once, launch_on(stream));
}

template <typename T>
void run_streamed(const Fused<T>& p, void* stream) {
  launch_streamed(p, fault_word(), launch_on(stream));
}

template <typename T>
void run_fused_finish(const Fused<T>& p, void* stream) {
  launch_fused_finish(p, launch_on(stream));
}

#define FASTCCSA_FUSED_INSTANCES(T)                                                        \
  template FusedVariant fused_variant<T>(int64_t, FusedChoice);                            \
  template void run_fused_prepare(const Fused<T>&, void*);                                 \
  template void run_fused_ranks(const Fused<T>&, void*);                                   \
  template void run_fused_main(const Fused<T>&, FusedKernel, void*);                       \
  template void run_coefficients(const Fused<T>&, const Stored<T>&, FusedKernel, void*);   \
  template void run_gradients(const Fused<T>&, const Stored<T>&, FusedKernel, int, void*); \
  template void run_streamed(const Fused<T>&, void*);                                      \
  template void run_fused_finish(const Fused<T>&, void*);
FASTCCSA_FUSED_INSTANCES(bfloat16)
FASTCCSA_FUSED_INSTANCES(half)

}  // namespace fastccsa::all_pairs::cuda

// Lists the dynamic shared memory of the kernels of the loss over all pairs: their mangled names, and bytes. Built for
// the emulator, whose compiler needs no GPU.
#include "emulator/device.h"
#include "all_pairs/cuda/fused/launch.cuh"
#include "all_pairs/cuda/fused/parts_launch.cuh"

#include <cstdio>
#include <dlfcn.h>

namespace fastccsa::all_pairs::cuda {
namespace {

template <typename Kernel>
void list(Kernel kernel, size_t bytes) {
  Dl_info symbol{};
  if (dladdr(reinterpret_cast<void*>(kernel), &symbol) != 0 && symbol.dli_sname != nullptr) {
    std::printf("%s %zu\n", symbol.dli_sname, bytes);
  }
}

template <typename T>
void list_fused() {
  for (int kernel = 0; kernel < kFusedKernels; ++kernel) {
    with_fused_kernel<T>(FusedKernel(kernel),
                         [](auto function, int, size_t bytes, FusedShape) { list(function, bytes); });
  }
  const auto stored = [](auto kernel, size_t bytes, auto...) { list(kernel, bytes); };
  for (const FusedTerms terms : {kSeparationTerm, kBothTerms}) {
    for (const bool weighted : {false, true}) {
      with_coefficients_kernel<T, kNarrowSlabs>(terms, weighted, stored);
      with_coefficients_kernel<T, kWideSlabs>(terms, weighted, stored);
      with_mma_coefficients_kernel<T>(terms, weighted, stored);
    }
  }
  for (const int columns : {128, 256}) with_gradients_kernel<T>(columns, stored);
  list(&mma_gradients_kernel<T>, MmaGradientsShape::kBytes);
  list(&fused_streamed_kernel<T>, StreamedShape::kBytes);
}

template <typename P>
void list_parts() {
  list(&parts_coefficients_kernel<P>, PartsShape<P>::kBytes);
  list(&parts_gradients_kernel<P>, PartsGradientsShape<P>::kBytes);
}

void list_all() {
  list_fused<bfloat16>();
  list_fused<half>();
  list_parts<BlocksOfHalf>();
  list_parts<BlocksOfBf16x3>();
  list_parts<BlocksOfBf16x6>();
}

}  // namespace
}  // namespace fastccsa::all_pairs::cuda

int main() { fastccsa::all_pairs::cuda::list_all(); }

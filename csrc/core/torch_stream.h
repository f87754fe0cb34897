// PyTorch's current CUDA stream, without linking to its CUDA library.
#pragma once

#include "core/torch_errors.h"

#include <torch/csrc/stable/library.h>

#include <dlfcn.h>

namespace fastccsa {

// The op library also loads into a torch without CUDA, so the symbol is looked up at run time.
inline void* current_cuda_stream(int32_t device) {
  using Function = AOTITorchError (*)(int32_t, void**);
  static const Function function = [] {
    void* library = dlopen("libtorch_cuda.so", RTLD_LAZY | RTLD_NOLOAD);
    return library == nullptr ? nullptr
                              : reinterpret_cast<Function>(dlsym(library, "aoti_torch_get_current_cuda_stream"));
  }();
  if (function == nullptr) throw std::runtime_error("fastccsa: this PyTorch has no CUDA support");
  void* stream = nullptr;
  STABLE_TORCH_ERROR_CODE_CHECK(function(device, &stream));
  return stream;
}

}  // namespace fastccsa

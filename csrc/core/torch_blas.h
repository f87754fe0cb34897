// The cuBLAS that PyTorch has loaded, reached without linking to it.
#pragma once

#include "core/cublas.h"
#include "core/torch_binding.h"

#include <dlfcn.h>

#include <type_traits>

namespace fastccsa {

// Torch's cuBLAS handle for the current device and stream. Torch sets the handle's math mode according to its own
// settings, and with TF32 in the mode, products in float32 would use it too. While this object lives, the mode is the
// default.
class TorchBlas {
 public:
  TorchBlas() : functions_(functions()) {
    STABLE_TORCH_ERROR_CODE_CHECK(functions_.current_handle(&handle_));
    check(functions_.get_mode(handle_, &mode_));
    check(functions_.set_mode(handle_, cublas::kDefaultMath));
  }
  ~TorchBlas() { functions_.set_mode(handle_, mode_); }
  TorchBlas(const TorchBlas&) = delete;
  TorchBlas& operator=(const TorchBlas&) = delete;

  Blas get() const { return {functions_.gemm, functions_.gemm_batched, handle_}; }

 private:
  struct Functions {
    AOTITorchError (*current_handle)(void**);
    GemmEx gemm;
    GemmStridedBatchedEx gemm_batched;
    int (*get_mode)(void*, int*);
    int (*set_mode)(void*, int);
  };

  // The op library also loads into a torch without CUDA, so nothing is linked. A search in torch's CUDA library
  // covers the libraries that it depends on, whatever their versions.
  static const Functions& functions() {
    static const Functions found = [] {
      void* library = dlopen("libtorch_cuda.so", RTLD_LAZY | RTLD_NOLOAD);
      const auto find = [library](auto& function, const char* name) {
        void* address = library == nullptr ? nullptr : dlsym(library, name);
        if (address == nullptr) address = dlsym(RTLD_DEFAULT, name);
        if (address == nullptr) fail("fastccsa: ", name, " is not in any library that this PyTorch has loaded");
        function = reinterpret_cast<std::decay_t<decltype(function)>>(address);
      };
      Functions functions;
      find(functions.current_handle, "torch_get_current_cuda_blas_handle");
      find(functions.gemm, "cublasGemmEx");
      find(functions.gemm_batched, "cublasGemmStridedBatchedEx");
      find(functions.get_mode, "cublasGetMathMode");
      find(functions.set_mode, "cublasSetMathMode");
      return functions;
    }();
    return found;
  }

  static void check(int status) {
    if (status != 0) fail("fastccsa: cuBLAS failed with status ", status);
  }

  const Functions& functions_;
  void* handle_ = nullptr;
  int mode_ = cublas::kDefaultMath;
};

}  // namespace fastccsa

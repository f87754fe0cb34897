// The GPU as the sweep sees it (sweep.h): memory and sorting by torch, products by the cuBLAS that torch has loaded.
#pragma once

#include "all_pairs/cuda/cuda.h"
#include "all_pairs/cuda/products.h"
#include "core/torch_binding.h"
#include "core/torch_stream.h"

#include <dlfcn.h>

#include <type_traits>
#include <utility>
#include <vector>

namespace fastccsa::all_pairs::cuda {

// Torch's handle of cuBLAS for the current device and stream. Its mode decides how cuBLAS multiplies float32 by default;
// while this object lives, that is as float32.
class TorchBlas {
 public:
  TorchBlas() : functions_(functions()) {
    STABLE_TORCH_ERROR_CODE_CHECK(functions_.current_handle(&handle_));
    check(functions_.get_mode(handle_, &mode_));
    check(functions_.set_mode(handle_, kDefaultMath));
  }
  ~TorchBlas() { functions_.set_mode(handle_, mode_); }
  TorchBlas(const TorchBlas&) = delete;
  TorchBlas& operator=(const TorchBlas&) = delete;

  Blas get() const { return {functions_.gemm, handle_}; }

 private:
  static constexpr int kDefaultMath = 0;  // CUBLAS_DEFAULT_MATH

  struct Functions {
    AOTITorchError (*current_handle)(void**);
    GemmEx gemm;
    int (*get_mode)(void*, int*);
    int (*set_mode)(void*, int);
  };

  // The op library also loads into a torch without CUDA, so nothing is linked. A search in torch's CUDA library covers
  // the libraries that it depends on, whatever their versions.
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
  int mode_ = kDefaultMath;
};

// The device of `like`, which is the current one, and torch's current stream.
class TorchDevice {
 public:
  explicit TorchDevice(const Tensor& like) : like_(like), stream_(current_cuda_stream(like.get_device_index())) {}

  template <typename U>
  struct Buffer {
    MaybeTensor tensor;
    U* data() const { return tensor ? static_cast<U*>(tensor->data_ptr()) : nullptr; }
  };

  struct Sorted {
    Buffer<int64_t> values, order;
  };

  template <typename U>
  Buffer<U> allocate(int64_t count) const {
    if constexpr (std::is_same_v<U, int64_t>) return {empty({count}, ScalarType::Long, like_)};
    return {empty({count * int64_t(sizeof(U))}, ScalarType::Byte, like_)};
  }

  template <typename U>
  Buffer<U> zeros(int64_t count) const {
    const Buffer<U> buffer = allocate<U>(count);
    set_to_zero(buffer.data(), size_t(count) * sizeof(U), stream_);
    return buffer;
  }

  template <typename U>
  Buffer<U> upload(const std::vector<U>& values) const {
    const Buffer<U> buffer = allocate<U>(int64_t(values.size()));
    copy_to_device(buffer.data(), values.data(), values.size() * sizeof(U), stream_);
    return buffer;
  }

  template <typename U>
  std::vector<U> read(const U* from, int64_t count) const {
    std::vector<U> values(count);
    copy_to_host(values.data(), from, size_t(count) * sizeof(U), stream_);
    return values;
  }

  Sorted sort(const Buffer<int64_t>& labels, int64_t) const {
    StableIValue stack[] = {torch::stable::detail::from(*labels.tensor), torch::stable::detail::from(std::optional<bool>(true)),
                            torch::stable::detail::from(int64_t(0)), torch::stable::detail::from(false)};
    STABLE_TORCH_ERROR_CODE_CHECK(torch_call_dispatcher("aten::sort", "stable", stack, TORCH_ABI_VERSION));
    return {{torch::stable::detail::to<Tensor>(stack[0])}, {torch::stable::detail::to<Tensor>(stack[1])}};
  }

  template <typename Parameters>
  void run(const Parameters& p) const {
    cuda::run(p, stream_);
  }

  Blas blas() {
    if (!blas_) blas_.emplace();
    return blas_->get();
  }

  bool is_capturing() const { return cuda::is_capturing(stream_); }

 private:
  const Tensor& like_;
  void* const stream_;
  std::optional<TorchBlas> blas_;
};

}  // namespace fastccsa::all_pairs::cuda

// Large results on the CPU, in recycled memory.
#pragma once

#include "core/recycled_memory.h"
#include "core/torch_errors.h"

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/tensor.h>

#include <cstdint>
#include <optional>

// Torch has this function since 2.11. With 2.10 it is null, and results come from torch's allocator.
extern "C" __attribute__((weak)) AOTITorchError torch_from_blob(
    void* data, int64_t ndim, const int64_t* sizes, const int64_t* strides, int64_t storage_offset, int32_t dtype,
    int32_t device_type, int32_t device_index, AtenTensorHandle* result, int32_t layout, const uint8_t* opaque_metadata,
    int64_t opaque_metadata_size, void (*deleter)(void* data, void* context), void* deleter_context);

namespace fastccsa {

// Returns a contiguous, uninitialised matrix on the CPU, or nothing if it is too small to recycle or there is no
// memory. `dtype` is torch's code for the type of its elements, and `element_bytes` is their size.
inline std::optional<torch::stable::Tensor> recycled_matrix(int64_t rows, int64_t columns, int32_t dtype,
                                                            std::size_t element_bytes) {
  const std::size_t bytes = std::size_t(rows) * std::size_t(columns) * element_bytes;
  if (bytes < recycled::kLeastBytes || torch_from_blob == nullptr) return std::nullopt;
  std::size_t capacity = 0;
  void* data = recycled::take(bytes, &capacity);
  if (data == nullptr) return std::nullopt;
  const int64_t sizes[] = {rows, columns}, strides[] = {columns, 1};
  const auto give_back = [](void* data, void* capacity) {
    recycled::give_back(data, reinterpret_cast<std::size_t>(capacity));
  };
  AtenTensorHandle handle;
  const AOTITorchError error =
      torch_from_blob(data, 2, sizes, strides, 0, dtype, aoti_torch_device_type_cpu(), -1, &handle,
                      aoti_torch_layout_strided(), nullptr, 0, give_back, reinterpret_cast<void*>(capacity));
  if (error != AOTI_TORCH_SUCCESS) recycled::give_back(data, capacity);
  STABLE_TORCH_ERROR_CODE_CHECK(error);
  return torch::stable::Tensor(handle);
}

}  // namespace fastccsa

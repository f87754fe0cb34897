// Large results on the CPU: recycled memory where the pool is on, and large pages in any case.
#pragma once

#include "core/huge_pages.h"
#include "core/recycled_memory.h"
#include "core/torch_binding.h"

#include <cstdint>
#include <initializer_list>

// Torch has this function since 2.11. With 2.10 it is null, and results come from torch's allocator.
extern "C" __attribute__((weak)) AOTITorchError torch_from_blob(
    void* data, int64_t ndim, const int64_t* sizes, const int64_t* strides, int64_t storage_offset, int32_t dtype,
    int32_t device_type, int32_t device_index, AtenTensorHandle* result, int32_t layout, const uint8_t* opaque_metadata,
    int64_t opaque_metadata_size, void (*deleter)(void* data, void* context), void* deleter_context);

namespace fastccsa {

// Returns an uninitialised, contiguous tensor of at most three dimensions in memory of the pool, or nothing if the pool
// is off or there is no memory. `bytes` is its size.
inline MaybeTensor recycled_empty(std::initializer_list<int64_t> sizes, ScalarType type, std::size_t bytes) {
  if (torch_from_blob == nullptr) return std::nullopt;
  std::size_t capacity = 0;
  void* data = recycled::take(bytes, &capacity);
  if (data == nullptr) return std::nullopt;
  const Strides strides = contiguous_strides(sizes);
  const auto give_back = [](void* data, void* capacity) {
    recycled::give_back(data, reinterpret_cast<std::size_t>(capacity));
  };
  AtenTensorHandle handle;
  const AOTITorchError error =
      torch_from_blob(data, int64_t(sizes.size()), sizes.begin(), strides.values, 0, number_of(type),
                      aoti_torch_device_type_cpu(), -1, &handle, aoti_torch_layout_strided(), nullptr, 0, give_back,
                      reinterpret_cast<void*>(capacity));
  if (error != AOTI_TORCH_SUCCESS) recycled::give_back(data, capacity);
  STABLE_TORCH_ERROR_CODE_CHECK(error);
  return Tensor(handle);
}

// Like `empty`, for tensors that may be large: mapping fresh memory for a large result on the CPU, in pages of 4 KiB,
// takes several times as long as computing the result.
inline Tensor large_empty(std::initializer_list<int64_t> sizes, ScalarType type, std::size_t element_bytes,
                          const Tensor& like) {
  std::size_t bytes = element_bytes;
  for (const int64_t size : sizes) bytes *= std::size_t(size);
  if (bytes < recycled::kLeastBytes || !like.is_cpu()) return empty(sizes, type, like);
  if (MaybeTensor tensor = recycled_empty(sizes, type, bytes)) return *tensor;
  Tensor tensor = empty(sizes, type, like);
  prefer_huge_pages(tensor.data_ptr(), bytes);
  return tensor;
}

}  // namespace fastccsa

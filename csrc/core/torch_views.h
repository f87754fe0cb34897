// Views of torch's tensors for kernels.
#pragma once

#include "core/strided.h"
#include "core/torch_binding.h"
#include "core/types.h"

#include <cstddef>
#include <type_traits>

namespace fastccsa {

// Torch's name for acc_t<T>.
template <typename T>
constexpr ScalarType kAccType = std::is_same_v<acc_t<T>, double> ? ScalarType::Double : ScalarType::Float;

// Returns the address of the first element. Kernels take nullptr for a tensor that was not passed. A tensor without
// elements may have no memory, so it gets another address, which is never read.
template <typename T>
T* data_of(const Tensor& tensor) {
  void* data = tensor.data_ptr();
  return data != nullptr ? static_cast<T*>(data) : reinterpret_cast<T*>(alignof(std::max_align_t));
}

template <typename T>
Matrix<T> matrix_view(const Tensor& tensor) {
  return {data_of<T>(tensor), tensor.stride(0), tensor.stride(1)};
}

template <typename T>
Vector<T> vector_view(const Tensor& tensor) {
  return {data_of<T>(tensor), tensor.stride(0)};
}

}  // namespace fastccsa

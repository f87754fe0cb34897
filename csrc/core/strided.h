// A kernel's view of a tensor: its address, and its strides in elements.
#pragma once

#include "core/macros.h"

#include <cstdint>

namespace fastccsa {

template <typename T>
struct Vector {
  T* data = nullptr;  // nullptr: the caller passed no such tensor
  int64_t stride = 0;

  FASTCCSA_HOST_DEVICE T& operator[](int64_t i) const { return data[i * stride]; }
};

template <typename T>
struct Matrix {
  T* data = nullptr;  // nullptr: the caller passed no such tensor
  int64_t row_stride = 0;
  int64_t column_stride = 0;

  FASTCCSA_HOST_DEVICE T* row(int64_t i) const { return data + i * row_stride; }
  FASTCCSA_HOST_DEVICE Vector<T> strided_row(int64_t i) const { return {row(i), column_stride}; }
};

}  // namespace fastccsa

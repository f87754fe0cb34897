// Checks of an op's tensors that do not read the values.
#pragma once

#include "core/torch_binding.h"

namespace fastccsa {

inline void check_tensor(const char* name, const Tensor& tensor, const Tensor& like, ScalarType type, int64_t dim) {
  if (tensor.dim() != dim) {
    fail(name, " must have ", dim, dim == 1 ? " dimension" : " dimensions", ", but its shape is ", shape_of(tensor));
  }
  if (tensor.scalar_type() != type) {
    fail(name, " must be ", name_of(type), ", but it is ", name_of(tensor.scalar_type()));
  }
  if (!on_one_device(tensor, like)) {
    fail(name, " is on ", device_of(tensor), ", but the other tensors are on ", device_of(like), "; move it there");
  }
}

// `why` describes the expected size, for the message.
inline void check_size(const char* name, const Tensor& tensor, int64_t d, int64_t expected, const char* why) {
  if (tensor.size(d) != expected) {
    fail(name, " has shape ", shape_of(tensor), ", but dimension ", d, " must be ", expected, " (", why, ")");
  }
}

}  // namespace fastccsa

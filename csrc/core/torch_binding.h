// What the bindings of all ops need from torch: its names, errors, and the C++ types of its elements.
#pragma once

#include "core/half.h"
#include "core/torch_errors.h"

#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#include <initializer_list>
#include <optional>
#include <sstream>
#include <stdexcept>
#include <string>

namespace fastccsa {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;
using MaybeTensor = std::optional<Tensor>;

// Throws an error whose message is all parts together: the argument, what was expected and what was given.
template <typename... Parts>
[[noreturn]] void fail(const Parts&... parts) {
  std::ostringstream message;
  (message << ... << parts);
  throw std::runtime_error(message.str());
}

inline std::string shape_of(const Tensor& tensor) {
  std::ostringstream text;
  text << '[';
  for (int64_t d = 0; d < tensor.dim(); ++d) text << (d ? ", " : "") << tensor.size(d);
  text << ']';
  return text.str();
}

inline const char* name_of(ScalarType type) {
  switch (type) {
    case ScalarType::Double: return "float64";
    case ScalarType::Float: return "float32";
    case ScalarType::BFloat16: return "bfloat16";
    case ScalarType::Half: return "float16";
    case ScalarType::Long: return "int64";
    case ScalarType::Int: return "int32";
    case ScalarType::Bool: return "bool";
    default: return "another type";
  }
}

inline std::string device_of(const Tensor& tensor) {
  if (tensor.is_cpu()) return "cpu";
  return (tensor.is_cuda() ? "cuda:" : "device ") + std::to_string(tensor.get_device_index());
}

inline bool on_one_device(const Tensor& one, const Tensor& other) {
  return one.is_cpu() == other.is_cpu() && one.get_device_index() == other.get_device_index();
}

// Calls `function` with a value of the element type of `tensor`. Users know the tensor as `name`.
template <typename Function>
auto with_type(const Tensor& tensor, const char* name, Function function) {
  switch (tensor.scalar_type()) {
    case ScalarType::Float: return function(float());
    case ScalarType::Double: return function(double());
    case ScalarType::BFloat16: return function(bfloat16());
    case ScalarType::Half: return function(half());
    default: fail(name, " must be float64, float32, bfloat16 or float16, but it is ", name_of(tensor.scalar_type()));
  }
}

// Returns torch's code for a type.
inline int32_t number_of(ScalarType type) {
  return torch::stable::detail::to<int32_t>(torch::stable::detail::from(type));
}

struct Strides {
  int64_t values[3] = {1, 1, 1};
};

// The strides of a contiguous tensor of at most three dimensions.
inline Strides contiguous_strides(std::initializer_list<int64_t> sizes) {
  Strides strides;
  for (int d = int(sizes.size()) - 2; d >= 0; --d) strides.values[d] = strides.values[d + 1] * sizes.begin()[d + 1];
  return strides;
}

// Returns an uninitialised, contiguous tensor of at most three dimensions, on the device of `like`.
inline Tensor empty(std::initializer_list<int64_t> sizes, ScalarType type, const Tensor& like) {
  const Strides strides = contiguous_strides(sizes);
  int32_t device_type;
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_device_type(like.get(), &device_type));
  AtenTensorHandle handle;
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_empty_strided(int64_t(sizes.size()), sizes.begin(), strides.values,
                                                         number_of(type), device_type, like.get_device_index(),
                                                         &handle));
  return Tensor(handle);
}

}  // namespace fastccsa

// How tests pass tensors to a program and receive results: integers and reals have 8 bytes, and buffers follow their
// size. Each buffer has its exact size, so that AddressSanitizer detects an access to the first byte beyond it.
#pragma once

#include "core/half.h"
#include "core/strided.h"

#include <cstdio>
#include <cstdlib>
#include <memory>
#include <stdexcept>
#include <vector>

namespace fastccsa::testing {

inline bool read_bytes(void* to, size_t bytes) { return bytes == 0 || std::fread(to, bytes, 1, stdin) == 1; }

template <typename T>
T read_value() {
  T value;
  if (!read_bytes(&value, sizeof value)) throw std::runtime_error("the input ends in the middle of a case");
  return value;
}

inline void write_bytes(const void* from, size_t bytes) {
  const int64_t count = int64_t(bytes);
  std::fwrite(&count, sizeof count, 1, stdout);
  if (bytes > 0) std::fwrite(from, bytes, 1, stdout);
}

template <typename T>
void write(const std::vector<T>& values) {
  write_bytes(values.data(), values.size() * sizeof(T));
}

// A tensor: its storage, with the offset and the strides in elements.
class View {
 public:
  void read() {
    const int64_t bytes = read_value<int64_t>();
    bytes_ = bytes < 0 ? 0 : bytes;
    offset_ = read_value<int64_t>();
    for (int64_t& stride : strides_) stride = read_value<int64_t>();
    if (bytes < 0) return;  // not given
    storage_.reset(new char[bytes]);
    if (!read_bytes(storage_.get(), bytes)) throw std::runtime_error("the input ends in the middle of a tensor");
  }

  template <typename T>
  T* data() const {
    return storage_ == nullptr ? nullptr : reinterpret_cast<T*>(storage_.get()) + offset_;
  }
  void write_back() const { write_bytes(storage_.get(), size_t(bytes_)); }
  template <typename T>
  Matrix<const T> matrix() const {
    return {data<T>(), strides_[0], strides_[1]};
  }
  template <typename T>
  Vector<const T> vector() const {
    return {data<T>(), strides_[0]};
  }

 private:
  std::unique_ptr<char[]> storage_;
  int64_t bytes_ = 0;
  int64_t offset_, strides_[2];
};

enum class Dtype : int64_t { kFloat64, kFloat32, kBFloat16, kFloat16 };

}  // namespace fastccsa::testing

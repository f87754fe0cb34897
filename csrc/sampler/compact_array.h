// An array of unsigned integers, stored in the smallest of 1, 2, 4 or 8 bytes that holds its largest value.

#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

namespace fastccsa::sampler {

class CompactArray {
 public:
  CompactArray(std::size_t size, std::uint64_t largest)
      : width_(width_for(largest)), bytes_(size * width_) {}

  std::uint64_t operator[](std::size_t index) const {
    switch (width_) {
      case 1: return load<std::uint8_t>(index);
      case 2: return load<std::uint16_t>(index);
      case 4: return load<std::uint32_t>(index);
      default: return load<std::uint64_t>(index);
    }
  }

  void set(std::size_t index, std::uint64_t value) {
    switch (width_) {
      case 1: return store<std::uint8_t>(index, value);
      case 2: return store<std::uint16_t>(index, value);
      case 4: return store<std::uint32_t>(index, value);
      default: return store<std::uint64_t>(index, value);
    }
  }

  std::size_t size() const { return bytes_.size() / width_; }
  std::size_t nbytes() const { return bytes_.size(); }

 private:
  static std::size_t width_for(std::uint64_t largest) {
    if (largest <= UINT8_MAX) return 1;
    if (largest <= UINT16_MAX) return 2;
    if (largest <= UINT32_MAX) return 4;
    return 8;
  }

  // memcpy is the well-defined way to read an integer from bytes; it compiles to one load.
  template <typename Integer>
  std::uint64_t load(std::size_t index) const {
    Integer value;
    std::memcpy(&value, bytes_.data() + index * sizeof(Integer), sizeof(Integer));
    return value;
  }

  template <typename Integer>
  void store(std::size_t index, std::uint64_t value) {
    const auto narrow = static_cast<Integer>(value);
    std::memcpy(bytes_.data() + index * sizeof(Integer), &narrow, sizeof(Integer));
  }

  std::size_t width_;
  std::vector<std::uint8_t> bytes_;
};

}  // namespace fastccsa::sampler

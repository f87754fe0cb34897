// The dynamic shared memory of a block.
#pragma once

#include "emulator/site.h"

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>

namespace emulator {

class SharedMemory {
 public:
  // Makes it NaN (all bits set). It has exactly this size, so that AddressSanitizer detects an access beyond its end.
  void reset(size_t bytes);

  unsigned char* data() const { return memory_.get(); }

  // 32-bit addresses. As on a GPU, the memory does not begin at address 0: before it lies what the system has reserved.
  uint32_t address_of(const void* pointer, Site site) const;
  // The memory at an address that must be a multiple of `bytes`.
  unsigned char* at(uint32_t address, size_t bytes, Site site) const;

 private:
  static constexpr uint32_t kReserved = 1024;

  struct Free {
    void operator()(unsigned char* memory) const { std::free(memory); }
  };
  std::unique_ptr<unsigned char, Free> memory_;
  size_t bytes_ = 0;
};

}  // namespace emulator

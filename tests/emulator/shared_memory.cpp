#include "emulator/shared_memory.h"

#include "emulator/multiprocessor.h"

#include <new>
#include <sstream>

namespace emulator {
namespace {

constexpr size_t kAlignment = 1024;

}  // namespace

void SharedMemory::reset(size_t bytes) {
  if (bytes != bytes_ || memory_ == nullptr) {
    void* memory = nullptr;
    if (posix_memalign(&memory, kAlignment, bytes) != 0) throw std::bad_alloc();
    memory_.reset(static_cast<unsigned char*>(memory));
    bytes_ = bytes;
  }
  // Through volatile, so that no memset() tells the race detector of these writes.
  for (volatile unsigned char* byte = data(); byte < data() + bytes; ++byte) *byte = 0xff;
}

uint32_t SharedMemory::address_of(const void* pointer, Site site) const {
  const unsigned char* const byte = static_cast<const unsigned char*>(pointer);
  if (byte < data() || byte >= data() + bytes_) fail("the pointer is not to dynamic shared memory", site);
  return kReserved + uint32_t(byte - data());
}

unsigned char* SharedMemory::at(uint32_t address, size_t bytes, Site site) const {
  if (address < kReserved || address + bytes > kReserved + bytes_ || address % bytes != 0) {
    std::ostringstream text;
    text << "address " << address << " is not that of " << bytes << " aligned bytes in dynamic shared memory, which is "
         << kReserved << " to " << kReserved + bytes_ - 1;
    fail(text.str(), site);
  }
  return data() + (address - kReserved);
}

}  // namespace emulator

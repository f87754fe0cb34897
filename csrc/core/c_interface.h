// For functions that Python calls through ctypes: they have C linkage, take addresses and integers, and return nullptr
// or the reason why they failed. So the libraries depend on no version of Python.
#pragma once

#include <new>
#include <stdexcept>

#define FASTCCSA_C_FUNCTION extern "C" __attribute__((visibility("default")))

namespace fastccsa {

// Python raises MemoryError for this reason, and ValueError for others.
constexpr const char* kOutOfMemory = "out of memory";

// Runs a function that returns nothing. No exception may reach the caller, which is not C++.
template <typename Function>
const char* reason_of_failure(Function&& function) noexcept {
  try {
    function();
    return nullptr;
  } catch (const std::bad_alloc&) {
    return kOutOfMemory;
  } catch (const std::length_error&) {  // from a container that cannot be that large
    return kOutOfMemory;
  }
}

}  // namespace fastccsa

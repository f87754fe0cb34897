// Errors of the CUDA runtime.
#pragma once

#include <cuda_runtime.h>

#include <stdexcept>
#include <string>

namespace fastccsa {

inline void check_cuda(cudaError_t error, const char* what) {
  if (error != cudaSuccess) {
    throw std::runtime_error(std::string("fastccsa: ") + what + " failed: " + cudaGetErrorString(error));
  }
}

}  // namespace fastccsa

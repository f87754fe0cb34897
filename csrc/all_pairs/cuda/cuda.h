// The functions of the CUDA runtime that the loss over all pairs uses. `stream` is a cudaStream_t of the current
// device. All functions throw std::runtime_error when a call fails.
#pragma once

#include "all_pairs/cuda/prepare_params.h"
#include "core/half.h"

#include <cstddef>

namespace fastccsa::all_pairs::cuda {

// Starts the kernels for these parameters: see launch.cuh.
template <typename Parameters>
void run(const Parameters& p, void* stream);

void set_to_zero(void* data, size_t bytes, void* stream);

}  // namespace fastccsa::all_pairs::cuda

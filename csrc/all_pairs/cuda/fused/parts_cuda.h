// The functions of the CUDA runtime that the loss over all pairs of float32 features in parts uses: see cuda.h.
#pragma once

#include "all_pairs/cuda/fused/parts_params.h"

namespace fastccsa::all_pairs::cuda {

// The number of multiprocessors of the current GPU if it has the kernels, else 0.
int parts_multiprocessors();

template <typename P>
void run_parts_coefficients(const PairsInBlocks<P>& p, void* stream);
template <typename P>
void run_parts_gradients(const PairsInBlocks<P>& p, void* stream);

}  // namespace fastccsa::all_pairs::cuda

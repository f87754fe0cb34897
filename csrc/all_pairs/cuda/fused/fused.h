// The functions of the CUDA runtime that the fused loss over all pairs uses: see cuda.h.
#pragma once

#include "all_pairs/cuda/fused/params.h"
#include "all_pairs/cuda/fused/stored_params.h"
#include "all_pairs/cuda/fused/variant.h"

namespace fastccsa::all_pairs::cuda {

template <typename T>
FusedVariant fused_variant(int64_t width, FusedChoice choice);

template <typename T>
void run_fused_prepare(const Fused<T>& p, void* stream);
template <typename T>
void run_fused_ranks(const Fused<T>& p, void* stream);
template <typename T>
void run_fused_main(const Fused<T>& p, FusedKernel kernel, void* stream);
template <typename T>
void run_coefficients(const Fused<T>& p, const Stored<T>& part, FusedKernel kernel, void* stream);
template <typename T>
void run_gradients(const Fused<T>& p, const Stored<T>& part, FusedKernel kernel, int at_once, void* stream);
template <typename T>
void run_streamed(const Fused<T>& p, void* stream);
template <typename T>
void run_fused_finish(const Fused<T>& p, void* stream);

}  // namespace fastccsa::all_pairs::cuda

// Augmentation of stored crops on CUDA: one launch, no synchronisation, no allocation; it can be captured in a graph.
#pragma once

#include "augment/params.h"
#include "core/half.h"

namespace fastccsa::augment::cuda {

// `stream` is a cudaStream_t of the current device. An image whose view is not within bounds is all NaN, since checking
// views would stop the stream. Throws std::runtime_error when the launch fails.
template <typename T>
void augment(const Batch<T>& p, void* stream);

}  // namespace fastccsa::augment::cuda

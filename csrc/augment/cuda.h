// Augmentation of stored crops on CUDA: one launch, no host sync, no allocation. It can be captured in a graph.
#pragma once

#include "augment/params.h"
#include "core/half.h"

namespace fastccsa::augment::cuda {

// `stream` is a cudaStream_t of the current device. An image whose view is out of bounds becomes NaN everywhere, since
// an error would need a host sync. Throws std::runtime_error when the launch fails.
template <typename T>
void augment(const Batch<T>& p, void* stream);

}  // namespace fastccsa::augment::cuda

// The zipped loss on CUDA: one launch forward, one backward, no host sync, no allocation.
#pragma once

#include "core/half.h"
#include "zipped/params.h"

namespace fastccsa::zipped::cuda {

// Up to this number of pairs, a block may take one pair, and the forward pass leaves no gradients.
constexpr int64_t kFewPairs = 512;

// `stream` is a cudaStream_t of the current device. Throws std::runtime_error when a launch fails.
template <typename T>
void forward(const Forward<T>& p, void* stream);

template <typename T>
void backward(const Backward<T>& p, void* stream);

}  // namespace fastccsa::zipped::cuda

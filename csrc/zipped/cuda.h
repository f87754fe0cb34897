// The zipped loss on CUDA: one launch forward, one backward, no synchronisation, no allocation.
#pragma once

#include "core/half.h"
#include "zipped/fault.h"
#include "zipped/params.h"

namespace fastccsa::zipped::cuda {

// `stream` is a cudaStream_t of the current device. Throws std::runtime_error when a launch fails.
template <typename T>
void forward(const Forward<T>& p, void* stream);

template <typename T>
void backward(const Backward<T>& p, void* stream);

// Where kernels of every op, on every device, report a bad label or weight: a word of host memory.
FaultWord* fault_word();

// The report of a bad label or weight that an earlier call on any device found, once; fault kNone: there is none.
FaultReport take_fault();

}  // namespace fastccsa::zipped::cuda

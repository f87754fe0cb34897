// The word of host memory in which CUDA kernels report a bad label or weight.
#pragma once

#include "core/fault.h"

namespace fastccsa::cuda {

// One word for the kernels of all ops on all devices. It lives as long as the process.
FaultWord* fault_word();

// Returns the report that an earlier call left on any device, and resets the word. Fault::kNone means no report.
FaultReport take_fault();

}  // namespace fastccsa::cuda

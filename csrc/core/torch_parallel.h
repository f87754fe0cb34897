// PyTorch's thread pool as the ParallelFor that the CPU kernels take.
#pragma once

#include "core/torch_errors.h"

#include <torch/csrc/stable/library.h>

#include <cstdint>

namespace fastccsa {

// Calls `body(context, begin, end)` for parts of [0, count) with at least `grain` elements, on all of torch's threads.
inline void parallel_for(int64_t count, int64_t grain, void (*body)(void*, int64_t, int64_t), void* context) {
  struct Call {
    void (*body)(void*, int64_t, int64_t);
    void* context;
  } call{body, context};
  STABLE_TORCH_ERROR_CODE_CHECK(torch_parallel_for(
      0, count, grain,
      [](int64_t begin, int64_t end, void* c) {
        const Call* call = static_cast<Call*>(c);
        call->body(call->context, begin, end);
      },
      &call));
}

}  // namespace fastccsa

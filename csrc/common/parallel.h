// How the CPU kernels reach their caller's thread pool.
#pragma once

#include <cstdint>

namespace fastccsa {

// Calls `body(context, begin, end)` over [0, count), in any split, but in parts of at least `grain`.
using ParallelFor = void (*)(int64_t count, int64_t grain, void (*body)(void*, int64_t, int64_t), void* context);

}  // namespace fastccsa

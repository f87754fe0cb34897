// Augmentation of stored crops on the CPU.
#pragma once

#include "augment/params.h"
#include "common/half.h"

namespace fastccsa::augment::cpu {

// How the caller's thread pool is reached: calls `body(context, begin, end)` over [0, count), in any split.
using ParallelFor = void (*)(int64_t count, int64_t grain, void (*body)(void*, int64_t, int64_t), void* context);

// Makes the images [begin, end), whose views have been checked.
template <typename T>
using Kernel = void (*)(const Batch<T>& p, int64_t begin, int64_t end);

// The kernel of one instruction set.
namespace portable {
template <typename T>
Kernel<T> kernel();
}
namespace avx2 {
template <typename T>
Kernel<T> kernel();
}
namespace avx512 {
template <typename T>
Kernel<T> kernel();
}

// Images are made independently of each other: the number of threads changes nothing.
template <typename T>
void augment(const Batch<T>& p, ParallelFor parallel_for);

}  // namespace fastccsa::augment::cpu

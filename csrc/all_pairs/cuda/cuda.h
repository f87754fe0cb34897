// The loss over all pairs on CUDA: no synchronisation, no allocation.
#pragma once

#include "all_pairs/params.h"
#include "core/half.h"

namespace fastccsa::all_pairs::cuda {

// `stream` is a cudaStream_t of the current device. All throw std::runtime_error when a launch fails.
template <typename T>
void classes(const Classes<T>& p, void* stream);

template <typename Acc>
void labels(const Labels<Acc>& p, void* stream);

template <typename Acc>
void align(const Align<Acc>& p, void* stream);

template <typename Acc>
void terms(const Terms<Acc>& p, void* stream);

template <typename T>
void centre(const Centre<T>& p, void* stream);

template <typename T>
void tile(const Tile<T>& p, void* stream);

template <typename T>
void finish(const Finish<T>& p, void* stream);

template <typename T>
void direct(const Direct<T>& p, void* stream);

}  // namespace fastccsa::all_pairs::cuda

// Chooses the kernel for a call and its number of blocks. `launch(kernel, blocks, arguments...)` starts it with
// kThreads threads per block: on a GPU in cuda.cu, and on a CPU in the tests.
#pragma once

#include "zipped/cuda.h"
#include "zipped/cuda_block_kernel.cuh"
#include "zipped/cuda_run_kernel.cuh"

namespace fastccsa::zipped::cuda {

template <typename T>
bool packed(const Inputs<T>& in) {
  for (const Matrix<const T>& features : in.features) {
    if (!aligned(features.data, features.row_stride, features.column_stride)) return false;
  }
  return true;
}

// `p` is a Forward or a Backward.
template <typename Pass>
bool packed_gradients(const Pass& p) {
  for (const auto* gradient : p.grad_features) {
    if (gradient != nullptr && !aligned(gradient, p.in.width, 1)) return false;
  }
  return packed(p.in);
}

// A few wide pairs get one block each, to have enough loads in flight.
template <typename T>
bool block_per_pair(const Inputs<T>& in) {
  return in.pairs <= kFewPairs && (in.width * int64_t(sizeof(T)) >= 2048 || in.classes >= 512);
}

// Runs are as long as possible, if there are as many of them as it takes to keep a GPU busy.
inline int run_length(int64_t pairs) {
  constexpr int64_t kManyRuns = 4096;
  int length = 1;
  while (length < kWarp && pairs / (2 * length) >= kManyRuns) length *= 2;
  return length;
}

// Depends only on the sizes, so that sums are the same on every GPU.
template <typename T>
unsigned block_count(const Inputs<T>& in, int run_length) {
  const int64_t pairs_per_block = block_per_pair(in) ? 1 : kWarps * run_length;
  const int64_t blocks = (in.pairs + pairs_per_block - 1) / pairs_per_block;
  return unsigned(blocks < 1 ? 1 : blocks > kMaxPartials ? kMaxPartials : blocks);
}

template <typename Pass>
Runs runs_of(const Pass& p, int length) {
  return {length, packed(p.in), packed_gradients(p)};
}

// Returns how many packs of a row each lane holds in registers: 1, 2 or 4, or 0 if rows do not consist of whole packs,
// or have too many of them.
template <typename T, template <typename> class Pass>
int packs_per_lane(const Pass<T>& p) {
  if (!packed_gradients(p) || p.in.width % Pack<T>::kSize != 0) return 0;
  const int64_t packs = (p.in.width / Pack<T>::kSize + kWarp - 1) / kWarp;
  return packs <= 1 ? 1 : packs <= 2 ? 2 : packs <= kPacksInFlight ? kPacksInFlight : 0;
}

// `length` is that of the runs; tests choose their own, so that a few pairs make a long run.
template <typename T, typename Launch>
void launch_forward(const Forward<T>& p, FaultWord* fault, unsigned slot, Launch launch, int length) {
  const unsigned blocks = block_count(p.in, length);
  if (block_per_pair(p.in)) {
    const auto kernel = packed(p.in) ? &forward_block_kernel<T, true> : &forward_block_kernel<T, false>;
    return launch(kernel, blocks, p, fault, slot);
  }
  const int packs = packs_per_lane(p);
  const auto kernel = packs == 1   ? &forward_run_kernel<T, 1>
                      : packs == 2 ? &forward_run_kernel<T, 2>
                      : packs == 4 ? &forward_run_kernel<T, 4>
                                   : &forward_run_kernel<T, 0>;
  launch(kernel, blocks, p, fault, slot, runs_of(p, length));
}

template <typename T, typename Launch>
void launch_backward(const Backward<T>& p, Launch launch, int length) {
  if (p.in.pairs == 0) return;
  const unsigned blocks = block_count(p.in, length);
  if (block_per_pair(p.in)) {
    const auto kernel = packed_gradients(p) ? &backward_block_kernel<T, true> : &backward_block_kernel<T, false>;
    return launch(kernel, blocks, p);
  }
  const int packs = packs_per_lane(p);
  const auto kernel = packs == 1   ? &backward_run_kernel<T, 1>
                      : packs == 2 ? &backward_run_kernel<T, 2>
                      : packs == 4 ? &backward_run_kernel<T, 4>
                                   : &backward_run_kernel<T, 0>;
  launch(kernel, blocks, p, runs_of(p, length));
}

}  // namespace fastccsa::zipped::cuda

// Chooses the kernel for a call and its number of blocks. `launch(kernel, blocks, arguments...)` starts it with
// kThreads threads per block: on a GPU in cuda.cu, and on a CPU in the tests.
#pragma once

#include "zipped/cuda_kernel.cuh"

namespace fastccsa::zipped::cuda {

template <typename T>
bool packed(const Inputs<T>& in) {
  for (const Matrix<const T>& features : in.features) {
    if (!aligned(features.data, features.row_stride, features.column_stride)) return false;
  }
  return true;
}

template <typename T>
bool packed(const Backward<T>& p) {
  for (const T* gradient : p.grad_features) {
    if (gradient != nullptr && !aligned(gradient, p.in.width, 1)) return false;
  }
  return packed(p.in);
}

// A few wide pairs get one block each, to have enough loads in flight; otherwise each pair gets one warp.
template <typename T>
bool block_per_pair(const Inputs<T>& in) {
  return in.pairs <= 512 && (in.width * int64_t(sizeof(T)) >= 2048 || in.classes >= 512);
}

// Depends only on the sizes, so that sums are the same on every GPU.
template <typename T>
unsigned block_count(const Inputs<T>& in) {
  const int64_t pairs_per_block = block_per_pair(in) ? 1 : kThreads / kWarp;
  const int64_t blocks = (in.pairs + pairs_per_block - 1) / pairs_per_block;
  return unsigned(blocks < 1 ? 1 : blocks > kMaxPartials ? kMaxPartials : blocks);
}

template <typename T>
auto forward_kernel_for(const Forward<T>& p) {
  if (block_per_pair(p.in)) {
    return packed(p.in) ? &forward_kernel<T, kThreads, true> : &forward_kernel<T, kThreads, false>;
  }
  return packed(p.in) ? &forward_kernel<T, kWarp, true> : &forward_kernel<T, kWarp, false>;
}

template <typename T>
auto backward_kernel_for(const Backward<T>& p) {
  if (block_per_pair(p.in)) {
    return packed(p) ? &backward_kernel<T, kThreads, true> : &backward_kernel<T, kThreads, false>;
  }
  return packed(p) ? &backward_kernel<T, kWarp, true> : &backward_kernel<T, kWarp, false>;
}

template <typename T, typename Launch>
void launch_forward(const Forward<T>& p, FaultWord* fault, unsigned slot, Launch launch) {
  launch(forward_kernel_for(p), block_count(p.in), p, fault, slot);
}

template <typename T, typename Launch>
void launch_backward(const Backward<T>& p, Launch launch) {
  if (p.in.pairs > 0) launch(backward_kernel_for(p), block_count(p.in), p);
}

}  // namespace fastccsa::zipped::cuda

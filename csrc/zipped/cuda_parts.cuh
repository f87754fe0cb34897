// The parts of a pair that a group of threads computes together, and the sums over all pairs.
//
// The lanes of a group, which is one thread, a warp or a block, stride over classes and features. Each block stores its
// partial sums; the block that finishes last adds them in the order of the blocks, so that the result does not depend
// on which block is last.
#pragma once

#include "core/cuda_distance.cuh"
#include "core/pair_term.h"
#include "zipped/params.h"

#include <math_constants.h>

namespace fastccsa::zipped::cuda {

using namespace fastccsa::cuda;

// Each ticket counts the finished blocks of one launch; the last block resets it to 0. Launches take tickets in turn,
// so two launches share a ticket only if thousands are in flight at the same time. Those of a CUDA graph keep theirs,
// and take them from the second half.
constexpr unsigned kTickets = 4096;
__device__ unsigned tickets[2 * kTickets];

// ---- one pair ----

template <int kGroup, typename T>
__device__ SoftmaxScale<acc_t<T>> softmax_scale(Vector<const T> x, int64_t classes, int lane) {
  using Acc = acc_t<T>;
  Acc largest = Acc(-CUDART_INF);
  for (int64_t c = lane; c < classes; c += kGroup) largest = Max()(load(x[c]), largest);
  largest = reduce<kGroup>(largest, Max());
  Acc sum = 0;
  for (int64_t c = lane; c < classes; c += kGroup) sum += exp(load(x[c]) - largest);
  return {largest, reduce<kGroup>(sum, Add())};
}

// grad_x = factor * (softmax(x) - one_hot(label))
template <int kGroup, typename T>
__device__ void logits_gradient(Vector<const T> x, int64_t classes, SoftmaxScale<acc_t<T>> scale, acc_t<T> factor,
                                int64_t label, T* grad, int lane) {
  using Acc = acc_t<T>;
  for (int64_t c = lane; c < classes; c += kGroup) {
    const Acc probability = exp(load(x[c]) - scale.largest) / scale.sum;
    store(grad[c], factor * (c == label ? probability - Acc(1) : probability));
  }
}

// ---- gradients of the features ----

template <typename T>
__device__ Words scaled_difference(const Words& a, const Words& b, acc_t<T> factor) {
  acc_t<T> x[Values<T>::kSize], y[Values<T>::kSize];
  Values<T>::load_from(a, x);
  Values<T>::load_from(b, y);
#pragma unroll
  for (int j = 0; j < Values<T>::kSize; ++j) x[j] = factor * (x[j] - y[j]);
  return Values<T>::store_from(x);
}

// grad_a = factor * (a - b), grad_b = -grad_a; either may be nullptr.
template <int kGroup, bool kPacked, typename T>
__device__ void features_gradient(Vector<const T> a, Vector<const T> b, int64_t width, acc_t<T> factor, T* grad_a,
                                  T* grad_b, int lane) {
  using Acc = acc_t<T>;
  int64_t rest = 0;
  if (kPacked) {
    constexpr int kSize = Values<T>::kSize;
    rest = width / kSize * kSize;
#pragma unroll 4
    for (int64_t d = int64_t(lane) * kSize; d < rest; d += kGroup * kSize) {
      const Words gradient = scaled_difference<T>(load_words(a.data + d), load_words(b.data + d), factor);
      if (grad_a != nullptr) store_words(grad_a + d, gradient);
      if (grad_b != nullptr) store_words(grad_b + d, Values<T>::negative(gradient));
    }
  }
  for (int64_t d = rest + lane; d < width; d += kGroup) {
    const Acc gradient = factor * (load(a[d]) - load(b[d]));
    if (grad_a != nullptr) store(grad_a[d], gradient);
    if (grad_b != nullptr) store(grad_b[d], -gradient);
  }
}

// ---- sums over all pairs ----

// Adds the sums in lane 0 of each group, first over the block and then over all blocks, and finishes the loss.
template <typename T, int kGroup>
__device__ void finish_blocks(const Forward<T>& p, const acc_t<T> (&own)[kSums], int lane, int group, unsigned slot) {
  using Acc = acc_t<T>;
  constexpr int kGroups = kThreads / kGroup;
  __shared__ Acc of_group[kGroups][kSums];
  __shared__ Acc total[kSums];
  __shared__ bool last;
  if (lane == 0) {
    for (int s = 0; s < kSums; ++s) of_group[group][s] = own[s];
  }
  __syncthreads();
  if (threadIdx.x < kSums && p.in.pairs > 0) {
    Acc sum = 0;
    for (int g = 0; g < kGroups; ++g) sum += of_group[g][threadIdx.x];
    p.saved.partials()[blockIdx.x * kSums + threadIdx.x] = sum;
  }
  __syncthreads();
  if (threadIdx.x == 0) {
    __threadfence();  // this block's sums become visible before it is counted,
    last = atomicAdd(&tickets[slot], 1u) == gridDim.x - 1;
    __threadfence();  // and the sums of other blocks are read after those were counted
  }
  __syncthreads();
  if (!last) return;

  const int sum_of_warp = threadIdx.x / kWarp;
  if (sum_of_warp < kSums) {
    Acc sum = 0;
    const unsigned blocks = p.in.pairs > 0 ? gridDim.x : 0;
    for (unsigned block = threadIdx.x % kWarp; block < blocks; block += kWarp) {
      sum += p.saved.partials()[block * kSums + sum_of_warp];
    }
    sum = reduce<kWarp>(sum, Add());
    if (threadIdx.x % kWarp == 0) total[sum_of_warp] = sum;
  }
  __syncthreads();
  for (int64_t j = threadIdx.x; j < partials_size(p.in.pairs); j += kThreads) p.saved.partials()[j] = Acc(0);
  if (threadIdx.x == 0) {
    finish(p, total);
    tickets[slot] = 0;
  }
}
static_assert(kSums <= kWarps, "finish_blocks gives each sum a warp");

}  // namespace fastccsa::zipped::cuda

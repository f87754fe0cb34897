// The zipped loss on CUDA.
//
// A group of threads, a warp or a block, takes one pair at a time. Its lanes stride over classes and features, and load
// 16 bytes at once where rows are aligned. Each block stores its partial sums; the block that finishes last adds them
// in the order of the blocks, so that the result does not depend on which block is last.
#pragma once

#include "core/cuda_distance.cuh"
#include "core/pair_term.h"
#include "zipped/params.h"

#include <math_constants.h>

namespace fastccsa::zipped::cuda {

using namespace fastccsa::cuda;

// Each ticket counts the finished blocks of one launch; the last block resets it to 0. Launches take tickets in turn,
// so two launches share a ticket only if thousands are in flight at the same time.
constexpr unsigned kTickets = 4096;
__device__ unsigned tickets[kTickets];

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

// grad_a = factor * (a - b), grad_b = -grad_a; either may be nullptr.
template <int kGroup, bool kPacked, typename T>
__device__ void features_gradient(Vector<const T> a, Vector<const T> b, int64_t width, acc_t<T> factor, T* grad_a,
                                  T* grad_b, int lane) {
  using Acc = acc_t<T>;
  int64_t rest = 0;
  if (kPacked) {
    constexpr int kSize = Pack<T>::kSize;
    rest = width / kSize * kSize;
#pragma unroll 4
    for (int64_t d = int64_t(lane) * kSize; d < rest; d += kGroup * kSize) {
      const Pack<T> pa = load_pack(a.data + d), pb = load_pack(b.data + d);
      Pack<T> ga, gb;
#pragma unroll
      for (int j = 0; j < kSize; ++j) {
        const Acc gradient = factor * (load(pa.value[j]) - load(pb.value[j]));
        store(ga.value[j], gradient);
        store(gb.value[j], -gradient);
      }
      if (grad_a != nullptr) *reinterpret_cast<Pack<T>*>(grad_a + d) = ga;
      if (grad_b != nullptr) *reinterpret_cast<Pack<T>*>(grad_b + d) = gb;
    }
  }
  for (int64_t d = rest + lane; d < width; d += kGroup) {
    const Acc gradient = factor * (load(a[d]) - load(b[d]));
    if (grad_a != nullptr) store(grad_a[d], gradient);
    if (grad_b != nullptr) store(grad_b[d], -gradient);
  }
}

// ---- kernels ----

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

template <typename T, int kGroup, bool kPacked>
__global__ void __launch_bounds__(kThreads) forward_kernel(const Forward<T> p, FaultWord* fault, unsigned slot) {
  using Acc = acc_t<T>;
  const Inputs<T>& in = p.in;
  constexpr int kGroups = kThreads / kGroup;
  const int lane = threadIdx.x % kGroup, group = threadIdx.x / kGroup;
  Acc sums[kSums] = {};
  for (int64_t i = int64_t(blockIdx.x) * kGroups + group; i < in.pairs; i += int64_t(gridDim.x) * kGroups) {
    PairLabels<Acc> pair = read_labels(in, i);
    Acc terms[kTerms] = {};
    if (pair.fault != Fault::kNone) {
      // The loss becomes NaN, so that no optimizer step uses it, and the host raises an error at its next call.
      if (lane == 0 && fault != nullptr) *static_cast<volatile FaultWord*>(fault) = encode(report_of(in, i, pair));
      for (int term = 0; term < kTerms; ++term) terms[term] = Acc(CUDART_NAN);
    } else {
      for (int k = 0; k < 2; ++k) {
        if (in.logits[k].data == nullptr) {
          if (lane == 0) p.saved.set_scale(k, i, {});
          continue;
        }
        const Vector<const T> row = in.logits[k].strided_row(i);
        const SoftmaxScale<Acc> scale = softmax_scale<kGroup>(row, in.classes, lane);
        if (lane == 0) p.saved.set_scale(k, i, scale);
        terms[kClassification1 + k] =
            cross_entropy<Acc>(scale.largest, std::log(scale.sum), load(row[pair.label[k]]), pair.class_weight[k]);
        sums[kWeight1 + k] += pair.class_weight[k];
      }
      PairTerm<Acc> term{};
      if (in.features[0].data != nullptr) {
        const Acc d2 = squared_distance<kGroup, kPacked>(in.features[0].strided_row(i), in.features[1].strided_row(i),
                                                         in.width, lane);
        term = pair_term(d2, pair.label[0] == pair.label[1], pair.pair_weight, in.margin);
      }
      terms[kAlignment] = term.alignment;
      terms[kSeparation] = term.separation;
      if (lane == 0) p.saved.coefficient()[i] = term.coefficient;
    }
    if (in.reduction != Reduction::kNone) {
      for (int term = 0; term < kTerms; ++term) sums[term] += terms[term];
    } else if (lane == 0) {
      p.loss[i] = combine(in.alpha, terms);
      for (int term = 0; term < kTerms; ++term) p.terms[term * in.pairs + i] = terms[term];
    }
  }
  finish_blocks<T, kGroup>(p, sums, lane, group, slot);
}

template <typename T, int kGroup, bool kPacked>
__global__ void __launch_bounds__(kThreads) backward_kernel(const Backward<T> p) {
  using Acc = acc_t<T>;
  const Inputs<T>& in = p.in;
  constexpr int kGroups = kThreads / kGroup;
  const int lane = threadIdx.x % kGroup, group = threadIdx.x / kGroup;
  for (int64_t i = int64_t(blockIdx.x) * kGroups + group; i < in.pairs; i += int64_t(gridDim.x) * kGroups) {
    const PairLabels<Acc> pair = read_labels(in, i);
    const bool faulty = pair.fault != Fault::kNone;
    Acc factor[kTerms];
    pair_upstream(p, i, factor);
    for (int k = 0; k < 2; ++k) {
      if (p.grad_logits[k] == nullptr) continue;
      const SoftmaxScale<Acc> scale{faulty ? Acc(CUDART_NAN) : p.saved.largest(k)[i], p.saved.sum(k)[i]};
      logits_gradient<kGroup>(in.logits[k].strided_row(i), in.classes, scale,
                              factor[kClassification1 + k] * pair.class_weight[k], pair.label[k],
                              p.grad_logits[k] + i * in.classes, lane);
    }
    if (p.grad_features[0] == nullptr && p.grad_features[1] == nullptr) continue;
    const bool same_class = pair.label[0] == pair.label[1];
    const Acc coefficient = faulty ? Acc(CUDART_NAN) : p.saved.coefficient()[i];
    features_gradient<kGroup, kPacked>(in.features[0].strided_row(i), in.features[1].strided_row(i), in.width,
                                       factor[same_class ? kAlignment : kSeparation] * coefficient,
                                       p.grad_features_row(0, i), p.grad_features_row(1, i), lane);
  }
}

}  // namespace fastccsa::zipped::cuda

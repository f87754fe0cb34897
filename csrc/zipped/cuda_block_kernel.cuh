// A few wide pairs on CUDA: a block takes one pair at a time, to have enough loads in flight.
#pragma once

#include "zipped/cuda_parts.cuh"

namespace fastccsa::zipped::cuda {

template <typename T, bool kPacked>
__global__ void __launch_bounds__(kThreads) forward_block_kernel(const Forward<T> p, FaultWord* fault, unsigned slot) {
  using Acc = acc_t<T>;
  const Inputs<T>& in = p.in;
  const int lane = threadIdx.x;
  Acc sums[kSums] = {};
  for (int64_t i = blockIdx.x; i < in.pairs; i += gridDim.x) {
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
        const SoftmaxScale<Acc> scale = softmax_scale<kThreads>(row, in.classes, lane);
        if (lane == 0) p.saved.set_scale(k, i, scale);
        terms[kClassification1 + k] =
            cross_entropy<Acc>(scale.largest, std::log(scale.sum), load(row[pair.label[k]]), pair.class_weight[k]);
        sums[kWeight1 + k] += pair.class_weight[k];
      }
      PairTerm<Acc> term{};
      if (in.features[0].data != nullptr) {
        const Acc d2 = squared_distance<kThreads, kPacked>(in.features[0].strided_row(i), in.features[1].strided_row(i),
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
  finish_blocks<T, kThreads>(p, sums, lane, 0, slot);
}

template <typename T, bool kPacked>
__global__ void __launch_bounds__(kThreads) backward_block_kernel(const Backward<T> p) {
  using Acc = acc_t<T>;
  const Inputs<T>& in = p.in;
  const int lane = threadIdx.x;
  for (int64_t i = blockIdx.x; i < in.pairs; i += gridDim.x) {
    const PairLabels<Acc> pair = read_labels(in, i);
    const bool faulty = pair.fault != Fault::kNone;
    Acc factor[kTerms];
    pair_upstream(p, i, factor);
    for (int k = 0; k < 2; ++k) {
      if (p.grad_logits[k] == nullptr) continue;
      const SoftmaxScale<Acc> scale{faulty ? Acc(CUDART_NAN) : p.saved.largest(k)[i], p.saved.sum(k)[i]};
      logits_gradient<kThreads>(in.logits[k].strided_row(i), in.classes, scale,
                              factor[kClassification1 + k] * pair.class_weight[k], pair.label[k],
                              p.grad_logits[k] + i * in.classes, lane);
    }
    if (p.grad_features[0] == nullptr && p.grad_features[1] == nullptr) continue;
    const bool same_class = pair.label[0] == pair.label[1];
    const Acc coefficient = faulty ? Acc(CUDART_NAN) : p.saved.coefficient()[i];
    features_gradient<kThreads, kPacked>(in.features[0].strided_row(i), in.features[1].strided_row(i), in.width,
                                       factor[same_class ? kAlignment : kSeparation] * coefficient,
                                       p.grad_features_row(0, i), p.grad_features_row(1, i), lane);
  }
}

}  // namespace fastccsa::zipped::cuda

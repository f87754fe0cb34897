// The mathematics of the zipped loss, which the CPU kernel and the CUDA kernel share.
//
// One pair i has logits x1, x2 in R^C, features z1, z2 in R^D and labels y1, y2:
//
//   classification k          w_k[y_k] * (logsumexp(x_k) - x_k[y_k])     paper, equations (2) and (7)
//   alignment, separation     see core/pair_term.h
//   loss                      (1 - alpha) * (classification 1 + classification 2) + alpha * (alignment + separation)
//
// Kernels do the loads, the reductions over C and D, and the sums over pairs. This file has the computations of one
// pair.
#pragma once

#include "core/macros.h"

#include <cmath>
#include <cstdint>

namespace fastccsa::zipped {

// The sums over pairs that the forward pass computes, in this order.
enum Sum : int { kClassification1, kClassification2, kAlignment, kSeparation, kWeight1, kWeight2, kSums };
// The first four are the terms that callers get.
constexpr int kTerms = 4;

// `kWeightedMean` divides each classification term by the sum of its weights, as torch's cross-entropy does.
enum class Reduction : int64_t { kNone = 0, kMean = 1, kSum = 2, kWeightedMean = 3 };

// softmax(x)_c = exp(x_c - largest) / sum. These two values are saved instead of logsumexp = largest + log(sum), which
// is rounded to a unit in the last place of the largest logit: every probability would inherit this error.
template <typename Acc>
struct SoftmaxScale {
  Acc largest;
  Acc sum;
};

// `Value` is a number, or a vector of them; `log_sum` is the logarithm of the scale's sum.
template <typename Value>
FASTCCSA_HOST_DEVICE Value cross_entropy(Value largest, Value log_sum, Value target_logit, Value weight) {
  return weight * (log_sum - (target_logit - largest));
}

template <typename Acc>
FASTCCSA_HOST_DEVICE Acc combine(Acc alpha, const Acc* terms) {
  return (Acc(1) - alpha) * (terms[kClassification1] + terms[kClassification2]) +
         alpha * (terms[kAlignment] + terms[kSeparation]);
}

// Returns the divisor of the sum of `term` over pairs.
template <typename Acc>
FASTCCSA_HOST_DEVICE Acc divisor(int term, Reduction reduction, Acc pairs, const Acc* weight_sums) {
  if (reduction == Reduction::kWeightedMean && term <= kClassification2) return weight_sums[term];
  if (reduction == Reduction::kMean || reduction == Reduction::kWeightedMean) return pairs;
  return Acc(1);
}

// Returns the upstream gradient of one pair's `term`, which arrives through the loss and through the term itself.
template <typename Acc>
FASTCCSA_HOST_DEVICE Acc upstream(int term, Acc alpha, Acc grad_loss, Acc grad_term, Acc divisor) {
  const Acc share = term <= kClassification2 ? Acc(1) - alpha : alpha;
  return (share * grad_loss + grad_term) / divisor;
}

}  // namespace fastccsa::zipped

// The parameters that the binding passes to a kernel: pointers, strides (in elements) and sizes, without torch's types.
#pragma once

#include "core/fault.h"
#include "core/strided.h"
#include "core/types.h"
#include "zipped/math.h"

#include <cstdint>

namespace fastccsa::zipped {

// The inputs of the forward and the backward pass.
template <typename T>
struct Inputs {
  using Acc = acc_t<T>;
  int64_t pairs = 0;
  int64_t classes = 0;  // columns of the logits
  int64_t labels = 0;   // labels are in [0, labels); 0: they may be any numbers
  int64_t width = 0;    // columns of the features
  Matrix<const T> logits[2];
  Matrix<const T> features[2];
  Vector<const int64_t> target[2];
  Vector<const Acc> class_weight[2];
  Matrix<const Acc> pair_weight;
  Acc margin = 0;
  Acc alpha = 0;
  Reduction reduction = Reduction::kMean;
};

// One pair's labels and weights.
template <typename Acc>
struct PairLabels {
  int64_t label[2];
  Acc class_weight[2];
  Acc pair_weight;
  Fault fault;
};

// Reads and checks the labels and weights of pair i. Reads nothing out of bounds, whatever the labels are.
template <typename T>
FASTCCSA_HOST_DEVICE PairLabels<acc_t<T>> read_labels(const Inputs<T>& in, int64_t i) {
  using Acc = acc_t<T>;
  PairLabels<Acc> pair{{0, 0}, {Acc(1), Acc(1)}, Acc(1), Fault::kNone};
  for (int k = 1; k >= 0; --k) {  // backwards, so that the fault of the first stream is reported
    if (in.target[k].data == nullptr) continue;
    pair.label[k] = in.target[k][i];
    if (in.labels > 0 && (pair.label[k] < 0 || pair.label[k] >= in.labels)) {
      pair.fault = k == 0 ? Fault::kTarget1 : Fault::kTarget2;
      continue;
    }
    if (in.class_weight[k].data == nullptr) continue;
    pair.class_weight[k] = in.class_weight[k][pair.label[k]];
    if (!is_weight(pair.class_weight[k])) pair.fault = k == 0 ? Fault::kClassWeight1 : Fault::kClassWeight2;
  }
  if (pair.fault == Fault::kNone && in.pair_weight.data != nullptr) {
    pair.pair_weight = in.pair_weight.strided_row(pair.label[0])[pair.label[1]];
    if (!is_weight(pair.pair_weight)) pair.fault = Fault::kPairWeight;
  }
  return pair;
}

template <typename T>
FASTCCSA_HOST_DEVICE FaultReport report_of(const Inputs<T>& in, int64_t i, const PairLabels<acc_t<T>>& pair) {
  const bool second = pair.fault == Fault::kTarget2 || pair.fault == Fault::kClassWeight2;
  const int64_t label = pair.label[second ? 1 : 0];
  return {pair.fault, i, pair.fault == Fault::kPairWeight ? label * in.labels + pair.label[1] : label};
}

// The buffer that the forward pass saves for the backward pass: kSavedRows rows of `pairs` values (the softmax scales
// of both logits, and each pair's coefficient), both sums of class weights, and kSums partial sums for each of up to
// kMaxPartials parts of the batch. The partial sums are finally set to 0, as is everything that was not computed, so
// that equal calls save equal bytes.
constexpr int64_t kSavedRows = 5, kWeightSums = 2, kMaxPartials = 1024;

FASTCCSA_HOST_DEVICE int64_t partials_size(int64_t pairs) {
  return kSums * (pairs < kMaxPartials ? pairs : kMaxPartials);
}
FASTCCSA_HOST_DEVICE int64_t saved_size(int64_t pairs) {
  return kSavedRows * pairs + kWeightSums + partials_size(pairs);
}

template <typename Acc>
struct Saved {
  Acc* data;
  int64_t pairs;

  FASTCCSA_HOST_DEVICE Acc* largest(int k) const { return data + k * pairs; }
  FASTCCSA_HOST_DEVICE Acc* sum(int k) const { return data + (2 + k) * pairs; }
  FASTCCSA_HOST_DEVICE Acc* coefficient() const { return data + 4 * pairs; }
  FASTCCSA_HOST_DEVICE Acc* weight_sums() const { return data + kSavedRows * pairs; }
  FASTCCSA_HOST_DEVICE Acc* partials() const { return weight_sums() + kWeightSums; }

  FASTCCSA_HOST_DEVICE void set_scale(int k, int64_t i, SoftmaxScale<Acc> scale) const {
    largest(k)[i] = scale.largest;
    sum(k)[i] = scale.sum;
  }
};

template <typename T>
struct Forward {
  using Acc = acc_t<T>;
  Inputs<T> in;
  Acc* loss;   // [] or, without a reduction, [pairs]
  Acc* terms;  // [4] or [4, pairs]
  Saved<Acc> saved;
  // [pairs, width] contiguous. If not nullptr, the gradients for an upstream gradient of 1 are left here; only CUDA
  // does that, and only for a reduced loss.
  T* grad_features[2] = {nullptr, nullptr};

  // Returns row i, or nullptr if this gradient is not needed.
  FASTCCSA_HOST_DEVICE T* grad_features_row(int k, int64_t i) const {
    return grad_features[k] == nullptr ? nullptr : grad_features[k] + i * in.width;
  }
};

// The last step of the forward pass: computes terms and loss from the sums over all pairs. A stream without logits has
// no weights.
template <typename T, typename Acc>
FASTCCSA_HOST_DEVICE void finish(const Forward<T>& p, Acc* sums) {
  for (int k = 0; k < 2; ++k) {
    if (p.in.logits[k].data == nullptr) sums[kWeight1 + k] = Acc(1);
    p.saved.weight_sums()[k] = acc_t<T>(sums[kWeight1 + k]);
  }
  if (p.in.reduction == Reduction::kNone) return;
  Acc terms[kTerms];
  for (int term = 0; term < kTerms; ++term) {
    terms[term] = sums[term] / divisor<Acc>(term, p.in.reduction, Acc(p.in.pairs), sums + kWeight1);
    p.terms[term] = acc_t<T>(terms[term]);
  }
  *p.loss = acc_t<T>(combine<Acc>(Acc(p.in.alpha), terms));
}

template <typename T>
struct Backward {
  using Acc = acc_t<T>;
  Inputs<T> in;
  Vector<const Acc> grad_loss;   // stride 0 for a reduced loss; without data: 0
  Matrix<const Acc> grad_terms;  // one row per term; column stride 0 for a reduced loss; without data: 0
  Saved<const Acc> saved;
  T* grad_logits[2];    // [pairs, classes] contiguous; nullptr: not needed
  T* grad_features[2];  // [pairs, width] contiguous; nullptr: not needed
  // Whether grad_features holds what the forward pass left; then nothing remains to do for an upstream gradient of 1.
  bool left = false;

  // Returns row i, or nullptr if this gradient is not needed.
  FASTCCSA_HOST_DEVICE T* grad_features_row(int k, int64_t i) const {
    return grad_features[k] == nullptr ? nullptr : grad_features[k] + i * in.width;
  }

  // Whether gradients of the features must be computed.
  FASTCCSA_HOST_DEVICE bool writes_features() const {
    if (grad_features[0] == nullptr && grad_features[1] == nullptr) return false;
    return !(left && grad_terms.data == nullptr && grad_loss.data != nullptr && grad_loss[0] == Acc(1));
  }
};

// The factors of one pair's gradients, one per term.
template <typename T>
FASTCCSA_HOST_DEVICE void pair_upstream(const Backward<T>& p, int64_t i, acc_t<T> (&factor)[kTerms]) {
  using Acc = acc_t<T>;
  const Acc grad_loss = p.grad_loss.data == nullptr ? Acc(0) : p.grad_loss[i];
  for (int term = 0; term < kTerms; ++term) {
    const Acc grad_term = p.grad_terms.data == nullptr ? Acc(0) : p.grad_terms.strided_row(term)[i];
    const Acc by = divisor<Acc>(term, p.in.reduction, Acc(p.in.pairs), p.saved.weight_sums());
    factor[term] = upstream<Acc>(term, p.in.alpha, grad_loss, grad_term, by);
  }
}

}  // namespace fastccsa::zipped

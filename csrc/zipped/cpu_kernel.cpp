// The zipped loss on the CPU, one chunk of pairs at a time. Compiled once for each instruction set: FASTCCSA_ISA names
// it, and the compiler vectorises the plain loops over classes and features.
#include "zipped/cpu.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace fastccsa::zipped::cpu::FASTCCSA_ISA {
namespace {

inline float load(float x) { return x; }
inline double load(double x) { return x; }
inline float load(bfloat16 x) { return to_float(x); }
inline float load(half x) { return to_float(x); }

inline void store(float& to, float x) { to = x; }
inline void store(double& to, double x) { to = x; }
inline void store(bfloat16& to, float x) { to = to_bfloat16(x); }
inline void store(half& to, float x) { to = to_half(x); }

// exp(x) for x <= 0 or NaN, within 1 ulp. Unlike std::exp it is arithmetic alone, so a loop over it vectorises.
inline float exp_nonpositive(float x) {
  constexpr float kLog2e = 1.44269504f, kLn2High = 0.693359375f, kLn2Low = -2.12194440e-4f;
  constexpr float kRound = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer, left in the low bits
  const float clamped = x < -87.0f ? -87.0f : x;
  const float shifted = clamped * kLog2e + kRound;
  const float n = shifted - kRound;
  const float r = (clamped - n * kLn2High) - n * kLn2Low;
  float series = 1.0f / 5040;
  series = series * r + 1.0f / 720;
  series = series * r + 1.0f / 120;
  series = series * r + 1.0f / 24;
  series = series * r + 1.0f / 6;
  series = series * r + 0.5f;
  series = series * r + 1.0f;
  series = series * r + 1.0f;
  const float power = float_of_bits((bits_of_float(shifted) << 23) + bits_of_float(1.0f));
  return x < -87.0f ? 0.0f : series * power;
}
inline double exp_nonpositive(double x) { return std::exp(x); }

// log(sum_c exp(x_c)); rows of 1 or 1000 classes alike.
template <typename T>
acc_t<T> logsumexp(const T* x, int64_t stride, int64_t classes) {
  using Acc = acc_t<T>;
  Acc largest = -std::numeric_limits<Acc>::infinity();
  Acc sum = 0;
  if (stride == 1) {
#pragma omp simd reduction(max : largest)
    for (int64_t c = 0; c < classes; ++c) largest = std::max(largest, load(x[c]));
#pragma omp simd reduction(+ : sum)
    for (int64_t c = 0; c < classes; ++c) sum += exp_nonpositive(load(x[c]) - largest);
  } else {
    for (int64_t c = 0; c < classes; ++c) largest = std::max(largest, load(x[c * stride]));
    for (int64_t c = 0; c < classes; ++c) sum += exp_nonpositive(load(x[c * stride]) - largest);
  }
  return largest + std::log(sum);
}

template <typename T>
acc_t<T> squared_distance(const T* a, int64_t stride_a, const T* b, int64_t stride_b, int64_t width) {
  using Acc = acc_t<T>;
  Acc sum = 0;
  if (stride_a == 1 && stride_b == 1) {
#pragma omp simd reduction(+ : sum)
    for (int64_t d = 0; d < width; ++d) {
      const Acc difference = load(a[d]) - load(b[d]);
      sum += difference * difference;
    }
  } else {
    for (int64_t d = 0; d < width; ++d) {
      const Acc difference = load(a[d * stride_a]) - load(b[d * stride_b]);
      sum += difference * difference;
    }
  }
  return sum;
}

template <typename T>
FaultReport forward(const Forward<T>& p, int64_t begin, int64_t end, acc_t<T>* sums) {
  using Acc = acc_t<T>;
  const Inputs<T>& in = p.in;
  FaultReport report;
  std::fill_n(sums, int(kSums), Acc(0));
  for (int64_t i = begin; i < end; ++i) {
    const PairLabels<Acc> pair = read_labels(in, i);
    if (pair.fault != Fault::kNone) {
      report = report_of(in, i, pair);
      break;
    }
    Acc terms[kTerms] = {};
    for (int k = 0; k < 2; ++k) {
      if (in.logits[k].data == nullptr) continue;
      const T* row = in.logits[k].row(i);
      const int64_t stride = in.logits[k].column_stride;
      const Acc lse = logsumexp(row, stride, in.classes);
      p.saved.logsumexp(k)[i] = lse;
      terms[kClassification1 + k] = cross_entropy(lse, load(row[pair.label[k] * stride]), pair.class_weight[k]);
      sums[kWeight1 + k] += pair.class_weight[k];
    }
    if (in.features[0].data != nullptr) {
      const Acc d2 = squared_distance(in.features[0].row(i), in.features[0].column_stride, in.features[1].row(i),
                                      in.features[1].column_stride, in.width);
      const PairTerm<Acc> term = pair_term(d2, pair.label[0] == pair.label[1], pair.pair_weight, in.margin);
      terms[kAlignment] = term.alignment;
      terms[kSeparation] = term.separation;
      p.saved.coefficient()[i] = term.coefficient;
    }
    if (in.reduction == Reduction::kNone) {
      p.loss[i] = combine(in.alpha, terms);
      for (int term = 0; term < kTerms; ++term) p.terms[term * in.pairs + i] = terms[term];
    } else {
      for (int term = 0; term < kTerms; ++term) sums[term] += terms[term];
    }
  }
  return report;
}

// grad_x = factor * (softmax(x) - one_hot(label))
template <typename T>
void logits_gradient(const T* x, int64_t stride, int64_t classes, acc_t<T> lse, acc_t<T> factor, int64_t label, T* grad) {
  if (stride == 1) {
#pragma omp simd
    for (int64_t c = 0; c < classes; ++c) store(grad[c], factor * exp_nonpositive(load(x[c]) - lse));
  } else {
    for (int64_t c = 0; c < classes; ++c) store(grad[c], factor * exp_nonpositive(load(x[c * stride]) - lse));
  }
  store(grad[label], factor * (exp_nonpositive(load(x[label * stride]) - lse) - acc_t<T>(1)));
}

// grad_a = factor * (a - b), grad_b = -grad_a; either may be unwanted.
template <typename T>
void features_gradient(const T* a, int64_t stride_a, const T* b, int64_t stride_b, int64_t width, acc_t<T> factor,
                       T* grad_a, T* grad_b) {
  using Acc = acc_t<T>;
  if (stride_a == 1 && stride_b == 1 && grad_a != nullptr && grad_b != nullptr) {
#pragma omp simd
    for (int64_t d = 0; d < width; ++d) {
      const Acc gradient = factor * (load(a[d]) - load(b[d]));
      store(grad_a[d], gradient);
      store(grad_b[d], -gradient);
    }
    return;
  }
  for (int64_t d = 0; d < width; ++d) {
    const Acc gradient = factor * (load(a[d * stride_a]) - load(b[d * stride_b]));
    if (grad_a != nullptr) store(grad_a[d], gradient);
    if (grad_b != nullptr) store(grad_b[d], -gradient);
  }
}

template <typename T>
void backward(const Backward<T>& p, int64_t begin, int64_t end) {
  using Acc = acc_t<T>;
  const Inputs<T>& in = p.in;
  for (int64_t i = begin; i < end; ++i) {
    const PairLabels<Acc> pair = read_labels(in, i);
    if (pair.fault != Fault::kNone) continue;  // forward has refused these
    Acc factor[kTerms];
    pair_upstream(p, i, factor);
    for (int k = 0; k < 2; ++k) {
      if (p.grad_logits[k] == nullptr) continue;
      logits_gradient(in.logits[k].row(i), in.logits[k].column_stride, in.classes, p.saved.logsumexp(k)[i],
                      factor[kClassification1 + k] * pair.class_weight[k], pair.label[k],
                      p.grad_logits[k] + i * in.classes);
    }
    if (p.grad_features[0] == nullptr && p.grad_features[1] == nullptr) continue;
    const bool same_class = pair.label[0] == pair.label[1];
    features_gradient(in.features[0].row(i), in.features[0].column_stride, in.features[1].row(i),
                      in.features[1].column_stride, in.width,
                      factor[same_class ? kAlignment : kSeparation] * p.saved.coefficient()[i],
                      p.grad_features[0] == nullptr ? nullptr : p.grad_features[0] + i * in.width,
                      p.grad_features[1] == nullptr ? nullptr : p.grad_features[1] + i * in.width);
  }
}

}  // namespace

template <typename T>
Kernels<T> kernels() {
  return {&forward<T>, &backward<T>};
}
template Kernels<float> kernels();
template Kernels<double> kernels();
template Kernels<bfloat16> kernels();
template Kernels<half> kernels();

}  // namespace fastccsa::zipped::cpu::FASTCCSA_ISA

// The zipped loss on the CPU, one chunk of pairs at a time. This file is compiled once for each instruction set:
// FASTCCSA_ISA names it, and core/simd.h has its vectors.
#include "core/pair_term.h"
#include "core/simd.h"
#include "zipped/cpu.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

namespace fastccsa::zipped::cpu::FASTCCSA_ISA {
namespace {

using namespace fastccsa::FASTCCSA_ISA;

// Computes the softmax scale of a row with any number of classes.
template <typename T>
SoftmaxScale<acc_t<T>> softmax_scale(Vector<const T> x, int64_t classes) {
  using Acc = acc_t<T>;
  constexpr int kLanes = Simd<Acc>::kLanes;
  constexpr Acc kLowest = -std::numeric_limits<Acc>::infinity();
  if (x.stride != 1) {
    Acc largest = kLowest, sum = 0;
    for (int64_t c = 0; c < classes; ++c) largest = std::max(largest, load(x[c]));
    for (int64_t c = 0; c < classes; ++c) sum += std::exp(load(x[c]) - largest);
    return {largest, sum};
  }
  const T* row = x.data;
  const int64_t in_twos = classes / (2 * kLanes) * (2 * kLanes), whole = classes / kLanes * kLanes;
  vector_t<Acc> first, second;
  vector_t<Acc> largest1 = load_first<Acc>(row + whole, classes - whole, kLowest), largest2 = largest1;
  if (in_twos < whole) largest2 = larger<Acc>(largest2, load_vector(row + in_twos));
  for (int64_t c = 0; c < in_twos; c += 2 * kLanes) {
    load_two(row + c, first, second);
    largest1 = larger<Acc>(largest1, first);
    largest2 = larger<Acc>(largest2, second);
  }
  const Acc largest = largest_of<Acc>(larger<Acc>(largest1, largest2));
  vector_t<Acc> sum1 = exp_nonpositive(load_first<Acc>(row + whole, classes - whole, kLowest) - largest), sum2{};
  if (in_twos < whole) sum2 += exp_nonpositive(load_vector(row + in_twos) - largest);
  for (int64_t c = 0; c < in_twos; c += 2 * kLanes) {
    load_two(row + c, first, second);
    sum1 += exp_nonpositive(first - largest);
    sum2 += exp_nonpositive(second - largest);
  }
  return {largest, sum_of<Acc>(sum1 + sum2)};
}

template <typename T, bool kContiguous>
acc_t<T> squared_distance(Vector<const T> a, Vector<const T> b, int64_t width) {
  using Acc = acc_t<T>;
  constexpr int kLanes = Simd<Acc>::kLanes;
  constexpr int kSums = 4;  // with one sum, each addition would wait for the previous one
  vector_t<Acc> sum[kSums] = {};
  const auto add = [](vector_t<Acc>& to, vector_t<Acc> x, vector_t<Acc> y) { to += (x - y) * (x - y); };
  int64_t d = 0;
  for (; d + kSums * kLanes <= width; d += kSums * kLanes) {
    for (int j = 0; j < kSums; j += 2) {
      vector_t<Acc> a1, a2, b1, b2;
      if constexpr (kContiguous) {
        load_two(a.data + d + j * kLanes, a1, a2);
        load_two(b.data + d + j * kLanes, b1, b2);
      } else {
        a1 = load_vector(&a[d + j * kLanes], a.stride);
        a2 = load_vector(&a[d + (j + 1) * kLanes], a.stride);
        b1 = load_vector(&b[d + j * kLanes], b.stride);
        b2 = load_vector(&b[d + (j + 1) * kLanes], b.stride);
      }
      add(sum[j], a1, b1);
      add(sum[j + 1], a2, b2);
    }
  }
  for (; d + kLanes <= width; d += kLanes) {
    add(sum[0], load_vector(&a[d], a.stride), load_vector(&b[d], b.stride));
  }
  for (; d < width; ++d) {  // the end of a row is distributed over the lanes
    const Acc difference = load(a[d]) - load(b[d]);
    sum[1][d % kLanes] += difference * difference;
  }
  return sum_of<Acc>((sum[0] + sum[1]) + (sum[2] + sum[3]));
}

// The number of pairs that are computed together: as many as a vector has lanes.
template <typename Acc>
constexpr int kBlock = Simd<Acc>::kLanes;

template <typename Acc>
struct Block {
  int64_t begin;
  int count;
  PairLabels<Acc> pair[kBlock<Acc>];
  Acc terms[kTerms][kBlock<Acc>];  // 0 for lanes beyond the count
};

// Rows of few classes get one lane per row, so that nothing is added across lanes.
constexpr int64_t kFewClasses = 16;

template <typename T>
void softmax_scales_of_few(const Matrix<const T>& logits, int64_t classes, int64_t begin, int count, acc_t<T>* largest,
                           acc_t<T>* sum) {
  using Acc = acc_t<T>;
  Acc columns[kFewClasses][kBlock<Acc>];
  for (int lane = 0; lane < kBlock<Acc>; ++lane) {
    const T* row = logits.row(begin + (lane < count ? lane : 0));
    for (int64_t c = 0; c < classes; ++c) columns[c][lane] = load(row[c * logits.column_stride]);
  }
  vector_t<Acc> largest_lanes = load_vector(columns[0]);
  for (int64_t c = 1; c < classes; ++c) largest_lanes = larger<Acc>(largest_lanes, load_vector(columns[c]));
  vector_t<Acc> sum_lanes{};
  for (int64_t c = 0; c < classes; ++c) sum_lanes += exp_nonpositive(load_vector(columns[c]) - largest_lanes);
  store_vector(largest, largest_lanes);
  store_vector(sum, sum_lanes);
}

template <typename T>
void classification(const Forward<T>& p, int k, Block<acc_t<T>>& block, acc_t<T>* sums) {
  using Acc = acc_t<T>;
  const Matrix<const T>& logits = p.in.logits[k];
  Acc largest[kBlock<Acc>], sum[kBlock<Acc>], target[kBlock<Acc>] = {}, weight[kBlock<Acc>] = {};
  if (p.in.classes <= kFewClasses) {
    softmax_scales_of_few(logits, p.in.classes, block.begin, block.count, largest, sum);
  } else {
    std::fill_n(largest, kBlock<Acc>, Acc(0));
    std::fill_n(sum, kBlock<Acc>, Acc(1));
    for (int lane = 0; lane < block.count; ++lane) {
      const SoftmaxScale<Acc> scale = softmax_scale(logits.strided_row(block.begin + lane), p.in.classes);
      largest[lane] = scale.largest;
      sum[lane] = scale.sum;
    }
  }
  for (int lane = 0; lane < block.count; ++lane) {
    const PairLabels<Acc>& pair = block.pair[lane];
    p.saved.set_scale(k, block.begin + lane, {largest[lane], sum[lane]});
    target[lane] = load(logits.strided_row(block.begin + lane)[pair.label[k]]);
    weight[lane] = pair.class_weight[k];
    sums[kWeight1 + k] += pair.class_weight[k];
  }
  const vector_t<Acc> log_sum = log_positive(load_vector(sum));
  const vector_t<Acc> loss =
      cross_entropy<vector_t<Acc>>(load_vector(largest), log_sum, load_vector(target), load_vector(weight));
  store_first<Acc>(block.terms[kClassification1 + k], loss, block.count);
}

template <typename T>
void alignment_and_separation(const Forward<T>& p, Block<acc_t<T>>& block) {
  using Acc = acc_t<T>;
  const Inputs<T>& in = p.in;
  const bool contiguous = in.features[0].column_stride == 1 && in.features[1].column_stride == 1;
  const auto distance = contiguous ? &squared_distance<T, true> : &squared_distance<T, false>;
  // Lanes beyond the count are pairs of one class at distance 0, whose terms are 0.
  Acc squared[kBlock<Acc>] = {}, weight[kBlock<Acc>] = {}, other_class[kBlock<Acc>] = {};
  for (int lane = 0; lane < block.count; ++lane) {
    const PairLabels<Acc>& pair = block.pair[lane];
    const int64_t i = block.begin + lane;
    squared[lane] = distance(in.features[0].strided_row(i), in.features[1].strided_row(i), in.width);
    weight[lane] = pair.pair_weight;
    other_class[lane] = Acc(pair.label[0] != pair.label[1]);
  }
  const auto same_class = load_vector(other_class) == vector_t<Acc>{};
  const auto term = pair_term(load_vector(squared), same_class, load_vector(weight), in.margin);
  store_vector(block.terms[kAlignment], term.alignment);
  store_vector(block.terms[kSeparation], term.separation);
  store_first<Acc>(p.saved.coefficient() + block.begin, term.coefficient, block.count);
}

template <typename T>
void write_each(const Forward<T>& p, const Block<acc_t<T>>& block) {
  for (int lane = 0; lane < block.count; ++lane) {
    const int64_t i = block.begin + lane;
    acc_t<T> terms[kTerms];
    for (int term = 0; term < kTerms; ++term) {
      p.terms[term * p.in.pairs + i] = terms[term] = block.terms[term][lane];
    }
    p.loss[i] = combine(p.in.alpha, terms);
  }
}

template <typename T>
FaultReport forward(const Forward<T>& p, int64_t begin, int64_t end, acc_t<T>* sums) {
  using Acc = acc_t<T>;
  const Inputs<T>& in = p.in;
  vector_t<Acc> term_sums[kTerms] = {};
  std::fill_n(sums, int(kSums), Acc(0));
  for (int64_t first = begin; first < end; first += kBlock<Acc>) {
    Block<Acc> block;
    block.begin = first;
    block.count = int(std::min<int64_t>(kBlock<Acc>, end - first));
    std::memset(block.terms, 0, sizeof block.terms);
    for (int lane = 0; lane < block.count; ++lane) {
      block.pair[lane] = read_labels(in, first + lane);
      if (block.pair[lane].fault != Fault::kNone) return report_of(in, first + lane, block.pair[lane]);
    }
    for (int k = 0; k < 2; ++k) {
      if (in.logits[k].data != nullptr) {
        classification(p, k, block, sums);
      } else {
        for (int lane = 0; lane < block.count; ++lane) p.saved.set_scale(k, first + lane, {});
      }
    }
    if (in.features[0].data != nullptr) {
      alignment_and_separation(p, block);
    } else {
      std::fill_n(p.saved.coefficient() + first, block.count, Acc(0));
    }
    if (in.reduction == Reduction::kNone) {
      write_each(p, block);
    } else {
      for (int term = 0; term < kTerms; ++term) term_sums[term] += load_vector(block.terms[term]);
    }
  }
  for (int term = 0; term < kTerms; ++term) sums[term] = sum_of<Acc>(term_sums[term]);
  return {};
}

// grad_x = factor * (softmax(x) - one_hot(label))
template <typename T>
void logits_gradient(Vector<const T> x, int64_t classes, SoftmaxScale<acc_t<T>> scale, acc_t<T> factor, int64_t label,
                     T* grad) {
  using Acc = acc_t<T>;
  constexpr int kLanes = Simd<Acc>::kLanes;
  const Acc share = factor / scale.sum;
  if (x.stride == 1) {
    int64_t c = 0;
    for (; c + kLanes <= classes; c += kLanes) {
      store_vector(grad + c, share * exp_nonpositive(load_vector(x.data + c) - scale.largest));
    }
    const vector_t<Acc> last = load_first<Acc>(x.data + c, classes - c, scale.largest);
    store_first<Acc>(grad + c, share * exp_nonpositive(last - scale.largest), classes - c);
  } else {
    for (int64_t c = 0; c < classes; ++c) store(grad[c], share * std::exp(load(x[c]) - scale.largest));
  }
  const Acc probability = std::exp(load(x[label]) - scale.largest) / scale.sum;
  store(grad[label], factor * (probability - Acc(1)));
}

// Gradients of at least this size are evicted from the caches before they are read again.
constexpr int64_t kStreamedBytes = int64_t(8) << 20;

template <typename T>
bool streams(const T* gradient, int64_t pairs, int64_t width) {
  const int64_t row = width * int64_t(sizeof(T));
  const bool aligned = row % kStreamBytes == 0 && reinterpret_cast<uintptr_t>(gradient) % kStreamBytes == 0;
  return aligned && pairs * row >= kStreamedBytes;
}

// grad_a = factor * (a - b), grad_b = -grad_a; either may be nullptr.
template <typename T, bool kStream>
void features_gradient(Vector<const T> a, Vector<const T> b, int64_t width, acc_t<T> factor, T* grad_a, T* grad_b) {
  using Acc = acc_t<T>;
  constexpr int kLanes = Simd<Acc>::kLanes;
  int64_t d = 0;
  if (a.stride == 1 && b.stride == 1) {
    for (; d + kLanes <= width; d += kLanes) {
      const vector_t<Acc> gradient = factor * (load_vector(a.data + d) - load_vector(b.data + d));
      if constexpr (kStream) {
        if (grad_a != nullptr) stream_vector(grad_a + d, gradient);
        if (grad_b != nullptr) stream_vector(grad_b + d, -gradient);
      } else {
        if (grad_a != nullptr) store_vector(grad_a + d, gradient);
        if (grad_b != nullptr) store_vector(grad_b + d, -gradient);
      }
    }
  }
  for (; d < width; ++d) {
    const Acc gradient = factor * (load(a[d]) - load(b[d]));
    if (grad_a != nullptr) store(grad_a[d], gradient);
    if (grad_b != nullptr) store(grad_b[d], -gradient);
  }
}

template <typename T>
void backward(const Backward<T>& p, int64_t begin, int64_t end) {
  using Acc = acc_t<T>;
  const Inputs<T>& in = p.in;
  const auto streamed = [&](const T* gradient) { return streams(gradient, in.pairs, in.width); };
  const bool stream = streamed(p.grad_features[0]) && streamed(p.grad_features[1]);
  const auto gradient_of_features = stream ? &features_gradient<T, true> : &features_gradient<T, false>;
  for (int64_t i = begin; i < end; ++i) {
    const PairLabels<Acc> pair = read_labels(in, i);
    if (pair.fault != Fault::kNone) continue;  // not reached: the forward pass raised an error
    Acc factor[kTerms];
    pair_upstream(p, i, factor);
    for (int k = 0; k < 2; ++k) {
      if (p.grad_logits[k] == nullptr) continue;
      const SoftmaxScale<Acc> scale{p.saved.largest(k)[i], p.saved.sum(k)[i]};
      logits_gradient(in.logits[k].strided_row(i), in.classes, scale,
                      factor[kClassification1 + k] * pair.class_weight[k], pair.label[k],
                      p.grad_logits[k] + i * in.classes);
    }
    if (p.grad_features[0] == nullptr && p.grad_features[1] == nullptr) continue;
    const bool same_class = pair.label[0] == pair.label[1];
    gradient_of_features(in.features[0].strided_row(i), in.features[1].strided_row(i), in.width,
                         factor[same_class ? kAlignment : kSeparation] * p.saved.coefficient()[i],
                         p.grad_features_row(0, i), p.grad_features_row(1, i));
  }
  if (stream) end_of_streams();
}

}  // namespace

}  // namespace fastccsa::zipped::cpu::FASTCCSA_ISA

namespace fastccsa::zipped::cpu {

template <Isa isa, typename T>
Kernels<T> kernels() {
  using namespace FASTCCSA_ISA;
  return {&forward<T>, &backward<T>};
}
template Kernels<float> kernels<Isa::FASTCCSA_ISA, float>();
template Kernels<double> kernels<Isa::FASTCCSA_ISA, double>();
template Kernels<bfloat16> kernels<Isa::FASTCCSA_ISA, bfloat16>();
template Kernels<half> kernels<Isa::FASTCCSA_ISA, half>();

}  // namespace fastccsa::zipped::cpu

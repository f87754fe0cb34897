// Reads calls of the zipped loss from stdin, runs them, and writes their results to stdout. cases.py is the other end.
#pragma once

#include "wire.h"

#include <cstring>
#include <exception>
#include <stdexcept>
#include <string>
#include <vector>

namespace fastccsa::zipped::testing {

// ---- one call ----

using fastccsa::testing::Dtype;
using fastccsa::testing::read_bytes;
using fastccsa::testing::read_value;
using fastccsa::testing::View;
using fastccsa::testing::write;
using fastccsa::testing::write_bytes;

struct Case {
  std::string name;
  Dtype dtype;
  int64_t pairs, classes, labels, width, reduction;
  int64_t needs_grad;               // bit k: the gradient of the k-th of logits 1 and 2, features 1 and 2
  int64_t left;                     // whether the forward pass leaves the gradients of the features
  int64_t run_length;               // on CUDA; 0: as for a GPU
  int64_t order, seed, processors;  // how the work is scheduled
  double margin, alpha;
  View logits[2], features[2], target[2], class_weight[2], pair_weight, grad_loss, grad_terms;

  // False at the end of the input.
  bool read() {
    int64_t letters;
    if (!read_bytes(&letters, sizeof letters)) return false;
    name.resize(letters);
    read_bytes(name.data(), letters);
    dtype = read_value<Dtype>();
    for (int64_t* field : {&pairs, &classes, &labels, &width, &reduction, &needs_grad, &left, &run_length, &order, &seed,
                           &processors}) {
      *field = read_value<int64_t>();
    }
    for (double* field : {&margin, &alpha}) *field = read_value<double>();
    for (View* two : {logits, features, target, class_weight}) {
      for (int k = 0; k < 2; ++k) two[k].read();
    }
    for (View* one : {&pair_weight, &grad_loss, &grad_terms}) one->read();
    return true;
  }
};

// What a run reports in addition to its results.
struct Outcome {
  std::string kernel;
  FaultReport report;
};

// Returns values that are NaN (all bits set), so that results that are never written are noticed.
template <typename T>
std::vector<T> unwritten(int64_t size) {
  std::vector<T> values(size);
  if (size > 0) std::memset(static_cast<void*>(values.data()), 0xff, size * sizeof(T));
  return values;
}

// The buffers and the parameters of forward and backward.
template <typename T>
struct Call {
  using Acc = acc_t<T>;

  explicit Call(const Case& c)
      : loss(unwritten<Acc>(c.reduction == 0 ? c.pairs : 1)),
        terms(unwritten<Acc>(c.reduction == 0 ? kTerms * c.pairs : kTerms)),
        saved(unwritten<Acc>(saved_size(c.pairs))) {
    for (int k = 0; k < 4; ++k) {
      const int64_t columns = k < 2 ? c.classes : c.width;
      gradient[k] = unwritten<T>(c.needs_grad >> k & 1 ? c.pairs * columns : 0);
    }
    Inputs<T> in;
    in.pairs = c.pairs;
    in.classes = c.classes;
    in.labels = c.labels;
    in.width = c.width;
    for (int k = 0; k < 2; ++k) {
      in.logits[k] = c.logits[k].matrix<T>();
      in.features[k] = c.features[k].matrix<T>();
      in.target[k] = c.target[k].vector<int64_t>();
      in.class_weight[k] = c.class_weight[k].vector<Acc>();
    }
    in.pair_weight = c.pair_weight.matrix<Acc>();
    in.margin = Acc(c.margin);
    in.alpha = Acc(c.alpha);
    in.reduction = Reduction(c.reduction);
    forward = {in, loss.data(), terms.data(), {saved.data(), c.pairs}};
    const auto needs_grad = [&](int k) { return gradient[k].empty() ? nullptr : gradient[k].data(); };
    backward = {in,
                c.grad_loss.vector<Acc>(),
                c.grad_terms.matrix<Acc>(),
                {saved.data(), c.pairs},
                {needs_grad(0), needs_grad(1)},
                {needs_grad(2), needs_grad(3)}};
  }

  void write_results(const Outcome& outcome) const {
    write_bytes(outcome.kernel.data(), outcome.kernel.size());
    write(std::vector<int64_t>{int64_t(outcome.report.fault), outcome.report.row, outcome.report.value});
    write(loss);
    write(terms);
    write(saved);
    for (const std::vector<T>& values : gradient) write(values);
  }

  std::vector<Acc> loss, terms, saved;
  std::vector<T> gradient[4];
  Forward<T> forward;
  Backward<T> backward;
};

template <typename T, typename Run>
void answer(const Case& c, Run& run) {
  Call<T> call(c);
  call.write_results(run(c, call.forward, call.backward));
}

// The body of main(): `run(case, forward, backward)` runs both passes.
template <typename Run>
int serve(Run run) {
  try {
    for (Case c; c.read(); c = Case()) {
      std::fprintf(stderr, "%s\n", c.name.c_str());  // after a failure, the last of these lines names the case
      switch (c.dtype) {
        case Dtype::kFloat64: answer<double>(c, run); break;
        case Dtype::kFloat32: answer<float>(c, run); break;
        case Dtype::kBFloat16: answer<bfloat16>(c, run); break;
        case Dtype::kFloat16: answer<half>(c, run); break;
      }
    }
    return 0;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}

}  // namespace fastccsa::zipped::testing

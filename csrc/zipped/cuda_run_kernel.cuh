// Many pairs on CUDA: a warp takes a run of up to 32 pairs.
//
// All lanes go through the features together, a few pairs at a time: every load of these pairs is under way before the
// first value is used. Then each lane reads the labels, weights and, if there are few classes, the logits of one pair,
// and computes its terms. So the work per pair is little more than its loads and stores.
#pragma once

#include "zipped/cuda_parts.cuh"

namespace fastccsa::zipped::cuda {

constexpr int64_t kFewClasses = 16;  // up to this number, one lane goes through the logits of a pair
constexpr int kPacksInFlight = 4;    // of each side, per lane
constexpr int kResident = 4;         // blocks per multiprocessor, which registers must suffice for

// What the host chose for a launch.
struct Runs {
  int length;             // pairs per run, at most 32
  bool packed;            // the rows of the features can be read in packs,
  bool packed_gradients;  // and those of the gradients written in packs
};

// Whether each lane goes through the logits of its own pair. A short run leaves too many lanes idle.
template <typename T>
__device__ bool lane_per_pair(const Inputs<T>& in, const Runs& runs) {
  return in.classes <= kFewClasses && runs.length >= 4;
}

// ---- the features of a pair, in registers ----

// Each lane holds up to `kPacks` packs of 16 bytes of either row, which are enough for the whole row.
template <int kPacks>
struct Rows {
  Words a[kPacks], b[kPacks];
};

template <int kPacks, typename T>
__device__ Rows<kPacks> load_rows(const Inputs<T>& in, int64_t i, int lane) {
  constexpr int kSize = Values<T>::kSize;
  Rows<kPacks> rows;
  const T *a = in.features[0].row(i) + lane * kSize, *b = in.features[1].row(i) + lane * kSize;
  const int rest = int(in.width) - lane * kSize;
#pragma unroll
  for (int q = 0; q < kPacks; ++q) {
    rows.a[q] = rows.b[q] = Words{};
    if (q * kWarp * kSize < rest) {
      rows.a[q] = load_words(a + q * kWarp * kSize);
      rows.b[q] = load_words(b + q * kWarp * kSize);
    }
  }
  return rows;
}

// Returns this lane's part of |a - b|^2.
template <typename T, int kPacks>
__device__ acc_t<T> squared_distance_part(const Rows<kPacks>& rows) {
  acc_t<T> sum = 0;
#pragma unroll
  for (int q = 0; q < kPacks; ++q) {
    acc_t<T> x[Values<T>::kSize], y[Values<T>::kSize];
    Values<T>::load_from(rows.a[q], x);
    Values<T>::load_from(rows.b[q], y);
#pragma unroll
    for (int j = 0; j < Values<T>::kSize; ++j) {
      const acc_t<T> difference = x[j] - y[j];
      sum += difference * difference;
    }
  }
  return sum;
}

// grad_a = factor * (a - b), grad_b = -grad_a; either may be nullptr.
template <typename T, int kPacks>
__device__ void write_gradient(const Rows<kPacks>& rows, acc_t<T> factor, int64_t width, T* grad_a, T* grad_b,
                               int lane) {
  constexpr int kSize = Values<T>::kSize;
  const int rest = int(width) - lane * kSize;
  T *to_a = grad_a + lane * kSize, *to_b = grad_b + lane * kSize;
#pragma unroll
  for (int q = 0; q < kPacks; ++q) {
    const bool inside = q * kWarp * kSize < rest;
    const Words gradient = scaled_difference<T>(rows.a[q], rows.b[q], factor);
    if (inside && grad_a != nullptr) store_words(to_a + q * kWarp * kSize, gradient);
    if (inside && grad_b != nullptr) store_words(to_b + q * kWarp * kSize, Values<T>::negative(gradient));
  }
}

// ---- forward ----

// Returns the softmax scale of row first + lane to each of the first `count` lanes.
template <typename T>
__device__ SoftmaxScale<acc_t<T>> own_softmax_scale(const Matrix<const T>& logits, int64_t classes, bool alone,
                                                    int64_t first, int count, int lane) {
  SoftmaxScale<acc_t<T>> own{0, 0};
  if (alone) {
    if (lane < count) own = softmax_scale<1>(logits.strided_row(first + lane), classes, 0);
    return own;
  }
  for (int j = 0; j < count; ++j) {
    const SoftmaxScale<acc_t<T>> scale = softmax_scale<kWarp>(logits.strided_row(first + j), classes, lane);
    if (lane == j) own = scale;
  }
  return own;
}

// What lanes tell each other about their pairs, in order to write the gradients of the features.
template <typename Acc>
struct OwnPair {
  Acc weight;
  int same_class;
  int faulty;
};

// Writes the gradients of the features of pair i, which lane `owner` knows, for an upstream gradient of 1. `write` gets
// the factor of z1 - z2.
template <typename T, typename Write>
__device__ void leave_gradient(const Forward<T>& p, const OwnPair<acc_t<T>>& own, int owner, acc_t<T> d2, Write write) {
  using Acc = acc_t<T>;
  const Acc weight = __shfl_sync(kAllLanes, own.weight, owner);
  const bool same_class = __shfl_sync(kAllLanes, own.same_class, owner) != 0;
  const bool faulty = __shfl_sync(kAllLanes, own.faulty, owner) != 0;
  const Acc coefficient = pair_term(d2, same_class, weight, p.in.margin).coefficient;
  const Acc by = divisor<Acc>(kAlignment, p.in.reduction, Acc(p.in.pairs), nullptr);
  const Acc factor = upstream<Acc>(kAlignment, p.in.alpha, Acc(1), Acc(0), by);
  write(factor * (faulty ? Acc(CUDART_NAN) : coefficient));
}

// Returns |z1 - z2|^2 of pair first + lane to each of the first `count` lanes, and writes gradients where p asks.
template <int kPacks, typename T>
__device__ acc_t<T> own_squared_distance(const Forward<T>& p, const Runs& runs, int64_t first, int count, int lane) {
  using Acc = acc_t<T>;
  const Inputs<T>& in = p.in;
  const bool gradients = p.grad_features[0] != nullptr || p.grad_features[1] != nullptr;
  OwnPair<Acc> pair{};
  if (gradients && lane < count) {
    const PairLabels<Acc> labels = read_labels(in, first + lane);
    pair = {labels.pair_weight, labels.label[0] == labels.label[1], labels.fault != Fault::kNone};
  }
  Acc own = 0;
  if constexpr (kPacks > 0) {
    constexpr int kAtOnce = kPacksInFlight / kPacks;
    for (int j = 0; j < count; j += kAtOnce) {
      Rows<kPacks> rows[kAtOnce];
      Acc d2[kAtOnce];
#pragma unroll
      for (int u = 0; u < kAtOnce; ++u) {  // behind the last pair of the run, the last one is read again
        rows[u] = load_rows<kPacks>(in, first + (j + u < count ? j + u : count - 1), lane);
      }
#pragma unroll
      for (int u = 0; u < kAtOnce; ++u) {
        d2[u] = reduce<kWarp>(squared_distance_part<T>(rows[u]), Add());
        if (lane == j + u) own = d2[u];
      }
      if (!gradients) continue;
#pragma unroll
      for (int u = 0; u < kAtOnce; ++u) {
        if (j + u >= count) break;
        const int64_t i = first + j + u;
        leave_gradient(p, pair, j + u, d2[u], [&](Acc factor) {
          write_gradient(rows[u], factor, in.width, p.grad_features_row(0, i), p.grad_features_row(1, i), lane);
        });
      }
    }
  } else {
    for (int j = 0; j < count; ++j) {
      const int64_t i = first + j;
      const Vector<const T> a = in.features[0].strided_row(i), b = in.features[1].strided_row(i);
      const Acc d2 = runs.packed ? squared_distance<kWarp, true>(a, b, in.width, lane)
                                 : squared_distance<kWarp, false>(a, b, in.width, lane);
      if (lane == j) own = d2;
      if (!gradients) continue;
      leave_gradient(p, pair, j, d2, [&](Acc factor) {
        T *grad_a = p.grad_features_row(0, i), *grad_b = p.grad_features_row(1, i);
        if (runs.packed_gradients) {
          features_gradient<kWarp, true>(a, b, in.width, factor, grad_a, grad_b, lane);
        } else {
          features_gradient<kWarp, false>(a, b, in.width, factor, grad_a, grad_b, lane);
        }
      });
    }
  }
  return own;
}

template <typename T, int kPacks>
__global__ void __launch_bounds__(kThreads, kResident)
    forward_run_kernel(const Forward<T> p, FaultWord* fault, unsigned slot, Runs runs) {
  using Acc = acc_t<T>;
  const Inputs<T>& in = p.in;
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  Acc sums[kSums] = {};
  const int64_t step = int64_t(gridDim.x) * kWarps * runs.length;
  for (int64_t first = (int64_t(blockIdx.x) * kWarps + warp) * runs.length; first < in.pairs; first += step) {
    const int count = int(in.pairs - first < runs.length ? in.pairs - first : runs.length);
    const int64_t i = first + lane;
    const bool own = lane < count;
    Acc d2 = 0;
    if (in.features[0].data != nullptr) d2 = own_squared_distance<kPacks>(p, runs, first, count, lane);

    PairLabels<Acc> pair{};
    if (own) pair = read_labels(in, i);
    const bool faulty = pair.fault != Fault::kNone, good = own && !faulty;
    // The loss becomes NaN, so that no optimizer step uses it, and the host raises an error at its next call.
    if (faulty && fault != nullptr) *static_cast<volatile FaultWord*>(fault) = encode(report_of(in, i, pair));
    const Acc start = faulty ? Acc(CUDART_NAN) : Acc(0);
    Acc terms[kTerms] = {start, start, start, start};
    for (int k = 0; k < 2; ++k) {
      SoftmaxScale<Acc> scale{};
      if (in.logits[k].data != nullptr) {
        scale = own_softmax_scale(in.logits[k], in.classes, lane_per_pair(in, runs), first, count, lane);
        if (good) {
          terms[kClassification1 + k] =
              cross_entropy<Acc>(scale.largest, std::log(scale.sum),
                                 load(in.logits[k].strided_row(i)[pair.label[k]]), pair.class_weight[k]);
          sums[kWeight1 + k] += pair.class_weight[k];
        }
      }
      if (good) p.saved.set_scale(k, i, scale);
    }
    if (good) {
      PairTerm<Acc> term{};
      if (in.features[0].data != nullptr) {
        term = pair_term(d2, pair.label[0] == pair.label[1], pair.pair_weight, in.margin);
      }
      terms[kAlignment] = term.alignment;
      terms[kSeparation] = term.separation;
      p.saved.coefficient()[i] = term.coefficient;
    }
    if (!own) continue;
    if (in.reduction != Reduction::kNone) {
      for (int term = 0; term < kTerms; ++term) sums[term] += terms[term];
    } else {
      p.loss[i] = combine(in.alpha, terms);
      for (int term = 0; term < kTerms; ++term) p.terms[term * in.pairs + i] = terms[term];
    }
  }
  for (int s = 0; s < kSums; ++s) sums[s] = reduce<kWarp>(sums[s], Add());
  finish_blocks<T, kWarp>(p, sums, lane, warp, slot);
}

// ---- backward ----

// Writes the gradients of the logits of pairs first to first + count. Lane j knows `scale`, `factor` and `label` of
// pair first + j.
template <typename T>
__device__ void run_logits_gradient(const Backward<T>& p, int k, bool alone, SoftmaxScale<acc_t<T>> scale,
                                    acc_t<T> factor, int64_t label, int64_t first, int count, int lane) {
  const Inputs<T>& in = p.in;
  const auto write = [&](auto group, int64_t i, SoftmaxScale<acc_t<T>> scale, acc_t<T> factor, int64_t label) {
    constexpr int kGroup = decltype(group)::value;
    logits_gradient<kGroup>(in.logits[k].strided_row(i), in.classes, scale, factor, label,
                            p.grad_logits[k] + i * in.classes, kGroup == 1 ? 0 : lane);
  };
  if (alone) {
    if (lane < count) write(std::integral_constant<int, 1>(), first + lane, scale, factor, label);
    return;
  }
  for (int j = 0; j < count; ++j) {
    const SoftmaxScale<acc_t<T>> other{__shfl_sync(kAllLanes, scale.largest, j), __shfl_sync(kAllLanes, scale.sum, j)};
    write(std::integral_constant<int, kWarp>(), first + j, other, __shfl_sync(kAllLanes, factor, j),
          __shfl_sync(kAllLanes, label, j));
  }
}

// Writes the gradients of the features of pairs first to first + count; lane j knows the `factor` of pair first + j.
template <int kPacks, typename T>
__device__ void run_features_gradient(const Backward<T>& p, const Runs& runs, acc_t<T> factor, int64_t first, int count,
                                      int lane) {
  using Acc = acc_t<T>;
  const Inputs<T>& in = p.in;
  if constexpr (kPacks > 0) {
    constexpr int kAtOnce = kPacksInFlight / kPacks;
    for (int j = 0; j < count; j += kAtOnce) {
      Rows<kPacks> rows[kAtOnce];
#pragma unroll
      for (int u = 0; u < kAtOnce; ++u) {
        rows[u] = load_rows<kPacks>(in, first + (j + u < count ? j + u : count - 1), lane);
      }
#pragma unroll
      for (int u = 0; u < kAtOnce; ++u) {
        if (j + u >= count) break;
        const int64_t i = first + j + u;
        write_gradient(rows[u], __shfl_sync(kAllLanes, factor, j + u), in.width, p.grad_features_row(0, i),
                       p.grad_features_row(1, i), lane);
      }
    }
  } else {
    for (int j = 0; j < count; ++j) {
      const int64_t i = first + j;
      const Vector<const T> a = in.features[0].strided_row(i), b = in.features[1].strided_row(i);
      T *grad_a = p.grad_features_row(0, i), *grad_b = p.grad_features_row(1, i);
      const Acc of_pair = __shfl_sync(kAllLanes, factor, j);
      if (runs.packed_gradients) {
        features_gradient<kWarp, true>(a, b, in.width, of_pair, grad_a, grad_b, lane);
      } else {
        features_gradient<kWarp, false>(a, b, in.width, of_pair, grad_a, grad_b, lane);
      }
    }
  }
}

// Begins with the last run, whose features the forward pass read last: they may still be in the cache.
template <typename T, int kPacks>
__global__ void __launch_bounds__(kThreads, kResident) backward_run_kernel(const Backward<T> p, Runs runs) {
  using Acc = acc_t<T>;
  const Inputs<T>& in = p.in;
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  const bool features = p.writes_features();
  const int64_t count_of_runs = (in.pairs + runs.length - 1) / runs.length;
  for (int64_t run = count_of_runs - 1 - (int64_t(blockIdx.x) * kWarps + warp); run >= 0;
       run -= int64_t(gridDim.x) * kWarps) {
    const int64_t first = run * runs.length, i = first + lane;
    const int count = int(in.pairs - first < runs.length ? in.pairs - first : runs.length);
    PairLabels<Acc> pair{};
    Acc factor[kTerms] = {}, of_features = 0;
    SoftmaxScale<Acc> scale[2] = {};
    if (lane < count) {
      pair = read_labels(in, i);
      const bool faulty = pair.fault != Fault::kNone;
      pair_upstream(p, i, factor);
      for (int k = 0; k < 2; ++k) scale[k] = {faulty ? Acc(CUDART_NAN) : p.saved.largest(k)[i], p.saved.sum(k)[i]};
      const Acc coefficient = faulty ? Acc(CUDART_NAN) : p.saved.coefficient()[i];
      of_features = factor[pair.label[0] == pair.label[1] ? kAlignment : kSeparation] * coefficient;
    }
    for (int k = 0; k < 2; ++k) {
      if (p.grad_logits[k] == nullptr) continue;
      run_logits_gradient(p, k, lane_per_pair(in, runs), scale[k], factor[kClassification1 + k] * pair.class_weight[k],
                          pair.label[k], first, count, lane);
    }
    if (features) run_features_gradient<kPacks>(p, runs, of_features, first, count, lane);
  }
}

}  // namespace fastccsa::zipped::cuda

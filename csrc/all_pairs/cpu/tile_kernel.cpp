// The loss over all pairs on the CPU, one chunk at a time. This file is compiled once for each instruction set:
// FASTCCSA_ISA names it, and core/simd.h has its vectors.
#include "all_pairs/cpu/cpu.h"
#include "core/simd.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>
#include <type_traits>

namespace fastccsa::all_pairs::cpu::FASTCCSA_ISA {
namespace {

using namespace fastccsa::FASTCCSA_ISA;

template <typename T>
const T* row_of(const Side<T>& side, int64_t sorted_row) {
  return side.features.row(side.order[sorted_row]);
}

// Calls work(stride). The usual stride, 1, is passed as a constant, so that the compiler can vectorise the loops.
template <typename Work>
void with_stride(int64_t stride, Work work) {
  if (stride == 1) {
    work(std::integral_constant<int64_t, 1>());
  } else {
    work(stride);
  }
}

template <typename T>
void copy_rows(const Matrix<const T>& features, int64_t width, Range rows, acc_t<T>* to) {
  constexpr int kLanes = Simd<acc_t<T>>::kLanes;
  for (int64_t k = rows.begin; k < rows.end; ++k) {
    const T* z = features.row(k);
    acc_t<T>* row = to + k * width;
    int64_t d = 0;
    if (features.column_stride == 1) {
      for (; d + kLanes <= width; d += kLanes) store_vector(row + d, load_vector(z + d));
    }
    for (; d < width; ++d) row[d] = load(z[d * features.column_stride]);
  }
}

template <typename T>
void add_rows(const Side<T>& side, int64_t width, Range rows, double* sum) {
  with_stride(side.features.column_stride, [&](auto stride) {
    int64_t k = rows.begin;
    for (; k + 4 <= rows.end; k += 4) {  // loads and stores the sums once for four rows
      const T *a = row_of(side, k), *b = row_of(side, k + 1), *c = row_of(side, k + 2), *e = row_of(side, k + 3);
      for (int64_t d = 0; d < width; ++d) {
        const int64_t at = d * stride;
        sum[d] += (double(load(a[at])) + double(load(b[at]))) + (double(load(c[at])) + double(load(e[at])));
      }
    }
    for (; k < rows.end; ++k) {
      const T* z = row_of(side, k);
      for (int64_t d = 0; d < width; ++d) sum[d] += double(load(z[d * stride]));
    }
  });
}

constexpr int64_t kSums = 16;  // independent sums, which the compiler vectorises

template <typename T>
void deviations(const Side<T>& side, int64_t width, Range rows, const double* mean, double* of_row) {
  with_stride(side.features.column_stride, [&](auto stride) {
    for (int64_t k = rows.begin; k < rows.end; ++k) {
      const T* z = row_of(side, k);
      const double* of_class = mean + side.label[k] * width;
      double sums[kSums] = {};
      int64_t d = 0;
      for (; d + kSums <= width; d += kSums) {
        for (int64_t j = 0; j < kSums; ++j) {
          const double difference = double(load(z[(d + j) * stride])) - of_class[d + j];
          sums[j] += difference * difference;
        }
      }
      for (; d < width; ++d) {
        const double difference = double(load(z[d * stride])) - of_class[d];
        sums[d % kSums] += difference * difference;
      }
      of_row[k - rows.begin] = std::accumulate(sums, sums + kSums, 0.0);
    }
  });
}

// Norms are summed in float64, because all pairs of a row share the error of its norm: it does not average out.
template <typename T, typename Stride>
void centre_rows_of(const Centre<T>& p, int64_t begin, int64_t end, Stride stride) {
  using Acc = acc_t<T>;
  for (int64_t k = begin; k < end; ++k) {
    const T* z = row_of(p.side, k);
    Acc* to = p.centred + k * p.width;
    double sums[kSums] = {};
    int64_t d = 0;
    for (; d + kSums <= p.width; d += kSums) {
      for (int64_t j = 0; j < kSums; ++j) {
        const Acc centred = load(z[(d + j) * stride]) - p.centre[d + j];
        to[d + j] = centred;
        sums[j] += double(centred) * double(centred);
      }
    }
    for (; d < p.width; ++d) {
      const Acc centred = load(z[d * stride]) - p.centre[d];
      to[d] = centred;
      sums[d % kSums] += double(centred) * double(centred);
    }
    p.norm[k] = Acc(std::accumulate(sums, sums + kSums, 0.0));
  }
}

template <typename T>
void centre_rows(const Centre<T>& p, int64_t begin, int64_t end) {
  with_stride(p.side.features.column_stride, [&](auto stride) { centre_rows_of(p, begin, end, stride); });
}

template <typename T>
acc_t<T> squared_distance(const Tile<T>& p, const T* a, const T* b) {
  using Acc = acc_t<T>;
  constexpr int kLanes = Simd<Acc>::kLanes;
  const int64_t stride_a = p.side[0].features.column_stride, stride_b = p.side[1].features.column_stride;
  vector_t<Acc> sum{};
  int64_t d = 0;
  if (stride_a == 1 && stride_b == 1) {
    for (; d + kLanes <= p.width; d += kLanes) {
      const vector_t<Acc> difference = load_vector(a + d) - load_vector(b + d);
      sum += difference * difference;
    }
  }
  for (; d < p.width; ++d) {
    const Acc difference = load(a[d * stride_a]) - load(b[d * stride_b]);
    sum[d % kLanes] += difference * difference;
  }
  return sum_of<Acc>(sum);
}

// Computes from their rows the pairs that `coefficients` has marked with +infinity, which is never a coefficient.
template <typename T>
void near_pairs(const Tile<T>& p, int64_t i, const acc_t<T>* weight, ChunkSums<acc_t<T>>& sums) {
  using Acc = acc_t<T>;
  const int64_t row = p.begin[0] + i;
  Acc* values = p.values + i * p.stride;
  const T* a = row_of(p.side[0], row);
  for (int64_t j = 0; j < p.columns; ++j) {
    if (values[j] != std::numeric_limits<Acc>::infinity()) continue;
    const int64_t column = p.begin[1] + j;
    const T* b = row_of(p.side[1], column);
    const Acc d2 = squared_distance(p, a, b);
    const PairTerm<Acc> term = pair_term(d2, false, weight[j], p.margin);
    p.loss[row] += double(term.separation);
    if (!is_close(d2, p.norm[0][row] + p.norm[1][column])) {
      values[j] = term.coefficient;
      p.sums[0][row] += double(term.coefficient);
      continue;
    }
    values[j] = Acc(0);
    const bool needed = p.gradient[0] != nullptr || p.gradient[1] != nullptr;
    if (needed && term.coefficient != Acc(0)) sums.close.push_back({int32_t(i), int32_t(j), term.coefficient});
  }
}

template <typename Acc>
struct RowSums {
  vector_t<Acc> coefficient{}, loss{};
  mask_t<Acc> near{};
};

// Turns one vector of dot products into coefficients. Marks near pairs with +infinity.
template <typename T, typename Acc = acc_t<T>>
vector_t<Acc> coefficients(vector_t<Acc> dot, vector_t<Acc> norms, vector_t<Acc> weight, Acc margin,
                           RowSums<Acc>& row) {
  using Vector = vector_t<Acc>;
  const Vector infinity = filled(std::numeric_limits<Acc>::infinity()), d2 = norms - Acc(2) * dot;
  const auto weighted = weight > Vector{};
  const auto near = weighted & is_near<T>(d2, norms, margin);
  // Pairs that are computed from their rows, or have no weight, count as infinitely far, so that their term is 0.
  const Term<Vector> term = separation_term((weighted & !near) ? d2 : infinity, weight, margin);
  row.coefficient += term.coefficient;
  row.loss += term.value;
  row.near |= near;
  return near ? infinity : term.coefficient;
}

template <typename T>
void tile_rows(const Tile<T>& p, int64_t begin, int64_t end, ChunkSums<acc_t<T>>& sums) {
  using Acc = acc_t<T>;
  constexpr int kLanes = Simd<Acc>::kLanes;
  const Acc* norm2 = p.norm[1] + p.begin[1];
  std::vector<Acc> weight(p.columns);
  int64_t weight_of = -1;
  for (int64_t i = begin; i < end; ++i) {
    const int64_t label = p.side[0].label[p.begin[0] + i];
    if (label != weight_of) {
      for (int64_t j = 0; j < p.columns; ++j) {
        weight[j] = pair_weight(p.weight, p.classes, label, p.side[1].label[p.begin[1] + j]);
      }
      weight_of = label;
    }
    const Acc norm1 = p.norm[0][p.begin[0] + i];
    Acc* values = p.values + i * p.stride;
    RowSums<Acc> row;
    int64_t j = 0;
    for (; j + kLanes <= p.columns; j += kLanes) {
      const vector_t<Acc> result = coefficients<T>(load_vector(values + j), norm1 + load_vector(norm2 + j),
                                                     load_vector(weight.data() + j), p.margin, row);
      store_vector(values + j, result);
    }
    if (j < p.columns) {
      const int64_t rest = p.columns - j;
      const vector_t<Acc> norms = norm1 + load_first<Acc>(norm2 + j, rest, Acc(0));
      const vector_t<Acc> result = coefficients<T>(load_first<Acc>(values + j, rest, Acc(0)), norms,
                                                     load_first<Acc>(weight.data() + j, rest, Acc(0)), p.margin, row);
      store_first<Acc>(values + j, result, rest);
    }
    p.loss[p.begin[0] + i] += double(sum_of<Acc>(row.loss));
    p.sums[0][p.begin[0] + i] += double(sum_of<Acc>(row.coefficient));
    bool any_near = false;
    for (int lane = 0; lane < kLanes; ++lane) any_near |= row.near[lane] != 0;
    if (any_near) near_pairs(p, i, weight.data(), sums);
    for (int64_t k = 0; k < p.columns; ++k) sums.column_sums[k] += values[k];  // the row is in the first-level cache
  }
}

// gradient += coefficient * (own row - other row)
template <typename T>
void close_pairs(const Tile<T>& p, int side, const std::vector<ClosePair<acc_t<T>>>& close, Range own, Range columns) {
  const Side<T>&mine = p.side[side], &others = p.side[1 - side];
  const int64_t stride = mine.features.column_stride, other_stride = others.features.column_stride;
  for (const ClosePair<acc_t<T>>& pair : close) {
    const int64_t k = side == 0 ? pair.row : pair.column, other = side == 0 ? pair.column : pair.row;
    if (k < own.begin || k >= own.end) continue;
    const T *a = row_of(mine, p.begin[side] + k), *b = row_of(others, p.begin[1 - side] + other);
    acc_t<T>* gradient = p.gradient[side] + (p.begin[side] + k) * p.width;
    for (int64_t d = columns.begin; d < columns.end; ++d) {
      gradient[d] += pair.coefficient * (load(a[d * stride]) - load(b[d * other_stride]));
    }
  }
}

template <typename T>
void finish_rows(const Finish<T>& p, int64_t begin, int64_t end) {
  with_stride(p.side.features.column_stride, [&](auto stride) {
    for (int64_t k = begin; k < end; ++k) {
      const T* z = row_of(p.side, k);
      for (int64_t d = 0; d < p.width; ++d) finish_value(p, k, d, double(load(z[d * stride])));
    }
  });
}

}  // namespace

}  // namespace fastccsa::all_pairs::cpu::FASTCCSA_ISA

namespace fastccsa::all_pairs::cpu {

template <Isa isa, typename T>
Kernels<T> kernels() {
  using namespace FASTCCSA_ISA;
  return {&copy_rows<T>, &add_rows<T>,    &deviations<T>, &centre_rows<T>,
          &tile_rows<T>, &close_pairs<T>, &finish_rows<T>};
}
template Kernels<float> kernels<Isa::FASTCCSA_ISA, float>();
template Kernels<double> kernels<Isa::FASTCCSA_ISA, double>();
template Kernels<bfloat16> kernels<Isa::FASTCCSA_ISA, bfloat16>();
template Kernels<half> kernels<Isa::FASTCCSA_ISA, half>();

}  // namespace fastccsa::all_pairs::cpu

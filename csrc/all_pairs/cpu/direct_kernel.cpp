// The loss over few pairs on the CPU, computed from the differences of their rows. This file is compiled once for each
// instruction set: FASTCCSA_ISA names it, and core/simd.h has its vectors.
#include "all_pairs/cpu/cpu.h"
#include "core/simd.h"

#include <algorithm>
#include <memory>
#include <type_traits>

namespace fastccsa::all_pairs::cpu::FASTCCSA_ISA {
namespace {

using namespace fastccsa::FASTCCSA_ISA;

// How many rows of each side have their pairs computed together, so that each load serves several pairs.
#if defined(__AVX512F__)
constexpr int kOwn = 4, kOthers = 4;
#else
constexpr int kOwn = 2, kOthers = 4;  // half as many registers
#endif

// Computes |a_i - b_j|^2 for kOwn rows a and kOthers rows b.
template <typename Acc>
void squared_distances(const Acc* const* a, const Acc* const* b, int64_t width, Acc (*squared)[kOthers]) {
  constexpr int kLanes = Simd<Acc>::kLanes;
  vector_t<Acc> sum[kOwn][kOthers] = {};
  const auto add = [&](auto load_at) {
    vector_t<Acc> own[kOwn];
    for (int i = 0; i < kOwn; ++i) own[i] = load_at(a[i]);
    for (int j = 0; j < kOthers; ++j) {
      const vector_t<Acc> other = load_at(b[j]);
      for (int i = 0; i < kOwn; ++i) sum[i][j] += (own[i] - other) * (own[i] - other);
    }
  };
  int64_t d = 0;
  for (; d + kLanes <= width; d += kLanes) add([d](const Acc* row) { return load_vector(row + d); });
  if (d < width) add([d, width](const Acc* row) { return load_first<Acc>(row + d, width - d, Acc(0)); });
  for (int i = 0; i < kOwn; ++i) {
    for (int j = 0; j < kOthers; ++j) squared[i][j] = sum_of<Acc>(sum[i][j]);
  }
}

// Sets `row` to kCount rows, beginning with `first`. Beyond the end, the last row is repeated.
template <int kCount, typename Acc>
void rows_from(const Acc* features, int64_t rows, int64_t width, int64_t first, const Acc** row) {
  for (int k = 0; k < kCount; ++k) row[k] = features + std::min(first + k, rows - 1) * width;
}

template <typename Acc>
void pairs(const Direct<Acc>& p, int64_t begin, int64_t end) {
  for (int64_t first1 = begin; first1 < end; first1 += kOwn) {
    const int64_t last1 = std::min(first1 + kOwn, end);
    const Acc *a[kOwn], *b[kOthers];
    rows_from<kOwn>(p.features[0].data, p.rows[0], p.width, first1, a);
    double alignment[kOwn] = {}, separation[kOwn] = {};
    for (int64_t first2 = 0; first2 < p.rows[1]; first2 += kOthers) {
      Acc squared[kOwn][kOthers];
      rows_from<kOthers>(p.features[1].data, p.rows[1], p.width, first2, b);
      squared_distances(a, b, p.width, squared);
      for (int64_t i = first1; i < last1; ++i) {
        for (int64_t j = first2; j < std::min(first2 + kOthers, p.rows[1]); ++j) {
          const PairTerm<Acc> term = p.pair(squared[i - first1][j - first2], i, j);
          alignment[i - first1] += double(term.alignment);
          separation[i - first1] += double(term.separation);
          p.coefficient[i * p.rows[1] + j] = term.coefficient;
        }
      }
    }
    for (int64_t i = first1; i < last1; ++i) {
      p.sums[i] = alignment[i - first1];
      p.sums[p.rows[0] + i] = separation[i - first1];
    }
  }
}

// Computes scale * sum_j k_ij (own_i - other_j) for kOwn rows and kVectors vectors of columns, which `load_at` reads
// and `store_at` writes. Adding up sums of kPart rows keeps the rounding error small.
template <int kVectors, typename Acc, typename Load, typename Store>
void weighted_differences(const Acc* const* own, const Acc* others, int64_t count, int64_t width, const Acc* k,
                          Acc scale, Acc* const* gradient, Load load_at, Store store_at) {
  constexpr int kLanes = Simd<Acc>::kLanes;
  constexpr int64_t kPart = 16;
  vector_t<Acc> mine[kOwn][kVectors], sum[kOwn][kVectors] = {};
  for (int i = 0; i < kOwn; ++i) {
    for (int v = 0; v < kVectors; ++v) mine[i][v] = load_at(own[i] + v * kLanes);
  }
  for (int64_t first = 0; first < count; first += kPart) {
    vector_t<Acc> part[kOwn][kVectors] = {};
    for (int64_t j = first; j < std::min(first + kPart, count); ++j) {
      for (int v = 0; v < kVectors; ++v) {
        const vector_t<Acc> other = load_at(others + j * width + v * kLanes);
        for (int i = 0; i < kOwn; ++i) part[i][v] += k[i * count + j] * (mine[i][v] - other);
      }
    }
    for (int i = 0; i < kOwn; ++i) {
      for (int v = 0; v < kVectors; ++v) sum[i][v] += part[i][v];
    }
  }
  for (int i = 0; i < kOwn; ++i) {
    for (int v = 0; v < kVectors; ++v) store_at(gradient[i] + v * kLanes, scale * sum[i][v]);
  }
}

// Computes the gradients of kOwn rows from k [kOwn, rows of the other side].
template <typename Acc>
void gradients_of_rows(const Direct<Acc>& p, int side, const Acc* const* rows, const Acc* k, Acc* const* gradients) {
  constexpr int kLanes = Simd<Acc>::kLanes, kVectors = 2;
  const int64_t count = p.rows[1 - side], width = p.width;
  const Acc scale = Acc(p.scale);
  const auto whole = [](const Acc* from) { return load_vector(from); };
  const auto write = [](Acc* to, vector_t<Acc> v) { store_vector(to, v); };
  int64_t d = 0;
  const auto columns = [&](auto vectors, auto load_at, auto store_at) {
    const Acc* own[kOwn];
    Acc* to[kOwn];
    for (int i = 0; i < kOwn; ++i) {
      own[i] = rows[i] + d;
      to[i] = gradients[i] + d;
    }
    weighted_differences<vectors>(own, p.features[1 - side].data + d, count, width, k, scale, to, load_at, store_at);
  };
  for (; d + kVectors * kLanes <= width; d += kVectors * kLanes) {
    columns(std::integral_constant<int, kVectors>(), whole, write);
  }
  for (; d + kLanes <= width; d += kLanes) columns(std::integral_constant<int, 1>(), whole, write);
  if (d == width) return;
  columns(
      std::integral_constant<int, 1>(), [&](const Acc* from) { return load_first<Acc>(from, width - d, Acc(0)); },
      [&](Acc* to, vector_t<Acc> v) { store_first<Acc>(to, v, width - d); });
}

template <typename Acc>
void gradient(const Direct<Acc>& p, int side, int64_t begin, int64_t end) {
  const int64_t count = p.rows[1 - side], planes = p.per_term ? 2 : 1;
  const std::unique_ptr<Acc[]> k(new Acc[kOwn * count]);
  for (int64_t first = begin; first < end; first += kOwn) {
    const Acc* rows[kOwn];
    for (int64_t plane = 0; plane < planes; ++plane) {
      Acc* to[kOwn];
      for (int r = 0; r < kOwn; ++r) {
        const int64_t row = std::min(first + r, end - 1);  // beyond the end, the last row and its result are repeated
        to[r] = p.gradient[side] + (plane * p.rows[side] + row) * p.width;
        rows[r] = p.features[side].data + row * p.width;
        for (int64_t other = 0; other < count; ++other) {
          const int64_t i = side == 0 ? row : other, j = side == 0 ? other : row;
          const bool counts = !p.per_term || p.one_class(i, j) == (plane == 0);
          k[r * count + other] = counts ? p.coefficient[i * p.rows[1] + j] : Acc(0);
        }
      }
      gradients_of_rows(p, side, rows, k.get(), to);
    }
  }
}

}  // namespace

}  // namespace fastccsa::all_pairs::cpu::FASTCCSA_ISA

namespace fastccsa::all_pairs::cpu {

template <Isa isa, typename Acc>
DirectKernels<Acc> direct_kernels() {
  return {&FASTCCSA_ISA::pairs<Acc>, &FASTCCSA_ISA::gradient<Acc>};
}
template DirectKernels<float> direct_kernels<Isa::FASTCCSA_ISA, float>();
template DirectKernels<double> direct_kernels<Isa::FASTCCSA_ISA, double>();

}  // namespace fastccsa::all_pairs::cpu

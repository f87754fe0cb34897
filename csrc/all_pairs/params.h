// The parameters that the binding passes to the kernels of the loss over all pairs, without torch's types.
//
// Both sides are sorted by class: sorted row k of a side is row order[k] of its features. A matrix product computes
// the dot products of sorted, centred rows, one tile of rows x columns at a time; this file describes everything else.
#pragma once

#include "core/fault.h"
#include "core/pair_term.h"
#include "core/strided.h"
#include "core/types.h"

namespace fastccsa::all_pairs {

// Products give d^2 = |a|^2 + |b|^2 - 2ab with the rounding errors of its three parts, each of which is up to n =
// |a|^2 + |b|^2. Its relative error is c u / share, where share = d^2 / n, u is the unit roundoff of the sums, and c
// is about 1 to 7 for widths up to 2048. Differences of rows have a relative error of about u for any share, so the
// share decides how much worse products are.
//
// - kNear: below this share the distance is computed again from the rows. In float32, the errors of the loss and of
//   the gradients must be at most twice those of differences. Both are sums of terms in (margin - d) / d, which are
//   rounded a few times themselves; if the share is at least 1/2, the error of d is small compared with these
//   roundings. 16-bit features get gradients of 16 bits, with roundings of 2^-9 or 2^-12, compared with which
//   c u / kClose is small.
// - kClose: below this share the pair's part of the gradient is also computed from the rows. The product of a
//   coefficient K with a - b, computed as K a - K b, has a relative error of u / sqrt(share).
constexpr double kClose = 1.0 / 16;
template <typename T>
constexpr double kNear = sizeof(T) < 4 ? kClose : 0.5;

template <typename T>
struct Side {
  Matrix<const T> features;        // in the caller's order
  const int64_t* order = nullptr;  // [N]
  const int64_t* label = nullptr;  // [N], the classes of the sorted rows, counted from 0
};

// The number of columns that are summed together, and of rows on the CPU. Chunks depend only on sizes, and so do sums.
constexpr int64_t kChunkColumns = 64, kChunkRows = 32;

// The mean of each class, and the spread of its rows.
template <typename T>
struct Classes {
  Side<T> side;
  const int64_t* offset;  // [classes + 1]: where each class begins among the sorted rows
  int64_t classes;
  int64_t width;
  double* mean;    // [classes, width]; 0 for a class without rows
  double* spread;  // [classes, chunks of columns], which add up to the sum of |z - mean|^2
};

// Alignment needs no pairs. For one class with the means A and B, the sum over i, j of |a_i - b_j|^2 is
// n_b sum |a_i - A|^2 + n_a sum |b_j - B|^2 + n_a n_b |A - B|^2: three terms that are never negative, so that nothing
// cancels. The common centre of all rows is computed at the same time.
template <typename Acc>
struct Align {
  const double* mean[2];     // [classes, width]
  const double* spread[2];   // [classes, spread_parts]
  int64_t spread_parts;
  const int64_t* offset[2];  // [classes + 1]
  int64_t classes;
  int64_t width;
  const Acc* weight;         // [classes, classes], or nullptr for weight 1
  double* alignment;         // [classes]
  double* coefficient[2];    // [classes]: see Finish
  Acc* centre;               // [width]

  FASTCCSA_HOST_DEVICE int64_t count(int side, int64_t c) const { return offset[side][c + 1] - offset[side][c]; }

  FASTCCSA_HOST_DEVICE bool has_pairs(int64_t c) const { return count(0, c) > 0 && count(1, c) > 0; }

  FASTCCSA_HOST_DEVICE Acc own_weight(int64_t c) const {
    if (!has_pairs(c)) return Acc(0);
    return weight == nullptr ? Acc(1) : weight[c * classes + c];
  }

  // `between`: |A - B|^2
  FASTCCSA_HOST_DEVICE void finish_class(int64_t c, double own_weight, double between) const {
    const double n[2] = {double(count(0, c)), double(count(1, c))};
    double within[2] = {0, 0};
    for (int side = 0; side < 2; ++side) {
      for (int64_t part = 0; part < spread_parts; ++part) within[side] += spread[side][c * spread_parts + part];
    }
    const double squares = n[1] * within[0] + n[0] * within[1] + n[0] * n[1] * between;
    const Term<double> term = alignment_term(squares, own_weight);
    for (int side = 0; side < 2; ++side) coefficient[side][c] = term.coefficient * n[1 - side];
    alignment[c] = own_weight == 0 ? 0.0 : term.value;
  }

  // `total` is the sum of all rows. A column whose mean is not finite gets the centre 0, so that it stays unchanged.
  FASTCCSA_HOST_DEVICE void set_centre(int64_t d, double total) const {
    const double value = total / double(offset[0][classes] + offset[1][classes]);
    centre[d] = value - value == 0 ? Acc(value) : Acc(0);
  }
};

// The input of the products on the CPU: sorted rows minus the common centre, and their squared norms.
template <typename T>
struct Centre {
  using Acc = acc_t<T>;
  Side<T> side;
  int64_t rows;
  int64_t width;
  const Acc* centre;  // [width]
  Acc* centred;       // [N, width]
  Acc* norm;          // [N]
};

// One tile on the CPU; for CUDA see cuda/tile.h. Kernels replace the dot products of centred rows in it by coefficients
// K: the gradient of the separation term is sum_j K_ij (a_i - b_j) for row i, and sum_i K_ij (b_j - a_i) for column j.
template <typename T>
struct Tile {
  using Acc = acc_t<T>;
  Side<T> side[2];
  int64_t begin[2];     // the sorted rows of the tile's first row and first column
  int64_t rows, columns;
  int64_t width;
  Acc* values;          // [rows, columns]
  int64_t stride;       // from row to row of `values`
  const Acc* norm[2];   // [N], squared norms of the centred sorted rows
  const Acc* weight;    // [classes, classes], or nullptr for weight 1
  int64_t classes;
  Acc margin;
  double* sums[2];      // [N]: the sum of K over each sorted row; the tile's is added
  Acc* gradient[2];     // [N, width] of sorted rows: receives the part of close pairs; nullptr: not needed
  double* loss;         // [N]: the sum of W (margin - d)^2 over each sorted row of side 0; the tile's is added
};

// The last step: writes the gradients of the sorted rows in the caller's order.
template <typename T, typename Mean = double>
struct Finish {
  using Acc = acc_t<T>;
  Side<T> side;
  int64_t rows;
  int64_t width;
  const Mean* other_mean;      // [classes, width], of the other side; not read for a class whose coefficient is 0
  const double* coefficient;   // [classes]: the alignment gradient of z is coefficient * (z - other_mean)
  const Acc* centre;           // [width]
  const double* sums;          // [N]
  const Acc* separation;       // [N, width]
  double scale;                // a factor of the results
  const Acc* poison;           // added to the results: see cuda::Given; nullptr: 0
  Acc* gradient;               // [1, N, width] of the loss, or [2, N, width] of alignment and separation
  bool per_term;               // whether `gradient` has the second form
  const int64_t* place = nullptr;  // [classes]: the mean of class c is stored at place[c]; nullptr: at c
};

// Adds up the terms: alignment by class, and separation by row of side 0 or, on CUDA, by tile.
template <typename Acc>
struct Terms {
  const double* alignment;   // [classes]
  int64_t classes;
  const double* separation;  // [rows]
  int64_t rows;
  double scale;
  const Acc* poison;         // added to the results: see cuda::Given; nullptr: 0
  Acc* loss;                 // []
  Acc* terms;                // [2]

  FASTCCSA_HOST_DEVICE void finish(double alignment_sum, double separation_sum) const {
    const Acc zero_or_nan = poison == nullptr ? Acc(0) : *poison;
    terms[0] = Acc(scale * alignment_sum) + zero_or_nan;
    terms[1] = Acc(scale * separation_sum) + zero_or_nan;
    *loss = terms[0] + terms[1];
  }
};

// The whole problem: the rows of both sides, and where their loss and gradients go.
template <typename T>
struct Problem {
  using Acc = acc_t<T>;
  Matrix<const T> features[2];
  Vector<const int64_t> label[2];
  int64_t rows[2];
  int64_t width;
  Matrix<const Acc> weight;    // [labels, labels], or no data for weight 1
  int64_t labels;              // labels are in [0, labels); 0: they may be any numbers, and there are no weights
  Acc margin;
  double scale;                // a factor of the results
  bool per_term;               // whether each term has its own gradient
  Acc* loss;                   // []
  Acc* terms;                  // [2]: alignment and separation
  Acc* gradient[2];            // [1, N, width] of the loss, or [2, N, width] of each term; nullptr: not needed

  FASTCCSA_HOST_DEVICE bool one_class(int64_t i, int64_t j) const { return label[0][i] == label[1][j]; }
  FASTCCSA_HOST_DEVICE PairTerm<Acc> pair(Acc squared_distance, int64_t i, int64_t j) const {
    const int64_t l1 = label[0][i], l2 = label[1][j];
    const Acc w = weight.data == nullptr ? Acc(1) : weight.row(l1)[l2 * weight.column_stride];
    return pair_term(squared_distance, l1 == l2, w, margin);
  }

  // Returns the first fault in a pair's labels and weight. Reads nothing out of bounds.
  FASTCCSA_HOST_DEVICE FaultReport fault(int64_t i, int64_t j) const {
    if (weight.data == nullptr) return {};
    const int64_t l1 = label[0][i], l2 = label[1][j];
    if (l1 < 0 || l1 >= labels) return {Fault::kTarget1, i, l1};
    if (l2 < 0 || l2 >= labels) return {Fault::kTarget2, j, l2};
    if (!is_weight(weight.row(l1)[l2 * weight.column_stride])) return {Fault::kPairWeight, i, l1 * labels + l2};
    return {};
  }

  // The last step: computes the terms and the loss from the sums over all pairs.
  FASTCCSA_HOST_DEVICE void finish(double alignment, double separation) const {
    terms[0] = Acc(scale * alignment);
    terms[1] = Acc(scale * separation);
    *loss = terms[0] + terms[1];
  }
};

// Few pairs: each is computed from the differences of its rows, without sorting. On the CPU, features must be
// contiguous and of the type of sums.
template <typename T>
struct Direct : Problem<T> {
  acc_t<T>* coefficient;  // [N1, N2], scratch: K_ij as in a tile, but also for pairs of one class
  double* sums;           // [2, rows of side 0; on CUDA, blocks], scratch: sums of alignment, and of separation
};

// Scratch for the products on the CPU, which process one panel of the matrix of pairs at a time.
template <typename Acc>
struct PanelScratch {
  Acc* packed[2];   // centred rows, as right factors
  Acc* transposed;  // the centred rows of side 1, as columns of a right factor
  Acc* values;      // of a panel
  Acc* product[2];  // [N, width]; nullptr: this gradient is not needed
};

// On CUDA a block of warps takes this many rows of side 0 and of side 1, and stores one sum per term.
constexpr int64_t kDirectRows = 4, kDirectColumns = 32;

FASTCCSA_HOST_DEVICE int64_t direct_blocks(int64_t rows1, int64_t rows2) {
  return ((rows1 + kDirectRows - 1) / kDirectRows) * ((rows2 + kDirectColumns - 1) / kDirectColumns);
}

// Whether the distance of a pair of different classes must be computed from its rows. This includes NaN. A pair that is
// beyond the margin by more than any rounding error contributes nothing either way.
template <typename T, typename Value>
FASTCCSA_HOST_DEVICE auto is_near(Value squared_distance, Value norms, acc_t<T> margin) {
  using Acc = acc_t<T>;
  const auto exact = squared_distance > Acc(kNear<T>) * norms;  // false for NaN, as is `beyond`
  const auto beyond = squared_distance >= margin * margin + Acc(kClose / 2) * norms;
  return !(exact | beyond);
}

// Whether the gradient of a near pair must be computed from its rows too, given the distance computed from the rows.
template <typename Acc>
FASTCCSA_HOST_DEVICE bool is_close(Acc squared_distance, Acc norms) {
  return !(squared_distance > Acc(kClose) * norms);
}

template <typename Acc>
FASTCCSA_HOST_DEVICE Acc pair_weight(const Acc* weight, int64_t classes, int64_t label1, int64_t label2) {
  if (label1 == label2) return Acc(0);
  return weight == nullptr ? Acc(1) : weight[label1 * classes + label2];
}

// Writes the gradient of column d of sorted row k, whose value is z.
template <typename T, typename Mean>
FASTCCSA_HOST_DEVICE void finish_value(const Finish<T, Mean>& p, int64_t k, int64_t d, double z) {
  using Acc = acc_t<T>;
  const int64_t label = p.side.label[k], to = p.side.order[k] * p.width + d, from = k * p.width + d;
  const Acc zero_or_nan = p.poison == nullptr ? Acc(0) : *p.poison;
  const double coefficient = p.coefficient[label];
  Acc alignment = zero_or_nan;
  if (coefficient != 0) {
    const int64_t place = p.place == nullptr ? label : p.place[label];
    alignment += Acc(p.scale * coefficient * (z - double(p.other_mean[place * p.width + d])));
  }
  const Acc centred = Acc(z) - p.centre[d];
  const Acc separation = Acc(p.scale * (p.sums[k] * double(centred) + double(p.separation[from])));
  if (p.per_term) {
    p.gradient[to] = alignment;
    p.gradient[p.rows * p.width + to] = separation + zero_or_nan;
  } else {
    p.gradient[to] = alignment + separation;
  }
}

}  // namespace fastccsa::all_pairs

// What the binding hands to the kernels of the loss over all pairs. No torch here.
//
// Both sides are sorted by class: sorted row k of a side is row order[k] of its features. Products of sorted, centred
// rows come from the machine's matrix product, a tile of rows x columns at a time; what happens to a tile stands here.
#pragma once

#include "zipped/params.h"

namespace fastccsa::allpairs {

using zipped::acc_t;
using zipped::Matrix;

// A squared distance d^2 = |a|^2 + |b|^2 - 2ab carries the rounding of its three parts. Below this share of
// |a|^2 + |b|^2 the pair is computed again from its rows, so that the error is never more than 1 / kClose times that.
constexpr double kClose = 1.0 / 16;

template <typename T>
struct Side {
  Matrix<const T> features;        // in the caller's order
  const int64_t* order = nullptr;  // [N]
  const int64_t* label = nullptr;  // [N], the classes of the sorted rows, counted from 0
};

// Columns that are summed together, and rows on the CPU: chunks depend on sizes alone, so the sums do too.
constexpr int64_t kChunkColumns = 64, kChunkRows = 32;

// The mean of each class, and how its rows lie around it.
template <typename T>
struct Classes {
  Side<T> side;
  const int64_t* offset;  // [classes + 1]: where each class begins among the sorted rows
  int64_t classes;
  int64_t width;
  double* mean;    // [classes, width]; 0 for a class without rows
  double* spread;  // [classes, chunks of columns], the sum of |z - mean|^2
};

// One tile: in come dot products of centred rows, out go coefficients K, so that the gradient of the separation term
// for row i is sum_j K_ij (a_i - b_j), and for column j sum_i K_ij (b_j - a_i).
template <typename T>
struct Tile {
  using Acc = acc_t<T>;
  Side<T> side[2];
  int64_t begin[2];     // the sorted row that the tile's first row, and first column, stands for
  int64_t rows, columns;
  int64_t width;
  Acc* values;          // [rows, columns]
  const Acc* norm[2];   // [N], squared norms of the centred sorted rows
  const Acc* weight;    // [classes, classes], or nullptr for weight 1
  int64_t classes;
  Acc margin;
  double* sums[2];      // [N]: the sums of K over a sorted row, added to
  Acc* gradient[2];     // [N, width] of sorted rows: what pairs computed from their rows add; nullptr: not wanted
  double* loss;         // [N]: the sum of W (margin - d)^2 over a sorted row of side 0, added to
  int32_t* close;       // [rows, ceil(columns / 32)], on CUDA: a bit a pair that was computed from its rows
};

// The end: gradients of sorted rows go to the caller's order.
template <typename T>
struct Finish {
  using Acc = acc_t<T>;
  Side<T> side;
  int64_t rows;
  int64_t width;
  const double* other_mean;    // [classes, width], of the other side
  const double* coefficient;   // [classes]: the alignment gradient of z is coefficient * (z - other_mean)
  const Acc* centred;          // [N, width]
  const double* sums;          // [N]
  const Acc* separation;       // [N, width]
  double scale;                // of everything
  Acc* gradient;               // [1 or 2, N, width]: both terms together, or alignment and separation apart
  bool apart;
};

// Whether a pair of different classes has to be computed from its rows; so does one whose squared distance is no number.
// Beyond the margin by more than any rounding, it has no part in the sums anyway.
template <typename Acc>
FASTCCSA_HOST_DEVICE bool is_close(Acc squared_distance, Acc norms, Acc margin) {
  return !(squared_distance > Acc(kClose) * norms) && !(squared_distance >= margin * margin + Acc(kClose / 2) * norms);
}

template <typename Acc>
FASTCCSA_HOST_DEVICE Acc pair_weight(const Acc* weight, int64_t classes, int64_t label1, int64_t label2) {
  if (label1 == label2) return Acc(0);
  return weight == nullptr ? Acc(1) : weight[label1 * classes + label2];
}

// The gradient of column d of sorted row k, whose value is z.
template <typename T>
FASTCCSA_HOST_DEVICE void finish_value(const Finish<T>& p, int64_t k, int64_t d, double z) {
  using Acc = acc_t<T>;
  const int64_t label = p.side.label[k], to = p.side.order[k] * p.width + d, from = k * p.width + d;
  const Acc alignment = Acc(p.scale * p.coefficient[label] * (z - p.other_mean[label * p.width + d]));
  const Acc separation = Acc(p.scale * p.sums[k]) * p.centred[from] + Acc(p.scale) * p.separation[from];
  if (p.apart) {
    p.gradient[to] = alignment;
    p.gradient[p.rows * p.width + to] = separation;
  } else {
    p.gradient[to] = alignment + separation;
  }
}

}  // namespace fastccsa::allpairs

// Checks and selections of labels and weights that the host can read.
#pragma once

#include "core/fault.h"
#include "core/strided.h"

#include <vector>

namespace fastccsa::all_pairs {

// Returns the first label outside [0, labels), or else the first weight that is negative or not finite. If `labels` is
// 0, nothing is checked.
template <typename Acc>
FaultReport first_fault(const Vector<const int64_t> (&label)[2], const int64_t (&rows)[2], int64_t labels,
                        const Matrix<const Acc>& weight) {
  for (int side = 0; labels > 0 && side < 2; ++side) {
    for (int64_t k = 0; k < rows[side]; ++k) {
      const int64_t value = label[side][k];
      if (value < 0 || value >= labels) return {side == 0 ? Fault::kTarget1 : Fault::kTarget2, k, value};
    }
  }
  for (int64_t k = 0; weight.data != nullptr && k < labels * labels; ++k) {
    if (!is_weight(weight.row(k / labels)[k % labels * weight.column_stride])) return {Fault::kPairWeight, 0, k};
  }
  return {};
}

// Returns the weights of pairs of the given classes: [classes, classes].
template <typename Acc>
std::vector<Acc> weights_of(const std::vector<int64_t>& classes, const Matrix<const Acc>& weight) {
  std::vector<Acc> picked;
  picked.reserve(classes.size() * classes.size());
  for (const int64_t row : classes) {
    for (const int64_t column : classes) picked.push_back(weight.row(row)[column * weight.column_stride]);
  }
  return picked;
}

}  // namespace fastccsa::all_pairs

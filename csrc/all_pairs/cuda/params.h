// Parameters of the kernels that exist only for CUDA: they prepare the sweep over tiles.
#pragma once

#include "all_pairs/params.h"

namespace fastccsa::all_pairs::cuda {

// Makes contiguous copies of the labels and the weights. If `poison` is given, they are checked: the kernel reports a
// bad value to the host's next call, replaces a bad label by 0, so that nothing is read out of bounds, and sets
// `poison` to NaN, which the last kernels add to all results.
template <typename Acc>
struct Inputs {
  Vector<const int64_t> given_label[2];
  int64_t rows[2];
  Matrix<const Acc> given_weight;  // [classes, classes], or no data
  int64_t classes;
  int64_t* label[2];  // [N]
  Acc* weight;        // [classes, classes]
  Acc* poison;        // [], 0 at first; nullptr: not checked
};

// Numbers the classes of sorted labels that may be any numbers: a class has the number of rows, of both sides, with a
// smaller label.
struct Ranks {
  const int64_t* sorted[2];  // [N], the labels
  int64_t rows[2];
  int64_t* label[2];         // [N], the class numbers
};

// Finds where each class begins among the sorted rows.
struct Offsets {
  const int64_t* label[2];  // [N], sorted
  int64_t rows[2];
  int64_t classes;
  int64_t* offset[2];       // [classes + 1]
};

}  // namespace fastccsa::all_pairs::cuda

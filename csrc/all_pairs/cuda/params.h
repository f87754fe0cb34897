// Parameters of the kernels that only CUDA has: they prepare the sweep over tiles.
#pragma once

#include "all_pairs/cuda/tf32.h"
#include "all_pairs/params.h"

namespace fastccsa::all_pairs::cuda {

// Contiguous copies of the labels and the weights. With `poison`, they are checked: the kernel reports a bad one to
// the host's next call, replaces a bad label by 0, so that nothing is read out of bounds, and sets `poison` to NaN,
// which the last kernels add to all results.
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

// Class numbers for sorted labels that nothing bounds: the number of rows of both sides with a smaller label.
struct Ranks {
  const int64_t* sorted[2];  // [N], the labels
  int64_t rows[2];
  int64_t* label[2];         // [N], the class numbers
};

// Where each class begins among the sorted rows.
struct Offsets {
  const int64_t* label[2];  // [N], sorted
  int64_t rows[2];
  int64_t classes;
  int64_t* offset[2];       // [classes + 1]
};

// How far the rows of each block of sorted rows lie from the mean of the block, at most.
template <typename T>
struct Radii {
  Side<T> side;
  const int64_t* offset;  // [blocks + 1]
  int64_t blocks;
  int64_t width;
  const double* mean;     // [blocks, width]
  double* radius;         // [blocks]; NaN if a row has one
};

// Two parts of each value that TF32 holds exactly: see split_tf32.
struct Split {
  const float* value;  // [count]
  int64_t count;
  float* large;        // [count]
  float* small;        // [count]
};

}  // namespace fastccsa::all_pairs::cuda

// Parameters of the kernels that exist only for CUDA: they prepare the sweep over tiles.
#pragma once

#include "all_pairs/cuda/tf32.h"
#include "all_pairs/params.h"

namespace fastccsa::all_pairs::cuda {

// Finds the largest distance of the rows of each block of sorted rows from the mean of the block.
template <typename T>
struct Radii {
  Side<T> side;
  const int64_t* offset;  // [blocks + 1]
  int64_t blocks;
  int64_t width;
  const double* mean;     // [blocks, width]
  double* radius;         // [blocks]; NaN if a row has one
};

// Splits each value into two parts that TF32 represents exactly: see split_tf32.
struct Split {
  const float* value;  // [count]
  int64_t count;
  float* large;        // [count]
  float* small;        // [count]
};

}  // namespace fastccsa::all_pairs::cuda

// Parameters of the fused kernels of the loss over all pairs, for 16-bit features on CUDA.
//
// A block of threads keeps the features of a few rows of one side in shared memory and passes over the rows of the
// other side, the columns, in tiles. Tensor cores multiply the rows by a tile, which gives the distances of its pairs;
// these become coefficients K of the gradient, which tensor cores multiply by the same tile. No matrix of pairs is
// stored. The rows of one side are taken first and then, with exchanged roles, those of the other.
#pragma once

#include "all_pairs/cuda/prepare_params.h"

#include <cstdint>

namespace fastccsa::all_pairs::cuda {

// Features are padded by zeros, which change neither distances nor products, to 64, 128, 256 or this many columns.
constexpr int kLargestFusedWidth = 512;

// Products of 16-bit values are exact, and tensor cores add them up with a relative error of about 2^-21 of the norms n
// = |a|^2 + |b|^2. Pairs whose share d^2 / n is below these limits are computed again from their rows.
//
// - Of different classes: the error of d^2 is then below 2^-15. The gradient is rounded to 8 or 11 bits anyway.
// - Of one class, in kernels that also compute alignment: the gradient does not depend on d, and rows of one class are
//   close in a trained network; the value of d^2 has an error below 2^-11.
//
// This holds for up to 512 columns. Tensor cores cut sums off, so that all errors may have one sign, and grow with the
// width: at 2048 columns these bounds are 2^-13 and 2^-9. An error of d^2 changes d by half of it, which is less than
// the rounding of a coefficient, 2^-9 in bfloat16 and 2^-12 in float16, up to 65,536 and up to 8192 columns.
constexpr float kFusedNear = 1.0f / 64, kFusedNearOfOneClass = 1.0f / 1024;

// Which terms of the loss a launch computes.
enum FusedTerms : int { kAlignmentTerm = 1, kSeparationTerm = 2, kBothTerms = 3 };

// How many rows and columns a block of threads takes at a time. `unit` columns are the smallest share of work.
struct FusedShape {
  int rows, unit;
};

// The gradient of alignment, where it is computed from class means instead of pairs: coefficient * (z - other_mean).
struct FusedAlignment {
  const double* coefficient;  // [classes]; nullptr: not computed here
  const float* other_mean;    // by class, of the other side: see Means
  const int64_t* place;       // [classes], or nullptr: see Means
  float* gradient;            // [count, width]; nullptr: it is added to that of separation
};

// The rows of a side as the kernels read them.
template <typename T>
struct FusedSide {
  const T* features;      // [count, stride], rows of padded_width values, aligned to 16 bytes
  int64_t stride;
  const int32_t* label;   // [count]
  const float* norm;      // [count], |z|^2
  const int64_t* offset;  // [classes + 1]: where each class begins among these rows; nullptr: they are not sorted
  const int64_t* order;   // [count]: the gradient of row k is row order[k] of the result; nullptr: row k
  float* gradient;        // [count, width], or nullptr: not needed
  FusedAlignment alignment;
  int count;
  int blocks;             // of rows; 0: this side is not taken as rows
};

// Values that the first kernel finds. All are 0 at first.
struct FusedFindings {
  float poison;           // NaN if a label or a weight is bad
  unsigned largest_norm, largest_weight;  // the bits of the largest values; only for float16
  int wide_labels;        // whether labels that may be any numbers do not fit into 32 bits
};

// Where the rows of a side come from, and where the first kernel copies them.
template <typename T>
struct FusedSource {
  Matrix<const T> features;
  Vector<const int64_t> label;  // in the order of `order`
  const int64_t* order;         // [count]: row k is row order[k] of the features; nullptr: row k
  int count;
  int padded_count;             // rows from `count` on are zeros that are far from everything
  int row_blocks;               // if not 0, copies are stored in blocks of 64 rows x 64 values: see stored.cuh
  T* packed;                    // [padded count, padded width], or nullptr: not copied
  int32_t* label32;             // [padded count]
  float* norm;                  // [padded count]
};

// The shares of work. Blocks of rows are numbered, those of side 0 first. Block of threads c takes the whole blocks of
// rows c, c + G, c + 2 G, ... of the first `waves` * G, so that all of a GPU read the same columns at the same time.
// The units of the remaining blocks of rows are numbered, and block of threads c takes [share[c], share[c + 1]), which
// evens out the work. Blocks of rows that are cut leave partial sums, at most two for each block of threads.
//
// If rows are not sorted, all blocks of rows of a side have the same number of units, and nothing needs to be stored.
//
// Blocks of threads that all read the same columns at the same moment would wait for each other, because these columns
// lie in a few slices of the L2 cache. So they begin with different columns, within a window that fits into the cache.
struct FusedPlan {
  int threads_blocks;   // G
  int waves;
  int window;           // units; block of threads c begins a whole block of rows at unit c % window
  int units[2];         // of a block of rows of each side, if rows are not sorted
  int split_units;      // the sum of `share`, if rows are not sorted
  int32_t* first_unit;  // [blocks of rows - waves * G + 1]; nullptr: not sorted
  int32_t* share;       // [G + 1]
};

template <typename T>
struct Fused {
  FusedSource<T> source[2];
  FusedSide<T> side[2];
  FusedShape shape;
  FusedPlan plan;
  int width, padded_width;     // the features' columns, and those of their packed copies
  Matrix<const float> weight;  // [classes, classes], or no data for weight 1
  int64_t labels;              // labels are checked to be in [0, labels); 0: not checked
  int check;                   // whether labels and weights are checked
  float margin;
  double scale;                // a factor of the gradients
  FusedTerms terms;
  int skip_tiles;              // whether products with tiles of coefficients that are all 0 are skipped
  FusedFindings* found;
  const float* poison;         // [], added to all results; nullptr: 0
  float* partial;              // [2 G, shape.rows, width], or [G, shape.rows, padded width] in streamed_kernel.cuh:
                               // partial sums of gradients
  double* loss;                // [2, G]: alignment and separation, by block of threads
  int loss_side;               // the side whose pass adds up the loss
  float* results[2];           // the loss [] and both terms [2]; nullptr: not needed

  FASTCCSA_HOST_DEVICE int row_blocks() const { return side[0].blocks + side[1].blocks; }
  FASTCCSA_HOST_DEVICE float zero_or_nan() const { return poison == nullptr ? 0.0f : *poison; }
  FASTCCSA_HOST_DEVICE int split_from() const { return plan.waves * plan.threads_blocks; }
};

}  // namespace fastccsa::all_pairs::cuda

// Parameters of the kernels that prepare the loss over all pairs on CUDA: they sort the rows of both sides by class,
// and find class means, alignment and the common centre. prepare.h runs them.
#pragma once

#include "all_pairs/params.h"

#include <type_traits>

namespace fastccsa::all_pairs::cuda {

FASTCCSA_HOST_DEVICE int64_t ceil_divide(int64_t count, int64_t size) { return (count + size - 1) / size; }

// ---- sorting ----

// A block sorts this many rows, one per thread, or checks this many weights.
constexpr int64_t kSortRows = 256, kCheckedWeights = 1024;
// Up to this many classes, rows are sorted by counting. Shared memory holds one or two numbers per class.
constexpr int64_t kCountedClasses = 1024;

// Labels and weights as the caller passed them. If `poison` is given, they are checked: a kernel reports a bad value to
// the host's next call, replaces a bad label by 0, so that nothing is read out of bounds, and makes the value of its
// block NaN. The last kernel of the preparation adds up these values, and the last kernels of the loss add the sum to
// all results.
template <typename Acc>
struct Given {
  Vector<const int64_t> given_label[2];
  int64_t rows[2];
  Matrix<const Acc> given_weight;  // [classes, classes], or no data
  int64_t classes;
  Acc* weight;                     // [classes, classes], receives a contiguous copy
  Acc* poison;                     // [blocks]: 0 or NaN; nullptr: not checked

  FASTCCSA_HOST_DEVICE int64_t weights() const { return given_weight.data == nullptr ? 0 : classes * classes; }
  FASTCCSA_HOST_DEVICE int64_t chunks(int side) const { return ceil_divide(rows[side], kSortRows); }
  // The blocks of the rows of side 0, then of side 1, then of the weights.
  FASTCCSA_HOST_DEVICE int64_t blocks() const {
    return chunks(0) + chunks(1) + ceil_divide(weights(), kCheckedWeights);
  }
};

// Makes contiguous copies of the labels.
template <typename Acc>
struct Inputs : Given<Acc> {
  int64_t* label[2];  // [N]
};

// The rows of a side in the order of their classes. Rows of one class keep their order.
struct SortedRows {
  int64_t* order;    // [N]: sorted row k is row order[k]
  int64_t* label;    // [N], the classes of the sorted rows
  int32_t* label32;  // [N], the same in 32 bits
  int64_t* offset;   // [classes + 1]: where each class begins
};

// Sorts rows by counting the rows of each class: with few rows in one launch, in which each block counts all rows of
// its side, else in three: chunks of rows are counted, the counts of earlier chunks are added up, and rows are placed.
template <typename Acc>
struct CountingSort : Given<Acc> {
  SortedRows sorted[2];
  int32_t* count[2];  // [classes, chunks], scratch: rows of a class in a chunk, then in earlier chunks; nullptr: few rows
  int32_t* total[2];  // [classes], scratch: rows of a class
};

// Numbers the classes of sorted labels. If labels may be any numbers, a class has the number of rows, of both sides,
// with a smaller label.
struct Numbers {
  const int64_t* sorted[2];  // [N], the labels
  int64_t rows[2];
  bool by_rank;              // otherwise the number of a class is its label
  int64_t* label[2];         // [N], the class numbers
  int32_t* label32[2];       // [N], the same in 32 bits
};

// Finds where each class begins among the sorted rows.
struct Offsets {
  const int64_t* label[2];  // [N], sorted
  int64_t rows[2];
  int64_t classes;
  int64_t* offset[2];       // [classes + 1]
};

// ---- means ----

// Means of 16-bit features are rounded to float32: its error is 2^-15 of the distance of neighbouring bfloat16 values,
// and 2^-12 for float16, so that it is small compared with the spread of any rows that differ.
template <typename T>
using mean_t = std::conditional_t<(sizeof(T) < 4), float, double>;

// The means of the classes that have rows on both sides; no other class needs one. There are at most as many of these
// as rows of the smaller side, so with many classes a class is stored at its first row of that side.
template <typename T>
struct Means {
  mean_t<T>* mean[2];    // [min(classes, rows of the smaller side), width]
  const int64_t* place;  // [classes]; nullptr: class c is stored at c
};

// The columns that a warp adds up: 16 bytes per lane.
template <typename T>
constexpr int64_t kWarpColumns = 32 * 16 / int64_t(sizeof(T));

template <typename T>
struct SortedSides {
  Side<T> side[2];
  int64_t rows[2];
  int64_t width;
  const int64_t* offset[2];  // [classes + 1]
  int64_t classes;
  Means<T> means;
  double* spread[2];         // [classes, column_parts(width)], which add up to the sum of |z - mean|^2
};

FASTCCSA_HOST_DEVICE int64_t column_parts(int64_t width) { return ceil_divide(width, kChunkColumns); }

// Adds up the rows of classes. A warp takes a chunk of sorted rows. Most classes that lie within one chunk are finished
// there. A class that continues in other chunks leaves a part in each, and a second launch adds these in a fixed order.
template <typename T>
struct ClassSums : SortedSides<T> {
  int64_t chunk_rows;
  double* part[2];         // [chunks, 2, width]: the means of the chunk's rows of the class that began in an earlier
                           // chunk, and of the class that begins in this chunk and continues in the next
  double* part_spread[2];  // [chunks, 2, column blocks]: their sums of |z - mean|^2
  double* total;           // [chunks of both sides, width]: the sums of all rows; nullptr: not needed

  FASTCCSA_HOST_DEVICE int64_t chunks(int side) const { return ceil_divide(this->rows[side], chunk_rows); }
};

// Alignment by class, the coefficients of its gradient, the common centre, and the sum of the poison.
template <typename T>
struct AlignClasses : Align<acc_t<T>> {
  Means<T> means;
  const double* total;         // [chunks, width]; nullptr: the centre is not needed
  int64_t chunks;
  const acc_t<T>* poison_parts;  // [poison_blocks]
  int64_t poison_blocks;         // 0: nothing was checked
  acc_t<T>* poison;              // []
};

}  // namespace fastccsa::all_pairs::cuda

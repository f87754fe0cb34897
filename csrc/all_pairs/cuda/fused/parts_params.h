// Parameters of the kernels that multiply float32 features in 16-bit parts on Hopper GPUs: see parts.cuh.
#pragma once

#include "all_pairs/cuda/fused/stored_params.h"
#include "all_pairs/cuda/tile.h"

#include <type_traits>

namespace fastccsa::all_pairs::cuda {

// The parts of factors in blocks: see stored.cuh. A block of threads computes kTile columns instead of kBlockColumns.
template <typename P>
struct InBlocks : P {};
template <typename P>
constexpr int kLaneColumns<InBlocks<P>> = kTile / 32;

using BlocksOfHalf = InBlocks<Parts<half, 1>>;  // one product, 11 significant bits as in TF32
using BlocksOfBf16x3 = InBlocks<Bf16x3>;
using BlocksOfBf16x6 = InBlocks<Bf16x6>;

// Slabs of 64 values, to which rows of `width` are padded by zeros. The kernel that computes coefficients spreads other
// work over the first two.
FASTCCSA_HOST_DEVICE int slabs_of_width(int64_t width) {
  return width <= 2 * kBlock ? 2 : int((width + kBlock - 1) / kBlock);
}

// The largest numbers of a problem that are finite, as bits of floats.
struct PartsRange {
  uint32_t value, norm, weight;  // of centred rows of both sides, and of the weights
};

// float16 has few exponents, so its factors are scaled by powers of 2.
struct PartsScale {
  float value = 1, inverse_value = 1, coefficient = 1, inverse_coefficient = 1;
};

// Finds the range. It is needed only for float16.
struct FindRange {
  Side<float> side[2];
  int64_t rows[2];
  int64_t width;
  const float* centre;  // [width]
  const float* weight;  // [classes, classes], or nullptr
  int64_t classes;
  PartsRange* range;    // initially 0
};

// Writes the sorted, centred rows of both sides as parts in blocks, their labels and their squared norms. Rows are
// padded to whole tiles by zeros that are far from everything.
template <typename P>
struct SplitBlocks {
  using Part = typename P::Part;
  Side<float> side[2];
  int64_t rows[2];
  int64_t width;
  int slabs;                // of `width`
  const float* centre;      // [width]
  const PartsRange* range;  // nullptr: nothing is scaled
  Part* parts[2];           // [kParts, slabs, row blocks, kBlock, kBlock]
  float* norm[2];           // [padded rows], of the sum of the parts, without the scale
  int32_t* label[2];        // [padded rows]
};

// The tiles of rows, as a pair, and the run of tiles of columns that a cluster takes.
struct PlaceOfCluster {
  int rows, run;
};

// A part of the pairs whose coefficients are stored together: whole tiles of rows, and of columns.
template <typename P>
struct PairsInBlocks {
  using Part = typename P::Part;
  // Where the pairs are, and their results. `norm` and the labels below are padded; `dot` and `coefficient` are not
  // used, and `stride` is the number of columns in whole tiles.
  TilePairs<float, P> pairs;
  const int32_t* label[2];
  const Part* features[2];
  int64_t row_blocks[2];    // of all rows of a side
  int slabs;                // of the width
  const PartsRange* range;  // nullptr: nothing is scaled
  int tiles[2];
  int runs;                 // parts of a row of tiles, each of which a block of threads takes
  int group;                // clusters of rows that are numbered run by run: see `place`
  bool initial[2];          // whether products of these rows, and of these columns, begin here
  float* product[2];        // [N, width]: minus the sum of K times the other side's row; nullptr: not needed
  Part* coefficients;       // [kParts, row blocks, column blocks, kBlock, kBlock]; nullptr: not needed
  uint8_t* any;             // [row tiles, column tiles, 8 warps]: whether a coefficient of these 16 rows is not 0

  FASTCCSA_HOST_DEVICE int clusters(int side) const { return (tiles[side] + kCluster - 1) / kCluster; }
  FASTCCSA_HOST_DEVICE int blocks() const { return clusters(0) * kCluster * runs; }
  FASTCCSA_HOST_DEVICE int tiles_of_run() const { return (tiles[1] + runs - 1) / runs; }
  // Where a cluster of the first kernel works. The clusters of a group's first run come first, then those of its second
  // run, and after all of its runs the next group.
  FASTCCSA_HOST_DEVICE PlaceOfCluster place(int cluster) const {
    const int first = cluster / (group * runs) * group, within = cluster % (group * runs), left = clusters(0) - first;
    const int size = left < group ? left : group;
    return {first + within % size, within / size};
  }
  // From one part of the coefficients to the next, in bytes.
  FASTCCSA_HOST_DEVICE int64_t coefficients_bytes() const { return int64_t(tiles[0]) * tiles[1] * 4 * kBlockBytes; }
  // From one slab of 64 values of a side's rows to the next, and from one part to the next.
  FASTCCSA_HOST_DEVICE int64_t slab_bytes(int side) const { return row_blocks[side] * kBlockBytes; }
  FASTCCSA_HOST_DEVICE int64_t part_bytes(int side) const { return slab_bytes(side) * slabs; }
};

}  // namespace fastccsa::all_pairs::cuda

// The parameters of the kernels that prepare the factors of products, and that compute the pairs of a tile.
#pragma once

#include "all_pairs/cuda/parts.h"
#include "all_pairs/params.h"

namespace fastccsa::all_pairs::cuda {

// Writes the sorted rows of both sides as parts, and their squared norms. The parts of a row lie one after the other;
// those of side 1 in reverse order, so that one product of longer rows is the sum of several products of parts.
template <typename T, typename P>
struct SplitRows {
  using Acc = acc_t<T>;
  Side<T> side[2];
  int64_t rows[2];
  int64_t width;
  const Acc* centre;           // [width], subtracted from each row; nullptr: nothing is subtracted
  typename P::Part* parts[2];  // [N, kParts, stride]
  int64_t stride;              // `width` rounded up by `padded`; the rest of each part is 0
  Acc* norm[2];                // [N], of the sum of the parts
};

// Rows of factors have a multiple of 8 elements, so that they begin at multiples of 16 bytes in every type.
FASTCCSA_HOST_DEVICE int64_t padded(int64_t width) { return (width + 7) / 8 * 8; }

// A block of threads computes kBlockRows x kBlockColumns pairs. Each warp takes kWarpRows rows one after the other, and
// each of its lanes kLaneColumns columns; both depend on how the parts are stored.
constexpr int kWarpRows = 8, kBlockRows = 64;
template <typename P>
constexpr int kLaneColumns = 8;
template <typename P>
constexpr int kBlockColumns = 32 * kLaneColumns<P>;

FASTCCSA_HOST_DEVICE int64_t blocks_of_rows(int64_t rows) { return (rows + kBlockRows - 1) / kBlockRows; }
template <typename P>
FASTCCSA_HOST_DEVICE int64_t blocks_of_columns(int64_t columns) {
  return (columns + kBlockColumns<P> - 1) / kBlockColumns<P>;
}

// One tile. The first kernel turns the dot products of the rows into coefficients K: the gradient of the separation
// term is sum_j K_ij (a_i - b_j) for row i, and sum_i K_ij (b_j - a_i) for column j.
//
// Close pairs, whose gradients are computed from their rows, have the coefficient 0. `close_rows` has a bit for each
// row and block of columns that has close pairs; only there, `close` has a bit for each pair.
template <typename T, typename P>
struct TilePairs {
  using Acc = acc_t<T>;
  using Part = typename P::Part;
  Side<T> side[2];
  int64_t begin[2];     // the sorted rows of the tile's first row and first column
  int64_t rows, columns;
  int64_t width;
  const Acc* dot;       // [rows, stride]
  int64_t stride;       // `columns` rounded up by `padded`
  const Acc* norm[2];   // [N]
  const Acc* weight;    // [classes, classes], or nullptr for weight 1
  int64_t classes;
  Acc margin;
  Part* coefficient[P::kParts];  // [rows, stride], the parts of K; the first may be `dot`; nullptr: not needed
  Acc* row_sums;        // [blocks of columns, rows]: sums of K
  Acc* column_sums;     // [blocks of rows, stride]
  double* block_loss;   // [blocks of rows, blocks of columns]: sums of W (margin - d)^2
  uint32_t* close_rows; // [blocks of columns, 2 * blocks of rows]: bit r of word w is row 32 w + r
  uint32_t* close;      // [rows, blocks of columns, kLaneColumns]: bit l of word q is column q of lane l
};

// Adds the pieces of a product to a gradient, in their order.
template <typename Acc>
struct AddPieces {
  const Acc* pieces;  // [count, values]
  int64_t count, values;
  Acc* to;            // [values]
};

// The last kernel of a tile: adds up the sums of the blocks, and adds the gradients of close pairs.
template <typename T, typename P>
struct TileSums {
  using Acc = acc_t<T>;
  TilePairs<T, P> tile;
  bool first[2];      // whether this is the first tile of these rows, and of these columns: sums are stored, not added
  double* sums[2];    // [N]: the sum of K over each sorted row
  Acc* gradient[2];   // [N, width] of sorted rows; nullptr: not needed
  double* loss;       // []: of the tile
};

}  // namespace fastccsa::all_pairs::cuda

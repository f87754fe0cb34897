// The loss over all pairs on the CPU.
#pragma once

#include "all_pairs/params.h"
#include "all_pairs/ranges.h"
#include "core/half.h"
#include "core/instruction_sets.h"
#include "core/parallel.h"

#include <vector>

namespace fastccsa::all_pairs::cpu {

// Up to this many pairs are computed pair by pair. The value was measured.
constexpr int64_t kFewPairs = 16384;

// A pair of a tile whose part of the gradients is computed from its rows.
template <typename Acc>
struct ClosePair {
  int32_t row, column;
  Acc coefficient;
};

// The results of a chunk of a tile's rows.
template <typename Acc>
struct ChunkSums {
  Acc* column_sums;  // [columns], initially 0
  std::vector<ClosePair<Acc>> close;
};

// The kernels of one instruction set.
template <typename T>
struct Kernels {
  void (*copy_rows)(const Matrix<const T>& features, int64_t width, Range rows, acc_t<T>* to);  // see copy_features
  void (*add_rows)(const Side<T>& side, int64_t width, Range rows, double* sum);  // sums of columns
  // Computes the squared distance of each row from the mean of its class.
  void (*deviations)(const Side<T>& side, int64_t width, Range rows, const double* mean, double* of_row);
  void (*centre_rows)(const Centre<T>& p, int64_t begin, int64_t end);
  void (*tile_rows)(const Tile<T>& p, int64_t begin, int64_t end, ChunkSums<acc_t<T>>& sums);
  // Adds the close pairs of a tile's rows (columns, for side 1) `own` to columns [begin, end) of their gradients.
  void (*close_pairs)(const Tile<T>& p, int side, const std::vector<ClosePair<acc_t<T>>>& close, Range own,
                      Range columns);
  void (*finish_rows)(const Finish<T>& p, int64_t begin, int64_t end);
};

template <Isa isa, typename T>
Kernels<T> kernels();

template <typename Acc>
struct DirectKernels {
  void (*pairs)(const Direct<Acc>& p, int64_t begin, int64_t end);  // of rows [begin, end) of side 0
  void (*gradient)(const Direct<Acc>& p, int side, int64_t begin, int64_t end);
};
template <Isa isa, typename Acc>
DirectKernels<Acc> direct_kernels();

// C [rows, columns] = alpha A B, or C += alpha A B if `add`. Row i of A begins at a + row_stride * i and consists of
// runs of `run` values that are `step` apart, with an additional `jump` after each run. B is packed in panels of the
// kernels' width, which are panel_stride apart: a panel has `depth` contiguous rows.
template <typename Acc>
struct Product {
  int64_t rows, columns, depth;
  const Acc* a;
  int64_t row_stride, step, run, jump;
  const Acc* b;
  int64_t panel_stride;
  Acc alpha;
  bool add;
  Acc* c;
  int64_t stride;
};

template <typename Acc>
struct ProductKernels {
  int64_t width;  // of packed rows
  void (*product)(const Product<Acc>& p);
  // Packs `count` rows as rows of the right factor, or as its columns, which begin at a multiple of `width`.
  void (*pack)(const Acc* rows, int64_t count, int64_t columns, Acc* packed, int64_t panel_stride);
  void (*pack_transposed)(const Acc* rows, int64_t count, int64_t columns, Acc* packed);
  Acc (*squared_distance)(const Acc* a, const Acc* b, int64_t columns);
};
template <Isa isa, typename Acc>
ProductKernels<Acc> product_kernels();

// Copies features to contiguous rows of the type of sums, which `direct` takes.
template <typename T>
void copy_features(const Matrix<const T>& features, int64_t rows, int64_t width, acc_t<T>* to,
                   ParallelFor parallel_for);

template <typename T>
void class_means(const Classes<T>& p, ParallelFor parallel_for);  // without the spread

template <typename Acc>
void find_centre(const Align<Acc>& p);

template <typename Acc>
void align_classes(const Align<Acc>& p);

template <typename Acc>
void direct(const Direct<Acc>& p, ParallelFor parallel_for);

// Returns the same problem with its sides in the order that `panels` prefers: it packs rows of side 0 once, and rows of
// side 1 twice.
template <typename T>
Problem<T> larger_side_first(const Problem<T>& p);

// The sizes of the scratch of `panels`, in values of type acc_t<T>.
struct PanelSizes {
  int64_t packed[2], transposed, values;
};
template <typename T>
PanelSizes panel_sizes(const Problem<T>& p);

template <typename T>
void panels(const Problem<T>& p, const PanelScratch<acc_t<T>>& scratch, ParallelFor parallel_for);

}  // namespace fastccsa::all_pairs::cpu

// The loss over all pairs on the CPU by matrix products, for more than a few pairs.
//
// Both sides are sorted by class, centred and packed for products, side 0 panel by panel. In each panel of the matrix
// of pairs, threads first take pieces: each computes a product and turns it into coefficients while it is in its cache.
// Then they take strips of both gradients, with one product each. Pieces and strips follow the class boundaries, so
// that few pairs of one class are multiplied. They depend only on sizes and labels, and so do all sums: any number of
// threads gives the same bits.
#include "all_pairs/cpu/sides.h"

#include <algorithm>
#include <numeric>

namespace fastccsa::all_pairs::cpu {
namespace {

constexpr int64_t kPanelRows = 1024, kPanelBytes = 8192;  // the bytes of a row
// Panels of short rows with short packed features may have more rows: threads wait for each other after each panel.
constexpr int64_t kMostPanelBytes = int64_t(1) << 20, kMostPackedBytes = int64_t(3) << 20;
constexpr int64_t kPieceColumns = 512;
constexpr int64_t kLeastWidth = 32;   // the least width of a part of a strip of gradients
constexpr int64_t kTasks = 16;        // if there are this many strips, they are not divided
constexpr int64_t kNearStride = 128;  // up to this stride, a column of values is read in place

// The part of the matrix of pairs that is in memory at one time.
struct Panel {
  Range side[2];  // rows and columns
  std::vector<Strip> strips[2];
};

// A part of a panel that one thread computes, and its results.
template <typename Acc>
struct Piece {
  Range rows, columns;
  std::vector<double> sums[2], loss;  // of coefficients by row and by column; of the loss by row
  std::vector<ClosePair<Acc>> close;  // with rows and columns relative to the first ones
};

// Sizes and strides of the scratch.
template <typename Acc>
struct Layout {
  explicit Layout(const int64_t (&rows)[2], int64_t width, int64_t packed_width)
      : panels((width + packed_width - 1) / packed_width),
        panel_columns(std::min(rows[1], kPanelBytes / int64_t(sizeof(Acc)))),
        // Not a power of two: otherwise all rows would use the same cache sets.
        stride((panel_columns + packed_width - 1) / packed_width * packed_width + 16),
        panel_rows(std::min(rows[0], std::max(kPanelRows, most_rows(width)))),
        sizes{{panels * panel_rows * packed_width, panels * rows[1] * packed_width},
              (rows[1] + packed_width - 1) / packed_width * packed_width * width,
              panel_rows * stride} {}

  int64_t most_rows(int64_t width) const {
    const int64_t bytes = int64_t(sizeof(Acc));
    return std::min(kMostPanelBytes / (stride * bytes), kMostPackedBytes / (std::max<int64_t>(1, width) * bytes));
  }

  int64_t panels;  // of packed rows
  int64_t panel_columns, stride, panel_rows;  // of values
  PanelSizes sizes;
};

template <typename T>
class Sweep {
 public:
  using Acc = acc_t<T>;

  Sweep(const Problem<T>& problem, const PanelScratch<Acc>& scratch, ParallelFor parallel_for)
      : p_(problem), scratch_(scratch), parallel_for_(parallel_for), layout_(p_.rows, p_.width, products<Acc>().width),
        sides_(problem, scratch, layout_.panel_rows, parallel_for), kernel_(sides_.kernel()),
        products_(sides_.product_kernels()), loss_(p_.rows[0], 0.0) {
    for (int side = 0; side < 2; ++side) sums_[side].assign(p_.rows[side], 0.0);
  }

  void run() {
    for (const Range& rows : even_parts({0, p_.rows[0]}, layout_.panel_rows)) {
      sides_.pack_panel(rows);
      const std::vector<Strip> strips = strips_of(rows, sides_.offset(0));
      // Panels begin at the beginnings of groups of packed columns.
      for (int64_t begin = 0; begin < p_.rows[1]; begin += layout_.panel_columns) {
        const Range columns{begin, std::min(p_.rows[1], begin + layout_.panel_columns)};
        const Panel panel{{rows, columns}, {strips, strips_of(columns, sides_.offset(1))}};
        std::vector<Piece<Acc>> pieces = coefficients(panel);
        collect(pieces);
        add_products(panel, pieces);
      }
    }
    sides_.finish(sums_, loss_);
  }

 private:
  Acc* value(const Panel& panel, int64_t i, int64_t j) const {
    return scratch_.values + (i - panel.side[0].begin) * layout_.stride + (j - panel.side[1].begin);
  }

  // Returns the rows of the panel's other side that a strip forms pairs with. Ranges begin and end at multiples of
  // `grain` from the begin of the panel, so they may include other rows.
  std::vector<Range> others_of(const Panel& panel, int side, const Strip& strip, int64_t grain) const {
    const Range& all = panel.side[1 - side];
    std::vector<Range> ranges;
    for (const Strip& other : panel.strips[1 - side]) {
      if (!(side == 0 ? sides_.matter(strip, other) : sides_.matter(other, strip))) continue;
      const int64_t begin = all.begin + (other.begin - all.begin) / grain * grain;
      const int64_t end = std::min(all.end, all.begin + (other.end - all.begin + grain - 1) / grain * grain);
      if (!ranges.empty() && begin <= ranges.back().end) {
        ranges.back().end = end;
      } else {
        ranges.push_back({begin, end});
      }
    }
    return ranges;
  }

  // Computes the panel's coefficients, except those that are known to be 0.
  std::vector<Piece<Acc>> coefficients(const Panel& panel) {
    std::vector<Piece<Acc>> pieces;
    for (const Strip& strip : panel.strips[0]) {
      for (const Range& range : others_of(panel, 0, strip, products_.width)) {
        const int64_t parts = (size(range) + kPieceColumns - 1) / kPieceColumns, packed = products_.width;
        const int64_t step = (size(range) + parts * packed - 1) / (parts * packed) * packed;
        for (int64_t begin = range.begin; begin < range.end; begin += step) {
          pieces.push_back({strip, {begin, std::min(range.end, begin + step)}, {}, {}, {}});
        }
      }
    }
    for_each_task(int64_t(pieces.size()), parallel_for_, [&](int64_t task) { compute(panel, pieces[task]); });
    return pieces;
  }

  // Returns the piece as a tile of sides that begin at its first row and column.
  Tile<T> tile_of(const Panel& panel, Piece<Acc>& piece) const {
    const int64_t i = piece.rows.begin, j = piece.columns.begin;
    const auto product = [&](int side, int64_t first) {
      return scratch_.product[side] == nullptr ? nullptr : scratch_.product[side] + first * p_.width;
    };
    return {{sides_.side_from(0, i), sides_.side_from(1, j)},
            {0, 0},
            size(piece.rows),
            size(piece.columns),
            p_.width,
            value(panel, i, j),
            layout_.stride,
            {sides_.norm(0) + i, sides_.norm(1) + j},
            sides_.weight(),
            sides_.classes(),
            p_.margin,
            {piece.sums[0].data(), piece.sums[1].data()},
            {product(0, i), product(1, j)},
            piece.loss.data()};
  }

  void compute(const Panel& panel, Piece<Acc>& piece) {
    const int64_t rows = size(piece.rows), columns = size(piece.columns), packed = products_.width;
    piece.sums[0].assign(rows, 0.0);
    piece.sums[1].assign(columns, 0.0);
    piece.loss.assign(rows, 0.0);
    const Tile<T> tile = tile_of(panel, piece);
    // The columns of a packed row are contiguous within a panel of packed columns.
    products_.product({rows, columns, p_.width,                                                   //
                       scratch_.packed[0] + sides_.from_panel(piece.rows.begin) * packed, packed, 1, packed,  //
                       sides_.packed_stride(0) - packed,                                                 //
                       scratch_.transposed + piece.columns.begin * p_.width, packed * p_.width,   //
                       Acc(1), false, tile.values, tile.stride});
    std::vector<Acc> column_sums(columns);
    ChunkSums<Acc> sums{column_sums.data(), {}};
    for (int64_t begin = 0; begin < rows; begin += kChunkRows) {  // long float32 sums would lose digits
      column_sums.assign(columns, Acc(0));
      kernel_.tile_rows(tile, begin, std::min(rows, begin + kChunkRows), sums);
      for (int64_t j = 0; j < columns; ++j) piece.sums[1][j] += double(column_sums[j]);
    }
    piece.close = std::move(sums.close);
  }

  void collect(const std::vector<Piece<Acc>>& pieces) {
    for (const Piece<Acc>& piece : pieces) {
      for (int64_t k = 0; k < size(piece.rows); ++k) {
        sums_[0][piece.rows.begin + k] += piece.sums[0][k];
        loss_[piece.rows.begin + k] += piece.loss[k];
      }
      for (int64_t k = 0; k < size(piece.columns); ++k) sums_[1][piece.columns.begin + k] += piece.sums[1][k];
    }
  }

  // Adds the panel's part of both gradients. Each task is a strip of one of them, or some of its columns.
  void add_products(const Panel& panel, std::vector<Piece<Acc>>& pieces) {
    struct Task {
      int side;
      const Strip* strip;
      Range panels;  // of packed columns
    };
    std::vector<Task> tasks;
    int64_t strips = 0;
    for (int side = 0; side < 2; ++side) {
      if (scratch_.product[side] != nullptr) strips += int64_t(panel.strips[side].size());
    }
    if (strips == 0) return;
    const int64_t most = std::clamp<int64_t>(kTasks / strips, 1, std::max<int64_t>(1, p_.width / kLeastWidth));
    for (int side = 0; side < 2; ++side) {
      if (scratch_.product[side] == nullptr) continue;
      for (const Strip& strip : panel.strips[side]) {
        for (const Range& part : even_parts({0, layout_.panels}, (layout_.panels + most - 1) / most)) {
          tasks.push_back({side, &strip, part});
        }
      }
    }
    for_each_task(int64_t(tasks.size()), parallel_for_, [&](int64_t k) {
      add_strip(panel, pieces, tasks[k].side, *tasks[k].strip, tasks[k].panels);
    });
  }

  void add_strip(const Panel& panel, std::vector<Piece<Acc>>& pieces, int side, const Strip& strip,
                 const Range& panels) {
    const int64_t packed = products_.width, rows = size(strip);
    const Range columns{panels.begin * packed, std::min(p_.width, panels.end * packed)};
    Acc* product = scratch_.product[side] + strip.begin * p_.width + columns.begin;
    bool add = panel.side[1 - side].begin > 0;
    std::vector<Acc> own_values;
    for (const Range& range : others_of(panel, side, strip, 1)) {
      const int64_t first = side == 1 ? sides_.from_panel(range.begin) : range.begin;
      const Acc* others = scratch_.packed[1 - side] + panels.begin * sides_.packed_stride(1 - side) + first * packed;
      Product<Acc> of_range{rows, size(columns), size(range), nullptr, 0, 0, 0, 0,
                            others, sides_.packed_stride(1 - side), Acc(-1), add, product, p_.width};
      if (side == 0) {
        of_range.a = value(panel, strip.begin, range.begin);
        of_range.row_stride = layout_.stride;
        of_range.step = 1;
      } else if (layout_.stride <= kNearStride) {
        of_range.a = value(panel, range.begin, strip.begin);
        of_range.row_stride = 1;
        of_range.step = layout_.stride;
      } else {  // gather the values of a column, each of which is in a different page
        own_values.resize(size(range) * rows);
        for (int64_t k = 0; k < size(range); ++k) {
          std::copy_n(value(panel, range.begin + k, strip.begin), rows, own_values.data() + k * rows);
        }
        of_range.a = own_values.data();
        of_range.row_stride = 1;
        of_range.step = rows;
      }
      of_range.run = of_range.depth;
      products_.product(of_range);
      add = true;
    }
    for (int64_t i = 0; !add && i < rows; ++i) std::fill_n(product + i * p_.width, size(columns), Acc(0));
    for (Piece<Acc>& piece : pieces) {
      if (piece.close.empty()) continue;
      const int64_t first = (side == 0 ? piece.rows : piece.columns).begin;
      kernel_.close_pairs(tile_of(panel, piece), side, piece.close, {strip.begin - first, strip.end - first}, columns);
    }
  }

  const Problem<T>& p_;
  const PanelScratch<Acc>& scratch_;
  const ParallelFor parallel_for_;
  const Layout<Acc> layout_;
  Sides<T> sides_;
  const Kernels<T>& kernel_;
  const ProductKernels<Acc>& products_;
  std::vector<double> sums_[2], loss_;  // of coefficients by row; of the loss by row of side 0
};

}  // namespace

template <typename T>
Problem<T> larger_side_first(const Problem<T>& p) {
  if (p.rows[0] >= p.rows[1]) return p;
  Problem<T> other = p;
  std::swap(other.features[0], other.features[1]);
  std::swap(other.label[0], other.label[1]);
  std::swap(other.rows[0], other.rows[1]);
  std::swap(other.weight.row_stride, other.weight.column_stride);
  std::swap(other.gradient[0], other.gradient[1]);
  return other;
}

template <typename T>
PanelSizes panel_sizes(const Problem<T>& p) {
  return Layout<acc_t<T>>(p.rows, p.width, products<acc_t<T>>().width).sizes;
}

template <typename T>
void panels(const Problem<T>& p, const PanelScratch<acc_t<T>>& scratch, ParallelFor parallel_for) {
  Sweep<T>(p, scratch, parallel_for).run();
}

#define FASTCCSA_INSTANCES(T)                       \
  template Problem<T> larger_side_first(const Problem<T>&); \
  template PanelSizes panel_sizes(const Problem<T>&); \
  template void panels(const Problem<T>&, const PanelScratch<acc_t<T>>&, ParallelFor);
FASTCCSA_INSTANCES(float)
FASTCCSA_INSTANCES(double)
FASTCCSA_INSTANCES(bfloat16)
FASTCCSA_INSTANCES(half)

}  // namespace fastccsa::all_pairs::cpu

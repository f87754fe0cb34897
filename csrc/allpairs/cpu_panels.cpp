// The loss over all pairs on the CPU, but for few: one call does all of what fastccsa/_all_pairs.py describes.
//
// Both sides are sorted by class, centred and packed for products. The matrix of pairs is covered by panels. In each,
// threads take pieces: a product on one thread, and the piece becomes coefficients while it is in that thread's cache;
// then strips of both gradients, a product each. All are cut along the classes, so that few pairs of one class are
// multiplied. Pieces depend on sizes and labels alone, and so do all sums: any number of threads gives the same bits.
#include "allpairs/cpu.h"
#include "allpairs/sort.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

namespace fastccsa::allpairs::cpu {
namespace {

constexpr int64_t kPanelRows = 1024, kPanelBytes = 8192;  // of a row of a panel
constexpr int64_t kStripRows = 128;
constexpr int64_t kOwnStrip = 64;  // a class of so many rows has strips of its own, smaller ones share
constexpr int64_t kPieceColumns = 512;
constexpr int64_t kLeastWidth = 128;  // a strip of a gradient is not cut into narrower ones
constexpr int64_t kTasks = 16;        // nor is it cut where there are so many

// Sorted rows of a side, all of one class or all rows of several.
struct Strip : Range {
  int64_t first, last;  // classes
};

bool one_class(const Strip& strip) { return strip.first == strip.last; }

int64_t size(const Range& range) { return range.end - range.begin; }

// `range` in as few parts of at most `limit` as there can be, of nearly one size.
std::vector<Range> even_parts(const Range& range, int64_t limit) {
  const int64_t parts = (size(range) + limit - 1) / limit;
  std::vector<Range> cut;
  for (int64_t k = 0; k < parts; ++k) {
    cut.push_back({range.begin + size(range) * k / parts, range.begin + size(range) * (k + 1) / parts});
  }
  return cut;
}

// The strips of the sorted rows `all`. `offset` says where each class begins.
std::vector<Strip> strips_of(const Range& all, const std::vector<int64_t>& offset) {
  std::vector<Strip> strips;
  bool shared = false;  // whether the last strip takes more classes
  const int64_t first = std::upper_bound(offset.begin(), offset.end(), all.begin) - offset.begin() - 1;
  for (int64_t c = first; c + 1 < int64_t(offset.size()) && offset[c] < all.end; ++c) {
    const Range rows{std::max(all.begin, offset[c]), std::min(all.end, offset[c + 1])};
    if (size(rows) <= 0) continue;
    if (size(rows) >= kOwnStrip) {
      for (const Range& part : even_parts(rows, kStripRows)) strips.push_back({part, c, c});
      shared = false;
    } else if (shared && rows.end - strips.back().begin <= kStripRows) {
      strips.back().end = rows.end;
      strips.back().last = c;
    } else {
      strips.push_back({rows, c, c});
      shared = true;
    }
  }
  return strips;
}

// A part of the matrix of pairs that is held at one time.
struct Panel {
  Range side[2];  // rows and columns
  std::vector<Strip> strips[2];
};

// A part of a panel that one thread computes, and what it leaves behind.
template <typename Acc>
struct Piece {
  Range rows, columns;
  std::vector<double> sums[2], loss;  // of coefficients by row and by column; of the loss by row
  std::vector<ClosePair<Acc>> close;  // counted from its first row and column
};

// Sizes and strides of the scratch.
template <typename Acc>
struct Layout {
  explicit Layout(const int64_t (&rows)[2], int64_t width, int64_t packed_width)
      : panels((width + packed_width - 1) / packed_width),
        panel_rows(std::min(rows[0], kPanelRows)),
        panel_columns(std::min(rows[1], kPanelBytes / int64_t(sizeof(Acc)))),
        // No power of two, whose rows would share the sets of a cache.
        stride((panel_columns + packed_width - 1) / packed_width * packed_width + 16),
        sizes{{panels * rows[0] * packed_width, panels * rows[1] * packed_width},
              (rows[1] + packed_width - 1) / packed_width * packed_width * width,
              panel_rows * stride} {}

  int64_t panels;  // of packed rows
  int64_t panel_rows, panel_columns, stride;  // of values
  PanelSizes sizes;
};

template <typename Acc>
ProductKernels<Acc> products() {
  return for_this_processor([](auto isa) { return product_kernels<isa, Acc>(); });
}

template <typename T>
class Sweep {
 public:
  using Acc = acc_t<T>;

  Sweep(const Problem<T>& problem, const PanelScratch<Acc>& scratch, ParallelFor parallel_for)
      : p_(problem), scratch_(scratch), parallel_for_(parallel_for), sorted_(sort_by_class(p_.label, p_.rows)),
        classes_(int64_t(sorted_.classes.size())), products_(products<Acc>()),
        kernel_(for_this_processor([](auto isa) { return kernels<isa, T>(); })),
        layout_(p_.rows, p_.width, products_.width), centre_(p_.width) {
    for (int side = 0; side < 2; ++side) {
      sides_[side] = {p_.features[side], sorted_.order[side].data(), sorted_.label[side].data()};
      norm_[side].resize(p_.rows[side]);
      sums_[side].assign(p_.rows[side], 0.0);
    }
    loss_.assign(p_.rows[0], 0.0);
  }

  void run() {
    class_means();
    pick_weights();
    const double alignment = align();
    pack_rows();
    for (const Range& rows : even_parts({0, p_.rows[0]}, layout_.panel_rows)) {
      const std::vector<Strip> strips = strips_of(rows, sorted_.offset[0]);
      // Columns are packed so many together from the first one on: panels begin there.
      for (int64_t begin = 0; begin < p_.rows[1]; begin += layout_.panel_columns) {
        const Range columns{begin, std::min(p_.rows[1], begin + layout_.panel_columns)};
        const Panel panel{{rows, columns}, {strips, strips_of(columns, sorted_.offset[1])}};
        std::vector<Piece<Acc>> pieces = coefficients(panel);
        collect(pieces);
        add_products(panel, pieces);
      }
    }
    finish();
    p_.finish(alignment, std::accumulate(loss_.begin(), loss_.end(), 0.0));
  }

 private:
  int64_t count(int side, int64_t c) const { return sorted_.offset[side][c + 1] - sorted_.offset[side][c]; }

  int64_t packed_stride(int side) const { return p_.rows[side] * products_.width; }

  Side<T> side_from(int side, int64_t row) const {
    return {sides_[side].features, sides_[side].order + row, sides_[side].label + row};
  }

  void class_means() {
    const int64_t chunks = (p_.width + kChunkColumns - 1) / kChunkColumns;
    for (int side = 0; side < 2; ++side) {
      mean_[side].resize(classes_ * p_.width);
      spread_[side].resize(classes_ * chunks);
    }
    for_each_task(2 * chunks, parallel_for_, [&](int64_t task) {
      const int64_t side = task % 2, begin = task / 2 * kChunkColumns;
      const Classes<T> p{sides_[side],        sorted_.offset[side].data(), classes_, p_.width,
                         mean_[side].data(), spread_[side].data()};
      kernel_.class_sums(p, begin, std::min(p_.width, begin + kChunkColumns));
    });
  }

  // The weights of pairs of those classes that occur.
  void pick_weights() {
    if (p_.weight.data == nullptr) return;
    weight_.resize(classes_ * classes_);
    for (int64_t c = 0; c < classes_; ++c) {
      const Acc* row = p_.weight.row(sorted_.classes[c]);
      for (int64_t d = 0; d < classes_; ++d) {
        weight_[c * classes_ + d] = row[sorted_.classes[d] * p_.weight.column_stride];
      }
    }
  }

  // Alignment in closed form, and by class the factor of its gradient.
  double align() {
    const int64_t chunks = (p_.width + kChunkColumns - 1) / kChunkColumns;
    double sum = 0;
    for (int side = 0; side < 2; ++side) factor_[side].resize(classes_);
    for (int64_t c = 0; c < classes_; ++c) {
      const double n1 = double(count(0, c)), n2 = double(count(1, c));
      const double weight = weight_.empty() ? 1.0 : double(weight_[c * (classes_ + 1)]);
      factor_[0][c] = 2 * weight * n2;
      factor_[1][c] = 2 * weight * n1;
      if (n1 == 0 || n2 == 0) continue;
      const auto spread_of = [&](int side) {
        const double* of_class = spread_[side].data() + c * chunks;
        return std::accumulate(of_class, of_class + chunks, 0.0);
      };
      double between = 0;
      const double *mean1 = mean_[0].data() + c * p_.width, *mean2 = mean_[1].data() + c * p_.width;
      for (int64_t d = 0; d < p_.width; ++d) between += (mean1[d] - mean2[d]) * (mean1[d] - mean2[d]);
      sum += weight * (n2 * spread_of(0) + n1 * spread_of(1) + n1 * n2 * between);
    }
    return sum;
  }

  void pack_rows() {
    std::vector<double> total(p_.width, 0.0);
    for (int side = 0; side < 2; ++side) {
      for (int64_t c = 0; c < classes_; ++c) {
        const double* mean = mean_[side].data() + c * p_.width;
        for (int64_t d = 0; d < p_.width; ++d) total[d] += double(count(side, c)) * mean[d];
      }
    }
    for (int64_t d = 0; d < p_.width; ++d) {
      const double mean = total[d] / double(p_.rows[0] + p_.rows[1]);
      centre_[d] = std::isfinite(mean) ? Acc(mean) : Acc(0);
    }
    const std::vector<Acc> means[] = {centred_means(0), centred_means(1)};
    std::vector<Acc> from_mean[] = {std::vector<Acc>(p_.rows[0]), std::vector<Acc>(p_.rows[1])};
    over_rows([&](int side, Range rows) {
      std::vector<Acc> centred(size(rows) * p_.width);
      const Centre<T> p{side_from(side, rows.begin),     p_.rows[side], p_.width, centre_.data(), centred.data(),
                        norm_[side].data() + rows.begin};
      kernel_.centre_rows(p, 0, size(rows));
      products_.pack(centred.data(), size(rows), p_.width, scratch_.packed[side] + rows.begin * products_.width,
                     packed_stride(side));
      if (side == 1) {
        products_.pack_transposed(centred.data(), size(rows), p_.width, scratch_.transposed + rows.begin * p_.width);
      }
      for (int64_t k = 0; k < size(rows); ++k) {
        const int64_t own = own_[side][sorted_.label[side][rows.begin + k]];
        if (own < 0) continue;
        from_mean[side][rows.begin + k] =
            products_.squared_distance(centred.data() + k * p_.width, means[side].data() + own * p_.width, p_.width);
      }
    });
    find_distant(means, from_mean);
  }

  // The means of classes with strips of their own, less the common centre.
  std::vector<Acc> centred_means(int side) {
    std::vector<Acc> means;
    own_[side].assign(classes_, -1);
    own_count_[side] = 0;
    for (int64_t c = 0; c < classes_; ++c) {
      if (count(side, c) < kOwnStrip) continue;
      own_[side][c] = own_count_[side]++;
      const double* mean = mean_[side].data() + c * p_.width;
      for (int64_t d = 0; d < p_.width; ++d) means.push_back(Acc(mean[d] - double(centre_[d])));
    }
    return means;
  }

  // Which of these classes lie beyond the margin of each other as a whole, by the triangle inequality. NaN lies nowhere.
  void find_distant(const std::vector<Acc> (&means)[2], const std::vector<Acc> (&from_mean)[2]) {
    std::vector<double> radius[2], norm[2];
    const std::vector<Acc> origin(p_.width);
    for (int side = 0; side < 2; ++side) {
      for (int64_t c = 0; c < classes_; ++c) {
        if (own_[side][c] < 0) continue;
        double farthest = 0;
        for (int64_t k = sorted_.offset[side][c]; k < sorted_.offset[side][c + 1]; ++k) {
          const double squared = double(from_mean[side][k]);
          farthest = std::max(farthest, std::isnan(squared) ? std::numeric_limits<double>::infinity() : squared);
        }
        radius[side].push_back(std::sqrt(farthest));
        const Acc* mean = means[side].data() + own_[side][c] * p_.width;
        norm[side].push_back(std::sqrt(double(products_.squared_distance(mean, origin.data(), p_.width))));
      }
    }
    beyond_.resize(own_count_[0] * own_count_[1]);
    for (int64_t i = 0; i < own_count_[0]; ++i) {
      for (int64_t j = 0; j < own_count_[1]; ++j) {
        const double between = std::sqrt(double(products_.squared_distance(
            means[0].data() + i * p_.width, means[1].data() + j * p_.width, p_.width)));
        const double radii = radius[0][i] + radius[1][j];
        const double slack = 1e-5 * (norm[0][i] + norm[1][j] + radii);  // more than any rounding of these
        beyond_[i * own_count_[1] + j] = between - radii - slack >= double(p_.margin);
      }
    }
  }

  // Calls work(side, rows) for chunks of the rows of both sides.
  template <typename Work>
  void over_rows(Work work) {
    static_assert(kChunkRows % 32 == 0, "chunks begin where packed columns do");
    const int64_t chunks1 = (p_.rows[0] + kChunkRows - 1) / kChunkRows;
    const int64_t chunks2 = (p_.rows[1] + kChunkRows - 1) / kChunkRows;
    for_each_task(chunks1 + chunks2, parallel_for_, [&](int64_t task) {
      const int side = task >= chunks1;
      const int64_t begin = (side == 1 ? task - chunks1 : task) * kChunkRows;
      work(side, Range{begin, std::min(p_.rows[side], begin + kChunkRows)});
    });
  }

  Acc* value(const Panel& panel, int64_t i, int64_t j) const {
    return scratch_.values + (i - panel.side[0].begin) * layout_.stride + (j - panel.side[1].begin);
  }

  // Whether pairs of two strips can have a part in the separation term.
  bool matter(const Strip& row, const Strip& column) const {
    if (!one_class(row) || !one_class(column)) return true;
    if (row.first == column.first) return false;
    const int64_t own1 = own_[0][row.first], own2 = own_[1][column.first];
    return own1 < 0 || own2 < 0 || !beyond_[own1 * own_count_[1] + own2];
  }

  // What of the panel's other side a strip has to meet. Ranges begin and end at multiples of `grain` from the panel's
  // begin, so they may take more.
  std::vector<Range> others_of(const Panel& panel, int side, const Strip& strip, int64_t grain) const {
    const Range& all = panel.side[1 - side];
    std::vector<Range> ranges;
    for (const Strip& other : panel.strips[1 - side]) {
      if (!(side == 0 ? matter(strip, other) : matter(other, strip))) continue;
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

  // The panel's coefficients, where they matter.
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

  // The piece as a tile of sides that begin with it.
  Tile<T> tile_of(const Panel& panel, Piece<Acc>& piece) const {
    const int64_t i = piece.rows.begin, j = piece.columns.begin;
    const auto product = [&](int side, int64_t first) {
      return scratch_.product[side] == nullptr ? nullptr : scratch_.product[side] + first * p_.width;
    };
    return {{side_from(0, i), side_from(1, j)},
            {0, 0},
            size(piece.rows),
            size(piece.columns),
            p_.width,
            value(panel, i, j),
            layout_.stride,
            {norm_[0].data() + i, norm_[1].data() + j},
            weight_.empty() ? nullptr : weight_.data(),
            classes_,
            p_.margin,
            {piece.sums[0].data(), piece.sums[1].data()},
            {product(0, i), product(1, j)},
            piece.loss.data(),
            nullptr};
  }

  void compute(const Panel& panel, Piece<Acc>& piece) {
    const int64_t rows = size(piece.rows), columns = size(piece.columns), packed = products_.width;
    piece.sums[0].assign(rows, 0.0);
    piece.sums[1].assign(columns, 0.0);
    piece.loss.assign(rows, 0.0);
    const Tile<T> tile = tile_of(panel, piece);
    // The columns of a packed row are neighbours; the next ones are a panel further.
    products_.product({rows, columns, p_.width,                                                   //
                       scratch_.packed[0] + piece.rows.begin * packed, packed, 1, packed,         //
                       packed_stride(0) - packed,                                                 //
                       scratch_.transposed + piece.columns.begin * p_.width, packed * p_.width,   //
                       Acc(1), false, tile.values, tile.stride});
    std::vector<Acc> column_sums(columns);
    ChunkSums<Acc> sums{column_sums.data(), {}};
    for (int64_t begin = 0; begin < rows; begin += kChunkRows) {  // long sums of float32 would lose digits
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

  // The panel's part of both gradients, a strip of one of them a task.
  void add_products(const Panel& panel, std::vector<Piece<Acc>>& pieces) {
    struct Task {
      int side;
      const Strip* strip;
      Range panels;  // of packed columns
    };
    std::vector<Task> tasks;
    const int64_t strips = int64_t(panel.strips[0].size() + panel.strips[1].size());
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
      Product<Acc> of_range{rows, size(columns), size(range), nullptr, 0, 0, 0, 0,
                            scratch_.packed[1 - side] + panels.begin * packed_stride(1 - side) + range.begin * packed,
                            packed_stride(1 - side), Acc(-1), add, product, p_.width};
      if (side == 0) {
        of_range.a = value(panel, strip.begin, range.begin);
        of_range.row_stride = layout_.stride;
        of_range.step = 1;
      } else {  // a column's values, each in a page of its own, come together
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

  void finish() {
    over_rows([&](int side, Range rows) {
      if (p_.gradient[side] == nullptr) return;
      const Finish<T> p{sides_[side],           p_.rows[side],          p_.width,
                        mean_[1 - side].data(), factor_[side].data(),   centre_.data(),
                        sums_[side].data(),     scratch_.product[side], p_.scale,
                        p_.gradient[side],      p_.apart};
      kernel_.finish_rows(p, rows.begin, rows.end);
    });
  }

  const Problem<T>& p_;
  const PanelScratch<Acc>& scratch_;
  const ParallelFor parallel_for_;
  const Sorted sorted_;
  const int64_t classes_;
  const ProductKernels<Acc> products_;
  const Kernels<T> kernel_;
  const Layout<Acc> layout_;
  Side<T> sides_[2];
  std::vector<double> mean_[2], spread_[2], factor_[2], sums_[2], loss_;
  std::vector<Acc> centre_, norm_[2], weight_;
  std::vector<int64_t> own_[2];  // [classes]: the number among those with strips of their own, or -1
  int64_t own_count_[2];
  std::vector<char> beyond_;  // [those of side 0, those of side 1]
};

}  // namespace

template <typename T>
PanelSizes panel_sizes(const Problem<T>& p) {
  return Layout<acc_t<T>>(p.rows, p.width, products<acc_t<T>>().width).sizes;
}

template <typename T>
void panels(const Problem<T>& p, const PanelScratch<acc_t<T>>& scratch, ParallelFor parallel_for) {
  Sweep<T>(p, scratch, parallel_for).run();
}

#define FASTCCSA_INSTANCES(T)                       \
  template PanelSizes panel_sizes(const Problem<T>&); \
  template void panels(const Problem<T>&, const PanelScratch<acc_t<T>>&, ParallelFor);
FASTCCSA_INSTANCES(float)
FASTCCSA_INSTANCES(double)
FASTCCSA_INSTANCES(bfloat16)
FASTCCSA_INSTANCES(half)

}  // namespace fastccsa::allpairs::cpu

// Both sides of the loss on the CPU: sorted by class, centred, and packed for products, with their class means.
#pragma once

#include "all_pairs/cpu/cpu.h"
#include "all_pairs/cpu/cut.h"
#include "all_pairs/sort.h"
#include "all_pairs/values.h"

#include <cmath>
#include <limits>
#include <memory>
#include <numeric>

namespace fastccsa::all_pairs::cpu {

template <typename Acc>
ProductKernels<Acc> products() {
  return for_this_processor([](auto isa) { return product_kernels<isa, Acc>(); });
}

template <typename T>
class Sides {
 public:
  using Acc = acc_t<T>;

  // The packed rows are in `scratch`: all of side 1, and at most `panel_rows` of side 0 at a time.
  Sides(const Problem<T>& problem, const PanelScratch<Acc>& scratch, int64_t panel_rows, ParallelFor parallel_for)
      : p_(problem), scratch_(scratch), parallel_for_(parallel_for), products_(products<Acc>()),
        kernel_(for_this_processor([](auto isa) { return kernels<isa, T>(); })),
        sorted_(sort_by_class(p_.label, p_.rows)), classes_(int64_t(sorted_.classes.size())), alignment_(classes_),
        centre_(p_.width), packed_rows_{panel_rows, p_.rows[1]} {
    for (int side = 0; side < 2; ++side) {
      sides_[side] = {p_.features[side], sorted_.order[side].data(), sorted_.label[side].data()};
      norm_[side].resize(p_.rows[side]);
      deviation_[side].resize(p_.rows[side]);
      spread_[side].resize(classes_);
      factor_[side].resize(classes_);
    }
    class_means();
    if (p_.weight.data != nullptr) weight_ = weights_of(sorted_.classes, p_.weight);
    find_centre(aligned());
    find_own_classes();
    pack_rows(1, {0, p_.rows[1]});
    for (size_t k = 0; k < own_[1].size(); ++k) reach_.push_back(reach(1, own_[1][k], rows_of(1, own_[1][k].c)));
  }

  // Packs the rows of side 0 that the next panels need.
  void pack_panel(const Range& rows) {
    panel_ = rows;
    pack_rows(0, rows);
    find_distant();
  }

  const Kernels<T>& kernel() const { return kernel_; }
  const ProductKernels<Acc>& product_kernels() const { return products_; }
  const std::vector<int64_t>& offset(int side) const { return sorted_.offset[side]; }  // of classes
  int64_t classes() const { return classes_; }
  const Acc* weight() const { return weight_.empty() ? nullptr : weight_.data(); }
  const Acc* norm(int side) const { return norm_[side].data(); }
  // The position of a row of side 0 among the packed rows.
  int64_t from_panel(int64_t row) const { return row - panel_.begin; }

  // Returns the side without its first `row` sorted rows.
  Side<T> side_from(int side, int64_t row) const {
    return {sides_[side].features, sides_[side].order + row, sides_[side].label + row};
  }

  // The distance from one panel of packed columns to the next.
  int64_t packed_stride(int side) const { return packed_rows_[side] * products_.width; }

  // Whether pairs of two strips can contribute to the separation term.
  bool matter(const Strip& row, const Strip& column) const {
    if (!one_class(row) || !one_class(column)) return true;
    if (row.first == column.first) return false;
    const int64_t own1 = own_number_[0][row.first], own2 = own_number_[1][column.first];
    return own1 < 0 || own2 < 0 || !beyond_[own1 * int64_t(own_[1].size()) + own2];
  }

  // Computes the results from the sums of coefficients and of the loss by row, and from the products in the scratch.
  void finish(const std::vector<double> (&sums)[2], const std::vector<double>& loss) {
    for (int side = 0; side < 2; ++side) {
      const auto of_row = deviation_[side].begin();
      for (int64_t c = 0; c < classes_; ++c) {
        const Range rows = rows_of(side, c);
        spread_[side][c] = std::accumulate(of_row + rows.begin, of_row + rows.end, 0.0);
      }
    }
    align_classes(aligned());
    for (int side = 0; side < 2; ++side) {
      if (p_.gradient[side] == nullptr) continue;
      const Finish<T> p{sides_[side],           p_.rows[side],          p_.width,
                        mean_[1 - side].data(), factor_[side].data(),   centre_.data(),
                        sums[side].data(),      scratch_.product[side], p_.scale,
                        nullptr,                p_.gradient[side],      p_.per_term};
      over_rows({0, p_.rows[side]}, [&](const Range& rows) { kernel_.finish_rows(p, rows.begin, rows.end); });
    }
    p_.finish(std::accumulate(alignment_.begin(), alignment_.end(), 0.0),
              std::accumulate(loss.begin(), loss.end(), 0.0));
  }

 private:
  // A class with its own strips: its mean minus the common centre, and the norm of this difference.
  struct OwnClass {
    int64_t c;
    std::vector<Acc> mean;
    double norm;
  };

  Range rows_of(int side, int64_t c) const { return {sorted_.offset[side][c], sorted_.offset[side][c + 1]}; }

  Align<Acc> aligned() {
    return {{mean_[0].data(), mean_[1].data()},
            {spread_[0].data(), spread_[1].data()},
            1,
            {sorted_.offset[0].data(), sorted_.offset[1].data()},
            classes_,
            p_.width,
            weight(),
            alignment_.data(),
            {factor_[0].data(), factor_[1].data()},
            centre_.data()};
  }

  void class_means() {
    for (int side = 0; side < 2; ++side) {
      mean_[side].resize(classes_ * p_.width);
      const int64_t* offset = sorted_.offset[side].data();
      const Classes<T> p{sides_[side], offset, classes_, p_.width, mean_[side].data(), nullptr};
      cpu::class_means(p, parallel_for_);
    }
  }

  // Computes everything that depends on single rows while they are in the cache: the centred and packed rows, their
  // norms, and their parts of the spread of their classes.
  void pack_rows(int side, const Range& all) {
    static_assert(kChunkRows % 32 == 0, "chunks begin where packed columns do");
    over_rows(all, [&](const Range& rows) {
      const std::unique_ptr<Acc[]> centred(new Acc[size(rows) * p_.width]);
      const Side<T> own = side_from(side, rows.begin);
      Acc* norm = norm_[side].data() + rows.begin;
      kernel_.centre_rows({own, size(rows), p_.width, centre_.data(), centred.get(), norm}, 0, size(rows));
      kernel_.deviations(own, p_.width, {0, size(rows)}, mean_[side].data(), deviation_[side].data() + rows.begin);
      products_.pack(centred.get(), size(rows), p_.width,
                     scratch_.packed[side] + (rows.begin - all.begin) * products_.width, packed_stride(side));
      if (side == 1) {
        products_.pack_transposed(centred.get(), size(rows), p_.width, scratch_.transposed + rows.begin * p_.width);
      }
    });
  }

  void find_own_classes() {
    const std::vector<Acc> origin(p_.width);
    for (int side = 0; side < 2; ++side) {
      own_number_[side].assign(classes_, -1);
      for (int64_t c = 0; c < classes_; ++c) {
        if (size(rows_of(side, c)) < kOwnStrip) continue;
        own_number_[side][c] = int64_t(own_[side].size());
        OwnClass own{c, std::vector<Acc>(p_.width), 0};
        for (int64_t d = 0; d < p_.width; ++d) own.mean[d] = Acc(mean_[side][c * p_.width + d] - double(centre_[d]));
        own.norm = distance(own.mean, origin);
        own_[side].push_back(std::move(own));
      }
    }
    beyond_.resize(own_[0].size() * own_[1].size());
  }

  double distance(const std::vector<Acc>& a, const std::vector<Acc>& b) const {
    return std::sqrt(double(products_.squared_distance(a.data(), b.data(), p_.width)));
  }

  // Returns an upper bound, valid in spite of rounding, on the distance of the range's rows from the mean of their
  // class. NaN counts as infinitely far.
  double reach(int side, const OwnClass& own, const Range& rows) const {
    double farthest = 0;
    for (int64_t k = rows.begin; k < rows.end; ++k) {
      const double squared = deviation_[side][k];
      farthest = std::max(farthest, std::isnan(squared) ? std::numeric_limits<double>::infinity() : squared);
    }
    const double radius = std::sqrt(farthest);
    return radius + 1e-5 * (own.norm + radius);
  }

  // Finds the pairs of classes whose rows in the panel are all beyond each other's margin, by the triangle inequality.
  void find_distant() {
    for (size_t i = 0; i < own_[0].size(); ++i) {
      const OwnClass& own = own_[0][i];
      const Range all = rows_of(0, own.c), rows{std::max(all.begin, panel_.begin), std::min(all.end, panel_.end)};
      if (size(rows) <= 0) continue;
      const double own_reach = reach(0, own, rows);
      for (size_t j = 0; j < own_[1].size(); ++j) {
        const double between = distance(own.mean, own_[1][j].mean);
        beyond_[i * own_[1].size() + j] = between - own_reach - reach_[j] >= double(p_.margin);
      }
    }
  }

  // Calls work(rows) for chunks of `all`.
  template <typename Work>
  void over_rows(const Range& all, Work work) {
    for_each_task((size(all) + kChunkRows - 1) / kChunkRows, parallel_for_, [&](int64_t task) {
      const int64_t begin = all.begin + task * kChunkRows;
      work(Range{begin, std::min(all.end, begin + kChunkRows)});
    });
  }

  const Problem<T>& p_;
  const PanelScratch<Acc>& scratch_;
  const ParallelFor parallel_for_;
  const ProductKernels<Acc> products_;
  const Kernels<T> kernel_;
  const Sorted sorted_;
  const int64_t classes_;
  Side<T> sides_[2];
  std::vector<double> mean_[2], spread_[2], factor_[2], alignment_;  // by class
  std::vector<double> deviation_[2];  // [N] of the sorted rows, squared, from the means of their classes
  std::vector<Acc> centre_, norm_[2], weight_;
  std::vector<OwnClass> own_[2];
  std::vector<int64_t> own_number_[2];  // [classes]: the position in own_, or -1
  std::vector<double> reach_;           // [size of own_[1]]
  std::vector<char> beyond_;            // [size of own_[0], size of own_[1]]
  const int64_t packed_rows_[2];
  Range panel_{0, 0};
};

}  // namespace fastccsa::all_pairs::cpu

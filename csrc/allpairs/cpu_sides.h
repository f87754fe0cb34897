// Both sides of a loss on the CPU: sorted by class, with their means, centred, and packed for products.
#pragma once

#include "allpairs/cut.h"
#include "allpairs/sort.h"

#include <cmath>
#include <limits>
#include <numeric>

namespace fastccsa::allpairs::cpu {

template <typename Acc>
ProductKernels<Acc> products() {
  return for_this_processor([](auto isa) { return product_kernels<isa, Acc>(); });
}

template <typename T>
class Sides {
 public:
  using Acc = acc_t<T>;

  // `scratch` is written: its packed rows.
  Sides(const Problem<T>& problem, const PanelScratch<Acc>& scratch, ParallelFor parallel_for)
      : p_(problem), scratch_(scratch), parallel_for_(parallel_for), products_(products<Acc>()),
        kernel_(for_this_processor([](auto isa) { return kernels<isa, T>(); })),
        sorted_(sort_by_class(p_.label, p_.rows)), classes_(int64_t(sorted_.classes.size())), centre_(p_.width) {
    for (int side = 0; side < 2; ++side) {
      sides_[side] = {p_.features[side], sorted_.order[side].data(), sorted_.label[side].data()};
      norm_[side].resize(p_.rows[side]);
    }
    class_means();
    pick_weights();
    align();
    pack_rows();
  }

  const Kernels<T>& kernel() const { return kernel_; }
  const ProductKernels<Acc>& product_kernels() const { return products_; }
  const std::vector<int64_t>& offset(int side) const { return sorted_.offset[side]; }  // of classes
  int64_t classes() const { return classes_; }
  const Acc* weight() const { return weight_.empty() ? nullptr : weight_.data(); }
  const Acc* norm(int side) const { return norm_[side].data(); }
  double alignment() const { return alignment_; }

  // The sorted rows from one on.
  Side<T> side_from(int side, int64_t row) const {
    return {sides_[side].features, sides_[side].order + row, sides_[side].label + row};
  }

  // From panel to panel of packed rows.
  int64_t packed_stride(int side) const { return p_.rows[side] * products_.width; }

  // Whether pairs of two strips can have a part in the separation term.
  bool matter(const Strip& row, const Strip& column) const {
    if (!one_class(row) || !one_class(column)) return true;
    if (row.first == column.first) return false;
    const int64_t own1 = own_[0][row.first], own2 = own_[1][column.first];
    return own1 < 0 || own2 < 0 || !beyond_[own1 * own_count_[1] + own2];
  }

  // The gradients: of alignment, and of separation by the sums of coefficients by row, and the products in the scratch.
  void finish(const std::vector<double> (&sums)[2]) {
    over_rows([&](int side, Range rows) {
      if (p_.gradient[side] == nullptr) return;
      const Finish<T> p{sides_[side],           p_.rows[side],          p_.width,
                        mean_[1 - side].data(), factor_[side].data(),   centre_.data(),
                        sums[side].data(),      scratch_.product[side], p_.scale,
                        nullptr,                p_.gradient[side],      p_.apart};
      kernel_.finish_rows(p, rows.begin, rows.end);
    });
  }

 private:
  int64_t count(int side, int64_t c) const { return sorted_.offset[side][c + 1] - sorted_.offset[side][c]; }

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

  // Alignment in closed form, and the common centre.
  void align() {
    std::vector<double> alignment(classes_);
    for (std::vector<double>& factor : factor_) factor.resize(classes_);
    cpu::align(Align<Acc>{{mean_[0].data(), mean_[1].data()},
                          {spread_[0].data(), spread_[1].data()},
                          {sorted_.offset[0].data(), sorted_.offset[1].data()},
                          classes_,
                          p_.width,
                          weight(),
                          alignment.data(),
                          {factor_[0].data(), factor_[1].data()},
                          centre_.data(),
                          nullptr});
    alignment_ = std::accumulate(alignment.begin(), alignment.end(), 0.0);
  }

  void pack_rows() {
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

  const Problem<T>& p_;
  const PanelScratch<Acc>& scratch_;
  const ParallelFor parallel_for_;
  const ProductKernels<Acc> products_;
  const Kernels<T> kernel_;
  const Sorted sorted_;
  const int64_t classes_;
  Side<T> sides_[2];
  std::vector<double> mean_[2], spread_[2], factor_[2];
  double alignment_;
  std::vector<Acc> centre_, norm_[2], weight_;
  std::vector<int64_t> own_[2];  // [classes]: the number among those with strips of their own, or -1
  int64_t own_count_[2];
  std::vector<char> beyond_;  // [those of side 0, those of side 1]
};

}  // namespace fastccsa::allpairs::cpu

// Prepares the loss over all pairs on CUDA, without a host sync: checks labels and weights, sorts the rows of both
// sides by class, and finds class means, alignment and, on request, the common centre. See sweep.h for `Device`.
#pragma once

#include "all_pairs/cuda/prepare_params.h"

#include <algorithm>
#include <limits>
#include <stdexcept>
#include <string>
#include <utility>

namespace fastccsa::all_pairs::cuda {

// Limits that decide how the preparation is computed, but do not change its results.
struct PrepareOptions {
  // Up to this many rows of a side, each block of threads counts all of them. The value was not measured.
  int64_t few_rows = 8192;
  int64_t counted_classes = kCountedClasses;
  int64_t chunk_rows = 0;  // that a warp adds up; 0: by sizes
};

// Enough warps to load features at the speed of the memory: one block of eight on each multiprocessor of a large GPU.
// Chunks have at least one batch of loads, since a warp also loads labels, and are short enough to keep work even.
inline int64_t chunk_rows_of(int64_t rows, int64_t column_blocks) {
  constexpr int64_t kLeast = 8, kMost = 256, kEnoughWarps = 1024;
  return std::clamp(ceil_divide(rows * column_blocks, kEnoughWarps * kLeast) * kLeast, kLeast, kMost);
}

template <typename T, typename Device>
class Prepared {
 public:
  using Acc = acc_t<T>;
  template <typename U>
  using Buffer = typename Device::template Buffer<U>;

  struct SortedSide {
    Buffer<int64_t> order;    // [N]: sorted row k is row order[k]
    Buffer<int64_t> label;    // [N], the classes of the sorted rows
    Buffer<int32_t> label32;  // [N], the same in 32 bits
    Buffer<int64_t> offset;   // [classes + 1]: where each class begins
    Buffer<mean_t<T>> mean;   // see Means
    Buffer<double> spread;    // [classes, column_parts(width)]
    Buffer<double> factor;    // [classes]: see Finish
  };

  Prepared(Device& device, const Problem<T>& problem, const PrepareOptions& options = {})
      : device_(device), p_(problem), options_(options) {
    for (int k = 0; k < 2; ++k) {
      if (p_.rows[k] <= std::numeric_limits<int32_t>::max()) continue;
      throw std::runtime_error("features" + std::to_string(k + 1) + " has " + std::to_string(p_.rows[k]) +
                               " rows; on CUDA, the loss over all pairs takes at most 2147483647 per side");
    }
  }

  // Sorts the rows, and copies and checks the weights.
  void sort() {
    counts_rows() ? sort_by_counting() : sort_on_device();
  }

  // After the sort: finds class means, alignment, the sum of the poison and, if `centre`, the common centre.
  void find_means(bool centre) {
    const int64_t means = std::min({classes, p_.rows[0], p_.rows[1]}), parts = column_parts(p_.width);
    for (SortedSide& own : side) {
      own.mean = allocate<mean_t<T>>(means * p_.width);
      own.spread = allocate<double>(classes * parts);
      own.factor = allocate<double>(classes);
    }
    const Buffer<double> total = add_rows(centre);
    alignment = allocate<double>(classes);
    if (centre) this->centre = allocate<Acc>(p_.width);
    if (poison_blocks_ > 0) poison = allocate<Acc>(1);
    const Align<Acc> align{{},
                           {side[0].spread.data(), side[1].spread.data()},
                           parts,
                           {side[0].offset.data(), side[1].offset.data()},
                           classes,
                           p_.width,
                           weight.data(),
                           alignment.data(),
                           {side[0].factor.data(), side[1].factor.data()},
                           this->centre.data()};
    device_.run(AlignClasses<T>{align, this->means(), total.data(), chunks_[0] + chunks_[1], poison_parts_.data(),
                             poison_blocks_, poison.data()});
  }

  Side<T> rows_of(int k) const { return {p_.features[k], side[k].order.data(), side[k].label.data()}; }

  Means<T> means() const {
    const int smaller = p_.rows[1] < p_.rows[0];
    const bool by_class = classes <= p_.rows[smaller];
    return {{side[0].mean.data(), side[1].mean.data()}, by_class ? nullptr : side[smaller].offset.data()};
  }

  SortedSide side[2];
  int64_t classes = 0;       // may be more than the classes that occur
  Buffer<Acc> weight;        // [classes, classes], or empty for weight 1
  Buffer<Acc> poison;        // []: 0, or NaN if a label or a weight is bad; empty if nothing is checked
  Buffer<double> alignment;  // [classes], by class
  Buffer<Acc> centre;        // [width], or empty

 private:
  template <typename U>
  Buffer<U> allocate(int64_t count) {
    return device_.template allocate<U>(count);
  }

  bool counts_rows() const { return p_.labels > 0 && p_.labels <= options_.counted_classes; }

  Given<Acc> given() {
    Given<Acc> p{{p_.label[0], p_.label[1]}, {p_.rows[0], p_.rows[1]}, p_.weight, p_.labels, nullptr, nullptr};
    weight = p.weights() > 0 ? allocate<Acc>(p.weights()) : Buffer<Acc>();
    if (p_.labels > 0) {
      poison_blocks_ = p.blocks();
      poison_parts_ = allocate<Acc>(poison_blocks_);
    }
    p.weight = weight.data();
    p.poison = poison_parts_.data();
    return p;
  }

  void sort_by_counting() {
    classes = p_.labels;
    CountingSort<Acc> p{given(), {}, {}, {}};
    Buffer<int32_t> count[2], total[2];
    const bool few = std::max(p_.rows[0], p_.rows[1]) <= options_.few_rows;
    for (int k = 0; k < 2; ++k) {
      SortedSide& own = side[k];
      own.order = allocate<int64_t>(p_.rows[k]);
      own.label = allocate<int64_t>(p_.rows[k]);
      own.label32 = allocate<int32_t>(p_.rows[k]);
      own.offset = allocate<int64_t>(classes + 1);
      p.sorted[k] = {own.order.data(), own.label.data(), own.label32.data(), own.offset.data()};
      if (few) continue;
      count[k] = allocate<int32_t>(classes * p.chunks(k));
      total[k] = allocate<int32_t>(classes);
      p.count[k] = count[k].data();
      p.total[k] = total[k].data();
    }
    device_.run(p);
  }

  void sort_on_device() {
    for (int k = 0; k < 2; ++k) side[k].label = allocate<int64_t>(p_.rows[k]);
    device_.run(Inputs<Acc>{given(), {side[0].label.data(), side[1].label.data()}});
    const int64_t rows = p_.rows[0] + p_.rows[1];
    const bool by_rank = p_.weight.data == nullptr && (p_.labels == 0 || p_.labels > rows);
    classes = by_rank ? rows : p_.labels;
    Numbers numbers{{}, {p_.rows[0], p_.rows[1]}, by_rank, {}, {}};
    Offsets offsets{{}, {p_.rows[0], p_.rows[1]}, classes, {}};
    Buffer<int64_t> sorted[2];
    for (int k = 0; k < 2; ++k) {
      SortedSide& own = side[k];
      auto result = device_.sort(own.label, p_.rows[k]);
      sorted[k] = std::move(result.values);
      own.order = std::move(result.order);
      own.label = allocate<int64_t>(p_.rows[k]);
      own.label32 = allocate<int32_t>(p_.rows[k]);
      own.offset = allocate<int64_t>(classes + 1);
      numbers.sorted[k] = sorted[k].data();
      numbers.label[k] = own.label.data();
      numbers.label32[k] = own.label32.data();
      offsets.label[k] = own.label.data();
      offsets.offset[k] = own.offset.data();
    }
    device_.run(numbers);
    device_.run(offsets);
  }

  // Returns the sums of all rows by chunk, if they are needed.
  Buffer<double> add_rows(bool needs_total) {
    const int64_t column_blocks = ceil_divide(p_.width, kWarpColumns<T>);
    const int64_t rows = options_.chunk_rows > 0 ? options_.chunk_rows
                                                 : chunk_rows_of(p_.rows[0] + p_.rows[1], column_blocks);
    Buffer<double> part[2], part_spread[2], total;
    for (int k = 0; k < 2; ++k) {
      chunks_[k] = ceil_divide(p_.rows[k], rows);
      part[k] = allocate<double>(chunks_[k] * 2 * p_.width);
      part_spread[k] = allocate<double>(chunks_[k] * 2 * column_blocks);
    }
    if (needs_total) total = allocate<double>((chunks_[0] + chunks_[1]) * p_.width);
    const SortedSides<T> sorted{{rows_of(0), rows_of(1)},
                           {p_.rows[0], p_.rows[1]},
                           p_.width,
                           {side[0].offset.data(), side[1].offset.data()},
                           classes,
                           means(),
                           {side[0].spread.data(), side[1].spread.data()}};
    device_.run(ClassSums<T>{sorted,
                             rows,
                             {part[0].data(), part[1].data()},
                             {part_spread[0].data(), part_spread[1].data()},
                             total.data()});
    return total;
  }

  Device& device_;
  const Problem<T>& p_;
  const PrepareOptions options_;
  int64_t chunks_[2] = {0, 0};  // of rows that a warp adds up
  Buffer<Acc> poison_parts_;
  int64_t poison_blocks_ = 0;   // 0: nothing is checked
};

}  // namespace fastccsa::all_pairs::cuda

// The loss over all pairs on CUDA: allocates memory, and runs the kernels and the matrix products in their order.
//
// Both sides are sorted by class. Alignment needs no pairs: around the class means it is a sum over rows. Separation
// needs the pairs of different classes: cuBLAS multiplies tiles of centred rows, a kernel turns the dot products of a
// tile into the coefficients of the gradient in place, and two more products add them up. One sweep over the tiles
// computes the loss and its gradients, in O((N1 + N2) D) memory plus one tile.
//
// This file needs neither torch nor CUDA. `Device` is defined by op.cpp for a GPU, and by the tests for the emulator:
//
//   Buffer<U>                   owns memory of the device; `data()` is null in an empty one
//   Buffer<U> allocate<U>(n)    not initialised
//   Buffer<U> zeros<U>(n)
//   Buffer<U> upload(vector)    from the host
//   vector<U> read(data, n)     to the host, with a host sync
//   Sorted sort(labels, n)      a stable sort of a Buffer<int64_t>, with the buffers `values` and `order`
//   void run(parameters)        starts the kernels for these parameters
//   Blas blas()
//   bool is_capturing()         whether a CUDA graph records the queued work, so that the host must not wait
#pragma once

#include "all_pairs/cuda/params.h"
#include "all_pairs/cuda/plan.h"
#include "all_pairs/cuda/prepare.h"
#include "all_pairs/cuda/products.h"
#include "all_pairs/sort.h"
#include "all_pairs/values.h"

#include <algorithm>
#include <cmath>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace fastccsa::all_pairs::cuda {

struct Options {
  Precision precision = Precision::kIeee;
  int64_t few_pairs = kFewPairs, pairs_without_host_sync = kPairsWithoutHostSync;
  TileSize tile;
};

template <typename T, typename Device>
class Sweep {
 public:
  using Acc = acc_t<T>;

  Sweep(Device& device, const Problem<T>& problem, const Options& options)
      : device_(device), p_(problem), options_(options), syncs_(needs_host_sync()), ready_(device, problem) {}

  // Returns the first bad label or weight if the host finds one; nothing is computed then.
  FaultReport run() {
    if (syncs_) {
      const FaultReport fault = sort_on_host();
      if (fault.fault != Fault::kNone) return fault;
    } else {
      ready_.sort();
    }
    ready_.find_means(true);
    centre_rows();
    sweep(syncs_ ? tiles_by_labels() : all_tiles(p_.rows[0], p_.rows[1], options_.tile, sizeof(Acc)));
    finish();
    return {};
  }

 private:
  template <typename U>
  using Buffer = typename Device::template Buffer<U>;

  // The results of the kernels for one side.
  struct SweptSide {
    Buffer<Acc> centred, parts[2], norm;  // `parts`: of the centred rows, for TF32
    Buffer<double> sums;
    Buffer<Acc> product;  // empty if the gradient is not needed
  };

  bool needs_host_sync() const {
    return p_.rows[0] * p_.rows[1] > options_.pairs_without_host_sync || p_.labels > p_.rows[0] + p_.rows[1];
  }

  // ---- sorting ----

  FaultReport sort_on_host() {
    if (device_.is_capturing()) {
      throw std::runtime_error(
          "a CUDA graph cannot capture the loss over all pairs of " + std::to_string(p_.rows[0]) + " x " +
          std::to_string(p_.rows[1]) + " rows, for which the host must read the labels. It can capture up to " +
          std::to_string(options_.pairs_without_host_sync) + " pairs, with at most as many classes as rows");
    }
    ready_.copy_inputs(false);
    std::vector<int64_t> labels[2];
    for (int side = 0; side < 2; ++side) labels[side] = device_.read(ready_.side[side].label.data(), p_.rows[side]);
    std::vector<Acc> weights;
    if (ready_.weight.data() != nullptr) weights = device_.read(ready_.weight.data(), p_.labels * p_.labels);
    const Vector<const int64_t> label[2] = {{labels[0].data(), 1}, {labels[1].data(), 1}};
    const Matrix<const Acc> weight{weights.empty() ? nullptr : weights.data(), p_.labels, 1};
    const FaultReport fault = first_fault(label, p_.rows, p_.labels, weight);
    if (fault.fault != Fault::kNone) return fault;

    const Sorted sorted = sort_by_class(label, p_.rows);
    ready_.classes = int64_t(sorted.classes.size());
    for (int side = 0; side < 2; ++side) {
      offset_[side] = sorted.offset[side];
      ready_.side[side].order = device_.upload(sorted.order[side]);
      ready_.side[side].label = device_.upload(sorted.label[side]);
      ready_.side[side].offset = device_.upload(sorted.offset[side]);
    }
    if (!weights.empty()) ready_.weight = device_.upload(weights_of(sorted.classes, weight));
    return {};
  }

  // ---- centred rows ----

  Side<T> side(int k) const { return ready_.rows_of(k); }

  void centre_rows() {
    for (int k = 0; k < 2; ++k) {
      SweptSide& own = sides_[k];
      const int64_t values = p_.rows[k] * p_.width;
      own.centred = device_.template allocate<Acc>(values);
      own.norm = device_.template allocate<Acc>(p_.rows[k]);
      own.sums = device_.template zeros<double>(p_.rows[k]);
      if (p_.gradient[k] != nullptr) own.product = device_.template zeros<Acc>(values);
      device_.run(Centre<T>{side(k), p_.rows[k], p_.width, ready_.centre.data(), own.centred.data(), own.norm.data()});
      for (Buffer<Acc>& part : own.parts) part = allocate_part(values);
    }
  }

  // ---- tiles ----

  // The mean of each block, and its distance from the farthest row of the block.
  struct Balls {
    std::vector<double> mean, radius;
  };

  Balls balls_of(int k, const std::vector<Block>& blocks) {
    const int64_t count = int64_t(blocks.size()), chunks = (p_.width + kChunkColumns - 1) / kChunkColumns;
    std::vector<int64_t> begin;
    for (const Block& block : blocks) begin.push_back(block.begin);
    begin.push_back(p_.rows[k]);
    const auto offset = device_.upload(begin);
    const auto mean = device_.template allocate<double>(count * p_.width);
    const auto spread = device_.template allocate<double>(count * chunks);
    const auto radius = device_.template allocate<double>(count);
    device_.run(Classes<T>{side(k), offset.data(), count, p_.width, mean.data(), spread.data()});
    device_.run(Radii<T>{side(k), offset.data(), count, p_.width, mean.data(), radius.data()});
    return {device_.read(mean.data(), count * p_.width), device_.read(radius.data(), count)};
  }

  // Finds the pairs of blocks that are entirely beyond each other's margin, by the triangle inequality. Blocks with NaN
  // never are.
  std::vector<char> beyond_margin(const std::vector<Block>& rows, const std::vector<Block>& columns) {
    std::vector<char> beyond(rows.size() * columns.size());
    if (beyond.size() == 1) return beyond;  // skipping a single tile is not worth another host sync
    const Balls own = balls_of(0, rows), others = balls_of(1, columns);
    for (size_t r = 0; r < rows.size(); ++r) {
      for (size_t c = 0; c < columns.size(); ++c) {
        const double *a = own.mean.data() + int64_t(r) * p_.width, *b = others.mean.data() + int64_t(c) * p_.width;
        double squares = 0;
        for (int64_t d = 0; d < p_.width; ++d) squares += (a[d] - b[d]) * (a[d] - b[d]);
        const double between = std::sqrt(squares), radii = own.radius[r] + others.radius[c];
        constexpr double kSlack = 1e-5;  // relative, more than any rounding
        beyond[r * columns.size() + c] = between - radii - kSlack * (between + radii) >= double(p_.margin);
      }
    }
    return beyond;
  }

  std::vector<TileRange> tiles_by_labels() {
    const std::vector<Block> rows = blocks_of(offset_[0], options_.tile.rows);
    const std::vector<Block> columns = blocks_of(offset_[1], options_.tile.rows);
    return tiles_of(rows, columns, beyond_margin(rows, columns), options_.tile.columns_of(sizeof(Acc)));
  }

  void sweep(const std::vector<TileRange>& tiles) {
    int64_t values = 0, words = 0, partials = 0;
    for (const TileRange& tile : tiles) {
      const int64_t rows = size(tile.rows), columns = size(tile.columns);
      values = std::max(values, rows * columns);
      words = std::max(words, rows * close_words(columns));
      partials = std::max(partials, 2 * rows * tile_chunks(columns));
    }
    values_ = p_.width > 0 ? device_.template allocate<Acc>(values) : device_.template zeros<Acc>(values);
    for (Buffer<Acc>& part : value_parts_) part = allocate_part(values);
    close_ = device_.template allocate<int32_t>(words);
    partial_ = device_.template allocate<double>(partials);
    loss_ = device_.template zeros<double>(p_.rows[0]);
    const Factor<Acc> rows[2] = {
        factor(sides_[0].centred, sides_[0].parts, p_.rows[0] * p_.width, p_.width),
        factor(sides_[1].centred, sides_[1].parts, p_.rows[1] * p_.width, p_.width)};
    for (const TileRange& tile : tiles) add_tile(tile, rows);
  }

  // Allocates memory for one part of a factor, or nothing if products do not need parts.
  Buffer<Acc> allocate_part(int64_t count) {
    const bool in_parts = options_.precision == Precision::kTf32x3 && sizeof(Acc) == sizeof(float);
    return in_parts ? device_.template allocate<Acc>(count) : Buffer<Acc>();
  }

  // Returns `values` as a factor of products, split into parts if these are allocated.
  Factor<Acc> factor(const Buffer<Acc>& values, const Buffer<Acc> (&parts)[2], int64_t count, int64_t stride) {
    if constexpr (std::is_same_v<Acc, float>) {
      if (parts[0].data() != nullptr) {
        device_.run(Split{values.data(), count, parts[0].data(), parts[1].data()});
        return {{parts[0].data(), parts[1].data()}, stride};
      }
    }
    return {{values.data(), nullptr}, stride};
  }

  void add_tile(const TileRange& tile, const Factor<Acc> (&factors)[2]) {
    const Blas blas = device_.blas();
    const Range& own = tile.rows;
    const Range& others = tile.columns;
    const int64_t rows = size(own), columns = size(others);
    const Factor<Acc> a = factors[0].from_row(own.begin), b = factors[1].from_row(others.begin);
    if (p_.width > 0) {
      add_product(blas, options_.precision, rows, columns, p_.width, Acc(1), a, b.transpose(), Acc(0), values_.data(),
                  columns);
    }
    device_.run(Tile<T>{{side(0), side(1)},
                        {own.begin, others.begin},
                        rows,
                        columns,
                        p_.width,
                        values_.data(),
                        columns,
                        {sides_[0].norm.data(), sides_[1].norm.data()},
                        ready_.weight.data(),
                        ready_.classes,
                        p_.margin,
                        {sides_[0].sums.data(), sides_[1].sums.data()},
                        {sides_[0].product.data(), sides_[1].product.data()},
                        loss_.data(),
                        close_.data(),
                        partial_.data()});
    if (p_.gradient[0] == nullptr && p_.gradient[1] == nullptr) return;
    const Factor<Acc> coefficients = factor(values_, value_parts_, rows * columns, columns);
    const auto add_gradient = [&](int k, int64_t first, int64_t count, const Factor<Acc>& left,
                                  const Factor<Acc>& right, int64_t depth) {
      if (p_.gradient[k] == nullptr) return;
      Acc* product = sides_[k].product.data() + first * p_.width;
      add_product(blas, options_.precision, count, p_.width, depth, Acc(-1), left, right, Acc(1), product, p_.width);
    };
    add_gradient(0, own.begin, rows, coefficients, b, columns);
    add_gradient(1, others.begin, columns, coefficients.transpose(), a, rows);
  }

  // ---- results ----

  void finish() {
    device_.run(Terms<Acc>{ready_.alignment.data(), ready_.classes, loss_.data(), p_.rows[0], p_.scale,
                           ready_.poison.data(), p_.loss, p_.terms});
    const Means<T> means = ready_.means();
    for (int k = 0; k < 2; ++k) {
      if (p_.gradient[k] == nullptr) continue;
      device_.run(Finish<T, mean_t<T>>{side(k), p_.rows[k], p_.width, means.mean[1 - k], ready_.side[k].factor.data(),
                                       ready_.centre.data(), sides_[k].sums.data(), sides_[k].product.data(), p_.scale,
                                       ready_.poison.data(), p_.gradient[k], p_.per_term, means.place});
    }
  }

  Device& device_;
  const Problem<T>& p_;
  const Options& options_;
  const bool syncs_;  // whether the host reads the labels
  Prepared<T, Device> ready_;
  SweptSide sides_[2];
  std::vector<int64_t> offset_[2];  // of the classes, if the host has sorted them
  Buffer<Acc> values_, value_parts_[2];  // of a tile
  Buffer<int32_t> close_;
  Buffer<double> partial_, loss_;
};

template <typename T, typename Device>
void compute_pair_by_pair(Device& device, const Problem<T>& p) {
  const auto coefficient = device.template allocate<acc_t<T>>(p.rows[0] * p.rows[1]);
  const auto sums = device.template allocate<double>(2 * direct_blocks(p.rows[0], p.rows[1]));
  device.run(Direct<T>{p, coefficient.data(), sums.data()});
}

// Computes the whole loss; each side must have at least one row. If the host reads the labels, returns the first bad
// label or weight. Otherwise kernels report it to the next call, and the results are NaN.
template <typename T, typename Device>
FaultReport compute(Device& device, const Problem<T>& p, const Options& options) {
  if (p.rows[0] * p.rows[1] > options.few_pairs) return Sweep<T, Device>(device, p, options).run();
  compute_pair_by_pair(device, p);
  return {};
}

}  // namespace fastccsa::all_pairs::cuda

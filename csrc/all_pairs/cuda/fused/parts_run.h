// The loss over all pairs of float32 features in parts on Hopper GPUs: allocates memory, and starts the kernels in
// their order. It is the sweep of sweep.h with two kernels in place of cuBLAS's products: see parts.cuh.
//
// Besides what sweep.h says, `Device` has
//
//   int parts_multiprocessors()   how many blocks of threads run at the same time; 0: the GPU has no such kernels
//   void run_parts_coefficients(p), run_parts_gradients(p)
#pragma once

#include "all_pairs/cuda/fused/parts_params.h"
#include "all_pairs/cuda/sweep.h"

#include <algorithm>
#include <cmath>

namespace fastccsa::all_pairs::cuda {

inline bool has_parts_kernels(int64_t width, int multiprocessors) { return multiprocessors > 0 && width > 0; }

// From how many rows on each side on these kernels are chosen. Wide rows have more work for each pair, so that fewer
// keep the GPU busy. None of the values was measured.
inline int64_t least_parts_rows(int64_t width) { return width > 512 ? 256 : 512; }

// Calls use(parts) with the parts for a precision.
template <typename Use>
void with_blocks(Precision precision, Use use) {
  switch (precision) {
    case Precision::kIeee: return use(BlocksOfBf16x6());
    case Precision::kBf16x3: return use(BlocksOfBf16x3());
    case Precision::kTf32: return use(BlocksOfHalf());
  }
}

// Up to how many rows and columns, whole tiles, coefficients are stored at a time: 512 MiB of them at most.
struct PartSize {
  int64_t rows, columns;
};

template <typename P>
constexpr PartSize part_size() {
  return {P::kParts == 3 ? 8192 : 16384, P::kParts == 1 ? 16384 : 8192};
}

template <typename P, typename Device>
class PartsLoss {
 public:
  using Part = typename P::Part;

  PartsLoss(Device& device, const Problem<float>& problem, const PartSize& size = part_size<P>())
      : device_(device), p_(problem), size_(size), ready_(device, problem) {}

  void run() {
    ready_.sort();
    ready_.find_means(true);
    split_blocks();
    for_each_part([&](const PairsInBlocks<P>&) { ++parts_; });
    allocate_part();
    for_each_part([&](const PairsInBlocks<P>& part) { add(part); });
    finish_sweep(device_, p_, ready_, loss_.data(), parts_, {sides_[0].sums.data(), sides_[1].sums.data()},
                 {sides_[0].product.data(), sides_[1].product.data()});
  }

 private:
  template <typename U>
  using Buffer = typename Device::template Buffer<U>;

  struct PartsSide {
    Buffer<Part> features;
    Buffer<float> norm;
    Buffer<int32_t> label;
    Buffer<double> sums;    // empty if the gradient is not needed, like `product`
    Buffer<float> product;
  };

  int64_t padded_rows(int k) const { return padded_to_tiles(int(p_.rows[k])); }
  int slabs() const { return slabs_of_width(p_.width); }

  void split_blocks() {
    SplitBlocks<P> split{{ready_.rows_of(0), ready_.rows_of(1)}, {p_.rows[0], p_.rows[1]}, p_.width, slabs(),
                         ready_.centre.data(), nullptr, {}, {}, {}};
    if (std::is_same_v<Part, half>) {
      range_ = device_.template zeros<PartsRange>(1);
      split.range = range_.data();
      device_.run(FindRange{{split.side[0], split.side[1]}, {p_.rows[0], p_.rows[1]}, p_.width, split.centre,
                            ready_.weight.data(), ready_.classes, range_.data()});
    }
    for (int k = 0; k < 2; ++k) {
      PartsSide& own = sides_[k];
      own.features = device_.template allocate<Part>(P::kParts * padded_rows(k) * slabs() * kBlock);
      own.norm = device_.template allocate<float>(padded_rows(k));
      own.label = device_.template allocate<int32_t>(padded_rows(k));
      split.parts[k] = own.features.data();
      split.norm[k] = own.norm.data();
      split.label[k] = own.label.data();
      if (p_.gradient[k] == nullptr) continue;
      own.sums = device_.template allocate<double>(p_.rows[k]);
      own.product = device_.template allocate<float>(p_.rows[k] * p_.width);
    }
    device_.run(split);
  }

  bool any_gradient() const { return p_.gradient[0] != nullptr || p_.gradient[1] != nullptr; }

  // Allocates what the kernels store of a part, as much as the largest needs.
  void allocate_part() {
    const int64_t rows = std::min(padded_rows(0), size_.rows), columns = std::min(padded_rows(1), size_.columns);
    const int64_t chunks = blocks_of_columns<P>(columns), blocks = blocks_of_rows(rows);
    if (any_gradient()) {
      coefficients_ = device_.template allocate<Part>(P::kParts * rows * columns);
      any_ = device_.template allocate<uint8_t>(rows / kTile * chunks * 8);
      row_sums_ = device_.template allocate<float>(rows * chunks);
    }
    if (p_.gradient[1] != nullptr) column_sums_ = device_.template allocate<float>(blocks * columns);
    block_loss_ = device_.template allocate<double>(blocks * chunks);
    close_rows_ = device_.template allocate<uint32_t>(2 * blocks * chunks);
    close_ = device_.template allocate<uint32_t>(rows * chunks * kLaneColumns<P>);
    loss_ = device_.template allocate<double>(parts_);
  }

  template <typename Visit>
  void for_each_part(Visit visit) {
    for (int64_t row = 0; row < p_.rows[0]; row += size_.rows) {
      for (int64_t column = 0; column < p_.rows[1]; column += size_.columns) visit(part_at(row, column));
    }
  }

  PairsInBlocks<P> part_at(int64_t row, int64_t column) const {
    const int64_t begin[2] = {row, column};
    const int64_t rows = std::min(size_.rows, p_.rows[0] - row);
    const int64_t columns = std::min(size_.columns, p_.rows[1] - column);
    PairsInBlocks<P> part{};
    part.pairs = {{ready_.rows_of(0), ready_.rows_of(1)},
                  {row, column},
                  rows,
                  columns,
                  p_.width,
                  nullptr,
                  padded_to_tiles(int(columns)),
                  {sides_[0].norm.data(), sides_[1].norm.data()},
                  ready_.weight.data(),
                  ready_.classes,
                  p_.margin,
                  {},
                  row_sums_.data(),
                  column_sums_.data(),
                  block_loss_.data(),
                  close_rows_.data(),
                  close_.data()};
    part.tiles[0] = padded_to_tiles(int(rows)) / kTile;
    part.tiles[1] = padded_to_tiles(int(columns)) / kTile;
    for (int k = 0; k < 2; ++k) {
      part.label[k] = sides_[k].label.data();
      part.features[k] = sides_[k].features.data();
      part.row_blocks[k] = padded_rows(k) / kBlock;
      part.initial[k] = begin[1 - k] == 0;
      part.product[k] = sides_[k].product.data();
    }
    part.slabs = slabs();
    part.range = range_.data();
    part.group = group(part);
    part.runs = runs(part);
    part.coefficients = coefficients_.data();
    part.any = any_.data();
    return part;
  }

  // A block of threads reads its rows again for each tile of columns. Rows of up to 512 columns stay in the L2 cache,
  // those of all blocks that run at the same time. Of wider rows only some do, so these blocks take about as many
  // different tiles of rows as of columns, which together are fewest. The limit was not measured.
  int group(const PairsInBlocks<P>& part) const {
    if (p_.width <= 512) return part.clusters(0);
    return std::max(1, int(std::sqrt(double(device_.parts_multiprocessors())) / kCluster + 0.5));
  }

  // Tiles of one class are left out, so shorter runs than the multiprocessors need even out their work. A group has
  // enough of them for all multiprocessors.
  int runs(const PairsInBlocks<P>& part) const {
    const int multiprocessors = device_.parts_multiprocessors(), at_once = 2 * multiprocessors, tiles = part.tiles[1];
    const int wanted =
        std::max({1, at_once / (part.clusters(0) * kCluster), int(ceil_divide(multiprocessors, part.group * kCluster)),
                  int(ceil_divide(tiles, kMostTilesOfRun))});
    const int each = int(ceil_divide(tiles, wanted));
    return int(ceil_divide(tiles, each));
  }

  void add(const PairsInBlocks<P>& part) {
    device_.run_parts_coefficients(part);
    if (any_gradient()) device_.run_parts_gradients(part);
    device_.run(TileSums<float, P>{part.pairs,
                                   {part.initial[0], part.initial[1]},
                                   {sides_[0].sums.data(), sides_[1].sums.data()},
                                   {sides_[0].product.data(), sides_[1].product.data()},
                                   loss_.data() + done_++});
  }

  Device& device_;
  const Problem<float>& p_;
  const PartSize size_;
  Prepared<float, Device> ready_;
  PartsSide sides_[2];
  int64_t parts_ = 0, done_ = 0;
  Buffer<PartsRange> range_;
  Buffer<Part> coefficients_;  // of a part of the pairs, like all that follows but `loss_`
  Buffer<uint8_t> any_;
  Buffer<float> row_sums_, column_sums_;
  Buffer<uint32_t> close_rows_, close_;
  Buffer<double> block_loss_, loss_;
};

// Computes the whole loss; see `compute`.
template <typename Device>
void compute_in_parts(Device& device, const Problem<float>& p, Precision precision) {
  with_blocks(precision, [&](auto parts) { PartsLoss<decltype(parts), Device>(device, p).run(); });
}

}  // namespace fastccsa::all_pairs::cuda

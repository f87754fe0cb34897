// The loss over all pairs on CUDA: allocates memory, and runs the kernels and the matrix products in their order.
//
// Both sides are sorted by class. Alignment needs no pairs: around the class means it is a sum over rows. Separation
// needs the pairs of different classes: cuBLAS multiplies tiles of rows, a kernel turns the dot products of a tile into
// the coefficients of the gradient, and two more products add them up. One sweep over the tiles computes the loss and
// its gradients, in O((N1 + N2) D) memory plus one tile. Nothing waits for the GPU: a CUDA graph can hold any call.
//
// This file needs neither torch nor CUDA. `Device` is defined by op.cpp for a GPU, and by the tests for the emulator:
//
//   Buffer<U>                   owns memory of the device; `data()` is null in an empty one
//   Buffer<U> allocate<U>(n)    not initialised
//   Buffer<U> zeros<U>(n)
//   Sorted sort(labels, n)      a stable sort of a Buffer<int64_t>, with the buffers `values` and `order`
//   void run(parameters)        starts the kernels for these parameters
//   Blas blas()
#pragma once

#include "all_pairs/cuda/plan.h"
#include "all_pairs/cuda/precision.h"
#include "all_pairs/cuda/prepare.h"
#include "all_pairs/cuda/products.h"
#include "all_pairs/cuda/tile.h"

#include <algorithm>
#include <type_traits>
#include <utility>
#include <vector>

namespace fastccsa::all_pairs::cuda {

struct Options {
  Precision precision = Precision::kIeee;
  int64_t few_pairs = kFewPairs;
  TileSize tile;
};

// Writes the results: `loss` of each of `tiles` tiles, and of each sorted row the sum of K and the product.
template <typename T, typename Device>
void finish_sweep(Device& device, const Problem<T>& p, const Prepared<T, Device>& ready, const double* loss,
                  int64_t tiles, const double* const (&sums)[2], const acc_t<T>* const (&product)[2]) {
  device.run(Terms<acc_t<T>>{ready.alignment.data(), ready.classes, loss, tiles, p.scale, ready.poison.data(), p.loss,
                             p.terms});
  const Means<T> means = ready.means();
  for (int k = 0; k < 2; ++k) {
    if (p.gradient[k] == nullptr) continue;
    device.run(Finish<T, mean_t<T>>{ready.rows_of(k), p.rows[k], p.width, means.mean[1 - k],
                                    ready.side[k].factor.data(), ready.centre.data(), sums[k], product[k], p.scale,
                                    ready.poison.data(), p.gradient[k], p.per_term, means.place});
  }
}

// P: the parts of the factors.
template <typename T, typename P, typename Device>
class Sweep {
 public:
  using Acc = acc_t<T>;
  using Part = typename P::Part;

  Sweep(Device& device, const Problem<T>& problem, const TileSize& tile)
      : device_(device),
        p_(problem),
        tiles_(all_tiles(p_.rows[0], p_.rows[1], tile, sizeof(Acc))),
        ready_(device, problem) {}

  void run() {
    ready_.sort();
    ready_.find_means(kCentred<T>);
    if (!kCentred<T>) ready_.centre = device_.template zeros<Acc>(p_.width);
    split_rows();
    sweep();
    finish();
  }

 private:
  template <typename U>
  using Buffer = typename Device::template Buffer<U>;

  // The results of the kernels for one side.
  struct SweptSide {
    Buffer<Part> parts;
    Buffer<Acc> norm;
    Buffer<double> sums;  // empty if the gradient is not needed, like `product`
    Buffer<Acc> product;
  };

  // ---- rows ----

  Side<T> side(int k) const { return ready_.rows_of(k); }

  void split_rows() {
    stride_ = padded(p_.width);
    for (int k = 0; k < 2; ++k) {
      SweptSide& own = sides_[k];
      own.parts = device_.template allocate<Part>(p_.rows[k] * P::kParts * stride_);
      own.norm = device_.template allocate<Acc>(p_.rows[k]);
      if (p_.gradient[k] == nullptr) continue;
      own.sums = device_.template allocate<double>(p_.rows[k]);
      own.product = device_.template allocate<Acc>(p_.rows[k] * p_.width);
    }
    device_.run(SplitRows<T, P>{{side(0), side(1)},
                                {p_.rows[0], p_.rows[1]},
                                p_.width,
                                kCentred<T> ? ready_.centre.data() : nullptr,
                                {sides_[0].parts.data(), sides_[1].parts.data()},
                                stride_,
                                {sides_[0].norm.data(), sides_[1].norm.data()}});
  }

  // ---- tiles ----

  bool any_gradient() const { return p_.gradient[0] != nullptr || p_.gradient[1] != nullptr; }

  void sweep() {
    int64_t values = 0, rows = 0, columns = 0, blocks = 0, close = 0;
    for (const TileRange& tile : tiles_) {
      const int64_t across = size(tile.columns), down = size(tile.rows);
      const int64_t chunks = blocks_of_columns<P>(across), blocks_down = blocks_of_rows(down);
      values = std::max(values, down * padded(across));
      rows = std::max(rows, down * chunks);
      columns = std::max(columns, blocks_down * padded(across));
      blocks = std::max(blocks, blocks_down * chunks);
      close = std::max(close, down * chunks * kLaneColumns<P>);
    }
    dots_ = with_room_for_pieces(values);
    dot_ = p_.width > 0 ? device_.template allocate<Acc>(dots_) : device_.template zeros<Acc>(dots_);
    if (any_gradient()) {
      for (int k = in_place(); k < P::kParts; ++k) coefficient_[k] = device_.template allocate<Part>(values);
      row_sums_ = device_.template allocate<Acc>(rows);
      column_sums_ = device_.template allocate<Acc>(columns);
    }
    block_loss_ = device_.template allocate<double>(blocks);
    close_rows_ = device_.template allocate<uint32_t>(2 * blocks);
    close_ = device_.template allocate<uint32_t>(close);
    loss_ = device_.template allocate<double>(int64_t(tiles_.size()));
    for (size_t k = 0; k < tiles_.size(); ++k) add_tile(tiles_[k], loss_.data() + k);
  }

  // Returns how many values the memory of `values` dot products must hold so that the pieces of divided products fit;
  // if that is more than twice as many, they are computed one after the other.
  int64_t with_room_for_pieces(int64_t values) const {
    int64_t most = values;
    for (const TileRange& tile : tiles_) {
      const int64_t sizes[2] = {size(tile.rows), size(tile.columns)};
      for (int k = 0; kPromisesFloat32<P> && k < 2; ++k) {
        const int64_t pieces = ceil_divide(sizes[1 - k], kGradientDepth) * sizes[k] * p_.width;
        if (p_.gradient[k] != nullptr && pieces <= 2 * values) most = std::max(most, pieces);
      }
    }
    return most;
  }

  // The number of parts of coefficients, 0 or 1, that replace the dot products in their memory.
  static constexpr int in_place() { return std::is_same_v<Part, Acc> ? 1 : 0; }

  TilePairs<T, P> pairs_of(const TileRange& tile) {
    TilePairs<T, P> pairs{{side(0), side(1)},
                          {tile.rows.begin, tile.columns.begin},
                          size(tile.rows),
                          size(tile.columns),
                          p_.width,
                          dot_.data(),
                          padded(size(tile.columns)),
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
    for (int k = 0; any_gradient() && k < P::kParts; ++k) pairs.coefficient[k] = coefficient_[k].data();
    if constexpr (in_place() == 1) {
      if (any_gradient()) pairs.coefficient[0] = dot_.data();
    }
    return pairs;
  }

  void add_tile(const TileRange& tile, double* loss) {
    const Blas blas = device_.blas();
    const SplitSide<P> split[2] = {{sides_[0].parts.data(), stride_, false}, {sides_[1].parts.data(), stride_, true}};
    const TilePairs<T, P> pairs = pairs_of(tile);
    const int64_t(&begin)[2] = pairs.begin, size[2] = {pairs.rows, pairs.columns};
    const bool first[2] = {begin[1] == 0, begin[0] == 0};  // whether sums of these rows, and of these columns, begin
    if (p_.width > 0) {
      dot_products(blas, size[0], size[1], split[0], begin[0], split[1], begin[1], dot_.data(), pairs.stride);
    }
    device_.run(pairs);
    for (int k = 0; k < 2; ++k) {
      if (p_.gradient[k] == nullptr) continue;
      Acc* const to = sides_[k].product.data() + begin[k] * p_.width;
      // Pieces take the memory of the dot products, unless the coefficients are there.
      const Pieces<Acc> pieces{dot_.data(), in_place() == 1 ? 0 : dots_};
      const int64_t count = add_gradient(blas, size[k], p_.width, size[1 - k], pairs.coefficient, pairs.stride, k == 1,
                                         split[1 - k], begin[1 - k], Acc(first[k] ? 0 : 1), to, pieces);
      if (count > 0) device_.run(AddPieces<Acc>{dot_.data(), count, size[k] * p_.width, to});
    }
    device_.run(TileSums<T, P>{pairs,
                               {first[0], first[1]},
                               {sides_[0].sums.data(), sides_[1].sums.data()},
                               {sides_[0].product.data(), sides_[1].product.data()},
                               loss});
  }

  void finish() {
    finish_sweep(device_, p_, ready_, loss_.data(), int64_t(tiles_.size()),
                 {sides_[0].sums.data(), sides_[1].sums.data()}, {sides_[0].product.data(), sides_[1].product.data()});
  }

  Device& device_;
  const Problem<T>& p_;
  const std::vector<TileRange> tiles_;
  Prepared<T, Device> ready_;
  SweptSide sides_[2];
  int64_t stride_ = 0;  // of the parts of rows
  int64_t dots_ = 0;    // the size of `dot_`
  Buffer<Acc> dot_;     // of a tile, like all that follows but `loss_`
  Buffer<Part> coefficient_[P::kParts];
  Buffer<Acc> row_sums_, column_sums_;
  Buffer<uint32_t> close_rows_, close_;
  Buffer<double> block_loss_, loss_;
};

template <typename T, typename Device>
void compute_pair_by_pair(Device& device, const Problem<T>& p) {
  const auto coefficient = device.template allocate<acc_t<T>>(p.rows[0] * p.rows[1]);
  const auto sums = device.template allocate<double>(2 * direct_blocks(p.rows[0], p.rows[1]));
  device.run(Direct<T>{p, coefficient.data(), sums.data()});
}

// Computes the whole loss; each side must have at least one row. Kernels report a bad label or weight to the next call,
// and then the results are NaN.
template <typename T, typename Device>
void compute(Device& device, const Problem<T>& p, const Options& options) {
  if (p.rows[0] * p.rows[1] <= options.few_pairs) return compute_pair_by_pair(device, p);
  with_parts<T>(options.precision, [&](auto parts) {
    Sweep<T, decltype(parts), Device>(device, p, options.tile).run();
  });
}

}  // namespace fastccsa::all_pairs::cuda

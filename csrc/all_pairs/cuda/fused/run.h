// The fused loss over all pairs on CUDA: allocates memory, and starts the kernels in their order.
//
// This file needs neither torch nor CUDA. Besides what sweep.h says, `Device` has
//
//   FusedVariant fused_variant<T>(width, choice)   the main kernel for features of that width
//   void run_fused_prepare(p), run_fused_ranks(p), run_fused_main(p, kernel), run_fused_finish(p)
//   void run_coefficients(p, part, kernel), run_gradients(p, part, kernel, at_once)   instead of the main kernel: see stored.cuh
//   void run_streamed(p)                          instead of the last two: see streamed_kernel.cuh
#pragma once

#include "all_pairs/cuda/fused/params.h"
#include "all_pairs/cuda/fused/stored_params.h"
#include "all_pairs/cuda/fused/variant.h"
#include "all_pairs/cuda/fused/work.cuh"
#include "all_pairs/cuda/prepare.h"

#include <algorithm>
#include <limits>

namespace fastccsa::all_pairs::cuda {

// Whether fused kernels exist for features of a type and width.
template <typename T>
bool has_fused_kernels(int64_t) {
  return sizeof(T) == 2;
}

// Up to this many pairs, computing pair by pair is faster: on an H200, 128 x 128 pairs of width 512 took 25 us and not
// 32, and 256 x 256 pairs 40 us and not 35.
constexpr int64_t kFewPairsOf16Bits = 32768;

// From this many pairs on, rows are sorted by class, so that pairs of one class can be left out; alignment is computed
// from class means. With fewer rows on one side, sorting the other would take longer than what it saves.
constexpr int64_t kSortedPairs = int64_t(1) << 25, kSortedRows = 1024;

// From this many rows on each side, coefficients are stored: on an H200, 512 x 512 pairs took 33 us and not 41. The rows
// of the smaller side are divided among too few blocks of threads if the other side is much larger, so that it may only
// be so many times as large, unless the smaller side has enough rows anyway. These two limits follow from the number of
// steps of a block, and are not measured.
constexpr int64_t kStoredRows = 512, kStoredRatio = 4, kStoredRowsOfAnyRatio = 1536;

// The first of them for features of more than kLargestFusedWidth columns, for which otherwise cuBLAS writes all dot
// products to memory: a whole tile. This is not measured.
constexpr int64_t kStoredWideRows = 128;

// Into how many runs the tiles of columns of wide features are divided at least, unless these have too few tiles: see
// coefficients_kernel.cuh. This is not measured either.
constexpr int kWideRuns = 4, kTilesOfWideRun = 8;

// Up to this many rows, if their gradient alone is needed, from this many rows of the other side on, and these are read
// once. These limits are not measured.
constexpr int64_t kStreamedRows = 128, kStreamedColumns = 2048;

enum class FusedOrder { kBySizes, kAsGiven, kSorted };

struct FusedOptions {
  FusedChoice choice = FusedChoice::kByDevice;
  FusedOrder order = FusedOrder::kBySizes;
  int window = 64;         // units: see FusedPlan
  bool whole_blocks = true;  // whether most blocks of rows are not cut
  bool skip_tiles = true;    // whether products with coefficients that are all 0 are skipped
  int stored_part = kStoredPart;  // rows, and columns
};

// Whether coefficients are stored by kernels that are chosen from `least` rows of each side on.
constexpr bool pays_to_store(const int64_t (&rows)[2], int64_t least) {
  const int64_t few = std::min(rows[0], rows[1]), most = std::max(rows[0], rows[1]);
  return few >= least && (few >= kStoredRowsOfAnyRatio || most <= kStoredRatio * few);
}

// Whether rows are sorted by class.
constexpr bool pays_to_sort(const int64_t (&rows)[2]) {
  return rows[0] * rows[1] >= kSortedPairs && std::min(rows[0], rows[1]) >= kSortedRows;
}

// Whether 32 bits hold the offset of every weight, of the caller's matrix and of its contiguous copy.
constexpr bool weights_fit(int64_t classes, int64_t row_stride, int64_t column_stride) {
  constexpr int64_t kMost = std::numeric_limits<int32_t>::max();
  return classes <= 46340 && row_stride <= kMost && column_stride <= kMost &&
         (classes - 1) * (row_stride + column_stride) <= kMost;
}

// Whether FusedLoss computes this, and is the faster way if the options leave the choice.
template <typename T>
bool uses_fused_kernels(const Problem<T>& p, const FusedOptions& options) {
  const Matrix<const float>& w = p.weight;
  if (w.data != nullptr && !weights_fit(p.labels, w.row_stride, w.column_stride)) return false;
  const bool free = options.choice == FusedChoice::kByDevice && options.order == FusedOrder::kBySizes;
  return p.width <= kLargestFusedWidth || !free || pays_to_store(p.rows, kStoredWideRows);
}

template <typename T, typename Device>
class FusedLoss {
 public:
  FusedLoss(Device& device, const Problem<T>& problem, const FusedOptions& options)
      : device_(device),
        problem_(problem),
        variant_(device.template fused_variant<T>(problem.width, choose(problem, options))),
        options_(options),
        sorted_(must_sort() ||
                (options.order == FusedOrder::kBySizes ? pays_to_sort(problem.rows) : options.order == FusedOrder::kSorted)),
        ready_(device, problem) {}

  void run() {
    found_ = device_.template zeros<FusedFindings>(1);
    set_common();
    if (sorted_) {
      ready_.sort();
      ready_.find_means(false);
      for (int k = 0; k < 2; ++k) set_sorted_side(k);
    } else {
      for (int k = 0; k < 2; ++k) set_side(k);
    }
    set_plan();
    if (!streams() || prepares_) device_.run_fused_prepare(p_);
    if (!streams() && !sorted_ && problem_.labels == 0) device_.run_fused_ranks(p_);
    sorted_ ? run_separation() : run_both_terms();
  }

 private:
  template <typename U>
  using Buffer = typename Device::template Buffer<U>;


  static FusedChoice choose(const Problem<T>& p, const FusedOptions& options) {
    if (options.choice == FusedChoice::kStreamed && !can_stream(p)) return FusedChoice::kByDevice;
    const bool free = options.choice == FusedChoice::kByDevice && options.order == FusedOrder::kBySizes;
    if (free && pays_to_store(p.rows, kStoredRows)) return FusedChoice::kManyRows;
    const int rows = streamed_side(p);
    const bool streamed = p.rows[rows] <= kStreamedRows && p.rows[1 - rows] >= kStreamedColumns && can_stream(p);
    return free && streamed ? FusedChoice::kStreamed : options.choice;
  }

  // The side whose rows stay in shared memory while those of the other are read once: that whose gradient is needed.
  static int streamed_side(const Problem<T>& p) {
    if (p.gradient[0] == nullptr && p.gradient[1] == nullptr) return p.rows[0] <= p.rows[1] ? 0 : 1;
    return p.gradient[0] != nullptr ? 0 : 1;
  }

  static bool can_stream(const Problem<T>& p) { return p.gradient[0] == nullptr || p.gradient[1] == nullptr; }

  bool streams() const { return variant_.kernel == FusedKernel::kStreamed512; }

  bool stores() const { return stores_coefficients(variant_.kernel); }

  bool wide() const { return problem_.width > kLargestFusedWidth; }

  // Kernels that store coefficients compute separation alone, or both terms together.
  bool must_sort() const { return stores() && problem_.per_term && needs_gradient(); }

  bool needs_gradient() const { return problem_.gradient[0] != nullptr || problem_.gradient[1] != nullptr; }

  // ---- parameters ----

  void set_common() {
    p_.shape = variant_.shape;
    p_.width = int(problem_.width);
    p_.padded_width = padded_width(variant_.kernel, problem_.width);
    p_.weight = problem_.weight;
    p_.labels = problem_.labels;
    p_.check = sorted_ ? 0 : 1;
    p_.margin = float(problem_.margin);
    p_.scale = problem_.scale;
    p_.skip_tiles = options_.skip_tiles;
    p_.found = found_.data();
    p_.poison = &found_.data()->poison;
    p_.loss_side = streams() ? streamed_side(problem_) : needs_gradient() && problem_.gradient[0] == nullptr ? 1 : 0;
  }

  // Rows stay in the caller's order. They are copied only where the kernels cannot read them.
  void set_side(int k) {
    const Matrix<const T>& features = problem_.features[k];
    const bool whole = problem_.width == p_.padded_width || (streams() && problem_.width % 8 == 0);
    const bool in_place = !stores() && whole && features.column_stride == 1 &&
                          reinterpret_cast<uintptr_t>(features.data) % 16 == 0 && features.row_stride % 8 == 0;
    // Kernels that read rows once find norms themselves, but the scale of float16 must be known before.
    prepares_ = prepares_ || !in_place || std::is_same_v<T, half>;
    set_side(k, !in_place, problem_.label[k], nullptr);
    if (!in_place) return;
    p_.side[k].features = features.data;
    p_.side[k].stride = features.row_stride;
  }

  // Rows are copied in the order of their classes.
  void set_sorted_side(int k) {
    const auto& own = ready_.side[k];
    set_side(k, true, {own.label.data(), 1}, own.order.data());
    const Means<T> means = ready_.means();
    FusedSide<T>& side = p_.side[k];
    side.offset = own.offset.data();
    side.order = own.order.data();
    side.alignment = {own.factor.data(), means.mean[1 - k], means.place, nullptr};
    if (problem_.per_term && problem_.gradient[k] != nullptr) {
      side.alignment.gradient = problem_.gradient[k];
      side.gradient += problem_.rows[k] * problem_.width;
    }
    p_.weight = {ready_.weight.data(), ready_.classes, 1};
    p_.labels = ready_.classes;
    p_.poison = ready_.poison.data();
  }

  void set_side(int k, bool copied, const Vector<const int64_t>& label, const int64_t* order) {
    const int count = int(problem_.rows[k]), padded = stores() ? padded_to_tiles(count) : count;
    if (copied) packed_[k] = device_.template allocate<T>(int64_t(padded) * p_.padded_width);
    label_[k] = device_.template allocate<int32_t>(padded);
    norm_[k] = device_.template allocate<float>(padded);
    p_.source[k] = {problem_.features[k], label, order, count, padded, stores() ? padded / kBlock : 0,
                    packed_[k].data(), label_[k].data(), norm_[k].data()};
    const bool taken = problem_.gradient[k] != nullptr || p_.loss_side == k;
    FusedSide<T>& side = p_.side[k];
    side.features = packed_[k].data();
    side.stride = p_.padded_width;
    side.label = label_[k].data();
    side.norm = norm_[k].data();
    side.gradient = problem_.gradient[k];
    side.count = count;
    side.blocks = taken ? (count + p_.shape.rows - 1) / p_.shape.rows : 0;
  }

  void set_plan() {
    if (stores()) return set_parts();
    if (streams()) return set_streamed_parts();
    int64_t units = 0;
    for (int k = 0; k < 2; ++k) {
      units += int64_t(p_.side[k].blocks) * ((p_.side[1 - k].count + p_.shape.unit - 1) / p_.shape.unit);
    }
    const int groups = int(std::min<int64_t>(variant_.threads_blocks, units));
    const int blocks = p_.row_blocks(), waves = options_.whole_blocks ? std::max(0, blocks / groups - 1) : 0;
    if (sorted_) {
      first_unit_ = device_.template allocate<int32_t>(blocks - int64_t(waves) * groups + 1);
      share_ = device_.template allocate<int32_t>(groups + 1);
    }
    partial_ = device_.template allocate<float>(int64_t(2) * groups * p_.shape.rows * p_.width);
    loss_ = device_.template allocate<double>(2 * groups);
    p_.plan = {groups, waves, options_.window, {}, 0, first_unit_.data(), share_.data()};
    for (int k = 0; k < 2; ++k) p_.plan.units[k] = int(ceil_divide(p_.side[1 - k].count, p_.shape.unit));
    p_.plan.split_units = sorted_ ? 0 : first_unit(p_, blocks - p_.split_from());
    p_.partial = partial_.data();
    p_.loss = loss_.data();
  }

  void set_streamed_parts() {
    const int tiles = int(ceil_divide(p_.side[1 - p_.loss_side].count, p_.shape.unit));
    const int parts = std::min(std::max(variant_.threads_blocks / p_.row_blocks(), 1), tiles);
    p_.plan.threads_blocks = parts * p_.row_blocks();
    partial_ = device_.template allocate<float>(int64_t(p_.plan.threads_blocks) * p_.shape.rows * p_.padded_width);
    loss_ = device_.template allocate<double>(2 * p_.plan.threads_blocks);
    p_.partial = partial_.data();
    p_.loss = loss_.data();
  }

  // Allocates what the kernels store of a part. Each has slots of its own for the loss.
  void set_parts() {
    for (FusedSide<T>& side : p_.side) side.blocks = 0;  // there are no partial sums of gradients
    int64_t slots = 0;
    for_each_part([&](const Stored<T>& part) { slots += part.blocks(); });
    loss_ = device_.template allocate<double>(2 * slots);
    p_.plan.threads_blocks = int(slots);
    p_.loss = loss_.data();
    int64_t tiles[2];
    for (int k = 0; k < 2; ++k) tiles[k] = std::min(padded_to_tiles(p_.side[k].count), options_.stored_part) / kTile;
    coefficients_ = device_.template allocate<T>(tiles[0] * tiles[1] * kTile * kTile);
    any_ = device_.template allocate<uint8_t>(tiles[0] * tiles[1] * 8);
    sums_[0] = device_.template allocate<float>(tiles[1] * tiles[0] * kTile);
    sums_[1] = device_.template allocate<float>(2 * tiles[0] * tiles[1] * kTile);
    // If rows are sorted, tiles of pairs of one class are left out, and more of them in the largest class.
    if (sorted_) jobs_ = device_.template allocate<int32_t>(kMostJobs);
  }

  template <typename Visit>
  void for_each_part(Visit visit) const {
    Stored<T> part{};
    part.cluster_columns = wide() && variant_.kernel == FusedKernel::kStored ? kWideClusterColumns : 1;
    part.coefficients = coefficients_.data();
    part.any = any_.data();
    part.jobs = jobs_.data();
    for (int k = 0; k < 2; ++k) part.sums[k] = sums_[k].data();
    const auto count = [&](int k, int first) {
      return std::min(padded_to_tiles(p_.side[k].count) - first, options_.stored_part) / kTile;
    };
    for (part.first[0] = 0; part.first[0] < p_.side[0].count; part.first[0] += options_.stored_part) {
      for (part.first[1] = 0; part.first[1] < p_.side[1].count; part.first[1] += options_.stored_part) {
        for (int k = 0; k < 2; ++k) {
          part.tiles[k] = count(k, part.first[k]);
          part.initial[k] = part.first[1 - k] == 0;
        }
        part.runs = runs(part);
        visit(part);
        part.loss_slot += part.blocks();
      }
    }
  }

  // If tiles are skipped, shorter runs even out the work of the multiprocessors.
  int runs(const Stored<T>& part) const {
    const int at_once = variant_.threads_blocks * (sorted_ ? 4 : 1), across = part.cluster_columns;
    const int least = (part.tiles[1] + kMostTilesOfRun - 1) / kMostTilesOfRun;
    const int apart = across > 1 ? std::min(kWideRuns, part.tiles[1] / kTilesOfWideRun) : 0;
    const int wanted = std::max({at_once / (part.tiles[0] * across), least, apart});
    const int each = (part.tiles[1] + wanted - 1) / std::max(wanted, 1);
    const int whole = (std::max(each, 1) + across - 1) / across * across;
    return (part.tiles[1] + whole - 1) / whole;
  }

  // ---- launches ----

  void run_main() {
    if (streams()) return device_.run_streamed(p_);
    if (stores()) {
      for_each_part([&](const Stored<T>& part) {
        device_.run_coefficients(p_, part, variant_.kernel);
        device_.run_gradients(p_, part, variant_.kernel, variant_.threads_blocks);
      });
      if (p_.results[1] != nullptr) device_.run_fused_finish(p_);
      return;
    }
    device_.run_fused_main(p_, variant_.kernel);
    device_.run_fused_finish(p_);
  }

  // Alignment is computed from pairs, as is separation.
  void run_both_terms() {
    p_.results[1] = problem_.terms;
    if (!(problem_.per_term && needs_gradient())) {
      p_.terms = kBothTerms;
      p_.results[0] = problem_.loss;
      return run_main();
    }
    p_.terms = kAlignmentTerm;
    run_main();
    p_.terms = kSeparationTerm;
    p_.results[0] = problem_.loss;
    for (int k = 0; k < 2; ++k) {
      if (p_.side[k].gradient != nullptr) p_.side[k].gradient += problem_.rows[k] * problem_.width;
    }
    run_main();
  }

  void run_separation() {
    p_.terms = kSeparationTerm;
    run_main();
    const int groups = p_.plan.threads_blocks;
    device_.run(Terms<float>{ready_.alignment.data(), ready_.classes, loss_.data() + groups, groups, problem_.scale,
                             ready_.poison.data(), problem_.loss, problem_.terms});
  }

  Device& device_;
  const Problem<T>& problem_;
  const FusedVariant variant_;
  const FusedOptions options_;
  const bool sorted_;
  bool prepares_ = false;
  Prepared<T, Device> ready_;
  Fused<T> p_{};
  Buffer<FusedFindings> found_;
  Buffer<T> packed_[2];
  Buffer<int32_t> label_[2], first_unit_, share_, jobs_;
  Buffer<float> norm_[2], partial_;
  Buffer<double> loss_;
  Buffer<T> coefficients_;
  Buffer<uint8_t> any_;
  Buffer<float> sums_[2];
};

}  // namespace fastccsa::all_pairs::cuda

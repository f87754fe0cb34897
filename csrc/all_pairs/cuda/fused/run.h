// The fused loss over all pairs on CUDA: allocates memory, and starts the kernels in their order.
//
// This file needs neither torch nor CUDA. Besides what sweep.h says, `Device` has
//
//   FusedVariant fused_variant<T>(width, choice)   the main kernel for features of that width
//   void run_fused_prepare(p), run_fused_ranks(p), run_fused_main(p, kernel), run_fused_finish(p)
#pragma once

#include "all_pairs/cuda/fused/params.h"
#include "all_pairs/cuda/fused/variant.h"

#include <algorithm>
#include <type_traits>

namespace fastccsa::all_pairs::cuda {

// Whether fused kernels exist for features of a type and width.
template <typename T>
bool has_fused_kernels(int64_t width) {
  return sizeof(T) == 2 && width <= kLargestFusedWidth;
}

template <typename T, typename Device>
class FusedLoss {
 public:
  FusedLoss(Device& device, const Problem<T>& problem, FusedChoice choice)
      : device_(device), problem_(problem), variant_(device.template fused_variant<T>(problem.width, choice)) {}

  // Rows stay in the caller's order, and alignment is computed from pairs, as is separation.
  void run() {
    found_ = device_.template zeros<FusedFindings>(1);
    const int side = p_from_problem();
    allocate_scratch();
    const bool gradients = problem_.gradient[0] != nullptr || problem_.gradient[1] != nullptr;
    if (!(problem_.per_term && gradients)) {
      p_.terms = kBothTerms;
      launch(side, true);
      return;
    }
    for (const FusedTerms term : {kAlignmentTerm, kSeparationTerm}) {
      p_.terms = term;
      for (int k = 0; k < 2; ++k) {
        if (problem_.gradient[k] == nullptr || term == kAlignmentTerm) continue;
        p_.side[k].gradient = problem_.gradient[k] + problem_.rows[k] * problem_.width;
      }
      p_.results[0] = term == kSeparationTerm ? problem_.loss : nullptr;
      launch(side, term == kAlignmentTerm);
    }
  }

 private:
  template <typename U>
  using Buffer = typename Device::template Buffer<U>;

  // Returns the side whose pass adds up the loss.
  int p_from_problem() {
    p_.shape = variant_.shape;
    p_.width = int(problem_.width);
    p_.padded_width = padded_width(variant_.kernel);
    p_.weight = problem_.weight;
    p_.labels = problem_.labels;
    p_.check = 1;
    p_.margin = float(problem_.margin);
    p_.scale = problem_.scale;
    p_.skip_tiles = 1;
    p_.found = found_.data();
    p_.results[0] = problem_.loss;
    p_.results[1] = problem_.terms;
    const bool any = problem_.gradient[0] != nullptr || problem_.gradient[1] != nullptr;
    p_.loss_side = any && problem_.gradient[0] == nullptr ? 1 : 0;
    for (int k = 0; k < 2; ++k) {
      const int count = int(problem_.rows[k]);
      const Matrix<const T>& features = problem_.features[k];
      const bool in_place = problem_.width == p_.padded_width && features.column_stride == 1 &&
                            reinterpret_cast<uintptr_t>(features.data) % 16 == 0 && features.row_stride % 8 == 0;
      if (!in_place) packed_[k] = device_.template allocate<T>(int64_t(count) * p_.padded_width);
      label_[k] = device_.template allocate<int32_t>(count);
      norm_[k] = device_.template allocate<float>(count);
      p_.source[k] = {features, problem_.label[k], nullptr, count, packed_[k].data(), label_[k].data(), norm_[k].data()};
      const bool taken = problem_.gradient[k] != nullptr || p_.loss_side == k;
      p_.side[k] = {in_place ? features.data : packed_[k].data(),
                    in_place ? features.row_stride : p_.padded_width,
                    label_[k].data(),
                    norm_[k].data(),
                    nullptr,
                    problem_.gradient[k],
                    count,
                    taken ? (count + p_.shape.rows - 1) / p_.shape.rows : 0};
    }
    return p_.loss_side;
  }

  void allocate_scratch() {
    int64_t units = 0;
    for (int k = 0; k < 2; ++k) {
      units += int64_t(p_.side[k].blocks) * ((p_.side[1 - k].count + p_.shape.unit - 1) / p_.shape.unit);
    }
    const int groups = int(std::min<int64_t>(variant_.threads_blocks, units));
    const int blocks = p_.row_blocks(), waves = std::max(0, blocks / groups - 1);
    first_unit_ = device_.template allocate<int32_t>(blocks - int64_t(waves) * groups + 1);
    share_ = device_.template allocate<int32_t>(groups + 1);
    partial_ = device_.template allocate<float>(int64_t(2) * groups * p_.shape.rows * p_.width);
    loss_ = device_.template allocate<double>(2 * groups);
    p_.plan = {groups, waves, first_unit_.data(), share_.data()};
    p_.partial = partial_.data();
    p_.loss = loss_.data();
  }

  void launch(int, bool prepare) {
    if (prepare) {
      device_.run_fused_prepare(p_);
      if (problem_.labels == 0) device_.run_fused_ranks(p_);
    }
    device_.run_fused_main(p_, variant_.kernel);
    device_.run_fused_finish(p_);
  }

  Device& device_;
  const Problem<T>& problem_;
  const FusedVariant variant_;
  Fused<T> p_{};
  Buffer<FusedFindings> found_;
  Buffer<T> packed_[2];
  Buffer<int32_t> label_[2], first_unit_, share_;
  Buffer<float> norm_[2], partial_;
  Buffer<double> loss_;
};

}  // namespace fastccsa::all_pairs::cuda

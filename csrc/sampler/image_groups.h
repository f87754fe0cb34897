// The images of the training set, grouped by domain and class.
//
// The group of class y in domain d has the number d * classes + y. A class of a domain, or a whole domain, is therefore
// one range of consecutive groups, and a domain without one of its classes is two ranges.

#pragma once

#include <cstddef>
#include <cstdint>
#include <numeric>
#include <utility>
#include <vector>

#include "sampler/compact_array.h"

namespace fastccsa::sampler {

// The groups [begin, end).
struct GroupRange {
  std::uint64_t begin;
  std::uint64_t end;

  bool contains(std::uint64_t group) const { return begin <= group && group < end; }
};

class ImageGroups {
 public:
  // group_of: the group of every image, below `groups`. A counting sort: the first pass counts the images of
  // each group, the second puts them in order.
  ImageGroups(CompactArray group_of, std::uint64_t groups)
      : group_of_(std::move(group_of)),
        order_(group_of_.size(), group_of_.size()),
        offsets_(groups + 1, 0) {
    for (std::size_t image = 0; image < group_of_.size(); ++image) {
      ++offsets_[group_of_[image] + 1];
    }
    std::partial_sum(offsets_.begin(), offsets_.end(), offsets_.begin());
    std::vector<std::uint64_t> next(offsets_.begin(), offsets_.end() - 1);
    for (std::size_t image = 0; image < group_of_.size(); ++image) {
      order_.set(next[group_of_[image]]++, image);
    }
  }

  std::uint64_t images() const { return group_of_.size(); }
  std::uint64_t groups() const { return offsets_.size() - 1; }
  std::uint64_t group_of(std::uint64_t image) const { return group_of_[image]; }

  std::uint64_t count(GroupRange range) const { return offsets_[range.end] - offsets_[range.begin]; }
  // Returns the image at `place`, in [0, count(range)), among the images of a range.
  std::uint64_t image(GroupRange range, std::uint64_t place) const {
    return order_[offsets_[range.begin] + place];
  }

  std::size_t nbytes() const {
    return group_of_.nbytes() + order_.nbytes() + offsets_.size() * sizeof(offsets_[0]);
  }

 private:
  CompactArray group_of_;               // [images]
  CompactArray order_;                  // [images] images sorted by group
  std::vector<std::uint64_t> offsets_;  // [groups + 1] where each group begins in order_
};

}  // namespace fastccsa::sampler

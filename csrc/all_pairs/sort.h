// Sorts the rows of both sides by their labels.
#pragma once

#include "core/strided.h"

#include <algorithm>
#include <cstdint>
#include <limits>
#include <vector>

namespace fastccsa::all_pairs {

// Both sides in the order of their classes. The classes that occur on either side are numbered from 0.
struct Sorted {
  std::vector<int64_t> classes;    // the label of each class
  std::vector<int64_t> order[2];   // [N]: sorted row k is row order[k]
  std::vector<int64_t> label[2];   // [N], the classes of the sorted rows
  std::vector<int64_t> offset[2];  // [classes + 1]: where each class begins among the sorted rows
};

// Maps labels to the numbers of their classes.
class ClassNumbers {
 public:
  ClassNumbers(const Vector<const int64_t> (&label)[2], const int64_t (&rows)[2]) {
    int64_t least = std::numeric_limits<int64_t>::max(), most = std::numeric_limits<int64_t>::min();
    const auto for_each_label = [&](auto visit) {
      for (int side = 0; side < 2; ++side) {
        for (int64_t i = 0; i < rows[side]; ++i) visit(label[side][i]);
      }
    };
    for_each_label([&](int64_t value) {
      least = std::min(least, value);
      most = std::max(most, value);
    });
    least_ = least;
    const uint64_t range = uint64_t(most) - uint64_t(least);
    if (range < uint64_t(4 * (rows[0] + rows[1]) + 1024)) {  // usually: a table of all labels in the range
      number_.assign(range + 1, -1);
      for_each_label([&](int64_t value) { number_[value - least] = 0; });
      for (uint64_t k = 0; k <= range; ++k) {
        if (number_[k] < 0) continue;
        number_[k] = int64_t(classes_.size());
        classes_.push_back(least + int64_t(k));
      }
    } else {
      for_each_label([&](int64_t value) { classes_.push_back(value); });
      std::sort(classes_.begin(), classes_.end());
      classes_.erase(std::unique(classes_.begin(), classes_.end()), classes_.end());
    }
  }

  int64_t operator[](int64_t label) const {
    if (!number_.empty()) return number_[label - least_];
    return std::lower_bound(classes_.begin(), classes_.end(), label) - classes_.begin();
  }

  const std::vector<int64_t>& classes() const { return classes_; }

 private:
  std::vector<int64_t> classes_, number_;
  int64_t least_;
};

// Sorts the rows of both sides. Rows of one class keep their order. Labels may be any numbers; there must be at least
// one.
inline Sorted sort_by_class(const Vector<const int64_t> (&label)[2], const int64_t (&rows)[2]) {
  const ClassNumbers number(label, rows);
  Sorted sorted;
  sorted.classes = number.classes();
  for (int side = 0; side < 2; ++side) {
    std::vector<int64_t> of_row(rows[side]), &offset = sorted.offset[side];
    offset.assign(sorted.classes.size() + 1, 0);
    for (int64_t i = 0; i < rows[side]; ++i) {
      of_row[i] = number[label[side][i]];
      ++offset[of_row[i] + 1];
    }
    for (size_t c = 0; c < sorted.classes.size(); ++c) offset[c + 1] += offset[c];
    std::vector<int64_t> next(offset.begin(), offset.end() - 1);
    sorted.order[side].resize(rows[side]);
    sorted.label[side].resize(rows[side]);
    for (int64_t i = 0; i < rows[side]; ++i) {
      const int64_t k = next[of_row[i]]++;
      sorted.order[side][k] = i;
      sorted.label[side][k] = of_row[i];
    }
  }
  return sorted;
}

}  // namespace fastccsa::all_pairs

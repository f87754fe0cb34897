// Ranges of sorted rows, and how they are divided evenly.
#pragma once

#include <cstdint>
#include <vector>

namespace fastccsa::all_pairs {

struct Range {
  int64_t begin, end;
};

inline int64_t size(const Range& range) { return range.end - range.begin; }

// Divides `range` into the smallest number of parts with at most `limit` elements each, all of nearly the same size.
inline std::vector<Range> even_parts(const Range& range, int64_t limit) {
  const int64_t parts = (size(range) + limit - 1) / limit;
  std::vector<Range> cut;
  for (int64_t k = 0; k < parts; ++k) {
    cut.push_back({range.begin + size(range) * k / parts, range.begin + size(range) * (k + 1) / parts});
  }
  return cut;
}

}  // namespace fastccsa::all_pairs

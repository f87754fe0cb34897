// Divides sorted rows into strips along class boundaries.
#pragma once

#include "all_pairs/ranges.h"

#include <algorithm>
#include <cstdint>
#include <vector>

namespace fastccsa::all_pairs::cpu {

constexpr int64_t kStripRows = 128;
constexpr int64_t kOwnStrip = 64;  // a class of at least this many rows has its own strips; smaller classes share

// Sorted rows of a side: some of one class, or all of several classes.
struct Strip : Range {
  int64_t first, last;  // classes
};

inline bool one_class(const Strip& strip) { return strip.first == strip.last; }

// Returns the strips of the sorted rows `all`; class c begins at offset[c].
inline std::vector<Strip> strips_of(const Range& all, const std::vector<int64_t>& offset) {
  std::vector<Strip> strips;
  bool shared = false;  // whether the last strip may take more classes
  const int64_t first = std::upper_bound(offset.begin(), offset.end(), all.begin) - offset.begin() - 1;
  for (int64_t c = first; c + 1 < int64_t(offset.size()) && offset[c] < all.end; ++c) {
    const Range rows{std::max(all.begin, offset[c]), std::min(all.end, offset[c + 1])};
    if (size(rows) <= 0) continue;
    if (size(rows) >= kOwnStrip) {
      for (const Range& part : even_parts(rows, kStripRows)) strips.push_back({part, c, c});
      shared = false;
    } else if (shared && rows.end - strips.back().begin <= kStripRows) {
      strips.back().end = rows.end;
      strips.back().last = c;
    } else {
      strips.push_back({rows, c, c});
      shared = true;
    }
  }
  return strips;
}

}  // namespace fastccsa::all_pairs::cpu

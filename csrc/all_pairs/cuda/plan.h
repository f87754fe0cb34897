// Chooses the tiles of the matrix of pairs that the sweep on CUDA computes. Rows and columns are sorted by class.
#pragma once

#include "all_pairs/ranges.h"

#include <algorithm>
#include <cstdint>
#include <vector>

namespace fastccsa::all_pairs::cuda {

// Up to this many pairs are computed pair by pair. The value was not measured.
constexpr int64_t kFewPairs = 65536;
// Up to this many pairs, the tiles depend only on the sizes. Then there is no host sync: all work is queued at once,
// and a CUDA graph can capture it. For more pairs, skipping tiles of one class and tiles beyond the margin is worth a
// host sync. The value was not measured.
constexpr int64_t kPairsWithoutHostSync = int64_t(1) << 22;

// The largest tile, in float32; 8 MiB.
struct TileSize {
  int64_t rows = 1024, columns = 2048;

  int64_t columns_of(size_t element_bytes) const { return element_bytes <= 4 ? columns : (columns + 1) / 2; }
};

struct TileRange {
  Range rows, columns;
};

// Returns tiles that cover every pair, whatever the labels are. They are wider if there are few rows.
inline std::vector<TileRange> all_tiles(int64_t rows, int64_t columns, const TileSize& most, size_t element_bytes) {
  std::vector<TileRange> tiles;
  for (const Range& own : even_parts({0, rows}, most.rows)) {
    const int64_t limit = std::max<int64_t>(1, most.rows * most.columns_of(element_bytes) / size(own));
    for (const Range& others : even_parts({0, columns}, limit)) tiles.push_back({own, others});
  }
  return tiles;
}

// Sorted rows: a part of one class, or all rows of several classes.
struct Block : Range {
  int64_t first, last;  // classes
};

// Divides all rows into blocks of at most `limit`. Large classes have their own blocks and small classes share, so that
// few pairs of one class are computed.
inline std::vector<Block> blocks_of(const std::vector<int64_t>& offset, int64_t limit) {
  std::vector<Block> blocks;
  const int64_t small = limit / 4;
  for (int64_t c = 0; c + 1 < int64_t(offset.size()); ++c) {
    const Range rows{offset[c], offset[c + 1]};
    if (size(rows) == 0) continue;
    if (!blocks.empty()) {
      Block& before = blocks.back();
      const bool shares = before.first < before.last || size(before) <= small;
      if (shares && size(rows) <= small && rows.end - before.begin <= limit) {
        before.end = rows.end;
        before.last = c;
        continue;
      }
    }
    for (const Range& part : even_parts(rows, limit)) blocks.push_back({part, c, c});
  }
  return blocks;
}

inline bool one_class(const Block& row, const Block& column) {
  return row.first == row.last && column.first == column.last && row.first == column.first;
}

// Returns tiles that cover every pair that can contribute to the separation term. They omit pairs of blocks of the same
// class, and pairs of blocks that are beyond each other's margin. `beyond` has a value for each block of rows and of
// columns.
inline std::vector<TileRange> tiles_of(const std::vector<Block>& rows, const std::vector<Block>& columns,
                                       const std::vector<char>& beyond, int64_t most_columns) {
  std::vector<TileRange> tiles;
  for (size_t r = 0; r < rows.size(); ++r) {
    const auto matters = [&](size_t c) { return !one_class(rows[r], columns[c]) && !beyond[r * columns.size() + c]; };
    for (size_t c = 0; c < columns.size();) {
      const size_t first = c++;
      if (!matters(first)) continue;
      while (c < columns.size() && matters(c)) ++c;
      for (const Range& part : even_parts({columns[first].begin, columns[c - 1].end}, most_columns)) {
        tiles.push_back({rows[r], part});
      }
    }
  }
  return tiles;
}

}  // namespace fastccsa::all_pairs::cuda

// Chooses the tiles of the matrix of pairs that the sweep on CUDA computes. They depend only on sizes, so that the host
// needs nothing from the GPU.
#pragma once

#include "all_pairs/ranges.h"

#include <algorithm>
#include <cstdint>
#include <vector>

namespace fastccsa::all_pairs::cuda {

// Up to this many pairs are computed pair by pair. The value was not measured.
constexpr int64_t kFewPairs = 65536;

// The largest tile, in float32; 128 MiB. Larger tiles keep a GPU busier: the products for their columns have one block
// of threads for some 128 x 256 values.
struct TileSize {
  int64_t rows = 8192, columns = 4096;

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

}  // namespace fastccsa::all_pairs::cuda

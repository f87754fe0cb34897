// The loss over all pairs of 16-bit features in two kernels, which store coefficients between them.
//
// The first kernel multiplies tiles of rows by tiles of columns, and stores the coefficients of their pairs: see
// coefficients_kernel.cuh for Hopper GPUs, and mma_coefficients_kernel.cuh for others. The second one multiplies these
// by the features of the other side, for the gradients of both sides: see gradients_kernel.cuh and
// mma_gradients_kernel.cuh. That is three products for each pair, where the kernels that store nothing compute the
// first product once for each side. Coefficients of part of the pairs are stored at a time.
//
// Features are stored in blocks of 64 rows x 64 values, and coefficients in blocks of 64 rows x 64 columns. A block is
// what the tensor cores read from shared memory, so that the hardware copies it as it is: rows of 128 bytes, whose
// 16-byte chunks are swizzled. Rows are padded to whole tiles by zeros that are far from everything.
#pragma once

#include "all_pairs/cuda/fused/stored_params.h"
#include "all_pairs/cuda/fused/tile_memory.cuh"

namespace fastccsa::all_pairs::cuda {

// Where a 16-byte chunk of a row of a side is stored.
template <typename T>
__device__ __forceinline__ const unsigned char* chunk_of(const Fused<T>& p, int side, int row, int chunk) {
  const int64_t row_blocks = padded_to_tiles(p.side[side].count) / kBlock;
  return reinterpret_cast<const unsigned char*>(p.side[side].features) + place_in_blocks(row, chunk, row_blocks);
}

// How the pairs of a tile are computed. If rows are sorted by class, tiles of pairs of one class are skipped, and those
// whose columns are of one class that none of the rows has take less time than others.
enum TileKind : uint8_t { kSkipped, kSeparate, kMixed };

// Of the tile that begins with a row and a column.
template <typename T>
__device__ __forceinline__ TileKind tile_kind(const Fused<T>& p, int row, int column) {
  if (p.side[0].offset == nullptr) return kMixed;
  const FusedSide<T>&rows = p.side[0], &columns = p.side[1];
  const bool whole = column + kTile <= columns.count;
  const int from = rows.label[row], to = rows.label[min(row + kTile, rows.count) - 1];
  const int own = columns.label[column], last = columns.label[min(column + kTile, columns.count) - 1];
  if (own != last) return kMixed;
  return from == to && from == own ? kSkipped : whole && (own < from || own > to) ? kSeparate : kMixed;
}

// Whether a tile of a side, if it exists, has coefficients with a tile of the other side that are not 0. `Part` describes
// stored coefficients, in one part (Stored) or several.
template <typename Part>
__device__ __forceinline__ bool any_of_tile(const Part& part, int side, int tile, int other) {
  if (tile >= part.tiles[side]) return false;
  const int row_tile = side == 0 ? tile : other, column_tile = side == 0 ? other : tile;
  const uint2 of_warps = *reinterpret_cast<const uint2*>(part.any + (row_tile * part.tiles[1] + column_tile) * 8);
  return (of_warps.x | of_warps.y) != 0;
}

// Calls visit(block, whether they concern the cluster's tile `rank`) for the blocks of the other side's rows whose
// coefficients with the cluster's tiles, from `first_tile` on, are not all 0. A warp calls it.
template <typename Part, typename Visit>
__device__ __forceinline__ void for_each_block(const Part& part, int side, int first_tile, int rank, Visit visit) {
  const int count = part.tiles[1 - side], lane = threadIdx.x % kWarp;
  for (int first = 0; first < count; first += kWarp) {
    const int other = first + lane;
    const bool own = other < count && any_of_tile(part, side, first_tile + rank, other);
    const bool next = other < count && any_of_tile(part, side, first_tile + 1 - rank, other);
    const unsigned of_own = __ballot_sync(kAllLanes, own);
    for (unsigned tiles = __ballot_sync(kAllLanes, own || next); tiles != 0; tiles &= tiles - 1) {
      const int k = __ffs(int(tiles)) - 1;
      for (int half = 0; half < 2; ++half) visit(2 * (first + k) + half, (of_own >> k & 1) != 0);
    }
  }
}

// Writes a row's gradient of a part of the pairs, or adds it: two neighbouring values of each of kGroups groups of 8,
// which four lanes side by side share. `sum` is the sum of the row's coefficients, and products(n, e) that of their
// products with the other side's features.
template <int kGroups, typename T, typename Products>
__device__ __forceinline__ void store_gradient_of_row(const Fused<T>& p, const Stored<T>& part, int side, int row,
                                                      int first_value, float factor, float sum, Products products) {
  const GradientTarget target = result_target(p, side, row, factor);
#pragma unroll
  for (int n = 0; n < kGroups; ++n) {
    const int d = first_value + n * 8 + int(threadIdx.x) % 4 * 2;
    if (d >= p.width) continue;
    float a0, a1;
    unpack_pair<T>(*reinterpret_cast<const uint32_t*>(chunk_of(p, side, row, d / 8) + d % 8 * 2), a0, a1);
    const float sum0 = fmaf(sum, a0, -products(n, 0)), sum1 = fmaf(sum, a1, -products(n, 1));
    if (part.initial[side]) {
      store_gradient(target, p.width, d, a0, a1, sum0, sum1);
    } else {
      add_to_gradient(target, p.width, d, sum0, sum1);
    }
  }
}

// The steps of a ring of stages in shared memory: which stage is next, and the parity of its barriers.
template <int kStages>
struct Ring {
  int stage = 0;
  uint32_t phase = 0;

  __device__ __forceinline__ void next() {
    if (++stage < kStages) return;
    stage = 0;
    phase ^= 1;
  }

  __device__ __forceinline__ void skip(int steps) {
    stage += steps % kStages;
    phase ^= steps / kStages % 2;
    if (stage < kStages) return;
    stage -= kStages;
    phase ^= 1;
  }
};

}  // namespace fastccsa::all_pairs::cuda

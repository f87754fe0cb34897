// The thread that starts the copies of slabs of rows and columns to shared memory, for coefficients in parts: see
// parts_coefficients_kernel.cuh.
#pragma once

#include "all_pairs/cuda/fused/parts_tile.cuh"

namespace fastccsa::all_pairs::cuda {

// A single thread calls it: lanes that only waited might fall behind by two phases of a barrier, and miss one.
template <typename P>
__device__ __forceinline__ void copy_slabs(const PartsTile<P>& tile) {
  using Tile = PartsTile<P>;
  using Shape = PartsShape<P>;
  constexpr int kParts = P::kParts, kStages = Shape::kStages, kBuffers = Shape::kBuffers;
  const PairsInBlocks<P>& p = tile.p;
  const auto place = [&](int side, int64_t row) {
    return reinterpret_cast<const unsigned char*>(p.features[side]) + place_in_blocks(row, 0, 0);
  };
  const unsigned char* const rows = place(0, tile.first_row(tile.row_tile));
  Ring<kStages> ring;
  uint32_t turn = 0;  // tiles so far
  bool has_rows = false;
  for (int k = tile.active(0); k < tile.count; k = tile.active(k + 1), ++turn) {
    const int64_t column = tile.first_column(k);
    const unsigned char* const columns = place(1, column + tile.rank() * kBlock);
    const bool own = tile.counts(k, tile.rank());  // otherwise the rows are not needed
#pragma unroll 1
    for (int slab = 0; slab < p.slabs; ++slab, ring.next()) {
      if (Shape::passes(slab)) {
        const uint32_t full = tile.barrier(Tile::kFull + ring.stage);
        barrier_wait(tile.barrier(Tile::kEmpty + ring.stage), ring.phase ^ 1);
        barrier_arrive_expecting(full, own ? Shape::kSlabBytes : 0);
        if (own) copy_bulk(tile.slot(ring.stage), rows + slab * p.slab_bytes(0), Shape::kSlabBytes, full);
        ring.next();
      }
#pragma unroll
      for (int part = kParts - 1; part >= 0; --part) {
        const int slot = tile.slot_of(ring.stage, part);
        const uint32_t full = tile.barrier(Tile::kFull + slot), to = tile.slot(slot);
        barrier_wait(tile.barrier(Tile::kEmpty + slot), ring.phase ^ 1);
        const bool with_rows = !Shape::kKeepsRows && own;
        barrier_arrive_expecting(full, with_rows ? 2 * Shape::kSlabBytes : Shape::kSlabBytes);
        copy_bulk_to((1u << kCluster) - 1, to + tile.rank() * kBlockBytes,
                     columns + slab * p.slab_bytes(1) + part * p.part_bytes(1), kBlockBytes, full);
        const unsigned char* const from = rows + slab * p.slab_bytes(0) + part * p.part_bytes(0);
        if (with_rows) copy_bulk(to + Shape::kSlabBytes, from, Shape::kSlabBytes, full);
        // The rows come with the first tile that counts here. A block without one would not wait for them.
        if (slab >= Shape::kKept || !own || has_rows) continue;
        barrier_arrive_expecting(tile.barrier(Tile::kRowsFull + slab), Shape::kSlabBytes);
        copy_bulk(tile.base + slab * Shape::kSlabBytes, from, Shape::kSlabBytes, tile.barrier(Tile::kRowsFull + slab));
      }
    }
    has_rows = has_rows || own;
    // Norms and labels, which are needed last.
    const int buffer = turn % kBuffers;
    const uint32_t full = tile.barrier(Tile::kColumnsFull + buffer);
    barrier_wait(tile.barrier(Tile::kColumnsEmpty + buffer), (turn / kBuffers + 1) % 2);
    barrier_arrive_expecting(full, 2 * kTile * 4);
    copy_bulk(shared_address(tile.norms(buffer)), p.pairs.norm[1] + column, kTile * 4, full);
    copy_bulk(shared_address(tile.labels(buffer)), p.label[1] + column, kTile * 4, full);
  }
}

}  // namespace fastccsa::all_pairs::cuda

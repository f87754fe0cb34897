// What the warps of a block of threads share that computes coefficients in parts: shared memory, and its barriers. See
// parts_coefficients_kernel.cuh.
#pragma once

#include "all_pairs/cuda/fused/parts.cuh"

namespace fastccsa::all_pairs::cuda {

template <typename P>
struct PartsShape {
  static constexpr int kParts = P::kParts;
  static constexpr bool kKeepsRows = kParts == 1;
  static constexpr int kKept = kKeepsRows ? 8 : 0;  // slabs of the rows
  static constexpr int kSlabBytes = kTile * 128;    // of 64 values of a tile's rows
  // A slot has a part of a slab of the columns, and behind it that of the rows unless these stay; a stage has the slots
  // of a slab, from the smallest part to the largest.
  static constexpr int kSlotBytes = kKeepsRows ? kSlabBytes : 2 * kSlabBytes;
  static constexpr int kStages = kKeepsRows ? 5 : 6 / kParts, kSlots = kStages * kParts;
  static constexpr int kPieces = 8, kPieceValues = 8;  // of 16 columns
  static constexpr int kBuffers = 4;                   // for norms and labels of a tile's columns
  // Shared memory, in bytes.
  static constexpr int kRing = kKept * kSlabBytes, kNorms = kRing + kSlots * kSlotBytes;
  static constexpr int kLabels = kNorms + kBuffers * kTile * 4, kColumnSums = kLabels + kBuffers * kTile * 4;
  static constexpr int kKinds = kColumnSums + kPartsWarps * kTile * 4;
  static constexpr int kLosses = kKinds + kCluster * kMostTilesOfRun, kBarriers = kLosses + kPartsWarps * 8;
  static constexpr int kBytes = kBarriers + (2 * kSlots + kKept + 2 * kBuffers) * 8;

  // Whether this slab of the rows takes a stage of its own, the one before that of the columns.
  static __device__ __forceinline__ bool passes(int slab) { return kKeepsRows && slab >= kKept; }
};

// A block of threads goes through `count` tiles of columns, from `first_tile` on, for a tile of rows.
template <typename P>
struct PartsTile {
  using Shape = PartsShape<P>;
  static constexpr int kParts = P::kParts, kSlots = Shape::kSlots, kBuffers = Shape::kBuffers;
  enum Barrier {
    kFull = 0,
    kEmpty = kSlots,
    kRowsFull = 2 * kSlots,
    kColumnsFull = kRowsFull + Shape::kKept,
    kColumnsEmpty = kColumnsFull + kBuffers
  };
  enum NamedBarrier { kOwnGroup = 1, kSecondStarts = 3 };

  __device__ __forceinline__ PartsTile(const PairsInBlocks<P>& parameters, unsigned char* shared)
      : PartsTile(parameters, shared, parameters.place(int(blockIdx.x) / kCluster)) {}

  // Initialises the barriers, and finds the tiles that count. All threads call it, and wait for each other afterwards.
  __device__ __forceinline__ void begin() const {
    if (threadIdx.x == 0) {
      for (int k = 0; k < kSlots; ++k) {
        barrier_init(barrier(kFull + k), 1);
        barrier_init(barrier(kEmpty + k), kCluster * kPartsWarps);
      }
      for (int k = 0; k < Shape::kKept; ++k) barrier_init(barrier(kRowsFull + k), 1);
      for (int k = 0; k < kBuffers; ++k) {
        barrier_init(barrier(kColumnsFull + k), 1);
        barrier_init(barrier(kColumnsEmpty + k), kPartsWarps);
      }
      fence_barrier_init();
    }
    for (int k = threadIdx.x; k < kCluster * count; k += kPartsThreads) find_kind(k / kCluster, k % kCluster);
  }

  // The block's number in its cluster, and the warp's in the block. They are found again wherever they are needed,
  // which takes no registers.
  static __device__ __forceinline__ int rank() { return int(blockIdx.x) % kCluster; }
  static __device__ __forceinline__ int warp() { return int(threadIdx.x) / kWarp; }
  static __device__ __forceinline__ int group() { return warp() / kGroupWarps; }

  __device__ __forceinline__ uint32_t barrier(int k) const { return base + Shape::kBarriers + k * 8; }
  // Whether tile k has pairs of different classes for a block of the cluster.
  __device__ __forceinline__ uint8_t& counts(int k, int rank) const {
    return memory[Shape::kKinds + k * kCluster + rank];
  }
  // Of the columns of a tile.
  __device__ __forceinline__ float* norms(int buffer) const {
    return reinterpret_cast<float*>(memory + Shape::kNorms) + buffer * kTile;
  }
  __device__ __forceinline__ int* labels(int buffer) const {
    return reinterpret_cast<int*>(memory + Shape::kLabels) + buffer * kTile;
  }
  // Sums of 16 rows of a computing warp, by column of a tile.
  __device__ __forceinline__ float* column_sums(int warp) const {
    return reinterpret_cast<float*>(memory + Shape::kColumnSums) + warp * kTile;
  }
  __device__ __forceinline__ double* losses() const { return reinterpret_cast<double*>(memory + Shape::kLosses); }
  // Rows of a side, from the first of all sorted rows on.
  __device__ __forceinline__ int64_t first_row(int row_tile) const { return p.pairs.begin[0] + row_tile * kTile; }
  __device__ __forceinline__ int64_t first_column(int k) const {
    return p.pairs.begin[1] + (first_tile + k) * kTile;
  }
  // A slot of the ring, and the one that has a part of a stage's slab.
  __device__ __forceinline__ uint32_t slot(int k) const { return base + Shape::kRing + k * Shape::kSlotBytes; }
  static __device__ __forceinline__ int slot_of(int stage, int part) { return stage * kParts + kParts - 1 - part; }

  // The first tile from k on that is not left out by the whole cluster.
  __device__ __forceinline__ int active(int k) const {
    while (k < count && !counts(k, 0) && !counts(k, 1)) ++k;
    return k;
  }

  // Tells both blocks of the cluster that a warp has read a slot.
  __device__ __forceinline__ void release(int slot) const {
    const int lane = threadIdx.x % kWarp;
    if (lane < kCluster) barrier_arrive_at(barrier(kEmpty + slot), lane);
  }

  // The norms and labels of the columns of the cluster's tile number `turn`.
  __device__ __forceinline__ void wait_for_columns(int turn) const {
    barrier_wait(barrier(kColumnsFull + turn % kBuffers), turn / kBuffers % 2);
  }
  __device__ __forceinline__ void release_columns(int turn) const {
    if (threadIdx.x % kWarp == 0) barrier_arrive(barrier(kColumnsEmpty + turn % kBuffers));
  }

  const PairsInBlocks<P>& p;
  unsigned char* const memory;
  const uint32_t base;
  const int row_tile, first_tile, count;

 private:
  __device__ __forceinline__ PartsTile(const PairsInBlocks<P>& parameters, unsigned char* shared,
                                       const PlaceOfCluster& place)
      : p(parameters),
        memory(shared),
        base(shared_address(shared)),
        row_tile(place.rows * kCluster + rank()),
        first_tile(place.run * p.tiles_of_run()),
        count(min(p.tiles_of_run(), p.tiles[1] - first_tile)) {}

  // Rows are sorted by class, so that a tile of one class on both sides has nothing to compute.
  __device__ void find_kind(int k, int rank) const {
    const int own_tile = row_tile - this->rank() + rank;
    bool found = own_tile < p.tiles[0];
    if (found) {
      const int64_t rows = min(int64_t(kTile), p.pairs.rows - own_tile * kTile);
      const int64_t columns = min(int64_t(kTile), p.pairs.columns - (first_tile + k) * kTile);
      const int32_t *const of_rows = p.label[0] + first_row(own_tile), *const of_columns = p.label[1] + first_column(k);
      const int row = of_rows[0], column = of_columns[0];
      found = row != of_rows[rows - 1] || column != of_columns[columns - 1] || row != column;
    }
    counts(k, rank) = found;
  }
};

}  // namespace fastccsa::all_pairs::cuda

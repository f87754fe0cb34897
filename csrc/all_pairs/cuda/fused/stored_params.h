// Parameters of the kernels that store coefficients: see stored.cuh.
#pragma once

#include "core/macros.h"

#include <cstdint>

namespace fastccsa::all_pairs::cuda {

constexpr int kBlock = 64, kBlockBytes = kBlock * kBlock * 2;  // rows, and columns, of a block
constexpr int kTile = 2 * kBlock;                              // rows, and columns, of a tile of pairs
constexpr int kCluster = 2;                                    // blocks of threads that share copies
constexpr int kWideClusterColumns = 2;                         // Stored::cluster_columns of wide features

// The place of a 16-byte chunk of a row, in bytes: blocks of the same values of all rows follow each other.
FASTCCSA_HOST_DEVICE int64_t place_in_blocks(int64_t row, int chunk, int64_t row_blocks) {
  const int64_t block = (chunk >> 3) * row_blocks + row / kBlock;
  return block * kBlockBytes + row % kBlock * 128 + ((chunk & 7) ^ int(row & 7)) * 16;
}

FASTCCSA_HOST_DEVICE int padded_to_tiles(int rows) { return (rows + kTile - 1) / kTile * kTile; }

// A part of the pairs whose coefficients are stored together: whole tiles of rows of side 0, and of columns, which are
// rows of side 1.
template <typename T>
struct Stored {
  int first[2];         // row of each side
  int tiles[2];
  int runs;             // parts of a row of tiles, each of which a cluster of the first kernel takes
  int cluster_columns;  // how many tiles of columns such a cluster takes at a time
  int loss_slot;        // of the first kernel's first block of threads
  bool initial[2];      // whether this part is the first for these rows of a side
  T* coefficients;      // [row blocks, column blocks, kBlock, kBlock]
  uint8_t* any;         // [row tiles, column tiles, 8]: whether a coefficient of an eighth of the tile is not 0
  float* sums[2];       // of coefficients: [column tiles, rows], and [row blocks, columns]
  int32_t* jobs;        // of the second kernel, those with most work first: see `Job`; nullptr: all have as much

  FASTCCSA_HOST_DEVICE int rows(int side) const { return tiles[side] * kTile; }
  // Groups of neighbouring tiles of a side, each of which a cluster takes.
  FASTCCSA_HOST_DEVICE int clusters(int side) const { return (tiles[side] + kCluster - 1) / kCluster; }
  // The blocks of threads of the first kernel.
  FASTCCSA_HOST_DEVICE int blocks() const { return clusters(0) * kCluster * cluster_columns * runs; }
  FASTCCSA_HOST_DEVICE int tiles_of_run() const { return (tiles[1] + runs - 1) / runs; }
};

// What clusters of the second kernel compute: the gradients of kCluster tiles of a side. Jobs are numbered, those of side 0
// first; a side whose gradient is not needed has none.
struct Job {
  int side, first_tile;
};

FASTCCSA_HOST_DEVICE Job job(int number, int of_first_side) {
  const int side = number >= of_first_side;
  return {side, (number - (side ? of_first_side : 0)) * kCluster};
}

// Up to how many rows and columns coefficients are stored at a time: 512 MiB of them. Then there are at most so many jobs.
constexpr int kStoredPart = 16384, kMostJobs = 2 * kStoredPart / (kTile * kCluster);

// The most tiles of a run.
constexpr int kMostTilesOfRun = 128;

}  // namespace fastccsa::all_pairs::cuda

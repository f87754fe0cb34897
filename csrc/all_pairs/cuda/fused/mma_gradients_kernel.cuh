// Multiplies stored coefficients by features, by the instructions of Ampere and later GPUs: see stored.cuh.
//
// A block of threads computes 128 values of the gradients of a tile of 128 rows of a side. It goes through the rows of the
// other side in steps of 64, and leaves out tiles whose coefficients are all 0.
#pragma once

#include "all_pairs/cuda/fused/gradients_kernel.cuh"
#include "all_pairs/cuda/fused/mma_products.cuh"

namespace fastccsa::all_pairs::cuda {

struct MmaGradientsShape {
  static constexpr int kStages = 3, kColumns = 2 * kBlock;
  // Shared memory, in bytes: stages of coefficients and features, and sums of coefficients that belong to them.
  static constexpr int kFeatures = 2 * kBlockBytes, kStageBytes = kFeatures + kColumns / kBlock * kBlockBytes;
  static constexpr int kSums = kStages * kStageBytes, kBytes = kSums + kStages * kTile * 4;
};

template <typename T>
class MmaGradientsTile {
  using Shape = MmaGradientsShape;
  static constexpr int kStages = Shape::kStages;

 public:
  __device__ __forceinline__ MmaGradientsTile(const Fused<T>& p, const Stored<T>& part, unsigned char* memory)
      : p_(p), part_(part), memory_(memory), base_(shared_address(memory)) {}

  __device__ __forceinline__ void run() {
    let_next_kernel_start();
    wait_for_kernel_before();
    find_job();
    if (tile_ >= part_.tiles[side_]) return;
    WarpProducts kb = {};
    float sum = 0;
    side_ == 0 ? multiply_all<0>(kb, sum) : multiply_all<1>(kb, sum);
    __syncthreads();  // the last stage has been read
    if (threadIdx.x < kTile) sums(0)[threadIdx.x] = sum;
    __syncthreads();
    store(kb);
  }

 private:
  // Blocks of threads are numbered as those of gradients_kernel.cuh: by jobs of two tiles.
  __device__ __forceinline__ void find_job() {
    const int parts = p_.padded_width / Shape::kColumns, cluster = int(blockIdx.x) / kCluster, number = cluster / parts;
    const Job own = job(part_.jobs == nullptr ? number : part_.jobs[number], jobs_of_side(p_, part_, 0));
    side_ = own.side;
    tile_ = own.first_tile + int(blockIdx.x) % kCluster;
    first_value_ = cluster % parts * Shape::kColumns;
  }

  // Of the rows of the tile, by stage.
  __device__ __forceinline__ float* sums(int stage) const {
    return reinterpret_cast<float*>(memory_ + Shape::kSums) + stage * kTile;
  }

  // ---- the blocks of rows of the other side, and copies ----

  // Goes through those whose coefficients with the tile are not all 0.
  struct Blocks {
    int first = -kWarp, half = 1;  // of 32 tiles
    unsigned tiles = 0;            // a bit for each that is left
  };

  // Returns the next block, or -1 after the last one. All lanes of a warp call it.
  __device__ __forceinline__ int next(Blocks& blocks) const {
    blocks.half ^= 1;
    if (blocks.half == 0) blocks.tiles &= blocks.tiles - 1;
    const int count = part_.tiles[1 - side_];
    while (blocks.tiles == 0 && blocks.first + kWarp < count) {
      blocks.first += kWarp;
      const int other = blocks.first + int(threadIdx.x) % kWarp;
      blocks.tiles = __ballot_sync(kAllLanes, other < count && any_of_tile(part_, side_, tile_, other));
    }
    return blocks.tiles == 0 ? -1 : 2 * (blocks.first + __ffs(int(blocks.tiles)) - 1) + blocks.half;
  }

  // Starts to copy what belongs to the next block, if there is one. Returns whether there is.
  template <int kSide>
  __device__ __forceinline__ bool copy_block(Blocks& blocks, int stage) const {
    const int block = next(blocks);
    if (block >= 0) {
      const uint32_t to = base_ + stage * Shape::kStageBytes;
      const int64_t across = 2 * part_.tiles[1];
      const unsigned char* const coefficients = reinterpret_cast<const unsigned char*>(part_.coefficients);
      if constexpr (kSide == 0) {
        const unsigned char* const from = coefficients + (2 * tile_ * across + block) * kBlockBytes;
        for (int k = 0; k < 2; ++k) copy_by_block<kBlockBytes>(to + k * kBlockBytes, from + k * across * kBlockBytes);
      } else {
        copy_by_block<2 * kBlockBytes>(to, coefficients + (block * across + 2 * tile_) * kBlockBytes);
      }
      const int row = part_.first[1 - kSide] + block * kBlock;
#pragma unroll
      for (int k = 0; k < Shape::kColumns / kBlock; ++k) {
        copy_by_block<kBlockBytes>(to + Shape::kFeatures + k * kBlockBytes,
                                   chunk_of(p_, 1 - kSide, row, first_value_ / 8 + k * 8));
      }
      copy_sums<kSide>(block, stage);
    }
    commit_copies();
    return block >= 0;
  }

  // Side 0 has sums of a whole tile of columns; they count with the tile's first block.
  template <int kSide>
  __device__ __forceinline__ void copy_sums(int block, int stage) const {
    if (threadIdx.x >= kTile / 4) return;
    const int from = kSide == 0 ? block / 2 : block, row = tile_ * kTile + int(threadIdx.x) * 4;
    copy_async_16(shared_address(sums(stage) + threadIdx.x * 4), part_.sums[kSide] + from * part_.rows(kSide) + row,
                  kSide == 1 || block % 2 == 0);
  }

  // ---- products ----

  // Adds the products of the tile's coefficients and the other side's features to kb, and the coefficients to `sum`: a
  // thread those of a row.
  template <int kSide>
  __device__ __forceinline__ void multiply_all(WarpProducts& kb, float& sum) const {
    Blocks blocks;
    int left = 0;  // blocks that have been copied, and not yet multiplied
    for (int stage = 0; stage < kStages; ++stage) left += copy_block<kSide>(blocks, stage);
    const Factors<kSide == 1, true> factors(base_, base_ + Shape::kFeatures);
    wait_for_copies<kStages - 1>();
    __syncthreads();
    Fragments f[2];
    int stage = 0;
    if (left > 0) factors.load(f[0], 0, 0);
#pragma unroll 1
    while (left > 0) {
      if (threadIdx.x < kTile) sum += sums(stage)[threadIdx.x];
#pragma unroll
      for (int step = 0; step < kProductSteps; ++step) {
        Fragments& later = f[(step + 1) % 2];
        if (step + 1 < kProductSteps) {
          factors.load(later, stage * Shape::kStageBytes, step + 1);
        } else {
          // All have read this stage, and the next one is there.
          wait_for_copies<kStages - 2>();
          __syncthreads();
          left += int(copy_block<kSide>(blocks, stage)) - 1;
          stage = stage + 1 == kStages ? 0 : stage + 1;
          if (left > 0) factors.load(later, stage * Shape::kStageBytes, 0);
        }
        multiply<T>(kb, f[step % 2]);
      }
    }
  }

  __device__ __forceinline__ void store(const WarpProducts& kb) const {
    const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
    const float factor = gradient_factor(p_);
    const int first_value = first_value_ + warp % kAcross * kProductColumns;
#pragma unroll
    for (int m = 0; m < kRowGroups; ++m) {
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        const int of_tile = warp / kAcross * kBlock + m * 16 + lane / 4 + h * 8;
        const int row = part_.first[side_] + tile_ * kTile + of_tile;
        if (row >= p_.side[side_].count) continue;
        const auto products = [&](int n, int e) { return kb[m][n * 4 + 2 * h + e]; };
        store_gradient_of_row<kColumnGroups>(p_, part_, side_, row, first_value, factor, sums(0)[of_tile], products);
      }
    }
  }

  const Fused<T>& p_;
  const Stored<T>& part_;
  unsigned char* const memory_;
  const uint32_t base_;
  int side_, tile_, first_value_;
};

template <typename T>
__global__ void __launch_bounds__(kThreads, 1)
    mma_gradients_kernel(const __grid_constant__ Fused<T> p, const __grid_constant__ Stored<T> part) {
  MmaGradientsTile<T>(p, part, dynamic_shared()).run();
}

}  // namespace fastccsa::all_pairs::cuda

// Multiplies stored coefficients by features, by the instructions of Ampere and later GPUs: see stored.cuh.
//
// A block of threads computes 128 values of the gradients of a tile of 128 rows of a side. It goes through the rows of
// the other side in slabs of 32, and leaves out tiles whose coefficients are all 0.
#pragma once

#include "all_pairs/cuda/fused/gradients_kernel.cuh"
#include "all_pairs/cuda/fused/mma_products.cuh"

namespace fastccsa::all_pairs::cuda {

struct MmaGradientsShape {
  static constexpr int kColumns = 2 * kBlock;
  // Shared memory, in bytes: the stages. In the end their place is taken by sums of coefficients.
  static constexpr int kBytes = kProductStages * kProductStageBytes;
};

template <typename T>
class MmaGradientsTile {
  using Shape = MmaGradientsShape;

 public:
  __device__ __forceinline__ MmaGradientsTile(const Fused<T>& p, const Stored<T>& part, unsigned char* memory)
      : p_(p), part_(part), memory_(memory), base_(shared_address(memory)) {}

  __device__ __forceinline__ void run() {
    let_next_kernel_start();
    wait_for_kernel_before();
    find_job();
    if (tile_ >= part_.tiles[side_]) return;
    WarpProducts kb = {};
    const float sum = side_ == 0 ? multiply_all<0>(kb) : multiply_all<1>(kb);
    __syncthreads();  // the last stage has been read
    sums()[threadIdx.x] = sum;
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

  // Of the rows of the tile.
  __device__ __forceinline__ float* sums() const { return reinterpret_cast<float*>(memory_); }

  // ---- the slabs of rows of the other side, and copies ----

  static constexpr int kSlabsOfTile = kTile / kSlab;

  // Goes through the slabs of tiles whose coefficients with this one are not all 0.
  struct Slabs {
    int first = -kWarp, of_tile = kSlabsOfTile - 1;  // of 32 tiles; of the tile's slabs
    unsigned tiles = 0;                              // a bit for each that is left
    float sum = 0, next = 0;  // of coefficients of the thread's row, and those that are to be added
  };

  // Returns the number of the next slab, or -1 after the last one. All lanes of a warp call it.
  __device__ __forceinline__ int next(Slabs& slabs) const {
    if (++slabs.of_tile == kSlabsOfTile) {
      slabs.of_tile = 0;
      slabs.tiles &= slabs.tiles - 1;
    }
    const int count = part_.tiles[1 - side_];
    while (slabs.tiles == 0 && slabs.first + kWarp < count) {
      slabs.first += kWarp;
      const int other = slabs.first + int(threadIdx.x) % kWarp;
      slabs.tiles = __ballot_sync(kAllLanes, other < count && any_of_tile(part_, side_, tile_, other));
    }
    if (slabs.tiles == 0) return -1;
    return (slabs.first + __ffs(int(slabs.tiles)) - 1) * kSlabsOfTile + slabs.of_tile;
  }

  // Starts to copy the next slab, if there is one. Returns whether there is.
  template <int kSide>
  __device__ __forceinline__ bool copy_slab(Slabs& slabs, int stage) const {
    const int slab = next(slabs), block = slab / 2, half = slab % 2;
    slabs.sum += slabs.next;
    slabs.next = 0;
    if (slab >= 0) {
      const uint32_t to = base_ + stage * kProductStageBytes;
      const int64_t across = 2 * part_.tiles[1];
      const int row = part_.first[1 - kSide] + slab * kSlab;
#pragma unroll
      for (int k = 0; k < 2; ++k) {
        const int own = 2 * tile_ + k;
        const unsigned char* const from = reinterpret_cast<const unsigned char*>(part_.coefficients) +
                                          (kSide == 0 ? own * across + block : block * across + own) * kBlockBytes;
        if constexpr (kSide == 0) {
          copy_half_rows(to + k * kSlabBlockBytes, from, half);
        } else {
          copy_half_block(to + k * kSlabBlockBytes, from + half * kSlabBlockBytes);
        }
        copy_half_block(to + kFactorBytes + k * kSlabBlockBytes,
                        chunk_of(p_, 1 - kSide, row, first_value_ / 8 + k * 8));
      }
      // There is a sum for each row with a tile of columns, or with a block of rows.
      constexpr int kSlabsOfSum = kSide == 0 ? kSlabsOfTile : kSlabsOfTile / 2;
      static_assert(kProductThreads == kTile);
      const float* const sums = part_.sums[kSide] + tile_ * kTile + threadIdx.x;
      if (slab % kSlabsOfSum == 0) slabs.next = sums[slab / kSlabsOfSum * part_.rows(kSide)];
    }
    commit_copies();
    return slab >= 0;
  }

  // ---- products ----

  // Adds the products of the tile's coefficients and the other side's features to kb. Returns the sum of the
  // coefficients of the thread's row.
  template <int kSide>
  __device__ __forceinline__ float multiply_all(WarpProducts& kb) const {
    Slabs slabs;
    int left = 0;  // slabs that have been copied, and not yet multiplied
    for (int stage = 0; stage < kProductStages; ++stage) left += copy_slab<kSide>(slabs, stage);
    const Factors<kSide == 1, true> factors(base_);
    wait_for_copies<kProductStages - 1>();
    __syncthreads();
    Fragments f[2];
    int stage = 0;
    if (left > 0) factors.load(f[0], 0, 0);
#pragma unroll 1
    while (left > 0) {
      multiply_slab<T>(kb, f, factors, stage, [&](int free) { left += int(copy_slab<kSide>(slabs, free)) - 1; });
    }
    return slabs.sum;
  }

  __device__ __forceinline__ void store(const WarpProducts& kb) const {
    const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
    const float factor = gradient_factor(p_);
    const int first_value = first_value_ + warp % 2 * kBlock;
#pragma unroll
    for (int m = 0; m < kRowGroups; ++m) {
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        const int of_tile = warp / 2 * kBlock + m * 16 + lane / 4 + h * 8;
        const int row = part_.first[side_] + tile_ * kTile + of_tile;
        if (row >= p_.side[side_].count) continue;
        const auto products = [&](int n, int e) { return kb[m][n * 4 + 2 * h + e]; };
        store_gradient_of_row<kColumnGroups>(p_, part_, side_, row, first_value, factor, sums()[of_tile], products);
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
__global__ void __launch_bounds__(kProductThreads, 2)
    mma_gradients_kernel(const __grid_constant__ Fused<T> p, const __grid_constant__ Stored<T> part) {
  MmaGradientsTile<T>(p, part, dynamic_shared()).run();
}

}  // namespace fastccsa::all_pairs::cuda

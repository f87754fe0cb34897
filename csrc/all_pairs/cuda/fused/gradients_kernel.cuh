// Multiplies stored coefficients by features, by the instructions of Hopper GPUs: see stored.cuh.
//
// A block of threads computes the gradients of a tile of 128 rows of a side, of which each of the two computing
// warpgroups takes half, and of kColumns of their values. It goes through the rows of the other side in steps of 64, and
// leaves out tiles whose coefficients are all 0. Two blocks with neighbouring tiles form a cluster: each copies half of
// the features for both, because the L2 cache would be slower than the products otherwise.
#pragma once

#include "all_pairs/cuda/fused/stored.cuh"

namespace fastccsa::all_pairs::cuda {

constexpr int kOrderThreads = 1024;
constexpr int kGradientsThreads = 3 * kGroupThreads;  // two warpgroups compute, and the third copies and adds sums

template <int kColumns>
struct GradientsShape {
  static constexpr int kSlabs = kColumns / kBlock;
  static constexpr int kStages = kColumns == 256 ? 4 : 6;
  static constexpr int kFeatures = 2 * kBlockBytes;  // in a stage, behind the coefficients
  static constexpr int kStageBytes = kFeatures + kSlabs * kBlockBytes;
  // Shared memory, in bytes.
  static constexpr int kSums = kStages * kStageBytes, kBarriers = kSums + kTile * 4;
  static constexpr int kBytes = kBarriers + 2 * kStages * 8;
};

template <typename T>
FASTCCSA_HOST_DEVICE int jobs_of_side(const Fused<T>& p, const Stored<T>& part, int side) {
  return p.side[side].gradient == nullptr ? 0 : part.clusters(side);
}

// Sorts the jobs by their work, so that the last ones to begin end soon. A single block of threads.
template <typename T>
__global__ void __launch_bounds__(kOrderThreads)
    order_jobs_kernel(const __grid_constant__ Fused<T> p, const __grid_constant__ Stored<T> part) {
  __shared__ int work[kMostJobs];
  let_next_kernel_start();
  wait_for_kernel_before();
  const int of_first_side = jobs_of_side(p, part, 0), count = of_first_side + jobs_of_side(p, part, 1);
  const int lane = threadIdx.x % kWarp;
  for (int k = threadIdx.x / kWarp; k < count; k += kOrderThreads / kWarp) {
    const Job one = job(k, of_first_side);
    int tiles = 0;
    for (int other = lane; other < part.tiles[1 - one.side]; other += kWarp) {
      bool any = false;
      for (int c = 0; c < kCluster; ++c) any |= any_of_tile(part, one.side, one.first_tile + c, other);
      tiles += any;
    }
    tiles = reduce<kWarp>(tiles, Add());
    if (lane == 0) work[k] = tiles;
  }
  __syncthreads();
  const int own = threadIdx.x;
  if (own >= count) return;
  int before = 0;
  for (int k = 0; k < count; ++k) before += work[k] > work[own] || (work[k] == work[own] && k < own);
  part.jobs[before] = own;
}

template <typename T, int kColumns>
class GradientsTile {
  using Shape = GradientsShape<kColumns>;
  static constexpr int kStages = Shape::kStages;
  enum Barrier { kFull = 0, kEmpty = kStages };
  enum NamedBarrier { kSumsAdded = 1 };

 public:
  __device__ __forceinline__ GradientsTile(const Fused<T>& p, const Stored<T>& part, unsigned char* memory)
      : p_(p),
        part_(part),
        memory_(memory),
        base_(shared_address(memory)),
        warp_(__shfl_sync(kAllLanes, int(threadIdx.x / kWarp), 0)),
        rank_(cluster_rank()) {}

  __device__ __forceinline__ void run() {
    if (threadIdx.x == 0) {
      for (int k = 0; k < kStages; ++k) {
        barrier_init(barrier(kFull + k), 1);
        barrier_init(barrier(kEmpty + k), kCluster * 2 * kGroupWarps);
      }
      fence_barrier_init();
    }
    synchronise_cluster();
    let_next_kernel_start();
    wait_for_kernel_before();
    find_job();
    if (warp_ / kGroupWarps == 2) {
      give_registers<40>();
      if (warp_ == 2 * kGroupWarps) copy();
      if (warp_ == 2 * kGroupWarps + 1 || warp_ == 2 * kGroupWarps + 2) add_sums();
    } else {
      take_registers<232>();
      compute();
    }
    synchronise_cluster();  // the other block may still write here
  }

 private:
  __device__ __forceinline__ void find_job() {
    const int parts = p_.padded_width / kColumns, cluster = int(blockIdx.x) / kCluster, number = cluster / parts;
    const Job own = job(part_.jobs == nullptr ? number : part_.jobs[number], jobs_of_side(p_, part_, 0));
    side_ = own.side;
    pair_ = own.first_tile;
    first_value_ = cluster % parts * kColumns;
  }

  __device__ __forceinline__ uint32_t barrier(int k) const { return base_ + Shape::kBarriers + k * 8; }
  __device__ __forceinline__ uint32_t stage(int k) const { return base_ + k * Shape::kStageBytes; }

  __device__ __forceinline__ int tile() const { return pair_ + rank_; }

  __device__ __forceinline__ bool any(int tile, int other) const { return any_of_tile(part_, side_, tile, other); }

  // A copy of a stage: where it begins, how far it moves on with each block of the other side, and where it goes.
  struct Source {
    const unsigned char* from;
    int64_t step;
    int to, bytes;
    uint32_t ranks;  // the blocks of the cluster
  };

  // How many copies a block of threads makes: of coefficients, and of its share of the features.
  __device__ __forceinline__ int coefficient_copies() const { return side_ == 0 ? 2 : 1; }
  __device__ __forceinline__ int copies() const { return coefficient_copies() + Shape::kSlabs / kCluster; }

  __device__ __forceinline__ Source source(int number) const {
    const int64_t across = 2 * part_.tiles[1];
    if (number < coefficient_copies()) {
      const unsigned char* const from = reinterpret_cast<const unsigned char*>(part_.coefficients);
      const int own = min(tile(), part_.tiles[side_] - 1);  // one that does not exist has no use for its coefficients
      if (side_ == 1) return {from + int64_t(2 * own) * kBlockBytes, across * kBlockBytes, 0, 2 * kBlockBytes, 0};
      return {from + (2 * own + number) * across * kBlockBytes, kBlockBytes, number * kBlockBytes, kBlockBytes, 0};
    }
    const int slab = (number - coefficient_copies()) * kCluster + rank_;
    const FusedSide<T>& others = p_.side[1 - side_];
    const int64_t at = place_in_blocks(part_.first[1 - side_], first_value_ / 8 + slab * 8,
                                       padded_to_tiles(others.count) / kBlock);
    return {reinterpret_cast<const unsigned char*>(others.features) + at, kBlockBytes,
            Shape::kFeatures + slab * kBlockBytes, kBlockBytes, (1u << kCluster) - 1};
  }

  // The copying warp. Each lane has a copy of its own, because one lane alone would take longer than the products.
  __device__ __forceinline__ void copy() {
    const int lane = threadIdx.x % kWarp, count = copies();
    const Source own = source(lane < count ? lane : 0);
    Ring<kStages> ring;
    for_each_block(part_, side_, pair_, rank_, [&](int block, bool) {
      const uint32_t full = barrier(kFull + ring.stage), to = stage(ring.stage) + own.to;
      const unsigned char* const from = own.from + block * own.step;
      barrier_wait(barrier(kEmpty + ring.stage), ring.phase ^ 1);
      if (lane == 0) barrier_arrive_expecting(full, Shape::kStageBytes);
      __syncwarp();
      if (lane < count) {
        own.ranks == 0 ? copy_bulk(to, from, own.bytes, full) : copy_bulk_to(own.ranks, to, from, own.bytes, full);
      }
      ring.next();
    });
  }

  // Two warps add the sums of coefficients of the tile's rows meanwhile, in a fixed order; a lane takes two rows.
  __device__ __forceinline__ void add_sums() const {
    const int row = threadIdx.x - (2 * kGroupWarps + 1) * kWarp;
    const int count = side_ == 0 ? part_.tiles[1] : 2 * part_.tiles[0];
    const int64_t step = part_.rows(side_);
    const float* const from = part_.sums[side_] + tile() * kTile + row;
    float sum[2] = {};
#pragma unroll 4
    for (int k = 0; k < count; ++k) {
      if (!any(tile(), side_ == 0 ? k : k / 2)) continue;
      sum[0] += from[k * step];
      sum[1] += from[k * step + kBlock];
    }
    for (int h = 0; h < 2; ++h) sums()[h * kBlock + row] = sum[h];
    wait_for_sums();
  }

  __device__ __forceinline__ float* sums() const { return reinterpret_cast<float*>(memory_ + Shape::kSums); }
  static __device__ __forceinline__ void wait_for_sums() { named_barrier(kSumsAdded, 2 * kGroupThreads + 2 * kWarp); }

  __device__ __forceinline__ void compute() {
    const int group = warp_ / kGroupWarps;
    float kb[kColumns / 2];
#pragma unroll
    for (float& value : kb) value = 0;
    side_ == 0 ? multiply<0>(kb, group) : multiply<1>(kb, group);
    wait_for_sums();
    store(kb, group);
  }

  // Adds the products of the group's coefficients and the other side's features to kb.
  template <int kSide>
  __device__ __forceinline__ void multiply(float (&kb)[kColumns / 2], int group) const {
    // Of lane 0, so that the compiler computes with the registers of the warp, which the products need.
    const uint32_t base = __shfl_sync(kAllLanes, base_, 0);
    const uint64_t coefficients = matrix_descriptor(base + group * kBlockBytes, 16, 1024);
    const uint64_t features = matrix_descriptor(base + Shape::kFeatures, kBlockBytes, 1024);
    Ring<kStages> ring;
    int before = -1;
    keep(kb);
    for_each_block(part_, side_, pair_, rank_, [&](int, bool own) {
      const uint64_t a = coefficients + ring.stage * (Shape::kStageBytes >> 4);
      const uint64_t b = features + ring.stage * (Shape::kStageBytes >> 4);
      barrier_wait(barrier(kFull + ring.stage), ring.phase);
      if (own) {
        wgmma_fence();
#pragma unroll
        for (int k = 0; k < 4; ++k) {
          if constexpr (kSide == 0) {
            wgmma_mn<T, kColumns>(kb, a + k * 2, b + k * 128);
          } else {
            wgmma_mn_mn<T, kColumns>(kb, a + k * 128, b + k * 128);
          }
        }
        wgmma_commit();
        wgmma_wait<1>();
      } else {
        wgmma_wait<0>();
      }
      if (before >= 0) release(before);
      before = ring.stage;
      ring.next();
    });
    // The last stage need not be released: nothing is copied to it any more.
    wgmma_wait<0>();
    keep(kb);
  }

  // Tells both blocks of the cluster that a warp has read a stage.
  __device__ __forceinline__ void release(int k) const {
    const int lane = threadIdx.x % kWarp;
    if (lane < kCluster) barrier_arrive_at(barrier(kEmpty + k), lane);
  }

  __device__ __forceinline__ void store(const float (&kb)[kColumns / 2], int group) const {
    const float factor = gradient_factor(p_);
    const int lane = threadIdx.x % kWarp;
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const int of_group = warp_ % kGroupWarps * 16 + lane / 4 + h * 8;
      const int row = part_.first[side_] + tile() * kTile + group * kBlock + of_group;
      if (row >= p_.side[side_].count) continue;
      const auto products = [&](int n, int e) { return kb[n * 4 + 2 * h + e]; };
      const float sum = sums()[group * kBlock + of_group];
      store_gradient_of_row<kColumns / 8>(p_, part_, side_, row, first_value_, factor, sum, products);
    }
  }

  const Fused<T>& p_;
  const Stored<T>& part_;
  unsigned char* const memory_;
  const uint32_t base_;
  const int warp_, rank_;
  int side_, pair_, first_value_;  // pair_: the first of the cluster's tiles
};

// On other architectures the kernel is empty: run.h never starts it there.
template <typename T, int kColumns>
__global__ void __launch_bounds__(kGradientsThreads, 1)
    gradients_kernel(const __grid_constant__ Fused<T> p, const __grid_constant__ Stored<T> part) {
#if !defined(__CUDACC__) || defined(__CUDA_ARCH_FEAT_SM90_ALL)
  GradientsTile<T, kColumns>(p, part, dynamic_shared()).run();
#endif
}

}  // namespace fastccsa::all_pairs::cuda

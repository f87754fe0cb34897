// Multiplies coefficients in parts by features in parts, by the instructions of Hopper GPUs: see parts.cuh.
//
// A block of threads computes up to kColumns values of the gradients of a tile of 128 rows of a side, of which each of
// the two computing warpgroups takes half. It goes through the rows of the other side in steps of 64, and leaves out
// tiles whose coefficients are all 0. Two blocks with neighbouring tiles form a cluster: each copies half of the
// features for both.
#pragma once

#include "all_pairs/cuda/fused/parts.cuh"

namespace fastccsa::all_pairs::cuda {

template <typename P>
struct PartsGradientsShape {
  static constexpr int kColumns = kPromotes<P> ? 128 : 256, kSlabs = kColumns / kBlock;
  // A slot has a part of the coefficients, and behind it that of the features; a stage has the slots of a step, from
  // the smallest part to the largest.
  static constexpr int kFeatures = 2 * kBlockBytes, kSlotBytes = kFeatures + kSlabs * kBlockBytes;
  static constexpr int kStages = kPromotes<P> ? 2 : 4 / P::kParts, kSlots = kStages * P::kParts;
  // Shared memory, in bytes.
  static constexpr int kBarriers = kSlots * kSlotBytes, kBytes = kBarriers + 2 * kSlots * 8;
};

// Ranges of columns, each of which a block of threads takes.
template <typename P>
FASTCCSA_HOST_DEVICE int ranges_of_columns(const PairsInBlocks<P>& p) {
  constexpr int kSlabs = PartsGradientsShape<P>::kSlabs;
  return (p.slabs + kSlabs - 1) / kSlabs;
}

template <typename P>
FASTCCSA_HOST_DEVICE int jobs_of_side(const PairsInBlocks<P>& p, int side) {
  return p.product[side] == nullptr ? 0 : p.clusters(side);
}

template <typename P>
class PartsGradientsTile {
  using Shape = PartsGradientsShape<P>;
  using Part = typename P::Part;
  static constexpr int kParts = P::kParts, kStages = Shape::kStages, kSlots = Shape::kSlots;
  static constexpr int kColumns = Shape::kColumns;
  enum Barrier { kFull = 0, kEmpty = kSlots };
  enum NamedBarrier { kSecondStarts = 1 };

 public:
  __device__ __forceinline__ PartsGradientsTile(const PairsInBlocks<P>& p, unsigned char* memory)
      : p_(p), base_(shared_address(memory)), warp_(__shfl_sync(kAllLanes, int(threadIdx.x / kWarp), 0)) {
    const int cluster = int(blockIdx.x) / kCluster;
    const int ranges = ranges_of_columns(p);
    const Job own = job(cluster / ranges, jobs_of_side(p, 0));
    side_ = own.side;
    pair_ = own.first_tile;
    rank_ = cluster_rank();
    first_slab_ = cluster % ranges * Shape::kSlabs;
  }

  __device__ __forceinline__ void run() {
    if (threadIdx.x == 0) {
      for (int k = 0; k < kSlots; ++k) {
        barrier_init(barrier(kFull + k), 1);
        barrier_init(barrier(kEmpty + k), kCluster * kPartsWarps);
      }
      fence_barrier_init();
    }
    synchronise_cluster();
    if (warp_ >= kPartsWarps) {
      give_registers<40>();
      if (warp_ == kPartsWarps) copy();
    } else {
      take_registers<232>();
      compute();
    }
    synchronise_cluster();  // the other block may still write here
  }

 private:
  __device__ __forceinline__ uint32_t barrier(int k) const { return base_ + Shape::kBarriers + k * 8; }
  static __device__ __forceinline__ int slot_of(int stage, int part) { return stage * kParts + kParts - 1 - part; }

  __device__ __forceinline__ int tile() const { return pair_ + rank_; }
  // The last range of columns may have fewer slabs. What lies in a slot in place of the others is multiplied, and the
  // results, which nothing else depends on, are not stored.
  __device__ __forceinline__ int slabs() const { return min(Shape::kSlabs, p_.slabs - first_slab_); }

  // A copy to a slot: where it begins for the largest part, how far it moves on with each block of the other side and
  // with each part, and where it goes.
  struct Source {
    const unsigned char* from;
    int64_t step, part_step;
    int to, bytes;
    uint32_t ranks;  // the blocks of the cluster; 0: this one
  };

  // How many copies a block of threads makes: of coefficients, and of its share of the features, every second slab.
  __device__ __forceinline__ int coefficient_copies() const { return side_ == 0 ? 2 : 1; }
  __device__ __forceinline__ int copies() const { return coefficient_copies() + (slabs() + 1 - rank_) / kCluster; }

  __device__ __forceinline__ Source source(int number) const {
    const int64_t across = 2 * p_.tiles[1], part_step = p_.coefficients_bytes();
    if (number < coefficient_copies()) {
      const unsigned char* const from = reinterpret_cast<const unsigned char*>(p_.coefficients);
      const int own = min(tile(), p_.tiles[side_] - 1);  // one that does not exist has no use for its coefficients
      if (side_ == 1) {
        return {from + int64_t(2 * own) * kBlockBytes, across * kBlockBytes, part_step, 0, 2 * kBlockBytes, 0};
      }
      const int to = number * kBlockBytes;
      return {from + (2 * own + number) * across * kBlockBytes, kBlockBytes, part_step, to, kBlockBytes, 0};
    }
    const int slab = (number - coefficient_copies()) * kCluster + rank_, other = 1 - side_;
    const unsigned char* const from = reinterpret_cast<const unsigned char*>(p_.features[other]) +
                                      place_in_blocks(p_.pairs.begin[other], 0, 0) +
                                      (first_slab_ + slab) * p_.slab_bytes(other);
    return {from, kBlockBytes, p_.part_bytes(other), Shape::kFeatures + slab * kBlockBytes, kBlockBytes,
            (1u << kCluster) - 1};
  }

  // The copying warp. Each lane has a copy of its own, because one lane alone would take longer than the products.
  __device__ __forceinline__ void copy() const {
    const int lane = threadIdx.x % kWarp, count = copies(), bytes = Shape::kFeatures + slabs() * kBlockBytes;
    const Source own = source(lane < count ? lane : 0);
    Ring<kStages> ring;
    for_each_block(p_, side_, pair_, rank_, [&](int block, bool) {
#pragma unroll
      for (int part = kParts - 1; part >= 0; --part) {
        const int slot = slot_of(ring.stage, part);
        const uint32_t full = barrier(kFull + slot), to = base_ + slot * Shape::kSlotBytes + own.to;
        const unsigned char* const from = own.from + block * own.step + part * own.part_step;
        barrier_wait(barrier(kEmpty + slot), ring.phase ^ 1);
        if (lane == 0) barrier_arrive_expecting(full, bytes);
        __syncwarp();
        if (lane < count) {
          own.ranks == 0 ? copy_bulk(to, from, own.bytes, full) : copy_bulk_to(own.ranks, to, from, own.bytes, full);
        }
      }
      ring.next();
    });
  }

  // A range of at most half of the columns takes half of the products.
  __device__ __forceinline__ void compute() const {
    constexpr int kHalf = kColumns / 2;
    if (slabs() * kBlock <= kHalf) {
      compute<kHalf>();
    } else {
      compute<kColumns>();
    }
  }

  template <int kComputed>
  __device__ __forceinline__ void compute() const {
    float kb[kComputed / 2];
    side_ == 0 ? multiply<0, kComputed>(kb) : multiply<1, kComputed>(kb);
    store(kb);
  }

  // Computes the products of the group's coefficients and the other side's features.
  template <int kSide, int kComputed>
  __device__ __forceinline__ void multiply(float (&kb)[kComputed / 2]) const {
    constexpr int kValues = kComputed / 2;
    // Of lane 0, so that the compiler computes with the registers of the warp, which the products need.
    const uint32_t base = __shfl_sync(kAllLanes, base_, 0), group = warp_ / kGroupWarps;
    const uint64_t coefficients = matrix_descriptor(base + group * kBlockBytes, 16, 1024);
    const uint64_t features = matrix_descriptor(base + Shape::kFeatures, kBlockBytes, 1024);
    float sums[kPromotes<P> ? kValues : 1];
    Ring<kStages> ring;
    int before = -1;
    bool first = kPromotes<P>;
#pragma unroll
    for (float& value : kb) value = 0;
#pragma unroll
    for (float& value : sums) value = 0;
    const auto finish = [&] {
      wgmma_wait<0>();
      if (before >= 0) release(before);
      before = -1;
    };
    keep(kb);
    for_each_block(p_, side_, pair_, rank_, [&](int, bool own) {
#pragma unroll
      for (int part = kParts - 1; part >= 0; --part) {
        barrier_wait(barrier(kFull + slot_of(ring.stage, part)), ring.phase);
      }
      if (!own) {
        finish();
        for (int part = 0; part < kParts; ++part) release(slot_of(ring.stage, part));
        ring.next();
        return;
      }
      // Groups that add up sums do so at different times, so that one of them always has products.
      if (first && group == 1) named_barrier(kSecondStarts, 2 * kGroupThreads);
#pragma unroll
      for (int part = kParts - 1; part >= 0; --part) {
        wgmma_fence();
        for_each_product<kParts>(part, [&](int i, int j) {
          const uint64_t a = coefficients + slot_of(ring.stage, i) * (Shape::kSlotBytes >> 4);
          const uint64_t b = features + slot_of(ring.stage, j) * (Shape::kSlotBytes >> 4);
#pragma unroll
          for (int k = 0; k < 4; ++k) {
            if constexpr (kSide == 0) {
              wgmma_mn<Part, kComputed>(kb, a + k * 2, b + k * 128);
            } else {
              wgmma_mn_mn<Part, kComputed>(kb, a + k * 128, b + k * 128);
            }
          }
        });
        wgmma_commit();
        if (before >= 0) {
          wgmma_wait<1>();
          release(before);
        }
        before = slot_of(ring.stage, part);
        if (part == 1 && first && group == 0) named_barrier(kSecondStarts, 2 * kGroupThreads);
      }
      ring.next();
      first = false;
      if constexpr (kPromotes<P>) {
        finish();
        keep(kb);
#pragma unroll
        for (int i = 0; i < kValues; ++i) {
          sums[i] += kb[i];
          kb[i] = 0;
        }
        keep(kb);
      }
    });
    finish();
    keep(kb);
    if constexpr (kPromotes<P>) {
#pragma unroll
      for (int i = 0; i < kValues; ++i) kb[i] = sums[i];
    }
  }

  // Tells both blocks of the cluster that a warp has read a slot.
  __device__ __forceinline__ void release(int slot) const {
    const int lane = threadIdx.x % kWarp;
    if (lane < kCluster) barrier_arrive_at(barrier(kEmpty + slot), lane);
  }

  template <int kValues>
  __device__ __forceinline__ void store(const float (&kb)[kValues]) const {
    const PartsScale scale = parts_scale(p_.range, p_.pairs.margin, p_.pairs.weight != nullptr);
    const auto unscaled = [&](float value) {
      return kScales<P> ? value * scale.inverse_value * scale.inverse_coefficient : value;
    };
    const int64_t rows = side_ == 0 ? p_.pairs.rows : p_.pairs.columns, width = p_.pairs.width;
    const int lane = threadIdx.x % kWarp;
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const int64_t row = tile() * kTile + warp_ * 16 + lane / 4 + h * 8;
      if (row >= rows) continue;
      float* const to = p_.product[side_] + (p_.pairs.begin[side_] + row) * width;
#pragma unroll
      for (int n = 0; n < kValues / 4; ++n) {
        const int d = first_slab_ * kBlock + n * 8 + lane % 4 * 2;
#pragma unroll
        for (int e = 0; e < 2; ++e) {
          if (d + e >= width) continue;
          const float sum = unscaled(kb[n * 4 + 2 * h + e]);
          to[d + e] = p_.initial[side_] ? -sum : to[d + e] - sum;
        }
      }
    }
  }

  const PairsInBlocks<P>& p_;
  const uint32_t base_;
  const int warp_;
  int side_, rank_, pair_, first_slab_;  // pair_: the first of the cluster's tiles
};

// On other architectures the kernel is empty: it is never started there.
template <typename P>
__global__ void __launch_bounds__(kPartsThreads, 1)
    parts_gradients_kernel(const __grid_constant__ PairsInBlocks<P> p) {
#if !defined(__CUDACC__) || defined(__CUDA_ARCH_FEAT_SM90_ALL)
  PartsGradientsTile<P>(p, dynamic_shared()).run();
#endif
}

}  // namespace fastccsa::all_pairs::cuda

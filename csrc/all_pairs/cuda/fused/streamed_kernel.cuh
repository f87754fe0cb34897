// The fused loss over all pairs of few rows with many columns, by the instructions of Hopper GPUs: the columns are read
// once, from the caller's tensor, at the speed of the memory.
//
// A block of threads keeps up to 64 rows in shared memory, and tiles of 64 columns pass through two stages. The first
// warpgroup multiplies the rows by a tile, finds the norms of its columns meanwhile, and turns the products into
// coefficients; the next two multiply these by the tile, each for half of the values of a row; and the last one copies.
// Each block of threads leaves a partial sum of the gradients of its rows: see fused_streamed_finish_kernel.
//
// Only the gradient of the rows is computed. Labels and weights are checked here, so that nothing has to run before.
#pragma once

#include "all_pairs/cuda/fused/streamed.cuh"
#include "all_pairs/cuda/prepare_sort.cuh"

namespace fastccsa::all_pairs::cuda {

template <typename T>
class StreamedTile {
  static constexpr int kWidth = kLargestFusedWidth, kHalf = kWidth / 2, kQuarter = kWidth / 4, kSlabs = kWidth / 64;
  using Shape = StreamedShape;
  using Places = Shape::Products;
  static constexpr int kSlab = Places::kSlab, kGroups = Shape::kColumns / 8, kStages = Shape::kStages;
  // Barriers, counted in 8 bytes: half tile filled, tile released, coefficients stored.
  enum Barrier { kFull = 0, kEmpty = 2 * kStages, kStored = 3 * kStages };
  enum NamedBarrier { kComputing = 1, kOwnGroup = 2, kRowsCopied = 3 };
  // The label of columns whose class none of the rows has, where labels may be any numbers.
  static constexpr int kNoRowsClass = Shape::kRows;

 public:
  __device__ __forceinline__ StreamedTile(const Fused<T>& p, unsigned char* memory, FaultWord* fault)
      : p_(p),
        memory_(memory),
        fault_(fault),
        base_(shared_address(memory)),
        products_(base_),
        warp_(__shfl_sync(kAllLanes, int(threadIdx.x / kWarp), 0)),
        side_(p.side[0].blocks > 0 ? 0 : 1),
        parts_(streamed_parts(p)),
        part_(int(blockIdx.x) % parts_),
        first_row_(int(blockIdx.x) / parts_ * Shape::kRows),
        rows_(min(p.side[side_].count - first_row_, Shape::kRows)),
        tiles_((p.side[1 - side_].count + Shape::kColumns - 1) / Shape::kColumns) {}

  __device__ __forceinline__ void run() {
    if (threadIdx.x == 0) {
      for (int k = 0; k < kStages; ++k) {
        barrier_init(barrier(kFull + 2 * k), kWarp);
        barrier_init(barrier(kFull + 2 * k + 1), kWarp);
        barrier_init(barrier(kEmpty + k), 2 * kGroupWarps);
        barrier_init(barrier(kStored + k), kGroupThreads);
      }
      fence_barrier_init();
    }
    __syncthreads();
    let_next_kernel_start();
    const int group = warp_ / kGroupWarps;
    if (group == 0) {
      give_registers<120>();
      compute_coefficients();
    } else if (group == 3) {
      give_registers<40>();
      copy();
    } else {
      take_registers<176>();
      compute_gradients(group - 1);
    }
  }

 private:
  __device__ __forceinline__ uint32_t barrier(int k) const { return base_ + Shape::kBarriers + k * 8; }
  template <typename U>
  __device__ __forceinline__ U* at(int place) const {
    return reinterpret_cast<U*>(memory_ + place);
  }
  __device__ __forceinline__ float* norms(int stage) const { return at<float>(Shape::kNorms) + stage * Shape::kColumns; }
  __device__ __forceinline__ int* labels(int stage) const { return at<int>(Shape::kLabels) + stage * Shape::kColumns; }
  __device__ __forceinline__ float* row_norms() const { return at<float>(Shape::kRowNorms); }
  __device__ __forceinline__ int64_t* row_labels() const { return at<int64_t>(Shape::kRowLabels); }
  __device__ __forceinline__ float* row_sums() const { return at<float>(Shape::kRowSums); }
  // Whether each warp has stored a coefficient that is not 0, by stage.
  __device__ __forceinline__ uint32_t* any() const { return at<uint32_t>(Shape::kAny); }
  __device__ __forceinline__ unsigned char* tile(int stage) const {
    return memory_ + Places::kTiles + stage * Places::kTileBytes;
  }
  static __device__ __forceinline__ void wait_for_computing() { named_barrier(kComputing, 3 * kGroupThreads); }

  // The place of a 16-byte chunk of a row, relative to the rows or a tile.
  static __device__ __forceinline__ int place(int row, int chunk) {
    return (chunk >> 3) * kSlab + row * 128 + swizzled(chunk & 7, row) * 16;
  }

  __device__ __forceinline__ bool needs_gradient() const { return p_.side[side_].gradient != nullptr; }

  // ---- norms and labels ----

  // Finds the norms of four rows of shared memory; lanes 0, 8, 16 and 24 get those of rows 0 to 3.
  static __device__ __forceinline__ float norm_of_row(const unsigned char* first_of_four) {
    const int lane = threadIdx.x % kWarp;
    // A row's chunks are permuted within slabs, which does not matter here.
    const unsigned char* const from = first_of_four + lane / 8 * 128 + lane % 8 * 16;
    float sums[4] = {};
#pragma unroll
    for (int slab = 0; slab < kSlabs; ++slab) {
      const uint4 chunk = *reinterpret_cast<const uint4*>(from + slab * kSlab);
      const uint32_t words[4] = {chunk.x, chunk.y, chunk.z, chunk.w};
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        float low, high;
        unpack_pair<T>(words[i], low, high);
        sums[i] = fmaf(high, high, fmaf(low, low, sums[i]));
      }
    }
    float norm = (sums[0] + sums[1]) + (sums[2] + sums[3]);
    for (int offset = 1; offset < 8; offset *= 2) norm += __shfl_xor_sync(kAllLanes, norm, offset);
    return norm;
  }

  // Finds the norms of 64 rows of shared memory, of which `count` exist, by kWarps warps, of which this one is `warp`.
  template <int kWarps>
  static __device__ __forceinline__ void find_norms(const unsigned char* from, int count, int warp, float* to) {
    const int lane = threadIdx.x % kWarp;
#pragma unroll 1
    for (int row = warp * 4; row < 64; row += kWarps * 4) {
      const float norm = norm_of_row(from + row * 128);
      if (lane % 8 == 0) to[row + lane / 8] = row + lane / 8 < count ? norm : kFar;
    }
  }

  // A label that can be used: see `report`.
  __device__ __forceinline__ int64_t checked(int side, int row, int64_t label) const {
    if (p_.labels == 0 || (label >= 0 && label < p_.labels)) return label;
    report(&p_.found->poison, fault_, {side == 0 ? Fault::kTarget1 : Fault::kTarget2, row, label});
    return 0;
  }

  // A label in 32 bits. If labels may be any numbers, it is the first row with this label.
  __device__ __forceinline__ int label_among_rows(int64_t label) const {
    if (p_.labels > 0) return int(label);
    int found = kNoRowsClass;
    for (int row = rows_ - 1; row >= 0; --row) found = row_labels()[row] == label ? row : found;
    return found;
  }

  __device__ __forceinline__ void check_weights() const {
    if (p_.weight.data == nullptr) return;
    const int64_t step = int64_t(gridDim.x) * 2 * kGroupThreads;
    int64_t k = int64_t(blockIdx.x) * 2 * kGroupThreads + threadIdx.x - kGroupThreads;
    for (; k < p_.labels * p_.labels; k += step) {
      const float weight = p_.weight.row(k / p_.labels)[k % p_.labels * p_.weight.column_stride];
      if (!is_weight(weight)) report(&p_.found->poison, fault_, {Fault::kPairWeight, 0, k});
    }
  }

  // ---- the copying group ----

  // Each warp owns half of the values of a stage.
  __device__ __forceinline__ void copy() const {
    const int own = warp_ % kGroupWarps, stage = own / 2, lane = threadIdx.x % kWarp, chunk = own % 2 * 32 + lane;
    const FusedSide<T>& columns = p_.side[1 - side_];
    const bool exists = chunk * 8 < p_.width;
    const uint32_t to = base_ + Places::kTiles + stage * Places::kTileBytes + (chunk >> 3) * kSlab;
    const T* const from = columns.features + (exists ? chunk * 8 : 0);
    uint32_t phase = 0;
    for (int k = part_ + stage * parts_; k < tiles_; k += kStages * parts_, phase ^= 1) {
      barrier_wait(barrier(kEmpty + stage), phase ^ 1);
      const int first = k * Shape::kColumns, count = min(columns.count - first, Shape::kColumns);
      const T* column = from + first * columns.stride;
      if (count == Shape::kColumns) {
#pragma unroll 8
        for (int row = 0; row < Shape::kColumns; ++row, column += columns.stride) {
          copy_async_16(to + row * 128 + swizzled(chunk & 7, row) * 16, column, exists);
        }
      } else {
#pragma unroll 1
        for (int row = 0; row < Shape::kColumns; ++row) {
          const bool valid = exists && row < count;
          copy_async_16(to + row * 128 + swizzled(chunk & 7, row) * 16, valid ? column + row * columns.stride : from,
                        valid);
        }
      }
      commit_copies();
      wait_for_copies<0>();
      fence_async_proxy();
      barrier_arrive(barrier(kFull + own));
    }
  }

  // ---- the group that computes coefficients ----

  struct State {
    PairRules<T> rules;
    LaneRow rows[2];
    float row_sum[2];
    double loss[2];
  };

  __device__ __forceinline__ LaneRow row_of(int row, const PairRules<T>& rules) const {
    if (row >= rows_) return {kFar, kNoRow, 0};
    const int label = label_among_rows(row_labels()[row]);
    return {row_norms()[row], label, label * rules.row_stride};
  }

  // Starts the products of the rows with a tile, by halves as they arrive.
  __device__ __forceinline__ void start_products(float (&s)[32], int stage, uint32_t phase) const {
    keep(s);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      barrier_wait(barrier(kFull + stage * 2 + half), phase);
      wgmma_fence();
      products_.multiply(s, stage, half, half == 0);
      wgmma_commit();
    }
  }

  // Turns the products with a tile into coefficients, and stores them.
  __device__ __forceinline__ void pass(const float (&s)[32], int stage, State& state) const {
    const int lane = threadIdx.x % kWarp, first = warp_ * 16;
    const auto distance = [&](int r, int c) {
      const auto a = [&](int chunk) { return memory_ + place(first + r, chunk); };
      const auto b = [&](int chunk) { return tile(stage) + place(c, chunk); };
      return squared_distance_in_shared<T>(kWidth, a, b, threadIdx.x % kWarp);
    };
    float pair_loss[2] = {};
    uint32_t k[16];
    tile_coefficients<kGroups>(s, k, p_.terms, state.rules, state.rows, norms(stage), labels(stage), pair_loss,
                               state.row_sum, distance);
    for (int term = 0; term < 2; ++term) state.loss[term] += double(pair_loss[term]);
    const bool any_in_warp = __any_sync(kAllLanes, any_coefficient(k));
    if (lane == 0) any()[stage * kGroupWarps + warp_] = any_in_warp;
    unsigned char* const to = memory_ + Places::kCoefficients + stage * kSlab + (first + lane / 4) * 128 + lane % 4 * 4;
#pragma unroll
    for (int n = 0; n < kGroups; ++n) {
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        *reinterpret_cast<uint32_t*>(to + h * 1024 + swizzled(n, lane / 4) * 16) = k[n * 2 + h];
      }
    }
    fence_async_proxy();
    barrier_arrive(barrier(kStored + stage));
  }

  __device__ __forceinline__ void compute_coefficients() const {
    const int lane = threadIdx.x % kWarp;
    const FusedSource<T>& columns = p_.source[1 - side_];
    wait_for_computing();  // the rows, their norms and their labels
    State state;
    state.rules = pair_rules(p_, side_);
    for (int h = 0; h < 2; ++h) {
      state.rows[h] = row_of(warp_ * 16 + lane / 4 + h * 8, state.rules);
      state.row_sum[h] = 0;
      state.loss[h] = 0;
    }
    int stage = 0;
    uint32_t phase = 0;
#pragma unroll 1
    for (int k = part_; k < tiles_; k += parts_) {
      const int first = k * Shape::kColumns, count = min(columns.count - first, Shape::kColumns);
      const int own = int(threadIdx.x);  // column, of which there are fewer than threads
      const int64_t label = own < count ? columns.label[first + own] : 0;
      float s[32];
      start_products(s, stage, phase);
      find_norms<kGroupWarps>(tile(stage), count, warp_, norms(stage));
      if (own < Shape::kColumns) {
        labels(stage)[own] = own < count ? label_among_rows(checked(1 - side_, first + own, label)) : kNoColumn;
      }
      named_barrier(kOwnGroup, kGroupThreads);
      wgmma_wait<0>();
      keep(s);
      pass(s, stage, state);
      phase ^= stage;
      stage ^= 1;
    }
    if (needs_gradient()) {
      store_row_sums(state.row_sum, row_sums(), warp_ * 16);
      wait_for_computing();
    }
    store_loss(p_, state.loss, at<double>(Shape::kLosses), kGroupWarps, int(blockIdx.x),
               [] { named_barrier(kOwnGroup, kGroupThreads); });
  }

  // ---- the groups that compute gradients ----

  __device__ __forceinline__ void copy_rows() const {
    constexpr int kChunks = kWidth / 8, kStep = 2 * kGroupThreads / kChunks;
    const FusedSide<T>& own = p_.side[side_];
    const int thread = int(threadIdx.x) - kGroupThreads, chunk = thread % kChunks;
#pragma unroll 4
    for (int row = thread / kChunks; row < Shape::kRows; row += kStep) {
      const bool valid = row < rows_ && chunk * 8 < p_.width;
      const T* const from = valid ? own.features + (first_row_ + row) * own.stride + chunk * 8 : own.features;
      copy_async_16(base_ + place(row, chunk), from, valid);
    }
    commit_copies();
    if (thread < rows_) {
      const int row = first_row_ + thread;
      row_labels()[thread] = checked(side_, row, p_.source[side_].label[row]);
    }
    wait_for_copies<0>();
    fence_async_proxy();
    named_barrier(kRowsCopied, 2 * kGroupThreads);
    find_norms<2 * kGroupWarps>(memory_, rows_, warp_ - kGroupWarps, row_norms());
    wait_for_computing();
  }

  __device__ __forceinline__ bool any_stored(int stage) const {
    if (!needs_gradient()) return false;
    const uint4 of_warp = *reinterpret_cast<const uint4*>(any() + stage * kGroupWarps);
    return !p_.skip_tiles || (of_warp.x | of_warp.y | of_warp.z | of_warp.w) != 0;
  }

  __device__ __forceinline__ void compute_gradients(int group) const {
    copy_rows();
    check_weights();
    float kb[2][kQuarter / 2];
#pragma unroll
    for (int quarter = 0; quarter < 2; ++quarter) {
#pragma unroll
      for (float& value : kb[quarter]) value = 0;
    }
    int stage = 0;
    uint32_t phase = 0;
#pragma unroll 1
    for (int k = part_; k < tiles_; k += parts_) {
      barrier_wait(barrier(kStored + stage), phase);
      if (any_stored(stage)) {
        keep(kb[0]);
        keep(kb[1]);
        wgmma_fence();
        products_.multiply_back(kb, stage, group);
        wgmma_commit();
        wgmma_wait<0>();
        keep(kb[0]);
        keep(kb[1]);
      }
      if (threadIdx.x % kWarp == 0) barrier_arrive(barrier(kEmpty + stage));
      phase ^= stage;
      stage ^= 1;
    }
    if (!needs_gradient()) return;
    wait_for_computing();  // the sums of rows
    store(kb, group);
  }

  __device__ __forceinline__ void store(const float (&kb)[2][kQuarter / 2], int group) const {
    const int lane = threadIdx.x % kWarp;
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const int row = warp_ % kGroupWarps * 16 + lane / 4 + h * 8;
      if (row >= rows_) continue;
      float* const to = p_.partial + (int64_t(blockIdx.x) * Shape::kRows + row) * kWidth;
      const float sum = row_sums()[row];
#pragma unroll
      for (int n = 0; n < kHalf / 8; ++n) {
        const int d = group * kHalf + n * 8 + lane % 4 * 2;
        const float* const own = &kb[n / (kQuarter / 8)][n % (kQuarter / 8) * 4 + 2 * h];
        float a0, a1;
        unpack_pair<T>(*reinterpret_cast<const uint32_t*>(memory_ + place(row, d >> 3) + lane % 4 * 4), a0, a1);
        *reinterpret_cast<float2*>(to + d) = make_float2(fmaf(sum, a0, -own[0]), fmaf(sum, a1, -own[1]));
      }
    }
  }

  const Fused<T>& p_;
  unsigned char* const memory_;
  FaultWord* const fault_;
  const uint32_t base_;
  const WgmmaProducts<T, kWidth> products_;
  const int warp_;  // of lane 0, so that the compiler knows that all lanes agree: see WgmmaProducts
  const int side_, parts_, part_, first_row_, rows_, tiles_;
};

// On other architectures the kernel is empty: run.h never starts it there.
template <typename T>
__global__ void __launch_bounds__(kStreamedThreads, 1)
    fused_streamed_kernel(const __grid_constant__ Fused<T> p, FaultWord* fault) {
#if !defined(__CUDACC__) || defined(__CUDA_ARCH_FEAT_SM90_ALL)
  StreamedTile<T>(p, dynamic_shared(), fault).run();
#endif
}

}  // namespace fastccsa::all_pairs::cuda

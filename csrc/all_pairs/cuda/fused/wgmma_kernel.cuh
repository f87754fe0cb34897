// The fused loss over all pairs by the instructions of Hopper GPUs (wgmma).
//
// Two warpgroups compute and a third copies. A unit of work is two tiles of 64 columns. With S_t the products of the
// rows with tile t, K_t its coefficients, and L and R the halves of the values of a row:
//
//   group 0   S0; K0;              kb_L += K0 B0_L (K0 from registers);   kb_L += K1 B1_L (K1 from shared memory)
//   group 1   S1; kb_R += K0 B0_R (K0 from shared memory); K1;            kb_R += K1 B1_R (K1 from registers)
//
// Group 1 starts S1 when S0 is done, so that each group's pairs are computed while the other one's products run. Each
// warp of the third group owns one of the four half tiles and refills it when the last group that reads it has released
// it: group 0 releases the L halves and group 1 the R halves. The readers of S have finished by then, because the
// coefficients that they store are waited for first.
#pragma once

#include "all_pairs/cuda/fused/tile_memory.cuh"
#include "all_pairs/cuda/fused/wgmma_products.cuh"

namespace fastccsa::all_pairs::cuda {

constexpr int kWgmmaThreads = 3 * kGroupThreads;

template <typename T, int kWidth>
class WgmmaTile {
  using Shape = WgmmaShape<kWidth>;
  static constexpr int kSlab = Shape::kSlab, kHalf = Shape::kHalf, kGroups = 8;
  // Barriers, counted in 8 bytes: half tile filled and released, coefficients stored and released, S0 done.
  enum Barrier { kFull = 0, kEmpty = 4, kStored = 8, kRead = 10, kFirstDone = 12 };
  enum NamedBarrier { kConsumers = 1, kOwnGroup = 2 };

 public:
  __device__ __forceinline__ WgmmaTile(const Fused<T>& p, unsigned char* memory)
      : p_(p),
        memory_(memory),
        base_(shared_address(memory)),
        products_(base_),
        warp_(__shfl_sync(kAllLanes, int(threadIdx.x / kWarp), 0)) {}

  __device__ __forceinline__ void run() {
    if (threadIdx.x == 0) {
      for (int k = 0; k < 4; ++k) {
        barrier_init(barrier(kFull + k), kWarp);
        barrier_init(barrier(kEmpty + k), 4);
      }
      for (int k = 0; k < 2; ++k) {
        barrier_init(barrier(kStored + k), kGroupThreads);
        barrier_init(barrier(kRead + k), 4);
      }
      barrier_init(barrier(kFirstDone), 4);
      fence_barrier_init();
    }
    __syncthreads();
    if (warp_ / kGroupWarps == 2) {
      give_registers<40>();
      produce();
    } else {
      take_registers<232>();
      consume();
    }
  }

 private:
  __device__ __forceinline__ uint32_t barrier(int k) const { return base_ + Shape::kBarriers + k * 8; }
  __device__ __forceinline__ float* norms() const { return reinterpret_cast<float*>(memory_ + Shape::kNorms); }
  __device__ __forceinline__ int* labels() const { return reinterpret_cast<int*>(memory_ + Shape::kLabels); }
  __device__ __forceinline__ float* row_sums() const { return reinterpret_cast<float*>(memory_ + Shape::kRowSums); }
  // Whether each warp of a group has stored a coefficient that is not 0, by tile.
  __device__ __forceinline__ uint32_t* any() const { return reinterpret_cast<uint32_t*>(memory_ + Shape::kAny); }
  static __device__ __forceinline__ void wait_for_consumers() { named_barrier(kConsumers, 2 * kGroupThreads); }

  // The place of a 16-byte chunk of a row, relative to the rows or a tile.
  static __device__ __forceinline__ int place(int row, int chunk) {
    return (chunk >> 3) * kSlab + row * 128 + swizzled(chunk & 7, row) * 16;
  }

  // ---- the copying group ----

  // Starts to copy a chunk of every kStep-th row; a constant stride saves the computation of addresses.
  template <typename Stride>
  static __device__ __forceinline__ void copy_rows_of_tile(uint32_t to, const T* from, int chunk, int of,
                                                           Stride stride) {
    constexpr int kStep = kWarp / (kWidth / 16);
#pragma unroll 8
    for (int k = 0; k < Shape::kColumns / kStep; ++k) {
      const int row = k * kStep + of;
      copy_async_16(to + row * 128 + swizzled(chunk & 7, row) * 16, from + k * kStep * int64_t(stride));
    }
  }

  __device__ __forceinline__ void produce() {
    const int lane = threadIdx.x % kWarp, own = warp_ - 2 * kGroupWarps;
    const int tile = own >> 1, half = own & 1;
    constexpr int kChunks = kWidth / 16, kStep = kWarp / kChunks;  // chunks of half a row; rows copied at a time
    const int chunk = half * kChunks + lane % kChunks, of = lane / kChunks;
    const uint32_t to = base_ + Shape::kTiles + tile * Shape::kTileBytes + (chunk >> 3) * kSlab;
    uint32_t phase = 0;
    Segments<T> segments(p_, blockIdx.x);
    for (Segment s; segments.next(s);) {
      const RowBlock block = row_block(p_, s.block);
      const FusedSide<T>& others = p_.side[1 - block.side];
      for (int left = s.end - s.begin, unit = s.first; left > 0; --left, unit = s.after(unit)) {
        const int first = unit * Shape::kUnit + tile * Shape::kColumns;
        if (first >= block.columns) continue;  // the last unit may have one tile
        barrier_wait(barrier(kEmpty + own), phase ^ 1);
        if (block.contiguous(first, Shape::kColumns)) {
          const T* from = others.features + (block.column(first) + of) * others.stride + chunk * 8;
          if (others.stride == kWidth) {
            copy_rows_of_tile(to, from, chunk, of, std::integral_constant<int64_t, kWidth>());
          } else {
            copy_rows_of_tile(to, from, chunk, of, others.stride);
          }
        } else {
#pragma unroll 1
          for (int row = of; row < Shape::kColumns; row += kStep) {
            const bool exists = first + row < block.columns;
            const int64_t column = exists ? block.column(first + row) : 0;
            copy_async_16(to + row * 128 + swizzled(chunk & 7, row) * 16,
                          others.features + column * others.stride + chunk * 8, exists);
          }
        }
        if (half == 0) {
          for (int row = lane; row < Shape::kColumns; row += kWarp) {
            const int at = tile * Shape::kColumns + row;
            copy_column(others, block, first + row, norms() + at, labels() + at);
          }
        }
        commit_copies();
        wait_for_copies<0>();
        fence_async_proxy();
        barrier_arrive(barrier(kFull + own));
        phase ^= 1;
      }
    }
  }

  // ---- the computing groups ----

  __device__ __forceinline__ void copy_rows(const FusedSide<T>& own, const RowBlock& block) {
    constexpr int kChunks = kWidth / 8, kStep = 2 * kGroupThreads / kChunks;
    const int chunk = threadIdx.x % kChunks, of = threadIdx.x / kChunks;
#pragma unroll 4
    for (int k = 0; k < Shape::kRows / kStep; ++k) {
      const int row = k * kStep + of;
      const bool exists = row < block.rows;
      const T* from = own.features + (block.first + (exists ? row : 0)) * own.stride + chunk * 8;
      copy_async_16(base_ + place(row, chunk), from, exists);
    }
    commit_copies();
  }

  // What a group keeps while it goes through a segment.
  struct State {
    PairRules<T> rules;
    LaneRow rows[2];
    float row_sum[2];
    double loss[2];      // of all segments
    int row;             // the first of the warp's 16 rows
    bool counts, back;   // whether the loss is added up in this pass, and whether the gradient is needed
  };

  // Turns the products of a tile into packed coefficients. Returns whether any of the thread's is not 0.
  __device__ __forceinline__ bool pack(const float (&s)[32], uint32_t (&k)[16], State& state, int tile) const {
    const unsigned char* columns = memory_ + Shape::kTiles + tile * Shape::kTileBytes;
    const auto distance = [&](int r, int c) {
      const auto a = [&](int chunk) { return memory_ + place(state.row + r, chunk); };
      const auto b = [&](int chunk) { return columns + place(c, chunk); };
      return squared_distance_in_shared<T>(kWidth, a, b, threadIdx.x % kWarp);
    };
    float pair_loss[2] = {};
    const int at = tile * Shape::kColumns;
    tile_coefficients<kGroups>(s, k, p_.terms, state.rules, state.rows, norms() + at, labels() + at, pair_loss,
                               state.row_sum, distance);
    if (state.counts) {
      state.loss[0] += double(pair_loss[0]);
      state.loss[1] += double(pair_loss[1]);
    }
    return any_coefficient(k);
  }

  // Stores the coefficients of a tile for the other group. Returns whether any of the tile's is not 0.
  __device__ __forceinline__ bool store(const uint32_t (&k)[16], bool any_here, const State& state, int tile,
                                        uint32_t phase) const {
    const int lane = threadIdx.x % kWarp, warp = warp_ % kGroupWarps;
    barrier_wait(barrier(kRead + tile), phase ^ 1);
    const bool any_in_warp = __any_sync(kAllLanes, any_here);
    if (lane == 0) any()[tile * 4 + warp] = any_in_warp;
    unsigned char* to = memory_ + Shape::kCoefficients + tile * kSlab + (state.row + lane / 4) * 128 + lane % 4 * 4;
#pragma unroll
    for (int n = 0; n < kGroups; ++n) {
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        *reinterpret_cast<uint32_t*>(to + h * 1024 + swizzled(n, lane / 4) * 16) = k[n * 2 + h];
      }
    }
    fence_async_proxy();
    barrier_arrive(barrier(kStored + tile));
    if (!state.back) return false;
    return !p_.skip_tiles || named_barrier_or(kOwnGroup + tile, kGroupThreads, any_in_warp);
  }

  // Whether any coefficient that the other group has stored for a tile is not 0.
  __device__ __forceinline__ bool stored_any(int tile, const State& state) const {
    if (!state.back) return false;
    if (!p_.skip_tiles) return true;
    const uint4 of_warp = *reinterpret_cast<const uint4*>(any() + tile * 4);
    return (of_warp.x | of_warp.y | of_warp.z | of_warp.w) != 0;
  }

  __device__ __forceinline__ void arrive_by_warp(int k) const {
    if (threadIdx.x % kWarp == 0) barrier_arrive(barrier(k));
  }

  // Starts S of a tile by halves of the values, `first` first, when each has been copied.
  __device__ __forceinline__ void start_products(float (&s)[32], int tile, int first, uint32_t phase) const {
    keep(s);
#pragma unroll
    for (int k = 0; k < 2; ++k) {
      const int half = k == 0 ? first : 1 - first;
      barrier_wait(barrier(kFull + tile * 2 + half), phase);
      wgmma_fence();
      products_.multiply(s, tile, half, k == 0);
      wgmma_commit();
    }
  }

  // Starts products that add to kb, and waits for them.
  template <typename Start>
  static __device__ __forceinline__ void complete(float (&kb)[kHalf / 2], Start start) {
    keep(kb);
    wgmma_fence();
    start();
    wgmma_commit();
    wgmma_wait<0>();
    keep(kb);
  }

  // S0; K0; kb_L += K0 B0_L
  __device__ __forceinline__ void first_tile(float (&kb)[kHalf / 2], State& state, uint32_t& phase) const {
    float s[32];
    uint32_t k[16];
    start_products(s, 0, 0, phase);
    wgmma_wait<0>();
    keep(s);
    arrive_by_warp(kFirstDone);
    const bool some = pack(s, k, state, 0);
    if (store(k, some, state, 0, phase)) {
      complete(kb, [&] { products_.multiply_back(kb, k, 0, 0); });
    }
    arrive_by_warp(kEmpty + 0);
    phase ^= 1;
  }

  // kb_L += K1 B1_L
  __device__ __forceinline__ void add_second_tile(float (&kb)[kHalf / 2], const State& state, uint32_t& phase) const {
    barrier_wait(barrier(kStored + 1), phase);
    if (stored_any(1, state)) {
      complete(kb, [&] { products_.multiply_back(kb, 1, 0); });
    }
    arrive_by_warp(kEmpty + 2);
    arrive_by_warp(kRead + 1);
    phase ^= 1;
  }

  // kb_R += K0 B0_R, where the unit has no second tile.
  __device__ __forceinline__ void add_only_tile(float (&kb)[kHalf / 2], const State& state, uint32_t& phase) const {
    barrier_wait(barrier(kFirstDone), phase);
    barrier_wait(barrier(kStored + 0), phase);
    if (stored_any(0, state)) {
      complete(kb, [&] { products_.multiply_back(kb, 0, 1); });
    }
    arrive_by_warp(kEmpty + 1);
    arrive_by_warp(kRead + 0);
    phase ^= 1;
  }

  // S1; kb_R += K0 B0_R; K1; kb_R += K1 B1_R
  __device__ __forceinline__ void second_tile(float (&kb)[kHalf / 2], State& state, uint32_t (&phase)[2]) const {
    float s[32];
    uint32_t k[16];
    barrier_wait(barrier(kFirstDone), phase[0]);
    start_products(s, 1, 1, phase[1]);
    barrier_wait(barrier(kStored + 0), phase[0]);
    if (stored_any(0, state)) {
      keep(kb);
      wgmma_fence();
      products_.multiply_back(kb, 0, 1);
      wgmma_commit();
      wgmma_wait<1>();
    } else {
      wgmma_wait<0>();
    }
    keep(s);
    const bool some = pack(s, k, state, 1);  // while K0 B0_R runs
    wgmma_wait<0>();
    keep(kb);
    arrive_by_warp(kEmpty + 1);
    arrive_by_warp(kRead + 0);
    if (store(k, some, state, 1, phase[1])) {
      complete(kb, [&] { products_.multiply_back(kb, k, 1, 1); });
    }
    arrive_by_warp(kEmpty + 3);
    phase[0] ^= 1;
    phase[1] ^= 1;
  }

  __device__ __forceinline__ void consume() {
    const int group = warp_ / kGroupWarps, warp = warp_ % kGroupWarps, lane = threadIdx.x % kWarp;
    const float factor = gradient_factor(p_);
    State state;
    state.loss[0] = state.loss[1] = 0;
    state.row = warp * 16;
    uint32_t phase[2] = {0, 0};  // of the barriers of tile 0, and of tile 1
    Segments<T> segments(p_, blockIdx.x);
    for (Segment s; segments.next(s);) {
      const RowBlock block = row_block(p_, s.block);
      const FusedSide<T>& own = p_.side[block.side];
      wait_for_consumers();  // the previous segment is done with the rows and the sums
      copy_rows(own, block);
      state.rules = pair_rules(p_, block.side);
      state.counts = block.side == p_.loss_side;
      state.back = own.gradient != nullptr;
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        state.rows[h] = lane_row(own, block, state.rules, state.row + lane / 4 + h * 8);
        state.row_sum[h] = 0;
      }
      float kb[kHalf / 2];
#pragma unroll
      for (float& value : kb) value = 0;
      wait_for_copies<0>();
      fence_async_proxy();
      wait_for_consumers();

#pragma unroll 1
      for (int left = s.end - s.begin, unit = s.first; left > 0; --left, unit = s.after(unit)) {
        const bool both = unit * Shape::kUnit + Shape::kColumns < block.columns;
        if (group == 0) {
          first_tile(kb, state, phase[0]);
          if (both) add_second_tile(kb, state, phase[1]);
        } else if (both) {
          second_tile(kb, state, phase);
        } else {
          add_only_tile(kb, state, phase[0]);
        }
      }
      if (!state.back) continue;
      store_row_sums(state.row_sum, row_sums() + group * Shape::kRows, state.row);
      wait_for_consumers();
      store_gradients(kb, block, s, factor, state.row, group);
    }
    store_loss(p_, state.loss, reinterpret_cast<double*>(memory_ + Shape::kRowSums), 2 * kGroupThreads / kWarp,
               int(blockIdx.x), [] { wait_for_consumers(); });
  }

  __device__ __forceinline__ void store_gradients(const float (&kb)[kHalf / 2], const RowBlock& block,
                                                  const Segment& segment, float factor, int first_row,
                                                  int group) const {
    const int lane = threadIdx.x % kWarp;
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const int row = first_row + lane / 4 + h * 8;
      if (row >= block.rows) continue;
      const GradientTarget target = gradient_target(p_, block, segment, row, factor);
      const float sum = row_sums()[row] + row_sums()[Shape::kRows + row];
#pragma unroll
      for (int n = 0; n < kHalf / 8; ++n) {
        const int d = group * kHalf + n * 8 + lane % 4 * 2;
        float a0, a1;
        unpack_pair<T>(*reinterpret_cast<const uint32_t*>(memory_ + place(row, d >> 3) + lane % 4 * 4), a0, a1);
        store_gradient(target, p_.width, d, a0, a1, fmaf(sum, a0, -kb[n * 4 + 2 * h]),
                       fmaf(sum, a1, -kb[n * 4 + 2 * h + 1]));
      }
    }
  }

  const Fused<T>& p_;
  unsigned char* const memory_;
  const uint32_t base_;
  const WgmmaProducts<T, kWidth> products_;
  // Of lane 0, so that the compiler knows that all lanes agree: see WgmmaProducts.
  const int warp_;
};

// On other architectures the kernel is empty: run.h never starts it there.
template <typename T, int kWidth>
__global__ void __launch_bounds__(kWgmmaThreads, 1) fused_wgmma_kernel(const __grid_constant__ Fused<T> p) {
#if !defined(__CUDACC__) || defined(__CUDA_ARCH_FEAT_SM90_ALL)
  WgmmaTile<T, kWidth>(p, dynamic_shared()).run();
#endif
}

}  // namespace fastccsa::all_pairs::cuda

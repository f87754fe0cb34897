// Stores the coefficients of pairs, by the instructions of Hopper GPUs: see stored.cuh.
//
// A block of threads keeps a tile of rows in shared memory, half of which each of the two computing warpgroups takes,
// and goes through a run of tiles of columns. Columns arrive in slabs of 64 values. While the tensor cores multiply the
// rows by a tile, slab by slab, a warpgroup turns the products of the tile before into coefficients, piece by piece.
#pragma once

#include "all_pairs/cuda/fused/stored.cuh"

namespace fastccsa::all_pairs::cuda {

template <int kSlabs>
struct CoefficientsShape {
  static constexpr int kSlabBytes = kTile * 128;  // of 64 values of a tile's rows
  static constexpr int kStages = 5;
  // Pieces of 32 columns, so that a lane has enough independent pairs; each is computed after some slabs are started.
  static constexpr int kPieces = 4, kGroupsOfPiece = kTile / 8 / kPieces, kSlabsOfPiece = kSlabs / kPieces;
  // Shared memory, in bytes: slabs of the rows and the stages, then what belongs to the columns of two tiles in turn.
  static constexpr int kStage = kSlabs * kSlabBytes, kNorms = kStage + kStages * kSlabBytes;
  static constexpr int kLabels = kNorms + 2 * kTile * 4, kColumnSums = kLabels + 2 * kTile * 4;
  static constexpr int kKinds = kColumnSums + 2 * 2 * kGroupWarps * kTile * 4;
  static constexpr int kBarriers = kKinds + kMostTilesOfRun, kBytes = kBarriers + (2 * kStages + 4) * 8;
};

// How the pairs of a tile are computed. If rows are sorted by class, tiles of pairs of one class are skipped, and those
// whose columns are of one class that none of the rows has take less time than others.
enum TileKind : uint8_t { kSkipped, kSeparate, kMixed };

template <typename T, int kSlabs, FusedTerms kTerms, bool kWeighted>
class CoefficientsTile {
  using Shape = CoefficientsShape<kSlabs>;
  static constexpr int kStages = Shape::kStages;
  enum Barrier { kFull = 0, kEmpty = kStages, kColumnsFull = 2 * kStages, kColumnsEmpty = 2 * kStages + 2 };
  enum NamedBarrier { kOwnGroup = 1 };

 public:
  __device__ __forceinline__ CoefficientsTile(const Fused<T>& p, const Stored<T>& part, unsigned char* memory)
      : p_(p),
        part_(part),
        memory_(memory),
        base_(shared_address(memory)),
        warp_(__shfl_sync(kAllLanes, int(threadIdx.x / kWarp), 0)),
        row_tile_(int(blockIdx.x) % part.tiles[0]),
        first_tile_(int(blockIdx.x) / part.tiles[0] * part.tiles_of_run()),
        count_(min(part.tiles_of_run(), part.tiles[1] - first_tile_)) {}

  __device__ __forceinline__ void run() {
    if (threadIdx.x == 0) {
      for (int k = 0; k < kStages; ++k) {
        barrier_init(barrier(kFull + k), 1);
        barrier_init(barrier(kEmpty + k), 2 * kGroupWarps);
      }
      for (int k = 0; k < 2; ++k) {
        barrier_init(barrier(kColumnsFull + k), 1);
        barrier_init(barrier(kColumnsEmpty + k), 2 * kGroupWarps);
      }
      fence_barrier_init();
    }
    for (int k = threadIdx.x; k < count_; k += kStoredThreads) find_kind(k);
    __syncthreads();
    if (warp_ / kGroupWarps == 2) {
      give_registers<40>();
      if (threadIdx.x == 2 * kGroupThreads) copy();
    } else {
      take_registers<232>();
      compute();
    }
  }

 private:
  __device__ __forceinline__ uint32_t barrier(int k) const { return base_ + Shape::kBarriers + k * 8; }
  __device__ __forceinline__ uint8_t* kinds() const { return memory_ + Shape::kKinds; }
  __device__ __forceinline__ float* norms(int turn) const {
    return reinterpret_cast<float*>(memory_ + Shape::kNorms) + turn * kTile;
  }
  __device__ __forceinline__ int* labels(int turn) const {
    return reinterpret_cast<int*>(memory_ + Shape::kLabels) + turn * kTile;
  }
  // Sums of 16 rows of a warp, by column of a tile.
  __device__ __forceinline__ float* column_sums(int turn, int group, int warp) const {
    return reinterpret_cast<float*>(memory_ + Shape::kColumnSums) +
           ((turn * 2 + group) * kGroupWarps + warp) * kTile;
  }
  __device__ __forceinline__ int first_row() const { return part_.first[0] + row_tile_ * kTile; }
  __device__ __forceinline__ int first_column(int k) const { return part_.first[1] + (first_tile_ + k) * kTile; }

  __device__ void find_kind(int k) {
    TileKind kind = kMixed;
    if (p_.side[0].offset != nullptr) {
      const FusedSide<T>&rows = p_.side[0], &columns = p_.side[1];
      const int row = first_row(), column = first_column(k), last_row = min(row + kTile, rows.count) - 1;
      const bool whole = column + kTile <= columns.count;
      const int from = rows.label[row], to = rows.label[last_row];
      const int own = columns.label[column], last = columns.label[min(column + kTile, columns.count) - 1];
      if (own == last) kind = from == to && from == own ? kSkipped : whole && (own < from || own > to) ? kSeparate : kMixed;
    }
    kinds()[k] = kind;
    if (kind != kSkipped) return;
    uint8_t* const any = part_.any + (row_tile_ * part_.tiles[1] + first_tile_ + k) * 8;
    *reinterpret_cast<uint2*>(any) = uint2{0, 0};
  }

  // The first tile from k on that is not skipped.
  __device__ __forceinline__ int active(int k) const {
    while (k < count_ && kinds()[k] == kSkipped) ++k;
    return k;
  }

  // ---- the copying thread ----

  __device__ __forceinline__ void copy() {
    const auto first_of = [&](int side, int row) {
      return reinterpret_cast<const unsigned char*>(p_.side[side].features) + place_in_blocks(row, 0, 0);
    };
    const auto slab_step = [&](int side) { return int64_t(padded_to_tiles(p_.side[side].count)) * kBlock * 2; };
    const int64_t step[2] = {slab_step(0), slab_step(1)};
    const unsigned char* const rows = first_of(0, first_row());
    Ring<kStages> ring;
    uint32_t turn = 0;  // tiles so far
    for (int k = active(0); k < count_; k = active(k + 1), ++turn) {
      const int column = first_column(k), of = turn % 2;
      const unsigned char* columns = first_of(1, column);
#pragma unroll
      for (int slab = 0; slab < kSlabs; ++slab, columns += step[1], ring.next()) {
        const uint32_t full = barrier(kFull + ring.stage);
        barrier_wait(barrier(kEmpty + ring.stage), ring.phase ^ 1);
        barrier_arrive_expecting(full, (turn == 0 ? 2 : 1) * Shape::kSlabBytes);
        copy_bulk(base_ + Shape::kStage + ring.stage * Shape::kSlabBytes, columns, Shape::kSlabBytes, full);
        if (turn > 0) continue;  // with the first tile come the rows
        copy_bulk(base_ + slab * Shape::kSlabBytes, rows + slab * step[0], Shape::kSlabBytes, full);
      }
      // Norms and labels, which are needed last: their place is free when the tile before the last has been computed.
      barrier_wait(barrier(kColumnsEmpty + of), (turn / 2 + 1) % 2);
      barrier_arrive_expecting(barrier(kColumnsFull + of), 2 * kTile * 4);
      copy_bulk(shared_address(norms(of)), p_.side[1].norm + column, kTile * 4, barrier(kColumnsFull + of));
      copy_bulk(shared_address(labels(of)), p_.side[1].label + column, kTile * 4, barrier(kColumnsFull + of));
    }
  }

  // ---- the computing groups ----

  struct State {
    PairRules<T> rules;
    LaneRow rows[2];
    double loss[2];
    int group, row;    // the warpgroup, and the first of the warp's 16 rows in the tile
    int offset;        // of what the lane stores in a block: its row and its half chunk, swizzled
    int column;        // of a piece, whose sum the lane stores
    bool add_columns;  // whether sums over rows are needed
    uint64_t rows_at, stages_at;  // descriptors of the group's rows, and of the first stage
    Ring<kStages> ring;
  };

  // What a warp finds for a tile.
  struct Found {
    float loss[2], row_sum[2];
    float squares[2], plain[2], weight[2];  // of kSeparate: see `separation_coefficients`
    uint32_t any;                           // whether a coefficient is not 0
    Nearest nearest;
    unsigned char* to;                      // where the lane stores coefficients
    float* column_sums;
  };

  __device__ __forceinline__ void arrive_by_warp(int k) const {
    if (threadIdx.x % kWarp == 0) barrier_arrive(barrier(k));
  }

  // Starts the products of the rows with a slab of columns.
  __device__ __forceinline__ void multiply(float (&s)[64], int slab, const State& state) const {
    const uint64_t a = state.rows_at + slab * (Shape::kSlabBytes >> 4);
    const uint64_t b = state.stages_at + state.ring.stage * (Shape::kSlabBytes >> 4);
    barrier_wait(barrier(kFull + state.ring.stage), state.ring.phase);
    if (slab == 0) keep(s);
    wgmma_fence();
#pragma unroll
    for (int k = 0; k < 4; ++k) wgmma_k<T, kTile>(s, a + k * 2, b + k * 2, slab > 0 || k > 0);
    wgmma_commit();
  }

  // Stores columns of coefficients, from `first` on: packed[2 n + h] belongs to group n of 8 columns and row h of the
  // lane. Lanes exchange values, so that each stores 8 bytes of neighbours.
  template <int kGroups>
  __device__ __forceinline__ void store(const uint32_t (&packed)[kGroups * 2], int first, Found& found,
                                        const State& state) const {
    const int lane = threadIdx.x % kWarp, odd = lane & 1;
#pragma unroll
    for (int n = 0; n < kGroups; n += 2) {
      const uint32_t(&k)[4] = *reinterpret_cast<const uint32_t(*)[4]>(&packed[2 * n]);
      found.any |= k[0] | k[1] | k[2] | k[3];
      const int number = first / 16 + n / 2;
      unsigned char* const to = found.to + number / 4 * kBlockBytes + (state.offset ^ number % 4 * 32);
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        const uint32_t other = __shfl_xor_sync(kAllLanes, odd ? k[h] : k[2 + h], 1);
        *reinterpret_cast<uint2*>(to + h * 1024) = odd ? uint2{other, k[2 + h]} : uint2{k[h], other};
      }
    }
    if (state.add_columns) add_columns<kGroups>(packed, found.column_sums + first);
  }

  // Adds coefficients over the warp's rows: after two exchanges a lane has one column of 16, and after the third the sum
  // of all lanes.
  template <int kGroups>
  static __device__ __forceinline__ void add_columns(const uint32_t (&packed)[kGroups * 2], float* to) {
    const int lane = threadIdx.x % kWarp;
    const bool second = (lane & 16) != 0, last = (lane & 8) != 0;
    float sum[kGroups * 2], half[kGroups], one[kGroups / 2];
#pragma unroll
    for (int n = 0; n < kGroups; ++n) {
      float a[2], b[2];
      unpack_pair<T>(packed[2 * n], a[0], a[1]);
      unpack_pair<T>(packed[2 * n + 1], b[0], b[1]);
      for (int e = 0; e < 2; ++e) sum[2 * n + e] = a[e] + b[e];
    }
#pragma unroll
    for (int i = 0; i < kGroups; ++i) {
      const float low = sum[i / 2 * 4 + i % 2], high = sum[i / 2 * 4 + 2 + i % 2];
      half[i] = (second ? high : low) + __shfl_xor_sync(kAllLanes, second ? low : high, 16);
    }
#pragma unroll
    for (int i = 0; i < kGroups / 2; ++i) {
      const float low = half[2 * i], high = half[2 * i + 1];
      one[i] = (last ? high : low) + __shfl_xor_sync(kAllLanes, last ? low : high, 8);
    }
#pragma unroll
    for (int i = 0; i < kGroups / 2; ++i) one[i] += __shfl_xor_sync(kAllLanes, one[i], 4);
    if ((lane & 4) != 0) return;
#pragma unroll
    for (int i = 0; i < kGroups / 2; ++i) to[16 * i] = one[i];
  }

  // Turns the products of a piece into coefficients.
  template <TileKind kKind>
  __device__ __forceinline__ void piece(const float (&s)[64], int number, int turn, Found& found,
                                        const State& state) const {
    constexpr int kGroups = Shape::kGroupsOfPiece;
    float products[kGroups * 4];
    uint32_t packed[kGroups * 2];
#pragma unroll
    for (int i = 0; i < kGroups * 4; ++i) products[i] = s[number * kGroups * 4 + i];
    const float* const of_columns = norms(turn) + number * kGroups * 8;
    if constexpr (kKind == kSeparate) {
      separation_coefficients<true, kGroups>(products, packed, state.rules, state.rows, found.weight, of_columns,
                                             found.squares, found.row_sum, found.nearest);
    } else {
      mixed_coefficients<kTerms, kWeighted, kGroups>(products, packed, state.rules, state.rows, of_columns,
                                                     labels(turn) + number * kGroups * 8, found.loss, found.row_sum,
                                                     found.nearest);
    }
    store<kGroups>(packed, number * kGroups * 8, found, state);
  }

  // Computes a tile with near pairs, these from their rows.
  __device__ __forceinline__ void compute_again(const float (&s)[64], int k, int turn, Found& found,
                                                const State& state) const {
    float all[64];
#pragma unroll
    for (int i = 0; i < 64; ++i) all[i] = s[i];
    const int row = first_row() + state.row, column = first_column(k);
    const auto chunk_of = [&](int side, int of, int chunk) {
      const int64_t at = place_in_blocks(of, chunk, padded_to_tiles(p_.side[side].count) / kBlock);
      return reinterpret_cast<const unsigned char*>(p_.side[side].features) + at;
    };
    for (int h = 0; h < 2; ++h) found.loss[h] = found.row_sum[h] = 0;
    found.any = 0;
#pragma unroll 1
    for (int number = 0; number < kTile / 16; ++number) {
      const auto distance = [&](int r, int c) {
        const auto a = [&](int chunk) { return chunk_of(0, row + r, chunk); };
        const auto b = [&](int chunk) { return chunk_of(1, column + number * 16 + c, chunk); };
        return squared_distance_in_shared<kSlabs * 64, T>(a, b, threadIdx.x % kWarp);
      };
      float products[8];
      uint32_t packed[4];
      for (int i = 0; i < 8; ++i) products[i] = all[number * 8 + i];
      near_coefficients<2>(products, packed, kTerms, state.rules, state.rows, norms(turn) + number * 16,
                           labels(turn) + number * 16, found.loss, found.row_sum, distance);
      store<2>(packed, number * 16, found, state);
    }
  }

  // Turns `s`, the products with tile k, into coefficients. Meanwhile multiplies the rows by the next tile, if kNext.
  template <TileKind kKind, bool kNext>
  __device__ __forceinline__ void pass(float (&next)[64], float (&s)[64], int k, int turn, State& state) const {
    Found found{};
    const int tile = first_tile_ + k, of = turn % 2;
    const int block = (row_tile_ * 2 + state.group) * 2 * part_.tiles[1] + tile * 2;
    found.to = reinterpret_cast<unsigned char*>(part_.coefficients) + int64_t(block) * kBlockBytes;
    found.column_sums = column_sums(of, state.group, warp_ % kGroupWarps) + state.column;
    barrier_wait(barrier(kColumnsFull + of), turn / 2 % 2);
    if constexpr (kKind == kSeparate) {
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        found.plain[h] = state.rules.weight_of(state.rows[h].weights, labels(of)[0]);
        found.weight[h] = found.plain[h] * state.rules.scale;
      }
    }
    int before = 0;
#pragma unroll
    for (int slab = 0; slab < kSlabs; ++slab) {
      if constexpr (kNext) multiply(next, slab, state);
      if (slab % Shape::kSlabsOfPiece == Shape::kSlabsOfPiece - 1) {
        piece<kKind>(s, slab / Shape::kSlabsOfPiece, of, found, state);
      }
      if constexpr (kNext) {
        if (slab > 0) {
          wgmma_wait<1>();
          arrive_by_warp(kEmpty + before);
        }
        before = state.ring.stage;
        state.ring.next();
      }
    }
    if constexpr (kKind == kSeparate) {
      found.loss[1] = found.squares[0] * found.plain[0] + found.squares[1] * found.plain[1];
    }
    // NaN of a pair of one class does not reach its coefficient, but it reaches the loss.
    const float sums[2] = {found.row_sum[0] + 0.0f * found.loss[0], found.row_sum[1]};
    if (!found.nearest.far(state.rows, sums, kKind == kSeparate)) compute_again(s, k, of, found, state);
    arrive_by_warp(kColumnsEmpty + of);
    finish(found, tile, of, state);
    if constexpr (kNext) {
      wgmma_wait<0>();
      keep(next);
      arrive_by_warp(kEmpty + before);
    }
  }

  // Stores what a warp has found for a tile, and the sums of columns over the rows of the warpgroup.
  __device__ __forceinline__ void finish(Found& found, int tile, int turn, State& state) const {
    const int lane = threadIdx.x % kWarp;
    const bool any = __any_sync(kAllLanes, found.any != 0);
    if (lane == 0) part_.any[(row_tile_ * part_.tiles[1] + tile) * 8 + warp_] = any;
    for (int term = 0; term < 2; ++term) state.loss[term] += double(found.loss[term]);
    store_row_sums(found.row_sum, part_.sums[0] + tile * part_.rows(0) + row_tile_ * kTile, state.row);
    if (!state.add_columns) return;
    named_barrier(kOwnGroup + state.group, kGroupThreads);
    const int column = threadIdx.x % kGroupThreads;
    float sum = 0;
    for (int warp = 0; warp < kGroupWarps; ++warp) sum += column_sums(turn, state.group, warp)[column];
    part_.sums[1][(row_tile_ * 2 + state.group) * part_.rows(1) + tile * kTile + column] = sum;
  }

  template <bool kNext>
  __device__ __forceinline__ void pass(float (&next)[64], float (&s)[64], int k, int turn, State& state) const {
    if constexpr (kTerms == kSeparationTerm) {
      if (kinds()[k] == kSeparate) return pass<kSeparate, kNext>(next, s, k, turn, state);
    }
    pass<kMixed, kNext>(next, s, k, turn, state);
  }

  __device__ __forceinline__ void compute() {
    State state;
    state.loss[0] = state.loss[1] = 0;
    state.group = warp_ / kGroupWarps;
    state.row = state.group * kBlock + warp_ % kGroupWarps * 16;
    // Of lane 0, so that the compiler computes with the registers of the warp, which the products need.
    const uint32_t base = __shfl_sync(kAllLanes, base_, 0);
    state.rows_at = matrix_descriptor(base + state.group * kBlockBytes, 16, 1024);
    state.stages_at = matrix_descriptor(base + Shape::kStage, 16, 1024);
    state.rules = pair_rules(p_, 0);
    const int lane = threadIdx.x % kWarp, g = lane / 4, t = lane % 4;
    state.offset = (state.row % kBlock + g) * 128 + swizzled(t & 1, g) * 16 + t / 2 * 8;
    state.column = (lane & 16) / 2 + 2 * t + (lane & 8) / 8;
    state.add_columns = p_.side[1].gradient != nullptr;
    const RowBlock block{0, first_row(), min(p_.side[0].count - first_row(), kTile), 0, 0, 0};
    for (int h = 0; h < 2; ++h) {
      state.rows[h] = lane_row(p_.side[0], block, state.rules, state.row + g + h * 8);
    }
    int k = active(0), turn = 0;
    if (k < count_) {
      float even[64], odd[64];
      for (int slab = 0; slab < kSlabs; ++slab) {
        multiply(even, slab, state);
        wgmma_wait<0>();
        keep(even);
        arrive_by_warp(kEmpty + state.ring.stage);
        state.ring.next();
      }
      for (;;) {
        int next = active(k + 1);
        if (next >= count_) {
          pass<false>(odd, even, k, turn, state);
          break;
        }
        pass<true>(odd, even, k, turn++, state);
        k = next;
        next = active(k + 1);
        if (next >= count_) {
          pass<false>(even, odd, k, turn, state);
          break;
        }
        pass<true>(even, odd, k, turn++, state);
        k = next;
      }
    }
    double* const scratch = reinterpret_cast<double*>(memory_ + Shape::kColumnSums);
    store_loss(p_, state.loss, scratch, 2 * kGroupWarps, part_.loss_slot + int(blockIdx.x),
               [] { named_barrier(3, 2 * kGroupThreads); });
  }

  const Fused<T>& p_;
  const Stored<T>& part_;
  unsigned char* const memory_;
  const uint32_t base_;
  const int warp_;
  const int row_tile_, first_tile_, count_;
};

// On other architectures the kernel is empty: run.h never starts it there.
template <typename T, int kSlabs, FusedTerms kTerms, bool kWeighted>
__global__ void __launch_bounds__(kStoredThreads, 1)
    coefficients_kernel(const __grid_constant__ Fused<T> p, const __grid_constant__ Stored<T> part) {
#if !defined(__CUDACC__) || defined(__CUDA_ARCH_FEAT_SM90_ALL)
  CoefficientsTile<T, kSlabs, kTerms, kWeighted>(p, part, dynamic_shared()).run();
#endif
}

}  // namespace fastccsa::all_pairs::cuda

// Stores the coefficients of pairs, by the instructions of Hopper GPUs: see stored.cuh.
//
// A block of threads keeps a tile of rows in shared memory and goes through a run of tiles of columns, which arrive in
// slabs of 64 values. Two teams of two warpgroups take turns: while the tensor cores multiply the rows by a tile for one
// team, the other turns the products with the tile before into coefficients. Each warpgroup has half of the rows.
//
// Two blocks with neighbouring tiles of rows form a cluster: each copies half of the columns for both, because the L2
// cache would be slower than the products otherwise.
//
// Of features of more than kLargestFusedWidth columns, only the first slabs of the rows stay. The others come with each
// tile of columns, which is more to read: so four blocks form a cluster, of two tiles of rows and two of columns, and
// those with the same rows each copy half of these for both.
#pragma once

#include "all_pairs/cuda/fused/stored.cuh"

namespace fastccsa::all_pairs::cuda {

constexpr int kTeams = 2, kTeamWarps = 2 * kGroupWarps, kComputingWarps = kTeams * kTeamWarps;
constexpr int kCoefficientsThreads = kComputingWarps * kWarp + kGroupThreads;  // a warp of the last warpgroup copies

// The slabs of the rows that stay in shared memory, of narrow and of wide features. Of these fewer stay, because one
// that does not takes two stages: 7 hold the one that is multiplied and two and a half more. This is not measured.
constexpr int kNarrowSlabs = kLargestFusedWidth / kBlock, kWideSlabs = kNarrowSlabs - 2;

// kSlabs: how many slabs of the rows stay. The stages take what they leave of the shared memory.
template <int kSlabs>
struct CoefficientsShape {
  static constexpr bool kWide = kSlabs < kNarrowSlabs;
  static constexpr int kSlabBytes = kTile * 128;  // of 64 values of a tile's rows
  static constexpr int kStages = kNarrowSlabs + 5 - kSlabs;
  static constexpr int kColumns = kWide ? kWideClusterColumns : 1;  // tiles of columns that a cluster takes at a time
  static constexpr int kBlocks = kCluster * kColumns;               // of threads of a cluster
  static constexpr int kPieceColumns = 16, kPieces = kTile / kPieceColumns;
  static constexpr int kPieceBytes = 16 * kPieceColumns * 2;  // of a warp's 16 rows
  // Shared memory, in bytes: slabs of the rows, then the stages. Norms and labels of columns belong to a team.
  static constexpr int kStage = kSlabs * kSlabBytes, kNorms = kStage + kStages * kSlabBytes;
  static constexpr int kLabels = kNorms + kTeams * kTile * 4, kColumnSums = kLabels + kTeams * kTile * 4;
  static constexpr int kStored = kColumnSums + kComputingWarps * kTile * 4;
  static constexpr int kKinds = kStored + kComputingWarps * kPieceBytes;
  static constexpr int kBarriers = kKinds + kCluster * kMostTilesOfRun;
  static constexpr int kLosses = kBarriers + (2 * kStages + kSlabs + 3 * kTeams) * 8;
  static constexpr int kBytes = kLosses + kComputingWarps * 2 * 8;
};

template <typename T, int kSlabs, FusedTerms kTerms, bool kWeighted>
class CoefficientsTile {
  using Shape = CoefficientsShape<kSlabs>;
  static constexpr int kStages = Shape::kStages, kPieceColumns = Shape::kPieceColumns;
  static constexpr int kColumns = Shape::kColumns, kBlocks = Shape::kBlocks;
  static constexpr bool kWide = Shape::kWide;
  enum Barrier {
    kFull = 0,
    kEmpty = kStages,
    kRowsFull = 2 * kStages,
    kColumnsFull = kRowsFull + kSlabs,
    kColumnsEmpty = kColumnsFull + kTeams,
    kPassed = kColumnsEmpty + kTeams  // all stages of a team's tile have been full
  };
  enum NamedBarrier { kAllComputing = 1, kOwnGroup = 2 };

 public:
  __device__ __forceinline__ CoefficientsTile(const Fused<T>& p, const Stored<T>& part, unsigned char* memory)
      : p_(p),
        part_(part),
        memory_(memory),
        base_(shared_address(memory)),
        row_tile_(row_cluster() * kCluster + row_rank(rank())),
        first_tile_(run_of_cluster() * tiles_of_run()),
        count_((min(tiles_of_run(), part.tiles[1] - first_tile_) + kColumns - 1) / kColumns) {}

  __device__ __forceinline__ void run() {
    if (threadIdx.x == 0) {
      for (int k = 0; k < kStages; ++k) {
        barrier_init(barrier(kFull + k), 1);
        barrier_init(barrier(kEmpty + k), kBlocks * kTeamWarps);
      }
      for (int k = 0; k < kSlabs; ++k) barrier_init(barrier(kRowsFull + k), 1);
      for (int k = 0; k < kTeams; ++k) {
        barrier_init(barrier(kColumnsFull + k), 1);
        barrier_init(barrier(kColumnsEmpty + k), kTeamWarps);
        barrier_init(barrier(kPassed + k), kTeamWarps);
      }
      fence_barrier_init();
    }
    let_next_kernel_start();
    wait_for_kernel_before();
    for (int k = threadIdx.x; k < kBlocks * count_; k += kCoefficientsThreads) find_kind(k / kBlocks, k % kBlocks);
    if (threadIdx.x < 2 * kComputingWarps) losses()[threadIdx.x] = 0;
    __syncthreads();
    synchronise_cluster();
    if (__shfl_sync(kAllLanes, int(threadIdx.x), 0) < kComputingWarps * kWarp) {
      take_registers<112>();
      compute();
    } else {
      give_registers<32>();
      if (threadIdx.x == kComputingWarps * kWarp) copy();
    }
    synchronise_cluster();  // the other block may still write here
  }

 private:
  // The block's number in its cluster, and the warp's in the block. They are found again wherever they are needed, which
  // takes no registers.
  static __device__ __forceinline__ int rank() { return int(blockIdx.x) % kBlocks; }
  static __device__ __forceinline__ int warp() { return int(threadIdx.x) / kWarp; }

  // The cluster's tiles of rows, and its run. Clusters that run at the same time have the same columns; but wide rows are
  // read again for each tile, so that fewer rows and several runs fit better into the L2 cache.
  __device__ __forceinline__ int row_cluster() const {
    const int cluster = int(blockIdx.x) / kBlocks;
    return kWide ? cluster / part_.runs : cluster % part_.clusters(0);
  }
  __device__ __forceinline__ int run_of_cluster() const {
    const int cluster = int(blockIdx.x) / kBlocks;
    return kWide ? cluster % part_.runs : cluster / part_.clusters(0);
  }

  // Which of the cluster's tiles of rows, and of columns, a block has.
  static __device__ __forceinline__ int row_rank(int rank) { return kWide ? rank % kCluster : rank; }
  static __device__ __forceinline__ int column_rank(int rank) { return kWide ? rank / kCluster : 0; }

  // How many slabs the rows have, and how many stages a tile takes.
  __device__ __forceinline__ int slabs() const { return kWide ? (p_.width + kBlock - 1) / kBlock : kSlabs; }
  __device__ __forceinline__ int steps() const { return kWide ? 2 * slabs() - kSlabs : kSlabs; }

  __device__ __forceinline__ uint32_t barrier(int k) const { return base_ + Shape::kBarriers + k * 8; }
  // Of tile k for a block of the cluster.
  __device__ __forceinline__ uint8_t& kind(int k, int rank) const {
    return memory_[Shape::kKinds + k * kBlocks + rank];
  }
  // Of the columns of a team's tile.
  __device__ __forceinline__ float* norms(int team) const {
    return reinterpret_cast<float*>(memory_ + Shape::kNorms) + team * kTile;
  }
  __device__ __forceinline__ int* labels(int team) const {
    return reinterpret_cast<int*>(memory_ + Shape::kLabels) + team * kTile;
  }
  // Sums of 16 rows of a computing warp, by column of a tile.
  __device__ __forceinline__ float* column_sums(int warp) const {
    return reinterpret_cast<float*>(memory_ + Shape::kColumnSums) + warp * kTile;
  }
  // Of both terms, by computing warp.
  __device__ __forceinline__ double* losses() const { return reinterpret_cast<double*>(memory_ + Shape::kLosses); }
  __device__ __forceinline__ int first_row(int row_tile) const { return part_.first[0] + row_tile * kTile; }
  // Runs are of whole clusters, but for the last.
  __device__ __forceinline__ int tiles_of_run() const {
    return (part_.tiles_of_run() + kColumns - 1) / kColumns * kColumns;
  }
  // The tile of columns that is tile k of a block of the cluster, and whether it exists.
  __device__ __forceinline__ int column_tile(int k, int rank) const {
    return first_tile_ + k * kColumns + column_rank(rank);
  }
  __device__ __forceinline__ bool has_columns(int k, int rank) const {
    return kColumns == 1 || column_tile(k, rank) < min(first_tile_ + tiles_of_run(), part_.tiles[1]);
  }
  __device__ __forceinline__ int first_column(int k, int rank) const {
    return part_.first[1] + column_tile(k, rank) * kTile;
  }

  __device__ void find_kind(int k, int rank) const {
    const int row_tile = row_tile_ - row_rank(this->rank()) + row_rank(rank);
    const bool exists = row_tile < part_.tiles[0] && has_columns(k, rank);
    const TileKind found = exists ? tile_kind(p_, first_row(row_tile), first_column(k, rank)) : kSkipped;
    kind(k, rank) = found;
    if (!exists || rank != this->rank() || found != kSkipped) return;
    uint8_t* const any = part_.any + (row_tile * part_.tiles[1] + column_tile(k, rank)) * 8;
    *reinterpret_cast<uint2*>(any) = uint2{0, 0};
  }

  // The first tile from k on that is not skipped by the whole cluster.
  __device__ __forceinline__ int active(int k) const {
    while (k < count_ && kind(k, 0) == kSkipped && kind(k, 1) == kSkipped &&
           (!kWide || (kind(k, 2) == kSkipped && kind(k, 3) == kSkipped))) {
      ++k;
    }
    return k;
  }

  // ---- the thread that starts the copies; lanes that only waited might fall behind by two phases of a barrier ----

  __device__ __forceinline__ void copy() const {
    const auto first_of = [&](int side, int row) {
      return reinterpret_cast<const unsigned char*>(p_.side[side].features) + place_in_blocks(row, 0, 0);
    };
    const auto slab_step = [&](int side) { return int64_t(padded_to_tiles(p_.side[side].count)) * kBlock * 2; };
    const int64_t step[2] = {slab_step(0), slab_step(1)};
    const bool has_rows = row_tile_ < part_.tiles[0];
    const unsigned char* const rows = first_of(0, first_row(row_tile_));
    Ring<kStages> ring;
    // Fills the next stage for the blocks in `ranks`: each of the two copies a half. If there is nothing to copy, the
    // stage passes as it is.
    const auto fill = [&](const unsigned char* from, int half, uint32_t ranks, bool exists) {
      const uint32_t full = barrier(kFull + ring.stage);
      barrier_wait(barrier(kEmpty + ring.stage), ring.phase ^ 1);
      if (!exists) return barrier_arrive(full);
      barrier_arrive_expecting(full, Shape::kSlabBytes);
      const uint32_t to = base_ + Shape::kStage + ring.stage * Shape::kSlabBytes;
      copy_bulk_to(ranks, to + half * kBlockBytes, from, kBlockBytes, full);
    };
    uint32_t turn = 0;  // tiles so far
    for (int k = active(0); k < count_; k = active(k + 1), ++turn) {
      const int column = first_column(k, rank());
      const unsigned char* columns = first_of(1, column + row_rank(rank()) * kBlock);
      const bool has_columns = this->has_columns(k, rank());
      const auto fill_with_columns = [&] {
        fill(columns, row_rank(rank()), ((1u << kCluster) - 1) << column_rank(rank()) * kCluster, has_columns);
        columns += step[1];
      };
#pragma unroll
      for (int slab = 0; slab < kSlabs; ++slab, ring.next()) {
        fill_with_columns();
        if (turn > 0 || !has_rows) continue;  // with the first tile come the rows
        barrier_arrive_expecting(barrier(kRowsFull + slab), Shape::kSlabBytes);
        copy_bulk(base_ + slab * Shape::kSlabBytes, rows + slab * step[0], Shape::kSlabBytes, barrier(kRowsFull + slab));
      }
      if constexpr (kWide) {
        const int first = row_rank(rank()), second = first + kCluster;  // the blocks with these rows
        const bool needed = kind(k, first) != kSkipped || kind(k, second) != kSkipped;
        const unsigned char* from = rows + kSlabs * step[0] + column_rank(rank()) * kBlockBytes;
#pragma unroll 1
        for (int slab = kSlabs; slab < slabs(); ++slab, from += step[0], ring.next()) {
          fill_with_columns();
          ring.next();
          fill(from, column_rank(rank()), 1u << first | 1u << second, needed);
        }
      }
      // Norms and labels, which are needed last. The team has computed its tile before, if it has read most slabs.
      const int team = turn % kTeams;
      const uint32_t full = barrier(kColumnsFull + team);
      barrier_wait(barrier(kColumnsEmpty + team), (turn / kTeams + 1) % 2);
      if (!has_columns) {
        barrier_arrive(full);
        continue;
      }
      barrier_arrive_expecting(full, 2 * kTile * 4);
      copy_bulk(shared_address(norms(team)), p_.side[1].norm + column, kTile * 4, full);
      copy_bulk(shared_address(labels(team)), p_.side[1].label + column, kTile * 4, full);
    }
  }

  // ---- the computing groups ----

  struct State {
    PairRules<T> rules;
    LaneRow rows[2];
    int from, to;  // 16 bytes of the warp's piece that the lane stores: in shared memory, and in a block
    Ring<kStages> ring;
  };

  // What a warp finds for a tile.
  struct Found {
    float loss[2];
    float row_sums[4];          // accumulators of the tensor cores: rows g and g + 8 of the warp, each twice
    float squares[2], plain[2], weight[2];  // of kSeparate, by row: see `separation_coefficients`
    uint32_t any;               // whether a coefficient is not 0
    uint32_t near;              // a bit for each piece with near pairs
    uint32_t to;                // where the lane stores coefficients of the first piece, in bytes
  };

  // Which half of the tile's rows the warpgroup takes, and the first of the warp's 16 rows in the tile.
  static __device__ __forceinline__ int half() { return warp() / kGroupWarps % 2; }
  static __device__ __forceinline__ int first_of_warp() { return warp() % kTeamWarps * 16; }
  // Whether sums of coefficients over rows are needed.
  __device__ __forceinline__ bool adds_columns() const { return p_.side[1].gradient != nullptr; }

  __device__ __forceinline__ void arrive_by_warp(int k) const {
    if (threadIdx.x % kWarp == 0) barrier_arrive(barrier(k));
  }

  // Tells all blocks of the cluster that a warp has read a stage, or one with columns and the next with their rows.
  template <int kCount = 1>
  __device__ __forceinline__ void release(int stage) const {
    const int lane = threadIdx.x % kWarp;
    if (lane >= kCount * kBlocks) return;
    if (kCount == 2 && lane >= kBlocks) stage = stage + 1 == kStages ? 0 : stage + 1;
    barrier_arrive_at(barrier(kEmpty + stage), kCount == 1 ? lane : lane % kBlocks);
  }

  // Multiplies the rows by a tile of columns, slab by slab.
  __device__ __forceinline__ void multiply(float (&s)[64], int team, bool first, State& state) const {
    int before = 0;  // the stage of the slab before
    // Of lane 0, so that the compiler computes with the registers of the warp, which the products need.
    const uint32_t base = __shfl_sync(kAllLanes, base_, 0), rows = base + __shfl_sync(kAllLanes, half(), 0) * kBlockBytes;
    const uint64_t rows_at = matrix_descriptor(rows, 16, 1024);
    const uint64_t stages_at = matrix_descriptor(base + Shape::kStage, 16, 1024);
    keep(s);
#pragma unroll
    for (int slab = 0; slab < kSlabs; ++slab) {
      const uint64_t a = rows_at + slab * (Shape::kSlabBytes >> 4);
      const uint64_t b = stages_at + state.ring.stage * (Shape::kSlabBytes >> 4);
      if (first) barrier_wait(barrier(kRowsFull + slab), 0);
      barrier_wait(barrier(kFull + state.ring.stage), state.ring.phase);
      wgmma_fence();
#pragma unroll
      for (int k = 0; k < 4; ++k) wgmma_k<T, kTile>(s, a + k * 2, b + k * 2, slab > 0 || k > 0);
      wgmma_commit();
      if (slab > 0) {
        wgmma_wait<1>();
        release(before);
      }
      before = state.ring.stage;
      state.ring.next();
    }
    if constexpr (kWide) {
#pragma unroll 1
      for (int slab = kSlabs; slab < slabs(); ++slab) {
        const int stage = state.ring.stage;
        const uint64_t b = stages_at + stage * (Shape::kSlabBytes >> 4);
        barrier_wait(barrier(kFull + stage), state.ring.phase);
        state.ring.next();
        const uint64_t a = rows_at + ((Shape::kStage + state.ring.stage * Shape::kSlabBytes) >> 4);
        barrier_wait(barrier(kFull + state.ring.stage), state.ring.phase);
        state.ring.next();
        wgmma_fence();
#pragma unroll
        for (int k = 0; k < 4; ++k) wgmma_k<T, kTile>(s, a + k * 2, b + k * 2, true);
        wgmma_commit();
        wgmma_wait<1>();
        slab == kSlabs ? release(before) : release<2>(before);
        before = stage;
      }
    }
    arrive_by_warp(kPassed + team);
    wgmma_wait<0>();
    keep(s);
    release<kWide ? 2 : 1>(before);
  }

  // Lets the other blocks of the cluster have a tile that this one skips. The rows may have come with it.
  __device__ __forceinline__ void skip(int team, bool first, State& state) const {
#pragma unroll 1
    for (int step = 0; step < steps(); ++step, state.ring.next()) {
      barrier_wait(barrier(kFull + state.ring.stage), state.ring.phase);
      __syncwarp();  // a lane that lagged behind the one that releases could miss a phase
      release(state.ring.stage);
    }
    arrive_by_warp(kPassed + team);
#pragma unroll 1
    for (int slab = 0; first && slab < kSlabs && row_tile_ < part_.tiles[0]; ++slab) {
      barrier_wait(barrier(kRowsFull + slab), 0);
    }
  }

  // Adds coefficients, which are in the layout of a factor, over the columns.
  static __device__ __forceinline__ void add_rows(const uint32_t (&packed)[4], float (&sums)[4]) {
    multiply_16x8x16<T>(sums, packed, kOnes<T>, kOnes<T>);
  }

  // Stores the coefficients of a piece, and their sums over the warp's rows.
  __device__ __forceinline__ void store(const uint32_t (&packed)[4], int number, Found& found,
                                        const State& state) const {
    const int lane = threadIdx.x % kWarp;
    found.any |= packed[0] | packed[1] | packed[2] | packed[3];
    // Rows of 32 bytes, of which every second group of 4 has its halves exchanged, so that 8 rows use all banks.
    const uint32_t piece = base_ + Shape::kStored + warp() * Shape::kPieceBytes;
    const uint32_t own = piece + place_in_piece(lane % 16, lane / 16);
    store_matrices(packed, own);
    __syncwarp();
    // A block has 64 columns: 32 bytes for each piece, which are swizzled. The place of the first one is even.
    unsigned char* const to = reinterpret_cast<unsigned char*>(part_.coefficients) +
                              (found.to ^ uint32_t(number / 4 * kBlockBytes + number % 4 * 32));
    *reinterpret_cast<uint4*>(to) = *reinterpret_cast<const uint4*>(memory_ + state.from);
    if (adds_columns()) {
      const uint32_t ones[4] = {kOnes<T>, kOnes<T>, kOnes<T>, kOnes<T>};
      uint32_t columns[4];
      load_matrices_transposed(columns, own);
      float* const sums = column_sums(warp()) + number * kPieceColumns + lane * 2;
#pragma unroll
      for (int n = 0; n < 2; ++n) {
        float sum[4] = {};
        multiply_16x8x16<T>(sum, ones, columns[2 * n], columns[2 * n + 1]);
        if (lane < 4) *reinterpret_cast<float2*>(sums + n * 8) = make_float2(sum[0], sum[1]);
      }
    }
    __syncwarp();
  }

  static __device__ __forceinline__ int place_in_piece(int row, int chunk) {
    return row * 32 + (chunk ^ (row / 4 & 1)) * 16;
  }

  // Turns the products of a piece into coefficients. If pairs are near, it only keeps the products.
  template <TileKind kKind>
  __device__ __forceinline__ void piece(const float (&s)[64], int number, int team, float (&kept)[64], Found& found,
                                        const State& state) const {
    constexpr int kProducts = kPieceColumns / 2;
    const float(&products)[kProducts] = *reinterpret_cast<const float(*)[kProducts]>(&s[number * kProducts]);
    const float* const of_columns = norms(team) + number * kPieceColumns;
    constexpr bool kSquares = kKind == kSeparate;
    // These continue what the pieces before have found.
    float loss[2] = {kSquares ? found.squares[0] : found.loss[0], kSquares ? found.squares[1] : found.loss[1]};
    float row_sums[4] = {found.row_sums[0], found.row_sums[1], found.row_sums[2], found.row_sums[3]};
    float unused[2] = {};
    uint32_t packed[4];
    Nearest nearest;
    if constexpr (kKind == kSeparate) {
      separation_coefficients<true, 2>(products, packed, state.rules, state.rows, found.weight, of_columns, loss, unused,
                                       nearest);
    } else {
      mixed_coefficients<kTerms, kWeighted, 2>(products, packed, state.rules, state.rows, of_columns,
                                               labels(team) + number * kPieceColumns, loss, unused, nearest);
    }
    add_rows(packed, row_sums);
    // NaN of a pair of one class does not reach its coefficient, but it reaches the loss.
    const float sums[2] = {row_sums[0] + 0.0f * loss[0], row_sums[2]};
    if (!nearest.far(sums)) {
      found.near |= 1u << number;
#pragma unroll
      for (int i = 0; i < kProducts; ++i) kept[number * kProducts + i] = products[i];
      return;
    }
    for (int k = 0; k < 2; ++k) (kSquares ? found.squares[k] : found.loss[k]) = loss[k];
    for (int k = 0; k < 4; ++k) found.row_sums[k] = row_sums[k];
    store(packed, number, found, state);
  }

  // Computes the pieces with near pairs, these from their rows.
  __device__ __forceinline__ void compute_near(const float (&kept)[64], int k, int team, Found& found,
                                               const State& state) const {
    constexpr int kProducts = kPieceColumns / 2;
    const int row = first_row(row_tile_) + first_of_warp();
#pragma unroll 1
    for (uint32_t near = found.near; near != 0; near &= near - 1) {
      const int number = __ffs(int(near)) - 1, first = number * kPieceColumns;
      const auto distance = [&](int r, int c) {
        const auto a = [&](int chunk) { return chunk_of(p_, 0, row + r, chunk); };
        const auto b = [&](int chunk) { return chunk_of(p_, 1, first_column(k, rank()) + first + c, chunk); };
        return squared_distance_in_shared<T>(slabs() * kBlock, a, b, threadIdx.x % kWarp);
      };
      float products[kProducts], unused[2] = {};
      uint32_t packed[4];
      for (int i = 0; i < kProducts; ++i) products[i] = kept[number * kProducts + i];
      near_coefficients<2>(products, packed, kTerms, state.rules, state.rows, norms(team) + first, labels(team) + first,
                           found.loss, unused, distance);
      add_rows(packed, found.row_sums);
      store(packed, number, found, state);
    }
  }

  // Turns `s`, the products with tile k, into coefficients.
  template <TileKind kKind>
  __device__ __forceinline__ void pass(const float (&s)[64], int k, int team, State& state) const {
    Found found{};
    const int tile = column_tile(k, rank());
    const int block = (row_tile_ * 2 + half()) * 2 * part_.tiles[1] + tile * 2;
    found.to = uint32_t(block) * kBlockBytes + state.to;
    if constexpr (kKind == kSeparate) {
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        found.plain[h] = state.rules.weight_of(state.rows[h].weights, labels(team)[0]);
        found.weight[h] = found.plain[h] * state.rules.scale;
      }
    }
    float kept[64];
#pragma unroll
    for (int number = 0; number < Shape::kPieces; ++number) piece<kKind>(s, number, team, kept, found, state);
    if constexpr (kKind == kSeparate) {
      found.loss[1] = found.squares[0] * found.plain[0] + found.squares[1] * found.plain[1];
    }
    if (found.near != 0) compute_near(kept, k, team, found, state);
    finish(found, tile);
  }

  // Stores what a warp has found for a tile, and the sums of columns over the rows of the warpgroup.
  __device__ __forceinline__ void finish(const Found& found, int tile) const {
    const int lane = threadIdx.x % kWarp;
    const bool any = __any_sync(kAllLanes, found.any != 0);
    if (lane == 0) part_.any[(row_tile_ * part_.tiles[1] + tile) * 8 + warp() % kTeamWarps] = any;
    for (int term = 0; term < 2; ++term) {
      const float sum = reduce<kWarp>(found.loss[term], Add());
      if (lane == 0) losses()[2 * warp() + term] += double(sum);
    }
    if (lane % 4 == 0) {
      float* const to = part_.sums[0] + tile * part_.rows(0) + row_tile_ * kTile + first_of_warp() + lane / 4;
      to[0] = found.row_sums[0];
      to[8] = found.row_sums[2];
    }
    if (!adds_columns()) return;
    const int group = warp() / kGroupWarps;
    named_barrier(kOwnGroup + group, kGroupThreads);
    const int column = threadIdx.x % kGroupThreads;
    float sum = 0;
    for (int warp = 0; warp < kGroupWarps; ++warp) sum += column_sums(group * kGroupWarps + warp)[column];
    part_.sums[1][(row_tile_ * 2 + half()) * part_.rows(1) + tile * kTile + column] = sum;
    named_barrier(kOwnGroup + group, kGroupThreads);
  }

  __device__ __forceinline__ void compute() const {
    State state;
    const int team = warp() / kTeamWarps, lane = threadIdx.x % kWarp, g = lane / 4;
    state.rules = pair_rules(p_, 0);
    const int row = lane / 2, chunk = lane % 2;
    state.from = Shape::kStored + warp() * Shape::kPieceBytes + place_in_piece(row, chunk);
    state.to = (first_of_warp() % kBlock + row) * 128 + swizzled(chunk, row) * 16;
    const RowBlock block{0, first_row(row_tile_), min(p_.side[0].count - first_row(row_tile_), kTile), 0, 0, 0};
    for (int h = 0; h < 2; ++h) {
      state.rows[h] = lane_row(p_.side[0], block, state.rules, first_of_warp() + g + h * 8);
    }
    int turn = 0;
    for (int k = active(0); k < count_; k = active(k + 1), ++turn) {
      if (turn % kTeams != team) {
        state.ring.skip(steps());
        continue;
      }
      const int own = kind(k, rank());
      float s[64];
      // A barrier tells its last phase only. The stages of this tile may still have slabs of the one before, until the
      // other team has seen that all of its own are full.
      if (turn > 0) barrier_wait(barrier(kPassed + 1 - team), (turn - 1) / kTeams % 2);
      own == kSkipped ? skip(team, turn < kTeams, state) : multiply(s, team, turn < kTeams, state);
      barrier_wait(barrier(kColumnsFull + team), turn / kTeams % 2);
      if (kTerms == kSeparationTerm && own == kSeparate) {
        pass<kSeparate>(s, k, team, state);
      } else if (own != kSkipped) {
        pass<kMixed>(s, k, team, state);
      }
      __syncwarp();  // for a tile that was skipped: see skip()
      arrive_by_warp(kColumnsEmpty + team);
    }
    store_loss();
  }

  __device__ __forceinline__ void store_loss() const {
    named_barrier(kAllComputing, kComputingWarps * kWarp);
    if (threadIdx.x >= 2) return;
    double sum = 0;
    for (int k = 0; k < kComputingWarps; ++k) sum += losses()[2 * k + threadIdx.x];
    p_.loss[int(threadIdx.x) * p_.plan.threads_blocks + part_.loss_slot + int(blockIdx.x)] = sum;
  }

  const Fused<T>& p_;
  const Stored<T>& part_;
  unsigned char* const memory_;
  const uint32_t base_;
  const int row_tile_, first_tile_, count_;
};

// On other architectures the kernel is empty: run.h never starts it there.
template <typename T, int kSlabs, FusedTerms kTerms, bool kWeighted>
__global__ void __launch_bounds__(kCoefficientsThreads, 1)
    coefficients_kernel(const __grid_constant__ Fused<T> p, const __grid_constant__ Stored<T> part) {
#if !defined(__CUDACC__) || defined(__CUDA_ARCH_FEAT_SM90_ALL)
  CoefficientsTile<T, kSlabs, kTerms, kWeighted>(p, part, dynamic_shared()).run();
#endif
}

}  // namespace fastccsa::all_pairs::cuda

// Stores the coefficients of pairs in parts, by the instructions of Hopper GPUs: see parts.cuh.
//
// A block of threads goes through a run of tiles of columns for a tile of rows, of which each of the two computing
// warpgroups has half. Slabs of 64 values arrive part by part, those of rows and columns together; of a single part, the
// first slabs of the rows stay, and the others arrive before those of the columns. While the tensor cores multiply the
// first slabs of a tile, the warpgroup turns the products of the tile before into coefficients.
//
// Two blocks with neighbouring tiles of rows form a cluster: each copies half of the columns for both.
#pragma once

#include "all_pairs/cuda/fused/parts.cuh"

namespace fastccsa::all_pairs::cuda {

constexpr int kPartsThreads = 3 * kGroupThreads;  // two warpgroups compute, and a warp of the third copies
constexpr int kPartsWarps = 2 * kGroupWarps;      // that compute

template <typename P>
struct PartsShape {
  static constexpr int kParts = P::kParts;
  static constexpr bool kKeepsRows = kParts == 1;
  static constexpr int kKept = kKeepsRows ? 8 : 0;  // slabs of the rows
  static constexpr int kSlabBytes = kTile * 128;  // of 64 values of a tile's rows
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

// The separation term of a pair that is not near; without a weight, the distance may be NaN. The refined form is off by
// about one unit in the last place: see separation_of.
template <bool kRefined>
__device__ __forceinline__ Term<float> separation_of_product(float squared_distance, float weight, float margin) {
  if constexpr (kRefined) return separation_of(squared_distance, weight, margin);
  const float inverse = reciprocal_square_root(squared_distance);
  const float gap = fmaxf(fmaf(-squared_distance, inverse, margin), 0.0f), pull = weight * gap;
  return {pull * gap, gap > 0.0f ? -2.0f * pull * inverse : 0.0f};
}

template <typename P>
class PartsTile {
  using Shape = PartsShape<P>;
  using Part = typename P::Part;
  static constexpr int kParts = P::kParts, kStages = Shape::kStages, kSlots = Shape::kSlots;
  static constexpr int kBuffers = Shape::kBuffers, kValues = Shape::kPieceValues;
  static constexpr bool kHasScale = kScales<P>;
  enum Barrier {
    kFull = 0,
    kEmpty = kSlots,
    kRowsFull = 2 * kSlots,
    kColumnsFull = kRowsFull + Shape::kKept,
    kColumnsEmpty = kColumnsFull + kBuffers
  };
  enum NamedBarrier { kOwnGroup = 1, kSecondStarts = 3 };

 public:
  __device__ __forceinline__ PartsTile(const PairsInBlocks<P>& p, unsigned char* memory)
      : p_(p),
        memory_(memory),
        base_(shared_address(memory)),
        row_tile_(int(blockIdx.x) / kCluster % p.clusters(0) * kCluster + rank()),
        first_tile_(int(blockIdx.x) / kCluster / p.clusters(0) * p.tiles_of_run()),
        count_(min(p.tiles_of_run(), p.tiles[1] - first_tile_)) {}

  __device__ __forceinline__ void run() {
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
    for (int k = threadIdx.x; k < kCluster * count_; k += kPartsThreads) find_kind(k / kCluster, k % kCluster);
    __syncthreads();
    synchronise_cluster();
    if (__shfl_sync(kAllLanes, int(threadIdx.x), 0) < kPartsWarps * kWarp) {
      take_registers<232>();
      compute();
    } else {
      give_registers<40>();
      if (warp() == kPartsWarps) copy();
    }
    synchronise_cluster();  // the other block may still write here
  }

 private:
  // The block's number in its cluster, and the warp's in the block. They are found again wherever they are needed, which
  // takes no registers.
  static __device__ __forceinline__ int rank() { return int(blockIdx.x) % kCluster; }
  static __device__ __forceinline__ int warp() { return int(threadIdx.x) / kWarp; }
  static __device__ __forceinline__ int group() { return warp() / kGroupWarps; }

  __device__ __forceinline__ uint32_t barrier(int k) const { return base_ + Shape::kBarriers + k * 8; }
  // Whether tile k has pairs of different classes for a block of the cluster.
  __device__ __forceinline__ uint8_t& counts(int k, int rank) const {
    return memory_[Shape::kKinds + k * kCluster + rank];
  }
  // Of the columns of a tile.
  __device__ __forceinline__ float* norms(int buffer) const {
    return reinterpret_cast<float*>(memory_ + Shape::kNorms) + buffer * kTile;
  }
  __device__ __forceinline__ int* labels(int buffer) const {
    return reinterpret_cast<int*>(memory_ + Shape::kLabels) + buffer * kTile;
  }
  // Sums of 16 rows of a computing warp, by column of a tile.
  __device__ __forceinline__ float* column_sums(int warp) const {
    return reinterpret_cast<float*>(memory_ + Shape::kColumnSums) + warp * kTile;
  }
  __device__ __forceinline__ double* losses() const { return reinterpret_cast<double*>(memory_ + Shape::kLosses); }
  // Rows of a side, from the first of all sorted rows on.
  __device__ __forceinline__ int64_t first_row(int row_tile) const { return p_.pairs.begin[0] + row_tile * kTile; }
  __device__ __forceinline__ int64_t first_column(int k) const {
    return p_.pairs.begin[1] + (first_tile_ + k) * kTile;
  }

  // Rows are sorted by class, so that a tile of one class on both sides has nothing to compute.
  __device__ void find_kind(int k, int rank) const {
    const int row_tile = row_tile_ - this->rank() + rank;
    bool found = row_tile < p_.tiles[0];
    if (found) {
      const int64_t rows = min(int64_t(kTile), p_.pairs.rows - row_tile * kTile);
      const int64_t columns = min(int64_t(kTile), p_.pairs.columns - (first_tile_ + k) * kTile);
      const int32_t *const of_rows = p_.label[0] + first_row(row_tile), *const of_columns = p_.label[1] + first_column(k);
      found = of_rows[0] != of_rows[rows - 1] || of_columns[0] != of_columns[columns - 1] || of_rows[0] != of_columns[0];
    }
    counts(k, rank) = found;
  }

  // The first tile from k on that is not left out by the whole cluster.
  __device__ __forceinline__ int active(int k) const {
    while (k < count_ && !counts(k, 0) && !counts(k, 1)) ++k;
    return k;
  }

  // ---- the copying warp, whose first lane starts the copies ----

  __device__ __forceinline__ void copy() const {
    const bool has_rows = row_tile_ < p_.tiles[0], starts = threadIdx.x % kWarp == 0;
    const auto place = [&](int side, int64_t row) {
      return reinterpret_cast<const unsigned char*>(p_.features[side]) + place_in_blocks(row, 0, 0);
    };
    const unsigned char* const rows = place(0, first_row(row_tile_));
    Ring<kStages> ring;
    uint32_t turn = 0;  // tiles so far
    for (int k = active(0); k < count_; k = active(k + 1), ++turn) {
      const int64_t column = first_column(k);
      const unsigned char* const columns = place(1, column + rank() * kBlock);
      const bool own = counts(k, rank());  // otherwise the rows are not needed
#pragma unroll 1
      for (int slab = 0; slab < p_.slabs; ++slab, ring.next()) {
        if (Shape::passes(slab)) {
          const uint32_t full = barrier(kFull + ring.stage), to = base_ + Shape::kRing + ring.stage * Shape::kSlotBytes;
          barrier_wait(barrier(kEmpty + ring.stage), ring.phase ^ 1);
          if (starts) {
            barrier_arrive_expecting(full, own ? Shape::kSlabBytes : 0);
            if (own) copy_bulk(to, rows + slab * p_.slab_bytes(0), Shape::kSlabBytes, full);
          }
          ring.next();
        }
#pragma unroll
        for (int part = kParts - 1; part >= 0; --part) {
          const int slot = slot_of(ring.stage, part);
          const uint32_t full = barrier(kFull + slot), to = base_ + Shape::kRing + slot * Shape::kSlotBytes;
          barrier_wait(barrier(kEmpty + slot), ring.phase ^ 1);
          if (!starts) continue;
          const bool with_rows = !Shape::kKeepsRows && own;
          barrier_arrive_expecting(full, with_rows ? 2 * Shape::kSlabBytes : Shape::kSlabBytes);
          copy_bulk_to((1u << kCluster) - 1, to + rank() * kBlockBytes,
                       columns + slab * p_.slab_bytes(1) + part * p_.part_bytes(1), kBlockBytes, full);
          const unsigned char* const from = rows + slab * p_.slab_bytes(0) + part * p_.part_bytes(0);
          if (with_rows) copy_bulk(to + Shape::kSlabBytes, from, Shape::kSlabBytes, full);
          if (slab >= Shape::kKept || turn > 0 || !has_rows) continue;  // with the first tile come the rows
          barrier_arrive_expecting(barrier(kRowsFull + slab), Shape::kSlabBytes);
          copy_bulk(base_ + slab * Shape::kSlabBytes, from, Shape::kSlabBytes, barrier(kRowsFull + slab));
        }
      }
      // Norms and labels, which are needed last.
      const int buffer = turn % kBuffers;
      const uint32_t full = barrier(kColumnsFull + buffer);
      barrier_wait(barrier(kColumnsEmpty + buffer), (turn / kBuffers + 1) % 2);
      if (!starts) continue;
      barrier_arrive_expecting(full, 2 * kTile * 4);
      copy_bulk(shared_address(norms(buffer)), p_.pairs.norm[1] + column, kTile * 4, full);
      copy_bulk(shared_address(labels(buffer)), p_.label[1] + column, kTile * 4, full);
    }
    __syncwarp();
  }

  static __device__ __forceinline__ int slot_of(int stage, int part) { return stage * kParts + kParts - 1 - part; }

  // ---- the computing groups ----

  struct Row {
    float norm;
    int label;
  };

  struct State {
    Row rows[2];
    int offset;  // of what the lane stores in a block: its row and its half chunk, swizzled
    int column;  // of a piece, whose sum the lane stores
    float inverse_value, coefficient_scale;  // of float16
    Ring<kStages> ring;
    // The slot of the products that have been started last, and that of rows without a place of their own; or -1.
    int before, rows_before;
    // The tile whose products wait to be turned into coefficients, or -1; and what the warp has found for it.
    int tile, turn;
    float loss, row_sum[2];
    uint32_t any, near;  // whether a coefficient is not 0; a bit for each piece with near pairs
    uint32_t close;      // a bit for each of the warp's rows with close pairs
  };

  // The first of the warp's 16 rows in the tile.
  static __device__ __forceinline__ int first_of_warp() { return warp() * 16; }
  __device__ __forceinline__ bool stores() const { return p_.coefficients != nullptr; }
  __device__ __forceinline__ bool adds_columns() const { return p_.pairs.column_sums != nullptr; }

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

  // ---- products ----

  __device__ __forceinline__ void release_before(const State& state) const {
    release(state.before);
    if (Shape::kKeepsRows && state.rows_before >= 0) release(state.rows_before);
  }

  // Waits for all products, and releases their last slot.
  __device__ __forceinline__ void finish_products(State& state) const {
    wgmma_wait<0>();
    if (state.before >= 0) release_before(state);
    state.before = -1;
  }

  // Waits for all products but the last ones, which read these slots, and releases the slots before.
  __device__ __forceinline__ void follow(int slot, int rows_slot, State& state) const {
    if (state.before >= 0) {
      wgmma_wait<1>();
      release_before(state);
    }
    state.before = slot;
    state.rows_before = rows_slot;
  }

  // Copies a sum to another register, even where the compiler would rather let both share one: the products, which are
  // asynchronous, would have to wait for its use.
  static __device__ __forceinline__ float moved(float sum) { return sum + 0.0f; }

  // Waits for a slab of the rows that does not stay, and returns its slot.
  __device__ __forceinline__ int take_rows(State& state) const {
    const int slot = state.ring.stage;
    barrier_wait(barrier(kFull + slot), state.ring.phase);
    state.ring.next();
    return slot;
  }

  // Starts the products of a slab, and calls work(step) after each step of them; end_slab() must follow. `rows_slot`: see
  // `take_rows`.
  template <typename Work>
  __device__ __forceinline__ void begin_slab(float (&s)[64], int slab, int rows_slot, bool first, State& state,
                                             Work work) const {
    // Of lane 0, so that the compiler computes with the registers of the warp, which the products need.
    const uint32_t base = __shfl_sync(kAllLanes, base_, 0), half = __shfl_sync(kAllLanes, group(), 0) * kBlockBytes;
    const uint64_t ring_at = matrix_descriptor(base + Shape::kRing, 16, 1024);
    const uint64_t rows_at = matrix_descriptor(base + half, 16, 1024);
    const auto columns_of = [&](int part) FASTCCSA_INLINE_LAMBDA {
      return ring_at + slot_of(state.ring.stage, part) * (Shape::kSlotBytes >> 4);
    };
    const auto rows_of = [&](int part) FASTCCSA_INLINE_LAMBDA {
      if (Shape::kKeepsRows && rows_slot < 0) return rows_at + slab * (Shape::kSlabBytes >> 4);
      if (Shape::kKeepsRows) return ring_at + ((rows_slot * Shape::kSlotBytes + half) >> 4);
      return columns_of(part) + ((Shape::kSlabBytes + half) >> 4);
    };
#pragma unroll
    for (int part = kParts - 1; part >= 0; --part) {
      barrier_wait(barrier(kFull + slot_of(state.ring.stage, part)), state.ring.phase);
    }
#pragma unroll
    for (int part = kParts - 1; part >= 0; --part) {
      wgmma_fence();
      for_each_product<kParts>(part, [&](int i, int j) FASTCCSA_INLINE_LAMBDA {
        const uint64_t a = rows_of(i), b = columns_of(j);
#pragma unroll
        for (int k = 0; k < 4; ++k) {
          wgmma_k<Part, kTile>(s, a + k * 2, b + k * 2, !first || part < kParts - 1 || i != part || k > 0);
        }
      });
      wgmma_commit();
      work(kParts - 1 - part);
      if (part > 0) follow(slot_of(state.ring.stage, part), -1, state);
    }
  }
  __device__ __forceinline__ void end_slab(int rows_slot, State& state) const {
    follow(slot_of(state.ring.stage, 0), rows_slot, state);
    state.ring.next();
  }

  // Lets the other block of the cluster have a tile that this one leaves out.
  __device__ __forceinline__ void skip(int turn, State& state) const {
#pragma unroll 1
    for (int slab = 0; slab < p_.slabs; ++slab, state.ring.next()) {
      if (Shape::passes(slab)) release(take_rows(state));
      for (int part = kParts - 1; part >= 0; --part) {
        const int slot = slot_of(state.ring.stage, part);
        barrier_wait(barrier(kFull + slot), state.ring.phase);
        release(slot);
      }
    }
    wait_for_columns(turn);
    release_columns(turn);
  }

  // Multiplies the rows by a tile of columns, and finishes the tile before, whose products are in `sums`. Then `sums`
  // has the new products.
  __device__ __forceinline__ void multiply(float (&s)[64], float (&sums)[64], bool first_tile, State& state) const {
    float kept[64];  // of near pairs
    const auto none = [](int) FASTCCSA_INLINE_LAMBDA {};
    keep(s);
    if constexpr (kPromotes<P>) {
      // The groups add up sums at different times, so that one of them always has products.
      const bool starts = first_tile && group() == 0;
      if (first_tile && group() == 1) named_barrier(kSecondStarts, 2 * kGroupThreads);
      float half[32];
      begin_slab(s, 0, -1, true, state, [&](int step) FASTCCSA_INLINE_LAMBDA {
        if (step == 0) piece<0>(sums, kept, state);
        if (step == 1) piece<1>(sums, kept, state), piece<2>(sums, kept, state);
        if (step == 2) piece<3>(sums, kept, state);
        if (step == 2 && starts) named_barrier(kSecondStarts, 2 * kGroupThreads);
      });
      end_slab(-1, state);
      finish_products(state);
      keep(s);
#pragma unroll
      for (int i = 0; i < 32; ++i) sums[i] = moved(s[i]), half[i] = moved(s[32 + i]);
      begin_slab(s, 1, -1, true, state, [&](int step) FASTCCSA_INLINE_LAMBDA {
        if (step == 0) piece<4>(sums, kept, state);
        if (step == 1) piece<5>(sums, kept, state), piece<6>(sums, kept, state);
        if (step == 2) piece<7>(sums, kept, state);
      });
      end_slab(-1, state);
      finish_tile(kept, state);
      finish_products(state);
      keep(s);
#pragma unroll
      for (int i = 0; i < 32; ++i) sums[i] += s[i], sums[32 + i] = half[i] + s[32 + i];
#pragma unroll 1
      for (int slab = 2; slab < p_.slabs; ++slab) {
        begin_slab(s, slab, -1, true, state, none);
        end_slab(-1, state);
        finish_products(state);
        keep(s);
#pragma unroll
        for (int i = 0; i < 64; ++i) sums[i] += s[i];
      }
    } else {
      const auto wait_for_rows = [&](int slab) FASTCCSA_INLINE_LAMBDA {
        if (Shape::kKeepsRows && first_tile) barrier_wait(barrier(kRowsFull + slab), 0);
      };
      // Each slab comes with a piece, or with 2 or 4 of them where there are fewer than 8 slabs.
      const int shift = p_.slabs >= 8 ? 0 : p_.slabs >= 4 ? 1 : 2;
      const auto step = [&](auto number) FASTCCSA_INLINE_LAMBDA {
        constexpr int kNumber = decltype(number)::value;
        const bool begins = kNumber % (1 << shift) == 0;
        const int slab = kNumber >> shift;
        if (begins) {
          wait_for_rows(slab);
          begin_slab(s, slab, -1, kNumber == 0, state, none);
        }
        piece<kNumber>(sums, kept, state);
        if (begins) end_slab(-1, state);
      };
      step(std::integral_constant<int, 0>());
      step(std::integral_constant<int, 1>());
      step(std::integral_constant<int, 2>());
      step(std::integral_constant<int, 3>());
      step(std::integral_constant<int, 4>());
      step(std::integral_constant<int, 5>());
      step(std::integral_constant<int, 6>());
      step(std::integral_constant<int, 7>());
#pragma unroll 1
      for (int slab = 8 >> shift; slab < p_.slabs; ++slab) {
        const int rows_slot = Shape::passes(slab) ? take_rows(state) : -1;
        if (rows_slot < 0) wait_for_rows(slab);
        begin_slab(s, slab, rows_slot, false, state, none);
        end_slab(rows_slot, state);
      }
      finish_tile(kept, state);
      finish_products(state);
      keep(s);
#pragma unroll
      for (int i = 0; i < 64; ++i) sums[i] = moved(s[i]);
    }
  }

  // Finishes the last tile, and the last one before tiles that are left out.
  __device__ __forceinline__ void finish_alone(const float (&sums)[64], State& state) const {
    float kept[64];
    piece<0>(sums, kept, state), piece<1>(sums, kept, state), piece<2>(sums, kept, state), piece<3>(sums, kept, state);
    piece<4>(sums, kept, state), piece<5>(sums, kept, state), piece<6>(sums, kept, state), piece<7>(sums, kept, state);
    finish_tile(kept, state);
  }

  // ---- coefficients ----

  __device__ __forceinline__ float weight_of(const Row& row, int label) const {
    if (label < 0 || row.label < 0 || label == row.label) return 0.0f;
    return p_.pairs.weight == nullptr ? 1.0f : p_.pairs.weight[row.label * p_.pairs.classes + label];
  }

  __device__ __forceinline__ float squared_distance_of(float product, float norms, const State& state) const {
    if constexpr (kHasScale) return fmaf(product * state.inverse_value, -2.0f * state.inverse_value, norms);
    return fmaf(-2.0f, product, norms);
  }

  // Value i of a lane's piece is that of row i / 2 % 2 and this column.
  static __device__ __forceinline__ int column_of_value(int i) {
    return i / 4 * 8 + int(threadIdx.x) % 4 * 2 + i % 2;
  }

  // Turns the products of 16 columns into coefficients. If pairs may be near, it only keeps the products.
  template <int kNumber>
  __device__ __forceinline__ void piece(const float (&sums)[64], float (&kept)[64], State& state) const {
    if (state.tile < 0) return;
    const float* const of_columns = norms(state.turn % kBuffers) + kNumber * 16;
    const int* const of_labels = labels(state.turn % kBuffers) + kNumber * 16;
    if (kNumber == 0) wait_for_columns(state.turn);
    float weight[kValues], k[kValues], loss = 0;
    const int first = of_labels[0];
    if (first == of_labels[15]) {  // as most of them are
      const float of_rows[2] = {weight_of(state.rows[0], first), weight_of(state.rows[1], first)};
#pragma unroll
      for (int i = 0; i < kValues; ++i) weight[i] = of_rows[i / 2 % 2];
    } else {
#pragma unroll
      for (int i = 0; i < kValues; ++i) weight[i] = weight_of(state.rows[i / 2 % 2], of_labels[column_of_value(i)]);
    }
    const float margin = p_.pairs.margin, square = margin * margin;
    bool near = false;
#pragma unroll
    for (int i = 0; i < kValues; ++i) {
      const float sum = state.rows[i / 2 % 2].norm + of_columns[column_of_value(i)];
      const float d2 = squared_distance_of(sums[kNumber * kValues + i], sum, state);
      // This is at least as far as what `is_near` accepts.
      const float limit = fminf(float(kNear<float>) * sum, fmaf(float(kClose / 2), sum, square));
      near |= (weight[i] > 0.0f) & !(d2 > limit);
      const Term<float> term = separation_of_product<kPromotes<P>>(d2, weight[i], margin);
      loss += term.value;
      k[i] = term.coefficient;
    }
    if (__any_sync(kAllLanes, near)) {
      state.near |= 1u << kNumber;
#pragma unroll
      for (int i = 0; i < kValues; ++i) kept[kNumber * kValues + i] = sums[kNumber * kValues + i];
      return;
    }
    state.loss += loss;
    store(k, kNumber, state);
  }

  // Stores the coefficients of a piece, and adds them up.
  __device__ __forceinline__ void store(float (&k)[kValues], int number, State& state) const {
    if (!stores()) return;
    const int odd = threadIdx.x & 1;
    uint32_t parts[kValues / 2][kParts];
#pragma unroll
    for (int i = 0; i < kValues; i += 2) {
      if (kHasScale) {
        for (int e = 0; e < 2; ++e) {  // NaN stays NaN
          k[i + e] *= state.coefficient_scale;
          k[i + e] = k[i + e] < -kLargestHalf ? -kLargestHalf : k[i + e];
        }
      }
      split_pair<P>(k[i], k[i + 1], parts[i / 2]);
      state.row_sum[i / 2 % 2] += k[i] + k[i + 1];  // sums are those of what the products will read
      state.any |= parts[i / 2][0];
    }
    // A block has 64 columns: 32 bytes for each 16 of them, which are swizzled.
    const int64_t block = int64_t(row_tile_ * 2 + group()) * 2 * p_.tiles[1] + state.tile * 2 + number / 4;
    unsigned char* to = reinterpret_cast<unsigned char*>(p_.coefficients) + block * kBlockBytes +
                        (state.offset ^ number % 4 * 32);
#pragma unroll
    for (int part = 0; part < kParts; ++part, to += p_.coefficients_bytes()) {
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        const uint32_t low = parts[h][part], high = parts[2 + h][part];
        const uint32_t other = __shfl_xor_sync(kAllLanes, odd ? low : high, 1);
        *reinterpret_cast<uint2*>(to + h * 1024) = odd ? uint2{other, high} : uint2{low, other};
      }
    }
    if (adds_columns()) add_columns(k, column_sums(warp()) + number * 16 + state.column);
  }

  // Adds coefficients over the warp's rows: after two exchanges a lane has one column, and then the sum of all lanes.
  static __device__ __forceinline__ void add_columns(const float (&k)[kValues], float* to) {
    const int lane = threadIdx.x % kWarp;
    const bool second = (lane & 16) != 0, last = (lane & 8) != 0;
    const float sum[4] = {k[0] + k[2], k[1] + k[3], k[4] + k[6], k[5] + k[7]};
    float half[2];
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      half[i] = (second ? sum[2 + i] : sum[i]) + __shfl_xor_sync(kAllLanes, second ? sum[i] : sum[2 + i], 16);
    }
    float one = (last ? half[1] : half[0]) + __shfl_xor_sync(kAllLanes, last ? half[0] : half[1], 8);
    one += __shfl_xor_sync(kAllLanes, one, 4);
    if ((lane & 4) == 0) *to = one;
  }

  // Computes the pieces with near pairs, these from their rows.
  __device__ __forceinline__ void compute_near(const float (&kept)[64], State& state) const {
    const int lane = threadIdx.x % kWarp;
#pragma unroll 1
    for (uint32_t pieces = state.near; pieces != 0; pieces &= pieces - 1) {
      const int number = __ffs(int(pieces)) - 1;
      const float* const of_columns = norms(state.turn % kBuffers) + number * 16;
      const int* const of_labels = labels(state.turn % kBuffers) + number * 16;
      float k[kValues];
      uint32_t near = 0;
#pragma unroll
      for (int i = 0; i < kValues; ++i) {
        const Row& row = state.rows[i / 2 % 2];
        const int column = column_of_value(i);
        const float sum = row.norm + of_columns[column], weight = weight_of(row, of_labels[column]);
        const float d2 = squared_distance_of(kept[number * kValues + i], sum, state);
        const bool is = weight > 0.0f && is_near<float>(d2, sum, p_.pairs.margin);
        near |= unsigned(is) << i;
        const Term<float> term = separation_of_product<kPromotes<P>>(d2, is ? 0.0f : weight, p_.pairs.margin);
        state.loss += term.value;
        k[i] = term.coefficient;
      }
#pragma unroll 1
      for (unsigned lanes = __ballot_sync(kAllLanes, near != 0); lanes != 0;
           lanes = __ballot_sync(kAllLanes, near != 0)) {
        const int of = __ffs(int(lanes)) - 1, value = __ffs(int(__shfl_sync(kAllLanes, near, of))) - 1;
        const int row = of / 4 + value / 2 % 2 * 8, column = number * 16 + value / 4 * 8 + of % 4 * 2 + value % 2;
        const int64_t i = row_tile_ * kTile + first_of_warp() + row, j = state.tile * kTile + column;
        const FromRows<float> pair = from_rows(p_.pairs, i, j, lane);
        const float sum = p_.pairs.norm[0][p_.pairs.begin[0] + i] + p_.pairs.norm[1][p_.pairs.begin[1] + j];
        const bool is = is_close(pair.squared_distance, sum);
        if (is) set_close(row, column, i, state);
        if (lane != of) continue;
        near &= near - 1;
        state.loss += pair.term.separation;
#pragma unroll
        for (int n = 0; n < kValues; ++n) k[n] = n == value && !is ? pair.term.coefficient : k[n];
      }
      store(k, number, state);
    }
  }

  // Sets the bit of a close pair. Each word is written by one lane.
  __device__ __forceinline__ void set_close(int row, int column, int64_t i, State& state) const {
    constexpr int kWords = kLaneColumns<P>;
    const int lane = threadIdx.x % kWarp;
    uint32_t* const words = p_.pairs.close + (i * p_.tiles[1] + state.tile) * kWords;
    const bool begins = (state.close >> row & 1u) == 0;
    if (begins && lane < kWords) words[lane] = 0;
    state.close |= 1u << row;
    if (lane == column % kWords) words[lane] |= 1u << (column / kWords);
  }

  // Stores what the group has found for a tile.
  __device__ __forceinline__ void finish_tile(const float (&kept)[64], State& state) const {
    if (state.tile < 0) return;
    if (state.near != 0) compute_near(kept, state);
    const int lane = threadIdx.x % kWarp;
    release_columns(state.turn);
    const double loss = reduce<kWarp>(double(state.loss), Add());
    const bool any = __any_sync(kAllLanes, state.any != 0);
    if (lane == 0) losses()[warp()] = loss;
    if (stores() && lane == 0) {
      p_.any[(row_tile_ * p_.tiles[1] + state.tile) * 8 + warp()] = any;
    }
    store_results(state.tile, state);
    state.tile = -1;
  }

  // Stores the sums of a tile and the bits of close pairs; a tile that is left out has neither.
  __device__ __forceinline__ void store_results(int tile, const State& state) const {
    const int lane = threadIdx.x % kWarp, thread = threadIdx.x % kGroupThreads;
    const int64_t rows = p_.pairs.rows, own = row_tile_ * kTile + first_of_warp(), blocks = blocks_of_rows(rows);
    const int64_t block = row_tile_ * 2 + group();
    const bool left_out = state.tile < 0;
    if (stores()) {
      const float scale = kHasScale ? 1 / state.coefficient_scale : 1.0f;
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        float sum = left_out ? 0.0f : state.row_sum[h];
        sum += __shfl_xor_sync(kAllLanes, sum, 1);
        sum += __shfl_xor_sync(kAllLanes, sum, 2);
        const int64_t row = own + lane / 4 + h * 8;
        if (lane % 4 == 0 && row < rows) p_.pairs.row_sums[tile * rows + row] = sum * scale;
      }
    }
    named_barrier(kOwnGroup + group(), kGroupThreads);
    if (block < blocks) {
      if (adds_columns()) {
        float sum = 0;
        for (int w = 0; w < kGroupWarps && !left_out; ++w) sum += column_sums(group() * kGroupWarps + w)[thread];
        if (kHasScale) sum *= 1 / state.coefficient_scale;
        p_.pairs.column_sums[block * p_.pairs.stride + tile * kTile + thread] = sum;
      }
      if (thread == 0) {
        double loss = 0;
        for (int w = 0; w < kGroupWarps && !left_out; ++w) loss += losses()[group() * kGroupWarps + w];
        p_.pairs.block_loss[block * p_.tiles[1] + tile] = loss;
      }
      // A word has the bits of 32 rows, which are two warps'.
      if (lane == 0) {
        uint16_t* const words = reinterpret_cast<uint16_t*>(p_.pairs.close_rows + (tile * blocks + block) * 2);
        words[warp() % kGroupWarps] = left_out ? 0 : uint16_t(state.close);
      }
    }
    named_barrier(kOwnGroup + group(), kGroupThreads);
  }

  // Stores zeros for a tile that this block leaves out.
  __device__ __forceinline__ void leave_out(int k, const State& state) const {
    const int tile = first_tile_ + k;
    if (stores() && threadIdx.x % kWarp == 0) p_.any[(row_tile_ * p_.tiles[1] + tile) * 8 + warp()] = 0;
    store_results(tile, state);
  }

  __device__ __forceinline__ void compute() const {
    State state{};
    const int lane = threadIdx.x % kWarp, g = lane / 4, t = lane % 4;
    const bool exists = row_tile_ < p_.tiles[0];
    const PartsScale scale = parts_scale(p_.range, p_.pairs.margin, p_.pairs.weight != nullptr);
    state.inverse_value = scale.inverse_value;
    state.coefficient_scale = scale.coefficient;
    state.offset = (first_of_warp() % kBlock + g) * 128 + swizzled(t & 1, g) * 16 + t / 2 * 8;
    state.column = (lane & 16) / 2 + 2 * t + (lane & 8) / 8;
    state.before = state.rows_before = state.tile = -1;
    for (int h = 0; h < 2; ++h) {
      const int64_t row = first_row(row_tile_) + first_of_warp() + g + h * 8;
      state.rows[h] = exists ? Row{p_.pairs.norm[0][row], p_.label[0][row]} : Row{kFar, kNoRow};
    }
    float s[64], sums[64];
#pragma unroll
    for (int i = 0; i < 64; ++i) s[i] = sums[i] = 0;
    int turn = 0;
    bool first = true;
    for (int k = 0; k <= count_; ++k) {
      const bool own = k < count_ && counts(k, rank()), any = k < count_ && (own || counts(k, 1 - rank()));
      if (own) {
        multiply(s, sums, first, state);
        first = false;
        begin_tile(first_tile_ + k, turn, state);
      } else {
        finish_alone(sums, state);
        if (any) skip(turn, state);
        if (exists && k < count_) leave_out(k, state);
      }
      turn += any;
    }
  }

  __device__ __forceinline__ void begin_tile(int tile, int turn, State& state) const {
    state.tile = tile;
    state.turn = turn;
    state.loss = state.row_sum[0] = state.row_sum[1] = 0;
    state.any = state.near = state.close = 0;
  }

  const PairsInBlocks<P>& p_;
  unsigned char* const memory_;
  const uint32_t base_;
  const int row_tile_, first_tile_, count_;
};

// On other architectures the kernel is empty: it is never started there.
template <typename P>
__global__ void __launch_bounds__(kPartsThreads, 1)
    parts_coefficients_kernel(const __grid_constant__ PairsInBlocks<P> p) {
#if !defined(__CUDACC__) || defined(__CUDA_ARCH_FEAT_SM90_ALL)
  PartsTile<P>(p, dynamic_shared()).run();
#endif
}

}  // namespace fastccsa::all_pairs::cuda

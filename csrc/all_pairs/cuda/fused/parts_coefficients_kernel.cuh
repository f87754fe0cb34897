// Stores the coefficients of pairs in parts, by the instructions of Hopper GPUs: see parts.cuh.
//
// A block of threads goes through a run of tiles of columns for a tile of rows, of which each of the two computing
// warpgroups has half. Slabs of 64 values arrive part by part, those of rows and columns together. With a single part,
// the first slabs of the rows stay, and each of the others arrives before that of the columns. While the tensor cores
// multiply the first slabs of a tile, the warpgroup turns the products of the tile before into coefficients.
//
// Two blocks with neighbouring tiles of rows form a cluster: each copies half of the columns for both.
#pragma once

#include "all_pairs/cuda/fused/parts_copies.cuh"
#include "all_pairs/cuda/fused/parts_pieces.cuh"

namespace fastccsa::all_pairs::cuda {

template <typename P>
class PartsCoefficients {
  using Tile = PartsTile<P>;
  using Shape = PartsShape<P>;
  using Part = typename P::Part;
  static constexpr int kParts = P::kParts;

 public:
  __device__ __forceinline__ PartsCoefficients(const PairsInBlocks<P>& p, unsigned char* memory)
      : p_(p), tile_(p, memory), pieces_(tile_) {}

  __device__ __forceinline__ void run() const {
    tile_.begin();
    __syncthreads();
    synchronise_cluster();
    if (__shfl_sync(kAllLanes, int(threadIdx.x), 0) < kPartsWarps * kWarp) {
      take_registers<232>();
      compute();
    } else {
      give_registers<40>();
      if (threadIdx.x == kPartsWarps * kWarp) copy_slabs(tile_);
    }
    synchronise_cluster();  // the other block may still write here
  }

 private:
  struct State {
    PieceState pieces;
    Ring<Shape::kStages> ring;
    // The slots that the products read which have been started last: that of columns, and that of rows if these have
    // one of their own; or -1.
    int before, rows_before;
  };

  // Where the rows of a slab are: in `kept`, where they stay, in a slot of their own, or behind the columns.
  struct Rows {
    int kept = -1, slot = -1;
  };

  // ---- slots ----

  __device__ __forceinline__ void wait_for_slot(int slot, const State& state) const {
    barrier_wait(tile_.barrier(Tile::kFull + slot), state.ring.phase);
  }

  // Waits for the rows of a slab unless they come with the columns.
  __device__ __forceinline__ Rows take_rows(int slab, bool first_tile, State& state) const {
    Rows rows;
    if (Shape::passes(slab)) {
      rows.slot = state.ring.stage;
      wait_for_slot(rows.slot, state);
      state.ring.next();
    } else if (Shape::kKeepsRows) {
      rows.kept = slab;
      if (first_tile) barrier_wait(tile_.barrier(Tile::kRowsFull + slab), 0);
    }
    return rows;
  }

  __device__ __forceinline__ void release_before(const State& state) const {
    tile_.release(state.before);
    if (Shape::kKeepsRows && state.rows_before >= 0) tile_.release(state.rows_before);
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

  // Waits for all products, and releases their last slots.
  __device__ __forceinline__ void finish_products(State& state) const {
    wgmma_wait<0>();
    if (state.before >= 0) release_before(state);
    state.before = -1;
  }

  // Lets the other block of the cluster have a tile that this one leaves out.
  __device__ __forceinline__ void skip(int turn, State& state) const {
#pragma unroll 1
    for (int slab = 0; slab < p_.slabs; ++slab, state.ring.next()) {
      if (Shape::passes(slab)) {
        const int slot = take_rows(slab, false, state).slot;
        __syncwarp();  // a lane that lagged behind those that release could miss a phase
        tile_.release(slot);
      }
      for (int part = kParts - 1; part >= 0; --part) {
        const int slot = tile_.slot_of(state.ring.stage, part);
        wait_for_slot(slot, state);
        __syncwarp();
        tile_.release(slot);
      }
    }
    tile_.wait_for_columns(turn);
    __syncwarp();
    tile_.release_columns(turn);
  }

  // ---- products ----

  // Copies a sum to another register, even where the compiler would rather let both share one: the products, which are
  // asynchronous, would have to wait for its use.
  static __device__ __forceinline__ float moved(float sum) { return sum + 0.0f; }

  // Starts the products of a slab, and calls work(step) after each step of them; end_slab() must follow.
  template <typename Work>
  __device__ __forceinline__ void begin_slab(float (&s)[64], const Rows& rows, bool first, State& state,
                                             Work work) const {
    // Of lane 0, so that the compiler computes with the registers of the warp, which the products need.
    const uint32_t base = __shfl_sync(kAllLanes, tile_.base, 0);
    const uint32_t half = __shfl_sync(kAllLanes, tile_.group(), 0) * kBlockBytes;
    const uint64_t ring_at = matrix_descriptor(base + Shape::kRing, 16, 1024);
    const uint64_t rows_at = matrix_descriptor(base + half, 16, 1024);
    const auto columns_of = [&](int part) FASTCCSA_INLINE_LAMBDA {
      return ring_at + tile_.slot_of(state.ring.stage, part) * (Shape::kSlotBytes >> 4);
    };
    const auto rows_of = [&](int part) FASTCCSA_INLINE_LAMBDA {
      if (!Shape::kKeepsRows) return columns_of(part) + ((Shape::kSlabBytes + half) >> 4);
      if (rows.slot < 0) return rows_at + rows.kept * (Shape::kSlabBytes >> 4);
      return rows_at + ((Shape::kRing + rows.slot * Shape::kSlotBytes) >> 4);
    };
#pragma unroll
    for (int part = kParts - 1; part >= 0; --part) wait_for_slot(tile_.slot_of(state.ring.stage, part), state);
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
      if (part > 0) follow(tile_.slot_of(state.ring.stage, part), -1, state);
    }
  }
  __device__ __forceinline__ void end_slab(const Rows& rows, State& state) const {
    follow(tile_.slot_of(state.ring.stage, 0), rows.slot, state);
    state.ring.next();
  }

  // Multiplies the rows by a tile of columns, and finishes the tile before, whose products are in `sums`. Then `sums`
  // has the new products.
  __device__ __forceinline__ void multiply(float (&s)[64], float (&sums)[64], bool first_tile, State& state) const {
    keep(s);
    kPromotes<P> ? add_slabs(s, sums, first_tile, state) : multiply_slabs(s, sums, first_tile, state);
  }

  // Each slab has a sum of its own. Half of the pieces are computed beside the first one, half beside the second.
  __device__ __forceinline__ void add_slabs(float (&s)[64], float (&sums)[64], bool first_tile, State& state) const {
    constexpr Rows kWithColumns{};
    float kept[64];  // of near pairs
    // The groups add up sums at different times, so that one of them always has products.
    const bool starts = first_tile && tile_.group() == 0;
    if (first_tile && tile_.group() == 1) named_barrier(Tile::kSecondStarts, 2 * kGroupThreads);
    float half[32];
    PieceState& pieces = state.pieces;
    begin_slab(s, kWithColumns, true, state, [&](int step) FASTCCSA_INLINE_LAMBDA {
      if (step == 0) pieces_.template compute<0>(sums, kept, pieces);
      if (step == 1) pieces_.template compute<1>(sums, kept, pieces), pieces_.template compute<2>(sums, kept, pieces);
      if (step == 2) pieces_.template compute<3>(sums, kept, pieces);
      if (step == 2 && starts) named_barrier(Tile::kSecondStarts, 2 * kGroupThreads);
    });
    end_slab(kWithColumns, state);
    finish_products(state);
    keep(s);
#pragma unroll
    for (int i = 0; i < 32; ++i) sums[i] = moved(s[i]), half[i] = moved(s[32 + i]);
    begin_slab(s, kWithColumns, true, state, [&](int step) FASTCCSA_INLINE_LAMBDA {
      if (step == 0) pieces_.template compute<4>(sums, kept, pieces);
      if (step == 1) pieces_.template compute<5>(sums, kept, pieces), pieces_.template compute<6>(sums, kept, pieces);
      if (step == 2) pieces_.template compute<7>(sums, kept, pieces);
    });
    end_slab(kWithColumns, state);
    pieces_.finish_tile(kept, pieces);
    finish_products(state);
    keep(s);
#pragma unroll
    for (int i = 0; i < 32; ++i) sums[i] += s[i], sums[32 + i] = half[i] + s[32 + i];
#pragma unroll 1
    for (int rest = p_.slabs - 2; rest > 0; --rest) {
      begin_slab(s, kWithColumns, true, state, [](int) FASTCCSA_INLINE_LAMBDA {});
      end_slab(kWithColumns, state);
      finish_products(state);
      keep(s);
#pragma unroll
      for (int i = 0; i < 64; ++i) sums[i] += s[i];
    }
  }

  // One sum is that of all slabs. Each of the first 8 comes with a piece; if there are fewer, with 2 or 4 pieces.
  __device__ __forceinline__ void multiply_slabs(float (&s)[64], float (&sums)[64], bool first_tile,
                                                 State& state) const {
    float kept[64];  // of near pairs
    const auto none = [](int) FASTCCSA_INLINE_LAMBDA {};
    const int shift = p_.slabs >= Shape::kPieces ? 0 : p_.slabs >= Shape::kPieces / 2 ? 1 : 2;
    const auto piece = [&](auto number) FASTCCSA_INLINE_LAMBDA {
      constexpr int kNumber = decltype(number)::value;
      const bool begins = kNumber % (1 << shift) == 0;
      Rows rows;
      if (begins) {
        rows = take_rows(kNumber >> shift, first_tile, state);
        begin_slab(s, rows, kNumber == 0, state, none);
      }
      pieces_.template compute<kNumber>(sums, kept, state.pieces);
      if (begins) end_slab(rows, state);
    };
    piece(std::integral_constant<int, 0>());
    piece(std::integral_constant<int, 1>());
    piece(std::integral_constant<int, 2>());
    piece(std::integral_constant<int, 3>());
    piece(std::integral_constant<int, 4>());
    piece(std::integral_constant<int, 5>());
    piece(std::integral_constant<int, 6>());
    piece(std::integral_constant<int, 7>());
    pieces_.finish_tile(kept, state.pieces);
#pragma unroll 1
    for (int slab = Shape::kPieces >> shift; slab < p_.slabs; ++slab) {
      const Rows rows = take_rows(slab, first_tile, state);
      begin_slab(s, rows, false, state, none);
      end_slab(rows, state);
    }
    finish_products(state);
    keep(s);
#pragma unroll
    for (int i = 0; i < 64; ++i) sums[i] = moved(s[i]);
  }

  __device__ __forceinline__ void compute() const {
    State state{pieces_.begin(), {}, -1, -1};
    const bool exists = tile_.row_tile < p_.tiles[0];
    float s[64], sums[64];
#pragma unroll
    for (int i = 0; i < 64; ++i) s[i] = sums[i] = 0;
    int turn = 0;
    bool first = true;
    for (int k = 0; k <= tile_.count; ++k) {
      const bool own = k < tile_.count && tile_.counts(k, tile_.rank());
      const bool any = k < tile_.count && (own || tile_.counts(k, 1 - tile_.rank()));
      if (own) {
        multiply(s, sums, first, state);
        first = false;
        pieces_.begin_tile(tile_.first_tile + k, turn, state.pieces);
      } else {
        pieces_.finish_alone(sums, state.pieces);
        if (any) skip(turn, state);
        if (exists && k < tile_.count) pieces_.leave_out(k, state.pieces);
      }
      turn += any;
    }
  }

  const PairsInBlocks<P>& p_;
  const Tile tile_;
  const PartsPieces<P> pieces_;
};

// On other architectures the kernel is empty: it is never started there.
template <typename P>
__global__ void __launch_bounds__(kPartsThreads, 1)
    parts_coefficients_kernel(const __grid_constant__ PairsInBlocks<P> p) {
#if !defined(__CUDACC__) || defined(__CUDA_ARCH_FEAT_SM90_ALL)
  PartsCoefficients<P>(p, dynamic_shared()).run();
#endif
}

}  // namespace fastccsa::all_pairs::cuda

// Stores the coefficients of pairs, by the instructions of Ampere and later GPUs: see stored.cuh.
//
// A block of threads goes through a run of tiles with the same rows. Slabs of a tile's rows and columns arrive
// together, since rows of any width would not fit into shared memory. Those of the next tile are on their way while the
// products with a tile become coefficients.
#pragma once

#include "all_pairs/cuda/fused/mma_products.cuh"

namespace fastccsa::all_pairs::cuda {

struct MmaCoefficientsShape {
  // Shared memory, in bytes: the stages, and sums of the coefficients of each row by warps side by side.
  static constexpr int kRowSums = kProductStages * kProductStageBytes, kBytes = kRowSums + 2 * kTile * 4;
};

template <typename T, FusedTerms kTerms, bool kWeighted>
class MmaCoefficientsTile {
  using Shape = MmaCoefficientsShape;
  static constexpr int kPieceColumns = 32, kPieceGroups = kPieceColumns / 8, kPieces = kBlock / kPieceColumns;

 public:
  __device__ __forceinline__ MmaCoefficientsTile(const Fused<T>& p, const Stored<T>& part, unsigned char* memory)
      : p_(p),
        part_(part),
        memory_(memory),
        base_(shared_address(memory)),
        row_tile_(int(blockIdx.x) % (part.clusters(0) * kCluster)),
        first_tile_(int(blockIdx.x) / (part.clusters(0) * kCluster) * part.tiles_of_run()),
        count_(row_tile_ < part.tiles[0] ? min(part.tiles_of_run(), part.tiles[1] - first_tile_) : 0),
        slabs_(max((p.width + kSlab - 1) / kSlab, kProductStages)) {}

  __device__ __forceinline__ void run() {
    let_next_kernel_start();
    wait_for_kernel_before();
    double loss[2] = {};
    compute(loss);
    __syncthreads();
    store_loss(p_, loss, reinterpret_cast<double*>(memory_), kProductWarps, part_.loss_slot + int(blockIdx.x),
               [] { __syncthreads(); });
  }

 private:
  static __device__ __forceinline__ int lane() { return int(threadIdx.x) % kWarp; }
  static __device__ __forceinline__ int warp() { return int(threadIdx.x) / kWarp; }
  // Where the warp's part of a tile begins.
  static __device__ __forceinline__ int warp_row() { return warp() / 2 * kBlock; }
  static __device__ __forceinline__ int warp_column() { return warp() % 2 * kBlock; }

  __device__ __forceinline__ float* row_sums() const { return reinterpret_cast<float*>(memory_ + Shape::kRowSums); }
  __device__ __forceinline__ int first_row() const { return part_.first[0] + row_tile_ * kTile; }
  __device__ __forceinline__ int first_column(int k) const { return part_.first[1] + (first_tile_ + k) * kTile; }
  // Whether sums of coefficients over rows are needed.
  __device__ __forceinline__ bool adds_columns() const { return p_.side[1].gradient != nullptr; }

  // ---- the tiles of the run, and copies ----

  // The slab that is copied next: of tile k of the run. There are no more if k is the number of tiles.
  struct Next {
    int k, slab;
    uint32_t skipped, separate;  // a bit for each of the 32 tiles around k
    const unsigned char *rows, *columns;
  };

  // Moves on to the first tile from next.k on that is not skipped. All lanes of a warp call it.
  __device__ __forceinline__ void find_tile(Next& next) const {
    for (; next.k < count_; ++next.k) {
      if (next.k % kWarp == 0) find_kinds(next);
      if ((next.skipped >> next.k % kWarp & 1) == 0) break;
    }
    next.slab = 0;
    if (next.k >= count_) return;
    next.rows = chunk_of(p_, 0, first_row(), 0);
    next.columns = chunk_of(p_, 1, first_column(next.k), 0);
  }

  // Each lane takes a tile. The coefficients of skipped tiles count as 0.
  __device__ __forceinline__ void find_kinds(Next& next) const {
    const int k = next.k + lane();
    const TileKind kind = k < count_ ? tile_kind(p_, first_row(), first_column(k)) : kSkipped;
    if (k < count_ && kind == kSkipped && warp() == 0) {
      *reinterpret_cast<uint2*>(part_.any + (row_tile_ * part_.tiles[1] + first_tile_ + k) * 8) = uint2{0, 0};
    }
    next.skipped = __ballot_sync(kAllLanes, kind == kSkipped);
    next.separate = __ballot_sync(kAllLanes, kind == kSeparate);
  }

  // Starts to copy the next slab, if there is one.
  __device__ __forceinline__ void copy_slab(Next& next, int stage) const {
    if (next.slab == slabs_) {
      ++next.k;
      find_tile(next);
    }
    if (next.k < count_) {
      const uint32_t to = base_ + stage * kProductStageBytes;
      const int half = next.slab % 2;
#pragma unroll
      for (int k = 0; k < 2; ++k) {
        copy_half_rows(to + k * kSlabBlockBytes, next.rows + k * kBlockBytes, half);
        copy_half_rows(to + kFactorBytes + k * kSlabBlockBytes, next.columns + k * kBlockBytes, half);
      }
      ++next.slab;
      next.rows += half * block_step(0);
      next.columns += half * block_step(1);
    }
    commit_copies();
  }

  // How far the next block of values of the same rows is.
  __device__ __forceinline__ int64_t block_step(int side) const {
    return int64_t(padded_to_tiles(p_.side[side].count)) * kBlock * 2;
  }

  // ---- products ----

  __device__ __forceinline__ void compute(double (&loss)[2]) const {
    Next next{};
    find_tile(next);
    for (int stage = 0; stage < kProductStages; ++stage) copy_slab(next, stage);
    const PairRules<T> rules = pair_rules(p_, 0);
    const Factors<false, false> factors(base_);
    wait_for_copies<kProductStages - 1>();
    __syncthreads();
    int stage = 0, before = -1;
    for (int k = next.k; k < count_;) {
      const bool separate = (next.separate >> k % kWarp & 1) != 0;
      WarpProducts s = {};
      Fragments f[2];
      factors.load(f[0], stage, 0);
#pragma unroll 1
      for (int slab = 0; slab < slabs_; ++slab) {
        multiply_slab<T>(s, f, factors, stage, [&](int free) {
          if (slab == 0 && before >= 0) store_row_sums(before);  // all warps have theirs
          copy_slab(next, free);
        });
      }
      separate && kTerms == kSeparationTerm ? pass<kSeparate>(s, k, rules, loss) : pass<kMixed>(s, k, rules, loss);
      before = k;
      k = next.k;
    }
    if (before < 0) return;
    __syncthreads();
    store_row_sums(before);
  }

  // Stores the sums of coefficients of each row of tile k.
  __device__ __forceinline__ void store_row_sums(int k) const {
    static_assert(kProductThreads == kTile);
    const int row = threadIdx.x;
    part_.sums[0][(first_tile_ + k) * part_.rows(0) + row_tile_ * kTile + row] =
        row_sums()[row] + row_sums()[kTile + row];
  }

  // ---- pairs ----

  // The lane's row h of a group of 16.
  __device__ __forceinline__ LaneRow row_of_lane(const PairRules<T>& rules, int m, int h) const {
    const RowBlock block{0, first_row(), min(p_.side[0].count - first_row(), kTile), 0, 0, 0};
    return lane_row(p_.side[0], block, rules, warp_row() + m * 16 + lane() / 4 + h * 8);
  }

  // What a warp finds for a tile.
  struct Found {
    float loss[2];
    float columns[kColumnGroups * 2];  // sums of the lane's coefficients, by column
    uint32_t any;                      // whether a coefficient is not 0
    uint32_t near;                     // a bit for each piece with near pairs
    uint32_t to;                       // where the lane stores coefficients of the first piece, in bytes
  };

  // Sums of the coefficients of a group of rows, as accumulators of the tensor cores: rows g and g + 8, each twice.
  using RowSums = float[4];

  // Turns the products with tile k into coefficients, in pieces of 16 rows and kPieceColumns columns.
  template <TileKind kKind>
  __device__ __forceinline__ void pass(const WarpProducts& s, int k, const PairRules<T>& rules,
                                       double (&loss)[2]) const {
    Found found{};
    const int tile = first_tile_ + k, row = lane() / 4;
    const int block = (row_tile_ * 2 + warp_row() / kBlock) * 2 * part_.tiles[1] + tile * 2 + warp_column() / kBlock;
    found.to = uint32_t(block) * kBlockBytes + row * kBlock * 2 + swizzled(lane() % 4, row) * 16;
    float kept[kRowGroups][kColumnGroups * 4];
#pragma unroll
    for (int m = 0; m < kRowGroups; ++m) {
      const LaneRow rows[2] = {row_of_lane(rules, m, 0), row_of_lane(rules, m, 1)};
      RowSums sums = {};
#pragma unroll
      for (int n = 0; n < kPieces; ++n) piece<kKind>(s[m], m, n, k, rules, rows, kept[m], sums, found);
      store_sums(sums, m);
    }
    if (found.near != 0) compute_near(kept, k, rules, found);
    finish(found, tile);
    for (int term = 0; term < 2; ++term) loss[term] += double(found.loss[term]);
  }

  // The products of piece n of a group of rows.
  using PieceProducts = float[kPieceGroups * 4];
  static __device__ __forceinline__ const PieceProducts& products_of(const float (&s)[kColumnGroups * 4], int n) {
    return *reinterpret_cast<const PieceProducts*>(&s[n * kPieceGroups * 4]);
  }

  // Turns the products of a piece into coefficients. If pairs are near, it only keeps the products.
  template <TileKind kKind>
  __device__ __forceinline__ void piece(const float (&s)[kColumnGroups * 4], int m, int n, int k,
                                        const PairRules<T>& rules, const LaneRow (&rows)[2],
                                        float (&kept)[kColumnGroups * 4], RowSums& sums, Found& found) const {
    const int column = first_column(k) + warp_column() + n * kPieceColumns;
    const float* const norms = p_.side[1].norm + column;
    const int* const labels = p_.side[1].label + column;
    float loss[2] = {}, unused[2] = {};
    RowSums own = {};
    uint32_t packed[kPieceGroups * 2];
    Nearest nearest;
    if constexpr (kKind == kSeparate) {
      float squares[2] = {}, plain[2], weight[2];
      for (int h = 0; h < 2; ++h) {
        plain[h] = kWeighted ? rules.weight_of(rows[h].weights, labels[0]) : 1.0f;
        weight[h] = plain[h] * rules.scale;
      }
      separation_coefficients<true, kPieceGroups>(products_of(s, n), packed, rules, rows, weight, norms, squares,
                                                  unused, nearest);
      loss[1] = squares[0] * plain[0] + squares[1] * plain[1];
    } else {
      mixed_coefficients<kTerms, kWeighted, kPieceGroups>(products_of(s, n), packed, rules, rows, norms, labels, loss,
                                                          unused, nearest);
    }
    add_rows(packed, own);
    // NaN of a pair of one class does not reach its coefficient, but it reaches the loss.
    const float checked[2] = {own[0] + 0.0f * loss[0], own[2]};
    if (!nearest.far(checked)) {
      found.near |= 1u << (m * kPieces + n);
#pragma unroll
      for (int i = 0; i < kPieceGroups * 4; ++i) kept[n * kPieceGroups * 4 + i] = products_of(s, n)[i];
      return;
    }
    for (int term = 0; term < 2; ++term) found.loss[term] += loss[term];
    for (int i = 0; i < 4; ++i) sums[i] += own[i];
    store(packed, m, n, found);
  }

  // Computes the pieces with near pairs, these from their rows.
  __device__ __forceinline__ void compute_near(const float (&kept)[kRowGroups][kColumnGroups * 4], int k,
                                               const PairRules<T>& rules, Found& found) const {
#pragma unroll 1
    for (uint32_t near = found.near; near != 0; near &= near - 1) {
      const int number = __ffs(int(near)) - 1, m = number / kPieces, n = number % kPieces;
      const int first_row = this->first_row() + warp_row() + m * 16;
      const int first_column = this->first_column(k) + warp_column() + n * kPieceColumns;
      const auto distance = [&](int r, int c) {
        const auto a = [&](int chunk) { return chunk_of(p_, 0, first_row + r, chunk); };
        const auto b = [&](int chunk) { return chunk_of(p_, 1, first_column + c, chunk); };
        return squared_distance_in_shared<T>(slabs_ * kSlab, a, b, lane());
      };
      const LaneRow rows[2] = {row_of_lane(rules, m, 0), row_of_lane(rules, m, 1)};
      float products[kPieceGroups * 4], unused[2] = {};
      RowSums sums = {};
      uint32_t packed[kPieceGroups * 2];
      for (int i = 0; i < kPieceGroups * 4; ++i) products[i] = products_of(kept[m], n)[i];
      near_coefficients<kPieceGroups>(products, packed, kTerms, rules, rows, p_.side[1].norm + first_column,
                                      p_.side[1].label + first_column, found.loss, unused, distance);
      add_rows(packed, sums);
      store(packed, m, n, found);
      add_sums(sums, m);
    }
  }

  // Adds coefficients, which are in the layout of a factor, over the columns.
  static __device__ __forceinline__ void add_rows(const uint32_t (&packed)[kPieceGroups * 2], RowSums& sums) {
#pragma unroll
    for (int n = 0; n < kPieceGroups; n += 2) {
      const uint32_t factor[4] = {packed[2 * n], packed[2 * n + 1], packed[2 * n + 2], packed[2 * n + 3]};
      multiply_16x8x16<T>(sums, factor, kOnes<T>, kOnes<T>);
    }
  }

  // Stores the coefficients of a piece, and adds them to the sums of columns.
  __device__ __forceinline__ void store(const uint32_t (&packed)[kPieceGroups * 2], int m, int n, Found& found) const {
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      uint32_t words[kPieceGroups];
#pragma unroll
      for (int i = 0; i < kPieceGroups; ++i) {
        words[i] = packed[2 * i + h];
        found.any |= words[i];
        float low, high;
        unpack_pair<T>(words[i], low, high);
        found.columns[2 * (n * kPieceGroups + i)] += low;
        found.columns[2 * (n * kPieceGroups + i) + 1] += high;
      }
      transpose(words);
      // The four lanes of a row store half of its 128 bytes in a block.
      unsigned char* const to = reinterpret_cast<unsigned char*>(part_.coefficients) +
                                ((found.to ^ uint32_t(n * kPieceColumns * 2)) + (m * 16 + h * 8) * kBlock * 2);
      *reinterpret_cast<uint4*>(to) = uint4{words[0], words[1], words[2], words[3]};
    }
  }

  // Where a lane keeps the sums of rows g and, 8 further, g + 8 of a group until all warps have theirs.
  __device__ __forceinline__ float* sums_of_lane(int m) const {
    return row_sums() + warp_column() / kBlock * kTile + warp_row() + m * 16 + lane() / 4;
  }
  __device__ __forceinline__ void store_sums(const RowSums& sums, int m) const {
    if (lane() % 4 != 0) return;
    sums_of_lane(m)[0] = sums[0];
    sums_of_lane(m)[8] = sums[2];
  }
  __device__ __forceinline__ void add_sums(const RowSums& sums, int m) const {
    if (lane() % 4 != 0) return;
    sums_of_lane(m)[0] += sums[0];
    sums_of_lane(m)[8] += sums[2];
  }

  // Four lanes side by side have a row's coefficients: lane t word t of each chunk of 16 bytes. It receives chunk t.
  static __device__ __forceinline__ void transpose(uint32_t (&words)[4]) {
    const bool odd = lane() & 1, upper = lane() & 2;
#pragma unroll
    for (int n = 0; n < 4; n += 2) {
      const uint32_t other = __shfl_xor_sync(kAllLanes, odd ? words[n] : words[n + 1], 1);
      words[n] = odd ? other : words[n];
      words[n + 1] = odd ? words[n + 1] : other;
    }
#pragma unroll
    for (int n = 0; n < 2; ++n) {
      const uint32_t other = __shfl_xor_sync(kAllLanes, upper ? words[n] : words[n + 2], 2);
      words[n] = upper ? other : words[n];
      words[n + 2] = upper ? words[n + 2] : other;
    }
  }

  // Stores what a warp has found for a tile, and the sums of columns over its rows.
  __device__ __forceinline__ void finish(Found& found, int tile) const {
    const bool any = __any_sync(kAllLanes, found.any != 0);
    if (lane() < 2) part_.any[(row_tile_ * part_.tiles[1] + tile) * 8 + warp() * 2 + lane()] = any;
    if (!adds_columns()) return;
    float* const to = part_.sums[1] + (row_tile_ * 2 + warp_row() / kBlock) * part_.rows(1) + tile * kTile +
                      warp_column() + lane() * 2;
#pragma unroll
    for (int n = 0; n < kColumnGroups; ++n) {
      float sum[2] = {found.columns[2 * n], found.columns[2 * n + 1]};
#pragma unroll
      for (int offset = 4; offset < kWarp; offset *= 2) {
        for (float& value : sum) value += __shfl_xor_sync(kAllLanes, value, offset);
      }
      if (lane() < 4) *reinterpret_cast<float2*>(to + n * 8) = make_float2(sum[0], sum[1]);
    }
  }

  const Fused<T>& p_;
  const Stored<T>& part_;
  unsigned char* const memory_;
  const uint32_t base_;
  const int row_tile_, first_tile_, count_, slabs_;
};

template <typename T, FusedTerms kTerms, bool kWeighted>
__global__ void __launch_bounds__(kProductThreads, 2)
    mma_coefficients_kernel(const __grid_constant__ Fused<T> p, const __grid_constant__ Stored<T> part) {
  MmaCoefficientsTile<T, kTerms, kWeighted>(p, part, dynamic_shared()).run();
}

}  // namespace fastccsa::all_pairs::cuda

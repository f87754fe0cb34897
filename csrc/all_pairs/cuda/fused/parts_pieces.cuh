// Turns the dot products of a tile into coefficients in parts, by the warpgroups that have computed them: see
// parts_coefficients_kernel.cuh.
#pragma once

#include "all_pairs/cuda/fused/parts_tile.cuh"

namespace fastccsa::all_pairs::cuda {

// The separation term of a pair that is not near; without a weight, the distance may be NaN. The refined form is off by
// about one unit in the last place: see separation_of.
template <bool kRefined>
__device__ __forceinline__ Term<float> separation_of_product(float squared_distance, float weight, float margin) {
  if constexpr (kRefined) return separation_of(squared_distance, weight, margin);
  const float inverse = reciprocal_square_root(squared_distance);
  const float gap = fmaxf(fmaf(-squared_distance, inverse, margin), 0.0f), pull = weight * gap;
  return {pull * gap, gap > 0.0f ? -2.0f * pull * inverse : 0.0f};
}

struct PieceRow {
  float norm;
  int label;
};

// What a lane knows of its two rows, and of the tile that is turned into coefficients.
struct PieceState {
  PieceRow rows[2];
  int offset;  // of what the lane stores in a block: its row and its half chunk, swizzled
  int column;  // of a piece, whose sum the lane stores
  float inverse_value, coefficient_scale;  // of float16
  // The tile whose products wait to be turned into coefficients, or -1; and what the warp has found for it.
  int tile, turn;
  float loss, row_sum[2];
  uint32_t any, near;  // whether a coefficient is not 0; a bit for each piece with near pairs
  uint32_t close;      // a bit for each of the warp's rows with close pairs
};

// A piece is 16 rows, those of a warp, and 16 columns of a tile.
template <typename P>
class PartsPieces {
  using Shape = PartsShape<P>;
  using Tile = PartsTile<P>;
  static constexpr int kParts = P::kParts, kBuffers = Shape::kBuffers, kValues = Shape::kPieceValues;
  static constexpr bool kHasScale = kScales<P>;

 public:
  __device__ __forceinline__ explicit PartsPieces(const Tile& tile) : tile_(tile), p_(tile.p) {}

  __device__ __forceinline__ PieceState begin() const {
    PieceState state{};
    const int lane = threadIdx.x % kWarp, g = lane / 4, t = lane % 4;
    const bool exists = tile_.row_tile < p_.tiles[0];
    const PartsScale scale = parts_scale(p_.range, p_.pairs.margin, p_.pairs.weight != nullptr);
    state.inverse_value = scale.inverse_value;
    state.coefficient_scale = scale.coefficient;
    state.offset = (first_of_warp() % kBlock + g) * 128 + swizzled(t & 1, g) * 16 + t / 2 * 8;
    state.column = (lane & 16) / 2 + 2 * t + (lane & 8) / 8;
    state.tile = -1;
    for (int h = 0; h < 2; ++h) {
      const int64_t row = tile_.first_row(tile_.row_tile) + first_of_warp() + g + h * 8;
      state.rows[h] = exists ? PieceRow{p_.pairs.norm[0][row], p_.label[0][row]} : PieceRow{kFar, kNoRow};
    }
    return state;
  }

  // What follows concerns this tile.
  __device__ __forceinline__ void begin_tile(int tile, int turn, PieceState& state) const {
    state.tile = tile;
    state.turn = turn;
    state.loss = state.row_sum[0] = state.row_sum[1] = 0;
    state.any = state.near = state.close = 0;
  }

  // Turns the products of 16 columns into coefficients. If pairs may be near, it only keeps the products.
  template <int kNumber>
  __device__ __forceinline__ void compute(const float (&sums)[64], float (&kept)[64], PieceState& state) const {
    if (state.tile < 0) return;
    const float* const of_columns = tile_.norms(state.turn % kBuffers) + kNumber * 16;
    const int* const of_labels = tile_.labels(state.turn % kBuffers) + kNumber * 16;
    if (kNumber == 0) tile_.wait_for_columns(state.turn);
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

  // Stores what the group has found for a tile.
  __device__ __forceinline__ void finish_tile(const float (&kept)[64], PieceState& state) const {
    if (state.tile < 0) return;
    if (state.near != 0) compute_near(kept, state);
    const int lane = threadIdx.x % kWarp;
    tile_.release_columns(state.turn);
    const double loss = reduce<kWarp>(double(state.loss), Add());
    const bool any = __any_sync(kAllLanes, state.any != 0);
    if (lane == 0) tile_.losses()[tile_.warp()] = loss;
    if (stores() && lane == 0) {
      p_.any[(tile_.row_tile * p_.tiles[1] + state.tile) * 8 + tile_.warp()] = any;
    }
    store_results(state.tile, state);
    state.tile = -1;
  }

  // Finishes the last tile, and the last one before tiles that are left out.
  __device__ __forceinline__ void finish_alone(const float (&sums)[64], PieceState& state) const {
    float kept[64];
    compute<0>(sums, kept, state), compute<1>(sums, kept, state), compute<2>(sums, kept, state);
    compute<3>(sums, kept, state), compute<4>(sums, kept, state), compute<5>(sums, kept, state);
    compute<6>(sums, kept, state), compute<7>(sums, kept, state);
    finish_tile(kept, state);
  }

  // Stores zeros for a tile that this block leaves out.
  __device__ __forceinline__ void leave_out(int k, const PieceState& state) const {
    const int tile = tile_.first_tile + k;
    if (stores() && threadIdx.x % kWarp == 0) p_.any[(tile_.row_tile * p_.tiles[1] + tile) * 8 + tile_.warp()] = 0;
    store_results(tile, state);
  }

 private:
  // The first of the warp's 16 rows in the tile.
  static __device__ __forceinline__ int first_of_warp() { return Tile::warp() * 16; }
  __device__ __forceinline__ bool stores() const { return p_.coefficients != nullptr; }
  __device__ __forceinline__ bool adds_columns() const { return p_.pairs.column_sums != nullptr; }

  __device__ __forceinline__ float weight_of(const PieceRow& row, int label) const {
    if (label < 0 || row.label < 0 || label == row.label) return 0.0f;
    return p_.pairs.weight == nullptr ? 1.0f : p_.pairs.weight[row.label * p_.pairs.classes + label];
  }

  __device__ __forceinline__ float squared_distance_of(float product, float norms, const PieceState& state) const {
    if constexpr (kHasScale) return fmaf(product * state.inverse_value, -2.0f * state.inverse_value, norms);
    return fmaf(-2.0f, product, norms);
  }

  // Value i of a lane's piece is that of row i / 2 % 2 and this column.
  static __device__ __forceinline__ int column_of_value(int i) {
    return i / 4 * 8 + int(threadIdx.x) % 4 * 2 + i % 2;
  }

  // Stores the coefficients of a piece, and adds them up.
  __device__ __forceinline__ void store(float (&k)[kValues], int number, PieceState& state) const {
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
      state.any |= parts[i / 2][0] & 0x7fff7fffu;  // -0 is no coefficient
    }
    // A block has 64 columns: 32 bytes for each 16 of them, which are swizzled.
    const int64_t block = int64_t(tile_.row_tile * 2 + tile_.group()) * 2 * p_.tiles[1] + state.tile * 2 + number / 4;
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
    if (adds_columns()) add_columns(k, tile_.column_sums(tile_.warp()) + number * 16 + state.column);
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
  __device__ __forceinline__ void compute_near(const float (&kept)[64], PieceState& state) const {
    const int lane = threadIdx.x % kWarp;
#pragma unroll 1
    for (uint32_t pieces = state.near; pieces != 0; pieces &= pieces - 1) {
      const int number = __ffs(int(pieces)) - 1;
      const float* const of_columns = tile_.norms(state.turn % kBuffers) + number * 16;
      const int* const of_labels = tile_.labels(state.turn % kBuffers) + number * 16;
      float k[kValues];
      uint32_t near = 0;
#pragma unroll
      for (int i = 0; i < kValues; ++i) {
        const PieceRow& row = state.rows[i / 2 % 2];
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
        const int64_t i = tile_.row_tile * kTile + first_of_warp() + row, j = state.tile * kTile + column;
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
  __device__ __forceinline__ void set_close(int row, int column, int64_t i, PieceState& state) const {
    constexpr int kWords = kLaneColumns<P>;
    const int lane = threadIdx.x % kWarp;
    uint32_t* const words = p_.pairs.close + (i * p_.tiles[1] + state.tile) * kWords;
    const bool begins = (state.close >> row & 1u) == 0;
    if (begins && lane < kWords) words[lane] = 0;
    state.close |= 1u << row;
    if (lane == column % kWords) words[lane] |= 1u << (column / kWords);
  }


  // Stores the sums of a tile and the bits of close pairs; a tile that is left out has neither.
  __device__ __forceinline__ void store_results(int tile, const PieceState& state) const {
    const int lane = threadIdx.x % kWarp, thread = threadIdx.x % kGroupThreads;
    const int64_t rows = p_.pairs.rows, own = tile_.row_tile * kTile + first_of_warp(), blocks = blocks_of_rows(rows);
    const int64_t block = tile_.row_tile * 2 + tile_.group();
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
    named_barrier(Tile::kOwnGroup + tile_.group(), kGroupThreads);
    if (block < blocks) {
      if (adds_columns()) {
        float sum = 0;
        for (int w = 0; w < kGroupWarps && !left_out; ++w) {
          sum += tile_.column_sums(tile_.group() * kGroupWarps + w)[thread];
        }
        if (kHasScale) sum *= 1 / state.coefficient_scale;
        p_.pairs.column_sums[block * p_.pairs.stride + tile * kTile + thread] = sum;
      }
      if (thread == 0) {
        double loss = 0;
        for (int w = 0; w < kGroupWarps && !left_out; ++w) loss += tile_.losses()[tile_.group() * kGroupWarps + w];
        p_.pairs.block_loss[block * p_.tiles[1] + tile] = loss;
      }
      // A word has the bits of 32 rows, which are two warps'.
      if (lane == 0) {
        uint16_t* const words = reinterpret_cast<uint16_t*>(p_.pairs.close_rows + (tile * blocks + block) * 2);
        words[tile_.warp() % kGroupWarps] = left_out ? 0 : uint16_t(state.close);
      }
    }
    named_barrier(Tile::kOwnGroup + tile_.group(), kGroupThreads);
  }

  const Tile tile_;  // a copy, because the compiler would store in memory what a reference points to
  const PairsInBlocks<P>& p_;
};

}  // namespace fastccsa::all_pairs::cuda

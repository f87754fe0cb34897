// The fused loss over all pairs by the instructions of Ampere and later GPUs (mma.sync m16n8k16).
#pragma once

#include "all_pairs/cuda/fused/tile_memory.cuh"

namespace fastccsa::all_pairs::cuda {

// 8 warps compute kRows x kColumns pairs at a time, of rows with kWidth values.
template <int kWidthOfRows, int kRowsOfTile, int kColumnsOfTile>
struct MmaShape {
  static constexpr int kWidth = kWidthOfRows, kRows = kRowsOfTile, kColumns = kColumnsOfTile;
  static constexpr int kRowBytes = kWidth * 2, kChunks = kWidth / 8;
  // The first product: warps as kWarpRows x kWarpColumns parts of 16 x 8 kGroups pairs.
  static constexpr int kWarpRows = kRows / 16, kWarpColumns = kWarps / kWarpRows;
  static constexpr int kGroups = kColumns / kWarpColumns / 8;
  // The second product, of kRows x kWidth: each warp has kRowTiles x kColumnTiles tiles of 16 x 8.
  static constexpr int kBackRows = kWidth == 512 ? 1 : 2, kBackColumns = kWarps / kBackRows;
  static constexpr int kRowTiles = kRows / kBackRows / 16, kColumnTiles = kWidth / kBackColumns / 8;
  // Shared memory, in bytes: rows, two tiles of columns, coefficients, then norms and labels of columns, and sums.
  static constexpr int kTileBytes = kColumns * kRowBytes;
  static constexpr int kTiles = kRows * kRowBytes, kCoefficients = kTiles + 2 * kTileBytes;
  static constexpr int kNorms = kCoefficients + kRows * kColumns * 2, kLabels = kNorms + 2 * kColumns * 4;
  static constexpr int kRowSums = kLabels + 2 * kColumns * 4, kBytes = kRowSums + kWarpColumns * kRows * 4;
  static constexpr int kBlocksPerProcessor = kWidth == 512 ? 1 : 2;
};

template <typename T, int kWidth, int kRows, int kColumns>
class MmaTile {
  using Shape = MmaShape<kWidth, kRows, kColumns>;
  static constexpr int kRowBytes = Shape::kRowBytes, kGroups = Shape::kGroups;
  static constexpr int kRowTiles = Shape::kRowTiles, kColumnTiles = Shape::kColumnTiles;

 public:
  __device__ __forceinline__ MmaTile(const Fused<T>& p, unsigned char* memory)
      : p_(p), memory_(memory), base_(shared_address(memory)) {}

  __device__ __forceinline__ void run() {
    double loss[2] = {};
    const float factor = gradient_factor(p_);
    Segments<T> segments(p_, blockIdx.x);
    for (Segment s; segments.next(s);) run_segment(s, factor, loss);
    double* scratch = reinterpret_cast<double*>(memory_ + Shape::kNorms);
    store_loss(p_, loss, scratch, kWarps, int(blockIdx.x), [] { __syncthreads(); });
  }

 private:
  // ---- copies to shared memory ----

  __device__ __forceinline__ void copy_rows(const FusedSide<T>& own, const RowBlock& block) {
    for (int k = threadIdx.x; k < kRows * Shape::kChunks; k += kThreads) {
      const int row = k / Shape::kChunks, chunk = k % Shape::kChunks;
      const bool exists = row < block.rows;
      copy_async_16(base_ + row * kRowBytes + swizzled(chunk, row) * 16,
                    own.features + (block.first + (exists ? row : 0)) * own.stride + chunk * 8, exists);
    }
  }

  __device__ __forceinline__ void copy_tile(const FusedSide<T>& others, const RowBlock& block, int unit, int stage) {
    const uint32_t to = base_ + Shape::kTiles + stage * Shape::kTileBytes;
    const int first = unit * kColumns;
    constexpr int kStep = kThreads / Shape::kChunks;  // rows that are copied at a time
    const int chunk = threadIdx.x % Shape::kChunks, of = threadIdx.x / Shape::kChunks;
    if (block.contiguous(first, kColumns)) {
      const T* from = others.features + (block.column(first) + of) * others.stride + chunk * 8;
#pragma unroll 4
      for (int r = of; r < kColumns; r += kStep, from += kStep * others.stride) {
        copy_async_16(to + r * kRowBytes + swizzled(chunk, r) * 16, from);
      }
    } else {
#pragma unroll 1
      for (int r = of; r < kColumns; r += kStep) {
        const bool exists = first + r < block.columns;
        const int64_t column = exists ? block.column(first + r) : 0;
        copy_async_16(to + r * kRowBytes + swizzled(chunk, r) * 16,
                      others.features + column * others.stride + chunk * 8, exists);
      }
    }
    if (threadIdx.x < kColumns) {
      const int at = stage * kColumns + threadIdx.x;
      copy_column(others, block, first + int(threadIdx.x), norms() + at, labels() + at);
    }
  }

  __device__ __forceinline__ float* norms() const { return reinterpret_cast<float*>(memory_ + Shape::kNorms); }
  __device__ __forceinline__ int* labels() const { return reinterpret_cast<int*>(memory_ + Shape::kLabels); }
  __device__ __forceinline__ float* row_sums() const { return reinterpret_cast<float*>(memory_ + Shape::kRowSums); }

  // The place of a 16-byte chunk of a row of coefficients.
  static __device__ __forceinline__ int coefficient_chunk(int row, int chunk) {
    if (kColumns == 64) return row * 128 + swizzled(chunk, row) * 16;
    return row * 64 + (chunk ^ (row >> 1 & 3)) * 16;
  }

  // ---- products ----

  // s = rows times columns, for the warp's 16 rows from `row` and 8 kGroups columns from `column`.
  __device__ __forceinline__ void multiply(float (&s)[kGroups * 4], uint32_t tile, int row, int column) const {
    const int lane = threadIdx.x % kWarp, x7 = lane & 7;
#pragma unroll
    for (float& value : s) value = 0;
    const uint32_t rows = base_ + (row + x7 + (lane >> 3 & 1) * 8) * kRowBytes + ((lane >> 4) ^ x7) * 16;
    if constexpr (kGroups == 1) {
      const uint32_t columns = tile + (column + x7) * kRowBytes + ((lane >> 3) ^ x7) * 16;
#pragma unroll
      for (int step = 0; step < kWidth / 16; step += 2) {
        uint32_t b[4];
        load_matrices(b, (columns ^ ((step & 2) * 32)) + (step >> 2) * 128);
#pragma unroll
        for (int k = 0; k < 2; ++k) {
          uint32_t a[4];
          load_matrices(a, (rows ^ (((step + k) & 3) * 32)) + (step >> 2) * 128);
          multiply_group(s, 0, a, b[2 * k], b[2 * k + 1]);
        }
      }
    } else {
      const uint32_t columns = tile + (column + x7 + (lane >> 4) * 8) * kRowBytes + ((lane >> 3 & 1) ^ x7) * 16;
#pragma unroll
      for (int step = 0; step < kWidth / 16; ++step) {
        uint32_t a[4];
        load_matrices(a, (rows ^ ((step & 3) * 32)) + (step >> 2) * 128);
#pragma unroll
        for (int n = 0; n < kGroups; n += 2) {
          uint32_t b[4];
          load_matrices(b, (columns ^ ((step & 3) * 32)) + n * 8 * kRowBytes + (step >> 2) * 128);
          multiply_group(s, n, a, b[0], b[1]);
          multiply_group(s, n + 1, a, b[2], b[3]);
        }
      }
    }
  }

  static __device__ __forceinline__ void multiply_group(float (&s)[kGroups * 4], int n, const uint32_t (&a)[4],
                                                        uint32_t b0, uint32_t b1) {
    float d[4] = {s[4 * n], s[4 * n + 1], s[4 * n + 2], s[4 * n + 3]};
    multiply_16x8x16<T>(d, a, b0, b1);
#pragma unroll
    for (int e = 0; e < 4; ++e) s[4 * n + e] = d[e];
  }

  // kb += coefficients times columns, for the warp's rows from `row` and values from `column`.
  __device__ __forceinline__ void multiply_back(float (&kb)[kRowTiles][kColumnTiles][4], uint32_t tile, int row,
                                                int column) const {
    const int lane = threadIdx.x % kWarp, x7 = lane & 7;
    const uint32_t columns =
        tile + (x7 + (lane >> 3 & 1) * 8) * kRowBytes + (((column >> 3) + (lane >> 4)) ^ x7) * 16;
#pragma unroll
    for (int step = 0; step < kColumns / 16; ++step) {
      uint32_t k[kRowTiles][4];
#pragma unroll
      for (int m = 0; m < kRowTiles; ++m) {
        const int of = row + m * 16 + x7 + (lane >> 3 & 1) * 8;
        load_matrices(k[m], base_ + Shape::kCoefficients + coefficient_chunk(of, step * 2 + (lane >> 4)));
      }
#pragma unroll
      for (int n = 0; n < kColumnTiles; n += 2) {
        uint32_t b[4];
        load_matrices_transposed(b, (columns ^ (n * 16)) + step * 16 * kRowBytes);
#pragma unroll
        for (int m = 0; m < kRowTiles; ++m) {
          multiply_16x8x16<T>(kb[m][n], k[m], b[0], b[1]);
          multiply_16x8x16<T>(kb[m][n + 1], k[m], b[2], b[3]);
        }
      }
    }
  }

  // ---- pairs ----

  // Turns the warp's products into coefficients in shared memory. Returns whether any is not 0.
  __device__ __forceinline__ bool store_coefficients(float (&s)[kGroups * 4], const PairRules<T>& rules,
                                                     const LaneRow (&rows)[2], int stage, int row, int column,
                                                     float (&pair_loss)[2], float (&row_sum)[2]) const {
    const unsigned char* tile = memory_ + Shape::kTiles + stage * Shape::kTileBytes;
    const auto distance = [&](int r, int c) {
      const auto a = [&](int chunk) { return memory_ + (row + r) * kRowBytes + swizzled(chunk, row + r) * 16; };
      const auto b = [&](int chunk) { return tile + (column + c) * kRowBytes + swizzled(chunk, column + c) * 16; };
      return squared_distance_in_shared<T>(kWidth, a, b, threadIdx.x % kWarp);
    };
    uint32_t packed[kGroups * 2];
    const int at = stage * kColumns + column;
    tile_coefficients<kGroups>(s, packed, p_.terms, rules, rows, norms() + at, labels() + at, pair_loss, row_sum,
                               distance);
    const int lane = threadIdx.x % kWarp;
#pragma unroll
    for (int n = 0; n < kGroups; ++n) {
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        const int of = row + lane / 4 + h * 8, chunk = (column >> 3) + n;
        unsigned char* to = memory_ + Shape::kCoefficients + coefficient_chunk(of, chunk) + lane % 4 * 4;
        *reinterpret_cast<uint32_t*>(to) = packed[n * 2 + h];
      }
    }
    return any_coefficient(packed);
  }

  __device__ __forceinline__ void run_segment(const Segment& segment, float factor, double (&loss)[2]) {
    const RowBlock block = row_block(p_, segment.block);
    const FusedSide<T>&own = p_.side[block.side], &others = p_.side[1 - block.side];
    const PairRules<T> rules = pair_rules(p_, block.side);
    const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
    const int row = warp / Shape::kWarpColumns * 16, column = warp % Shape::kWarpColumns * kGroups * 8;
    const int back_row = warp / Shape::kBackColumns * kRowTiles * 16;
    const int back_column = warp % Shape::kBackColumns * kColumnTiles * 8;
    const bool counts = block.side == p_.loss_side;

    __syncthreads();  // the previous segment is done with the rows
    copy_rows(own, block);
    if (segment.begin < segment.end) copy_tile(others, block, segment.first, 0);
    commit_copies();
    const LaneRow rows[2] = {lane_row(own, block, rules, row + lane / 4),
                             lane_row(own, block, rules, row + lane / 4 + 8)};
    float row_sum[2] = {};
    float kb[kRowTiles][kColumnTiles][4] = {};
    for (int left = segment.end - segment.begin, unit = segment.first, stage = 0; left > 0; --left, stage ^= 1) {
      wait_for_copies<0>();
      __syncthreads();
      unit = segment.after(unit);
      if (left > 1) {
        copy_tile(others, block, unit, stage ^ 1);
        commit_copies();
      }
      const uint32_t tile = base_ + Shape::kTiles + stage * Shape::kTileBytes;
      float s[kGroups * 4];
      multiply(s, tile, row, column);
      float unit_loss[2] = {};
      const bool any = store_coefficients(s, rules, rows, stage, row, column, unit_loss, row_sum);
      if (counts) {
        loss[0] += double(unit_loss[0]);
        loss[1] += double(unit_loss[1]);
      }
      if (__syncthreads_or(any) && own.gradient != nullptr) multiply_back(kb, tile, back_row, back_column);
    }
    wait_for_copies<0>();
    __syncthreads();  // without units, the rows have only just arrived
    if (own.gradient == nullptr) return;
    store_row_sums(row_sum, row_sums() + warp % Shape::kWarpColumns * kRows, row);
    __syncthreads();
    store_gradients(kb, block, segment, factor, back_row, back_column);
  }

  __device__ __forceinline__ void store_gradients(const float (&kb)[kRowTiles][kColumnTiles][4], const RowBlock& block,
                                                  const Segment& segment, float factor, int row, int column) const {
    const int lane = threadIdx.x % kWarp;
#pragma unroll
    for (int m = 0; m < kRowTiles; ++m) {
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        const int r = row + m * 16 + lane / 4 + h * 8;
        if (r >= block.rows) continue;
        const GradientTarget target = gradient_target(p_, block, segment, r, factor);
        float sum = 0;
#pragma unroll
        for (int w = 0; w < Shape::kWarpColumns; ++w) sum += row_sums()[w * kRows + r];
#pragma unroll
        for (int n = 0; n < kColumnTiles; ++n) {
          const int d = column + n * 8 + lane % 4 * 2;
          const unsigned char* at = memory_ + r * kRowBytes + swizzled(d >> 3, r) * 16 + lane % 4 * 4;
          float a0, a1;
          unpack_pair<T>(*reinterpret_cast<const uint32_t*>(at), a0, a1);
          store_gradient(target, p_.width, d, a0, a1, fmaf(sum, a0, -kb[m][n][2 * h]),
                         fmaf(sum, a1, -kb[m][n][2 * h + 1]));
        }
      }
    }
  }

  const Fused<T>& p_;
  unsigned char* const memory_;
  const uint32_t base_;
};

template <typename T, int kWidth, int kRows, int kColumns>
__global__ void __launch_bounds__(kThreads, MmaShape<kWidth, kRows, kColumns>::kBlocksPerProcessor)
    fused_mma_kernel(const __grid_constant__ Fused<T> p) {
  MmaTile<T, kWidth, kRows, kColumns>(p, dynamic_shared()).run();
}

}  // namespace fastccsa::all_pairs::cuda

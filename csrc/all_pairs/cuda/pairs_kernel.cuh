// The kernels for the pairs of a tile: one computes coefficients from dot products, and a small one adds up the sums of
// its blocks. Each sum has an order that depends only on sizes.
#pragma once

#include "all_pairs/cuda/split_kernel.cuh"
#include "all_pairs/cuda/tile.h"
#include "all_pairs/cuda/finish_kernel.cuh"
#include "core/cuda_distance.cuh"

namespace fastccsa::all_pairs::cuda {

static_assert(kBlockRows == kWarps * kWarpRows);

// A lane reads and writes packs of neighbouring columns, and its packs are kWarp packs apart. Returns the place, within
// a block, of column q of a lane.
template <typename Acc>
FASTCCSA_HOST_DEVICE int column_of(int lane, int q) {
  constexpr int kPack = 16 / int(sizeof(Acc));
  return (q / kPack * kWarp + lane) * kPack + q % kPack;
}

template <typename Acc>
struct FromRows {
  PairTerm<Acc> term;
  Acc squared_distance;
};

// Computes a pair from its rows, by one warp; every lane gets the result.
template <typename T, typename P>
__device__ FromRows<acc_t<T>> from_rows(const TilePairs<T, P>& p, int64_t i, int64_t j, int lane) {
  using Acc = acc_t<T>;
  const Side<T>&one = p.side[0], &other = p.side[1];
  const Acc d2 = squared_distance<kWarp, false>(one.features.strided_row(one.order[p.begin[0] + i]),
                                                other.features.strided_row(other.order[p.begin[1] + j]), p.width, lane);
  const Acc weight = pair_weight(p.weight, p.classes, one.label[p.begin[0] + i], other.label[p.begin[1] + j]);
  return {pair_term(d2, false, weight, p.margin), d2};
}

// The separation term of a pair that is not near, where pairs are many: without branches, and with one reciprocal root.
// The distance and its inverse are off by about one unit in the last place. Without a weight, the distance may be NaN.
__device__ inline Term<float> separation_of(float squared_distance, float weight, float margin) {
  const float root = rsqrtf(squared_distance), rough = squared_distance * root;
  const float distance = fmaf(fmaf(-rough, rough, squared_distance), 0.5f * root, rough);
  const float inverse = fmaf(fmaf(-distance, root, 1.0f), root, root);
  const float gap = fmaxf(margin - distance, 0.0f), pull = weight * gap;  // 0 if the distance is NaN
  return {pull * gap, gap > 0.0f ? -2.0f * pull * inverse : 0.0f};
}
__device__ inline Term<double> separation_of(double squared_distance, double weight, double margin) {
  return weight > 0 ? separation_term(squared_distance, weight, margin) : Term<double>{0, 0};
}

// The pairs of one row that a lane computes.
template <typename P, typename Acc>
struct LanePairs {
  Acc coefficient[kLaneColumns<P>] = {};
  unsigned near = 0;  // bit q: pair q must be computed from its rows
};

// Computes near pairs from their rows. Close pairs keep the coefficient 0; returns whether there are any, and sets
// their bits in `close`, which has kLaneColumns words.
template <typename T, typename P>
__device__ bool compute_near_pairs(const TilePairs<T, P>& p, int64_t i, int64_t first, int lane,
                                   LanePairs<P, acc_t<T>>& pairs, acc_t<T>& loss, uint32_t* close) {
  using Acc = acc_t<T>;
  const Acc norm = p.norm[0][p.begin[0] + i];
  bool any = false;
#pragma unroll 1
  for (int q = 0; q < kLaneColumns<P>; ++q) {
    uint32_t bits = 0;
    for (unsigned rest = __ballot_sync(kAllLanes, pairs.near >> q & 1u); rest != 0; rest &= rest - 1) {
      const int of = __ffs(int(rest)) - 1;
      const int64_t j = first + column_of<Acc>(of, q);
      const FromRows<Acc> pair = from_rows(p, i, j, lane);
      const bool is = is_close(pair.squared_distance, norm + p.norm[1][p.begin[1] + j]);
      if (is) bits |= 1u << of;
      if (lane != of) continue;
      loss += pair.term.separation;
#pragma unroll
      for (int other = 0; other < kLaneColumns<P>; ++other) {  // so that coefficients stay in registers
        if (other == q && !is) pairs.coefficient[other] = pair.term.coefficient;
      }
    }
    if (lane == 0) close[q] = bits;
    any = any || bits != 0;
  }
  return any;
}

// As many blocks on a multiprocessor as have enough registers.
template <typename Acc>
constexpr int kResident = sizeof(Acc) == 4 ? 3 : 2;

// Block (x, y): block x of columns, block y of rows. Sums of up to some hundred terms are computed in the type of K.
template <typename T, typename P>
__global__ void __launch_bounds__(kThreads, kResident<acc_t<T>>) tile_pairs_kernel(const TilePairs<T, P> p) {
  using Acc = acc_t<T>;
  using Part = typename P::Part;
  constexpr int kColumns = kBlockColumns<P>, kLane = kLaneColumns<P>, kPack = 16 / int(sizeof(Acc)), kPacks = kLane / kPack;
  static_assert(kThreads == kColumns);
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  const int64_t chunk = blockIdx.x, first = chunk * kColumns;
  const int64_t first_row = int64_t(blockIdx.y) * kBlockRows + warp * kWarpRows;
  const int columns = p.columns - first < kColumns ? int(p.columns - first) : kColumns;
  const bool stores = p.coefficient[0] != nullptr;

  Acc norm[kLane], weight[kLane] = {}, column_sum[kLane] = {}, loss = 0;
#pragma unroll
  for (int q = 0; q < kLane; ++q) {
    const int at = column_of<Acc>(lane, q);
    norm[q] = at < columns ? p.norm[1][p.begin[1] + first + at] : Acc(0);
  }
  int64_t label = -1;
  bool matters = false;  // whether a pair of the warp's current row has a weight
  uint32_t close_rows = 0;
  for (int r = 0; r < kWarpRows; ++r) {
    const int64_t i = first_row + r;
    if (i >= p.rows) break;
    // Rows are sorted by class, so the weights of the columns rarely change.
    const int64_t own = p.side[0].label[p.begin[0] + i];
    if (own != label) {
      label = own;
      bool some = false;
#pragma unroll
      for (int q = 0; q < kLane; ++q) {
        const int at = column_of<Acc>(lane, q);
        weight[q] = Acc(0);
        if (at < columns) weight[q] = pair_weight(p.weight, p.classes, own, p.side[1].label[p.begin[1] + first + at]);
        some = some || weight[q] > Acc(0);
      }
      matters = __ballot_sync(kAllLanes, some) != 0;
    }
    const int64_t from = i * p.stride + first;
    LanePairs<P, Acc> pairs;
    if (matters) {
      const Acc own_norm = p.norm[0][p.begin[0] + i];
#pragma unroll
      for (int k = 0; k < kPacks; ++k) {
        const int at = column_of<Acc>(lane, k * kPack);
        Pack<Acc> dot{};
        if (at < columns) dot = load_pack(p.dot + from + at);
#pragma unroll
        for (int e = 0; e < kPack; ++e) {
          const int q = k * kPack + e;
          const Acc norms = own_norm + norm[q], d2 = norms - Acc(2) * dot.value[e];
          const bool near = weight[q] > Acc(0) && is_near<T>(d2, norms, p.margin);
          const Term<Acc> term = separation_of(d2, near ? Acc(0) : weight[q], p.margin);
          pairs.near |= unsigned(near) << q;
          pairs.coefficient[q] = term.coefficient;
          loss += term.value;
        }
      }
      if (__ballot_sync(kAllLanes, pairs.near != 0) != 0) {
        uint32_t* close = p.close + (i * gridDim.x + chunk) * kLane;
        if (compute_near_pairs(p, i, first, lane, pairs, loss, close)) close_rows |= 1u << r;
      }
    }
    if (!stores) continue;
    Acc row_sum = 0;
#pragma unroll
    for (int k = 0; k < kPacks; ++k) {
      const int at = column_of<Acc>(lane, k * kPack);
      Acc coefficient[kPack];
#pragma unroll
      for (int e = 0; e < kPack; ++e) coefficient[e] = pairs.coefficient[k * kPack + e];
      Several<Part, kPack> parts[P::kParts];
      split<P>(coefficient, parts);  // sums are those of what the products will read
#pragma unroll
      for (int e = 0; e < kPack; ++e) {
        column_sum[k * kPack + e] += coefficient[e];
        row_sum += coefficient[e];
      }
      if (at >= columns) continue;
#pragma unroll
      for (int part = 0; part < P::kParts; ++part) {
        *reinterpret_cast<Several<Part, kPack>*>(p.coefficient[part] + from + at) = parts[part];
      }
    }
    if (matters) row_sum = reduce<kWarp>(row_sum, Add());
    if (lane == 0) p.row_sums[chunk * p.rows + i] = row_sum;
  }

  __shared__ Acc of_warp[kWarps][kColumns];
  __shared__ uint32_t close_of_warp[kWarps];
#pragma unroll
  for (int q = 0; q < kLane; ++q) of_warp[warp][column_of<Acc>(lane, q)] = column_sum[q];
  if (lane == 0) close_of_warp[warp] = close_rows;
  __syncthreads();
  if (stores && int(threadIdx.x) < columns) {
    Acc sum = 0;
    for (int w = 0; w < kWarps; ++w) sum += of_warp[w][threadIdx.x];
    p.column_sums[int64_t(blockIdx.y) * p.stride + first + threadIdx.x] = sum;
  }
  if (threadIdx.x < 2) {
    constexpr int kHalf = kWarps / 2;
    uint32_t bits = 0;
    for (int w = 0; w < kHalf; ++w) bits |= close_of_warp[threadIdx.x * kHalf + w] << (w * kWarpRows);
    p.close_rows[(chunk * gridDim.y + blockIdx.y) * 2 + threadIdx.x] = bits;
  }
  const double whole = reduce<kThreads>(double(loss), Add());
  if (threadIdx.x == 0) p.block_loss[int64_t(blockIdx.y) * gridDim.x + chunk] = whole;
}

// ---- gradients and sums ----

// One thread per value.
template <typename Acc>
__global__ void __launch_bounds__(kThreads) add_pieces_kernel(const AddPieces<Acc> p) {
  const int64_t k = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  if (k >= p.values) return;
  Acc sum = 0;
#pragma unroll 8
  for (int64_t piece = 0; piece < p.count; ++piece) sum += p.pieces[piece * p.values + k];
  p.to[k] += sum;
}

// Adds coefficient * (own - other) to the gradient of the row of `side` of a pair, by one warp.
template <typename T, typename P>
__device__ void add_close_pair(const TileSums<T, P>& p, int side, int64_t i, int64_t j, int lane) {
  using Acc = acc_t<T>;
  const TilePairs<T, P>& tile = p.tile;
  const Acc coefficient = from_rows(tile, i, j, lane).term.coefficient;
  if (coefficient == Acc(0)) return;
  const int64_t sorted[2] = {tile.begin[0] + i, tile.begin[1] + j}, own = sorted[side];
  const Side<T>&mine = tile.side[side], &theirs = tile.side[1 - side];
  const T *a = row_of(mine, own), *b = row_of(theirs, sorted[1 - side]);
  const int64_t stride = mine.features.column_stride, other_stride = theirs.features.column_stride;
  Acc* gradient = p.gradient[side] + own * tile.width;
  for (int64_t d = lane; d < tile.width; d += kWarp) {
    gradient[d] += coefficient * (load(a[d * stride]) - load(b[d * other_stride]));
  }
}

__device__ inline void store_or_add(double& to, bool first, double value) { to = first ? value : to + value; }

// One warp: row i of the tile.
template <typename T, typename P>
__device__ void finish_row(const TileSums<T, P>& p, int64_t i, int lane) {
  const TilePairs<T, P>& tile = p.tile;
  const int64_t chunks = blocks_of_columns<P>(tile.columns), words = 2 * blocks_of_rows(tile.rows);
  double sum = 0;
  for (int64_t chunk = lane; chunk < chunks; chunk += kWarp) sum += double(tile.row_sums[chunk * tile.rows + i]);
  sum = reduce<kWarp>(sum, Add());
  if (lane == 0) store_or_add(p.sums[0][tile.begin[0] + i], p.first[0], sum);
  for (int64_t from = 0; from < chunks; from += kWarp) {
    bool own = false;
    if (from + lane < chunks) own = tile.close_rows[(from + lane) * words + i / 32] >> (i % 32) & 1u;
    for (unsigned some = __ballot_sync(kAllLanes, own); some != 0; some &= some - 1) {
      const int64_t chunk = from + __ffs(int(some)) - 1;
      const uint32_t* close = tile.close + (i * chunks + chunk) * kLaneColumns<P>;
      for (int q = 0; q < kLaneColumns<P>; ++q) {
        for (uint32_t rest = close[q]; rest != 0; rest &= rest - 1) {
          const int of = __ffs(int(rest)) - 1;
          add_close_pair(p, 0, i, chunk * kBlockColumns<P> + column_of<acc_t<T>>(of, q), lane);
        }
      }
    }
  }
}

// One block: the sums of 32 neighbouring columns, and the close pairs of the 32 columns that share a word in `close`.
// Each warp adds those of its own columns.
template <typename T, typename P>
__device__ void finish_columns(const TileSums<T, P>& p, int64_t chunk, int q, int lane, int warp) {
  const TilePairs<T, P>& tile = p.tile;
  const int64_t chunks = blocks_of_columns<P>(tile.columns), blocks = blocks_of_rows(tile.rows), words = 2 * blocks;
  const int64_t j = chunk * kBlockColumns<P> + q * kWarp + lane;
  double sum = 0;
  for (int64_t block = warp; j < tile.columns && block < blocks; block += kWarps) {
    sum += double(tile.column_sums[block * tile.stride + j]);
  }
  __shared__ double of_warp[kWarps][kWarp];
  of_warp[warp][lane] = sum;
  __syncthreads();
  if (warp == 0 && j < tile.columns) {
    for (int w = 1; w < kWarps; ++w) sum += of_warp[w][lane];
    store_or_add(p.sums[1][tile.begin[1] + j], p.first[1], sum);
  }
  constexpr int kOwn = kWarp / kWarps;
  const uint32_t mine = ((1u << kOwn) - 1) << (warp * kOwn);
  for (int64_t from = 0; from < words; from += kWarp) {
    const uint32_t own = from + lane < words ? tile.close_rows[chunk * words + from + lane] : 0u;
    for (unsigned some = __ballot_sync(kAllLanes, own != 0); some != 0; some &= some - 1) {
      const int of = __ffs(int(some)) - 1;
      for (uint32_t rows = __shfl_sync(kAllLanes, own, of); rows != 0; rows &= rows - 1) {
        const int64_t i = (from + of) * 32 + __ffs(int(rows)) - 1;
        const uint32_t close = tile.close[(i * chunks + chunk) * kLaneColumns<P> + q];
        for (uint32_t rest = close & mine; rest != 0; rest &= rest - 1) {
          const int column = column_of<acc_t<T>>(__ffs(int(rest)) - 1, q);
          add_close_pair(p, 1, i, chunk * kBlockColumns<P> + column, lane);
        }
      }
    }
  }
}

// How many blocks of the last kernel add up rows, and columns.
template <typename T, typename P>
FASTCCSA_HOST_DEVICE int64_t blocks_for_rows(const TileSums<T, P>& p) {
  return p.gradient[0] == nullptr ? 0 : (p.tile.rows + kWarps - 1) / kWarps;
}
template <typename T, typename P>
FASTCCSA_HOST_DEVICE int64_t blocks_for_columns(const TileSums<T, P>& p) {
  return p.gradient[1] == nullptr ? 0 : blocks_of_columns<P>(p.tile.columns) * kLaneColumns<P>;
}

// Block 0 adds up the loss. Then come the blocks for rows, one warp per row, and those for columns.
template <typename T, typename P>
__global__ void __launch_bounds__(kThreads) tile_sums_kernel(const TileSums<T, P> p) {
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  if (blockIdx.x == 0) {
    const int64_t blocks = blocks_of_rows(p.tile.rows) * blocks_of_columns<P>(p.tile.columns);
    double sum = 0;
    for (int64_t block = threadIdx.x; block < blocks; block += kThreads) sum += p.tile.block_loss[block];
    sum = reduce<kThreads>(sum, Add());
    if (threadIdx.x == 0) *p.loss = sum;
    return;
  }
  const int64_t block = int64_t(blockIdx.x) - 1, of_rows = blocks_for_rows(p);
  if (block < of_rows) {
    const int64_t i = block * kWarps + warp;
    if (i < p.tile.rows) finish_row(p, i, lane);
  } else {
    finish_columns(p, (block - of_rows) / kLaneColumns<P>, int((block - of_rows) % kLaneColumns<P>), lane, warp);
  }
}

}  // namespace fastccsa::all_pairs::cuda

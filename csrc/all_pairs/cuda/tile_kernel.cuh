// The kernels of the loss over all pairs on CUDA that run before and after the matrix products of tiles. Each sum is
// computed by one group of threads, in an order that depends only on sizes.
#pragma once

#include "all_pairs/params.h"
#include "core/cuda_distance.cuh"

namespace fastccsa::all_pairs::cuda {

using namespace fastccsa::cuda;

constexpr int kRowGroups = kThreads / kChunkColumns;

template <typename T>
__device__ const T* row_of(const Side<T>& side, int64_t sorted_row) {
  return side.features.row(side.order[sorted_row]);
}

// Returns the sum of one column's values over the groups of a block, in the order of the groups.
__device__ inline double over_row_groups(double value, int group, int column) {
  __shared__ double of_group[kRowGroups][kChunkColumns];
  __syncthreads();  // the values of the previous sum have been read
  of_group[group][column] = value;
  __syncthreads();
  double sum = 0;
  for (int g = 0; g < kRowGroups; ++g) sum += of_group[g][column];
  return sum;
}

// Block (x, y): class x, chunk y of columns. Each group of kChunkColumns threads takes every kRowGroups-th row.
template <typename T>
__global__ void __launch_bounds__(kThreads) classes_kernel(const Classes<T> p) {
  const int column = threadIdx.x % kChunkColumns, group = threadIdx.x / kChunkColumns;
  const int64_t c = blockIdx.x, d = int64_t(blockIdx.y) * kChunkColumns + column;
  const int64_t first = p.offset[c], last = p.offset[c + 1];
  const int64_t at = d * p.side.features.column_stride;
  const bool inside = d < p.width;
  double sum = 0;
  for (int64_t k = first + group; inside && k < last; k += kRowGroups) sum += double(load(row_of(p.side, k)[at]));
  sum = over_row_groups(sum, group, column);
  const double mean = first < last ? sum / double(last - first) : 0.0;
  if (inside && group == 0) p.mean[c * p.width + d] = mean;
  double squares = 0;
  for (int64_t k = first + group; inside && k < last; k += kRowGroups) {
    const double difference = double(load(row_of(p.side, k)[at])) - mean;
    squares += difference * difference;
  }
  squares = over_row_groups(squares, group, column);
  const double spread = reduce<kThreads>(group == 0 ? squares : 0.0, Add());
  if (threadIdx.x == 0) p.spread[c * gridDim.y + blockIdx.y] = spread;
}

// One warp per row. Norms are summed in float64, because all pairs of a row share the error of its norm: it does not
// average out.
template <typename T>
__global__ void __launch_bounds__(kThreads) centre_kernel(const Centre<T> p) {
  using Acc = acc_t<T>;
  const int lane = threadIdx.x % kWarp;
  const int64_t k = int64_t(blockIdx.x) * kWarps + threadIdx.x / kWarp;
  if (k >= p.rows) return;
  const T* z = row_of(p.side, k);
  Acc* to = p.centred + k * p.width;
  double norm = 0;
  for (int64_t d = lane; d < p.width; d += kWarp) {
    const Acc centred = load(z[d * p.side.features.column_stride]) - p.centre[d];
    to[d] = centred;
    norm += double(centred) * double(centred);
  }
  norm = reduce<kWarp>(norm, Add());
  if (lane == 0) p.norm[k] = Acc(norm);
}

template <typename Acc>
struct FromRows {
  PairTerm<Acc> term;
  Acc squared_distance;
};

// Computes a pair from its rows, by one warp; every lane gets the result.
template <typename T>
__device__ FromRows<acc_t<T>> from_rows(const Tile<T>& p, int64_t i, int64_t j, int lane) {
  using Acc = acc_t<T>;
  const Side<T>&one = p.side[0], &other = p.side[1];
  const Acc d2 = squared_distance<kWarp, false>(one.features.strided_row(one.order[p.begin[0] + i]),
                                                other.features.strided_row(other.order[p.begin[1] + j]), p.width, lane);
  const Acc weight = pair_weight(p.weight, p.classes, one.label[p.begin[0] + i], other.label[p.begin[1] + j]);
  return {pair_term(d2, false, weight, p.margin), d2};
}

// Adds coefficient * (own - other) to the gradient of the row of `side` of a pair, by one warp.
template <typename T>
__device__ void add_close_pair(const Tile<T>& p, int side, int64_t i, int64_t j, int lane) {
  using Acc = acc_t<T>;
  const Acc coefficient = from_rows(p, i, j, lane).term.coefficient;
  if (coefficient == Acc(0)) return;
  const int64_t sorted[2] = {p.begin[0] + i, p.begin[1] + j}, own = sorted[side];
  const Side<T>&mine = p.side[side], &theirs = p.side[1 - side];
  const T *a = row_of(mine, own), *b = row_of(theirs, sorted[1 - side]);
  const int64_t stride = mine.features.column_stride, other_stride = theirs.features.column_stride;
  Acc* gradient = p.gradient[side] + own * p.width;
  for (int64_t d = lane; d < p.width; d += kWarp) {
    gradient[d] += coefficient * (load(a[d * stride]) - load(b[d * other_stride]));
  }
}

// One warp for some columns of a row: turns dot products into coefficients, and sets the bits of `close` for the pairs
// whose gradients will be computed from their rows.
template <typename T>
__global__ void __launch_bounds__(kThreads) tile_rows_kernel(const Tile<T> p) {
  using Acc = acc_t<T>;
  const int lane = threadIdx.x % kWarp;
  const int64_t i = int64_t(blockIdx.x) * kWarps + threadIdx.x / kWarp;
  if (i >= p.rows) return;
  const int64_t row = p.begin[0] + i, label = p.side[0].label[row];
  const Acc norm = p.norm[0][row];
  Acc* values = p.values + i * p.stride;
  const int64_t words = close_words(p.columns), chunk = blockIdx.y;
  const int64_t first = chunk * (kTileColumns / kWarp), last = first + kTileColumns / kWarp;
  double sum = 0, loss = 0;
  for (int64_t word = first; word < words && word < last; ++word) {
    const int64_t j = word * kWarp + lane;
    bool near = false;
    if (j < p.columns) {
      const int64_t column = p.begin[1] + j;
      const Acc norms = norm + p.norm[1][column];
      const Acc d2 = norms - Acc(2) * values[j];
      const Acc weight = pair_weight(p.weight, p.classes, label, p.side[1].label[column]);
      PairTerm<Acc> term{};
      near = weight > Acc(0) && is_near<T>(d2, norms, p.margin);
      if (weight > Acc(0) && !near) term = pair_term(d2, false, weight, p.margin);
      values[j] = term.coefficient;
      sum += double(term.coefficient);
      loss += double(term.separation);
    }
    const unsigned near_ones = __ballot_sync(kAllLanes, near);
    unsigned close = 0;
    for (unsigned rest = near_ones; rest != 0; rest &= rest - 1) {
      const int of = __ffs(int(rest)) - 1;
      const int64_t other = word * kWarp + of, column = p.begin[1] + other;
      const FromRows<Acc> pair = from_rows(p, i, other, lane);
      const Acc coefficient = pair.term.coefficient;
      if (lane == 0) loss += double(pair.term.separation);
      if (!is_close(pair.squared_distance, norm + p.norm[1][column])) {
        if (lane == of) {
          values[j] = coefficient;
          sum += double(coefficient);
        }
        continue;
      }
      close |= 1u << of;
    }
    if (lane == 0) p.close[i * words + word] = int32_t(close);
  }
  sum = reduce<kWarp>(sum, Add());
  loss = reduce<kWarp>(loss, Add());
  if (lane == 0) {
    p.partial[chunk * p.rows + i] = sum;
    p.partial[(tile_chunks(p.columns) + chunk) * p.rows + i] = loss;
  }
}

// One warp per row: its sums, and its part of the gradients of close pairs.
template <typename T>
__global__ void __launch_bounds__(kThreads) tile_sums_kernel(const Tile<T> p) {
  const int lane = threadIdx.x % kWarp;
  const int64_t i = int64_t(blockIdx.x) * kWarps + threadIdx.x / kWarp;
  if (i >= p.rows) return;
  const int64_t row = p.begin[0] + i, chunks = tile_chunks(p.columns), words = close_words(p.columns);
  double sum = 0, loss = 0;
  for (int64_t chunk = lane; chunk < chunks; chunk += kWarp) {
    sum += p.partial[chunk * p.rows + i];
    loss += p.partial[(chunks + chunk) * p.rows + i];
  }
  sum = reduce<kWarp>(sum, Add());
  loss = reduce<kWarp>(loss, Add());
  if (lane == 0) {
    p.sums[0][row] += sum;
    p.loss[row] += loss;
  }
  if (p.gradient[0] == nullptr) return;
  for (int64_t first = 0; first < words; first += kWarp) {
    const unsigned own = first + lane < words ? unsigned(p.close[i * words + first + lane]) : 0u;
    for (unsigned some = __ballot_sync(kAllLanes, own != 0); some != 0; some &= some - 1) {
      const int of = __ffs(int(some)) - 1;
      for (unsigned rest = __shfl_sync(kAllLanes, own, of); rest != 0; rest &= rest - 1) {
        add_close_pair(p, 0, i, (first + of) * kWarp + __ffs(int(rest)) - 1, lane);
      }
    }
  }
}

// One block for 32 columns: the sums of their coefficients, and their part of the gradients of close pairs.
template <typename T>
__global__ void __launch_bounds__(kThreads) tile_columns_kernel(const Tile<T> p) {
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  const int64_t word = blockIdx.x, j = word * kWarp + lane, words = close_words(p.columns);
  double sum = 0;
  for (int64_t i = warp; j < p.columns && i < p.rows; i += kWarps) sum += double(p.values[i * p.stride + j]);
  __shared__ double of_warp[kWarps][kWarp];
  of_warp[warp][lane] = sum;
  __syncthreads();
  if (warp > 0) return;
  for (int w = 1; w < kWarps; ++w) sum += of_warp[w][lane];
  if (j < p.columns) p.sums[1][p.begin[1] + j] += sum;
  for (int64_t first = 0; first < p.rows; first += kWarp) {
    const unsigned own = first + lane < p.rows ? unsigned(p.close[(first + lane) * words + word]) : 0u;
    for (unsigned some = __ballot_sync(kAllLanes, own != 0); some != 0; some &= some - 1) {
      const int of = __ffs(int(some)) - 1;
      const int64_t i = first + of;
      for (unsigned rest = __shfl_sync(kAllLanes, own, of); rest != 0; rest &= rest - 1) {
        add_close_pair(p, 1, i, word * kWarp + __ffs(int(rest)) - 1, lane);
      }
    }
  }
}

// One warp per row.
template <typename T, typename Mean>
__global__ void __launch_bounds__(kThreads) finish_kernel(const Finish<T, Mean> p) {
  const int lane = threadIdx.x % kWarp;
  const int64_t k = int64_t(blockIdx.x) * kWarps + threadIdx.x / kWarp;
  if (k >= p.rows) return;
  const T* z = row_of(p.side, k);
  const int64_t stride = p.side.features.column_stride;
  for (int64_t d = lane; d < p.width; d += kWarp) finish_value(p, k, d, double(load(z[d * stride])));
}

// One block.
template <typename Acc>
__global__ void __launch_bounds__(kThreads) terms_kernel(const Terms<Acc> p) {
  double alignment = 0, separation = 0;
  for (int64_t c = threadIdx.x; c < p.classes; c += kThreads) alignment += p.alignment[c];
  for (int64_t k = threadIdx.x; k < p.rows; k += kThreads) separation += p.separation[k];
  alignment = reduce<kThreads>(alignment, Add());
  separation = reduce<kThreads>(separation, Add());
  if (threadIdx.x == 0) p.finish(alignment, separation);
}

}  // namespace fastccsa::all_pairs::cuda

// The loss over few pairs on CUDA, computed from the differences of their rows, in two launches: the pairs, then the
// gradients and the sums of the terms. Each sum is computed by one group of threads, in an order that depends only on
// sizes.
#pragma once

#include "all_pairs/params.h"
#include "core/cuda_memory.cuh"
#include "core/cuda_reduce.cuh"

#include <math_constants.h>

namespace fastccsa::all_pairs::cuda {

using namespace fastccsa::cuda;

// How many rows of each side a warp combines into pairs, so that each load serves four pairs.
constexpr int kOwn = kDirectRows, kOthers = kDirectColumns / kWarps;
static_assert(kOwn * kOthers <= kWarp, "each pair of a warp has its own lane");

// Returns the row, or the last row if `row` is beyond the end.
template <typename T>
__device__ const T* row_or_last(const Direct<T>& p, int side, int64_t row) {
  const int64_t last = p.rows[side] - 1;
  return p.features[side].row(row < last ? row : last);
}

// Computes |a_i - b_j|^2 of the warp's pairs. Lane kOthers * i + j gets the value of pair (i, j).
template <bool kPacked, typename T>
__device__ acc_t<T> squared_distance_of_lane(const Direct<T>& p, int64_t first1, int64_t first2, int lane) {
  using Acc = acc_t<T>;
  const T *a[kOwn], *b[kOthers];
  for (int i = 0; i < kOwn; ++i) a[i] = row_or_last(p, 0, first1 + i);
  for (int j = 0; j < kOthers; ++j) b[j] = row_or_last(p, 1, first2 + j);
  Acc sum[kOwn][kOthers] = {};
  const auto add = [&](auto value_of_a, auto value_of_b) {
    Acc own[kOwn];
#pragma unroll
    for (int i = 0; i < kOwn; ++i) own[i] = load(value_of_a(i));
#pragma unroll
    for (int j = 0; j < kOthers; ++j) {
      const Acc other = load(value_of_b(j));
#pragma unroll
      for (int i = 0; i < kOwn; ++i) sum[i][j] += (own[i] - other) * (own[i] - other);
    }
  };
  int64_t rest = 0;
  if (kPacked) {
    constexpr int kSize = Pack<T>::kSize;
    rest = p.width / kSize * kSize;
    for (int64_t d = int64_t(lane) * kSize; d < rest; d += kWarp * kSize) {
      Pack<T> pa[kOwn], pb[kOthers];
#pragma unroll
      for (int i = 0; i < kOwn; ++i) pa[i] = load_pack(a[i] + d);
#pragma unroll
      for (int j = 0; j < kOthers; ++j) pb[j] = load_pack(b[j] + d);
#pragma unroll
      for (int e = 0; e < kSize; ++e) {
        add([&](int i) { return pa[i].value[e]; }, [&](int j) { return pb[j].value[e]; });
      }
    }
  }
  const int64_t stride_a = p.features[0].column_stride, stride_b = p.features[1].column_stride;
  for (int64_t d = rest + lane; d < p.width; d += kWarp) {
    add([&](int i) { return a[i][d * stride_a]; }, [&](int j) { return b[j][d * stride_b]; });
  }
  Acc mine = 0;
#pragma unroll
  for (int pair = 0; pair < kOwn * kOthers; ++pair) {
    const Acc whole = reduce<kWarp>(sum[pair / kOthers][pair % kOthers], Add());
    if (lane == pair) mine = whole;
  }
  return mine;
}

// A pair with a bad label makes the loss and the gradients of its rows NaN, so that no optimizer step uses them, and
// the host raises an error at its next call.
template <typename T>
__device__ PairTerm<acc_t<T>> checked_pair(const Direct<T>& p, acc_t<T> squared_distance, int64_t i, int64_t j,
                                           FaultWord* fault) {
  using Acc = acc_t<T>;
  const FaultReport report = p.fault(i, j);
  if (report.fault == Fault::kNone) return p.pair(squared_distance, i, j);
  *static_cast<volatile FaultWord*>(fault) = encode(report);
  return {Acc(CUDART_NAN), Acc(CUDART_NAN), Acc(CUDART_NAN)};
}

// Computes the coefficients, and the sums of the terms in each block.
template <typename T, bool kPacked>
__global__ void __launch_bounds__(kThreads) direct_pairs_kernel(const Direct<T> p, FaultWord* fault) {
  using Acc = acc_t<T>;
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  const int64_t across = (p.rows[1] + kDirectColumns - 1) / kDirectColumns;
  const int64_t first1 = blockIdx.x / across * kOwn;
  const int64_t first2 = blockIdx.x % across * kDirectColumns + warp * kOthers;
  double alignment = 0, separation = 0;
  if (first2 < p.rows[1]) {
    const Acc d2 = squared_distance_of_lane<kPacked>(p, first1, first2, lane);
    const int64_t i = first1 + lane / kOthers, j = first2 + lane % kOthers;
    if (lane < kOwn * kOthers && i < p.rows[0] && j < p.rows[1]) {
      const PairTerm<Acc> term = checked_pair(p, d2, i, j, fault);
      alignment = double(term.alignment);
      separation = double(term.separation);
      p.coefficient[i * p.rows[1] + j] = term.coefficient;
    }
  }
  alignment = reduce<kThreads>(alignment, Add());
  separation = reduce<kThreads>(separation, Add());
  if (threadIdx.x == 0) {
    p.sums[blockIdx.x] = alignment;
    p.sums[gridDim.x + blockIdx.x] = separation;
  }
}

// ---- the second launch ----

// Adds up the sums of the first launch's blocks.
template <typename T>
__device__ void finish_terms(const Direct<T>& p) {
  const int64_t blocks = direct_blocks(p.rows[0], p.rows[1]);
  double sum[2];
  for (int term = 0; term < 2; ++term) {
    double own = 0;
    for (int64_t block = threadIdx.x; block < blocks; block += kThreads) own += p.sums[term * blocks + block];
    sum[term] = reduce<kThreads>(own, Add());
  }
  if (threadIdx.x == 0) p.finish(sum[0], sum[1]);
}

// Returns K of a row of `side` and a row of the other side. If each term has its own plane, K is 0 in the plane of the
// other term.
template <typename T>
__device__ acc_t<T> coefficient(const Direct<T>& p, int side, int plane, int64_t row, int64_t other) {
  const int64_t i = side == 0 ? row : other, j = side == 0 ? other : row;
  const bool counts = !p.per_term || p.one_class(i, j) == (plane == 0);
  return counts ? p.coefficient[i * p.rows[1] + j] : acc_t<T>(0);
}

// Computes scale * sum_j k_ij (own_i - other_j) for kOwn rows, beginning with `first`, with one thread per column.
// Coefficients are staged in shared memory. Adding up sums of kPart rows keeps the rounding error small.
template <typename T>
__device__ void gradients_of_rows(const Direct<T>& p, int side, int plane, int64_t first) {
  using Acc = acc_t<T>;
  constexpr int kStaged = kThreads / kOwn, kPart = 16;
  __shared__ Acc k[kStaged][kOwn];
  const Matrix<const T>&mine = p.features[side], &theirs = p.features[1 - side];
  const int64_t d = int64_t(blockIdx.y) * kThreads + threadIdx.x, others = p.rows[1 - side];
  const int staged = threadIdx.x % kStaged, of = threadIdx.x / kStaged;
  const bool inside = d < p.width;
  Acc own[kOwn] = {}, sum[kOwn] = {};
  for (int r = 0; inside && r < kOwn; ++r) own[r] = load(row_or_last(p, side, first + r)[d * mine.column_stride]);
  for (int64_t begin = 0; begin < others; begin += kStaged) {
    const int count = others - begin < kStaged ? int(others - begin) : kStaged;
    __syncthreads();  // the previous coefficients have been read
    if (staged < count && first + of < p.rows[side]) {
      k[staged][of] = coefficient(p, side, plane, first + of, begin + staged);
    } else {
      k[staged][of] = Acc(0);
    }
    __syncthreads();
    for (int from = 0; inside && from < count; from += kPart) {
      const int to = from + kPart < count ? from + kPart : count;
      Acc part[kOwn] = {};
#pragma unroll 8
      for (int j = from; j < to; ++j) {
        const Acc other = load(theirs.row(begin + j)[d * theirs.column_stride]);
#pragma unroll
        for (int r = 0; r < kOwn; ++r) part[r] += k[j][r] * (own[r] - other);
      }
      for (int r = 0; r < kOwn; ++r) sum[r] += part[r];
    }
  }
  for (int r = 0; inside && r < kOwn && first + r < p.rows[side]; ++r) {
    p.gradient[side][(plane * p.rows[side] + first + r) * p.width + d] = Acc(p.scale) * sum[r];
  }
}

// The number of groups of kOwn rows whose gradients are computed.
template <typename T>
FASTCCSA_HOST_DEVICE int64_t groups_of(const Direct<T>& p, int side) {
  return p.gradient[side] == nullptr ? 0 : (p.rows[side] + kOwn - 1) / kOwn;
}

// Block (0, 0) adds up the terms. Block (1 + g, y) computes the gradients of group g in chunk y of the columns.
template <typename T>
__global__ void __launch_bounds__(kThreads) direct_gradients_kernel(const Direct<T> p) {
  if (blockIdx.x == 0) {
    if (blockIdx.y == 0) finish_terms(p);
    return;
  }
  const int64_t group = int64_t(blockIdx.x) - 1, of_first = groups_of(p, 0);
  const int side = group < of_first ? 0 : 1;
  const int64_t first = (side == 0 ? group : group - of_first) * kOwn;
  for (int plane = 0; plane < (p.per_term ? 2 : 1); ++plane) gradients_of_rows(p, side, plane, first);
}

}  // namespace fastccsa::all_pairs::cuda

// The kernels that find the means of classes, the spread of their rows, alignment, and the common centre.
//
// The sum of |z - mean|^2 must not be the difference of two large numbers. Up to kBatch rows are added up around the
// first of them, s: sum |z - mean|^2 = sum |z - s|^2 - |sum (z - s)|^2 / n. Since s is one of the rows, the first sum
// is at most n + 1 times the result, and usually twice. Batches, and later the parts of a class, are added up in the
// same way in float64, where factors up to the number of rows do no harm.
#pragma once

#include "all_pairs/cuda/prepare_params.h"
#include "core/cuda_memory.cuh"
#include "core/cuda_reduce.cuh"

namespace fastccsa::all_pairs::cuda {

using namespace fastccsa::cuda;

// The rows whose values a warp loads at the same time.
constexpr int kBatch = 8;

template <typename T>
__device__ bool has_pairs(const SortedSides<T>& p, int64_t c) {
  return p.offset[0][c] < p.offset[0][c + 1] && p.offset[1][c] < p.offset[1][c + 1];
}

template <typename T>
__device__ int64_t place_of(const Means<T>& means, int64_t c) {
  return means.place == nullptr ? c : means.place[c];
}

// The sums of a lane for one run: consecutive sorted rows of one class. `Part` is the type of sums over a batch.
template <typename T, bool kPacked>
class RunSums {
 public:
  using Part = mean_t<T>;
  static constexpr int kSize = Pack<T>::kSize;

  __device__ RunSums(int64_t width, int64_t column_block, int lane)
      : width_(width), first_(column_block * kWarpColumns<T> + (kPacked ? lane * kSize : lane)) {}

  __device__ int64_t column(int e) const { return first_ + (kPacked ? e : e * kWarp); }
  __device__ bool inside(int e) const { return column(e) < width_; }

  __device__ Pack<T> load_row(Vector<const T> row) const {
    Pack<T> values{};
    if (kPacked) {
      if (inside(0)) values = load_pack(row.data + first_);
    } else {
#pragma unroll
      for (int e = 0; e < kSize; ++e) {
        if (inside(e)) values.value[e] = row[column(e)];
      }
    }
    return values;
  }

  // Begins a batch with its first row, which may also be the first row of the run.
  __device__ void begin_batch(const Pack<T>& row, bool begins_run) {
    shift_ = row;
    batch_ = 1;
    part_squares_ = 0;
#pragma unroll
    for (int e = 0; e < kSize; ++e) part_[e] = 0;
    if (!begins_run) return;
    rows_ = 0;
    squares_ = 0;
#pragma unroll
    for (int e = 0; e < kSize; ++e) {
      origin_[e] = double(load(row.value[e]));
      sum_[e] = 0;
    }
  }

  __device__ void add(const Pack<T>& row) {
    ++batch_;
#pragma unroll
    for (int e = 0; e < kSize; ++e) {
      const Part difference = Part(load(row.value[e])) - Part(load(shift_.value[e]));
      part_[e] += difference;
      part_squares_ += difference * difference;
    }
  }

  __device__ void end_batch() {
    const double count = batch_, share = 1 / count;
    squares_ += double(part_squares_);
#pragma unroll
    for (int e = 0; e < kSize; ++e) {
      const double sum = double(part_[e]), from_shift = sum * share;
      const double from_origin = double(load(shift_.value[e])) - origin_[e] + from_shift;
      squares_ += count * from_origin * from_origin - sum * from_shift;
      sum_[e] += count * from_origin;
    }
    rows_ += batch_;
  }

  __device__ double total(int e) const { return double(rows_) * origin_[e] + sum_[e]; }

  // Ends the run: sets the mean of each column, and returns the sum of |z - mean|^2 over all columns of the lane.
  __device__ double finish(double (&mean)[kSize]) const {
    const double share = 1 / double(rows_);
    double squares = squares_;
#pragma unroll
    for (int e = 0; e < kSize; ++e) {
      const double from_origin = sum_[e] * share;
      mean[e] = origin_[e] + from_origin;
      squares -= sum_[e] * from_origin;
    }
    return squares;
  }

 private:
  const int64_t width_, first_;
  int rows_, batch_;                              // of the run, without the batch; of the batch
  Pack<T> shift_;                                 // the first row of the batch
  Part part_[kSize], part_squares_;               // sums around it
  double origin_[kSize], sum_[kSize], squares_;   // the first row of the run, and the sums around it
};

// What a warp knows about the next kWarp sorted rows: each lane loads it for one row. Bits are by lane.
struct WarpRows {
  int order, place;
  int64_t label;
  unsigned begins, ends;  // whether the row is the first and the last one of its class
  unsigned paired;        // whether its class has rows on both sides
};

template <typename T>
__device__ WarpRows load_rows(const SortedSides<T>& p, int side, int64_t first, int64_t last, int lane) {
  WarpRows rows{};
  bool begins = false, ends = false, paired = false;
  const int64_t k = first + lane;
  if (k < last) {
    rows.order = int(p.side[side].order[k]);
    rows.label = p.side[side].label[k];
    begins = p.offset[side][rows.label] == k;
    ends = p.offset[side][rows.label + 1] == k + 1;
    paired = p.offset[1 - side][rows.label] < p.offset[1 - side][rows.label + 1];
    if (paired) rows.place = int(place_of(p.means, rows.label));
  }
  rows.begins = __ballot_sync(kAllLanes, begins);
  rows.ends = __ballot_sync(kAllLanes, ends);
  rows.paired = __ballot_sync(kAllLanes, paired);
  return rows;
}

// Stores the sums of a run that began in this chunk or not, and ends its class or continues in the next chunk.
template <typename T, bool kPacked>
__device__ void store_run(const ClassSums<T>& p, const RunSums<T, kPacked>& run, int side, int64_t chunk, bool begins,
                          bool ends, int64_t label, int place, int lane) {
  constexpr int kSize = Pack<T>::kSize, kParts = kWarpColumns<T> / kChunkColumns;
  double mean[kSize];
  const double spread = reduce<kWarp>(run.finish(mean), Add());
  if (begins && ends) {
    mean_t<T>* to = p.means.mean[side] + int64_t(place) * p.width;
#pragma unroll
    for (int e = 0; e < kSize; ++e) {
      if (run.inside(e)) to[run.column(e)] = mean_t<T>(mean[e]);
    }
    const int64_t parts = column_parts(p.width), part = int64_t(blockIdx.y) * kParts + lane;
    if (lane < kParts && part < parts) p.spread[side][label * parts + part] = lane == 0 ? spread : 0.0;
    return;
  }
  const int64_t slot = 2 * chunk + (begins ? 1 : 0);
  double* to = p.part[side] + slot * p.width;
#pragma unroll
  for (int e = 0; e < kSize; ++e) {
    if (run.inside(e)) to[run.column(e)] = mean[e];
  }
  if (lane == 0) p.part_spread[side][slot * gridDim.y + blockIdx.y] = spread;
}

// One warp per chunk of rows, those of side 0 first, and block of columns.
template <typename T, bool kPacked>
__global__ void __launch_bounds__(kThreads) class_sums_kernel(const ClassSums<T> p) {
  constexpr int kSize = Pack<T>::kSize;
  const int lane = threadIdx.x % kWarp;
  const int64_t of_all = int64_t(blockIdx.x) * kWarps + threadIdx.x / kWarp;
  const int side = of_all >= p.chunks(0);
  const int64_t chunk = side == 0 ? of_all : of_all - p.chunks(0);
  if (chunk >= p.chunks(side)) return;
  const int64_t first = chunk * p.chunk_rows;
  const int64_t last = first + p.chunk_rows < p.rows[side] ? first + p.chunk_rows : p.rows[side];
  const bool all_rows = p.total != nullptr;
  RunSums<T, kPacked> run(p.width, blockIdx.y, lane);
  double total[kSize] = {};
  bool began = false, running = false;
  for (int64_t from = first; from < last; from += kWarp) {
    const WarpRows rows = load_rows(p, side, from, last, lane);
    const int count = last - from < kWarp ? int(last - from) : kWarp;
    const unsigned needed = all_rows ? kAllLanes : rows.paired;
    for (int batch = 0; batch < count; batch += kBatch) {
      const int batch_end = batch + kBatch < count ? batch + kBatch : count;
      Pack<T> values[kBatch];
#pragma unroll
      for (int i = 0; i < kBatch; ++i) {
        const int order = __shfl_sync(kAllLanes, rows.order, batch + i);
        if (batch + i < batch_end && (needed >> (batch + i) & 1) != 0) {
          values[i] = run.load_row(p.side[side].features.strided_row(order));
        }
      }
      // The batch consists of rows of one or more classes.
      for (int begin = batch, end; begin < batch_end; begin = end) {
        const int to_class_end = __ffs(int(rows.ends >> begin));
        const bool ends = to_class_end > 0 && begin + to_class_end <= batch_end;
        end = ends ? begin + to_class_end : batch_end;
        if ((needed >> begin & 1) == 0) continue;
        if (!running) began = (rows.begins >> begin & 1) != 0;
#pragma unroll
        for (int i = 0; i < kBatch; ++i) {
          if (batch + i < begin || batch + i >= end) continue;
          if (batch + i == begin) {
            run.begin_batch(values[i], !running);
          } else {
            run.add(values[i]);
          }
        }
        run.end_batch();
        running = !ends && from + end < last;
        if (running) continue;
        if (all_rows) {
#pragma unroll
          for (int e = 0; e < kSize; ++e) total[e] += run.total(e);
        }
        if ((rows.paired >> begin & 1) == 0) continue;
        const int64_t label = __shfl_sync(kAllLanes, rows.label, begin);
        const int place = __shfl_sync(kAllLanes, rows.place, begin);
        store_run(p, run, side, chunk, began, ends, label, place, lane);
      }
    }
  }
  if (!all_rows) return;
#pragma unroll
  for (int e = 0; e < kSize; ++e) {
    if (run.inside(e)) p.total[of_all * p.width + run.column(e)] = total[e];
  }
}

// ---- the parts of classes ----

// In the kernels below, a block has kChunkColumns threads for that many columns, this many times.
constexpr int kPartGroups = kThreads / kChunkColumns;

// Returns the sum of one column's values over the groups of a block, in the order of the groups.
__device__ inline double over_part_groups(double value) {
  __shared__ double of_group[kPartGroups][kChunkColumns];
  const int column = threadIdx.x % kChunkColumns;
  __syncthreads();  // the values of the previous sum have been read
  of_group[threadIdx.x / kChunkColumns][column] = value;
  __syncthreads();
  double sum = 0;
  for (int g = 0; g < kPartGroups; ++g) sum += of_group[g][column];
  return sum;
}

// Block (x, y): chunk x, those of side 0 first, and chunk y of columns. Adds up the parts of the class that begins in
// the chunk and continues, if there is one.
template <typename T>
__global__ void __launch_bounds__(kThreads) class_parts_kernel(const ClassSums<T> p) {
  const int side = int64_t(blockIdx.x) >= p.chunks(0);
  const int64_t chunk = side == 0 ? int64_t(blockIdx.x) : int64_t(blockIdx.x) - p.chunks(0);
  const int64_t first = chunk * p.chunk_rows, last = first + p.chunk_rows;
  if (last >= p.rows[side]) return;
  const int64_t c = p.side[side].label[last - 1], begin = p.offset[side][c], end = p.offset[side][c + 1];
  if (begin < first || end <= last || !has_pairs(p, c)) return;

  const int group = threadIdx.x / kChunkColumns;
  const int64_t d = int64_t(blockIdx.y) * kChunkColumns + threadIdx.x % kChunkColumns;
  const int64_t last_chunk = (end - 1) / p.chunk_rows;
  const auto slot = [&](int64_t of) { return 2 * of + (of == chunk ? 1 : 0); };
  double origin = 0, sum = 0, squares = 0;
  if (d < p.width) {
    origin = p.part[side][slot(chunk) * p.width + d];
#pragma unroll 8
    for (int64_t of = chunk + group; of <= last_chunk; of += kPartGroups) {
      const int64_t from = of == chunk ? begin : of * p.chunk_rows;
      const int64_t to = of == last_chunk ? end : (of + 1) * p.chunk_rows;
      const double difference = p.part[side][slot(of) * p.width + d] - origin;
      sum += double(to - from) * difference;
      squares += double(to - from) * difference * difference;
    }
  }
  sum = over_part_groups(sum);
  if (group == 0 && d < p.width) {
    const double from_origin = sum / double(end - begin);
    squares -= sum * from_origin;
    p.means.mean[side][place_of(p.means, c) * p.width + d] = mean_t<T>(origin + from_origin);
  }
  // The spreads of parts are sums over more columns than this block has: its first chunk of columns adds them.
  constexpr int kParts = kWarpColumns<T> / kChunkColumns;
  if (blockIdx.y % kParts == 0) {
    const int64_t blocks = ceil_divide(p.width, kWarpColumns<T>);
    for (int64_t of = chunk + threadIdx.x; of <= last_chunk; of += kThreads) {
      squares += p.part_spread[side][slot(of) * blocks + blockIdx.y / kParts];
    }
  }
  squares = reduce<kThreads>(squares, Add());
  if (threadIdx.x == 0) p.spread[side][c * gridDim.y + blockIdx.y] = squares;
}

// ---- alignment ----

// One warp per class.
template <typename T>
__device__ void align_class(const AlignClasses<T>& p, int64_t c, int lane) {
  if (c >= p.classes) return;
  double between = 0;
  const bool paired = p.has_pairs(c);
  if (paired) {
    const int64_t place = place_of(p.means, c) * p.width;
#pragma unroll 4
    for (int64_t d = lane; d < p.width; d += kWarp) {
      const double difference = double(p.means.mean[0][place + d]) - double(p.means.mean[1][place + d]);
      between += difference * difference;
    }
  }
  between = reduce<kWarp>(between, Add());
  if (lane != 0) return;
  if (paired) return p.finish_class(c, double(p.own_weight(c)), between);
  p.alignment[c] = p.coefficient[0][c] = p.coefficient[1][c] = 0;
}

template <typename T>
__device__ void find_centre(const AlignClasses<T>& p, int64_t column_chunk) {
  const int64_t d = column_chunk * kChunkColumns + threadIdx.x % kChunkColumns;
  double sum = 0;
#pragma unroll 8
  for (int64_t k = threadIdx.x / kChunkColumns; d < p.width && k < p.chunks; k += kPartGroups) {
    sum += p.total[k * p.width + d];
  }
  sum = over_part_groups(sum);
  if (threadIdx.x < kChunkColumns && d < p.width) p.set_centre(d, sum);
}

// Block 0 adds up the poison. Then come one warp per class, and one block per chunk of columns of the centre.
template <typename T>
__global__ void __launch_bounds__(kThreads) alignment_kernel(const AlignClasses<T> p) {
  using Acc = acc_t<T>;
  const int64_t block = int64_t(blockIdx.x) - 1, of_classes = ceil_divide(p.classes, kWarps);
  if (block >= of_classes) return find_centre(p, block - of_classes);
  if (block >= 0) return align_class(p, block * kWarps + threadIdx.x / kWarp, threadIdx.x % kWarp);
  Acc sum = 0;
  for (int64_t k = threadIdx.x; k < p.poison_blocks; k += kThreads) sum += p.poison_parts[k];
  sum = reduce<kThreads>(sum, Add());
  if (threadIdx.x == 0 && p.poison_blocks > 0) *p.poison = sum;
}

}  // namespace fastccsa::all_pairs::cuda

// Augmentation on CUDA. A block computes a tile of one image: a few of its rows, and as many columns as fit into shared
// memory (all of them, at the paper's sizes). First, it blends the rows of the crop under each row of the tile into
// floats in shared memory. Then each thread resamples one column, so that a column's weights are computed once,
// normalises the column and writes it.
#pragma once

#include "augment/params.h"
#include "core/cuda_memory.cuh"

#include <math_constants.h>

namespace fastccsa::augment::cuda {

using fastccsa::cuda::store;

constexpr int kThreads = 256;
constexpr int kRows = 8;    // per tile
constexpr int kSpan = 320;  // the maximum number of a window's columns under one tile
// The distance from one channel to the next, for which the threads of a warp that write a window's row use 32 different
// banks.
constexpr int kPlane = kSpan + 11;

// Columns [first, last) of the window.
struct Span {
  int first, last;
};

// Returns the window's columns under the tile's columns [begin, end).
__device__ inline Span span_of(const Filter& filter, int begin, int end) {
  const Taps a = filter.at(begin), b = filter.at(end - 1);
  const int a_last = a.first + a.count, b_last = b.first + b.count;
  return {a.first < b.first ? a.first : b.first, a_last > b_last ? a_last : b_last};
}

// Blends the window's rows under each row of the tile: `blended` is [kRows, 3, kPlane].
__device__ inline void blend(const Filter& filter, int y, int rows, const uint8_t* window, int64_t stride, Span span,
                             float* blended) {
  const int width = kChannels * (span.last - span.first);
  const uint8_t* left = window + kChannels * span.first;
  for (int r = 0; r < rows; ++r) {
    const Taps taps = filter.at(y + r);
    const float normaliser = filter.normaliser(taps);
    const uint8_t* source = left + taps.first * stride;
    for (int j = threadIdx.x; j < width; j += kThreads) {
      float sum = 0;
      for (int k = 0; k < taps.count; ++k) sum += filter.weight(taps, k) * float(source[k * stride + j]);
      blended[(r * kChannels + j % kChannels) * kPlane + j / kChannels] = sum * normaliser;
    }
  }
}

// Resamples one column of the tile: `sums` is [3, kRows].
__device__ inline void resample(const Filter& filter, int x, Span span, const float* blended, float* sums) {
  const Taps taps = filter.at(x);
  const float normaliser = filter.normaliser(taps);
#pragma unroll
  for (int s = 0; s < kChannels * kRows; ++s) sums[s] = 0;
  for (int k = 0; k < taps.count; ++k) {
    const float weight = filter.weight(taps, k) * normaliser;
    const float* column = blended + taps.first + k - span.first;
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
#pragma unroll
      for (int channel = 0; channel < kChannels; ++channel) {
        sums[channel * kRows + r] += weight * column[(r * kChannels + channel) * kPlane];
      }
    }
  }
}

// Writes kRows values that are neighbours in memory, 16 bytes at a time.
template <typename T>
__device__ inline void write_run(const T* values, T* to) {
  struct alignas(16) Pack {
    T value[16 / sizeof(T)];
  };
  constexpr int kSize = 16 / int(sizeof(T));
#pragma unroll
  for (int first = 0; first < kRows; first += kSize) {
    Pack pack;
#pragma unroll
    for (int j = 0; j < kSize; ++j) pack.value[j] = values[first + j];
    *reinterpret_cast<Pack*>(to + first) = pack;
  }
}

// Writes the pixels (y .. y + rows, x); positions are those before the transposition. `aligned` allows write_run.
template <typename T>
__device__ inline void write(const Batch<T>& p, const View& view, T* image, int y, int rows, int x, const float* sums,
                             bool aligned) {
  const int64_t down = view.transposed ? p.column_stride : p.row_stride;
  const int64_t along = view.transposed ? p.row_stride : p.column_stride;
#pragma unroll
  for (int channel = 0; channel < kChannels; ++channel) {
    T values[kRows];
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      const bool blank = view.transposed ? view.cutout.contains(x, y + r) : view.cutout.contains(y + r, x);
      const float value = sums[channel * kRows + r] * p.scale[channel] + p.shift[channel];
      store(values[r], blank ? p.fill[channel] : value);
    }
    T* to = image + channel * p.channel_stride + y * down + x * along;
    if (aligned && down == 1 && rows == kRows) {
      write_run(values, to);
    } else {
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
        if (r < rows) to[r * down] = values[r];
      }
    }
  }
}

// The grid is tiles x images. A tile has `columns` columns and kRows rows; tiles are numbered along rows of the image.
template <typename T>
__global__ void __launch_bounds__(kThreads) augment_kernel(Batch<T> p, int columns, bool aligned) {
  __shared__ float blended[kRows * kChannels * kPlane];
  const int across = (p.size + columns - 1) / columns;
  const int y = int(blockIdx.x) / across * kRows;
  const int begin = int(blockIdx.x) % across * columns;
  const int end = begin + columns < p.size ? begin + columns : p.size;
  const int rows = p.size - y < kRows ? p.size - y : kRows;
  const int64_t i = blockIdx.y;
  T* image = p.image(i);
  if (check_view(p, i) != Fault::kNone) {  // the same for every thread
    for (int x = begin + int(threadIdx.x); x < end; x += kThreads) {
      for (int r = 0; r < kRows * kChannels; ++r) {
        const int row = y + r / kChannels;
        if (row < p.size) {
          store(image[r % kChannels * p.channel_stride + row * p.row_stride + x * p.column_stride], float(CUDART_NAN));
        }
      }
    }
    return;
  }
  const View view = view_of(p, i);
  const Filter horizontal = view.horizontal(p.size);
  const Span span = span_of(horizontal, begin, end);
  blend(view.vertical(p.size), y, rows, window_of(p, view), int64_t(kChannels) * p.side, span, blended);
  __syncthreads();
  for (int x = begin + int(threadIdx.x); x < end; x += kThreads) {
    float sums[kChannels * kRows];
    resample(horizontal, x, span, blended, sums);
    write(p, view, image, y, rows, x, sums, aligned);
  }
}

}  // namespace fastccsa::augment::cuda

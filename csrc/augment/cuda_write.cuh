// How a block writes its tile of an image.
#pragma once

#include "augment/params.h"
#include "core/cuda_memory.cuh"

#include <math_constants.h>

namespace fastccsa::augment::cuda {

using fastccsa::cuda::load_words;
using fastccsa::cuda::store;
using fastccsa::cuda::Words;

constexpr int kThreads = 256;
constexpr int kRows = 16;       // of a tile
constexpr int kColumns = 128;   // of a tile, at most
constexpr int kRowsOfThread = kRows * kColumns / kThreads;

// The pixels of a tile before the transposition: rows [y, y + rows), columns [begin, end).
struct Tile {
  int y, rows, begin, end;
};

__device__ inline Tile tile_of(int across, int down, int size, int columns) {
  const int y = down * kRows, begin = across * columns;
  return {y, size - y < kRows ? size - y : kRows, begin, begin + columns < size ? begin + columns : size};
}

// One column of a thread's rows.
struct Pixels {
  float of[kChannels][kRowsOfThread];
};

// How an image lies in memory. With kPlanes and kPixels, everything is aligned so that 16 bytes can be written.
enum class Layout : int {
  kPlanes,  // one plane per channel, contiguous rows
  kPixels,  // the channels of a pixel are neighbours, and so are the pixels of a row
  kOther,
};

// Normalises pixels and cuts them out. Their column is x, and their first row is y.
template <typename T>
__device__ void finish(const Batch<T>& p, bool transposed, const Rectangle& cutout, int y, int x, Pixels& pixels) {
  const int column = transposed ? cutout.top : cutout.left, columns = transposed ? cutout.height : cutout.width;
  const int row = transposed ? cutout.left : cutout.top, rows = transposed ? cutout.width : cutout.height;
  const bool cut = x >= column && x < column + columns;
#pragma unroll
  for (int r = 0; r < kRowsOfThread; ++r) {
    const bool blank = cut && y + r >= row && y + r < row + rows;
#pragma unroll
    for (int c = 0; c < kChannels; ++c) {
      const float value = pixels.of[c][r] * p.scale[c] + p.shift[c];
      pixels.of[c][r] = blank ? p.fill[c] : value;
    }
  }
}

// Writes each value by itself.
template <typename T>
__device__ void write_values(const Batch<T>& p, bool transposed, T* image, const Tile& tile, int y, int x,
                             const Pixels& pixels) {
  const int64_t down = transposed ? p.column_stride : p.row_stride;
  const int64_t along = transposed ? p.row_stride : p.column_stride;
  if (x >= tile.end) return;
  T* to = image + y * down + x * along;
  const int rows = tile.y + tile.rows - y;
#pragma unroll
  for (int r = 0; r < kRowsOfThread; ++r) {
    if (r >= rows) break;
#pragma unroll
    for (int c = 0; c < kChannels; ++c) store(to[c * p.channel_stride + r * down], pixels.of[c][r]);
  }
}

// ---- through shared memory ----

// Runs of a tile's values that are neighbours in the image. In shared memory, 16 bytes separate two runs, so that the
// threads of a warp use different banks.
template <typename T, int kValues>
struct Run {
  static constexpr int kPack = 16 / sizeof(T);
  static constexpr int kPacks = kValues / kPack;
  static constexpr int kPitch = kValues + kPack;

  __device__ static void copy(const T* stage, int run, int pack, T* to) {
    *reinterpret_cast<Words*>(to + pack * kPack) = load_words(stage + run * kPitch + pack * kPack);
  }
};

// The values of a column of one channel, of a column of all channels, and of a row of all channels.
template <typename T>
using ColumnOfPlane = Run<T, kRows>;
template <typename T>
using ColumnOfPixels = Run<T, kRows * kChannels>;
template <typename T>
using RowOfPixels = Run<T, kColumns * kChannels>;

constexpr size_t kStage = kChannels * kColumns * ColumnOfPlane<float>::kPitch * sizeof(float);  // bytes
static_assert(kColumns * ColumnOfPixels<float>::kPitch * sizeof(float) <= kStage, "the stage is too small");
static_assert(kRows * RowOfPixels<float>::kPitch * sizeof(float) <= kStage, "the stage is too small");

// A transposed tile of planes: its columns are rows of the image.
template <typename T>
__device__ void write_columns_of_planes(const Batch<T>& p, T* image, const Tile& tile, int column, int group,
                                        const Pixels& pixels, T* stage) {
  using Run = ColumnOfPlane<T>;
#pragma unroll
  for (int c = 0; c < kChannels; ++c) {
    alignas(16) T values[kRowsOfThread];
#pragma unroll
    for (int r = 0; r < kRowsOfThread; ++r) store(values[r], pixels.of[c][r]);
    T* to = stage + (c * kColumns + column) * Run::kPitch + group * kRowsOfThread;
#pragma unroll
    for (int r = 0; r < kRowsOfThread; r += Run::kPack) *reinterpret_cast<Words*>(to + r) = load_words(values + r);
  }
  __syncthreads();
  const int packs = (tile.end - tile.begin) * Run::kPacks;
#pragma unroll
  for (int c = 0; c < kChannels; ++c) {
    for (int pack = threadIdx.x; pack < packs; pack += kThreads) {
      const int run = pack / Run::kPacks;
      Run::copy(stage, c * kColumns + run, pack % Run::kPacks,
                image + c * p.channel_stride + (tile.begin + run) * p.row_stride + tile.y);
    }
  }
}

// A transposed tile of pixels.
template <typename T>
__device__ void write_columns_of_pixels(const Batch<T>& p, T* image, const Tile& tile, int column, int group,
                                        const Pixels& pixels, T* stage) {
  using Run = ColumnOfPixels<T>;
  constexpr int kValues = kChannels * kRowsOfThread;
  alignas(16) T values[kValues];
#pragma unroll
  for (int v = 0; v < kValues; ++v) store(values[v], pixels.of[v % kChannels][v / kChannels]);
  T* to = stage + column * Run::kPitch + group * kValues;
#pragma unroll
  for (int v = 0; v < kValues; v += Run::kPack) *reinterpret_cast<Words*>(to + v) = load_words(values + v);
  __syncthreads();
  for (int pack = threadIdx.x; pack < (tile.end - tile.begin) * Run::kPacks; pack += kThreads) {
    const int run = pack / Run::kPacks;
    Run::copy(stage, run, pack % Run::kPacks, image + (tile.begin + run) * p.row_stride + kChannels * tile.y);
  }
}

// Writes a pack of 16 bytes from as many floats as it has values.
__device__ inline void write_pack(const float* from, float* to) {
  *reinterpret_cast<Words*>(to) = load_words(from);
}

__device__ inline void write_pack(const float* from, bfloat16* to) {
  float values[8];
  alignas(16) bfloat16 rounded[8];
  const Words low = load_words(from), high = load_words(from + 4);
  memcpy(values, &low, sizeof low);
  memcpy(values + 4, &high, sizeof high);
#pragma unroll
  for (int v = 0; v < 8; ++v) store(rounded[v], values[v]);
  *reinterpret_cast<Words*>(to) = load_words(rounded);
}

// A tile of pixels: its rows are parts of rows of the image. Their first and last columns are multiples of 8. They are
// staged as floats: single values of 2 bytes would take shared memory twice as long, and a conversion each.
template <typename T>
__device__ void write_rows_of_pixels(const Batch<T>& p, T* image, const Tile& tile, int column, int group,
                                     const Pixels& pixels, float* stage) {
  using Run = RowOfPixels<float>;
  constexpr int kPack = 16 / sizeof(T);
#pragma unroll
  for (int r = 0; r < kRowsOfThread; ++r) {
    float* to = stage + (group * kRowsOfThread + r) * Run::kPitch + column * kChannels;
#pragma unroll
    for (int c = 0; c < kChannels; ++c) to[c] = pixels.of[c][r];
  }
  __syncthreads();
  constexpr int kWarp = 32;
  const int packs = (tile.end - tile.begin) * kChannels / kPack;
  for (int r = threadIdx.x / kWarp; r < tile.rows; r += kThreads / kWarp) {
    T* to = image + (tile.y + r) * p.row_stride + kChannels * tile.begin;
    for (int pack = threadIdx.x % kWarp; pack < packs; pack += kWarp) {
      write_pack(stage + r * Run::kPitch + pack * kPack, to + pack * kPack);
    }
  }
}

// All threads of the block must call this together; `stage` may be in use until then.
template <typename T>
__device__ void write(const Batch<T>& p, Layout layout, bool transposed, T* image, const Tile& tile, int column,
                      int group, const Pixels& pixels, float* stage) {
  T* columns = reinterpret_cast<T*>(stage);
  if (layout != Layout::kOther && transposed && tile.rows == kRows) {
    __syncthreads();
    if (layout == Layout::kPlanes) {
      write_columns_of_planes(p, image, tile, column, group, pixels, columns);
    } else {
      write_columns_of_pixels(p, image, tile, column, group, pixels, columns);
    }
  } else if (layout == Layout::kPixels && !transposed && tile.begin % 8 == 0 && (tile.end - tile.begin) % 8 == 0) {
    __syncthreads();
    write_rows_of_pixels(p, image, tile, column, group, pixels, stage);
  } else {
    write_values(p, transposed, image, tile, tile.y + group * kRowsOfThread, tile.begin + column, pixels);
  }
}

}  // namespace fastccsa::augment::cuda

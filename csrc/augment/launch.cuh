// Divides a batch into blocks. `launch(kernel, tiles_across, tiles_down, images, arguments...)` starts the kernel with
// kThreads threads per block: on a GPU in cuda.cu, and on a CPU in the tests.
#pragma once

#include "augment/cuda_kernel.cuh"

#include <cstdint>

namespace fastccsa::augment::cuda {

constexpr int64_t kMaxImages = 65535;  // per launch: CUDA's limit on the depth of a grid, and on its height

// Returns the number of columns of a tile: as equal as possible, never needing more than kSpan columns of a crop, and a
// multiple of 8 if there is a choice.
inline int tile_columns(int side, int size) {
  const float step = side > size ? float(side) / float(size) : 1.0f;
  const int fitting = int((float(kSpan) - 2 * step - 5) / step), most = fitting < kColumns ? fitting : kColumns;
  const int tiles = (size + most - 1) / most, equal = (size + tiles - 1) / tiles, rounded = (equal + 7) / 8 * 8;
  return rounded <= most ? rounded : equal;
}

constexpr int64_t kManyBlocks = 2048;  // keep a GPU busy

// Returns the number of tiles of a block: as many as leave enough blocks.
inline int tiles_of_block(int most, unsigned across, unsigned down, int64_t images, int64_t enough) {
  int tiles = most;
  while (tiles > 1 && int64_t(across) * ((down + tiles - 1) / tiles) * images < enough) tiles /= 2;
  return tiles;
}

template <typename T>
Layout layout_of(const Batch<T>& p) {
  const auto fits = [](int64_t stride) { return stride * int64_t(sizeof(T)) % 16 == 0; };
  if (reinterpret_cast<uintptr_t>(p.images) % 16 != 0 || !fits(p.image_stride) || !fits(p.row_stride)) {
    return Layout::kOther;
  }
  if (p.column_stride == 1 && fits(p.channel_stride)) return Layout::kPlanes;
  return p.channel_stride == 1 && p.column_stride == kChannels ? Layout::kPixels : Layout::kOther;
}

// `enough` is a number of blocks; tests choose their own, so that a block of a small batch has several tiles.
template <typename T, typename Launch>
void launch_augment(Batch<T> p, Launch launch, int64_t enough = kManyBlocks) {
  const int columns = tile_columns(p.side, p.size);
  const unsigned across = unsigned((p.size + columns - 1) / columns), down = unsigned((p.size + kRows - 1) / kRows);
  const bool aligned_rows = p.side % 4 == 0 && reinterpret_cast<uintptr_t>(p.store) % 4 == 0;
  // A little less than 1.5, so that rounding cannot add a fourth tap; and a crop of at most 2^31 bytes.
  const bool few_taps = float(p.side) <= 1.49f * float(p.size) && p.side <= 1 << 14;
  const int most_tiles = few_taps ? kMostTiles<kFewTaps> : kMostTiles<kMaxTaps>;
  const auto kernel = few_taps ? &augment_kernel<T, kFewTaps> : &augment_kernel<T, kMaxTaps>;
  const int64_t count = p.count;
  for (int64_t first = 0; first < count; first += kMaxImages) {
    const int64_t images = count - first < kMaxImages ? count - first : kMaxImages;
    const int tiles = tiles_of_block(most_tiles, across, down, images, enough);
    launch(kernel, across, (down + tiles - 1) / tiles, unsigned(images), p, columns, tiles, layout_of(p), aligned_rows);
    p.images += images * p.image_stride;
    for (Numbers* numbers : {&p.rows, &p.windows, &p.symmetries, &p.cutouts}) numbers->data += images * numbers->stride;
  }
}

}  // namespace fastccsa::augment::cuda

// Divides a batch into blocks. `launch(kernel, blocks_across, blocks_down, arguments...)` starts the kernel with
// kThreads threads per block: on a GPU in cuda.cu, and on a CPU in the tests.
#pragma once

#include "augment/cuda_kernel.cuh"

#include <cstdint>

namespace fastccsa::augment::cuda {

constexpr int64_t kMaxImages = 65535;  // per launch: CUDA's limit on the height of a grid

// Returns the largest number of columns of a tile that never needs more than kSpan columns of a window.
inline int tile_columns(int side, int size) {
  const float step = side > size ? float(side) / float(size) : 1.0f;
  const int columns = int((float(kSpan) - 2 * step - 2) / step);
  return columns < size ? columns : size;
}

// Whether the runs of kRows pixels of a transposed image begin at multiples of 16 bytes.
template <typename T>
bool aligned(const Batch<T>& p) {
  const auto fits = [](int64_t stride) { return stride * int64_t(sizeof(T)) % 16 == 0; };
  return reinterpret_cast<uintptr_t>(p.images) % 16 == 0 && fits(p.image_stride) && fits(p.channel_stride) &&
         fits(p.row_stride);
}

template <typename T, typename Launch>
void launch_augment(Batch<T> p, Launch launch) {
  const int columns = tile_columns(p.side, p.size);
  const int tiles = (p.size + columns - 1) / columns * ((p.size + kRows - 1) / kRows);
  const int64_t count = p.count;
  for (int64_t first = 0; first < count; first += kMaxImages) {
    const int64_t images = count - first < kMaxImages ? count - first : kMaxImages;
    launch(&augment_kernel<T>, unsigned(tiles), unsigned(images), p, columns, aligned(p));
    p.images += images * p.image_stride;
    for (Numbers* numbers : {&p.rows, &p.windows, &p.symmetries, &p.cutouts}) numbers->data += images * numbers->stride;
  }
}

}  // namespace fastccsa::augment::cuda

// The parameters that the binding passes to a kernel: pointers, strides (in elements) and sizes, without torch's types.
#pragma once

#include "augment/math.h"

#include <cstdint>

namespace fastccsa::augment {

// The part of a view that is out of bounds.
enum class Fault : int32_t { kNone = 0, kRow, kWindow, kSymmetry, kCutout };

// Rows of int64 numbers, `stride` elements apart.
struct Numbers {
  const int64_t* data = nullptr;
  int64_t stride = 0;

  FASTCCSA_HOST_DEVICE const int64_t* operator[](int64_t i) const { return data + i * stride; }
};

template <typename T>
struct Batch {
  const uint8_t* store = nullptr;  // [crops, side, side, 3]
  int64_t crops = 0;
  int side = 0;

  int64_t count = 0;   // images
  Numbers rows;        // of the store
  Numbers windows;     // top, left, height, width
  Numbers symmetries;  // bits: see math.h
  Numbers cutouts;     // top, left, height, width

  T* images = nullptr;
  int size = 0;
  int64_t image_stride = 0, channel_stride = 0, row_stride = 0, column_stride = 0;

  float scale[kChannels] = {};  // a byte b becomes b * scale + shift
  float shift[kChannels] = {};
  float fill[kChannels] = {};   // of the cutout, normalised

  FASTCCSA_HOST_DEVICE T* image(int64_t i) const { return images + i * image_stride; }
};

FASTCCSA_HOST_DEVICE bool inside(const int64_t* r, int64_t side) {
  return r[0] >= 0 && r[1] >= 0 && r[2] >= 0 && r[3] >= 0 && r[0] <= side && r[1] <= side && r[2] <= side - r[0] &&
         r[3] <= side - r[1];
}

FASTCCSA_HOST_DEVICE Rectangle rectangle(const int64_t* r) { return {int(r[0]), int(r[1]), int(r[2]), int(r[3])}; }

// Returns what is out of bounds. Reads nothing out of bounds itself, whatever the numbers are.
template <typename T>
FASTCCSA_HOST_DEVICE Fault check_view(const Batch<T>& p, int64_t i) {
  const int64_t *window = p.windows[i], row = *p.rows[i], symmetry = *p.symmetries[i];
  if (row < 0 || row >= p.crops) return Fault::kRow;
  if (!inside(window, p.side) || window[2] == 0 || window[3] == 0) return Fault::kWindow;
  if (symmetry < 0 || symmetry >= kSymmetries) return Fault::kSymmetry;
  return inside(p.cutouts[i], p.size) ? Fault::kNone : Fault::kCutout;
}

// The view must have been checked.
template <typename T>
FASTCCSA_HOST_DEVICE View view_of(const Batch<T>& p, int64_t i) {
  const int64_t symmetry = *p.symmetries[i];
  return {*p.rows[i],
          rectangle(p.windows[i]),
          (symmetry & kUpsideDown) != 0,
          (symmetry & kMirrored) != 0,
          (symmetry & kTransposed) != 0,
          rectangle(p.cutouts[i])};
}

// The first byte of a view's window, whose rows are 3 * side bytes apart.
template <typename T>
FASTCCSA_HOST_DEVICE const uint8_t* window_of(const Batch<T>& p, const View& view) {
  return p.store + ((view.row * p.side + view.window.top) * p.side + view.window.left) * kChannels;
}

}  // namespace fastccsa::augment

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

// The numbers of a view as the caller passed them.
struct Request {
  int64_t row, window[4], symmetry, cutout[4];
};

// Reads everything at once, so that a GPU waits for its memory only once.
template <typename T>
FASTCCSA_HOST_DEVICE Request request_of(const Batch<T>& p, int64_t i) {
  const int64_t *window = p.windows[i], *cutout = p.cutouts[i];
  return {*p.rows[i],
          {window[0], window[1], window[2], window[3]},
          *p.symmetries[i],
          {cutout[0], cutout[1], cutout[2], cutout[3]}};
}

// Returns what is out of bounds.
template <typename T>
FASTCCSA_HOST_DEVICE Fault check_view(const Batch<T>& p, const Request& request) {
  if (request.row < 0 || request.row >= p.crops) return Fault::kRow;
  if (!inside(request.window, p.side) || request.window[2] == 0 || request.window[3] == 0) return Fault::kWindow;
  if (request.symmetry < 0 || request.symmetry >= kSymmetries) return Fault::kSymmetry;
  return inside(request.cutout, p.size) ? Fault::kNone : Fault::kCutout;
}

// The view must have been checked.
FASTCCSA_HOST_DEVICE View view_of(const Request& request) {
  return {request.row,
          rectangle(request.window),
          (request.symmetry & kUpsideDown) != 0,
          (request.symmetry & kMirrored) != 0,
          (request.symmetry & kTransposed) != 0,
          rectangle(request.cutout)};
}

// The first byte of a view's window, whose rows are 3 * side bytes apart.
template <typename T>
FASTCCSA_HOST_DEVICE const uint8_t* window_of(const Batch<T>& p, const View& view) {
  return p.store + ((view.row * p.side + view.window.top) * p.side + view.window.left) * kChannels;
}

}  // namespace fastccsa::augment

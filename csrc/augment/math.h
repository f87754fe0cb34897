// The mathematics of an augmented image: which samples of a stored crop contribute to a pixel, their weights, and
// where the symmetry puts the pixel. The CPU kernel and the CUDA kernel share it.
//
// Resampling uses the antialiased bilinear filter of Pillow, DALI and torchvision: a triangle that reaches one sample
// to either side, or one output pixel when shrinking. It is cut off at the window's border and normalised to a sum of
// 1.
#pragma once

#include "core/macros.h"

#include <cstdint>

namespace fastccsa::augment {

constexpr int kChannels = 3;
constexpr int kMaxShrink = 8;                 // the side of a window divided by the image's
constexpr int kMaxTaps = 2 * kMaxShrink + 1;  // per pixel, along one axis

// The samples of a window that contribute to a pixel: [first, first + count).
struct Taps {
  int first;
  int count;
  float centre;  // of the pixel; sample k has the centre k + 0.5
};

// Resampling along one axis to `size` pixels, backwards if mirrored: either of all `length` samples, or of `extent`
// samples that begin at `start`. Both may be fractions. The filter then reads samples beyond the ends of the extent,
// but none outside [0, length).
struct Filter {
  int length;
  int size;
  bool backwards;
  float start;
  float step;
  float reach;
  float per_reach;  // 1 / reach

  Filter() = default;
  FASTCCSA_HOST_DEVICE Filter(int length, int size, bool backwards)
      : Filter(length, 0, float(length), size, backwards) {}
  FASTCCSA_HOST_DEVICE Filter(int length, float start, float extent, int size, bool backwards)
      : length(length), size(size), backwards(backwards), start(start), step(extent / float(size)),
        reach(step > 1 ? step : 1), per_reach(1 / reach) {}

  FASTCCSA_HOST_DEVICE Taps at(int position) const {
    const int place = backwards ? size - 1 - position : position;
    const float centre = start + (float(place) + 0.5f) * step;
    // Conversion to int rounds towards 0. This is also right for a negative `first`, which becomes 0 below.
    const int first = int(centre - reach + 0.5f), last = int(centre + reach + 0.5f);
    const int start = first < 0 ? 0 : first;
    return {start, (last < length ? last : length) - start, centre};
  }

  // The weight of a sample before normalisation.
  FASTCCSA_HOST_DEVICE float weight(const Taps& taps, int k) const {
    const float distance = (float(taps.first + k) + 0.5f - taps.centre) * per_reach;
    const float height = 1.0f - (distance < 0 ? -distance : distance);
    return height > 0 ? height : 0.0f;
  }

  FASTCCSA_HOST_DEVICE float normaliser(const Taps& taps) const {
    float sum = 0;
    for (int k = 0; k < taps.count; ++k) sum += weight(taps, k);
    return 1.0f / sum;
  }
};

// Pixels of an image or a crop.
struct Rectangle {
  int top, left, height, width;

  FASTCCSA_HOST_DEVICE bool contains(int row, int column) const {
    return row >= top && row < top + height && column >= left && column < left + width;
  }
};

// The bits of a symmetry of the square. Flips are applied before the transposition.
constexpr int64_t kUpsideDown = 1, kMirrored = 2, kTransposed = 4, kSymmetries = 8;

// A picture, and the region of it that becomes an image, in pixels with 0 <= top < bottom <= height, 0 <= left < right
// <= width.
struct Picture {
  const uint8_t* pixels;  // [height, width, 3]
  int height, width;
  float top, left, bottom, right;
};

// How one image is made from a crop.
struct View {
  int64_t row;       // of the store
  Rectangle window;  // of the crop
  bool upside_down, mirrored, transposed;
  Rectangle cutout;  // of the finished image

  FASTCCSA_HOST_DEVICE Filter vertical(int size) const { return {window.height, size, upside_down}; }
  FASTCCSA_HOST_DEVICE Filter horizontal(int size) const { return {window.width, size, mirrored}; }
};

}  // namespace fastccsa::augment

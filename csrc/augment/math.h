// The mathematics of an augmented image: which pixels of a stored crop one of its pixels is made of, with what weights,
// and where the symmetry puts it. The CPU and the CUDA kernel share it.
//
// Resampling is Pillow's, DALI's and torchvision's antialiased bilinear filter: a triangle that reaches one sample to
// either side, or when shrinking one output pixel, cut off at the window's border and normalised to a sum of 1.
#pragma once

#include "core/macros.h"

#include <cstdint>

namespace fastccsa::augment {

constexpr int kChannels = 3;
constexpr int kMaxShrink = 8;                // a window's side over the image's
constexpr int kMaxTaps = 2 * kMaxShrink + 1;  // that a pixel is made of, along one axis

// The samples [first, first + count) of a window.
struct Taps {
  int first;
  int count;
  float centre;  // in samples; that of sample k is k + 0.5
};

// Resampling to `size`, along one axis, perhaps backwards: of all of `length` samples, or of `extent` of them from
// `start` on, both of which may be fractions; then it reaches over the ends of the extent, but not of the samples.
struct Filter {
  int length;
  int size;
  bool backwards;
  float start;
  float step;
  float reach;

  FASTCCSA_HOST_DEVICE Filter(int length, int size, bool backwards) : Filter(length, 0, float(length), size, backwards) {}
  FASTCCSA_HOST_DEVICE Filter(int length, float start, float extent, int size, bool backwards)
      : length(length), size(size), backwards(backwards), start(start), step(extent / float(size)),
        reach(step > 1 ? step : 1) {}

  FASTCCSA_HOST_DEVICE Taps at(int position) const {
    const int place = backwards ? size - 1 - position : position;
    const float centre = start + (float(place) + 0.5f) * step;
    // Conversion rounds towards 0, which for the negative first sample is where it is cut off.
    const int first = int(centre - reach + 0.5f), last = int(centre + reach + 0.5f);
    const int start = first < 0 ? 0 : first;
    return {start, (last < length ? last : length) - start, centre};
  }

  // Before normalisation.
  FASTCCSA_HOST_DEVICE float weight(const Taps& taps, int k) const {
    const float distance = (float(taps.first + k) + 0.5f - taps.centre) / reach;
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

// Bits of a symmetry of the square: the flips come first.
constexpr int64_t kUpsideDown = 1, kMirrored = 2, kTransposed = 4, kSymmetries = 8;

// A picture, and the part of it that becomes an image, in its pixels: 0 <= top < bottom <= height, likewise across.
struct Picture {
  const uint8_t* pixels;  // [height, width, 3]
  int height, width;
  float top, left, bottom, right;
};

// How one image is seen.
struct View {
  int64_t row;       // of the store
  Rectangle window;  // of the crop
  bool upside_down, mirrored, transposed;
  Rectangle cutout;  // of the finished image

  FASTCCSA_HOST_DEVICE Filter vertical(int size) const { return {window.height, size, upside_down}; }
  FASTCCSA_HOST_DEVICE Filter horizontal(int size) const { return {window.width, size, mirrored}; }
};

}  // namespace fastccsa::augment

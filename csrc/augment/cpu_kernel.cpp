// Augmentation on the CPU, one image at a time and a few of its rows at a time, all in the first-level cache: the rows
// of the window under one row of the image are blended, the blended row is resampled, and the result is normalised when
// it is written. This file is compiled once for each instruction set: FASTCCSA_ISA names it.
#include "augment/cpu.h"
#include "core/simd.h"

#include <algorithm>
#include <memory>
#include <vector>

namespace fastccsa::augment::cpu::FASTCCSA_ISA {
namespace {

using namespace fastccsa::FASTCCSA_ISA;

// Rows that are computed before they are written, so that a transposed image is written in whole cache lines.
constexpr int kRows = 16;

// The buffers of one thread, for images of one size.
struct Scratch {
  std::vector<float> blended;    // a row of the window with interleaved channels, with space for taps beyond its end
  std::vector<float> strip;      // [3, kRows, size]: resampled rows
  std::vector<int32_t> first;    // [size]: where each pixel's taps begin in `blended`
  std::vector<float> weights;    // [taps, size]
  int taps = 0;

  // For up to `length` samples per row, and `most` taps per pixel.
  Scratch(int length, int size, int most)
      : blended(kChannels * (length + most)), strip(kChannels * kRows * size), first(size), weights(most * size) {}

  void set(const Filter& filter) {
    taps = 0;
    for (int x = 0; x < filter.size; ++x) taps = std::max(taps, filter.at(x).count);
    for (int x = 0; x < filter.size; ++x) {
      const Taps here = filter.at(x);
      const float normaliser = filter.normaliser(here);
      first[x] = kChannels * here.first;
      for (int k = 0; k < taps; ++k) {
        weights[k * filter.size + x] = k < here.count ? filter.weight(here, k) * normaliser : 0.0f;
      }
    }
    // Taps of weight 0 may lie beyond the window, and must not read NaN.
    std::fill_n(blended.begin() + kChannels * filter.length, kChannels * taps, 0.0f);
  }
};

// Computes the weighted mean of the window's rows under one row of the image; rows have `width` bytes.
void blend(const Filter& filter, int position, const uint8_t* window, int64_t stride, int width, float* blended) {
  const Taps taps = filter.at(position);
  const float normaliser = filter.normaliser(taps);
  const uint8_t* source = window + taps.first * stride;
  const auto weight = [&](int k) { return k < taps.count ? filter.weight(taps, k) * normaliser : 0.0f; };
  const float first = weight(0), second = weight(1);
  const uint8_t* next = taps.count > 1 ? source + stride : source;
  for (int j = 0; j < width; ++j) blended[j] = first * float(source[j]) + second * float(next[j]);
  for (int k = 2; k < taps.count; ++k) {
    const uint8_t* further = source + k * stride;
    const float w = weight(k);
    for (int j = 0; j < width; ++j) blended[j] += w * float(further[j]);
  }
}

// Computes one channel of a row of the image.
void resample(const Scratch& scratch, int channel, int size, float* __restrict to) {
  const float* from = scratch.blended.data() + channel;
  const int32_t* first = scratch.first.data();
  const float* weights = scratch.weights.data();
  for (int x = 0; x < size; ++x) to[x] = weights[x] * from[first[x]];
  for (int k = 1; k < scratch.taps; ++k) {
    from += kChannels;
    weights += size;
    for (int x = 0; x < size; ++x) to[x] += weights[x] * from[first[x]];
  }
}

template <typename T>
void write_line(const float* __restrict from, int count, float scale, float shift, T* __restrict to) {
  int x = 0;
  for (; x + kFloats <= count; x += kFloats) store_vector(to + x, load_vector(from + x) * scale + shift);
  for (; x < count; ++x) store(to[x], from[x] * scale + shift);
}

// Writes the strip to rows [y, y + rows) of the image, or to columns if the image is transposed.
template <typename T>
void write(const Batch<T>& p, const float* strip, int y, int rows, bool transposed, T* image) {
  const int64_t down = transposed ? p.column_stride : p.row_stride;
  const int64_t along = transposed ? p.row_stride : p.column_stride;
  for (int channel = 0; channel < kChannels; ++channel) {
    const float* from = strip + channel * kRows * p.size;
    const float scale = p.scale[channel], shift = p.shift[channel];
    T* to = image + channel * p.channel_stride + y * down;
    if (along == 1) {
      for (int r = 0; r < rows; ++r) write_line(from + r * p.size, p.size, scale, shift, to + r * down);
    } else if (transposed) {
      for (int x = 0; x < p.size; ++x) {
        for (int r = 0; r < rows; ++r) store(to[x * along + r * down], from[r * p.size + x] * scale + shift);
      }
    } else {
      for (int r = 0; r < rows; ++r) {
        for (int x = 0; x < p.size; ++x) store(to[x * along + r * down], from[r * p.size + x] * scale + shift);
      }
    }
  }
}

template <typename T>
void blank(const Batch<T>& p, const Rectangle& cutout, T* image) {
  for (int channel = 0; channel < kChannels; ++channel) {
    for (int row = cutout.top; row < cutout.top + cutout.height; ++row) {
      T* to = image + channel * p.channel_stride + row * p.row_stride + cutout.left * p.column_stride;
      for (int x = 0; x < cutout.width; ++x) store(to[x * p.column_stride], p.fill[channel]);
    }
  }
}

// Makes one image from rows of pixels that are `stride` bytes apart.
template <typename T>
void make(const Batch<T>& p, const View& view, const Filter& vertical, const Filter& horizontal, const uint8_t* pixels,
          int64_t stride, Scratch& scratch, T* image) {
  scratch.set(horizontal);
  for (int y = 0; y < p.size; y += kRows) {
    const int rows = std::min(kRows, p.size - y);
    for (int r = 0; r < rows; ++r) {
      blend(vertical, y + r, pixels, stride, kChannels * horizontal.length, scratch.blended.data());
      for (int channel = 0; channel < kChannels; ++channel) {
        resample(scratch, channel, p.size, &scratch.strip[(channel * kRows + r) * p.size]);
      }
    }
    write(p, scratch.strip.data(), y, rows, view.transposed, image);
  }
  blank(p, view.cutout, image);
}

template <typename T>
bool augment(const Batch<T>& p, int file, int64_t begin, int64_t end) {
  Scratch scratch(p.side, p.size, kMaxTaps);
  const int64_t stride = int64_t(kChannels) * p.side;
  // Only the rows of the window are read. They are still in this core's cache when they are resampled.
  const std::unique_ptr<uint8_t[]> rows(file < 0 ? nullptr : new uint8_t[std::size_t(p.side * stride)]);
  for (int64_t i = begin; i < end; ++i) {
    const View view = view_of(request_of(p, i));
    const uint8_t* window = nullptr;
    if (file < 0) {
      window = window_of(p, view);
    } else {
      const int64_t first = (view.row * p.side + view.window.top) * stride;
      if (!read_fully(file, rows.get(), view.window.height * stride, first)) return false;
      window = rows.get() + view.window.left * kChannels;
    }
    make(p, view, view.vertical(p.size), view.horizontal(p.size), window, stride, scratch, p.image(i));
  }
  return true;
}

template <typename T>
void augment_picture(const Batch<T>& p, const Picture& picture) {
  const View view = view_of(request_of(p, 0));
  const Filter vertical(picture.height, picture.top, picture.bottom - picture.top, p.size, view.upside_down);
  const Filter horizontal(picture.width, picture.left, picture.right - picture.left, p.size, view.mirrored);
  Scratch scratch(picture.width, p.size, 2 * int(horizontal.reach) + 3);
  make(p, view, vertical, horizontal, picture.pixels, int64_t(kChannels) * picture.width, scratch, p.images);
}

}  // namespace

}  // namespace fastccsa::augment::cpu::FASTCCSA_ISA

namespace fastccsa::augment::cpu {

template <Isa isa, typename T>
Kernel<T> kernel() {
  return &FASTCCSA_ISA::augment<T>;
}

template <Isa isa, typename T>
PictureKernel<T> picture_kernel() {
  return &FASTCCSA_ISA::augment_picture<T>;
}

template PictureKernel<float> picture_kernel<Isa::FASTCCSA_ISA, float>();
template PictureKernel<bfloat16> picture_kernel<Isa::FASTCCSA_ISA, bfloat16>();
template Kernel<float> kernel<Isa::FASTCCSA_ISA, float>();
template Kernel<bfloat16> kernel<Isa::FASTCCSA_ISA, bfloat16>();

}  // namespace fastccsa::augment::cpu

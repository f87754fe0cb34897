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

// Whether the channels of a pixel are neighbours in the image, and so are the pixels of a row.
template <typename T>
bool interleaved(const Batch<T>& p) {
  return p.channel_stride == 1 && p.column_stride == kChannels;
}

// The buffers of one thread, for images of one size. Rows of an image are computed in the order in which they lie in
// memory: as a line per channel, or as one line of all channels if they are interleaved.
struct Scratch {
  int lines, length;             // of a row: one line of 3 * size values, or three of size
  std::vector<float> blended;  // a row of the window with interleaved channels, with space for taps beyond its end
  std::vector<float> strip;    // [lines, kRows, length]: resampled rows
  std::vector<int32_t> first;  // [length]: where the taps of each value of a line begin in `blended`
  std::vector<float> weights;  // [taps, length]
  std::vector<float> scale[kChannels], shift[kChannels];  // of the values of each line, or of a column
  int taps = 0;

  // For up to `side` samples per row, and `most` taps per pixel.
  template <typename T>
  Scratch(const Batch<T>& p, int side, int most)
      : lines(interleaved(p) ? 1 : kChannels), length(kChannels / lines * p.size), blended(kChannels * (side + most)),
        strip(lines * kRows * length), first(length), weights(most * length) {
    for (int line = 0; line < lines; ++line) {
      for (int j = 0; j < std::max(length, kChannels * kRows); ++j) {
        const int channel = lines == 1 ? j % kChannels : line;
        scale[line].push_back(p.scale[channel]);
        shift[line].push_back(p.shift[channel]);
      }
    }
  }

  int channels() const { return kChannels / lines; }  // of a line

  void set(const Filter& filter) {
    const int channels = this->channels();
    taps = 0;
    for (int x = 0; x < filter.size; ++x) taps = std::max(taps, filter.at(x).count);
    for (int x = 0; x < filter.size; ++x) {
      const Taps here = filter.at(x);
      const float normaliser = filter.normaliser(here);
      for (int c = 0; c < channels; ++c) first[channels * x + c] = kChannels * here.first + c;
      for (int k = 0; k < taps; ++k) {
        const float weight = k < here.count ? filter.weight(here, k) * normaliser : 0.0f;
        std::fill_n(&weights[k * length + channels * x], channels, weight);
      }
    }
    // Taps of weight 0 may lie beyond the window, and must not read NaN.
    std::fill_n(blended.begin() + kChannels * filter.length, kChannels * taps, 0.0f);
  }

  float* row(int line, int r) { return &strip[(line * kRows + r) * length]; }
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

// Computes one line of a row of the image.
void resample(const Scratch& scratch, int line, float* __restrict to) {
  const float* from = scratch.blended.data() + line;
  const int32_t* first = scratch.first.data();
  const float* weights = scratch.weights.data();
  const int length = scratch.length;
  for (int j = 0; j < length; ++j) to[j] = weights[j] * from[first[j]];
  for (int k = 1; k < scratch.taps; ++k) {
    from += kChannels;
    weights += length;
    for (int j = 0; j < length; ++j) to[j] += weights[j] * from[first[j]];
  }
}

// Normalises values of a line of the strip, or of a part of its columns.
template <typename T>
void write_line(const Scratch& scratch, int line, const float* __restrict from, int count, T* __restrict to) {
  const float *scale = scratch.scale[line].data(), *shift = scratch.shift[line].data();
  int x = 0;
  for (; x + kFloats <= count; x += kFloats) {
    store_vector(to + x, load_vector(from + x) * load_vector(scale + x) + load_vector(shift + x));
  }
  for (; x < count; ++x) store(to[x], from[x] * scale[x] + shift[x]);
}

// Writes a strip of interleaved channels to columns [y, y + rows) of the image.
template <typename T>
void write_columns(const Batch<T>& p, Scratch& scratch, int y, int rows, T* image) {
  for (int x = 0; x < p.size; ++x) {
    float column[kChannels * kRows];
    const float* from = scratch.row(0, 0) + kChannels * x;
    for (int r = 0; r < rows; ++r) {
      for (int c = 0; c < kChannels; ++c) column[kChannels * r + c] = from[r * scratch.length + c];
    }
    write_line(scratch, 0, column, kChannels * rows, image + x * p.row_stride + kChannels * y);
  }
}

// Writes a channel to rows of an image with any strides, or to columns if it is transposed, from `to` on.
template <typename T>
void write_values(const Batch<T>& p, const float* from, int channel, int rows, bool transposed, T* to) {
  const float scale = p.scale[channel], shift = p.shift[channel];
  if (transposed) {
    for (int x = 0; x < p.size; ++x) {
      for (int r = 0; r < rows; ++r) {
        store(to[x * p.row_stride + r * p.column_stride], from[r * p.size + x] * scale + shift);
      }
    }
  } else {
    for (int r = 0; r < rows; ++r) {
      for (int x = 0; x < p.size; ++x) {
        store(to[r * p.row_stride + x * p.column_stride], from[r * p.size + x] * scale + shift);
      }
    }
  }
}

// Writes the strip to rows [y, y + rows) of the image, or to columns if the image is transposed.
template <typename T>
void write(const Batch<T>& p, Scratch& scratch, int y, int rows, bool transposed, T* image) {
  const bool pixels = scratch.lines == 1;
  if (pixels && transposed) return write_columns(p, scratch, y, rows, image);
  for (int line = 0; line < scratch.lines; ++line) {
    T* to = image + line * p.channel_stride + y * (transposed ? p.column_stride : p.row_stride);
    if (pixels || (p.column_stride == 1 && !transposed)) {
      for (int r = 0; r < rows; ++r) {
        write_line(scratch, line, scratch.row(line, r), scratch.length, to + r * p.row_stride);
      }
    } else {
      write_values(p, scratch.row(line, 0), line, rows, transposed, to);
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
      for (int line = 0; line < scratch.lines; ++line) resample(scratch, line, scratch.row(line, r));
    }
    write(p, scratch, y, rows, view.transposed, image);
  }
  blank(p, view.cutout, image);
}

template <typename T>
bool augment(const Batch<T>& p, int file, int64_t begin, int64_t end) {
  Scratch scratch(p, p.side, kMaxTaps);
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
  Scratch scratch(p, picture.width, 2 * int(horizontal.reach) + 3);
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

// Decodes a region of a JPEG. Blocks above the region and to its sides are skipped, and nothing below it is read.
#include "jpeg/region.h"

#include "jpeg/transform.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>

// Compiles functions for newer x86 processors too; the dynamic loader chooses the version.
#if defined(__x86_64__) && defined(__gnu_linux__)
#define FASTCCSA_CLONES(feature) __attribute__((target_clones(feature, "default")))
#else
#define FASTCCSA_CLONES(feature)
#endif

namespace fastccsa::jpeg {
namespace {

constexpr int kMaxCoefficient = 1 << 15;  // before it is multiplied by the quantisation step; beyond, a file is broken

int divide_up(int a, int b) { return (a + b - 1) / b; }

FASTCCSA_INLINE void clear(int16_t* block) {
  const Ints zeros = {};
  for (int k = 0; k < 4; ++k) std::memcpy(block + 16 * k, &zeros, sizeof zeros);
}

template <int kDown>
FASTCCSA_INLINE void inverse_means_of(int across, const int16_t* block, int rows, uint8_t* to, int64_t stride) {
  switch (across) {
    case 8: return inverse_means<kDown, 8>(block, rows, to, stride);
    case 4: return inverse_means<kDown, 4>(block, rows, to, stride);
    case 2: return inverse_means<kDown, 2>(block, rows, to, stride);
    default: return inverse_means<kDown, 1>(block, rows, to, stride);
  }
}

FASTCCSA_CLONES("avx2") void all_pixels(const int16_t* block, uint8_t* to, int64_t stride) {
  inverse(block, to, stride);
}

FASTCCSA_CLONES("avx2") void means(int down, int across, const int16_t* block, int rows, uint8_t* to, int64_t stride) {
  switch (down) {
    case 8: return inverse_means_of<8>(across, block, rows, to, stride);
    case 4: return inverse_means_of<4>(across, block, rows, to, stride);
    case 2: return inverse_means_of<2>(across, block, rows, to, stride);
    default: return inverse_means_of<1>(across, block, rows, to, stride);
  }
}

FASTCCSA_INLINE Ints eight(const uint8_t* from) {
  Bytes bytes;
  std::memcpy(&bytes, from, sizeof bytes);
  return __builtin_convertvector(bytes, Ints);
}

// Makes eight pixels, each with red in the first byte in memory, then green, blue and zero. Full-range ITU-R BT.601, in
// fixed point as in libjpeg.
FASTCCSA_INLINE void eight_pixels(const uint8_t* y, const uint8_t* cb, const uint8_t* cr, uint32_t* pixels) {
  constexpr int kBits = 16, kHalf = 1 << (kBits - 1);
  const auto fixed = [](double x) { return int(x * (1 << kBits) + 0.5); };
  const Ints level = eight(y), blue = eight(cb) - 128, red = eight(cr) - 128;
  const Ints r = clamped(level + ((fixed(1.40200) * red + kHalf) >> kBits));
  const Ints g = clamped(level + ((-fixed(0.34414) * blue - fixed(0.71414) * red + kHalf) >> kBits));
  const Ints b = clamped(level + ((fixed(1.77200) * blue + kHalf) >> kBits));
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
  const Ints made = r | g << 8 | b << 16;
#else
  const Ints made = r << 24 | g << 16 | b << 8;
#endif
  std::memcpy(pixels, &made, sizeof made);
}

FASTCCSA_CLONES("avx2") void to_rgb(const uint8_t* y, const uint8_t* cb, const uint8_t* cr, int count, uint8_t* rgb) {
  int i = 0;
  uint32_t pixels[8];
  for (; i + 8 < count; i += 8) {  // at least one pixel is left
    eight_pixels(y + i, cb + i, cr + i, pixels);
    // Four bytes at a time, the last of which the next pixel overwrites.
    for (int k = 0; k < 8; ++k) std::memcpy(rgb + 3 * (i + k), pixels + k, 4);
  }
  const int left = count - i;  // 1 to 8
  uint8_t rest[3][8] = {};
  const uint8_t* from[3] = {y, cb, cr};
  for (int k = 0; k < 3; ++k) std::memcpy(rest[k], from[k] + i, std::size_t(left));
  eight_pixels(rest[0], rest[1], rest[2], pixels);
  for (int k = 0; k < left; ++k) std::memcpy(rgb + 3 * (i + k), pixels + k, 3);
}

// Adds three times one row and once another: sums with weights that add up to 4.
FASTCCSA_CLONES("avx2") void weigh(const uint8_t* near, const uint8_t* far, int count, int16_t* sums) {
  for (int i = 0; i < count; ++i) sums[i] = int16_t(3 * near[i] + far[i]);
}

// Converts sums with weights that add up to 4 to samples.
FASTCCSA_CLONES("avx2") void narrow(const int16_t* sums, int count, int bias, uint8_t* to) {
  for (int i = 0; i < count; ++i) to[i] = uint8_t((sums[i] + bias) >> 2);
}

// Makes two pixels of each of `count` sums, whose weights add up to 4 if `weighted`, else to 1. `sums` has one more
// element on each side.
FASTCCSA_CLONES("avx2") void widen(const int16_t* sums, int count, bool weighted, uint8_t* to) {
  const int shift = weighted ? 4 : 2, left = weighted ? 8 : 1, right = weighted ? 7 : 2;
  for (int i = 0; i < count; ++i) {
    const int first = (3 * sums[i] + sums[i - 1] + left) >> shift, second = (3 * sums[i] + sums[i + 1] + right) >> shift;
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    const auto both = uint16_t(first | second << 8);
#else
    const auto both = uint16_t(first << 8 | second);
#endif
    std::memcpy(to + 2 * i, &both, sizeof both);
  }
}

}  // namespace

Status Decoder::open(const uint8_t* data, std::size_t length) {
  header_ = Header();
  tables_.has_quantisation.fill(false);
  for (int k = 0; k < 4; ++k) tables_.dc[k].clear(), tables_.ac[k].clear();
  const Status status = read_header(data, length, tables_, header_);
  if (status != Status::kDone) return status;
  scan_.take(header_.scan, header_.scan_length);
  return scan_.surprising ? Status::kUnsupported : Status::kDone;
}

void Decoder::prepare(int scale, const Rectangle& region) {
  scale_ = scale;
  const int side = kSide / scale;
  const int mcu_height = header_.down() * side, mcu_width = header_.across() * side;
  // Interpolating chroma of half the resolution needs one sample on each side.
  const int margin = scale == 1 ? 2 : 0;
  const int total_down = divide_up(header_.height, kSide * header_.down());
  const int total_across = divide_up(header_.width, kSide * header_.across());
  mcu_rows_ = {std::max(region.top - margin, 0) / mcu_height,
               std::min(divide_up(region.top + region.height + margin, mcu_height), total_down)};
  mcu_columns_ = {std::max(region.left - margin, 0) / mcu_width,
                  std::min(divide_up(region.left + region.width + margin, mcu_width), total_across)};
  for (int k = 0; k < header_.components; ++k) {
    const Component& component = header_.component[k];
    Plane& plane = planes_[k];
    // Reduced images have the chroma components at the resolution of the first component.
    plane.down = scale == 1 ? kSide : side * header_.down() / component.down;
    plane.across = scale == 1 ? kSide : side * header_.across() / component.across;
    plane.top = mcu_rows_.first * component.down * plane.down;
    plane.left = mcu_columns_.first * component.across * plane.across;
    plane.height = divide_up(header_.height * component.down, header_.down());
    plane.width = divide_up(header_.width * component.across, header_.across());
    plane.stride = int64_t(mcu_columns_.last - mcu_columns_.first) * component.across * plane.across;
    plane.bytes.resize(std::size_t(plane.stride) * (mcu_rows_.last - mcu_rows_.first) * component.down * plane.down);
  }
}

Status Decoder::decode(int scale, const Rectangle& region, uint8_t* rgb) {
  prepare(scale, region);
  const Status status = read_blocks(false);
  if (status != Status::kDone) return status;
  if (header_.components == 1) {
    write_grey(region, rgb);
  } else {
    write_colours(region, rgb);
  }
  return Status::kDone;
}

Status Decoder::read_codes(int scale, const Rectangle& region) {
  prepare(scale, region);
  return read_blocks(true);
}

// Inlined, so that the state of `bits` is in registers.
FASTCCSA_INLINE bool Decoder::read_mcu(Bits& bits, int row, int column, bool needed, int* dc) {
  alignas(32) int16_t block[64];
  for (int k = 0; k < header_.components; ++k) {
    const Component& component = header_.component[k];
    for (int v = 0; v < component.down; ++v) {
      for (int h = 0; h < component.across; ++h) {
        int difference = 0;
        if (!read_difference(bits, *component.dc, difference)) return false;
        dc[k] += difference;
        if (std::abs(dc[k]) > kMaxCoefficient) return false;
        if (needed) {
          clear(block);
          const int64_t level = int64_t(dc[k]) * component.scale[0];
          const int rows = read_block(bits, *component.ac, component.scale.data(), kMaxSum - std::abs(level), block);
          if (rows < 0) return false;
          block[0] = int16_t(level);
          transform(block, rows, planes_[k], row * component.down + v, column * component.across + h);
        } else if (!skip_block(bits, *component.ac)) {
          return false;
        }
        if (bits.beyond_end()) return false;  // after each block, which cannot be longer than the padding
      }
    }
  }
  return true;
}

Status Decoder::read_blocks(bool skip_all) {
  const int across = divide_up(header_.width, kSide * header_.across());
  const int interval = header_.interval;
  if (interval == 0 && scan_.intervals.size() > 1) return Status::kBroken;
  Bits bits;
  int dc[kMaxComponents] = {};
  // Restart intervals above the region are not read at all.
  const int64_t first = int64_t(mcu_rows_.first) * across;
  int64_t mcu = interval > 0 ? first / interval * interval : 0;
  if (interval == 0) bits.seek(scan_, 0);
  bool inside = false;  // of an interval that has begun
  for (int row = int(mcu / across), column = int(mcu % across); row < mcu_rows_.last; ++mcu) {
    if (interval > 0 && mcu % interval == 0) {
      const auto number = std::size_t(mcu / interval);
      if (number >= scan_.in_order || (inside && !bits.at_end())) return Status::kBroken;
      bits.seek(scan_, number);
      inside = true;
      std::fill(dc, dc + kMaxComponents, 0);
    }
    const bool in_region = row >= mcu_rows_.first && column >= mcu_columns_.first && column < mcu_columns_.last;
    if (!read_mcu(bits, row, column, in_region && !skip_all, dc)) return Status::kBroken;
    if (++column == across) {
      column = 0;
      ++row;
    }
  }
  const bool whole = mcu_rows_.last == divide_up(header_.height, kSide * header_.down());
  return whole && !bits.at_end() ? Status::kBroken : Status::kDone;
}

void Decoder::transform(const int16_t* block, int rows, Plane& plane, int y, int x) const {
  uint8_t* to = plane.bytes.data() + (y * plane.down - plane.top) * plane.stride + x * plane.across - plane.left;
  if (rows == 0) {
    const uint8_t level = to_byte(((block[0] + 4) >> 3) + 128);
    for (int i = 0; i < plane.down; ++i) std::fill_n(to + i * plane.stride, plane.across, level);
  } else if (plane.down == kSide && plane.across == kSide) {
    all_pixels(block, to, plane.stride);
  } else {
    means(plane.down, plane.across, block, rows | 1, to, plane.stride);
  }
}

void Decoder::write_grey(const Rectangle& region, uint8_t* rgb) const {
  for (int y = region.top; y < region.top + region.height; ++y) {
    const uint8_t* grey = planes_[0].row(y) + region.left;
    for (int i = 0; i < region.width; ++i, rgb += 3) std::fill_n(rgb, 3, grey[i]);
  }
}

void Decoder::write_colours(const Rectangle& region, uint8_t* rgb) {
  const Span columns{region.left, region.left + region.width};
  const bool same_size = scale_ != 1 || (header_.across() == 1 && header_.down() == 1);
  for (int y = region.top; y < region.top + region.height; ++y, rgb += 3 * region.width) {
    const uint8_t* colour[2];
    for (int k = 0; k < 2; ++k) {
      const Plane& plane = planes_[k + 1];
      colour[k] = same_size ? plane.row(y) + region.left : upsample(plane, y, columns, lines_[k]);
    }
    to_rgb(planes_[0].row(y) + region.left, colour[0], colour[1], region.width, rgb);
  }
}

// Triangle filter: along each axis with half the resolution, a pixel is 3/4 of its own sample and 1/4 of the next
// nearest. The last sample is repeated beyond the border. Rounds like libjpeg.
const uint8_t* Decoder::upsample(const Plane& plane, int y, Span columns, std::vector<uint8_t>& line) {
  const bool half_height = header_.down() == 2, half_width = header_.across() == 2;
  const int row = half_height ? y / 2 : y;
  const int other = half_height ? std::clamp(y % 2 == 0 ? row - 1 : row + 1, 0, plane.height - 1) : row;
  const uint8_t *near = plane.row(row), *far = plane.row(other);
  // One more sample than needed on each side, also beyond the borders, where the last sample is repeated.
  const int begin = half_width ? columns.first / 2 - 1 : columns.first;
  const int end = half_width ? (columns.last - 1) / 2 + 2 : columns.last;
  sums_.resize(std::size_t(end - begin));
  line.resize(2 * sums_.size());
  const int inner = std::max(begin, 0), count = std::min(end, plane.width) - inner;
  int16_t* to = sums_.data() + (inner - begin);
  if (half_height) {
    weigh(near + inner, far + inner, count, to);
  } else {
    std::copy_n(near + inner, count, to);
  }
  std::fill(sums_.data(), to, *to);
  std::fill(to + count, sums_.data() + sums_.size(), to[count - 1]);
  if (!half_width) {
    narrow(sums_.data(), end - begin, y % 2 == 0 ? 1 : 2, line.data());
    return line.data();
  }
  if (plane.width > 2) {
    widen(sums_.data() + 1, end - begin - 2, half_height, line.data());
  } else {  // for images this narrow, libjpeg repeats samples
    for (int x = 2 * (begin + 1); x < columns.last; ++x) line[std::size_t(x - 2 * (begin + 1))] = near[x / 2];
  }
  return line.data() + columns.first % 2;
}

}  // namespace fastccsa::jpeg

// Decodes a part of a JPEG, at its full size or as the means of squares of its pixels.
#pragma once

#include "jpeg/header.h"

#include <cstddef>
#include <cstdint>

namespace fastccsa::jpeg {

struct Rectangle {
  int top, left, height, width;
};

// One image in the making. Used for one file after another, it keeps its memory.
class Decoder {
 public:
  // The file stays where it is until the last call for it.
  Status open(const uint8_t* data, std::size_t length);

  int width() const { return header_.width; }
  int height() const { return header_.height; }

  // scale: 1, 2, 4 or 8 pixels along each axis become one; the last ones of an axis may be made of fewer, and of what
  //     the file holds beyond its border.
  // region: in pixels of that size, within the image.
  // rgb: [height, width, 3] of the region.
  Status decode(int scale, const Rectangle& region, uint8_t* rgb);

  // Decodes the codes that `decode` must, down to the region's last row, and nothing else: the floor of its cost.
  Status pass_over(int scale, const Rectangle& region);

 private:
  struct Plane {
    std::vector<uint8_t> bytes;
    int down = 0, across = 0;  // pixels of a block
    int64_t stride = 0;
    int top = 0, left = 0;      // of its first pixel in the component
    int height = 0, width = 0;  // of the component in pixels
    const uint8_t* row(int y) const { return bytes.data() + (y - top) * stride - left; }
  };
  struct Span {
    int first, last;
  };

  void prepare(int scale, const Rectangle& region);
  Status read_blocks(bool pass_over);
  bool read_mcu(Bits& bits, int row, int column, bool wanted, int* means);
  void transform(const int16_t* block, int rows, Plane& plane, int y, int x) const;
  void write_colours(const Rectangle& region, uint8_t* rgb);
  void write_grey(const Rectangle& region, uint8_t* rgb) const;
  const uint8_t* upsample(const Plane& plane, int y, Span columns, std::vector<uint8_t>& line);

  Tables tables_;
  Header header_;
  Scan scan_;
  Plane planes_[kMaxComponents];
  Span mcu_rows_{}, mcu_columns_{};  // that the region needs
  std::vector<uint8_t> lines_[2];    // a row of each colour, as fine as the first component
  std::vector<int> sums_;
  int scale_ = 1;
};

}  // namespace fastccsa::jpeg

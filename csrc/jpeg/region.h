// Decodes a region of a JPEG, at full size or as the means of squares of pixels.
#pragma once

#include "jpeg/header.h"

#include <cstddef>
#include <cstdint>

namespace fastccsa::jpeg {

struct Rectangle {
  int top, left, height, width;
};

// Decodes one image at a time. Reusing a decoder reuses its memory.
class Decoder {
 public:
  // `data` must stay valid until the last call for this file.
  Status open(const uint8_t* data, std::size_t length);

  int width() const { return header_.width; }
  int height() const { return header_.height; }

  // scale: 1, 2, 4 or 8; squares of scale x scale pixels become one. Squares at the border may include pixels of the
  //     file that are beyond it.
  // region: in pixels of the reduced image, within the image.
  // rgb: [height, width, 3] of the region.
  Status decode(int scale, const Rectangle& region, uint8_t* rgb);

  // Reads the codes that `decode` must read, down to the last row of the region, and discards them.
  Status read_codes(int scale, const Rectangle& region);

 private:
  struct Plane {
    std::vector<uint8_t> bytes;
    int down = 0, across = 0;  // pixels per block along each axis
    int64_t stride = 0;
    int top = 0, left = 0;      // position of the first pixel in the component
    int height = 0, width = 0;  // size of the component in pixels
    const uint8_t* row(int y) const { return bytes.data() + (y - top) * stride - left; }
  };
  struct Span {
    int first, last;
  };

  void prepare(int scale, const Rectangle& region);
  Status read_blocks(bool skip_all);
  bool read_mcu(Bits& bits, int row, int column, bool needed, int* dc);
  void transform(const int16_t* block, int rows, Plane& plane, int y, int x) const;
  void write_colours(const Rectangle& region, uint8_t* rgb);
  void write_grey(const Rectangle& region, uint8_t* rgb) const;
  const uint8_t* upsample(const Plane& plane, int y, Span columns, std::vector<uint8_t>& line);

  Tables tables_;
  Header header_;
  Scan scan_;
  Plane planes_[kMaxComponents];
  Span mcu_rows_{}, mcu_columns_{};  // the MCUs that the region needs
  std::vector<uint8_t> lines_[2];    // a row of each chroma component at full resolution
  std::vector<int16_t> sums_;
  int scale_ = 1;
};

}  // namespace fastccsa::jpeg

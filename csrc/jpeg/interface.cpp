// The functions that fastccsa/images/_jpeg.py calls: bytes of a file in, pixels out.

#include <cstddef>
#include <cstdint>
#include <memory>

#include "core/c_interface.h"
#include "jpeg/region.h"

namespace fastccsa::jpeg {
namespace {

// One decoder per thread, so that its memory (some hundred kB) is reused from image to image.
Decoder& decoder() {
  thread_local const std::unique_ptr<Decoder> instance = std::make_unique<Decoder>();
  return *instance;
}

// The caller should pass a region within the image, but files may be damaged or change.
bool is_within(const Decoder& decoder, int scale, const Rectangle& r) {
  const int height = (decoder.height() + scale - 1) / scale, width = (decoder.width() + scale - 1) / scale;
  return r.top >= 0 && r.left >= 0 && r.height >= 1 && r.width >= 1 && r.height <= height - r.top &&
         r.width <= width - r.left;
}

// Opens a file and calls use(decoder) -> Status; `done` tells whether both could read it. `full_height` and `full_width`
// are the size of the image as another decoder found it, or 0: a file that two decoders read differently is not read.
template <typename Use>
const char* with_file(const std::uint8_t* data, std::size_t length, int full_height, int full_width, int scale,
                      const Rectangle& region, bool* done, Use use) {
  *done = false;
  if (scale != 1 && scale != 2 && scale != 4 && scale != 8) return "scale must be 1, 2, 4 or 8";
  bool inside = true;
  const char* reason = reason_of_failure([&] {
    Decoder& instance = decoder();
    if (instance.open(data, length) != Status::kDone) return;
    if (full_height != 0 && (instance.height() != full_height || instance.width() != full_width)) return;
    inside = is_within(instance, scale, region);
    *done = inside && use(instance) == Status::kDone;
  });
  return inside ? reason : "the region does not lie within the image";
}

}  // namespace

// Decodes a region to rgb, [height, width, 3]. If the file cannot be read, `done` is false and `rgb` undefined.
FASTCCSA_C_FUNCTION const char* fastccsa_jpeg_decode(const std::uint8_t* data, std::size_t length, int full_height,
                                                     int full_width, int top, int left, int height, int width,
                                                     int scale, std::uint8_t* rgb, bool* done) {
  const Rectangle region{top, left, height, width};
  return with_file(data, length, full_height, full_width, scale, region, done,
                   [&](Decoder& decoder) { return decoder.decode(scale, region, rgb); });
}

// Reads the codes that decoding must read, and discards them.
FASTCCSA_C_FUNCTION const char* fastccsa_jpeg_read_codes(const std::uint8_t* data, std::size_t length, int top, int left,
                                                         int height, int width, int scale, bool* done) {
  const Rectangle region{top, left, height, width};
  return with_file(data, length, 0, 0, scale, region, done,
                   [&](Decoder& decoder) { return decoder.read_codes(scale, region); });
}

}  // namespace fastccsa::jpeg

// Fuzz target of the decoder of JPEG regions, for libFuzzer. `make fuzz` builds and runs it under ASan and UBSan.
//
// An input is five bytes, which choose the scale and the region, and a JPEG file. Beyond what the sanitizers find, a run
// ends if a region differs from that part of the whole image, or, where the headers of libjpeg are installed, if the
// image differs from libjpeg's.
#include "jpeg/region.h"

#include <algorithm>
#include <csetjmp>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <vector>

#if __has_include(<jpeglib.h>)
#include <jpeglib.h>
#define WITH_LIBJPEG
#endif

namespace {

using fastccsa::jpeg::Decoder;
using fastccsa::jpeg::Rectangle;
using fastccsa::jpeg::Status;

constexpr std::size_t kChoices = 5;
constexpr int kMaxPixels = 1 << 16;  // of an image that is decoded as a whole
constexpr int kMaxSide = 256;        // of a region

void require(bool condition, const char* what) {
  if (condition) return;
  std::fprintf(stderr, "%s\n", what);
  std::abort();
}

#ifdef WITH_LIBJPEG
struct Errors {
  jpeg_error_mgr manager;
  std::jmp_buf stop;
};

// Decodes an image to RGB. Returns false if libjpeg refuses the file.
bool libjpeg(const uint8_t* data, std::size_t length, int height, int width, std::vector<uint8_t>& rgb) {
  jpeg_decompress_struct info;
  Errors errors;
  info.err = jpeg_std_error(&errors.manager);
  errors.manager.error_exit = [](j_common_ptr common) {
    std::longjmp(reinterpret_cast<Errors*>(common->err)->stop, 1);
  };
  errors.manager.output_message = [](j_common_ptr) {};
  jpeg_create_decompress(&info);
  if (setjmp(errors.stop) != 0) {
    jpeg_destroy_decompress(&info);
    return false;
  }
  jpeg_mem_src(&info, data, length);
  jpeg_read_header(&info, TRUE);
  require(int(info.image_height) == height && int(info.image_width) == width, "libjpeg reads another size");
  info.out_color_space = JCS_RGB;
  jpeg_start_decompress(&info);
  while (info.output_scanline < info.output_height) {
    JSAMPROW row = rgb.data() + std::size_t(3) * width * info.output_scanline;
    jpeg_read_scanlines(&info, &row, 1);
  }
  jpeg_destroy_decompress(&info);
  return true;
}
#endif

void check_whole(Decoder& decoder, const uint8_t* data, std::size_t length, int scale, const Rectangle& r,
                 const std::vector<uint8_t>& region) {
  const int height = (decoder.height() + scale - 1) / scale, width = (decoder.width() + scale - 1) / scale;
  std::vector<uint8_t> whole(std::size_t(3) * height * width);
  if (decoder.decode(scale, {0, 0, height, width}, whole.data()) != Status::kDone) return;
  for (int y = 0; y < r.height; ++y) {
    const uint8_t* row = whole.data() + 3 * (std::size_t(r.top + y) * width + r.left);
    require(std::memcmp(row, region.data() + std::size_t(3) * r.width * y, std::size_t(3) * r.width) == 0,
            "a region differs from the image");
  }
#ifdef WITH_LIBJPEG
  if (scale != 1) return;
  std::vector<uint8_t> expected(whole.size());
  if (libjpeg(data, length, height, width, expected)) require(whole == expected, "the image differs from libjpeg's");
#else
  (void)data, (void)length;
#endif
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* input, std::size_t size) {
  if (size < kChoices) return 0;
  const uint8_t* data = input + kChoices;
  const std::size_t length = size - kChoices;
  static const auto decoder = std::make_unique<Decoder>();
  if (decoder->open(data, length) != Status::kDone) return 0;
  const int scale = 1 << (input[0] & 3);
  const int height = (decoder->height() + scale - 1) / scale, width = (decoder->width() + scale - 1) / scale;
  Rectangle r{};
  r.top = input[1] * (height - 1) / 255;
  r.left = input[2] * (width - 1) / 255;
  r.height = std::clamp(input[3] * (height - r.top) / 255, 1, kMaxSide);
  r.width = std::clamp(input[4] * (width - r.left) / 255, 1, kMaxSide);
  std::vector<uint8_t> region(std::size_t(3) * r.height * r.width);
  const bool done = decoder->decode(scale, r, region.data()) == Status::kDone;
  require(!done || decoder->read_codes(scale, r) == Status::kDone, "the codes of a decoded region cannot be read");
  if (done && decoder->height() * int64_t(decoder->width()) <= kMaxPixels) {
    check_whole(*decoder, data, length, scale, r, region);
  }
  return 0;
}

// The Python module fastccsa.images._jpeg: bytes of a file in, pixels out, without torch.

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <cstdint>
#include <memory>
#include <stdexcept>

#include "jpeg/region.h"

namespace py = pybind11;

namespace fastccsa::jpeg {
namespace {

using Bytes = py::array_t<uint8_t, py::array::c_style>;

// One decoder per thread, so that its memory (some hundred kB) is reused from image to image.
Decoder& decoder() {
  thread_local std::unique_ptr<Decoder> instance = std::make_unique<Decoder>();
  return *instance;
}

// The caller should pass a region within the image, but files may be damaged or change.
void check_region(const Decoder& decoder, int scale, const Rectangle& r) {
  const int height = (decoder.height() + scale - 1) / scale, width = (decoder.width() + scale - 1) / scale;
  if (r.top < 0 || r.left < 0 || r.height < 1 || r.width < 1 || r.height > height - r.top || r.width > width - r.left) {
    throw std::invalid_argument("the region does not lie within the image");
  }
}

void check_scale(int scale) {
  if (scale != 1 && scale != 2 && scale != 4 && scale != 8) throw std::invalid_argument("scale must be 1, 2, 4 or 8");
}

py::object decode_region(const Bytes& data, int top, int left, int height, int width, int scale) {
  check_scale(scale);
  const Rectangle region{top, left, height, width};
  const uint8_t* bytes = data.data();
  const auto length = std::size_t(data.size());
  Status status;
  {
    py::gil_scoped_release release;
    status = decoder().open(bytes, length);
  }
  if (status != Status::kDone) return py::none();
  check_region(decoder(), scale, region);
  py::array_t<uint8_t> rgb({height, width, 3});
  uint8_t* to = rgb.mutable_data();
  {
    py::gil_scoped_release release;
    status = decoder().decode(scale, region, to);
  }
  return status == Status::kDone ? py::object(std::move(rgb)) : py::none();
}

bool read_codes(const Bytes& data, int top, int left, int height, int width, int scale) {
  check_scale(scale);
  const uint8_t* bytes = data.data();
  const auto length = std::size_t(data.size());
  py::gil_scoped_release release;
  if (decoder().open(bytes, length) != Status::kDone) return false;
  check_region(decoder(), scale, {top, left, height, width});
  return decoder().read_codes(scale, {top, left, height, width}) == Status::kDone;
}

}  // namespace
}  // namespace fastccsa::jpeg

PYBIND11_MODULE(_jpeg, m) {
  using namespace fastccsa::jpeg;
  m.doc() = "Decodes a region of a baseline JPEG, at full size or as means of 2 x 2, 4 x 4 or 8 x 8 pixels.";
  m.def("decode_region", &decode_region, py::arg("data"), py::arg("top"), py::arg("left"), py::arg("height"),
        py::arg("width"), py::arg("scale"),
        "Decode a region to uint8 [height, width, 3]; None if this decoder cannot read the file.\n\n"
        "``data`` is the content of the file, uint8. The region is in pixels of the reduced image, which has the size\n"
        "of the original divided by ``scale``, rounded up. EXIF orientation is ignored.");
  m.def("read_codes", &read_codes, py::arg("data"), py::arg("top"), py::arg("left"), py::arg("height"),
        py::arg("width"), py::arg("scale"),
        "Read the codes that `decode_region` must read, and discard them. False if this decoder cannot read the file.");
}

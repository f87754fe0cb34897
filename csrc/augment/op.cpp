// Binds augmentation to torch: checks the tensors and calls the kernel of their device.
#include "augment/cpu.h"
#include "core/torch_binding.h"
#include "core/torch_parallel.h"
#if defined(FASTCCSA_CUDA)
#include "augment/cuda.h"
#include "core/torch_stream.h"
#endif

#include <limits>
#include <vector>

namespace fastccsa::augment {
namespace {

struct Arguments {
  const Tensor& images;
  const Tensor& rows;
  const Tensor& windows;
  const Tensor& symmetries;
  const Tensor& cutouts;
  const std::vector<double>& mean;
  const std::vector<double>& std;
  const std::vector<double>& fill;
};

void check_device(const char* name, const Tensor& tensor, const Tensor& images) {
  if (!on_one_device(tensor, images)) fail(name, " and images are on different devices; move them to one");
}

// Returns `columns` numbers per image, or one number per image if `columns` is 0.
Numbers numbers_of(const char* name, const Tensor& tensor, const Tensor& images, int64_t columns) {
  const int64_t dim = columns == 0 ? 1 : 2;
  if (tensor.scalar_type() != ScalarType::Long || tensor.dim() != dim || tensor.size(0) != images.size(0) ||
      (columns > 0 && tensor.size(1) != columns)) {
    fail(name, " must be int64 with a row for each of the ", images.size(0), " images",
         columns > 0 ? " and 4 columns: top, left, height, width" : " and no columns");
  }
  if (columns > 0 && tensor.stride(1) != 1) fail(name, " must have 4 columns that are contiguous in memory");
  check_device(name, tensor, images);
  return {static_cast<const int64_t*>(tensor.data_ptr()), tensor.stride(0)};
}

// Sets the output. `images` is [B, 3, size, size], or [3, size, size] for one image.
template <typename T>
void set_output(Batch<T>& p, const Tensor& images, const std::vector<double>& mean, const std::vector<double>& std,
                const std::vector<double>& fill) {
  const int64_t channel = images.dim() - 3;  // the dimension of the channels
  p.count = channel == 0 ? 1 : images.size(0);
  p.images = static_cast<T*>(images.data_ptr());
  p.size = int(images.size(channel + 1));
  p.image_stride = channel == 0 ? 0 : images.stride(0);
  p.channel_stride = images.stride(channel);
  p.row_stride = images.stride(channel + 1);
  p.column_stride = images.stride(channel + 2);
  if (mean.size() != kChannels || std.size() != kChannels || fill.size() != kChannels) {
    fail("mean, std and fill must have 3 numbers each");
  }
  for (int c = 0; c < kChannels; ++c) {
    p.scale[c] = float(1 / (255 * std[c]));
    p.shift[c] = float(-mean[c] / std[c]);
    p.fill[c] = float(fill[c]) * p.scale[c] + p.shift[c];
  }
}

// Checks everything except the store and the tensors' values.
template <typename T>
Batch<T> batch_of(const Arguments& a, int64_t crops, int64_t side) {
  const Tensor& images = a.images;
  if (images.dim() != 4 || images.size(1) != kChannels || images.size(2) != images.size(3) || images.size(2) == 0) {
    fail("images must have the shape [B, 3, size, size]");
  }
  const int64_t size = images.size(2), largest = std::numeric_limits<int32_t>::max() / 64;
  if (side <= 0 || side > largest || size > largest) {
    fail("store has crops of ", side, " pixels a side, and images have ", size, "; both must be in [1, ", largest, "]");
  }
  if (side > kMaxShrink * size) {
    fail("store has crops of ", side, " pixels a side, more than ", kMaxShrink, " times the images' ", size);
  }
  Batch<T> p;
  p.crops = crops;
  p.side = int(side);
  p.rows = numbers_of("rows", a.rows, images, 0);
  p.windows = numbers_of("windows", a.windows, images, 4);
  p.symmetries = numbers_of("symmetries", a.symmetries, images, 0);
  p.cutouts = numbers_of("cutouts", a.cutouts, images, 4);
  set_output(p, images, a.mean, a.std, a.fill);
  return p;
}

template <typename T>
void check_views(const Batch<T>& p) {
  for (int64_t i = 0; i < p.count; ++i) {
    const int64_t *window = p.windows[i], *cutout = p.cutouts[i];
    const auto text = [](const int64_t* r) {
      std::ostringstream text;
      text << '(' << r[0] << ", " << r[1] << ", " << r[2] << ", " << r[3] << ')';
      return text.str();
    };
    switch (check_view(p, request_of(p, i))) {
      case Fault::kNone: break;
      case Fault::kRow: fail("rows[", i, "] is ", *p.rows[i], ", but the store has ", p.crops, " crops");
      case Fault::kWindow: fail("windows[", i, "] is ", text(window), ", not within a crop of ", p.side, " pixels");
      case Fault::kSymmetry:
        fail("symmetries[", i, "] is ", *p.symmetries[i], ", but must be in [0, ", kSymmetries, ")");
      case Fault::kCutout: fail("cutouts[", i, "] is ", text(cutout), ", not within an image of ", p.size, " pixels");
    }
  }
}

template <typename T>
void run(const Tensor& store, const Arguments& arguments) {
  if (store.scalar_type() != ScalarType::Byte || store.dim() != 4 || store.size(1) != store.size(2) ||
      store.size(3) != kChannels || !store.is_contiguous()) {
    fail("store must be contiguous uint8 of shape [n, side, side, 3]");
  }
  check_device("store", store, arguments.images);
  Batch<T> p = batch_of<T>(arguments, store.size(0), store.size(1));
  p.store = static_cast<const uint8_t*>(store.data_ptr());
  if (arguments.images.is_cpu()) {
    check_views(p);
    cpu::augment(p, -1, &parallel_for);
  } else {
#if defined(FASTCCSA_CUDA)
    const int32_t device = arguments.images.get_device_index();
    const torch::stable::accelerator::DeviceGuard guard(device);
    cuda::augment(p, current_cuda_stream(device));
#endif
  }
}

void augment_out(Tensor images, Tensor store, Tensor rows, Tensor windows, Tensor symmetries, Tensor cutouts,
                 std::vector<double> mean, std::vector<double> std, std::vector<double> fill) {
  const Arguments arguments{images, rows, windows, symmetries, cutouts, mean, std, fill};
  switch (images.scalar_type()) {
    case ScalarType::Float: return run<float>(store, arguments);
    case ScalarType::BFloat16: return run<bfloat16>(store, arguments);
    default: fail("images must be float32 or bfloat16");
  }
}

template <typename T>
bool run_file(int64_t file, int64_t crops, int64_t side, const Arguments& arguments) {
  if (file < 0 || file > std::numeric_limits<int>::max() || crops < 0) fail("there is no file of crops");
  const Batch<T> p = batch_of<T>(arguments, crops, side);
  check_views(p);
  return cpu::augment(p, int(file), &parallel_for);
}

bool augment_file_out(Tensor images, int64_t file, int64_t crops, int64_t side, Tensor rows, Tensor windows,
                      Tensor symmetries, Tensor cutouts, std::vector<double> mean, std::vector<double> std,
                      std::vector<double> fill) {
  const Arguments arguments{images, rows, windows, symmetries, cutouts, mean, std, fill};
  switch (images.scalar_type()) {
    case ScalarType::Float: return run_file<float>(file, crops, side, arguments);
    case ScalarType::BFloat16: return run_file<bfloat16>(file, crops, side, arguments);
    default: fail("images must be float32 or bfloat16");
  }
}

template <typename T>
void run_picture(const Tensor& image, const Picture& picture, int64_t symmetry, const std::vector<int64_t>& cutout,
                 const std::vector<double>& mean, const std::vector<double>& std, const std::vector<double>& fill) {
  // A picture has no store and no window, so it gets those of a store with one pixel.
  const int64_t row = 0, window[] = {0, 0, 1, 1};
  Batch<T> p;
  p.crops = p.side = 1;
  p.rows = {&row, 1};
  p.windows = {window, 4};
  p.symmetries = {&symmetry, 1};
  p.cutouts = {cutout.data(), 4};
  set_output(p, image, mean, std, fill);
  check_views(p);
  cpu::augment_picture(p, picture);
}

void augment_picture_out(Tensor image, Tensor picture, std::vector<double> region, int64_t symmetry,
                         std::vector<int64_t> cutout, std::vector<double> mean, std::vector<double> std,
                         std::vector<double> fill) {
  const int64_t largest = std::numeric_limits<int32_t>::max() / 64;
  if (image.dim() != 3 || image.size(0) != kChannels || image.size(1) != image.size(2) || image.size(1) == 0 ||
      image.size(1) > largest) {
    fail("image must have the shape [3, size, size]");
  }
  if (picture.scalar_type() != ScalarType::Byte || picture.dim() != 3 || picture.size(2) != kChannels ||
      !picture.is_contiguous() || picture.size(0) > largest || picture.size(1) > largest) {
    fail("picture must be contiguous uint8 of shape [height, width, 3]");
  }
  if (cutout.size() != 4 || region.size() != 4) fail("region and cutout must have 4 numbers each");
  const auto inside = [](double from, double to, int64_t length) {
    return 0 <= from && from < to && to <= double(length);
  };
  if (!inside(region[0], region[2], picture.size(0)) || !inside(region[1], region[3], picture.size(1))) {
    fail("region must be top, left, bottom, right within the picture");
  }
  const Picture part{static_cast<const uint8_t*>(picture.data_ptr()), int(picture.size(0)), int(picture.size(1)),
                     float(region[0]), float(region[1]), float(region[2]), float(region[3])};
  switch (image.scalar_type()) {
    case ScalarType::Float: return run_picture<float>(image, part, symmetry, cutout, mean, std, fill);
    case ScalarType::BFloat16: return run_picture<bfloat16>(image, part, symmetry, cutout, mean, std, fill);
    default: fail("image must be float32 or bfloat16");
  }
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(fastccsa, CPU, m) {
  m.impl("augment_out", TORCH_BOX(&augment_out));
  m.impl("augment_file_out", TORCH_BOX(&augment_file_out));
  m.impl("augment_picture_out", TORCH_BOX(&augment_picture_out));
}

#if defined(FASTCCSA_CUDA)
STABLE_TORCH_LIBRARY_IMPL(fastccsa, CUDA, m) { m.impl("augment_out", TORCH_BOX(&augment_out)); }
#endif

}  // namespace fastccsa::augment

// The CUDA augmentation kernel in the emulator, as a library for test_augment_cuda_kernel.py.
#include "emulator/device.h"
#include "emulator/gpu.h"

#include "augment/launch.cuh"

#include <exception>

namespace {

using namespace fastccsa::augment;

template <typename T>
void run(void* images, const Batch<T>& shared, const emulator::Schedule& schedule, int64_t enough) {
  Batch<T> p = shared;
  p.images = static_cast<T*>(images);
  emulator::Gpu gpu(schedule);
  const auto launch = [&](auto kernel, unsigned across, unsigned down, unsigned images, const auto&... arguments) {
    gpu.launch(emulator::dim3(across, down, images), cuda::kThreads, kernel, arguments...);
  };
  cuda::launch_augment(p, launch, enough);
}

template <typename T>
Batch<T> batch_of(const uint8_t* store, const int64_t* packed, const int64_t* numbers, const float* colours) {
  Batch<T> p;
  p.store = store;
  p.crops = numbers[0];
  p.side = int(numbers[1]);
  p.count = numbers[2];
  p.size = int(numbers[3]);
  p.image_stride = numbers[4];
  p.channel_stride = numbers[5];
  p.row_stride = numbers[6];
  p.column_stride = numbers[7];
  p.rows = {packed, 10};
  p.windows = {packed + 1, 10};
  p.cutouts = {packed + 5, 10};
  p.symmetries = {packed + 9, 10};
  for (int c = 0; c < kChannels; ++c) {
    p.scale[c] = colours[c];
    p.shift[c] = colours[kChannels + c];
    p.fill[c] = colours[2 * kChannels + c];
  }
  return p;
}

}  // namespace

// numbers: crops, side, count, size, the four strides of the images, order of the schedule, number of multiprocessors,
// number of blocks that are enough.
extern "C" int run_augment(void* images, int bfloat16, const uint8_t* store, const int64_t* packed,
                           const int64_t* numbers, const float* colours) {
  const emulator::Schedule schedule{emulator::Order(numbers[8]), 1, unsigned(numbers[9])};
  try {
    if (bfloat16 != 0) {
      run<fastccsa::bfloat16>(images, batch_of<fastccsa::bfloat16>(store, packed, numbers, colours), schedule, numbers[10]);
    } else {
      run<float>(images, batch_of<float>(store, packed, numbers, colours), schedule, numbers[10]);
    }
  } catch (const std::exception&) {
    return 1;
  }
  return 0;
}

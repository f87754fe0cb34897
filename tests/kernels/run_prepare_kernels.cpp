// Prepares the loss over all pairs on CUDA in the emulator: reads requests from stdin, and writes their results to
// stdout. test_prepare_kernels.py is the other end. The host code is the same as for a GPU: csrc/all_pairs/cuda/prepare.h.
#include "emulator/device.h"
#include "emulator/gpu.h"
#include "all_pairs/cuda/prepare.h"
#include "all_pairs/cuda/prepare_kernel.cuh"

#include "wire.h"

#include <algorithm>
#include <cstring>
#include <exception>
#include <memory>
#include <numeric>
#include <string>
#include <vector>

namespace fastccsa::all_pairs::testing {
namespace {

using fastccsa::testing::Dtype;
using fastccsa::testing::read_bytes;
using fastccsa::testing::read_value;
using fastccsa::testing::View;
using fastccsa::testing::write;
using fastccsa::testing::write_bytes;

// Its memory is initially NaN (all bits set), so that values that are read before they are written are noticed.
class EmulatedDevice {
 public:
  explicit EmulatedDevice(emulator::Gpu& gpu) : gpu_(gpu) {}

  template <typename U>
  struct Buffer {
    std::unique_ptr<U[]> memory;
    int64_t count = 0;
    U* data() const { return memory.get(); }
  };

  struct Sorted {
    Buffer<int64_t> values, order;
  };

  template <typename U>
  Buffer<U> allocate(int64_t count) {
    bytes_ += count * int64_t(sizeof(U));
    if (count == 0) return {};
    Buffer<U> buffer{std::unique_ptr<U[]>(new U[count]), count};
    std::memset(static_cast<void*>(buffer.data()), 0xff, count * sizeof(U));
    return buffer;
  }

  Sorted sort(const Buffer<int64_t>& labels, int64_t count) {
    Sorted sorted{allocate<int64_t>(count), allocate<int64_t>(count)};
    int64_t* order = sorted.order.data();
    std::iota(order, order + count, int64_t(0));
    std::stable_sort(order, order + count, [&](int64_t a, int64_t b) { return labels.data()[a] < labels.data()[b]; });
    for (int64_t k = 0; k < count; ++k) sorted.values.data()[k] = labels.data()[order[k]];
    ++sorts_;
    return sorted;
  }

  template <typename Parameters>
  void run(const Parameters& p) {
    cuda::launch_kernels(p, &fault_, [&](auto kernel, emulator::dim3 blocks, const auto&... arguments) {
      if (blocks.x == 0 || blocks.y == 0) return;
      ++launches_;
      gpu_.launch(blocks, cuda::kThreads, kernel, arguments...);
    });
  }

  FaultReport fault() const { return fault_ == 0 ? FaultReport() : decode(fault_); }
  std::vector<int64_t> counts() const { return {launches_, sorts_, bytes_}; }

 private:
  emulator::Gpu& gpu_;
  FaultWord fault_ = 0;
  int64_t launches_ = 0, sorts_ = 0, bytes_ = 0;
};

// The fields of a request, in this order.
struct Request {
  int64_t rows[2], width, labels, centre, few_rows, counted_classes, chunk_rows;
};

template <typename U>
void write(const EmulatedDevice::Buffer<U>& buffer) {
  write_bytes(buffer.data(), size_t(buffer.count) * sizeof(U));
}

template <typename T>
void answer(emulator::Gpu& gpu) {
  using Acc = acc_t<T>;
  const auto request = read_value<Request>();
  View views[5];  // features and labels of both sides, weights
  for (View& view : views) view.read();
  Problem<T> problem{};
  for (int side = 0; side < 2; ++side) {
    problem.features[side] = views[side].matrix<T>();
    problem.label[side] = views[2 + side].vector<int64_t>();
    problem.rows[side] = request.rows[side];
  }
  problem.width = request.width;
  problem.weight = views[4].matrix<Acc>();
  problem.labels = request.labels;
  EmulatedDevice device(gpu);
  cuda::PrepareOptions options;
  if (request.few_rows >= 0) options.few_rows = request.few_rows;
  if (request.counted_classes >= 0) options.counted_classes = request.counted_classes;
  options.chunk_rows = request.chunk_rows;
  try {
    cuda::Prepared<T, EmulatedDevice> ready(device, problem, options);
    ready.sort();
    ready.find_means(request.centre != 0);
    write_bytes(nullptr, 0);
    const FaultReport fault = device.fault();
    write(std::vector<int64_t>{int64_t(fault.fault), fault.row, fault.value});
    write(device.counts());
    write(std::vector<int64_t>{ready.classes, int64_t(ready.means().place != nullptr)});
    for (const auto& side : ready.side) {
      write(side.order);
      write(side.label);
      write(side.label32);
      write(side.offset);
      write(side.mean);
      write(side.spread);
      write(side.factor);
    }
    write(ready.alignment);
    write(ready.centre);
    write(ready.weight);
    write(ready.poison);
  } catch (const std::runtime_error& thrown) {
    write_bytes(thrown.what(), std::strlen(thrown.what()));
  }
  std::fflush(stdout);
}

int serve() {
  try {
    const auto order = read_value<int64_t>(), seed = read_value<int64_t>(), processors = read_value<int64_t>();
    emulator::Gpu gpu({emulator::Order(order), uint32_t(seed), unsigned(processors)});
    for (Dtype dtype; read_bytes(&dtype, sizeof dtype);) {
      switch (dtype) {
        case Dtype::kFloat64: answer<double>(gpu); break;
        case Dtype::kFloat32: answer<float>(gpu); break;
        case Dtype::kBFloat16: answer<bfloat16>(gpu); break;
        case Dtype::kFloat16: answer<half>(gpu); break;
      }
    }
    return 0;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}

}  // namespace
}  // namespace fastccsa::all_pairs::testing

int main() { return fastccsa::all_pairs::testing::serve(); }

// Computes the loss over all pairs on CUDA in the emulator: reads requests from stdin, and writes their results to
// stdout. emulated_all_pairs.py is the other end. The host code is the same as for a GPU: csrc/all_pairs/cuda/sweep.h.
#include "emulator/device.h"
#include "emulator/gpu.h"
#include "all_pairs/cuda/fused/launch.cuh"
#include "all_pairs/cuda/fused/parts_launch.cuh"
#include "all_pairs/cuda/fused/parts_run.h"
#include "all_pairs/cuda/fused/run.h"
#include "all_pairs/cuda/launch.cuh"
#include "all_pairs/cuda/sweep.h"

#include "naive_gemm.h"
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

// Which kernels GPUs run, since the emulator is told which to run: wide features have one everywhere, and of up to 512
// columns coefficients are stored without wgmma only if asked for.
using cuda::FusedChoice;
using cuda::FusedKernel;
static_assert(cuda::fused_kernel(640, false, FusedChoice::kByDevice, cuda::kSmallMemory) == FusedKernel::kStoredMma);
static_assert(cuda::fused_kernel(640, false, FusedChoice::kStreamed, cuda::kLargeMemory) == FusedKernel::kStoredMma);
static_assert(cuda::fused_kernel(512, false, FusedChoice::kStored, cuda::kSmallMemory) == FusedKernel::kStoredMma);
static_assert(cuda::fused_kernel(512, false, FusedChoice::kManyRows, cuda::kSmallMemory) == FusedKernel::kMma512Small);
static_assert(cuda::fused_kernel(256, false, FusedChoice::kStored, cuda::kSmallMemory) == FusedKernel::kMma256);
static_assert(cuda::fused_kernel(512, true, FusedChoice::kManyRows, cuda::kLargeMemory) == FusedKernel::kStored);
static_assert(cuda::fused_kernel(512, true, FusedChoice::kStored, cuda::kLargeMemory) == FusedKernel::kStored);
static_assert(cuda::fused_kernel(256, true, FusedChoice::kManyRows, cuda::kLargeMemory) == FusedKernel::kWgmma256);

static_assert(cuda::pays_to_store({512, 2048}, 512) && !cuda::pays_to_store({2049, 512}, 512));
static_assert(cuda::pays_to_store({1536, 1 << 20}, 512) && !cuda::pays_to_store({511, 511}, 512));
static_assert(cuda::pays_to_sort({32768, 1024}) && !cuda::pays_to_sort({65536, 1023}) && !cuda::pays_to_sort({5792, 5792}));
static_assert(cuda::weights_fit(46340, 46340, 1) && !cuda::weights_fit(46341, 46341, 1));
static_assert(cuda::weights_fit(3, 1, 1 << 29) && !cuda::weights_fit(3, 1, 1 << 30) && cuda::weights_fit(1, 0, 0));

// The device that the sweep uses. Its memory is initially NaN (all bits set), so that values that are read before they
// are written are noticed.
class EmulatedDevice {
 public:
  explicit EmulatedDevice(emulator::Gpu& gpu) : gpu_(gpu) {}

  template <typename U>
  struct Buffer {
    std::unique_ptr<U[]> memory;
    U* data() const { return memory.get(); }
  };

  struct Sorted {
    Buffer<int64_t> values, order;
  };

  template <typename U>
  Buffer<U> allocate(int64_t count) const {
    if (count == 0) return {};
    Buffer<U> buffer{std::unique_ptr<U[]>(new U[count])};
    std::memset(static_cast<void*>(buffer.data()), 0xff, count * sizeof(U));
    return buffer;
  }

  template <typename U>
  Buffer<U> zeros(int64_t count) const {
    Buffer<U> buffer = allocate<U>(count);
    std::fill_n(buffer.data(), count, U{});
    return buffer;
  }

  Sorted sort(const Buffer<int64_t>& labels, int64_t count) const {
    Buffer<int64_t> order = allocate<int64_t>(count), values = allocate<int64_t>(count);
    std::iota(order.data(), order.data() + count, int64_t(0));
    std::stable_sort(order.data(), order.data() + count,
                     [&](int64_t a, int64_t b) { return labels.data()[a] < labels.data()[b]; });
    for (int64_t k = 0; k < count; ++k) values.data()[k] = labels.data()[order.data()[k]];
    return {std::move(values), std::move(order)};
  }

  template <typename Parameters>
  void run(const Parameters& p) {
    start(p);
  }

  template <typename T, typename P>
  void run(const cuda::TilePairs<T, P>& p) {
    tiles_.insert(tiles_.end(), {p.begin[0], p.rows, p.begin[1], p.columns});
    start(p);
  }

  template <typename P>
  void run(const cuda::SplitBlocks<P>& p) {
    centre_.assign(p.centre, p.centre + p.width);
    start(p);
  }

  template <typename T, typename P>
  void run(const cuda::SplitRows<T, P>& p) {
    if (p.centre != nullptr) centre_.assign(p.centre, p.centre + p.width);
    start(p);
  }

  // ---- the fused kernels ----

  void choose_fused_kernel(int64_t kernel, int64_t threads_blocks) {
    fused_kernel_ = cuda::FusedKernel(kernel);
    threads_blocks_ = int(threads_blocks);
  }

  template <typename T>
  cuda::FusedVariant fused_variant(int64_t, cuda::FusedChoice) const {
    cuda::FusedVariant variant{fused_kernel_, {}, threads_blocks_};
    if (cuda::stores_coefficients(fused_kernel_)) variant.shape = {cuda::kTile, cuda::kTile};
    if (fused_kernel_ == cuda::FusedKernel::kStreamed512) {
      variant.shape = {cuda::StreamedShape::kRows, cuda::StreamedShape::kColumns};
    }
    cuda::with_fused_kernel<T>(fused_kernel_, [&](auto, int, size_t, cuda::FusedShape shape) { variant.shape = shape; });
    return variant;
  }

  template <typename T>
  void run_fused_prepare(const cuda::Fused<T>& p) {
    cuda::launch_fused_prepare(p, &fault_, launch_fused());
  }
  template <typename T>
  void run_fused_ranks(const cuda::Fused<T>& p) {
    cuda::launch_fused_ranks(p, launch_fused());
  }
  template <typename T>
  void run_fused_main(const cuda::Fused<T>& p, cuda::FusedKernel kernel) {
    cuda::launch_fused_main(p, kernel, launch_fused());
  }
  template <typename T>
  void run_coefficients(const cuda::Fused<T>& p, const cuda::Stored<T>& part, cuda::FusedKernel kernel) {
    cuda::launch_coefficients(p, part, kernel, launch_fused());
  }
  template <typename T>
  void run_gradients(const cuda::Fused<T>& p, const cuda::Stored<T>& part, cuda::FusedKernel kernel, int at_once) {
    cuda::launch_gradients(p, part, kernel, at_once, launch_fused());
  }
  template <typename T>
  void run_streamed(const cuda::Fused<T>& p) {
    cuda::launch_streamed(p, &fault_, launch_fused());
  }
  template <typename T>
  void run_fused_finish(const cuda::Fused<T>& p) {
    cuda::launch_fused_finish(p, launch_fused());
  }

  int parts_multiprocessors() const { return threads_blocks_; }
  template <typename P>
  void run_parts_coefficients(const cuda::PairsInBlocks<P>& p) {
    const cuda::TilePairs<float, P>& pairs = p.pairs;
    tiles_.insert(tiles_.end(), {pairs.begin[0], pairs.rows, pairs.begin[1], pairs.columns});
    cuda::launch_parts_coefficients(p, launch_fused());
  }
  template <typename P>
  void run_parts_gradients(const cuda::PairsInBlocks<P>& p) {
    cuda::launch_parts_gradients(p, launch_fused());
  }

  Blas blas() const { return {&naive_gemm_ex, &naive_gemm_batched, nullptr}; }

  FaultReport fault() const { return fault_ == 0 ? FaultReport() : decode(fault_); }
  const std::vector<int64_t>& tiles() const { return tiles_; }
  const std::vector<double>& centre() const { return centre_; }

 private:
  template <typename Parameters>
  void start(const Parameters& p) {
    cuda::launch_kernels(p, &fault_, [&](auto kernel, emulator::dim3 blocks, const auto&... arguments) {
      gpu_.launch(blocks, cuda::kThreads, kernel, arguments...);
    });
  }

  auto launch_fused() {
    return [this](auto kernel, const cuda::FusedGrid& grid, const auto&... arguments) {
      gpu_.launch_clusters(unsigned(grid.cluster), grid.blocks, unsigned(grid.threads), grid.shared_bytes, kernel,
                           arguments...);
    };
  }

  emulator::Gpu& gpu_;
  FaultWord fault_ = 0;
  std::vector<int64_t> tiles_;  // per tile: first row, rows, first column, columns
  std::vector<double> centre_;  // empty if rows are not centred
  cuda::FusedKernel fused_kernel_{};
  int threads_blocks_ = 1;
};

// The fields of a request, in this order.
struct Request {
  int64_t rows[2], width, labels, output_mask, per_term, precision;
  int64_t few_pairs, tile_rows, tile_columns;
  int64_t fused_kernel, threads_blocks, sorted, stored_part;  // a FusedKernel, or -1: by matrix products
  double margin, scale;
};

template <typename T>
void answer(emulator::Gpu& gpu) {
  using Acc = acc_t<T>;
  const auto request = read_value<Request>();
  View views[5];  // features and labels of both sides, weights
  for (View& view : views) view.read();
  const int64_t planes = request.per_term ? 2 : 1;
  const EmulatedDevice memory(gpu);
  const auto loss = memory.allocate<Acc>(1), terms = memory.allocate<Acc>(2);
  int64_t sizes[2];
  EmulatedDevice::Buffer<Acc> gradient[2];
  for (int side = 0; side < 2; ++side) {
    sizes[side] = request.output_mask >> side & 1 ? planes * request.rows[side] * request.width : 0;
    gradient[side] = memory.allocate<Acc>(sizes[side]);
  }
  const Problem<T> problem{{views[0].matrix<T>(), views[1].matrix<T>()},
                           {views[2].vector<int64_t>(), views[3].vector<int64_t>()},
                           {request.rows[0], request.rows[1]},
                           request.width,
                           views[4].matrix<Acc>(),
                           request.labels,
                           Acc(request.margin),
                           request.scale,
                           request.per_term != 0,
                           loss.data(),
                           terms.data(),
                           {gradient[0].data(), gradient[1].data()}};
  cuda::Options options;
  options.precision = cuda::Precision(request.precision);
  options.few_pairs = request.few_pairs;
  options.tile = {request.tile_rows, request.tile_columns};

  EmulatedDevice device(gpu);
  if (request.fused_kernel < 0) {
    cuda::compute(device, problem, options);
  } else if constexpr (sizeof(T) == 2) {
    device.choose_fused_kernel(request.fused_kernel, request.threads_blocks);
    cuda::FusedOptions fused;
    fused.window = 2;
    fused.stored_part = int(request.stored_part);
    fused.order = request.sorted ? cuda::FusedOrder::kSorted : cuda::FusedOrder::kAsGiven;
    cuda::FusedLoss<T, EmulatedDevice>(device, problem, fused).run();
  } else if constexpr (std::is_same_v<T, float>) {
    device.choose_fused_kernel(request.fused_kernel, request.threads_blocks);
    cuda::with_blocks(options.precision, [&](auto parts) {
      const cuda::PartSize size{request.tile_rows, request.tile_columns};
      cuda::PartsLoss<decltype(parts), EmulatedDevice>(device, problem, size).run();
    });
  }
  const FaultReport reported = device.fault();
  write(std::vector<int64_t>{int64_t(reported.fault), reported.row, reported.value});
  write(device.tiles());
  write(device.centre());
  write_bytes(loss.data(), sizeof(Acc));
  write_bytes(terms.data(), 2 * sizeof(Acc));
  for (int side = 0; side < 2; ++side) write_bytes(gradient[side].data(), sizes[side] * sizeof(Acc));
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

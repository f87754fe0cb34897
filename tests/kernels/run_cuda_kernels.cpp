// Runs the CUDA kernels of the zipped loss in the emulator.
#include "emulator/device.h"
#include "emulator/gpu.h"
#include "zipped/launch.cuh"

#include "cases.h"

#include <algorithm>
#include <map>
#include <tuple>

namespace fastccsa::zipped::testing {
namespace {

// One GPU for each schedule, so that its fibers are created once.
emulator::Gpu& gpu_for(const Case& c) {
  static std::map<std::tuple<int64_t, int64_t, int64_t>, emulator::Gpu> gpus;
  const emulator::Schedule schedule{emulator::Order(c.order), uint32_t(c.seed), unsigned(c.processors)};
  return gpus.try_emplace({c.order, c.seed, c.processors}, schedule).first->second;
}

template <typename T>
std::string describe(const Forward<T>& forward, const Backward<T>& backward) {
  const bool block = cuda::block_per_pair(forward.in);
  std::string text = block ? "block" : "warp";
  if (cuda::packed(forward.in)) text += ", packed";
  if (cuda::packed_gradients(backward)) text += ", packed gradients";
  const int packs = block ? 0 : cuda::packs_per_lane(forward);
  return packs == 0 ? text : text + ", " + std::to_string(packs) + " in registers";
}

struct RunOnGpu {
  template <typename T>
  Outcome operator()(const Case& c, Forward<T> forward, Backward<T> backward) const {
    emulator::Gpu& gpu = gpu_for(c);
    if (c.left != 0) {
      for (int k = 0; k < 2; ++k) forward.grad_features[k] = backward.grad_features[k];
      backward.left = true;
    }
    const auto launch = [&](auto kernel, unsigned blocks, const auto&... arguments) {
      gpu.launch(blocks, cuda::kThreads, kernel, arguments...);
    };
    const auto fault = std::make_unique<FaultWord>(0);
    const int length = c.run_length > 0 ? int(c.run_length) : cuda::run_length(c.pairs);
    const unsigned slot = unsigned(c.seed) % cuda::kTickets;
    cuda::launch_forward(forward, fault.get(), slot, launch, length);
    cuda::launch_backward(backward, launch, length);
    const auto is_zero = [](unsigned ticket) { return ticket == 0; };
    if (!std::all_of(std::begin(cuda::tickets), std::end(cuda::tickets), is_zero)) {
      throw std::runtime_error("a ticket counter was not reset to 0");
    }
    return {describe(forward, backward), *fault == 0 ? FaultReport() : decode(*fault)};
  }
};

}  // namespace
}  // namespace fastccsa::zipped::testing

int main() { return fastccsa::zipped::testing::serve(fastccsa::zipped::testing::RunOnGpu()); }

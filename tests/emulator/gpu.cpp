#include "emulator/gpu.h"

#include <exception>
#include <thread>

namespace emulator {

Gpu::Gpu(const Schedule& schedule) : schedule_(schedule), block_order_(schedule.order, schedule.seed) {
  for (unsigned m = 0; m < schedule.multiprocessors; ++m) {
    multiprocessors_.push_back(std::make_unique<Multiprocessor>(schedule));
  }
}

void Gpu::run(const Launch& launch) {
  if (launch.grid_size.count() % launch.cluster != 0) throw KernelError("the grid is not of whole clusters");
  const std::vector<unsigned>& blocks = block_order_.next(launch.grid_size.count() / launch.cluster);
  const size_t count = multiprocessors_.size();
  std::vector<std::exception_ptr> errors(count);
  // Blocks are assigned in advance, so which multiprocessor runs which block does not depend on their speed.
  const auto run_share = [&](size_t m) {
    try {
      for (size_t b = m; b < blocks.size(); b += count) multiprocessors_[m]->run(launch, blocks[b]);
    } catch (...) {
      errors[m] = std::current_exception();
    }
  };
  std::vector<std::thread> others;
  for (size_t m = 1; m < count; ++m) others.emplace_back(run_share, m);
  run_share(0);
  for (std::thread& other : others) other.join();
  for (const auto& multiprocessor : multiprocessors_) multiprocessor->finish();
  for (const std::exception_ptr& error : errors) {
    if (error) std::rethrow_exception(error);
  }
}

}  // namespace emulator

// The order in which the emulator runs blocks, the warps of a block and the threads of a warp. A GPU runs them in no
// particular order.
#pragma once

#include <algorithm>
#include <cstdint>
#include <numeric>
#include <random>
#include <utility>
#include <vector>

namespace emulator {

enum class Order { kForward, kReverse, kRandom };

struct Schedule {
  Order order = Order::kForward;
  uint32_t seed = 0;             // of kRandom
  unsigned multiprocessors = 1;  // blocks that run at the same time, each in an operating system thread
};

// The numbers [0, count) in the requested order.
class Sequence {
 public:
  Sequence(Order order, uint32_t seed) : order_(order), random_(seed) {}

  const std::vector<unsigned>& next(unsigned count) {
    if (numbers_.size() != count) {
      numbers_.resize(count);
      std::iota(numbers_.begin(), numbers_.end(), 0u);
      if (order_ == Order::kReverse) std::reverse(numbers_.begin(), numbers_.end());
    }
    if (order_ == Order::kRandom) {
      for (unsigned left = count; left > 1; --left) std::swap(numbers_[left - 1], numbers_[random_() % left]);
    }
    return numbers_;
  }

 private:
  Order order_;
  std::minstd_rand random_;
  std::vector<unsigned> numbers_;
};

}  // namespace emulator

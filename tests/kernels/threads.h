// Replaces torch's thread pool in the programs of the tests.
#pragma once

#include <cstdint>
#include <thread>
#include <vector>

namespace fastccsa::testing {

inline int64_t threads = 1;

// Gives each thread an equal share, even a small one.
inline void parallel_for(int64_t count, int64_t, void (*body)(void*, int64_t, int64_t), void* context) {
  std::vector<std::thread> others;
  for (int64_t t = 0; t < threads; ++t) {
    others.emplace_back(body, context, t * count / threads, (t + 1) * count / threads);
  }
  for (std::thread& other : others) other.join();
}

}  // namespace fastccsa::testing

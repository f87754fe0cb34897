// The CPU kernels of the zipped loss, on as many threads as the case says.
#include "zipped/cpu.h"

#include "cases.h"

#include <thread>

namespace fastccsa::zipped::testing {
namespace {

int64_t threads = 1;

// Gives each thread an equal share, however small.
void parallel_for(int64_t count, int64_t, void (*body)(void*, int64_t, int64_t), void* context) {
  std::vector<std::thread> others;
  for (int64_t t = 0; t < threads; ++t) {
    others.emplace_back(body, context, t * count / threads, (t + 1) * count / threads);
  }
  for (std::thread& other : others) other.join();
}

struct RunOnCpu {
  template <typename T>
  Outcome operator()(const Case& c, const Forward<T>& forward, const Backward<T>& backward) const {
    threads = c.processors;
    const FaultReport report = cpu::forward(forward, &parallel_for);
    if (report.fault == Fault::kNone) cpu::backward(backward, &parallel_for);
    return {name_of(isa()), report};
  }
};

}  // namespace
}  // namespace fastccsa::zipped::testing

int main() { return fastccsa::zipped::testing::serve(fastccsa::zipped::testing::RunOnCpu()); }

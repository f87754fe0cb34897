// Runs the CPU kernels of the zipped loss with the number of threads that a case specifies.
#include "zipped/cpu.h"

#include "cases.h"
#include "threads.h"

namespace fastccsa::zipped::testing {
namespace {

using fastccsa::testing::parallel_for;
using fastccsa::testing::threads;

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

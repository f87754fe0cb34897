// The interface through which CPU kernels use their caller's thread pool.
#pragma once

#include <atomic>
#include <cstdint>

namespace fastccsa {

// Calls `body(context, begin, end)` for parts of [0, count), each with at least `grain` elements.
using ParallelFor = void (*)(int64_t count, int64_t grain, void (*body)(void*, int64_t, int64_t), void* context);

// Calls work(task) for each task in [0, count). A thread that finishes a task takes the next one.
template <typename Work>
void for_each_task(int64_t count, ParallelFor parallel_for, Work work) {
  struct Call {
    Work* work;
    int64_t count;
    std::atomic<int64_t> next;
  } call{&work, count, {0}};
  const auto body = [](void* context, int64_t, int64_t) {
    Call& call = *static_cast<Call*>(context);
    for (int64_t task; (task = call.next.fetch_add(1)) < call.count;) (*call.work)(task);
  };
  parallel_for(count, 1, body, &call);
}

}  // namespace fastccsa

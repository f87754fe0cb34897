// A GPU for kernels compiled by a C++ compiler: `gpu.launch(grid, block, kernel, arguments...)` runs the launch to
// completion; the size of dynamic shared memory may precede the kernel. Blocks are distributed over multiprocessors,
// each of which is an operating system thread.
#pragma once

#include "emulator/multiprocessor.h"

#include <memory>
#include <vector>

namespace emulator {

class Gpu {
 public:
  explicit Gpu(const Schedule& schedule);

  // Throws KernelError if the threads of a block wait for each other forever; the GPU cannot be used after that.
  template <typename... Parameters, typename... Arguments>
  void launch(dim3 grid, dim3 block, void (*kernel)(Parameters...), const Arguments&... arguments) {
    run({grid, block, 0, 1, [&] { kernel(arguments...); }});
  }

  // The same with dynamic shared memory.
  template <typename... Parameters, typename... Arguments>
  void launch(dim3 grid, dim3 block, size_t shared_bytes, void (*kernel)(Parameters...),
              const Arguments&... arguments) {
    run({grid, block, shared_bytes, 1, [&] { kernel(arguments...); }});
  }

  // The same in clusters of neighbouring blocks.
  template <typename... Parameters, typename... Arguments>
  void launch_clusters(unsigned cluster, dim3 grid, dim3 block, size_t shared_bytes, void (*kernel)(Parameters...),
                       const Arguments&... arguments) {
    run({grid, block, shared_bytes, cluster, [&] { kernel(arguments...); }});
  }

 private:
  void run(const Launch& launch);

  Schedule schedule_;
  Sequence block_order_;
  std::vector<std::unique_ptr<Multiprocessor>> multiprocessors_;
};

}  // namespace emulator

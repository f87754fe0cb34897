// Runs one block at a time: its threads as fibers, with CUDA's barriers and exchanges between them.
//
// A warp runs until each of its threads waits for other warps or has returned. So warps drift as far apart as the
// barriers let them, and a missing barrier shows. Threads that can never go on are an error.
#pragma once

#include "emulator/sanitizers.h"
#include "emulator/schedule.h"

#include <cstdint>
#include <functional>
#include <memory>
#include <stdexcept>
#include <vector>

namespace emulator {

constexpr unsigned kWarpSize = 32;

// As CUDA's type of that name: what is not given is 1.
struct dim3 {
  constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
  unsigned x, y, z;

  unsigned count() const { return x * y * z; }
  dim3 at(unsigned index) const { return {index % x, index / x % y, index / x / y}; }  // x runs fastest
};

struct Launch {
  dim3 grid_size, block_size;
  std::function<void()> kernel;  // each thread calls it
};

// A kernel did what CUDA leaves undefined.
struct KernelError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// A block's fences and atomic operations, which order it and other blocks: what was done before a fence goes along with
// the atomic operations of the block that follow, and is seen after a fence that follows a later one of another block.
class Fences {
 public:
  explicit Fences(Courier& courier) : courier_(courier) {}

  void fence();
  unsigned add(unsigned* address, unsigned value);

 private:
  Courier& courier_;
  MeetingPoint fenced_, observed_;
};

struct Thread;

class Multiprocessor {
 public:
  explicit Multiprocessor(const Schedule& schedule);
  ~Multiprocessor();

  // Runs block number `block`.
  void run(const Launch& launch, unsigned block);
  // The caller sees what the blocks have done.
  void finish();

 private:
  void run_warp(unsigned warp);
  bool release_exchanges(unsigned first, unsigned lanes);
  bool release_barrier();
  [[noreturn]] void fail(const char* what) const;

  Sequence warp_order_, lane_order_;
  std::vector<std::unique_ptr<Thread>> threads_;  // as many as the largest block so far had
  unsigned count_ = 0;                            // those of this block
  unsigned blocks_ = 0;                           // run so far
  // Where a block makes room for the next, and the barrier; two each, which take turns: or else a thread that has
  // reached the next one would seem ordered before those that still leave this one.
  MeetingPoint residence_[2], barrier_[2];
  Courier courier_;
  std::unique_ptr<Fences> fences_;  // of this block
};

// ---- what kernels call, through device.h ----

// Where the calling thread is.
struct Coordinates {
  dim3 thread, block, block_size, grid_size;
};
const Coordinates& coordinates();
unsigned lane();

// A call that waits for other threads, for error messages.
struct Site {
  const char* call;
  const char* file;
  int line;
};

// Waits for all threads of the block.
void synchronise(Site site);

// Waits for the lanes in `mask`; each offers 64 bits and gets what lane `from` offers.
uint64_t exchange(uint32_t mask, uint64_t offered, unsigned from, Site site);

Fences& fences();

}  // namespace emulator

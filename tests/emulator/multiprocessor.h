// Runs one block at a time: its threads as fibers, with CUDA's barriers and exchanges between them.
//
// A warp runs until each of its threads waits for other warps or has returned. Warps therefore drift as far apart as
// the barriers allow, which exposes missing barriers. Threads that can never continue are an error.
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

// Like CUDA's type of that name: omitted dimensions are 1.
struct dim3 {
  constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
  unsigned x, y, z;

  unsigned count() const { return x * y * z; }
  dim3 at(unsigned index) const { return {index % x, index / x % y, index / x / y}; }  // x runs fastest
};

struct Launch {
  dim3 grid_size, block_size;
  std::function<void()> kernel;  // called by each thread
};

// A kernel did something that CUDA leaves undefined.
struct KernelError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// The fences and atomic operations of a block, which order its accesses relative to other blocks. Accesses before a
// fence are published by later atomic operations of the block. They become visible to another block at a fence that
// follows a later atomic operation of that block.
class Fences {
 public:
  explicit Fences(Courier& courier) : courier_(courier) {}

  void fence();
  unsigned add(unsigned* address, unsigned value);

 private:
  Courier& courier_;
  SyncPoint fenced_, observed_;
};

struct Thread;

class Multiprocessor {
 public:
  explicit Multiprocessor(const Schedule& schedule);
  ~Multiprocessor();

  // Runs block number `block`.
  void run(const Launch& launch, unsigned block);
  // Makes the results of the blocks visible to the caller.
  void finish();

 private:
  void run_warp(unsigned warp);
  bool release_exchanges(unsigned first, unsigned lanes);
  bool release_barrier();
  [[noreturn]] void fail(const char* what) const;

  Sequence warp_order_, lane_order_;
  std::vector<std::unique_ptr<Thread>> threads_;  // as many as the largest block so far has had
  unsigned count_ = 0;                            // threads in this block
  unsigned blocks_ = 0;                           // blocks run so far
  // The points where one block makes room for the next, and the barrier. There are two of each, used in turn: with one,
  // a thread that reached the next barrier would seem ordered before those still leaving this one.
  SyncPoint residence_[2], barrier_[2];
  Courier courier_;
  std::unique_ptr<Fences> fences_;  // of this block
};

// ---- functions that kernels call through device.h ----

// The position of the calling thread.
struct Coordinates {
  dim3 thread, block, block_size, grid_size;
};
const Coordinates& coordinates();
unsigned lane();

// The place of a call that waits for other threads, for error messages.
struct Site {
  const char* call;
  const char* file;
  int line;
};

// Waits for all threads of the block.
void synchronise(Site site);

// Waits for the lanes in `mask`; each offers 64 bits and receives those that lane `from` offers.
uint64_t exchange(uint32_t mask, uint64_t offered, unsigned from, Site site);

Fences& fences();

}  // namespace emulator

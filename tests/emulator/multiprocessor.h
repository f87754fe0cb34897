// Runs one block at a time: its threads as fibers, with CUDA's barriers and collective calls between them.
//
// A warp runs until each of its threads waits for other warps or has returned. Warps therefore drift as far apart as
// the barriers allow, which exposes missing barriers. Threads that can never continue are an error.
#pragma once

#include "emulator/sanitizers.h"
#include "emulator/schedule.h"
#include "emulator/shared_memory.h"
#include "emulator/started.h"

#include <cstdint>
#include <functional>
#include <memory>
#include <stdexcept>
#include <string>
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
  size_t shared_bytes;           // of dynamic shared memory
  unsigned cluster;              // blocks that run together; static shared memory is common to them here
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
  // Atomic operations: they return the value before.
  unsigned add(unsigned* address, unsigned value);
  template <typename T>
  T max(T* address, T value);

 private:
  template <typename Change>
  void order(Change change);

  Courier& courier_;
  SyncPoint fenced_, observed_;
};

struct Thread;
struct Block;

class Multiprocessor {
 public:
  explicit Multiprocessor(const Schedule& schedule);
  ~Multiprocessor();

  // Runs cluster number `cluster`, which is a block where clusters are of one block.
  void run(const Launch& launch, unsigned cluster);
  // Makes the results of the blocks visible to the caller.
  void finish();

 private:
  void start(const Launch& launch, unsigned cluster);
  void run_warp(unsigned warp);
  bool release_collectives(unsigned first, unsigned lanes);
  bool release_barriers();
  bool release_barriers(Block& block, unsigned first);
  bool release_cluster();
  bool release_mbarriers();
  bool complete_copies();
  bool all_returned() const;
  void check_products();
  [[noreturn]] void fail(const std::string& what);

  Sequence warp_order_, lane_order_, copy_order_;
  std::vector<std::unique_ptr<Thread>> threads_;  // as many as the largest block so far has had
  unsigned count_ = 0, of_block_ = 0;             // threads in this cluster, and in each of its blocks
  unsigned blocks_ = 0;                           // blocks run so far
  // The points where one block makes room for the next. There are two, used in turn: with one, a thread that begins
  // would seem ordered before those of the previous block that are still leaving.
  SyncPoint residence_[2];
  Courier courier_;
  std::vector<std::unique_ptr<SharedMemory>> shared_;  // of the blocks of a cluster
  std::vector<std::unique_ptr<Block>> cluster_;        // what the threads of each of its blocks share
};

// ---- functions that kernels call through device.h ----

// The position of the calling thread.
struct Coordinates {
  dim3 thread, block, block_size, grid_size;
};
const Coordinates& coordinates();
unsigned lane();

// Waits for all threads of the block, and returns whether `predicate` holds for one of them.
bool synchronise(Site site, bool predicate = false);

// Waits until `threads` threads, whole warps, wait at barrier number `id`, 1 to 15.
bool synchronise(int id, int threads, Site site, bool predicate = false);

// The number of the calling block in its cluster, and a barrier for all threads of the cluster.
unsigned cluster_rank();
void synchronise_cluster(Site site);

// What the lanes of a warp do together, once all lanes in a mask have called collective(): it gets the argument of each
// lane in the mask. It returns an error or null.
using Operation = const char* (*)(void* const* arguments, uint32_t mask);
void collective(uint32_t mask, Operation operation, void* argument, Site site);

// Waits for the lanes in `mask`; each offers 64 bits and receives those that lane `from` offers.
uint64_t exchange(uint32_t mask, uint64_t offered, unsigned from, Site site);

// Waits for the lanes in `mask`, and returns those for which `predicate` holds.
uint32_t vote(uint32_t mask, bool predicate, Site site);

// Ends the launch with an error of the calling thread.
[[noreturn]] void fail(const std::string& what, Site site);

Fences& fences();

// The block's dynamic shared memory.
SharedMemory& shared_memory();

// What the calling thread has started.
Started& started();

// Products of a warpgroup read shared memory through a proxy. It sees a write of a thread once that thread has called
// fence_proxy() and then synchronised. Only the race detector notices a missing fence.
void fence_proxy();
void read_by_proxy(void* address, size_t bytes);

// Barriers in shared memory that count arrivals.
void initialise_mbarrier(uint32_t address, uint32_t arrivals, Site site);
// `rank`: the block of the cluster; less than 0: the caller's.
void arrive_at_mbarrier(uint32_t address, Site site, int rank = -1);
void wait_for_mbarrier(uint32_t address, uint32_t parity, Site site);

// Copies of the hardware. The phase of the barrier ends only when as many bytes as it expects have arrived. They arrive
// as late as possible: when no thread can continue without them. Until then their destination is NaN (all bits set).
void expect_at_mbarrier(uint32_t address, uint32_t bytes, Site site);
void copy_at_mbarrier(uint32_t to, const void* from, uint32_t bytes, uint32_t address, Site site, int rank = -1);

}  // namespace emulator

// A thread of a block, and what the threads of a block share: for the emulator's own files.
#pragma once

#include "emulator/fiber.h"
#include "emulator/multiprocessor.h"

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

namespace emulator {

enum class State { kReady, kAtBarrier, kAtCluster, kAtMbarrier, kInCollective, kReturned, kFaulty };

// Where threads, and the asynchronous proxies of threads, are ordered.
struct Rendezvous {
  SyncPoint threads, proxies;
};

// A thread of the block, and what it is waiting for.
//
// Products of a warpgroup read shared memory through the asynchronous proxy. For the race detector this is a second
// racer of each thread: it knows what other proxies know where threads synchronise, and what its own thread knows only
// after a fence.
struct Thread {
  Thread() : fiber(&run_kernels, this) {}

  static void run_kernels(void* thread);

  // Returns once the multiprocessor has made the thread ready again.
  void wait(State what_for, Site where) {
    state = what_for;
    site = where;
    fiber.pause();
  }

  void leave(Rendezvous& rendezvous);
  void enter(Rendezvous& rendezvous);

  Fiber fiber;
  std::unique_ptr<Proxy> proxy;  // from the first launch with dynamic shared memory on
  SyncPoint fenced, read;        // from the thread to its proxy, and back
  State state = State::kReturned;
  Site site{};
  Coordinates coordinates;
  const Launch* launch = nullptr;
  SyncPoint *block_before = nullptr, *block_after = nullptr;
  Block* block = nullptr;
  std::string fault;
  Started started;

  int barrier = 0;  // where it waits, 0 for that of the whole block, and for how many threads
  unsigned expected = 0;
  bool predicate = false;  // in, and out

  uint32_t mbarrier = 0, parity = 0;

  unsigned lane = 0;
  Thread* warp = nullptr;  // the first thread of the warp, which holds what the warp shares
  Rendezvous collective_of_warp[2];
  unsigned collectives = 0;  // so far
  uint32_t mask = 0;
  Operation operation = nullptr;
  void* argument = nullptr;
};

constexpr int kBarriers = 16;

// Barriers have two points, used in turn: with one, a thread that reached the next barrier would seem ordered
// before those still leaving this one.
struct Barrier {
  Rendezvous points[2];
  unsigned passed = 0;
};

// A copy by the hardware that has not yet begun.
struct BulkCopy {
  unsigned char* to;
  const void* from;
  size_t bytes;
};

struct Mbarrier {
  Rendezvous points[2];
  uint32_t arrivals = 0, pending = 0;
  uint32_t phase = 0;
  int64_t bytes = 0;  // expected and not yet here; less than 0: here before they are expected
  // Not a vector: the race detector would see threads and the multiprocessor share its memory.
  BulkCopy copies[64];
  unsigned started = 0;

  // Ends the phase if all have arrived.
  void advance() {
    if (pending > 0 || bytes != 0) return;
    pending = arrivals;
    ++phase;
  }

  bool ended(uint32_t parity) const { return phase % 2 != parity; }
  // What the barrier's memory holds, so that an overwritten barrier is noticed.
  uint64_t word() const { return uint64_t(phase) << 40 | uint64_t(arrivals) << 20 | pending; }
};

struct Block {
  Block(Courier& courier, SharedMemory& shared, unsigned rank, const std::vector<std::unique_ptr<Block>>& cluster)
      : fences(courier), shared(shared), rank(rank), cluster(cluster) {}

  Fences fences;
  SharedMemory& shared;
  unsigned rank;  // in the cluster
  const std::vector<std::unique_ptr<Block>>& cluster;
  Barrier barriers[kBarriers];
  Barrier of_cluster;  // that of its first block counts
  std::map<uint32_t, Mbarrier> mbarriers;  // by address
  bool uses_proxies = false;               // so far; without fences and products, proxies know nothing
};

inline void Thread::leave(Rendezvous& rendezvous) {
  rendezvous.threads.leave();
  if (block->uses_proxies) proxy->act([&] { rendezvous.proxies.leave(); });
}

inline void Thread::enter(Rendezvous& rendezvous) {
  rendezvous.threads.enter();
  if (block->uses_proxies) proxy->act([&] { rendezvous.proxies.enter(); });
}

// The CUDA thread that this operating system thread is running.
extern thread_local Thread* running;

}  // namespace emulator

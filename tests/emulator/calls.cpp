// What a thread does when a kernel calls a function of multiprocessor.h.
#include "emulator/thread.h"

#include <atomic>
#include <cstdlib>
#include <cstring>
#include <iterator>

namespace emulator {

const Coordinates& coordinates() { return running->coordinates; }

unsigned lane() { return running->lane; }

namespace {

bool wait_at_barrier(int id, unsigned threads, bool predicate, Site site) {
  Thread& self = *running;
  Barrier& barrier = self.block->barriers[id];
  Rendezvous& point = barrier.points[barrier.passed % 2];
  self.leave(point);
  self.barrier = id;
  self.expected = threads;
  self.predicate = predicate;
  self.wait(State::kAtBarrier, site);
  self.enter(point);
  return self.predicate;
}

}  // namespace

bool synchronise(Site site, bool predicate) {
  return wait_at_barrier(0, running->launch->block_size.count(), predicate, site);
}

bool synchronise(int id, int threads, Site site, bool predicate) {
  if (id < 1 || id >= kBarriers) fail("a named barrier has a number from 1 to 15", site);
  if (threads < 1 || threads % int(kWarpSize) != 0) fail("a named barrier is for whole warps", site);
  return wait_at_barrier(id, unsigned(threads), predicate, site);
}

unsigned cluster_rank() { return running->block->rank; }

void synchronise_cluster(Site site) {
  Thread& self = *running;
  Barrier& barrier = self.block->cluster.front()->of_cluster;
  Rendezvous& point = barrier.points[barrier.passed % 2];
  self.leave(point);
  self.wait(State::kAtCluster, site);
  self.enter(point);
}

void collective(uint32_t mask, Operation operation, void* argument, Site site) {
  Thread& self = *running;
  Rendezvous& point = self.warp->collective_of_warp[self.collectives++ % 2];
  self.leave(point);
  self.mask = mask;
  self.operation = operation;
  self.argument = argument;
  self.wait(State::kInCollective, site);
  self.enter(point);
}

uint64_t exchange(uint32_t mask, uint64_t offered, unsigned from, Site site) {
  struct Exchange {
    uint64_t offered, received;
    unsigned from;
  } own{offered, 0, from};
  const Operation operation = [](void* const* arguments, uint32_t mask) -> const char* {
    for (unsigned lane = 0; lane < kWarpSize; ++lane) {
      if ((mask >> lane & 1) == 0) continue;
      Exchange& one = *static_cast<Exchange*>(arguments[lane]);
      if (one.from >= kWarpSize || (mask >> one.from & 1) == 0) return "a lane reads from a lane that never takes part";
      one.received = static_cast<const Exchange*>(arguments[one.from])->offered;
    }
    return nullptr;
  };
  collective(mask, operation, &own, site);
  return own.received;
}

uint32_t vote(uint32_t mask, bool predicate, Site site) {
  struct Vote {
    bool predicate;
    uint32_t result;
  } own{predicate, 0};
  const Operation operation = [](void* const* arguments, uint32_t mask) -> const char* {
    uint32_t result = 0;
    for (unsigned lane = 0; lane < kWarpSize; ++lane) {
      if ((mask >> lane & 1) != 0 && static_cast<const Vote*>(arguments[lane])->predicate) result |= 1u << lane;
    }
    for (unsigned lane = 0; lane < kWarpSize; ++lane) {
      if ((mask >> lane & 1) != 0) static_cast<Vote*>(arguments[lane])->result = result;
    }
    return nullptr;
  };
  collective(mask, operation, &own, site);
  return own.result;
}

void fail(const std::string& what, Site site) {
  Thread& self = *running;
  self.fault = what;
  self.wait(State::kFaulty, site);
  std::abort();
}

Fences& fences() { return running->block->fences; }

SharedMemory& shared_memory() { return running->block->shared; }

Started& started() { return running->started; }

void fence_proxy() {
  Thread& self = *running;
  if (!self.proxy) return;  // there is no dynamic shared memory, hence nothing to read
  self.block->uses_proxies = true;
  self.fenced.leave();
  self.proxy->act([&] { self.fenced.enter(); });
}

void read_by_proxy(void* address, size_t bytes) {
  Thread& self = *running;
  self.block->uses_proxies = true;
  note_read(address, bytes);
  self.proxy->act([&] {
    note_read(address, bytes);
    self.read.leave();
  });
  self.read.enter();
}

namespace {

Block& block_of(int rank, Site site) {
  Block& own = *running->block;
  if (rank >= int(own.cluster.size())) fail("there is no such block in the cluster", site);
  return rank < 0 ? own : *own.cluster[unsigned(rank)];
}

Mbarrier& mbarrier_at(uint32_t address, Site site, int rank = -1) {
  Block& block = block_of(rank, site);
  const auto found = block.mbarriers.find(address);
  if (found == block.mbarriers.end()) {
    fail("there is no initialised mbarrier at address " + std::to_string(address), site);
  }
  uint64_t word;
  std::memcpy(&word, block.shared.at(address, sizeof word, site), sizeof word);
  if (word != found->second.word()) fail("an mbarrier was overwritten at address " + std::to_string(address), site);
  return found->second;
}

void store(uint32_t address, const Mbarrier& barrier, Site site, int rank = -1) {
  const uint64_t word = barrier.word();
  std::memcpy(block_of(rank, site).shared.at(address, sizeof word, site), &word, sizeof word);
}

}  // namespace

void initialise_mbarrier(uint32_t address, uint32_t arrivals, Site site) {
  if (arrivals < 1 || arrivals >= 1u << 20) fail("an mbarrier is for 1 to 2^20 - 1 arrivals", site);
  Block& block = *running->block;
  block.shared.at(address, sizeof(uint64_t), site);
  Mbarrier& barrier = block.mbarriers[address];
  barrier.arrivals = barrier.pending = arrivals;
  barrier.phase = 0;
  store(address, barrier, site);
}

void arrive_at_mbarrier(uint32_t address, Site site, int rank) {
  Mbarrier& barrier = mbarrier_at(address, site, rank);
  if (barrier.pending == 0) fail("a thread arrives at a phase of an mbarrier that waits only for copies", site);
  running->leave(barrier.points[barrier.phase % 2]);
  --barrier.pending;
  barrier.advance();
  store(address, barrier, site, rank);
}

void expect_at_mbarrier(uint32_t address, uint32_t bytes, Site site) {
  Mbarrier& barrier = mbarrier_at(address, site);
  barrier.bytes += bytes;
  store(address, barrier, site);
}

void copy_at_mbarrier(uint32_t to, const void* from, uint32_t bytes, uint32_t address, Site site, int rank) {
  if (bytes == 0 || bytes % 16 != 0) fail("a bulk copy has a multiple of 16 bytes", site);
  if (reinterpret_cast<uintptr_t>(from) % 16 != 0) fail("the source of a bulk copy is misaligned", site);
  Mbarrier& barrier = mbarrier_at(address, site, rank);
  const SharedMemory& shared = block_of(rank, site).shared;
  unsigned char* const target = shared.at(to, 16, site);
  shared.at(to + bytes - 16, 16, site);  // it ends inside shared memory
  if (barrier.started == std::size(barrier.copies)) fail("too many bulk copies wait for an mbarrier here", site);
  note_read(const_cast<void*>(from), bytes);
  // Through volatile, because memset() would tell the race detector of accesses of this thread.
  for (uint32_t k = 0; k < bytes; ++k) static_cast<volatile unsigned char*>(target)[k] = 0xff;
  barrier.copies[barrier.started++] = {target, from, bytes};
}

void wait_for_mbarrier(uint32_t address, uint32_t parity, Site site) {
  Thread& self = *running;
  if (parity > 1) fail("the parity of a phase is 0 or 1", site);
  Mbarrier& barrier = mbarrier_at(address, site);
  if (!barrier.ended(parity)) {
    self.mbarrier = address;
    self.parity = parity;
    self.wait(State::kAtMbarrier, site);
  }
  self.enter(barrier.points[parity]);
}

void Fences::fence() {
  fenced_.leave();
  std::atomic_thread_fence(std::memory_order_seq_cst);
  observed_.enter();
}

namespace {
SyncPoint atomics;  // of all blocks
}

template <typename Change>
void Fences::order(Change change) {
  courier_.carry(fenced_, atomics);
  change();
  courier_.carry(atomics, observed_);
}

unsigned Fences::add(unsigned* address, unsigned value) {
  unsigned before = 0;
  order([&] { before = __atomic_fetch_add(address, value, __ATOMIC_RELAXED); });
  return before;
}

template <typename T>
T Fences::max(T* address, T value) {
  T before = 0;
  order([&] {
    before = __atomic_load_n(address, __ATOMIC_RELAXED);
    while (before < value && !__atomic_compare_exchange_n(address, &before, value, false, __ATOMIC_RELAXED,
                                                          __ATOMIC_RELAXED)) {
    }
  });
  return before;
}

template int Fences::max(int*, int);
template unsigned Fences::max(unsigned*, unsigned);

}  // namespace emulator

#include "emulator/multiprocessor.h"

#include "emulator/fiber.h"

#include <link.h>

#include <algorithm>
#include <atomic>
#include <sstream>
#include <string>

namespace emulator {

enum class State { kReady, kAtBarrier, kInExchange, kReturned };

// A thread of the block, and what it is waiting for.
struct Thread {
  Thread() : fiber(&run_kernels, this) {}

  static void run_kernels(void* thread);

  // Returns once the multiprocessor has made the thread ready again.
  void wait(State what_for, Site where, SyncPoint* points, unsigned& passed) {
    SyncPoint& point = points[passed++ % 2];
    point.leave();
    state = what_for;
    site = where;
    fiber.pause();
    point.enter();
  }

  Fiber fiber;
  State state = State::kReturned;
  Site site{};
  Coordinates coordinates;
  const Launch* launch = nullptr;
  SyncPoint *block_before = nullptr, *block_after = nullptr;
  Fences* fences = nullptr;

  SyncPoint* barrier = nullptr;  // the block's two
  unsigned barriers = 0;         // passed so far

  unsigned lane = 0;
  Thread* warp = nullptr;  // the first thread of the warp, which holds what the warp shares
  SyncPoint exchange_of_warp[2];
  unsigned exchanges = 0;
  uint32_t mask = 0;
  unsigned from = 0;
  uint64_t offered = 0, received = 0;
};

namespace {

// The CUDA thread that this operating system thread is running.
thread_local Thread* running = nullptr;

// Shared memory is the thread_local memory of this program, so each multiprocessor has its own. At the start of each
// block it is NaN (all bits set), which exposes values that are read before they are written.
int poison_if_ours(dl_phdr_info* module, size_t, void*) {
  const volatile char* const ours = reinterpret_cast<char*>(&running);
  for (const ElfW(Phdr)* segment = module->dlpi_phdr; segment < module->dlpi_phdr + module->dlpi_phnum; ++segment) {
    volatile char* const begin = static_cast<char*>(module->dlpi_tls_data);
    if (segment->p_type != PT_TLS || begin == nullptr || ours < begin || ours >= begin + segment->p_memsz) continue;
    std::fill_n(begin, segment->p_memsz, char(0xff));
    return 1;
  }
  return 0;
}

bool same(const Site& a, const Site& b) { return a.call == b.call && a.file == b.file && a.line == b.line; }

std::string describe(const Thread& thread) {
  if (thread.state == State::kReady) return "about to run";
  if (thread.state == State::kReturned) return "returned";
  std::ostringstream text;
  text << "in " << thread.site.call << " at " << thread.site.file << ":" << thread.site.line;
  if (thread.state == State::kInExchange) text << " with mask 0x" << std::hex << thread.mask;
  return text.str();
}

}  // namespace

void Thread::run_kernels(void* thread) {
  Thread& self = *static_cast<Thread*>(thread);
  for (;;) {
    self.block_before->enter();
    self.launch->kernel();
    self.block_after->leave();
    self.state = State::kReturned;
    self.fiber.pause();
  }
}

Multiprocessor::Multiprocessor(const Schedule& schedule)
    : warp_order_(schedule.order, schedule.seed), lane_order_(schedule.order, schedule.seed + 1) {}

Multiprocessor::~Multiprocessor() = default;

void Multiprocessor::run(const Launch& launch, unsigned block) {
  dl_iterate_phdr(&poison_if_ours, nullptr);
  SyncPoint& before = residence_[blocks_ % 2];
  SyncPoint& after = residence_[++blocks_ % 2];
  before.leave();
  fences_ = std::make_unique<Fences>(courier_);
  count_ = launch.block_size.count();
  while (threads_.size() < count_) threads_.push_back(std::make_unique<Thread>());
  for (unsigned t = 0; t < count_; ++t) {
    Thread& thread = *threads_[t];
    thread.state = State::kReady;
    thread.coordinates = {launch.block_size.at(t), launch.grid_size.at(block), launch.block_size, launch.grid_size};
    thread.launch = &launch;
    thread.block_before = &before;
    thread.block_after = &after;
    thread.fences = fences_.get();
    thread.barrier = barrier_;
    thread.lane = t % kWarpSize;
    thread.warp = threads_[t - thread.lane].get();
    thread.barriers = thread.exchanges = 0;
  }
  const unsigned warps = (count_ + kWarpSize - 1) / kWarpSize;
  do {
    for (unsigned warp : warp_order_.next(warps)) run_warp(warp);
  } while (release_barrier());
}

void Multiprocessor::finish() {
  for (SyncPoint& point : residence_) point.enter();
}

// Runs the lanes of a warp until none of them can continue without other warps.
void Multiprocessor::run_warp(unsigned warp) {
  const unsigned first = warp * kWarpSize, lanes = std::min(count_ - first, kWarpSize);
  do {
    for (unsigned lane : lane_order_.next(lanes)) {
      Thread& thread = *threads_[first + lane];
      if (thread.state != State::kReady) continue;
      running = &thread;
      thread.fiber.resume();
    }
  } while (release_exchanges(first, lanes));
}

// Releases the lanes whose partners have arrived; returns false if no lane waits for another.
bool Multiprocessor::release_exchanges(unsigned first, unsigned lanes) {
  bool waiting = false, released = false;
  for (unsigned lane = 0; lane < lanes; ++lane) {
    const Thread& one = *threads_[first + lane];
    if (one.state != State::kInExchange) continue;
    waiting = true;
    const auto in_mask = [&](unsigned other) { return (one.mask >> other & 1) != 0; };
    bool complete = in_mask(lane);
    for (unsigned other = 0; other < kWarpSize; ++other) {
      if (!in_mask(other)) continue;
      const Thread* partner = other < lanes ? threads_[first + other].get() : nullptr;
      complete = complete && partner != nullptr && partner->state == State::kInExchange && partner->mask == one.mask &&
                 same(partner->site, one.site) && partner->from < kWarpSize && in_mask(partner->from);
    }
    if (!complete) continue;
    for (unsigned other = 0; other < lanes; ++other) {
      if (!in_mask(other)) continue;
      Thread& partner = *threads_[first + other];
      partner.received = threads_[first + partner.from]->offered;
      partner.state = State::kReady;
    }
    released = true;
  }
  if (waiting && !released) fail("an exchange waits for lanes that never take part");
  return released;
}

// Releases the block once all of its threads have arrived; returns false once all have returned.
bool Multiprocessor::release_barrier() {
  const Thread& one = *threads_[0];
  for (unsigned t = 0; t < count_; ++t) {
    const Thread& thread = *threads_[t];
    const bool together = thread.state == one.state && (one.state == State::kReturned || same(thread.site, one.site));
    if (!together) fail("a barrier waits for threads that never reach it");
  }
  if (one.state == State::kReturned) return false;
  for (unsigned t = 0; t < count_; ++t) threads_[t]->state = State::kReady;
  return true;
}

// Reports where each thread is.
void Multiprocessor::fail(const char* what) const {
  const dim3 block = threads_[0]->coordinates.block;
  std::ostringstream text;
  text << "block (" << block.x << ", " << block.y << ", " << block.z << "): " << what;
  for (unsigned t = 0, end = 0; t < count_; t = end) {
    const std::string where = describe(*threads_[t]);
    while (end < count_ && describe(*threads_[end]) == where) ++end;
    text << "\n  threads " << t << " to " << end - 1 << ": " << where;
  }
  throw KernelError(text.str());
}

const Coordinates& coordinates() { return running->coordinates; }

unsigned lane() { return running->lane; }

void synchronise(Site site) {
  Thread& self = *running;
  self.wait(State::kAtBarrier, site, self.barrier, self.barriers);
}

uint64_t exchange(uint32_t mask, uint64_t offered, unsigned from, Site site) {
  Thread& self = *running;
  self.mask = mask;
  self.offered = offered;
  self.from = from;
  self.wait(State::kInExchange, site, self.warp->exchange_of_warp, self.exchanges);
  return self.received;
}

Fences& fences() { return *running->fences; }

void Fences::fence() {
  fenced_.leave();
  std::atomic_thread_fence(std::memory_order_seq_cst);
  observed_.enter();
}

unsigned Fences::add(unsigned* address, unsigned value) {
  static SyncPoint atomics;
  courier_.carry(fenced_, atomics);
  const unsigned before = __atomic_fetch_add(address, value, __ATOMIC_RELAXED);
  courier_.carry(atomics, observed_);
  return before;
}

}  // namespace emulator

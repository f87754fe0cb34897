#include "emulator/multiprocessor.h"

#include "emulator/thread.h"

#include <link.h>

#include <algorithm>
#include <set>
#include <cstring>
#include <sstream>

namespace emulator {

thread_local Thread* running = nullptr;

namespace {

// Static shared memory is the thread_local memory of this program, so each multiprocessor has its own. At the start of
// each block it is NaN (all bits set), which exposes values that are read before they are written.
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
  if (thread.state == State::kInCollective) text << " with mask 0x" << std::hex << thread.mask;
  if (thread.state == State::kAtBarrier && thread.barrier > 0) {
    text << " for " << thread.expected << " threads with id " << thread.barrier;
  }
  if (thread.state == State::kAtMbarrier) {
    const Mbarrier& barrier = thread.block->mbarriers.at(thread.mbarrier);
    text << " for parity " << thread.parity << " of address " << thread.mbarrier << ", which is in phase "
         << barrier.phase << " and lacks " << barrier.pending << " of " << barrier.arrivals << " arrivals";
  }
  return text.str();
}

}  // namespace

void Thread::run_kernels(void* thread) {
  Thread& self = *static_cast<Thread*>(thread);
  for (;;) {
    self.block_before->enter();
    if (self.proxy) self.proxy->act([&] { self.block_before->enter(); });
    self.launch->kernel();
    self.block_after->leave();
    self.state = State::kReturned;
    self.fiber.pause();
  }
}

Multiprocessor::Multiprocessor(const Schedule& schedule)
    : warp_order_(schedule.order, schedule.seed),
      lane_order_(schedule.order, schedule.seed + 1),
      copy_order_(schedule.order, schedule.seed + 2) {}

Multiprocessor::~Multiprocessor() = default;

void Multiprocessor::start(const Launch& launch, unsigned cluster) {
  SyncPoint& before = residence_[blocks_ % 2];
  SyncPoint& after = residence_[++blocks_ % 2];
  of_block_ = launch.block_size.count();
  count_ = of_block_ * launch.cluster;
  if (launch.cluster > 1 && of_block_ % (4 * kWarpSize) != 0) {
    throw KernelError("blocks of a cluster must consist of whole warpgroups here");
  }
  while (shared_.size() < launch.cluster) shared_.push_back(std::make_unique<SharedMemory>());
  before.enter();  // this frees what the threads of the previous block have allocated
  dl_iterate_phdr(&poison_if_ours, nullptr);
  for (unsigned rank = 0; rank < launch.cluster; ++rank) shared_[rank]->reset(launch.shared_bytes);
  before.leave();
  cluster_.clear();
  for (unsigned rank = 0; rank < launch.cluster; ++rank) {
    cluster_.push_back(std::make_unique<Block>(courier_, *shared_[rank], rank, cluster_));
  }
  while (threads_.size() < count_) threads_.push_back(std::make_unique<Thread>());
  for (unsigned t = 0; t < count_; ++t) {
    Thread& thread = *threads_[t];
    const unsigned rank = t / of_block_;
    thread.state = State::kReady;
    thread.coordinates = {launch.block_size.at(t % of_block_), launch.grid_size.at(cluster * launch.cluster + rank),
                          launch.block_size, launch.grid_size};
    thread.launch = &launch;
    thread.block_before = &before;
    thread.block_after = &after;
    thread.block = cluster_[rank].get();
    thread.started = Started();
    if (launch.shared_bytes > 0 && !thread.proxy) thread.proxy = std::make_unique<Proxy>();
    thread.lane = t % kWarpSize;
    thread.warp = threads_[t - thread.lane].get();
    thread.collectives = 0;
  }
}

void Multiprocessor::run(const Launch& launch, unsigned cluster) {
  start(launch, cluster);
  const unsigned warps = (count_ + kWarpSize - 1) / kWarpSize;
  for (;;) {
    for (unsigned warp : warp_order_.next(warps)) run_warp(warp);
    if (all_returned()) break;
    const bool some = release_barriers(), others = release_mbarriers(), all = release_cluster();
    if (!some && !others && !all && !complete_copies()) fail("a barrier waits for threads that never reach it");
  }
  check_products();
  for (const auto& block : cluster_) {
    for (const auto& [address, barrier] : block->mbarriers) {
      if (barrier.started > 0) fail("a block of threads ended while copies to its shared memory were under way");
    }
  }
}

bool Multiprocessor::all_returned() const {
  return std::all_of(threads_.begin(), threads_.begin() + count_,
                     [](const auto& thread) { return thread->state == State::kReturned; });
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
      if (thread.state == State::kFaulty) fail(thread.fault);
    }
  } while (release_collectives(first, lanes));
}

// Releases the lanes whose partners have arrived; returns false if no lane waits for another.
bool Multiprocessor::release_collectives(unsigned first, unsigned lanes) {
  bool released = false;
  uint32_t waiting = 0;
  for (unsigned lane = 0; lane < lanes; ++lane) {
    if (threads_[first + lane]->state == State::kInCollective) waiting |= 1u << lane;
  }
  for (uint32_t left = waiting; left != 0; left &= left - 1) {
    const unsigned lane = unsigned(__builtin_ctz(left));
    const Thread& one = *threads_[first + lane];
    if (one.state != State::kInCollective) continue;  // released with an earlier lane
    bool complete = (one.mask >> lane & 1) != 0 && (one.mask & ~waiting) == 0;
    void* arguments[kWarpSize] = {};
    for (uint32_t mask = one.mask; complete && mask != 0; mask &= mask - 1) {
      const unsigned other = unsigned(__builtin_ctz(mask));
      const Thread& partner = *threads_[first + other];
      complete = partner.state == State::kInCollective && partner.mask == one.mask && same(partner.site, one.site);
      arguments[other] = partner.argument;
    }
    if (!complete) continue;
    if (const char* const error = one.operation(arguments, one.mask)) fail(error);
    for (uint32_t mask = one.mask; mask != 0; mask &= mask - 1) {
      threads_[first + unsigned(__builtin_ctz(mask))]->state = State::kReady;
    }
    released = true;
  }
  if (waiting != 0 && !released) fail("a collective call waits for lanes that never take part");
  return released;
}

// Releases the barriers that all their threads have reached; returns false if there is none.
bool Multiprocessor::release_barriers() {
  bool released = false;
  for (unsigned rank = 0; rank < cluster_.size(); ++rank) {
    released = release_barriers(*cluster_[rank], rank * of_block_) || released;
  }
  return released;
}

// The same for a block, whose first thread is `first`.
bool Multiprocessor::release_barriers(Block& block, unsigned first) {
  bool released = false;
  for (int id = 0; id < kBarriers; ++id) {
    const Thread* one = nullptr;
    unsigned arrived = 0;
    bool together = true, predicate = false;
    for (unsigned t = first; t < first + of_block_; ++t) {
      const Thread& thread = *threads_[t];
      if (thread.state != State::kAtBarrier || thread.barrier != id) continue;
      if (one == nullptr) one = &thread;
      // Warps may wait at different places for the same named barrier, but not the lanes of a warp.
      const Thread& model = id == 0 ? *one : *thread.warp;
      together = together && model.state == State::kAtBarrier && model.barrier == id && same(thread.site, model.site) &&
                 thread.expected == one->expected;
      predicate = predicate || thread.predicate;
      ++arrived;
    }
    if (arrived == 0 || !together || arrived != one->expected) continue;
    for (unsigned t = first; t < first + of_block_; ++t) {
      Thread& thread = *threads_[t];
      if (thread.state != State::kAtBarrier || thread.barrier != id) continue;
      thread.predicate = predicate;
      thread.state = State::kReady;
    }
    ++block.barriers[id].passed;
    released = true;
  }
  return released;
}

// Releases the barrier of the cluster if all its threads have reached it.
bool Multiprocessor::release_cluster() {
  for (unsigned t = 0; t < count_; ++t) {
    if (threads_[t]->state != State::kAtCluster) return false;
  }
  for (unsigned t = 0; t < count_; ++t) threads_[t]->state = State::kReady;
  ++cluster_.front()->of_cluster.passed;
  return true;
}

bool Multiprocessor::release_mbarriers() {
  bool released = false;
  for (unsigned t = 0; t < count_; ++t) {
    Thread& thread = *threads_[t];
    if (thread.state != State::kAtMbarrier || !thread.block->mbarriers.at(thread.mbarrier).ended(thread.parity)) continue;
    thread.state = State::kReady;
    released = true;
  }
  return released;
}

// Completes the copies of the hardware that one barrier counts, of those that threads wait for; returns false if there is
// none. The others stay as they are: whoever reads such a copy without having waited for its barrier finds nothing.
bool Multiprocessor::complete_copies() {
  std::set<std::pair<Block*, uint32_t>> awaited;
  for (unsigned t = 0; t < count_; ++t) {
    if (threads_[t]->state == State::kAtMbarrier) awaited.emplace(threads_[t]->block, threads_[t]->mbarrier);
  }
  std::vector<std::pair<Block*, uint32_t>> waiting;
  for (const auto& of : cluster_) {
    for (const auto& [address, barrier] : of->mbarriers) {
      if (barrier.started > 0 && awaited.count({of.get(), address}) > 0) waiting.emplace_back(of.get(), address);
    }
  }
  if (waiting.empty()) return false;
  const auto [block, address] = waiting[copy_order_.next(unsigned(waiting.size())).front()];
  Mbarrier& barrier = block->mbarriers.at(address);
  for (unsigned k = 0; k < barrier.started; ++k) {
    const BulkCopy& copy = barrier.copies[k];
    for (size_t byte = 0; byte < copy.bytes; ++byte) {
      static_cast<volatile unsigned char*>(copy.to)[byte] = static_cast<const volatile unsigned char*>(copy.from)[byte];
    }
    barrier.bytes -= int64_t(copy.bytes);
  }
  barrier.started = 0;
  barrier.advance();
  const uint64_t word = barrier.word();
  std::memcpy(block->shared.at(address, sizeof word, {"copy_bulk", "", 0}), &word, sizeof word);
  return true;
}

// The warps of a warpgroup must start the same products.
void Multiprocessor::check_products() {
  constexpr unsigned kWarpgroup = 4 * kWarpSize;
  for (unsigned t = 0; t < count_; ++t) {
    const unsigned first = t - t % kWarpgroup, last = first + kWarpgroup - 1;
    const unsigned issued = threads_[t]->started.issued;
    if (issued > 0 && (last >= count_ || threads_[first]->started.issued != issued)) {
      fail("the warps of a warpgroup started different numbers of products");
    }
    if (issued == 0 && threads_[first]->started.issued > 0) {
      fail("the warps of a warpgroup started different numbers of products");
    }
  }
}

// Reports where each thread is.
void Multiprocessor::fail(const std::string& what) {
  // None of the threads continues.
  for (unsigned t = 0; t < count_; ++t) threads_[t]->fiber.leave(residence_[blocks_ % 2]);
  residence_[blocks_ % 2].enter();
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

}  // namespace emulator

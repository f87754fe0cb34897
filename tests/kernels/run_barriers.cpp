// Small kernels with named barriers, mbarriers and dynamic shared memory, and faulty versions of them. `run_barriers
// KERNEL ORDER` prints the integers that a kernel wrote.
#include "emulator/device.h"
#include "emulator/gpu.h"
#include "core/tensor_core.cuh"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <iterator>
#include <map>
#include <string>
#include <vector>

namespace fastccsa::cuda {
namespace {

constexpr int kBlocks = 2, kThreads = 128, kItems = 7, kStages = 2;
constexpr size_t kSharedBytes = 1024;

// What a kernel leaves out, or does wrong.
enum class Fault {
  kNone,
  kNoWaitForFull,
  kNoWaitForEmpty,
  kNoArrival,
  kTooManyArrivals,
  kOtherParity,
  kNoInitialisation,
  kOverwritten,
  kMisaligned,
  kBeyond,
  kStatic,
  kNoBarrier,
  kOtherId,
  kIdOfTheBlock,
  kOtherCount,
  kPartOfAWarp,
  kLanesApart,
  kNoWaitForCopies,
  kNoWaitForTheCluster,
  kFewerBytes,
  kOnlyOwnBlock,
  kNoSuchBlock,
  kOddSize,
};

// Warp 0 produces items, and warp 1 adds each lane's neighbour in them up; the stages are a ring.
template <Fault kFault>
__global__ void pipeline(int* out) {
  int* const items = reinterpret_cast<int*>(dynamic_shared() + 64);  // [kStages, 32]
  const uint32_t full = shared_address(dynamic_shared()) + (kFault == Fault::kMisaligned ? 4 : 0);
  const uint32_t empty = full + 8 * kStages;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  if (threadIdx.x == 0 && kFault != Fault::kNoInitialisation) {
    for (int stage = 0; stage < kStages; ++stage) {
      barrier_init(full + 8 * stage, 32);
      barrier_init(empty + 8 * stage, kFault == Fault::kTooManyArrivals ? 16 : 32);
    }
    fence_barrier_init();
  }
  __syncthreads();
  if (kFault == Fault::kOverwritten && threadIdx.x == 0) *dynamic_shared() ^= 1;
  uint32_t phase = 0;
  int sum = 0;
  for (int item = 0; item < kItems; ++item) {
    const int stage = item % kStages;
    if (warp == 0) {
      if (kFault != Fault::kNoWaitForEmpty) {
        barrier_wait(empty + 8 * stage, kFault == Fault::kOtherParity ? phase : phase ^ 1);
      }
      items[32 * stage + lane] = 100 * item + lane;
      if (kFault != Fault::kNoArrival || item != 5 || lane != 9) barrier_arrive(full + 8 * stage);
    } else if (warp == 1) {
      if (kFault != Fault::kNoWaitForFull) barrier_wait(full + 8 * stage, phase);
      sum += items[32 * stage + (lane + 1) % 32];
      barrier_arrive(empty + 8 * stage);
    }
    if (stage == kStages - 1) phase ^= 1;
  }
  out[blockIdx.x * kThreads + threadIdx.x] = sum;
}

// Warps 0 and 1 exchange values, and so do warps 2 and 3, with barriers of their own.
template <Fault kFault>
__global__ void exchange_in_pairs(int* out) {
  __shared__ int values[kThreads];
  const int pair = threadIdx.x / 64;
  int id = 1 + pair, threads = 64;
  if (kFault == Fault::kOtherId && threadIdx.x / 32 == 3) id = 3;
  if (kFault == Fault::kIdOfTheBlock) id = 0;
  if (kFault == Fault::kOtherCount && threadIdx.x / 32 == 3) threads = 96;
  if (kFault == Fault::kPartOfAWarp) threads = 48;
  for (int turn = 0; turn < 3; ++turn) {
    if (kFault == Fault::kLanesApart && threadIdx.x == 5) {
      named_barrier(id, threads);
    } else if (threadIdx.x / 32 % 2 == 0) {
      named_barrier(id, threads);
    } else {
      named_barrier(id, threads);  // elsewhere, which is allowed
    }
    values[threadIdx.x] = 100 * turn + int(threadIdx.x);
    if (kFault != Fault::kNoBarrier) named_barrier(id, threads);
    out[blockIdx.x * kThreads + threadIdx.x] = values[threadIdx.x ^ 32];
  }
}

// Two blocks form a cluster. In each turn the hardware copies a part of the items from each block to both; all threads of
// both blocks add their item up, and tell both blocks.
constexpr int kTurns = 5;
alignas(16) int items_of_turn[kTurns][kThreads];

template <Fault kFault>
__global__ void copy_for_both(int* out) {
  constexpr int kHalf = kThreads / 2;
  int* const items = reinterpret_cast<int*>(dynamic_shared() + 64);
  const uint32_t full = shared_address(dynamic_shared()), empty = full + 8;
  const int rank = cluster_rank();
  if (threadIdx.x == 0) {
    barrier_init(full, 1);
    barrier_init(empty, kBlocks * kThreads);
    fence_barrier_init();
  }
  synchronise_cluster();
  int sum = 0;
  for (int turn = 0; turn < kTurns; ++turn) {
    if (threadIdx.x == 0) {
      if (kFault != Fault::kNoWaitForTheCluster) barrier_wait(empty, turn % 2 ^ 1);
      barrier_arrive_expecting(full, kThreads * sizeof(int) - (kFault == Fault::kFewerBytes ? 16 : 0));
      const uint32_t bytes = kFault == Fault::kOddSize ? 8 : kHalf * sizeof(int);
      copy_bulk_to(3, shared_address(items + rank * kHalf), items_of_turn[turn] + rank * kHalf, bytes, full);
    }
    if (kFault != Fault::kNoWaitForCopies) barrier_wait(full, turn % 2);
    sum += items[threadIdx.x];
    const int blocks = kFault == Fault::kOnlyOwnBlock ? 1 : kFault == Fault::kNoSuchBlock ? 3 : kBlocks;
    for (int block = 0; block < blocks; ++block) barrier_arrive_at(empty, (rank + block) % (blocks == 3 ? 3 : kBlocks));
  }
  synchronise_cluster();
  out[blockIdx.x * kThreads + threadIdx.x] = sum;
}

// The hardware copies two halves of the items, and each has a barrier.
template <Fault kFault>
__global__ void copy_in_halves(int* out) {
  constexpr int kHalf = kThreads / 2;
  int* const items = reinterpret_cast<int*>(dynamic_shared() + 64);
  const uint32_t first = shared_address(dynamic_shared()), second = first + 8;
  if (threadIdx.x == 0) {
    for (const uint32_t barrier : {first, second}) barrier_init(barrier, 1);
    fence_barrier_init();
    for (int k = 0; k < 2; ++k) {
      barrier_arrive_expecting(first + 8 * k, kHalf * sizeof(int));
      copy_bulk(shared_address(items + k * kHalf), items_of_turn[0] + k * kHalf, kHalf * sizeof(int), first + 8 * k);
    }
  }
  __syncthreads();
  if (kFault != Fault::kNoWaitForCopies) barrier_wait(first, 0);
  barrier_wait(second, 0);
  out[blockIdx.x * kThreads + threadIdx.x] = items[threadIdx.x];
}

__global__ void dynamic_shared_at_first(int* out) {
  int* const values = reinterpret_cast<int*>(dynamic_shared());
  out[blockIdx.x * kThreads + threadIdx.x] = values[threadIdx.x];
  values[threadIdx.x] = 5;
}

template <Fault kFault>
__global__ void faulty_address(int* out) {
  __shared__ int value;
  if (kFault == Fault::kStatic) out[0] = int(shared_address(&value));
  if (kFault == Fault::kBeyond) out[0] = dynamic_shared()[kSharedBytes + threadIdx.x];
}

using Kernel = void (*)(int*);
const std::map<std::string, Kernel> kKernels = {
    {"pipeline", pipeline<Fault::kNone>},
    {"no_wait_for_full", pipeline<Fault::kNoWaitForFull>},
    {"no_wait_for_empty", pipeline<Fault::kNoWaitForEmpty>},
    {"no_arrival", pipeline<Fault::kNoArrival>},
    {"too_many_arrivals", pipeline<Fault::kTooManyArrivals>},
    {"other_parity", pipeline<Fault::kOtherParity>},
    {"no_initialisation", pipeline<Fault::kNoInitialisation>},
    {"overwritten", pipeline<Fault::kOverwritten>},
    {"misaligned", pipeline<Fault::kMisaligned>},
    {"exchange_in_pairs", exchange_in_pairs<Fault::kNone>},
    {"no_barrier", exchange_in_pairs<Fault::kNoBarrier>},
    {"other_id", exchange_in_pairs<Fault::kOtherId>},
    {"id_of_the_block", exchange_in_pairs<Fault::kIdOfTheBlock>},
    {"other_count", exchange_in_pairs<Fault::kOtherCount>},
    {"part_of_a_warp", exchange_in_pairs<Fault::kPartOfAWarp>},
    {"lanes_apart", exchange_in_pairs<Fault::kLanesApart>},
    {"copy_for_both", copy_for_both<Fault::kNone>},
    {"no_wait_for_copies", copy_for_both<Fault::kNoWaitForCopies>},
    {"no_wait_for_the_cluster", copy_for_both<Fault::kNoWaitForTheCluster>},
    {"fewer_bytes", copy_for_both<Fault::kFewerBytes>},
    {"only_own_block", copy_for_both<Fault::kOnlyOwnBlock>},
    {"no_such_block", copy_for_both<Fault::kNoSuchBlock>},
    {"odd_size", copy_for_both<Fault::kOddSize>},
    {"copy_in_halves", copy_in_halves<Fault::kNone>},
    {"wait_for_one_half", copy_in_halves<Fault::kNoWaitForCopies>},
    {"dynamic_shared_at_first", dynamic_shared_at_first},
    {"beyond", faulty_address<Fault::kBeyond>},
    {"static", faulty_address<Fault::kStatic>},
};

int run(const char* name, int order) {
  emulator::Gpu gpu({emulator::Order(order)});
  std::vector<int> out(kBlocks * kThreads, -7);
  for (int turn = 0; turn < kTurns; ++turn) {
    for (int k = 0; k < kThreads; ++k) items_of_turn[turn][k] = 1000 * turn + k;
  }
  const Kernel kernel = kKernels.at(name);
  const Kernel of_clusters[] = {
      copy_for_both<Fault::kNone>,       copy_for_both<Fault::kNoWaitForCopies>, copy_for_both<Fault::kNoWaitForTheCluster>,
      copy_for_both<Fault::kFewerBytes>, copy_for_both<Fault::kOnlyOwnBlock>,    copy_for_both<Fault::kNoSuchBlock>,
      copy_for_both<Fault::kOddSize>};
  const unsigned cluster = std::count(std::begin(of_clusters), std::end(of_clusters), kernel) > 0 ? kBlocks : 1;
  try {
    gpu.launch_clusters(cluster, kBlocks, kThreads, kSharedBytes, kernel, out.data());
  } catch (const emulator::KernelError& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
  for (int value : out) std::printf("%d ", value);
  return 0;
}

}  // namespace
}  // namespace fastccsa::cuda

int main(int, char** argv) { return fastccsa::cuda::run(argv[1], std::atoi(argv[2])); }

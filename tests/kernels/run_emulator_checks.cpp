// Small kernels that show what the emulator does and which faults it finds. `run_emulator_checks KERNEL [ORDER
// [PROCESSORS]]` runs one of them and prints the integers that it wrote.
#include "emulator/device.h"
#include "emulator/gpu.h"

#include <cstdio>
#include <cstdlib>
#include <iterator>
#include <map>
#include <string>
#include <vector>

namespace {

constexpr int kBlocks = 3, kThreads = 64;

// ---- correct kernels ----

__global__ void coordinates(int* out) {
  const unsigned block = blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z);
  const unsigned thread = threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
  out[block * blockDim.x * blockDim.y * blockDim.z + thread] = int(threadIdx.z * 100 + threadIdx.y * 10 + threadIdx.x);
}

// Each thread takes the value of its neighbour in the block, through shared memory.
__global__ void rotate(int* out) {
  __shared__ int values[kThreads];
  values[threadIdx.x] = int(threadIdx.x);
  __syncthreads();
  out[blockIdx.x * kThreads + threadIdx.x] = values[(threadIdx.x + 1) % kThreads];
}

__global__ void shuffle_halves(int* out) {
  const unsigned mask = threadIdx.x % 32 < 16 ? 0x0000ffffu : 0xffff0000u;
  const double value = __shfl_xor_sync(mask, double(threadIdx.x), 5);
  out[blockIdx.x * kThreads + threadIdx.x] = int(__shfl_xor_sync(0xffffffffu, float(value), 16));
}

// Finds the first thread of each warp whose number in the block is a positive multiple of 7: its lane, and its number.
__global__ void vote_and_broadcast(int* out) {
  const unsigned votes = __ballot_sync(0xffffffffu, threadIdx.x % 7 == 0 && threadIdx.x > 0);
  const int winner = __ffs(int(votes)) - 1;
  out[blockIdx.x * kThreads + threadIdx.x] = 100 * winner + __shfl_sync(0xffffffffu, int(threadIdx.x), winner);
}

// Threads 3 and 35 vote in their warps, and thread 40 in the block.
__global__ void votes(int* out) {
  const bool own = threadIdx.x % 32 == 3;
  int result = __any_sync(0xffffffffu, own) + 2 * __any_sync(0xffffffffu, 0);
  result += 4 * __all_sync(0xffffffffu, threadIdx.x < 32);
  result += 8 * __syncthreads_or(threadIdx.x == 40) + 16 * __syncthreads_or(0);
  out[blockIdx.x * kThreads + threadIdx.x] = result + 100 * __popc(__ballot_sync(0xffffffffu, threadIdx.x % 3 == 0));
}

__global__ void shuffle_up_and_down(int* out) {
  const int up = __shfl_up_sync(0xffffffffu, int(threadIdx.x), 3);
  const int down = __shfl_down_sync(0xffffffffu, int(threadIdx.x), 5);
  out[blockIdx.x * kThreads + threadIdx.x] = 100 * up + down;
}

// The lanes exchange values through shared memory.
template <bool kBarrier>
__global__ void rotate_in_a_warp(int* out) {
  __shared__ int values[kThreads];
  const unsigned first = threadIdx.x / 32 * 32;
  values[threadIdx.x] = int(threadIdx.x);
  if (kBarrier) __syncwarp();
  out[blockIdx.x * kThreads + threadIdx.x] = values[first + (threadIdx.x + 1) % 32];
}

// Bit 0: floats and their bits. Bit 1: a vector. Bits 2 and 3: the greatest of all threads' values.
__global__ void bits_vectors_and_maxima(int* out) {
  __shared__ int greatest;
  __shared__ unsigned greatest_unsigned;
  __shared__ float4 vectors[kThreads];
  if (threadIdx.x == 0) greatest = -100, greatest_unsigned = 0;
  vectors[threadIdx.x] = make_float4(1, 2, 3, float(threadIdx.x));
  __syncthreads();
  atomicMax(&greatest, -int(threadIdx.x) - 1);
  atomicMax(&greatest_unsigned, 0xfffffff0u + threadIdx.x % 8);
  __syncthreads();
  const bool bits = __float_as_uint(-1.0f) == 0xbf800000u && __uint_as_float(0x40000000u) == 2 &&
                    __float_as_int(-0.0f) == INT32_MIN && __int_as_float(0x3f000000) == 0.5f;
  const float4 vector = vectors[63 - threadIdx.x];
  const bool moved = vector.y == 2 && max(int(vector.w), 40) == __ldg(&greatest) + 64 - min(int(threadIdx.x), 23);
  out[blockIdx.x * kThreads + threadIdx.x] =
      bits + 2 * moved + 4 * (greatest == -1) + 8 * (greatest_unsigned == 0xfffffff7u);
}

__global__ void shared_memory_at_first(int* out) {
  __shared__ int value;
  __shared__ float real;
  if (threadIdx.x == 0) {
    out[blockIdx.x] = value + (real != real ? 0 : 100);
    value = 5;
    real = 5;
  }
}

__device__ unsigned arrivals;

// The last block adds up what the others wrote. It is correct only with both fences and the barrier.
template <bool kFenceBefore, bool kBarrier, bool kFenceAfter>
__global__ void add_up(int* out) {
  __shared__ bool last;
  if (threadIdx.x == 1) {
    out[blockIdx.x] = int(blockIdx.x) + 1;
    if (kFenceBefore) __threadfence();
  }
  if (kBarrier) __syncthreads();
  if (threadIdx.x == 0) last = atomicAdd(&arrivals, 1u) == gridDim.x - 1;
  __syncthreads();
  if (!last || threadIdx.x != 0) return;
  if (kFenceAfter) __threadfence();
  int sum = 0;
  for (unsigned block = 0; block < gridDim.x; ++block) sum += out[block];
  out[gridDim.x] = sum;
  arrivals = 0;
}

// ---- faulty kernels ----

// The barrier is missing.
__global__ void rotate_without_barrier(int* out) {
  __shared__ int values[kThreads];
  values[threadIdx.x] = int(threadIdx.x);
  out[blockIdx.x * kThreads + threadIdx.x] = values[(threadIdx.x + 1) % kThreads];
}

// The second turn's writes to shared memory may overtake the first turn's reads.
__global__ void rotate_twice(int* out) {
  __shared__ int values[kThreads];
  int sum = 0;
  for (int turn = 0; turn < 2; ++turn) {
    values[threadIdx.x] = int(threadIdx.x) + 100 * turn;
    __syncthreads();
    sum += values[(threadIdx.x + 1) % kThreads];
  }
  out[blockIdx.x * kThreads + threadIdx.x] = sum;
}

__global__ void one_thread_leaves_before_the_barrier(int*) {
  if (threadIdx.x == 40) return;
  __syncthreads();
}

__global__ void two_barriers(int*) {
  if (threadIdx.x < 32) {
    __syncthreads();
  } else {
    __syncthreads();
  }
}

__global__ void one_lane_does_not_shuffle(int* out) {
  if (threadIdx.x != 7) out[threadIdx.x] = __shfl_xor_sync(0xffffffffu, int(threadIdx.x), 1);
}

__global__ void lane_outside_its_mask(int* out) {
  out[threadIdx.x] = __shfl_xor_sync(0x0000ffffu, int(threadIdx.x), 1);
}

__global__ void partner_outside_the_mask(int* out) {
  if (threadIdx.x < 16) out[threadIdx.x] = __shfl_xor_sync(0x0000ffffu, int(threadIdx.x), 16);
}

__global__ void write_beyond_the_end(int* out) {
  out[2 * kBlocks * kThreads * (threadIdx.x + 1)] = 1;
}

__global__ void shared_index_beyond_the_end(int* out) {
  __shared__ int values[kThreads];
  values[threadIdx.x + 1] = 1;
  out[threadIdx.x] = values[threadIdx.x];
}

__global__ void misaligned_load(int* out) {
  struct alignas(16) Four {
    int value[4];
  };
  out[0] = reinterpret_cast<const Four*>(out + threadIdx.x)->value[0];
}

using Kernel = void (*)(int*);
const std::map<std::string, Kernel> kKernels = {
    {"rotate", rotate},
    {"shuffle_halves", shuffle_halves},
    {"vote_and_broadcast", vote_and_broadcast},
    {"votes", votes},
    {"shuffle_up_and_down", shuffle_up_and_down},
    {"rotate_in_a_warp", rotate_in_a_warp<true>},
    {"rotate_in_a_warp_without_barrier", rotate_in_a_warp<false>},
    {"bits_vectors_and_maxima", bits_vectors_and_maxima},
    {"shared_memory_at_first", shared_memory_at_first},
    {"add_up", add_up<true, true, true>},
    {"add_up_without_first_fence", add_up<false, true, true>},
    {"add_up_without_barrier", add_up<true, false, true>},
    {"add_up_without_second_fence", add_up<true, true, false>},
    {"rotate_without_barrier", rotate_without_barrier},
    {"rotate_twice", rotate_twice},
    {"one_thread_leaves_before_the_barrier", one_thread_leaves_before_the_barrier},
    {"two_barriers", two_barriers},
    {"one_lane_does_not_shuffle", one_lane_does_not_shuffle},
    {"lane_outside_its_mask", lane_outside_its_mask},
    {"partner_outside_the_mask", partner_outside_the_mask},
    {"write_beyond_the_end", write_beyond_the_end},
    {"shared_index_beyond_the_end", shared_index_beyond_the_end},
    {"misaligned_load", misaligned_load},
};

}  // namespace

int main(int argc, char** argv) {
  const std::string name = argv[1];
  emulator::Schedule schedule;
  if (argc > 2) schedule.order = emulator::Order(std::atoi(argv[2]));
  if (argc > 3) schedule.multiprocessors = unsigned(std::atoi(argv[3]));
  emulator::Gpu gpu(schedule);
  std::vector<int> out(kBlocks * kThreads, -1);
  try {
    if (name == "coordinates") {
      gpu.launch(dim3(1, 3, 1), dim3(2, 4, 8), coordinates, out.data());
    } else {
      gpu.launch(kBlocks, kThreads, kKernels.at(name), out.data());
    }
  } catch (const emulator::KernelError& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
  for (int value : out) std::printf("%d ", value);
}

// Small kernels that use every function of core/tensor_core.cuh, and faulty versions of them. `run_tensor_core KERNEL
// DTYPE COLUMNS FAULT ORDER` reads matrices from stdin and writes the product to stdout.
#include "emulator/device.h"
#include "emulator/gpu.h"
#include "core/tensor_core.cuh"

#include "wire.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <stdexcept>
#include <string>
#include <vector>

namespace fastccsa::cuda {
namespace {

using testing::Dtype;

constexpr int kRows = 64, kInner = 64, kThreads = 128;  // a warpgroup, of which each warp has 16 rows
constexpr int kBlockBytes = 64 * 128;                   // 64 rows of 64 values

// What a kernel leaves out.
enum Fault {
  kNone,
  kWaitForCopies,
  kBarrierAfterCopies,
  kCommitCopies,
  kAsyncProxyFence,
  kWgmmaFence,
  kWgmmaCommit,
  kWgmmaWait,
  kOneWarp,
  kBarrierBeforeOverwriting,
  kBounds,
  kFaults
};
const char* const kFaultNames[kFaults] = {"none",
                                          "wait_for_copies",
                                          "barrier_after_copies",
                                          "commit_copies",
                                          "async_proxy_fence",
                                          "wgmma_fence",
                                          "wgmma_commit",
                                          "wgmma_wait",
                                          "one_warp",
                                          "barrier_before_overwriting",
                                          "bounds"};

struct Arguments {
  const uint16_t *a, *b;  // a: [rows, 64]; b: [columns, 64] or [64, columns]
  const float *shift;     // [rows], added to each row of the product
  float* d;               // [64, columns]
  int rows, columns;
  Fault fault;
};

// The address of chunk `chunk` (eight values) of row `row` in a block of 64 rows.
__device__ uint32_t chunk_address(uint32_t block, int row, int chunk) {
  return block + row * 128 + ((chunk ^ (row % 8)) * 16);
}

// Copies a [rows, columns] matrix to blocks of 64 columns with up to 64 rows each (or, of 64 columns, any number of
// rows); rows beyond `rows` become zero.
__device__ void load_matrix(uint32_t to, const uint16_t* from, int rows, int stored_rows, int columns) {
  const int chunks = columns / 8;
  for (int i = threadIdx.x; i < stored_rows * chunks; i += blockDim.x) {
    const int row = i / chunks, chunk = i % chunks;
    const uint32_t block = to + chunk / 8 * kBlockBytes;
    copy_async_16(chunk_address(block, row, chunk % 8), from + row * columns + chunk * 8, row < rows);
  }
}

struct Shared {
  uint32_t a, b, shift;
  float* shift_values;
};

// Loads all matrices. The groups: A, B, shift.
__device__ Shared load(const Arguments& p, bool b_has_inner_rows) {
  const uint32_t start = shared_address(dynamic_shared());
  const int b_bytes = kBlockBytes * p.columns / 64;
  const Shared at{start, start + kBlockBytes, start + kBlockBytes + b_bytes,
                  reinterpret_cast<float*>(dynamic_shared() + kBlockBytes + b_bytes)};
  load_matrix(at.a, p.a, p.rows, kRows, kInner);
  commit_copies();
  const int rows = b_has_inner_rows ? kInner : p.columns;
  load_matrix(at.b, p.b, rows, rows, b_has_inner_rows ? p.columns : kInner);
  commit_copies();
  if (threadIdx.x < kRows) {
    const bool valid = int(threadIdx.x) < p.rows;
    copy_async_4(at.shift + 4 * threadIdx.x, valid ? p.shift + threadIdx.x : nullptr, valid);
  }
  if (p.fault != kCommitCopies) commit_copies();
  if (p.fault == kWaitForCopies) {
    wait_for_copies<2>();
  } else {
    wait_for_copies<1>();
    wait_for_copies<0>();
  }
  if (p.fault != kAsyncProxyFence) fence_async_proxy();
  if (p.fault != kBarrierAfterCopies) __syncthreads();
  return at;
}

// The fragment of A for step `step` of 16, of the 16 rows of a warp.
__device__ void load_a(uint32_t (&fragment)[4], uint32_t a, int step) {
  const int lane = threadIdx.x % 32, row = threadIdx.x / 32 * 16 + lane % 16;
  load_matrices(fragment, chunk_address(a, row, 2 * step + lane / 16));
}

// Stores A as the warps' fragments, after it has been cleared.
__device__ void store_again(uint32_t a) {
  const int lane = threadIdx.x % 32, first = threadIdx.x / 32 * 16, row = first + lane % 16;
  uint32_t fragment[kInner / 16][4];
  for (int step = 0; step < kInner / 16; ++step) load_a(fragment[step], a, step);
  __syncwarp();
  std::memset(dynamic_shared() + (first + lane / 2) * 128 + lane % 2 * 64, 0, 64);
  __syncwarp();
  for (int step = 0; step < kInner / 16; ++step) store_matrices(fragment[step], chunk_address(a, row, 2 * step + lane / 16));
  __syncwarp();
}

// D = A B^T or A B + shift by products of a warp.
template <typename T, bool kTransposed, bool kStoresAgain = false>
__global__ void multiply_by_warps(Arguments p) {
  const Shared at = load(p, !kTransposed);
  if (kStoresAgain) store_again(at.a);
  const int lane = threadIdx.x % 32, g = lane / 4, t = lane % 4, first = threadIdx.x / 32 * 16;
  for (int column = 0; column < p.columns; column += 16) {
    float d[2][4];
    for (int i = 0; i < 8; ++i) d[i / 4][i % 4] = at.shift_values[first + g + i % 4 / 2 * 8];
    for (int step = 0; step < kInner / 16; ++step) {
      uint32_t a[4], b[4];
      load_a(a, at.a, step);
      if (kTransposed) {
        load_matrices(b, chunk_address(at.b, column + lane % 8 + lane / 16 * 8, 2 * step + lane / 8 % 2));
      } else {
        const uint32_t block = at.b + column / 64 * kBlockBytes;
        load_matrices_transposed(b, chunk_address(block, 16 * step + lane % 16, column % 64 / 8 + lane / 16));
      }
      multiply_16x8x16<T>(d[0], a, b[0], b[1]);
      multiply_16x8x16<T>(d[1], a, b[2], b[3]);
    }
    for (int i = 0; i < 8; ++i) {
      const int row = first + g + i % 4 / 2 * 8;
      p.d[row * p.columns + column + i / 4 * 8 + 2 * t + i % 2] = d[i / 4][i % 4];
    }
  }
}

template <int kColumns>
__device__ void write_accumulators(const Arguments& p, const float* d) {
  const int lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
  for (int i = 0; i < kColumns / 2; ++i) {
    const int row = threadIdx.x / 32 * 16 + g + i / 2 % 2 * 8;
    p.d[row * kColumns + i / 4 * 8 + 2 * t + i % 2] = d[i];
  }
}

enum class From { kShared, kSharedTransposed, kSharedColumns, kRegisters };

// The same by products of a warpgroup: D = A B^T (kSharedTransposed) or A B, + shift. kSharedColumns: A is given by its
// columns, and has 64 rows.
template <typename T, int kColumns, From kFrom>
__global__ void multiply_by_warpgroup(Arguments p) {
  const Shared at = load(p, kFrom != From::kSharedTransposed);
  give_registers<40>();
  take_registers<232>();
  const int first = threadIdx.x / 32 * 16 + threadIdx.x % 32 / 4;
  float d[kColumns / 2];
  for (int i = 0; i < kColumns / 2; ++i) d[i] = at.shift_values[first + i / 2 % 2 * 8];
  uint32_t a[kInner / 16][4];
  for (int step = 0; step < kInner / 16; ++step) load_a(a[step], at.a, step);
  if (p.fault != kWgmmaFence) wgmma_fence();
  keep(d);
  for (int step = 0; step < kInner / 16; ++step) {
    if (p.fault == kOneWarp && step == 0 && threadIdx.x < 32) continue;
    const uint32_t beyond = p.fault == kBounds ? 1024 * 1024 / 8 : 0;
    const uint64_t at_a = matrix_descriptor(at.a + step * 32, 16, 1024);
    const uint64_t rows_of_b = matrix_descriptor(at.b + step * 32 + beyond, 16, 1024);
    const uint64_t b = matrix_descriptor(at.b + step * 2048 + beyond, kBlockBytes, 1024);
    if constexpr (kFrom == From::kSharedTransposed) wgmma_k<T, kColumns>(d, at_a, rows_of_b, true);
    if constexpr (kFrom == From::kShared) wgmma_mn<T, kColumns>(d, at_a, b);
    const uint64_t columns_of_a = matrix_descriptor(at.a + step * 2048, 16, 1024);
    if constexpr (kFrom == From::kSharedColumns) wgmma_mn_mn<T, kColumns>(d, columns_of_a, b);
    if constexpr (kFrom == From::kRegisters) wgmma_mn<T, kColumns>(d, a[step], b);
    if (step == 1) wgmma_commit();
  }
  if (p.fault != kWgmmaCommit) wgmma_commit();
  wgmma_wait<1>();
  if (p.fault != kWgmmaWait) wgmma_wait<0>();
  if (p.fault == kBarrierBeforeOverwriting && threadIdx.x == 0) {
    *reinterpret_cast<uint16_t*>(dynamic_shared() + kBlockBytes) = 0x4000;
  }
  keep(d);
  write_accumulators<kColumns>(p, d);
}

// Two products in flight: the first one's accumulators are complete after wgmma_wait<1>(). The first step does not add.
template <typename T>
__global__ void multiply_twice(Arguments p) {
  const Shared at = load(p, false);
  float d[2][32];
  for (int i = 0; i < 64; ++i) d[i / 32][i % 32] = 1000;
  wgmma_fence();
  for (int half = 0; half < 2; ++half) {
    for (int step = 0; step < kInner / 16; ++step) {
      wgmma_k<T, 64>(d[half], matrix_descriptor(at.a + step * 32, 16, 1024),
                     matrix_descriptor(at.b + half * kBlockBytes + step * 32, 16, 1024), step > 0);
    }
    wgmma_commit();
  }
  wgmma_wait<1>();
  float both[64];
  for (int i = 0; i < 32; ++i) both[i] = d[0][i];
  const bool pending = d[1][0] != d[1][0];
  wgmma_wait<0>();
  const int first = threadIdx.x / 32 * 16 + threadIdx.x % 32 / 4;
  for (int i = 0; i < 32; ++i) both[32 + i] = pending ? d[1][i] : 0;
  for (int i = 0; i < 64; ++i) both[i] += at.shift_values[first + i / 2 % 2 * 8];
  write_accumulators<128>(p, both);
}

using Kernel = void (*)(Arguments);

template <typename T>
Kernel find(const std::string& name, int columns) {
  static const std::map<std::pair<std::string, int>, Kernel> kernels = {
      {{"warps_k", 64}, multiply_by_warps<T, true>},
      {{"warps_k", 128}, multiply_by_warps<T, true>},
      {{"stored_k", 64}, multiply_by_warps<T, true, true>},
      {{"warps_mn", 64}, multiply_by_warps<T, false>},
      {{"warps_mn", 256}, multiply_by_warps<T, false>},
      {{"wgmma_k", 64}, multiply_by_warpgroup<T, 64, From::kSharedTransposed>},
      {{"wgmma_k", 128}, multiply_by_warpgroup<T, 128, From::kSharedTransposed>},
      {{"wgmma_mn", 64}, multiply_by_warpgroup<T, 64, From::kShared>},
      {{"wgmma_mn", 128}, multiply_by_warpgroup<T, 128, From::kShared>},
      {{"wgmma_mn", 256}, multiply_by_warpgroup<T, 256, From::kShared>},
      {{"wgmma_mn_mn", 64}, multiply_by_warpgroup<T, 64, From::kSharedColumns>},
      {{"wgmma_mn_mn", 128}, multiply_by_warpgroup<T, 128, From::kSharedColumns>},
      {{"wgmma_mn_mn", 256}, multiply_by_warpgroup<T, 256, From::kSharedColumns>},
      {{"wgmma_registers", 64}, multiply_by_warpgroup<T, 64, From::kRegisters>},
      {{"wgmma_registers", 128}, multiply_by_warpgroup<T, 128, From::kRegisters>},
      {{"wgmma_registers", 256}, multiply_by_warpgroup<T, 256, From::kRegisters>},
      {{"two_groups_k", 128}, multiply_twice<T>},
  };
  return kernels.at({name, columns});
}

int run(char** argv) {
  const std::string name = argv[1], dtype = argv[2], fault_name = argv[4];
  const int columns = std::atoi(argv[3]);
  int fault = 0;
  while (fault_name != kFaultNames[fault]) ++fault;
  emulator::Gpu gpu({emulator::Order(std::atoi(argv[5]))});
  const int rows = int(testing::read_value<int64_t>());
  std::vector<uint16_t> a(rows * kInner), b(kInner * columns);
  std::vector<float> shift(rows), d(kRows * columns, NAN);
  if (!testing::read_bytes(a.data(), a.size() * 2) || !testing::read_bytes(b.data(), b.size() * 2) ||
      !testing::read_bytes(shift.data(), shift.size() * 4)) {
    throw std::runtime_error("the input is too short");
  }
  const Kernel kernel = dtype == "float16" ? find<half>(name, columns) : find<bfloat16>(name, columns);
  const size_t shared_bytes = kBlockBytes + kBlockBytes * columns / 64 + 4 * kRows;
  gpu.launch(1, kThreads, shared_bytes, kernel, Arguments{a.data(), b.data(), shift.data(), d.data(), rows, columns,
                                                          Fault(fault)});
  testing::write(d);
  return 0;
}

}  // namespace
}  // namespace fastccsa::cuda

int main(int, char** argv) {
  try {
    return fastccsa::cuda::run(argv);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}

// Tensor cores, asynchronous copies and barriers as functions. tests/emulator/include/core/tensor_core.cuh replaces
// this file where a C++ compiler compiles the kernels.
//
// Addresses of shared memory have 32 bits: see shared_address(). All lanes of a warp call a function together unless it
// says otherwise.
#pragma once

#include "core/half.h"
#include "core/matrix_descriptor.h"

#include <cstddef>
#include <cstdint>
#include <type_traits>

namespace fastccsa::cuda {

// ---- shared memory, and copies to it ----

// The block's dynamic shared memory, aligned to 1024 bytes.
__device__ __forceinline__ unsigned char* dynamic_shared() {
  extern __shared__ __align__(1024) unsigned char fastccsa_dynamic_shared[];
  return fastccsa_dynamic_shared;
}

__device__ __forceinline__ uint32_t shared_address(const void* pointer) {
  return uint32_t(__cvta_generic_to_shared(pointer));
}

// Starts a copy of the calling thread: 16 bytes that bypass L1, or 4. Both addresses are multiples of the size. Unless
// `valid`, it writes zeros and does not read `from`.
__device__ __forceinline__ void copy_async_16(uint32_t to, const void* from, bool valid = true) {
  asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(valid ? 16 : 0)
               : "memory");
}

__device__ __forceinline__ void copy_async_4(uint32_t to, const void* from, bool valid = true) {
  asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(to), "l"(from), "r"(valid ? 4 : 0) : "memory");
}

// Makes a group of the copies that the calling thread started since the previous group.
__device__ __forceinline__ void commit_copies() { asm volatile("cp.async.commit_group;" ::: "memory"); }

// Waits for the calling thread's groups, except the last kPending.
template <int kPending>
__device__ __forceinline__ void wait_for_copies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kPending) : "memory");
}

template <typename T>
constexpr bool kIs16Bit = std::is_same_v<T, bfloat16> || std::is_same_v<T, half>;

// ---- products of a warp ----
//
// The registers of lane l, with g = l / 4 and t = l % 4; the lower half of a register is the first of its two values:
//   A, 16x16: a[0] and a[1] hold columns 2t and 2t + 1 of rows g and g + 8; a[2] and a[3] hold columns 2t + 8 and
//   2t + 9.
//   B, 16x8: b0 holds rows 2t and 2t + 1 of column g; b1 holds rows 2t + 8 and 2t + 9.
//   D, 16x8: d[0] and d[1] are columns 2t and 2t + 1 of row g; d[2] and d[3] are those of row g + 8.

// Loads four 8x8 matrices of 16-bit values. Lane l passes the address of row l % 8 of matrix l / 8. It receives in r[i]
// columns 2t and 2t + 1 of row g of matrix i.
__device__ __forceinline__ void load_matrices(uint32_t (&r)[4], uint32_t address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(address)
               : "memory");
}

// The same for the transposes of the matrices.
__device__ __forceinline__ void load_matrices_transposed(uint32_t (&r)[4], uint32_t address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(address)
               : "memory");
}

// D += A B.
template <typename T>
__device__ __forceinline__ void multiply_16x8x16(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  static_assert(kIs16Bit<T>);
#define FASTCCSA_MMA(TYPE)                                                               \
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32." TYPE "." TYPE                    \
               ".f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"    \
               : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])                          \
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1))
  if constexpr (std::is_same_v<T, bfloat16>) {
    FASTCCSA_MMA("bf16");
  } else {
    FASTCCSA_MMA("f16");
  }
#undef FASTCCSA_MMA
}

// Two ones of type T.
template <typename T>
constexpr uint32_t kOnes = std::is_same_v<T, bfloat16> ? 0x3f803f80u : 0x3c003c00u;

// Rounds both values to T, and returns them in one register.
template <typename T>
__device__ __forceinline__ uint32_t pack_pair(float& low, float& high) {
  static_assert(kIs16Bit<T>);
  uint32_t packed;
  if constexpr (std::is_same_v<T, bfloat16>) {
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(packed) : "f"(high), "f"(low));
    low = __uint_as_float(packed << 16);
    high = __uint_as_float(packed & 0xffff0000u);
  } else {
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(packed) : "f"(high), "f"(low));
    asm("{\n.reg .b16 l, h;\nmov.b32 {l, h}, %2;\ncvt.f32.f16 %0, l;\ncvt.f32.f16 %1, h;\n}"
        : "=f"(low), "=f"(high)
        : "r"(packed));
  }
  return packed;
}

// 1 / sqrt(x), with a relative error below 2^-22.
__device__ __forceinline__ float reciprocal_square_root(float x) {
  float y;
  asm("rsqrt.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

// ---- kernels that follow each other ----
//
// A kernel may be launched such that its blocks of threads start while the last ones of the kernel before it run. Both do
// nothing elsewhere, and before compute capability 9.0.

// Waits until the kernels before it have ended, and their results can be read.
__device__ __forceinline__ void wait_for_kernel_before() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

// Blocks of the next kernel may start, once all blocks of threads have called this or ended.
__device__ __forceinline__ void let_next_kernel_start() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

// ---- barriers ----

// Waits until `threads` threads, whole warps, have called it with this id, which is 1 to 15.
__device__ __forceinline__ void named_barrier(int id, int threads) {
  asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
}

// The same, and returns whether `predicate` holds for any of them.
__device__ __forceinline__ bool named_barrier_or(int id, int threads, bool predicate) {
  int any;
  asm volatile(
      "{\n.reg .pred own, any;\nsetp.ne.b32 own, %1, 0;\nbar.red.or.pred any, %2, %3, own;\nselp.b32 %0, 1, 0, any;\n}"
      : "=r"(any)
      : "r"(int(predicate)), "r"(id), "r"(threads)
      : "memory");
  return any != 0;
}

// The rest of this file needs compute capability 9.0, and products of a warpgroup need 9.0a. Elsewhere these functions
// end the kernel, so a kernel that uses them compiles for every architecture.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
#define FASTCCSA_SM90(...) __VA_ARGS__
#else
#define FASTCCSA_SM90(...) __trap()
#endif
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
#define FASTCCSA_SM90A(...) __VA_ARGS__
#else
#define FASTCCSA_SM90A(...) __trap()
#endif

// Stores four 8x8 matrices of 16-bit values, as load_matrices() loads them.
__device__ __forceinline__ void store_matrices(const uint32_t (&r)[4], uint32_t address) {
  FASTCCSA_SM90(asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(address),
                             "r"(r[0]), "r"(r[1]), "r"(r[2]), "r"(r[3])
                             : "memory"));
}

// An mbarrier: 8 bytes in shared memory that count arrivals. A phase ends after `arrivals` of them, and the next
// begins; phases are numbered from 0. One thread initialises it and calls fence_barrier_init(), and then the block
// synchronises.
__device__ __forceinline__ void barrier_init(uint32_t barrier, uint32_t arrivals) {
  FASTCCSA_SM90(asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(arrivals) : "memory"));
}

__device__ __forceinline__ void fence_barrier_init() {
  FASTCCSA_SM90(asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory"));
}

// The calling thread arrives.
__device__ __forceinline__ void barrier_arrive(uint32_t barrier) {
  FASTCCSA_SM90(asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory"));
}

// The calling thread waits until the phase with this parity has ended. If the current phase has the other parity, that
// is the phase before, so the thread does not wait: on a new barrier, parity 1 has ended. After 2^36 ns, more than a
// minute, this ends the kernel, so that an error of the protocol shows as a failed launch. (So does a long stop in a
// debugger.)
__device__ __forceinline__ void barrier_wait(uint32_t barrier, uint32_t parity) {
  FASTCCSA_SM90(asm volatile(
      "{\n.reg .pred ended, late;\n.reg .u64 start, now;\n"
      "mbarrier.try_wait.parity.shared::cta.b64 ended, [%0], %1;\n"
      "@ended bra DONE;\n"
      "mov.u64 start, %%globaltimer;\n"
      "AGAIN:\n"
      "mbarrier.try_wait.parity.shared::cta.b64 ended, [%0], %1;\n"
      "@ended bra DONE;\n"
      "mov.u64 now, %%globaltimer;\nsub.u64 now, now, start;\nsetp.gt.u64 late, now, 68719476736;\n"
      "@late trap;\n"
      "bra AGAIN;\nDONE:\n}" ::"r"(barrier), "r"(parity)
      : "memory"));
}

// The calling thread arrives, and the phase also waits for `bytes` of copy_bulk().
__device__ __forceinline__ void barrier_arrive_expecting(uint32_t barrier, uint32_t bytes) {
  FASTCCSA_SM90(asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes)
                             : "memory"));
}

// Starts a copy by the hardware, on behalf of the calling thread alone. Both addresses and the size are multiples of 16
// bytes. The current phase of `barrier` must expect the bytes; when it has ended, whoever waited for it sees them, and
// so do products of a warpgroup.
__device__ __forceinline__ void copy_bulk(uint32_t to, const void* from, uint32_t bytes, uint32_t barrier) {
  FASTCCSA_SM90(
      asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(to),
                   "l"(__cvta_generic_to_global(from)), "r"(bytes), "r"(barrier)
                   : "memory"));
}

// ---- clusters: blocks of threads that run at the same time on neighbouring multiprocessors ----

// The number of the calling block in its cluster.
__device__ __forceinline__ int cluster_rank() {
  uint32_t rank = 0;
  FASTCCSA_SM90(asm volatile("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank)));
  return int(rank);
}

// Waits for all threads of the cluster.
__device__ __forceinline__ void synchronise_cluster() {
  __syncwarp();  // the instructions require that a warp's threads execute them together
  FASTCCSA_SM90(asm volatile("barrier.cluster.arrive.release.aligned;\nbarrier.cluster.wait.acquire.aligned;" ::: "memory"));
}

// The calling thread arrives at the barrier with this address in another block of the cluster, or in its own.
__device__ __forceinline__ void barrier_arrive_at(uint32_t barrier, int rank) {
  FASTCCSA_SM90(
      asm volatile("{\n.reg .b32 there;\nmapa.shared::cluster.u32 there, %0, %1;\n"
                   "mbarrier.arrive.shared::cluster.b64 _, [there];\n}" ::"r"(barrier), "r"(rank)
                   : "memory"));
}

// copy_bulk() to the same address in each block of the cluster whose bit in `ranks` is set. Each block's own barrier with
// this address counts the bytes.
__device__ __forceinline__ void copy_bulk_to(uint32_t ranks, uint32_t to, const void* from, uint32_t bytes,
                                             uint32_t barrier) {
  FASTCCSA_SM90(asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster "
                             "[%0], [%1], %2, [%3], %4;" ::"r"(to),
                             "l"(__cvta_generic_to_global(from)), "r"(bytes), "r"(barrier), "h"(uint16_t(ranks))
                             : "memory"));
}

// Lets products of a warpgroup see what the calling thread has written to shared memory, copies included, once threads
// have synchronised after it.
__device__ __forceinline__ void fence_async_proxy() {
  FASTCCSA_SM90(asm volatile("fence.proxy.async.shared::cta;" ::: "memory"));
}

// ---- products of a warpgroup: 128 threads, whose first is a multiple of 128 ----

// Changes how many registers a thread has. All warps of the warpgroup call it.
template <int kRegisters>
__device__ __forceinline__ void give_registers() {
  static_assert(kRegisters >= 24 && kRegisters <= 256 && kRegisters % 8 == 0);
  FASTCCSA_SM90A(asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(kRegisters)));
}

template <int kRegisters>
__device__ __forceinline__ void take_registers() {
  static_assert(kRegisters >= 24 && kRegisters <= 256 && kRegisters % 8 == 0);
  FASTCCSA_SM90A(asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(kRegisters)));
}

// Precedes the first product, and each product whose registers were read or written since the previous one.
__device__ __forceinline__ void wgmma_fence() {
  FASTCCSA_SM90A(asm volatile("wgmma.fence.sync.aligned;" ::: "memory"));
}

// Makes a group of the products since the previous group.
__device__ __forceinline__ void wgmma_commit() {
  FASTCCSA_SM90A(asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"));
}

// Waits for all groups of products, except the last kPending. Until then nothing may touch their registers.
template <int kPending>
__device__ __forceinline__ void wgmma_wait() {
  FASTCCSA_SM90A(asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kPending) : "memory"));
}

// The compiler does not know that products are asynchronous: this keeps it from moving the values past this point.
template <size_t kCount>
__device__ __forceinline__ void keep(float (&values)[kCount]) {
#pragma unroll
  for (size_t i = 0; i < kCount; ++i) asm volatile("" : "+f"(values[i])::"memory");
}

// Operands 0 to 31, 63 or 127 of an asm statement: their names, and the accumulators that they are.
#define FASTCCSA_TEN(T) \
  "%" #T "0, %" #T "1, %" #T "2, %" #T "3, %" #T "4, %" #T "5, %" #T "6, %" #T "7, %" #T "8, %" #T "9, "
#define FASTCCSA_NAMES_30 FASTCCSA_TEN() FASTCCSA_TEN(1) FASTCCSA_TEN(2)
#define FASTCCSA_NAMES_60 FASTCCSA_NAMES_30 FASTCCSA_TEN(3) FASTCCSA_TEN(4) FASTCCSA_TEN(5)
#define FASTCCSA_NAMES_90 FASTCCSA_NAMES_60 FASTCCSA_TEN(6) FASTCCSA_TEN(7) FASTCCSA_TEN(8)
#define FASTCCSA_NAMES_120 FASTCCSA_NAMES_90 FASTCCSA_TEN(9) FASTCCSA_TEN(10) FASTCCSA_TEN(11)
#define FASTCCSA_NAMES_32 "{" FASTCCSA_NAMES_30 "%30, %31}, "
#define FASTCCSA_NAMES_64 "{" FASTCCSA_NAMES_60 "%60, %61, %62, %63}, "
#define FASTCCSA_NAMES_128 "{" FASTCCSA_NAMES_120 "%120, %121, %122, %123, %124, %125, %126, %127}, "
#define FASTCCSA_D8(I)                                                                                      \
  "+f"(d[I]), "+f"(d[I + 1]), "+f"(d[I + 2]), "+f"(d[I + 3]), "+f"(d[I + 4]), "+f"(d[I + 5]), "+f"(d[I + 6]), \
      "+f"(d[I + 7])
#define FASTCCSA_D32(I) FASTCCSA_D8(I), FASTCCSA_D8(I + 8), FASTCCSA_D8(I + 16), FASTCCSA_D8(I + 24)
#define FASTCCSA_D64(I) FASTCCSA_D32(I), FASTCCSA_D32(I + 32)
#define FASTCCSA_D128(I) FASTCCSA_D64(I), FASTCCSA_D64(I + 64)

// One product with COUNT accumulators and the inputs `...`. The strings name the MATRICES A and B, and whether to ADD
// to D. In FLAGS, 1 and 1 are the signs of A and B; the last is 1 if B is MN-major, and 0 before it means that A is
// K-major.
#define FASTCCSA_WGMMA_OF(TYPE, COLUMNS, COUNT, MATRICES, ADD, FLAGS, ...)                                \
  asm volatile("{\n.reg .pred add;\nsetp.ne.b32 add, " ADD ", 0;\n"                                       \
               "wgmma.mma_async.sync.aligned.m64n" #COLUMNS "k16.f32." TYPE "." TYPE                      \
               " " FASTCCSA_NAMES_##COUNT MATRICES ", add, " FLAGS ";\n}"                                 \
               : FASTCCSA_D##COUNT(0)                                                                     \
               : __VA_ARGS__)
#define FASTCCSA_WGMMA(...)                    \
  if constexpr (std::is_same_v<T, bfloat16>) { \
    FASTCCSA_WGMMA_OF("bf16", __VA_ARGS__);    \
  } else {                                     \
    FASTCCSA_WGMMA_OF("f16", __VA_ARGS__);     \
  }

// D = A B^T, added to D if `accumulate`. A is [64, 16] and B is [kColumns, 16], both K-major in shared memory.
//
// Warp w of the warpgroup holds rows 16w to 16w + 15 of D. Lane l holds, with g = l / 4 and t = l % 4, in
// d[4 j + 2 h + e] column 8 j + 2 t + e of row g + 8 h.
template <typename T, int kColumns>
__device__ __forceinline__ void wgmma_k(float (&d)[kColumns / 2], uint64_t a, uint64_t b, bool accumulate) {
  static_assert(kIs16Bit<T> && (kColumns == 64 || kColumns == 128));
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  if constexpr (kColumns == 64) {
    FASTCCSA_WGMMA(64, 32, "%32, %33", "%34", "1, 1, 0, 0", "l"(a), "l"(b), "r"(int(accumulate)))
  } else {
    FASTCCSA_WGMMA(128, 64, "%64, %65", "%66", "1, 1, 0, 0", "l"(a), "l"(b), "r"(int(accumulate)))
  }
#else
  __trap();
#endif
}

// D += A B. A is [64, 16], K-major, and B is [16, kColumns], MN-major, both in shared memory.
template <typename T, int kColumns>
__device__ __forceinline__ void wgmma_mn(float (&d)[kColumns / 2], uint64_t a, uint64_t b) {
  static_assert(kIs16Bit<T> && (kColumns == 64 || kColumns == 128 || kColumns == 256));
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  if constexpr (kColumns == 64) {
    FASTCCSA_WGMMA(64, 32, "%32, %33", "1", "1, 1, 0, 1", "l"(a), "l"(b))
  } else if constexpr (kColumns == 128) {
    FASTCCSA_WGMMA(128, 64, "%64, %65", "1", "1, 1, 0, 1", "l"(a), "l"(b))
  } else {
    FASTCCSA_WGMMA(256, 128, "%128, %129", "1", "1, 1, 0, 1", "l"(a), "l"(b))
  }
#else
  __trap();
#endif
}

// The same with A MN-major.
template <typename T, int kColumns>
__device__ __forceinline__ void wgmma_mn_mn(float (&d)[kColumns / 2], uint64_t a, uint64_t b) {
  static_assert(kIs16Bit<T> && (kColumns == 64 || kColumns == 128 || kColumns == 256));
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  if constexpr (kColumns == 64) {
    FASTCCSA_WGMMA(64, 32, "%32, %33", "1", "1, 1, 1, 1", "l"(a), "l"(b))
  } else if constexpr (kColumns == 128) {
    FASTCCSA_WGMMA(128, 64, "%64, %65", "1", "1, 1, 1, 1", "l"(a), "l"(b))
  } else {
    FASTCCSA_WGMMA(256, 128, "%128, %129", "1", "1, 1, 1, 1", "l"(a), "l"(b))
  }
#else
  __trap();
#endif
}

// The same as wgmma_mn() with A in registers: each warp holds its 16 rows of A as for multiply_16x8x16().
template <typename T, int kColumns>
__device__ __forceinline__ void wgmma_mn(float (&d)[kColumns / 2], const uint32_t (&a)[4], uint64_t b) {
  static_assert(kIs16Bit<T> && (kColumns == 64 || kColumns == 128 || kColumns == 256));
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
#define FASTCCSA_INPUTS "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b)
  if constexpr (kColumns == 64) {
    FASTCCSA_WGMMA(64, 32, "{%32, %33, %34, %35}, %36", "1", "1, 1, 1", FASTCCSA_INPUTS)
  } else if constexpr (kColumns == 128) {
    FASTCCSA_WGMMA(128, 64, "{%64, %65, %66, %67}, %68", "1", "1, 1, 1", FASTCCSA_INPUTS)
  } else {
    FASTCCSA_WGMMA(256, 128, "{%128, %129, %130, %131}, %132", "1", "1, 1, 1", FASTCCSA_INPUTS)
  }
#undef FASTCCSA_INPUTS
#else
  __trap();
#endif
}

}  // namespace fastccsa::cuda

// Replaces csrc/core/tensor_core.cuh: the same functions for the emulator. docs/testing-kernels.md says what it checks,
// and what it does not.
#pragma once

#include "core/half.h"
#include "core/matrix_descriptor.h"
#include "emulator/device.h"
#include "emulator/tensor_core.h"

#include <cmath>
#include <cstring>
#include <type_traits>

namespace fastccsa::cuda {

template <typename T>
constexpr bool kIs16Bit = std::is_same_v<T, bfloat16> || std::is_same_v<T, half>;

// ---- shared memory, and copies to it ----

inline unsigned char* dynamic_shared() { return emulator::shared_memory().data(); }

inline uint32_t shared_address(const void* pointer, EMULATOR_CALLER) {
  return emulator::shared_memory().address_of(pointer, {"shared_address", file, line});
}

// From here until the thread waits, the destination is NaN (all bits set).
inline void copy_async(uint32_t to, const void* from, size_t bytes, bool valid, emulator::Site site) {
  emulator::Copy copy{emulator::shared_memory().at(to, bytes, site), {}, bytes, emulator::started().copy_group};
  if (reinterpret_cast<uintptr_t>(from) % bytes != 0) emulator::fail("the source of a copy is misaligned", site);
  if (valid) std::memcpy(copy.content, from, bytes);
  std::memset(copy.to, 0xff, bytes);
  emulator::started().copies.push_back(copy);
}

inline void copy_async_16(uint32_t to, const void* from, bool valid = true, EMULATOR_CALLER) {
  copy_async(to, from, 16, valid, {"copy_async_16", file, line});
}

inline void copy_async_4(uint32_t to, const void* from, bool valid = true, EMULATOR_CALLER) {
  copy_async(to, from, 4, valid, {"copy_async_4", file, line});
}

inline void commit_copies() { ++emulator::started().copy_group; }

template <int kPending>
void wait_for_copies() {
  std::vector<emulator::Copy>& copies = emulator::started().copies;
  size_t done = 0;
  while (done < copies.size() && copies[done].group + kPending < emulator::started().copy_group) {
    std::memcpy(copies[done].to, copies[done].content, copies[done].bytes);
    ++done;
  }
  copies.erase(copies.begin(), copies.begin() + std::ptrdiff_t(done));
}

// ---- products of a warp ----

inline void load_rows(uint32_t (&r)[4], uint32_t address, bool transposed, emulator::Site site) {
  unsigned char row[16];
  std::memcpy(row, emulator::shared_memory().at(address, sizeof row, site), sizeof row);
  emulator::distribute_matrices(row, transposed, r, site);
}

inline void load_matrices(uint32_t (&r)[4], uint32_t address, EMULATOR_CALLER) {
  load_rows(r, address, false, {"load_matrices", file, line});
}

inline void load_matrices_transposed(uint32_t (&r)[4], uint32_t address, EMULATOR_CALLER) {
  load_rows(r, address, true, {"load_matrices_transposed", file, line});
}

inline void store_matrices(const uint32_t (&r)[4], uint32_t address, EMULATOR_CALLER) {
  const emulator::Site site{"store_matrices", file, line};
  unsigned char row[16];
  emulator::collect_matrices(r, row, site);
  std::memcpy(emulator::shared_memory().at(address, sizeof row, site), row, sizeof row);
}

template <typename T>
void multiply_16x8x16(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1, EMULATOR_CALLER) {
  static_assert(kIs16Bit<T>);
  const uint32_t b[2] = {b0, b1};
  emulator::multiply(std::is_same_v<T, half>, d, a, b, {"multiply_16x8x16", file, line});
}

template <typename T>
constexpr uint32_t kOnes = std::is_same_v<T, bfloat16> ? 0x3f803f80u : 0x3c003c00u;

template <typename T>
uint32_t pack_pair(float& low, float& high) {
  static_assert(kIs16Bit<T>);
  const auto round = [](float& value) -> uint32_t {
    T rounded;
    if constexpr (std::is_same_v<T, bfloat16>) {
      rounded = to_bfloat16(value);
    } else {
      rounded = to_half(value);
    }
    value = to_float(rounded);
    return rounded.bits;
  };
  const uint32_t bits = round(low);
  return bits | round(high) << 16;
}

// Subnormal numbers count as zero. The result is more accurate than a GPU's.
inline float reciprocal_square_root(float x) {
  return 1 / std::sqrt(std::fabs(x) < 0x1p-126f ? std::copysign(0.0f, x) : x);
}

// ---- barriers ----

inline void wait_for_kernel_before() {}
inline void let_next_kernel_start() {}

inline void named_barrier(int id, int threads, EMULATOR_CALLER) {
  emulator::synchronise(id, threads, {"named_barrier", file, line});
}

inline bool named_barrier_or(int id, int threads, bool predicate, EMULATOR_CALLER) {
  return emulator::synchronise(id, threads, {"named_barrier_or", file, line}, predicate);
}

inline void barrier_init(uint32_t barrier, uint32_t arrivals, EMULATOR_CALLER) {
  emulator::initialise_mbarrier(barrier, arrivals, {"barrier_init", file, line});
}

inline void barrier_arrive(uint32_t barrier, EMULATOR_CALLER) {
  emulator::arrive_at_mbarrier(barrier, {"barrier_arrive", file, line});
}

inline void barrier_wait(uint32_t barrier, uint32_t parity, EMULATOR_CALLER) {
  emulator::wait_for_mbarrier(barrier, parity, {"barrier_wait", file, line});
}

inline void barrier_arrive_expecting(uint32_t barrier, uint32_t bytes, EMULATOR_CALLER) {
  emulator::expect_at_mbarrier(barrier, bytes, {"barrier_arrive_expecting", file, line});
  emulator::arrive_at_mbarrier(barrier, {"barrier_arrive_expecting", file, line});
}

inline void copy_bulk(uint32_t to, const void* from, uint32_t bytes, uint32_t barrier, EMULATOR_CALLER) {
  emulator::copy_at_mbarrier(to, from, bytes, barrier, {"copy_bulk", file, line});
}

inline int cluster_rank() { return int(emulator::cluster_rank()); }

inline void synchronise_cluster(EMULATOR_CALLER) {
  emulator::synchronise_cluster({"synchronise_cluster", file, line});
}

inline void barrier_arrive_at(uint32_t barrier, int rank, EMULATOR_CALLER) {
  emulator::arrive_at_mbarrier(barrier, {"barrier_arrive_at", file, line}, rank);
}

inline void copy_bulk_to(uint32_t ranks, uint32_t to, const void* from, uint32_t bytes, uint32_t barrier,
                         EMULATOR_CALLER) {
  for (int rank = 0; rank < 32; ++rank) {
    if ((ranks >> rank & 1) == 0) continue;
    emulator::copy_at_mbarrier(to, from, bytes, barrier, {"copy_bulk_to", file, line}, rank);
  }
}

// This has no effect here, so nothing notices where it is missing.
inline void fence_barrier_init() {}

inline void fence_async_proxy() { emulator::fence_proxy(); }

// ---- products of a warpgroup ----

// These only check the number.
template <int kRegisters>
void give_registers() {
  static_assert(kRegisters >= 24 && kRegisters <= 256 && kRegisters % 8 == 0);
}
template <int kRegisters>
void take_registers() {
  static_assert(kRegisters >= 24 && kRegisters <= 256 && kRegisters % 8 == 0);
}

inline void wgmma_fence() { emulator::started().fenced = true; }

inline void wgmma_commit() { ++emulator::started().product_group; }

template <int kPending>
void wgmma_wait(EMULATOR_CALLER) {
  emulator::finish_products(kPending, {"wgmma_wait", file, line});
}

// The compiler does not move anything here.
template <size_t kCount>
void keep(float (&)[kCount]) {}

template <typename T, int kColumns>
void wgmma_k(float (&d)[kColumns / 2], uint64_t a, uint64_t b, bool accumulate, EMULATOR_CALLER) {
  static_assert(kIs16Bit<T> && (kColumns == 64 || kColumns == 128));
  emulator::start_product({d, kColumns, std::is_same_v<T, half>, false, false, false, accumulate, {}, a, b, 0},
                          {"wgmma_k", file, line});
}

template <typename T, int kColumns>
void wgmma_mn(float (&d)[kColumns / 2], uint64_t a, uint64_t b, EMULATOR_CALLER) {
  static_assert(kIs16Bit<T> && (kColumns == 64 || kColumns == 128 || kColumns == 256));
  emulator::start_product({d, kColumns, std::is_same_v<T, half>, false, false, true, true, {}, a, b, 0},
                          {"wgmma_mn", file, line});
}

template <typename T, int kColumns>
void wgmma_mn_mn(float (&d)[kColumns / 2], uint64_t a, uint64_t b, EMULATOR_CALLER) {
  static_assert(kIs16Bit<T> && (kColumns == 64 || kColumns == 128 || kColumns == 256));
  emulator::start_product({d, kColumns, std::is_same_v<T, half>, false, true, true, true, {}, a, b, 0},
                          {"wgmma_mn_mn", file, line});
}

template <typename T, int kColumns>
void wgmma_mn(float (&d)[kColumns / 2], const uint32_t (&a)[4], uint64_t b, EMULATOR_CALLER) {
  static_assert(kIs16Bit<T> && (kColumns == 64 || kColumns == 128 || kColumns == 256));
  emulator::start_product(
      {d, kColumns, std::is_same_v<T, half>, true, false, true, true, {a[0], a[1], a[2], a[3]}, 0, b, 0},
      {"wgmma_mn", file, line});
}

}  // namespace fastccsa::cuda

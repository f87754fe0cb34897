// How the products of a warpgroup (wgmma) find a matrix in shared memory.
//
// The matrix consists of rows of 128 bytes. Eight rows lie next to each other, and are swizzled: bits 4 to 6 of an
// address are XORed with its bits 7 to 9. The first row of such a group is therefore aligned to 1024 bytes.
//
// K-major (each row of 128 bytes holds 64 values of the product's inner dimension): `stride_bytes` leads from 8 rows to
// the next 8, and `leading_bytes` has no effect. A product takes 16 values of each row; the next 16 lie 32 bytes later.
// MN-major (each row of 128 bytes holds 64 columns): `stride_bytes` leads from 8 rows to the next 8 of a product's 16,
// and `leading_bytes` from 64 columns to the next 64.
#pragma once

#include "core/macros.h"

#include <cstdint>

namespace fastccsa::cuda {

FASTCCSA_HOST_DEVICE uint64_t matrix_descriptor(uint32_t address, uint32_t leading_bytes, uint32_t stride_bytes) {
  constexpr uint64_t kSwizzle128 = uint64_t(1) << 62;
  return uint64_t((address & 0x3ffffu) >> 4) | uint64_t(leading_bytes >> 4) << 16 | uint64_t(stride_bytes >> 4) << 32 |
         kSwizzle128;
}

}  // namespace fastccsa::cuda

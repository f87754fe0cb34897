// Products of a warp and of a warpgroup, by a CPU. Sums are in float32, in the order of the inner dimension.
#pragma once

#include "emulator/multiprocessor.h"

namespace emulator {

// The lanes' rows of four 8x8 matrices become their fragments `r`.
void distribute_matrices(const void* row, bool transposed, uint32_t* r, Site site);

// The lanes' fragments of four 8x8 matrices become their rows, of 16 bytes.
void collect_matrices(const uint32_t* r, void* row, Site site);

// D += A B of a warp, 16x8x16.
void multiply(bool is_half, float* d, const uint32_t* a, const uint32_t* b, Site site);

// Starts the calling thread's part of a product of a warpgroup, in the group that is open.
void start_product(Product product, Site site);

// Completes all groups of products, except the last `pending`. Each warp computes its 16 rows once all of its lanes are
// here: warps do not wait for each other.
void finish_products(unsigned pending, Site site);

}  // namespace emulator

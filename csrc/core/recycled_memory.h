// A pool of large buffers on the CPU, like the caching allocator of a GPU. It is off until a limit is set.
//
// The system's allocator unmaps a large buffer when it is freed, and the next one gets new, zeroed pages: for the
// gradients of a large batch this takes several times as long as computing them. A buffer that is given back to the
// pool stays mapped, and MADV_FREE tells the system that its contents are no longer needed: when memory runs short, the
// system reclaims the pages without writing them to disk.
#pragma once

#include <cstddef>
#include <cstdint>

namespace fastccsa::recycled {

// Smaller buffers are left to the system's allocator, which recycles them itself.
constexpr std::size_t kLeastBytes = std::size_t(8) << 20;

// Returns a buffer of at least `bytes`, aligned to 2 MiB, or nullptr if there is no memory, even after freeing what the
// pool keeps, or if the limit is 0.
// `capacity` receives its size, for `give_back`.
void* take(std::size_t bytes, std::size_t* capacity);

// Returns a buffer to the pool. May be called from any thread.
void give_back(void* data, std::size_t capacity);

// Sets how many unused bytes the pool keeps at most (initially 0), and frees what exceeds the limit. Returns the
// previous limit.
std::size_t set_limit(std::size_t bytes);

}  // namespace fastccsa::recycled

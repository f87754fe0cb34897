// Large buffers on the CPU that are used again, as the caching allocator of a GPU does it. Off until a limit is set.
//
// The system's allocator unmaps a large buffer when it is freed, and the next one gets fresh, zeroed pages: for the
// gradients of a large batch that takes several times as long as computing them. Here a buffer that is given back stays
// mapped, and MADV_FREE tells the system that its contents are worthless: when memory runs short it takes the pages away
// without writing them to disk.
#pragma once

#include <cstddef>
#include <cstdint>

namespace fastccsa::recycled {

// Smaller buffers are left to the system's allocator, which recycles them itself.
constexpr std::size_t kLeastBytes = std::size_t(8) << 20;

// A buffer of at least `bytes`, aligned to 2 MiB; nullptr if there is no memory, or if the limit is 0.
// `capacity` receives its size, for `give_back`.
void* take(std::size_t bytes, std::size_t* capacity);

// May be called from any thread.
void give_back(void* data, std::size_t capacity);

// Sets how many bytes are kept at most between uses, 0 at first, and frees what exceeds it. Returns the previous limit.
std::size_t set_limit(std::size_t bytes);

}  // namespace fastccsa::recycled

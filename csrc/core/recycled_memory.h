// Large buffers on the CPU that are used again, as a GPU's caching allocator does it.
//
// The system's allocator gives large buffers back to the system when they are freed, and maps fresh, zeroed pages for
// the next: for the gradients of a large batch that takes several times as long as computing them. Here a buffer that
// is given back stays mapped. The system is told that its contents are worthless (MADV_FREE), so when memory runs short
// it takes the pages away without writing them anywhere.
#pragma once

#include <cstddef>
#include <cstdint>

namespace fastccsa::recycled {

// Smaller buffers are left to the system's allocator, which recycles those itself.
constexpr std::size_t kLeastBytes = std::size_t(8) << 20;

// A buffer of at least `bytes`, aligned to 2 MiB; nullptr where there is no memory, or where recycling is off.
// `capacity` receives its size, which `give_back` wants to know.
void* take(std::size_t bytes, std::size_t* capacity);

// Safe from any thread.
void give_back(void* data, std::size_t capacity);

// Bytes that are kept at most between uses; 0 turns recycling off. What is above is freed at once.
// Returns the limit before.
std::size_t set_limit(std::size_t bytes);

}  // namespace fastccsa::recycled

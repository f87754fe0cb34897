// Large buffers on large pages.
//
// The allocator returns big buffers to the system when they are freed, so each new one is mapped page by page as it is
// first written: for 4 KiB pages that takes several times as long as the writing itself.
#pragma once

#include <cstddef>
#include <cstdint>
#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace fastccsa {

// Asks for 2 MiB pages within [data, data + bytes), which nobody has written yet. Only a hint: where the system has no
// such pages, or the buffer is small, nothing happens.
inline void prefer_huge_pages(void* data, std::size_t bytes) {
#if defined(MADV_HUGEPAGE)
  constexpr std::uintptr_t kPage = std::uintptr_t(2) << 20;
  const std::uintptr_t begin = (reinterpret_cast<std::uintptr_t>(data) + kPage - 1) / kPage * kPage;
  const std::uintptr_t end = (reinterpret_cast<std::uintptr_t>(data) + bytes) / kPage * kPage;
  if (end > begin) madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE);
#else
  (void)data;
  (void)bytes;
#endif
}

}  // namespace fastccsa

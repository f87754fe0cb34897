// What the system is told about the pages of large buffers. Only hints: where it knows no such thing, nothing happens.
#pragma once

#include <cstddef>
#include <cstdint>
#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace fastccsa {

// Asks for 2 MiB pages within [data, data + bytes), which nobody has written yet: mapped by 4 KiB as they are first
// written, they take several times as long as the writing itself.
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

// Lets the system take the pages of [data, data + bytes) away when memory runs short, contents and all; until then
// they stay mapped. `data` is the start of a page.
inline void mark_worthless(void* data, std::size_t bytes) {
#if defined(MADV_FREE)
  madvise(data, bytes, MADV_FREE);
#else
  (void)data;
  (void)bytes;
#endif
}

}  // namespace fastccsa

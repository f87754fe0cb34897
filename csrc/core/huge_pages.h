// Hints to the system about the pages of large buffers. They have no effect on systems without them.
#pragma once

#include <cstddef>
#include <cstdint>
#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace fastccsa {

// Asks for pages of 2 MiB within [data, data + bytes). Call it before the first write: mapping pages of 4 KiB one by
// one, as they are first written, takes several times as long as the writing itself.
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

// Lets the system reclaim the pages of [data, data + bytes), and discard their contents, when memory runs short.
// Until then they stay mapped. `data` must be the start of a page.
inline void mark_worthless(void* data, std::size_t bytes) {
#if defined(MADV_FREE)
  madvise(data, bytes, MADV_FREE);
#else
  (void)data;
  (void)bytes;
#endif
}

}  // namespace fastccsa

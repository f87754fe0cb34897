// Augmentation on the CPU: threads share the images, and run the kernel for this processor's instruction set.
#include "augment/cpu.h"

#include <unistd.h>

#include <atomic>
#include <cerrno>

namespace fastccsa::augment::cpu {
namespace {

template <typename T>
struct Work {
  const Batch<T>& batch;
  int file;
  Kernel<T> kernel;
  std::atomic<bool> complete;
};

}  // namespace

template <typename T>
bool augment(const Batch<T>& p, int file, ParallelFor parallel_for) {
  Work<T> work{p, file, for_this_processor([](auto isa) { return kernel<isa, T>(); }), {true}};
  const auto body = [](void* context, int64_t begin, int64_t end) {
    Work<T>& work = *static_cast<Work<T>*>(context);
    if (!work.kernel(work.batch, work.file, begin, end)) work.complete = false;
  };
  if (p.count > 0) parallel_for(p.count, 1, body, &work);
  return work.complete;
}

bool read_fully(int file, uint8_t* to, int64_t bytes, int64_t offset) {
  while (bytes > 0) {
    const ssize_t got = pread(file, to, std::size_t(bytes), off_t(offset));
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) return false;
    to += got;
    bytes -= got;
    offset += got;
  }
  return true;
}

template <typename T>
void augment_picture(const Batch<T>& p, const Picture& picture) {
  for_this_processor([](auto isa) { return picture_kernel<isa, T>(); })(p, picture);
}

template void augment_picture(const Batch<float>&, const Picture&);
template void augment_picture(const Batch<bfloat16>&, const Picture&);
template bool augment(const Batch<float>&, int, ParallelFor);
template bool augment(const Batch<bfloat16>&, int, ParallelFor);

}  // namespace fastccsa::augment::cpu

// Augmentation on the CPU: threads share the images, and run the kernel for this processor's instruction set.
#include "augment/cpu.h"

namespace fastccsa::augment::cpu {
namespace {

template <typename T>
struct Work {
  const Batch<T>& batch;
  Kernel<T> kernel;
};

}  // namespace

template <typename T>
void augment(const Batch<T>& p, ParallelFor parallel_for) {
  Work<T> work{p, for_this_processor([](auto isa) { return kernel<isa, T>(); })};
  const auto body = [](void* context, int64_t begin, int64_t end) {
    const Work<T>& work = *static_cast<Work<T>*>(context);
    work.kernel(work.batch, begin, end);
  };
  if (p.count > 0) parallel_for(p.count, 1, body, &work);
}

template <typename T>
void augment_picture(const Batch<T>& p, const Picture& picture) {
  for_this_processor([](auto isa) { return picture_kernel<isa, T>(); })(p, picture);
}

template void augment_picture(const Batch<float>&, const Picture&);
template void augment_picture(const Batch<bfloat16>&, const Picture&);
template void augment(const Batch<float>&, ParallelFor);
template void augment(const Batch<bfloat16>&, ParallelFor);

}  // namespace fastccsa::augment::cpu

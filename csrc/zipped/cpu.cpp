// The zipped loss on the CPU: threads take chunks of pairs, whose partial sums are added in a fixed order.
#include "zipped/cpu.h"

#include <algorithm>
#include <vector>

namespace fastccsa::zipped::cpu {
namespace {

template <typename T>
Kernels<T> kernels() {
  return for_this_processor([](auto isa) { return cpu::kernels<isa, T>(); });
}

// Returns the least number of chunks per thread: below about 64 KB of work, a second thread costs more than it saves.
template <typename T>
int64_t grain(const Inputs<T>& in, int64_t chunks) {
  const int64_t columns = 2 * (in.width + 4 * in.classes) + 1;
  const int64_t bytes_per_chunk = (in.pairs / chunks + 1) * columns * int64_t(sizeof(T));
  return 1 + (int64_t(1) << 16) / bytes_per_chunk;
}

template <typename Work>
void over_chunks(int64_t chunks, int64_t grain, ParallelFor parallel_for, Work& work) {
  const auto body = [](void* context, int64_t begin, int64_t end) {
    for (int64_t chunk = begin; chunk < end; ++chunk) (*static_cast<Work*>(context))(chunk);
  };
  if (chunks <= grain) {
    body(&work, 0, chunks);
  } else {
    parallel_for(chunks, grain, body, &work);
  }
}

}  // namespace

template <typename T>
FaultReport forward(const Forward<T>& p, ParallelFor parallel_for) {
  using Acc = acc_t<T>;
  const Inputs<T>& in = p.in;
  const Kernels<T> kernel = kernels<T>();
  const int64_t chunks = chunk_count(in.pairs);
  Acc* partials = p.saved.partials();
  std::vector<FaultReport> reports(chunks);
  auto work = [&](int64_t chunk) {
    reports[chunk] = kernel.forward(p, chunk * in.pairs / chunks, (chunk + 1) * in.pairs / chunks,
                                    partials + chunk * kSums);
  };
  if (chunks > 0) over_chunks(chunks, grain(in, chunks), parallel_for, work);

  double sums[kSums] = {};
  for (int64_t chunk = 0; chunk < chunks; ++chunk) {
    if (reports[chunk].fault != Fault::kNone) return reports[chunk];
    for (int s = 0; s < kSums; ++s) sums[s] += double(partials[chunk * kSums + s]);
  }
  std::fill_n(partials, partials_size(in.pairs), Acc(0));
  finish(p, sums);
  return {};
}

template <typename T>
void backward(const Backward<T>& p, ParallelFor parallel_for) {
  const Inputs<T>& in = p.in;
  const Kernels<T> kernel = kernels<T>();
  const int64_t chunks = chunk_count(in.pairs);
  if (chunks == 0) return;
  auto work = [&](int64_t chunk) {
    kernel.backward(p, chunk * in.pairs / chunks, (chunk + 1) * in.pairs / chunks);
  };
  over_chunks(chunks, grain(in, chunks), parallel_for, work);
}

template FaultReport forward(const Forward<float>&, ParallelFor);
template FaultReport forward(const Forward<double>&, ParallelFor);
template FaultReport forward(const Forward<bfloat16>&, ParallelFor);
template FaultReport forward(const Forward<half>&, ParallelFor);
template void backward(const Backward<float>&, ParallelFor);
template void backward(const Backward<double>&, ParallelFor);
template void backward(const Backward<bfloat16>&, ParallelFor);
template void backward(const Backward<half>&, ParallelFor);

}  // namespace fastccsa::zipped::cpu

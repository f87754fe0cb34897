// The loss over all pairs on the CPU: threads take chunks, whose partial sums are added in a fixed order.
#include "all_pairs/cpu/cpu.h"

#include <algorithm>
#include <numeric>

namespace fastccsa::all_pairs::cpu {
namespace {

template <typename T>
Kernels<T> kernels() {
  return for_this_processor([](auto isa) { return cpu::kernels<isa, T>(); });
}

// Calls work(begin, end) for chunks of [0, count), on one thread if they are small: one chunk touches `bytes`.
template <typename Work>
void over_chunks(int64_t count, int64_t chunk, int64_t bytes, ParallelFor parallel_for, Work work) {
  struct Call {
    Work* work;
    int64_t count, chunk;
  } call{&work, count, chunk};
  const auto body = [](void* context, int64_t begin, int64_t end) {
    const Call& call = *static_cast<Call*>(context);
    for (int64_t c = begin; c < end; ++c) (*call.work)(c * call.chunk, std::min(call.count, (c + 1) * call.chunk));
  };
  const int64_t chunks = (count + chunk - 1) / chunk;
  const int64_t grain = 1 + (int64_t(1) << 16) / (bytes + 1);
  if (chunks <= grain) {
    body(&call, 0, chunks);
  } else {
    parallel_for(chunks, grain, body, &call);
  }
}

}  // namespace

template <typename T>
void copy_features(const Matrix<const T>& features, int64_t rows, int64_t width, acc_t<T>* to,
                   ParallelFor parallel_for) {
  const Kernels<T> kernel = kernels<T>();
  over_chunks(rows, kChunkRows, kChunkRows * width * int64_t(sizeof(acc_t<T>)), parallel_for,
              [&](int64_t begin, int64_t end) { kernel.copy_rows(features, width, {begin, end}, to); });
}

// Sums pieces of classes row by row, because the values of one column in many rows are far apart in memory. The first
// piece of a class is summed where its mean will be.
template <typename T>
void class_means(const Classes<T>& p, ParallelFor parallel_for) {
  constexpr int64_t kPieceRows = 512;
  struct Piece : Range {
    double* sum;
  };
  std::vector<Piece> pieces;
  std::vector<int64_t> first(p.classes + 1, 0);  // of each class
  for (int64_t c = 0; c < p.classes; ++c) {
    const int64_t begin = p.offset[c], rows = p.offset[c + 1] - begin;
    const int64_t parts = std::max<int64_t>(1, (rows + kPieceRows - 1) / kPieceRows);
    for (int64_t k = 0; k < parts; ++k) {
      pieces.push_back({{begin + rows * k / parts, begin + rows * (k + 1) / parts}, p.mean + c * p.width});
    }
    first[c + 1] = int64_t(pieces.size());
  }
  std::vector<double> sums((pieces.size() - p.classes) * p.width);
  double* next = sums.data();
  for (int64_t c = 0; c < p.classes; ++c) {
    for (int64_t k = first[c] + 1; k < first[c + 1]; ++k, next += p.width) pieces[k].sum = next;
  }
  const Kernels<T> kernel = kernels<T>();
  const int64_t rows = p.offset[p.classes] / int64_t(pieces.size()) + 1;
  const int64_t bytes = rows * p.width * int64_t(sizeof(T));
  over_chunks(int64_t(pieces.size()), 1, bytes, parallel_for, [&](int64_t k, int64_t) {
    std::fill_n(pieces[k].sum, p.width, 0.0);
    kernel.add_rows(p.side, p.width, pieces[k], pieces[k].sum);
  });
  over_chunks(p.classes, 1, 2 * p.width * int64_t(sizeof(double)), parallel_for, [&](int64_t c, int64_t) {
    double* mean = p.mean + c * p.width;
    for (int64_t k = first[c] + 1; k < first[c + 1]; ++k) {
      for (int64_t d = 0; d < p.width; ++d) mean[d] += pieces[k].sum[d];
    }
    const double of_class = double(std::max<int64_t>(1, p.offset[c + 1] - p.offset[c]));
    for (int64_t d = 0; d < p.width; ++d) mean[d] /= of_class;
  });
}

template <typename Acc>
void find_centre(const Align<Acc>& p) {
  std::vector<double> total(p.width, 0.0);
  for (int64_t c = 0; c < p.classes; ++c) {
    const double *mean1 = p.mean[0] + c * p.width, *mean2 = p.mean[1] + c * p.width;
    const double rows1 = double(p.count(0, c)), rows2 = double(p.count(1, c));
    for (int64_t d = 0; d < p.width; ++d) total[d] += rows1 * mean1[d] + rows2 * mean2[d];
  }
  for (int64_t d = 0; d < p.width; ++d) p.set_centre(d, total[d]);
}
template void find_centre(const Align<float>&);
template void find_centre(const Align<double>&);

template <typename Acc>
void align_classes(const Align<Acc>& p) {
  for (int64_t c = 0; c < p.classes; ++c) {
    const double *mean1 = p.mean[0] + c * p.width, *mean2 = p.mean[1] + c * p.width;
    double between = 0;
    for (int64_t d = 0; d < p.width; ++d) between += (mean1[d] - mean2[d]) * (mean1[d] - mean2[d]);
    p.finish_class(c, double(p.own_weight(c)), between);
  }
}
template void align_classes(const Align<float>&);
template void align_classes(const Align<double>&);

template <typename Acc>
void direct(const Direct<Acc>& p, ParallelFor parallel_for) {
  const DirectKernels<Acc> kernels = for_this_processor([](auto isa) { return direct_kernels<isa, Acc>(); });
  // Computing the pairs of eight rows with the other side takes as long as reading about 1/16 of these bytes from
  // memory.
  constexpr int64_t kRows = 8;
  const auto over_rows = [&](int side, auto work) {
    const int64_t bytes = kRows * p.rows[1 - side] * p.width * int64_t(sizeof(Acc)) / 16;
    over_chunks(p.rows[side], kRows, bytes, parallel_for, work);
  };
  over_rows(0, [&](int64_t begin, int64_t end) { kernels.pairs(p, begin, end); });
  for (int side = 0; side < 2; ++side) {
    if (p.gradient[side] == nullptr) continue;
    over_rows(side, [&](int64_t begin, int64_t end) { kernels.gradient(p, side, begin, end); });
  }
  const double *alignment = p.sums, *separation = p.sums + p.rows[0];
  p.finish(std::accumulate(alignment, separation, 0.0), std::accumulate(separation, separation + p.rows[0], 0.0));
}
template void direct(const Direct<float>&, ParallelFor);
template void direct(const Direct<double>&, ParallelFor);

#define FASTCCSA_INSTANCES(T)                                                                    \
  template void copy_features(const Matrix<const T>&, int64_t, int64_t, acc_t<T>*, ParallelFor); \
  template void class_means(const Classes<T>&, ParallelFor);
FASTCCSA_INSTANCES(float)
FASTCCSA_INSTANCES(double)
FASTCCSA_INSTANCES(bfloat16)
FASTCCSA_INSTANCES(half)

}  // namespace fastccsa::all_pairs::cpu

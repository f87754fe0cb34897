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

// Sums pieces of classes row after row, for columns of many rows would lie far from each other. The first piece of a
// class is summed in its mean's place.
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

template <typename T>
void classes(const Classes<T>& p, ParallelFor parallel_for) {
  class_means(p, parallel_for);
  const int64_t rows = p.offset[p.classes], parts = (p.width + kChunkColumns - 1) / kChunkColumns;
  const Kernels<T> kernel = kernels<T>();
  std::vector<double> deviation(rows);
  const int64_t bytes = kChunkRows * p.width * int64_t(sizeof(T));
  over_chunks(rows, kChunkRows, bytes, parallel_for, [&](int64_t begin, int64_t end) {
    kernel.deviations(p.side, p.width, {begin, end}, p.mean, deviation.data() + begin);
  });
  for (int64_t c = 0; parts > 0 && c < p.classes; ++c) {
    std::fill_n(p.spread + c * parts, parts, 0.0);
    p.spread[c * parts] =
        std::accumulate(deviation.begin() + p.offset[c], deviation.begin() + p.offset[c + 1], 0.0);
  }
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

template <typename T>
void centre(const Centre<T>& p, ParallelFor parallel_for) {
  const Kernels<T> kernel = kernels<T>();
  const int64_t bytes = 2 * kChunkRows * p.width * int64_t(sizeof(acc_t<T>));
  over_chunks(p.rows, kChunkRows, bytes, parallel_for,
              [&](int64_t begin, int64_t end) { kernel.centre_rows(p, begin, end); });
}

template <typename T>
void tile(const Tile<T>& p, ParallelFor parallel_for) {
  using Acc = acc_t<T>;
  const Kernels<T> kernel = kernels<T>();
  const int64_t chunks = (p.rows + kChunkRows - 1) / kChunkRows;
  std::vector<Acc> column_sums(chunks * p.columns, Acc(0));
  std::vector<ChunkSums<Acc>> sums(chunks);
  const int64_t bytes = kChunkRows * p.columns * int64_t(sizeof(Acc));
  over_chunks(p.rows, kChunkRows, bytes, parallel_for, [&](int64_t begin, int64_t end) {
    const int64_t chunk = begin / kChunkRows;
    sums[chunk].column_sums = column_sums.data() + chunk * p.columns;
    kernel.tile_rows(p, begin, end, sums[chunk]);
    if (p.gradient[0] != nullptr) kernel.close_pairs(p, 0, sums[chunk].close, {begin, end}, {0, p.width});
  });

  size_t close = 0;
  for (const ChunkSums<Acc>& chunk : sums) {
    for (int64_t j = 0; j < p.columns; ++j) p.sums[1][p.begin[1] + j] += double(chunk.column_sums[j]);
    close += chunk.close.size();
  }
  if (close == 0 || p.gradient[1] == nullptr) return;
  // Each thread owns columns, and meets their pairs in the order of the rows.
  over_chunks(p.columns, kChunkColumns, int64_t(close) * p.width, parallel_for, [&](int64_t begin, int64_t end) {
    for (const ChunkSums<Acc>& chunk : sums) kernel.close_pairs(p, 1, chunk.close, {begin, end}, {0, p.width});
  });
}

template <typename T>
void finish(const Finish<T>& p, ParallelFor parallel_for) {
  const Kernels<T> kernel = kernels<T>();
  const int64_t bytes = 4 * kChunkRows * p.width * int64_t(sizeof(acc_t<T>));
  over_chunks(p.rows, kChunkRows, bytes, parallel_for,
              [&](int64_t begin, int64_t end) { kernel.finish_rows(p, begin, end); });
}

template <typename Acc>
void terms(const Terms<Acc>& p) {
  p.finish(std::accumulate(p.alignment, p.alignment + p.classes, 0.0),
           std::accumulate(p.separation, p.separation + p.rows, 0.0));
}
template void terms(const Terms<float>&);
template void terms(const Terms<double>&);

template <typename Acc>
void direct(const Direct<Acc>& p, ParallelFor parallel_for) {
  const DirectKernels<Acc> kernels = for_this_processor([](auto isa) { return direct_kernels<isa, Acc>(); });
  // Computing the pairs of eight rows with the other side takes as long as reading about 1/16 of these bytes from
  // memory.
  constexpr int64_t kRows = 8;
  const auto over_rows = [&](int side, auto work) {
    over_chunks(p.rows[side], kRows, kRows * p.rows[1 - side] * p.width * int64_t(sizeof(Acc)) / 16, parallel_for, work);
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

#define FASTCCSA_INSTANCES(T)                            \
  template void class_means(const Classes<T>&, ParallelFor); \
  template void classes(const Classes<T>&, ParallelFor); \
  template void centre(const Centre<T>&, ParallelFor);   \
  template void tile(const Tile<T>&, ParallelFor);       \
  template void finish(const Finish<T>&, ParallelFor);
FASTCCSA_INSTANCES(float)
FASTCCSA_INSTANCES(double)
FASTCCSA_INSTANCES(bfloat16)
FASTCCSA_INSTANCES(half)

}  // namespace fastccsa::all_pairs::cpu

// The loss over all pairs on the CPU.
#pragma once

#include "allpairs/params.h"
#include "common/half.h"
#include "common/instruction_sets.h"
#include "common/parallel.h"

#include <vector>

namespace fastccsa::allpairs::cpu {

// A pair whose distance was computed from its rows, for the gradient of its column.
template <typename Acc>
struct ClosePair {
  int32_t row, column;
  Acc coefficient;
};

// What a chunk of a tile's rows leaves behind.
template <typename Acc>
struct ChunkSums {
  Acc* column_sums;  // [columns], zeros at first
  std::vector<ClosePair<Acc>> close;
};

// The kernels of one instruction set.
template <typename T>
struct Kernels {
  void (*class_sums)(const Classes<T>& p, int64_t begin, int64_t end);  // of columns [begin, end)
  void (*centre_rows)(const Centre<T>& p, int64_t begin, int64_t end);
  void (*tile_rows)(const Tile<T>& p, int64_t begin, int64_t end, ChunkSums<acc_t<T>>& sums);
  void (*close_columns)(const Tile<T>& p, int64_t begin, int64_t end, const std::vector<ClosePair<acc_t<T>>>& close);
  void (*finish_rows)(const Finish<T>& p, int64_t begin, int64_t end);
};

template <Isa isa, typename T>
Kernels<T> kernels();

template <typename Acc>
struct DirectKernels {
  void (*pairs)(const Direct<Acc>& p, int64_t begin, int64_t end);  // of rows [begin, end) of side 0
  void (*gradient)(const Direct<Acc>& p, int side, int64_t begin, int64_t end);
};
template <Isa isa, typename Acc>
DirectKernels<Acc> direct_kernels();

template <typename T>
void classes(const Classes<T>& p, ParallelFor parallel_for);

template <typename T>
void centre(const Centre<T>& p, ParallelFor parallel_for);

template <typename T>
void tile(const Tile<T>& p, ParallelFor parallel_for);

template <typename T>
void finish(const Finish<T>& p, ParallelFor parallel_for);

template <typename Acc>
void direct(const Direct<Acc>& p, ParallelFor parallel_for);

}  // namespace fastccsa::allpairs::cpu

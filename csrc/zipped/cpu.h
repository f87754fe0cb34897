// The zipped loss on the CPU.
#pragma once

#include "core/half.h"
#include "core/instruction_sets.h"
#include "core/parallel.h"
#include "zipped/params.h"

namespace fastccsa::zipped::cpu {

// Pairs are summed in chunks. The number of chunks depends only on the number of pairs, so that the sums do not depend
// on the number of threads.
constexpr int64_t kChunkPairs = 32;
inline int64_t chunk_count(int64_t pairs) {
  const int64_t chunks = (pairs + kChunkPairs - 1) / kChunkPairs;
  return chunks < kMaxPartials ? chunks : kMaxPartials;
}

// The kernels of one instruction set. Chunk c of `chunks` covers the pairs [c * N / chunks, (c + 1) * N / chunks).
template <typename T>
struct Kernels {
  // Writes the per-pair values of one chunk and its kSums partial sums; returns the first fault, if any.
  FaultReport (*forward)(const Forward<T>& p, int64_t begin, int64_t end, acc_t<T>* sums);
  void (*backward)(const Backward<T>& p, int64_t begin, int64_t end);
};

template <Isa isa, typename T>
Kernels<T> kernels();

template <typename T>
FaultReport forward(const Forward<T>& p, ParallelFor parallel_for);

template <typename T>
void backward(const Backward<T>& p, ParallelFor parallel_for);

}  // namespace fastccsa::zipped::cpu

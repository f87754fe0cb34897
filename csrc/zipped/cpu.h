// The zipped loss on the CPU.
#pragma once

#include "common/half.h"
#include "zipped/params.h"

namespace fastccsa::zipped::cpu {

// How the caller's thread pool is reached: calls `body(context, begin, end)` over [0, count), in any split.
using ParallelFor = void (*)(int64_t count, int64_t grain, void (*body)(void*, int64_t, int64_t), void* context);

// The chunks that pairs are summed in. They depend on the number of pairs alone, never on threads, so the sums do too.
constexpr int64_t kChunkPairs = 32;
inline int64_t chunk_count(int64_t pairs) {
  const int64_t chunks = (pairs + kChunkPairs - 1) / kChunkPairs;
  return chunks < kMaxPartials ? chunks : kMaxPartials;
}

// The kernels of one instruction set. Chunk c of `chunks` covers the pairs [c * N / chunks, (c + 1) * N / chunks).
template <typename T>
struct Kernels {
  // Writes the per-pair values of one chunk and its kSums partial sums; says what was wrong, if anything was.
  FaultReport (*forward)(const Forward<T>& p, int64_t begin, int64_t end, acc_t<T>* sums);
  void (*backward)(const Backward<T>& p, int64_t begin, int64_t end);
};

namespace portable {
template <typename T>
Kernels<T> kernels();
}
namespace avx2 {
template <typename T>
Kernels<T> kernels();
}
namespace avx512 {
template <typename T>
Kernels<T> kernels();
}

template <typename T>
FaultReport forward(const Forward<T>& p, ParallelFor parallel_for);

template <typename T>
void backward(const Backward<T>& p, ParallelFor parallel_for);

// The instruction set in use: "avx512", "avx2" or "portable"; FASTCCSA_ISA in the environment asks for a lesser one.
const char* instruction_set();

}  // namespace fastccsa::zipped::cpu

// Matrix products for the loss over all pairs on the CPU, on one thread. This file is compiled once for each
// instruction set: FASTCCSA_ISA names it, and core/simd.h has its vectors.
//
// Torch's BLAS is slower here: for float32, MKL uses AVX-512 only on Intel's processors, and it would pack both factors
// again for each of these small products. Here they are packed only once.
#include "all_pairs/cpu/cpu.h"
#include "core/simd.h"

#include <algorithm>
#include <utility>

namespace fastccsa::all_pairs::cpu::FASTCCSA_ISA {
namespace {

using namespace fastccsa::FASTCCSA_ISA;

// A block of this many rows and two vectors of columns stays in registers.
#if defined(__AVX512F__) || defined(__aarch64__)
constexpr int kBlockRows = 12;  // 24 of 32 registers
#else
constexpr int kBlockRows = 6;  // 12 of 16
#endif
template <typename Acc>
constexpr int kWidth = 2 * Simd<Acc>::kLanes;
// How much of the depth is processed at a time, so that a block's rows stay in the first-level cache, and its columns
// in the second-level cache.
template <typename Acc>
constexpr int64_t kDepth = 2048 / int64_t(sizeof(Acc));

// c [kRows, kWidth] = alpha a b, or c += alpha a b if `add`. `b` has contiguous rows of kWidth.
template <int kRows, typename Acc>
void block(const Product<Acc>& p, int64_t depth, const Acc* a, const Acc* b, bool add, Acc* c, int64_t stride) {
  constexpr int kLanes = Simd<Acc>::kLanes, kBases = (kRows + 3) / 4;
  vector_t<Acc> sum[kRows][2];
#pragma GCC unroll 16
  for (int i = 0; i < kRows; ++i) sum[i][0] = sum[i][1] = vector_t<Acc>{};
  // Each base address serves four rows: more addresses would not fit into the general registers.
  const Acc* base[kBases];
#pragma GCC unroll 4
  for (int q = 0; q < kBases; ++q) base[q] = a + 4 * q * p.row_stride;
  const int64_t one = p.row_stride, three = 3 * p.row_stride;
  while (depth > 0) {
    const int64_t run = std::min(depth, p.run);
    depth -= run;
    for (int64_t k = 0; k < run; ++k) {
      const vector_t<Acc> b0 = load_vector(b), b1 = load_vector(b + kLanes);
      b += kWidth<Acc>;
#pragma GCC unroll 16
      for (int i = 0; i < kRows; ++i) {
        const Acc* row = base[i / 4];
        const Acc value = i % 4 == 0 ? row[0] : i % 4 == 1 ? row[one] : i % 4 == 2 ? row[2 * one] : row[three];
        sum[i][0] += value * b0;
        sum[i][1] += value * b1;
      }
#pragma GCC unroll 4
      for (int q = 0; q < kBases; ++q) base[q] += p.step;
    }
#pragma GCC unroll 4
    for (int q = 0; q < kBases; ++q) base[q] += p.jump;
  }
#pragma GCC unroll 16
  for (int i = 0; i < kRows; ++i) {
    for (int v = 0; v < 2; ++v) {
      Acc* to = c + i * stride + v * kLanes;
      const vector_t<Acc> product = p.alpha * sum[i][v];
      store_vector(to, add ? load_vector(to) + product : product);
    }
  }
}

template <typename Acc>
using Block = void (*)(const Product<Acc>&, int64_t, const Acc*, const Acc*, bool, Acc*, int64_t);

template <typename Acc, int... kRowsLessOne>
Block<Acc> block_of(int64_t rows, std::integer_sequence<int, kRowsLessOne...>) {
  static constexpr Block<Acc> kBlocks[] = {&block<kRowsLessOne + 1, Acc>...};
  return kBlocks[rows - 1];
}

template <typename Acc>
void product(const Product<Acc>& p) {
  constexpr int64_t kColumns = kWidth<Acc>;
  const int64_t blocks = (p.rows + kBlockRows - 1) / kBlockRows;
  int64_t begin = 0;
  do {  // once even if the depth is 0: the product is then 0
    const int64_t depth = std::min(kDepth<Acc>, p.depth - begin);
    const Acc* a = p.a + begin * p.step + begin / p.run * p.jump;
    const bool add = p.add || begin > 0;
    for (int64_t j = 0; j < p.columns; j += kColumns) {
      const Acc* b = p.b + j / kColumns * p.panel_stride + begin * kColumns;
      const int64_t columns = std::min(kColumns, p.columns - j);
      for (int64_t k = 0; k < blocks; ++k) {
        const int64_t i = p.rows * k / blocks, rows = p.rows * (k + 1) / blocks - i;
        const Block<Acc> compute = block_of<Acc>(rows, std::make_integer_sequence<int, kBlockRows>());
        Acc* c = p.c + i * p.stride + j;
        if (columns == kColumns) {
          compute(p, depth, a + i * p.row_stride, b, add, c, p.stride);
          continue;
        }
        Acc whole[kBlockRows * kColumns];
        compute(p, depth, a + i * p.row_stride, b, false, whole, kColumns);
        for (int64_t r = 0; r < rows; ++r) {
          for (int64_t d = 0; d < columns; ++d) {
            c[r * p.stride + d] = whole[r * kColumns + d] + (add ? c[r * p.stride + d] : Acc(0));
          }
        }
      }
    }
    begin += kDepth<Acc>;
  } while (begin < p.depth);
}

template <typename Acc>
void pack(const Acc* rows, int64_t count, int64_t width, Acc* packed, int64_t panel_stride) {
  constexpr int64_t kColumns = kWidth<Acc>;
  for (int64_t d = 0; d < width; d += kColumns) {
    const int64_t columns = std::min(kColumns, width - d);
    Acc* panel = packed + d / kColumns * panel_stride;
    if (columns == kColumns) {
      for (int64_t k = 0; k < count; ++k) {
        const Acc *from = rows + k * width + d, *second = from + kColumns / 2;
        store_vector(panel + k * kColumns, load_vector(from));
        store_vector(panel + k * kColumns + kColumns / 2, load_vector(second));
      }
      continue;
    }
    for (int64_t k = 0; k < count; ++k) {
      Acc* to = std::copy_n(rows + k * width + d, columns, panel + k * kColumns);
      std::fill_n(to, kColumns - columns, Acc(0));
    }
  }
}

template <typename Acc>
void pack_transposed(const Acc* rows, int64_t count, int64_t width, Acc* packed) {
  constexpr int64_t kColumns = kWidth<Acc>;
  for (int64_t k = 0; k < count; k += kColumns) {
    const int64_t columns = std::min(kColumns, count - k);
    for (int64_t d = 0; d < width; ++d) {
      Acc* to = packed + (k * width + d * kColumns);
      for (int64_t j = 0; j < columns; ++j) to[j] = rows[(k + j) * width + d];
      std::fill_n(to + columns, kColumns - columns, Acc(0));
    }
  }
}

template <typename Acc>
Acc squared_distance(const Acc* a, const Acc* b, int64_t width) {
  constexpr int kLanes = Simd<Acc>::kLanes;
  vector_t<Acc> sum{};
  for (int64_t d = 0; d < width; d += kLanes) {
    const int64_t rest = width - d;
    const vector_t<Acc> difference =
        rest >= kLanes ? load_vector(a + d) - load_vector(b + d)
                       : load_first<Acc>(a + d, rest, Acc(0)) - load_first<Acc>(b + d, rest, Acc(0));
    sum += difference * difference;
  }
  return sum_of<Acc>(sum);
}

}  // namespace

}  // namespace fastccsa::all_pairs::cpu::FASTCCSA_ISA

namespace fastccsa::all_pairs::cpu {

template <Isa isa, typename Acc>
ProductKernels<Acc> product_kernels() {
  using namespace FASTCCSA_ISA;
  return {kWidth<Acc>, &product<Acc>, &pack<Acc>, &pack_transposed<Acc>, &squared_distance<Acc>};
}
template ProductKernels<float> product_kernels<Isa::FASTCCSA_ISA, float>();
template ProductKernels<double> product_kernels<Isa::FASTCCSA_ISA, double>();

}  // namespace fastccsa::all_pairs::cpu

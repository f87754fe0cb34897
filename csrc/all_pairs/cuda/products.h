// Matrix products on CUDA by cuBLAS, with factors in parts.
//
// The precision is an argument of each call, so torch's settings neither matter nor change.
#pragma once

#include "all_pairs/cuda/parts.h"
#include "core/cublas.h"

#include <algorithm>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <type_traits>

namespace fastccsa::all_pairs::cuda {

// A row-major factor of a product.
template <typename Part>
struct Factor {
  const Part* data;
  int64_t stride;  // from row to row
  bool transposed = false;
};

// Computes C [m, n] = alpha A B + beta C. A row-major matrix is the transpose of the column-major one in the same
// memory, so the product is computed as C^T = B^T A^T: the factors change places, and their `transposed` flags stay as
// they are.
template <typename Part, typename Acc>
void multiply(const Blas& blas, int64_t m, int64_t n, int64_t k, Acc alpha, const Factor<Part>& a,
              const Factor<Part>& b, Acc beta, Acc* c, int64_t stride) {
  constexpr bool kDouble = std::is_same_v<Part, double>, kFloat = std::is_same_v<Part, float>;
  const int type = kDouble ? cublas::kR64F : kFloat ? cublas::kR32F : cublas::kR16BF;
  const int result = kDouble ? cublas::kR64F : cublas::kR32F;
  const int compute = kDouble ? cublas::kCompute64F : kFloat ? cublas::kCompute32FFastTf32 : cublas::kCompute32F;
  const auto operation = [](const Factor<Part>& factor) { return factor.transposed ? cublas::kOpT : cublas::kOpN; };
  const int status = blas.gemm(blas.handle, operation(b), operation(a), int(n), int(m), int(k),  //
                               &alpha, b.data, type, int(b.stride), a.data, type, int(a.stride), &beta,
                               c, result, int(stride), compute, cublas::kGemmDefault);
  if (status != 0) throw std::runtime_error("fastccsa: cublasGemmEx failed with status " + std::to_string(status));
}

// Tensor cores cut off what they add to a sum, instead of rounding it: the error of a sum of n terms of one sign grows
// with n. So where float32's accuracy is promised, the product of the largest parts is divided into shorter ones, whose
// sums cuBLAS adds in float32. These are the largest powers of 2 that kept the promise for two clusters of 512 features
// in a simulation of bfloat16, of which tensor cores multiply 16 columns at a time.
template <typename P>
constexpr bool kPromisesFloat32 = std::is_same_v<P, Tf32x3> || std::is_same_v<P, Bf16x6>;
constexpr int64_t kDotDepth = 256, kGradientDepth = 512;

// Computes C = alpha A B + beta C by products of at most `depth` columns of A.
template <typename Part, typename Acc>
void multiply_in_pieces(const Blas& blas, int64_t depth, int64_t m, int64_t n, int64_t k, Acc alpha,
                        const Factor<Part>& a, const Factor<Part>& b, Acc beta, Acc* c, int64_t stride) {
  for (int64_t at = 0; at < k; at += depth) {
    const Factor<Part> left{a.data + at * (a.transposed ? a.stride : 1), a.stride, a.transposed};
    const Factor<Part> right{b.data + at * (b.transposed ? 1 : b.stride), b.stride, b.transposed};
    multiply(blas, m, n, std::min(depth, k - at), alpha, left, right, at == 0 ? beta : Acc(1), c, stride);
  }
}

// Returns the depth of the products of parts i and j with i + j = t.
template <typename P>
int64_t depth_of(int t, int64_t limit, int64_t whole) {
  return kPromisesFloat32<P> && t == 0 ? limit : whole;
}

// The sorted rows of one side, as SplitRows writes them.
template <typename P>
struct SplitSide {
  using Part = typename P::Part;
  const Part* data;  // [N, kParts, stride]
  int64_t stride;
  bool reversed;     // the order of the parts

  // Returns the part of all rows from `row` on.
  Factor<Part> part(int64_t row, int part) const {
    const int64_t at = reversed ? P::kParts - 1 - part : part;
    return {data + (row * P::kParts + at) * stride, P::kParts * stride};
  }
};

// Computes the dot products of rows of both sides. Product t is the sum of a_i b_j over i + j = t: the parts a_0 .. a_t
// and b_t .. b_0 lie one after the other. The smallest come first.
template <typename P, typename Acc>
void dot_products(const Blas& blas, int64_t rows, int64_t columns, const SplitSide<P>& a, int64_t row,
                  const SplitSide<P>& b, int64_t column, Acc* to, int64_t stride) {
  for (int t = P::kParts - 1; t >= 0; --t) {
    Factor<typename P::Part> others = b.part(column, t);
    others.transposed = true;
    const int64_t whole = (t + 1) * a.stride;
    multiply_in_pieces(blas, depth_of<P>(t, kDotDepth, whole), rows, columns, whole, Acc(1), a.part(row, 0), others,
                       Acc(t < P::kParts - 1 ? 1 : 0), to, stride);
  }
}

// Computes C [m, width] = beta C - K B, or K^T B, with the parts of K and of the rows of B from `row` on. The smallest
// products of parts come first.
template <typename P, typename Acc>
void add_gradient(const Blas& blas, int64_t m, int64_t width, int64_t depth,
                  typename P::Part* const (&coefficient)[P::kParts], int64_t stride, bool transposed,
                  const SplitSide<P>& b, int64_t row, Acc beta, Acc* to) {
  for (int t = P::kParts - 1; t >= 0; --t) {
    for (int i = 0; i <= t; ++i) {
      const Factor<typename P::Part> left{coefficient[i], stride, transposed};
      multiply_in_pieces(blas, depth_of<P>(t, kGradientDepth, depth), m, width, depth, Acc(-1), left,
                         b.part(row, t - i), beta, to, width);
      beta = Acc(1);
    }
  }
}

}  // namespace fastccsa::all_pairs::cuda

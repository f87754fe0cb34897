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

  Factor from_row(int64_t row) const { return {data + row * (transposed ? 1 : stride), stride, transposed}; }
  Factor from_column(int64_t column) const { return {data + column * (transposed ? stride : 1), stride, transposed}; }
};

// The types and operations of a product, as cuBLAS numbers them.
template <typename Part>
struct ProductTypes {
  static constexpr bool kDouble = std::is_same_v<Part, double>, kFloat = std::is_same_v<Part, float>;
  static constexpr int type = kDouble ? cublas::kR64F : kFloat ? cublas::kR32F : cublas::kR16BF;
  static constexpr int result = kDouble ? cublas::kR64F : cublas::kR32F;
  static constexpr int compute =
      kDouble ? cublas::kCompute64F : kFloat ? cublas::kCompute32FFastTf32 : cublas::kCompute32F;

  static int operation(const Factor<Part>& factor) { return factor.transposed ? cublas::kOpT : cublas::kOpN; }
};

inline void check_blas(int status, const char* function) {
  if (status == 0) return;
  throw std::runtime_error(std::string("fastccsa: ") + function + " failed with status " + std::to_string(status));
}

// Computes C [m, n] = alpha A B + beta C. A row-major matrix is the transpose of the column-major one in the same
// memory, so the product is computed as C^T = B^T A^T: the factors change places, and their `transposed` flags stay as
// they are.
template <typename Part, typename Acc>
void multiply(const Blas& blas, int64_t m, int64_t n, int64_t k, Acc alpha, const Factor<Part>& a,
              const Factor<Part>& b, Acc beta, Acc* c, int64_t stride) {
  using N = ProductTypes<Part>;
  check_blas(blas.gemm(blas.handle, N::operation(b), N::operation(a), int(n), int(m), int(k), &alpha,  //
                       b.data, N::type, int(b.stride), a.data, N::type, int(a.stride), &beta,          //
                       c, N::result, int(stride), N::compute, cublas::kGemmDefault),
             "cublasGemmEx");
}

// Tensor cores cut off what they add to a sum, instead of rounding it: the error of a sum of n terms of one sign grows
// with n. So where float32's accuracy is promised, the product of the largest parts is divided into shorter ones, whose
// sums cuBLAS adds in float32. Twice these depths kept the promise in a simulation, but on an H200 the gradients of two
// clusters of 512 features were 2.7 times less accurate than by differences.
template <typename P>
constexpr bool kPromisesFloat32 = std::is_same_v<P, Bf16x6>;
constexpr int64_t kDotDepth = 128, kGradientDepth = 256;

// Computes C = alpha A B + beta C by products of at most `depth` columns of A.
template <typename Part, typename Acc>
void multiply_in_pieces(const Blas& blas, int64_t depth, int64_t m, int64_t n, int64_t k, Acc alpha,
                        const Factor<Part>& a, const Factor<Part>& b, Acc beta, Acc* c, int64_t stride) {
  for (int64_t at = 0; at < k; at += depth) {
    multiply(blas, m, n, std::min(depth, k - at), alpha, a.from_column(at), b.from_row(at), at == 0 ? beta : Acc(1), c,
             stride);
  }
}

// Computes alpha A B as products of `depth` columns of A each, and stores them one after the other: [pieces, m, n]. The
// last piece has the remaining columns. Returns how many there are.
template <typename Part, typename Acc>
int64_t multiply_pieces(const Blas& blas, int64_t depth, int64_t m, int64_t n, int64_t k, Acc alpha,
                        const Factor<Part>& a, const Factor<Part>& b, Acc* pieces) {
  using N = ProductTypes<Part>;
  const int64_t whole = k / depth, rest = k % depth;
  const Acc beta = 0;
  check_blas(blas.gemm_batched(blas.handle, N::operation(b), N::operation(a), int(n), int(m), int(depth), &alpha,
                               b.data, N::type, int(b.stride), b.from_row(depth).data - b.data,        //
                               a.data, N::type, int(a.stride), a.from_column(depth).data - a.data, &beta,  //
                               pieces, N::result, int(n), m * n, int(whole), N::compute, cublas::kGemmDefault),
             "cublasGemmStridedBatchedEx");
  if (rest == 0) return whole;
  multiply(blas, m, n, rest, alpha, a.from_column(whole * depth), b.from_row(whole * depth), beta,
           pieces + whole * m * n, n);
  return whole + 1;
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

// Memory for the pieces of a product.
template <typename Acc>
struct Pieces {
  Acc* data;
  int64_t capacity;
};

// Computes C [m, width] = beta C - K B, or K^T B, with the parts of K and of the rows of B from `row` on. The smallest
// products of parts come first. Returns the number of pieces, [m, width] each, that the caller must add to C: if the
// largest product is divided, its pieces are computed at the same time as far as there is memory.
template <typename P, typename Acc>
int64_t add_gradient(const Blas& blas, int64_t m, int64_t width, int64_t depth,
                     typename P::Part* const (&coefficient)[P::kParts], int64_t stride, bool transposed,
                     const SplitSide<P>& b, int64_t row, Acc beta, Acc* to, const Pieces<Acc>& pieces) {
  const int64_t limit = depth_of<P>(0, kGradientDepth, depth), count = (depth + limit - 1) / limit;
  const bool at_once = count > 1 && count * m * width <= pieces.capacity;
  for (int t = P::kParts - 1; t >= 0; --t) {
    for (int i = 0; i <= t; ++i) {
      const Factor<typename P::Part> left{coefficient[i], stride, transposed}, right = b.part(row, t - i);
      if (t == 0 && at_once) return multiply_pieces(blas, limit, m, width, depth, Acc(-1), left, right, pieces.data);
      multiply_in_pieces(blas, t == 0 ? limit : depth, m, width, depth, Acc(-1), left, right, beta, to, width);
      beta = Acc(1);
    }
  }
  return 0;
}

}  // namespace fastccsa::all_pairs::cuda

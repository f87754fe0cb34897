// Matrix products on CUDA by cuBLAS, in the precision that is asked for. No CUDA header is needed: cuBLAS is called by its
// C interface, which the tests implement too.
//
// Tensor cores multiply float32 as TF32, which keeps 11 of its 24 bits. With kTf32x3 each factor is the sum of two parts
// that TF32 holds exactly (tf32.h), and three of the four products of parts are added up: that has about the accuracy of
// float32. The precision is part of each call, so neither torch's settings nor the library's matter or change.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>
#include <type_traits>

namespace fastccsa::all_pairs::cuda {

enum class Precision { kIeee, kTf32x3, kTf32 };

// cublasGemmEx: C = alpha op(A) op(B) + beta C, column-major, C being m x n and op(A) m x k. Enumerations are ints.
using GemmEx = int (*)(void* handle, int transpose_a, int transpose_b, int m, int n, int k, const void* alpha,
                       const void* a, int a_type, int lda, const void* b, int b_type, int ldb, const void* beta, void* c,
                       int c_type, int ldc, int compute_type, int algorithm);

// Values of the enumerations in cublas_api.h and library_types.h, which never change.
constexpr int kOpN = 0, kOpT = 1;
constexpr int kCudaR32F = 0, kCudaR64F = 1;
constexpr int kCompute32F = 68, kCompute64F = 70, kCompute32FFastTf32 = 77;
constexpr int kGemmDefault = -1;

struct Blas {
  GemmEx gemm;
  void* handle;
};

// A row-major factor of a product: one matrix, or two parts that it is the sum of, the large one first.
template <typename Acc>
struct Factor {
  const Acc* part[2];  // without parts, the second is nullptr
  int64_t stride;      // from row to row
  bool transposed = false;

  Factor from_row(int64_t row) const {
    const auto moved = [&](const Acc* data) { return data == nullptr ? nullptr : data + row * stride; };
    return {{moved(part[0]), moved(part[1])}, stride, transposed};
  }
  Factor transpose() const { return {{part[0], part[1]}, stride, !transposed}; }
};

// C [m, n] = alpha A B + beta C of one part of each factor. A row-major matrix is the transpose of the column-major one
// with the same memory, so the product is computed as C^T = B^T A^T: the factors change places, and nothing is transposed
// that was not transposed before.
template <typename Acc>
void multiply(const Blas& blas, bool tf32, int64_t m, int64_t n, int64_t k, Acc alpha, const Factor<Acc>& a, int part_of_a,
              const Factor<Acc>& b, int part_of_b, Acc beta, Acc* c, int64_t stride) {
  const int type = std::is_same_v<Acc, double> ? kCudaR64F : kCudaR32F;
  const int compute = std::is_same_v<Acc, double> ? kCompute64F : tf32 ? kCompute32FFastTf32 : kCompute32F;
  const int status = blas.gemm(blas.handle, b.transposed ? kOpT : kOpN, a.transposed ? kOpT : kOpN, int(n), int(m), int(k),
                               &alpha, b.part[part_of_b], type, int(b.stride), a.part[part_of_a], type, int(a.stride),
                               &beta, c, type, int(stride), compute, kGemmDefault);
  if (status != 0) throw std::runtime_error("fastccsa: cublasGemmEx failed with status " + std::to_string(status));
}

// The same of whole factors; both have parts, or neither. The smallest products of parts are added first.
template <typename Acc>
void add_product(const Blas& blas, Precision precision, int64_t m, int64_t n, int64_t k, Acc alpha, const Factor<Acc>& a,
                 const Factor<Acc>& b, Acc beta, Acc* c, int64_t stride) {
  if (m == 0 || n == 0) return;
  const bool tf32 = precision != Precision::kIeee;
  if (a.part[1] != nullptr) {
    multiply(blas, tf32, m, n, k, alpha, a, 1, b, 0, beta, c, stride);
    multiply(blas, tf32, m, n, k, alpha, a, 0, b, 1, Acc(1), c, stride);
    beta = Acc(1);
  }
  multiply(blas, tf32, m, n, k, alpha, a, 0, b, 0, beta, c, stride);
}

}  // namespace fastccsa::all_pairs::cuda

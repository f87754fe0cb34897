// Matrix products on CUDA by cuBLAS, in the requested precision.
//
// Tensor cores multiply float32 as TF32, which keeps 11 of its 24 bits. With kTf32x3 each factor is the sum of two
// parts that TF32 holds exactly (tf32.h), and three of the four products of parts are added up, which gives about
// the accuracy of float32. The precision is an argument of each call, so torch's settings neither matter nor change.
#pragma once

#include "core/cublas.h"

#include <cstdint>
#include <stdexcept>
#include <string>
#include <type_traits>

namespace fastccsa::all_pairs::cuda {

enum class Precision { kIeee, kTf32x3, kTf32 };
constexpr const char* kPrecisions[] = {"ieee", "tf32x3", "tf32"};  // their names, in the same order

// A row-major factor of a product: one matrix, or two parts whose sum it is, the large one first.
template <typename Acc>
struct Factor {
  const Acc* part[2];  // for a single matrix, the second is nullptr
  int64_t stride;      // from row to row
  bool transposed = false;

  Factor from_row(int64_t row) const {
    const auto moved = [&](const Acc* data) { return data == nullptr ? nullptr : data + row * stride; };
    return {{moved(part[0]), moved(part[1])}, stride, transposed};
  }
  Factor transpose() const { return {{part[0], part[1]}, stride, !transposed}; }
};

// Computes C [m, n] = alpha A B + beta C with one part of each factor. A row-major matrix is the transpose of the
// column-major one in the same memory, so the product is computed as C^T = B^T A^T: the factors change places, and
// their `transposed` flags stay as they are.
template <typename Acc>
void multiply(const Blas& blas, bool tf32, int64_t m, int64_t n, int64_t k, Acc alpha, const Factor<Acc>& a,
              int part_of_a, const Factor<Acc>& b, int part_of_b, Acc beta, Acc* c, int64_t stride) {
  constexpr bool kDouble = std::is_same_v<Acc, double>;
  const int type = kDouble ? cublas::kR64F : cublas::kR32F;
  const int compute = kDouble ? cublas::kCompute64F : tf32 ? cublas::kCompute32FFastTf32 : cublas::kCompute32F;
  const auto operation = [](const Factor<Acc>& factor) { return factor.transposed ? cublas::kOpT : cublas::kOpN; };
  const int status = blas.gemm(blas.handle, operation(b), operation(a), int(n), int(m), int(k),  //
                               &alpha, b.part[part_of_b], type, int(b.stride),                   //
                               a.part[part_of_a], type, int(a.stride),                           //
                               &beta, c, type, int(stride), compute, cublas::kGemmDefault);
  if (status != 0) throw std::runtime_error("fastccsa: cublasGemmEx failed with status " + std::to_string(status));
}

// Computes C [m, n] = alpha A B + beta C with whole factors. Either both factors have two parts, or neither. The
// smallest products of parts are added first.
template <typename Acc>
void add_product(const Blas& blas, Precision precision, int64_t m, int64_t n, int64_t k, Acc alpha,
                 const Factor<Acc>& a, const Factor<Acc>& b, Acc beta, Acc* c, int64_t stride) {
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

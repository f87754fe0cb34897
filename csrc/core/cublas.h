// The part of cuBLAS's C interface that the ops call. Its headers are not used, because a build may not have them.
#pragma once

namespace fastccsa {

// cublasGemmEx: C = alpha op(A) op(B) + beta C, column-major, where C is m x n and op(A) m x k. Enumerations are ints.
using GemmEx = int (*)(void* handle, int transpose_a, int transpose_b, int m, int n, int k, const void* alpha,
                       const void* a, int a_type, int lda, const void* b, int b_type, int ldb, const void* beta,
                       void* c, int c_type, int ldc, int compute_type, int algorithm);

// cublasGemmStridedBatchedEx: several such products, whose matrices lie at equal distances, in elements.
using GemmStridedBatchedEx = int (*)(void* handle, int transpose_a, int transpose_b, int m, int n, int k,
                                     const void* alpha, const void* a, int a_type, int lda, long long a_distance,
                                     const void* b, int b_type, int ldb, long long b_distance, const void* beta,
                                     void* c, int c_type, int ldc, long long c_distance, int count, int compute_type,
                                     int algorithm);

// Values of enumerations in cublas_api.h and library_types.h. They are part of the binary interface and never change.
namespace cublas {
constexpr int kOpN = 0, kOpT = 1;
constexpr int kR32F = 0, kR64F = 1, kR16BF = 14;
constexpr int kCompute32F = 68, kCompute64F = 70, kCompute32FFastTf32 = 77;
constexpr int kGemmDefault = -1;
constexpr int kDefaultMath = 0;
}  // namespace cublas

struct Blas {
  GemmEx gemm;
  GemmStridedBatchedEx gemm_batched;
  void* handle;
};

}  // namespace fastccsa

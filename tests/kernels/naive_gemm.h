// Replaces cublasGemmEx: it takes the same arguments, checks them as cuBLAS does, and runs a plain loop. With the
// compute type of TF32 it multiplies what tensor cores read of a float32: its first 11 significant bits, without
// rounding.
#pragma once

#include "core/cublas.h"

#include <algorithm>
#include <cstdint>
#include <cstring>

namespace fastccsa::all_pairs::testing {

constexpr int kInvalidValue = 7, kNotSupported = 15;  // values of cublasStatus_t

inline float truncated_to_tf32(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  bits &= ~0x1fffu;
  std::memcpy(&x, &bits, sizeof bits);
  return x;
}

template <typename Read, typename T>
void naive_gemm(bool transpose_a, bool transpose_b, int64_t m, int64_t n, int64_t k, T alpha, const T* a, int64_t lda,
                const T* b, int64_t ldb, T beta, T* c, int64_t ldc, Read read) {
  for (int64_t j = 0; j < n; ++j) {
    for (int64_t i = 0; i < m; ++i) {
      double sum = 0;
      for (int64_t l = 0; l < k; ++l) {
        const T left = transpose_a ? a[l + i * lda] : a[i + l * lda];
        const T right = transpose_b ? b[j + l * ldb] : b[l + j * ldb];
        sum += double(read(left)) * double(read(right));
      }
      T& to = c[i + j * ldc];
      to = T(double(alpha) * sum + (beta == 0 ? 0.0 : double(beta) * double(to)));
    }
  }
}

inline int naive_gemm_ex(void*, int transpose_a, int transpose_b, int m, int n, int k, const void* alpha, const void* a,
                         int a_type, int lda, const void* b, int b_type, int ldb, const void* beta, void* c, int c_type,
                         int ldc, int compute_type, int algorithm) {
  const bool ta = transpose_a == cublas::kOpT, tb = transpose_b == cublas::kOpT;
  if (m < 0 || n < 0 || k < 0) return kInvalidValue;
  if (lda < std::max(1, ta ? k : m) || ldb < std::max(1, tb ? n : k) || ldc < std::max(1, m)) return kInvalidValue;
  const int type = compute_type == cublas::kCompute64F ? cublas::kR64F : cublas::kR32F;
  if (a_type != type || b_type != type || c_type != type || algorithm != cublas::kGemmDefault) return kNotSupported;
  const auto call = [&](auto t, auto read) {
    using T = decltype(t);
    naive_gemm(ta, tb, m, n, k, *static_cast<const T*>(alpha), static_cast<const T*>(a), lda, static_cast<const T*>(b),
               ldb, *static_cast<const T*>(beta), static_cast<T*>(c), ldc, read);
  };
  switch (compute_type) {
    case cublas::kCompute64F: call(double(), [](double x) { return x; }); return 0;
    case cublas::kCompute32F: call(float(), [](float x) { return x; }); return 0;
    case cublas::kCompute32FFastTf32: call(float(), &truncated_to_tf32); return 0;
    default: return kNotSupported;
  }
}

}  // namespace fastccsa::all_pairs::testing

// Replaces cublasGemmEx: it takes the same arguments, checks them as cuBLAS does, and computes as tensor cores do.
//
// They read the first 11 significant bits of a float32 as TF32, without rounding. Products are exact. Each step adds the
// products of a few columns to the sum at once, and cuts the result off to float32 instead of rounding it.
#pragma once

#include "core/cublas.h"
#include "core/half.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>

namespace fastccsa::all_pairs::testing {

constexpr int kInvalidValue = 7, kNotSupported = 15;  // values of cublasStatus_t
constexpr int64_t kTf32Step = 8, kBfloat16Step = 16;  // columns that one instruction multiplies

inline float truncated_to_tf32(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  bits &= ~0x1fffu;
  std::memcpy(&x, &bits, sizeof x);
  return x;
}

inline double read(double x, double) { return x; }
inline double read(float x, float) { return double(truncated_to_tf32(x)); }
inline double read(bfloat16 x, float) { return double(to_float(x)); }

// Cuts off what a float32 cannot hold, towards zero.
inline double cut_off(double x, double) { return x; }
inline double cut_off(double x, float) {
  const float rounded = float(x);
  return std::fabs(double(rounded)) > std::fabs(x) ? double(std::nextafter(rounded, 0.0f)) : double(rounded);
}

template <typename In, typename Out>
void naive_gemm(bool transpose_a, bool transpose_b, int64_t m, int64_t n, int64_t k, Out alpha, const In* a,
                int64_t lda, const In* b, int64_t ldb, Out beta, Out* c, int64_t ldc, int64_t step) {
  for (int64_t j = 0; j < n; ++j) {
    for (int64_t i = 0; i < m; ++i) {
      double sum = 0;
      for (int64_t l = 0; l < k; ++l) {
        const In left = transpose_a ? a[l + i * lda] : a[i + l * lda];
        const In right = transpose_b ? b[j + l * ldb] : b[l + j * ldb];
        sum += read(left, Out()) * read(right, Out());
        if (l % step == step - 1 || l == k - 1) sum = cut_off(sum, Out());
      }
      Out& to = c[i + j * ldc];
      to = Out(double(alpha) * sum + (beta == 0 ? 0.0 : double(beta) * double(to)));
    }
  }
}

inline int naive_gemm_ex(void*, int transpose_a, int transpose_b, int m, int n, int k, const void* alpha, const void* a,
                         int a_type, int lda, const void* b, int b_type, int ldb, const void* beta, void* c, int c_type,
                         int ldc, int compute_type, int algorithm) {
  const bool ta = transpose_a == cublas::kOpT, tb = transpose_b == cublas::kOpT;
  if (m < 0 || n < 0 || k < 0) return kInvalidValue;
  if (lda < std::max(1, ta ? k : m) || ldb < std::max(1, tb ? n : k) || ldc < std::max(1, m)) return kInvalidValue;
  if (a_type != b_type || algorithm != cublas::kGemmDefault) return kNotSupported;
  const auto call = [&](auto in, auto out, int64_t step) {
    using In = decltype(in);
    using Out = decltype(out);
    naive_gemm(ta, tb, m, n, k, *static_cast<const Out*>(alpha), static_cast<const In*>(a), lda,
               static_cast<const In*>(b), ldb, *static_cast<const Out*>(beta), static_cast<Out*>(c), ldc, step);
    return 0;
  };
  const auto is = [&](int type, int result, int compute) {
    return a_type == type && c_type == result && compute_type == compute;
  };
  if (is(cublas::kR64F, cublas::kR64F, cublas::kCompute64F)) return call(double(), double(), 1);
  if (is(cublas::kR32F, cublas::kR32F, cublas::kCompute32FFastTf32)) return call(float(), float(), kTf32Step);
  if (is(cublas::kR16BF, cublas::kR32F, cublas::kCompute32F)) return call(bfloat16(), float(), kBfloat16Step);
  return kNotSupported;
}

inline int naive_gemm_batched(void* handle, int transpose_a, int transpose_b, int m, int n, int k, const void* alpha,
                              const void* a, int a_type, int lda, long long a_distance, const void* b, int b_type,
                              int ldb, long long b_distance, const void* beta, void* c, int c_type, int ldc,
                              long long c_distance, int count, int compute_type, int algorithm) {
  const auto bytes = [](int type) { return type == cublas::kR64F ? 8 : type == cublas::kR32F ? 4 : 2; };
  for (int i = 0; i < count; ++i) {
    const int status = naive_gemm_ex(
        handle, transpose_a, transpose_b, m, n, k, alpha, static_cast<const char*>(a) + i * a_distance * bytes(a_type),
        a_type, lda, static_cast<const char*>(b) + i * b_distance * bytes(b_type), b_type, ldb, beta,
        static_cast<char*>(c) + i * c_distance * bytes(c_type), c_type, ldc, compute_type, algorithm);
    if (status != 0) return status;
  }
  return 0;
}

}  // namespace fastccsa::all_pairs::testing

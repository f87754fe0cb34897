// Vectors of the instruction set that a file is compiled for. They are the compiler's own vector types: arithmetic,
// comparison and ?: work on them as on numbers. bfloat16 and half are loaded into vectors of float.
//
// The maskz forms of intrinsics with a full mask compile to the plain instructions, without a false warning of g++ 12.
//
// Files that include this one are compiled once for each instruction set, with its name in FASTCCSA_ISA. A namespace of
// that name holds what differs between them.
#pragma once

#include "core/half.h"
#include "core/lanes.h"

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>

namespace fastccsa::FASTCCSA_ISA {

#if defined(__AVX512F__)
constexpr int kVectorBytes = 64;
#elif defined(__AVX2__)
constexpr int kVectorBytes = 32;
#else
constexpr int kVectorBytes = 16;
#endif

template <typename Acc>
struct Simd {
  typedef Acc Vector __attribute__((vector_size(kVectorBytes)));
  static constexpr int kLanes = kVectorBytes / int(sizeof(Acc));
};
template <typename Acc>
using vector_t = typename Simd<Acc>::Vector;
// The result of comparing two vectors: integers as wide as their lanes, -1 for true and 0 for false.
template <typename Acc>
using mask_t = decltype(vector_t<Acc>{} < vector_t<Acc>{});
using FloatVector = vector_t<float>;
using DoubleVector = vector_t<double>;
using BitsVector = vector_t<uint32_t>;
constexpr int kFloats = Simd<float>::kLanes;

// ---- scalars ----

inline float load(float x) { return x; }
inline double load(double x) { return x; }
inline float load(bfloat16 x) { return to_float(x); }
inline float load(half x) { return to_float(x); }

inline void store(float& to, float x) { to = x; }
inline void store(double& to, double x) { to = x; }
inline void store(bfloat16& to, float x) { to = to_bfloat16(x); }
inline void store(half& to, float x) { to = to_half(x); }

// ---- whole vectors, loaded from and stored to any address ----

inline FloatVector load_vector(const float* from) {
  FloatVector v;
  std::memcpy(&v, from, sizeof v);
  return v;
}
inline DoubleVector load_vector(const double* from) {
  DoubleVector v;
  std::memcpy(&v, from, sizeof v);
  return v;
}
inline FloatVector load_vector(const bfloat16* from) {
  typedef uint16_t Shorts __attribute__((vector_size(kVectorBytes / 2)));
  Shorts bits;
  std::memcpy(&bits, from, sizeof bits);
  return FloatVector(__builtin_convertvector(bits, BitsVector) << 16);
}
inline FloatVector load_vector(const half* from) {
#if defined(__AVX512F__)
  return FloatVector(_mm512_maskz_cvtph_ps(0xffff, _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from))));
#elif defined(__F16C__)
  return FloatVector(_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from))));
#else
  FloatVector v;
  for (int lane = 0; lane < kFloats; ++lane) v[lane] = to_float(from[lane]);
  return v;
#endif
}

// Loads the values of two vectors, in an order that depends only on the type: for sums, where any fixed order is fine.
template <typename T, typename Vector>
inline void load_two(const T* from, Vector& first, Vector& second) {
  first = load_vector(from);
  second = load_vector(from + sizeof(Vector) / sizeof(first[0]));
}
// Two neighbouring values are the halves of one 32-bit lane, so that no value has to move to another lane.
inline void load_two(const bfloat16* from, FloatVector& first, FloatVector& second) {
  BitsVector bits;
  std::memcpy(&bits, from, sizeof bits);
  first = FloatVector(bits << 16);
  second = FloatVector(bits & 0xffff0000u);
}

// Loads every `stride`-th value.
template <typename T>
inline auto load_vector(const T* from, int64_t stride) {
  if (stride == 1) return load_vector(from);
  decltype(load_vector(from)) v;
  for (int64_t lane = 0; lane < int64_t(sizeof v / sizeof v[0]); ++lane) v[lane] = load(from[lane * stride]);
  return v;
}

inline void store_vector(float* to, FloatVector v) { std::memcpy(to, &v, sizeof v); }
inline void store_vector(double* to, DoubleVector v) { std::memcpy(to, &v, sizeof v); }
inline void store_vector(bfloat16* to, FloatVector v) {
  typedef uint16_t Shorts __attribute__((vector_size(kVectorBytes / 2)));
  const BitsVector bits = BitsVector(v);
  const BitsVector rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  const Shorts shorts = __builtin_convertvector(v != v ? BitsVector{} + 0x7fc0u : rounded, Shorts);
  std::memcpy(to, &shorts, sizeof shorts);
}
inline void store_vector(half* to, FloatVector v) {
#if defined(__AVX512F__)
  const __m256i bits = _mm512_maskz_cvtps_ph(0xffff, __m512(v), _MM_FROUND_TO_NEAREST_INT);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), bits);
#elif defined(__F16C__)
  _mm_storeu_si128(reinterpret_cast<__m128i*>(to), _mm256_cvtps_ph(__m256(v), _MM_FROUND_TO_NEAREST_INT));
#else
  for (int lane = 0; lane < kFloats; ++lane) to[lane] = to_half(v[lane]);
#endif
}

// Stores that bypass the caches, for results that do not fit into them. They halve the traffic, because the old
// contents are not read first. Addresses must be multiples of kStreamBytes. `end_of_streams` orders these stores before
// later ones.
constexpr int kStreamBytes = kVectorBytes;
#if defined(__AVX512F__)
inline void stream_vector(float* to, FloatVector v) { _mm512_stream_ps(to, __m512(v)); }
inline void stream_vector(double* to, DoubleVector v) { _mm512_stream_pd(to, __m512d(v)); }
#elif defined(__AVX2__)
inline void stream_vector(float* to, FloatVector v) { _mm256_stream_ps(to, __m256(v)); }
inline void stream_vector(double* to, DoubleVector v) { _mm256_stream_pd(to, __m256d(v)); }
#else
inline void stream_vector(float* to, FloatVector v) { store_vector(to, v); }
inline void stream_vector(double* to, DoubleVector v) { store_vector(to, v); }
#endif
// Stores half as many bytes as a vector has: 32 with AVX-512, 16 with AVX2.
template <typename T>
inline void stream_vector(T* to, FloatVector v) {
#if defined(__AVX512F__)
  __m256i bits;
  store_vector(reinterpret_cast<T*>(&bits), v);
  _mm256_stream_si256(reinterpret_cast<__m256i*>(to), bits);
#elif defined(__AVX2__)
  __m128i bits;
  store_vector(reinterpret_cast<T*>(&bits), v);
  _mm_stream_si128(reinterpret_cast<__m128i*>(to), bits);
#else
  store_vector(to, v);
#endif
}
inline void end_of_streams() {
#if defined(__AVX2__)
  _mm_sfence();
#endif
}

// ---- the first `count` lanes: the end of a row ----

template <typename Acc>
inline vector_t<Acc> filled(Acc value) {
  return vector_t<Acc>{} + value;
}

// The other lanes hold `fill`.
template <typename Acc, typename T>
inline vector_t<Acc> load_first(const T* from, int64_t count, Acc fill) {
  Acc lanes[Simd<Acc>::kLanes];
  for (int64_t lane = 0; lane < Simd<Acc>::kLanes; ++lane) lanes[lane] = lane < count ? load(from[lane]) : fill;
  return load_vector(lanes);
}
#if defined(__AVX512F__)
inline __mmask16 first_lanes(int64_t count) { return __mmask16((1u << count) - 1); }
template <>
inline FloatVector load_first<float, float>(const float* from, int64_t count, float fill) {
  return FloatVector(_mm512_mask_loadu_ps(__m512(filled(fill)), first_lanes(count), from));
}
template <>
inline FloatVector load_first<float, bfloat16>(const bfloat16* from, int64_t count, float fill) {
  const __m256i bits = _mm256_maskz_loadu_epi16(first_lanes(count), from);
  const __m512i shifted = _mm512_maskz_slli_epi32(0xffff, _mm512_maskz_cvtepu16_epi32(0xffff, bits), 16);
  return FloatVector(_mm512_mask_mov_ps(__m512(filled(fill)), first_lanes(count), _mm512_castsi512_ps(shifted)));
}
template <>
inline FloatVector load_first<float, half>(const half* from, int64_t count, float fill) {
  const __m256i bits = _mm256_maskz_loadu_epi16(first_lanes(count), from);
  return FloatVector(_mm512_mask_cvtph_ps(__m512(filled(fill)), first_lanes(count), bits));
}
#endif

template <typename Acc, typename T>
inline void store_first(T* to, vector_t<Acc> v, int64_t count) {
  for (int64_t lane = 0; lane < count; ++lane) store(to[lane], Acc(v[lane]));
}
#if defined(__AVX512F__)
template <>
inline void store_first<float, float>(float* to, FloatVector v, int64_t count) {
  _mm512_mask_storeu_ps(to, first_lanes(count), __m512(v));
}
// Converts the whole vector to bfloat16 or half, and stores a part of it.
template <typename T>
inline void store_first_shorts(T* to, FloatVector v, int64_t count) {
  __m256i bits;
  store_vector(reinterpret_cast<T*>(&bits), v);
  _mm256_mask_storeu_epi16(to, first_lanes(count), bits);
}
template <>
inline void store_first<float, bfloat16>(bfloat16* to, FloatVector v, int64_t count) {
  store_first_shorts(to, v, count);
}
template <>
inline void store_first<float, half>(half* to, FloatVector v, int64_t count) {
  store_first_shorts(to, v, count);
}
#endif

// ---- functions ----

template <typename Acc>
inline vector_t<Acc> larger(vector_t<Acc> a, vector_t<Acc> b) {
  return a > b ? a : b;
}

// Combines lanes by halves, so that the error of a sum grows with the logarithm of their number.
template <typename Acc, int kBytes, typename Combine>
inline Acc across(const Acc* lanes, Combine combine) {
  if constexpr (kBytes == int(sizeof(Acc))) {
    return *lanes;
  } else {
    typedef Acc Half __attribute__((vector_size(kBytes / 2)));
    Half low, high;
    std::memcpy(&low, lanes, sizeof low);
    std::memcpy(&high, lanes + kBytes / 2 / int(sizeof(Acc)), sizeof high);
    const Half combined = combine(low, high);
    Acc rest[kBytes / 2 / sizeof(Acc)];
    std::memcpy(rest, &combined, sizeof combined);
    return across<Acc, kBytes / 2>(rest, combine);
  }
}
template <typename Acc>
inline Acc sum_of(vector_t<Acc> v) {
  Acc lanes[Simd<Acc>::kLanes];
  std::memcpy(lanes, &v, sizeof v);
  return across<Acc, kVectorBytes>(lanes, [](auto a, auto b) { return a + b; });
}
template <typename Acc>
inline Acc largest_of(vector_t<Acc> v) {
  Acc lanes[Simd<Acc>::kLanes];
  std::memcpy(lanes, &v, sizeof v);
  return across<Acc, kVectorBytes>(lanes, [](auto a, auto b) { return a > b ? a : b; });
}

// exp(x) for x <= 0 or NaN, within 2 units in the last place: x = n ln 2 + r and exp(x) = 2^n exp(r), with a minimax
// polynomial for exp(r). Results below the smallest normal number may be 0.
inline FloatVector exp_nonpositive(FloatVector x) {
  constexpr float kLog2e = 1.44269504f, kLn2High = 0.693359375f, kLn2Low = -2.12194440e-4f;
  constexpr float kRound = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer, left in the low bits
  constexpr float kSeries[] = {8.36872394e-3f, 4.16683887e-2f, 0.166665206f, 0.499999934f, 1.0f, 1.0f};
#if defined(__AVX512F__)
  const FloatVector clamped = FloatVector(_mm512_maskz_max_ps(0xffff, __m512(filled(-1000.0f)), __m512(x)));
#else
  const FloatVector clamped = x < -87.0f ? filled(-87.0f) : x;
#endif
  const FloatVector shifted = clamped * kLog2e + kRound;
  const FloatVector n = shifted - kRound;
  const FloatVector r = (clamped - n * kLn2High) - n * kLn2Low;
  FloatVector series = filled(1.38145839e-3f);
  for (const float coefficient : kSeries) series = series * r + coefficient;
#if defined(__AVX512F__)
  return FloatVector(_mm512_maskz_scalef_ps(0xffff, __m512(series), __m512(n)));
#else
  const FloatVector power = FloatVector((BitsVector(shifted) << 23) + 0x3f800000u);
  return x < -87.0f ? FloatVector{} : series * power;
#endif
}
inline DoubleVector exp_nonpositive(DoubleVector x) {
  for (int lane = 0; lane < Simd<double>::kLanes; ++lane) x[lane] = std::exp(x[lane]);
  return x;
}

// log(x) for normal x > 0, infinity or NaN, within 2 units in the last place, even if the result is near 0.
// x = 2^n (1 + f) with 1 + f between sqrt(1/2) and sqrt(2); with s = f / (2 + f),
//
//   log(1 + f) = 2 atanh(s) = f - f^2/2 + s (f^2/2 + R),   R = 2/3 s^2 + 2/5 s^4 + ...
inline FloatVector log_positive(FloatVector x) {
  constexpr float kLn2High = 0.693359375f, kLn2Low = -2.12194440e-4f;
  constexpr float kSeries[] = {2.0f / 7, 2.0f / 5, 2.0f / 3};
  constexpr uint32_t kSqrtHalf = 0x3f3504f3u;  // the bits of sqrt(1/2)
  const BitsVector bits = BitsVector(x) - kSqrtHalf;
  typedef int32_t Integers __attribute__((vector_size(kVectorBytes)));
  const Integers exponent = Integers(bits) >> 23;
  const FloatVector n = __builtin_convertvector(exponent, FloatVector);
  const FloatVector f = FloatVector((bits & 0x7fffffu) + kSqrtHalf) - 1.0f;
  const FloatVector s = f / (2.0f + f), s2 = s * s, half_square = 0.5f * f * f;
  FloatVector series = filled(2.0f / 9);
  for (const float coefficient : kSeries) series = series * s2 + coefficient;
  const FloatVector tail = s * (half_square + s2 * series) + n * kLn2Low;
  const FloatVector result = n * kLn2High - ((half_square - tail) - f);
  return x < filled(std::numeric_limits<float>::infinity()) ? result : x;
}
inline DoubleVector log_positive(DoubleVector x) {
  for (int lane = 0; lane < Simd<double>::kLanes; ++lane) x[lane] = std::log(x[lane]);
  return x;
}

// ---- vectors as the `Value` of mathematics that is written once: see core/lanes.h ----

template <typename Acc>
struct VectorLanes {
  using Scalar = Acc;

  // The compiler turns the loop into one instruction.
  static vector_t<Acc> square_root(vector_t<Acc> v) {
    Acc lanes[Simd<Acc>::kLanes];
    std::memcpy(lanes, &v, sizeof v);
    for (Acc& lane : lanes) lane = std::sqrt(lane);
    std::memcpy(&v, lanes, sizeof v);
    return v;
  }

  static constexpr bool may_skip(mask_t<Acc>) { return false; }
};

}  // namespace fastccsa::FASTCCSA_ISA

namespace fastccsa {

template <>
struct Lanes<FASTCCSA_ISA::FloatVector> : FASTCCSA_ISA::VectorLanes<float> {};
template <>
struct Lanes<FASTCCSA_ISA::DoubleVector> : FASTCCSA_ISA::VectorLanes<double> {};

}  // namespace fastccsa

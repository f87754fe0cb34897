// The inverse DCT of a block: either all 64 pixels, bit for bit as in libjpeg's accurate integer transform, or means of
// 2, 4 or 8 pixels along an axis, computed directly from the coefficients.
#pragma once

#include "jpeg/scan.h"

#include <cmath>
#include <cstdint>
#include <cstring>

namespace fastccsa::jpeg {

constexpr int kSide = 8;  // side of a block

// The sum of magnitudes that the coefficients of a block may have. After the first pass of the transform, a number is at
// most 4 * sqrt(2) times the sum of its column, and libjpeg-turbo adds two of them in 16 bits: more could wrap around
// there, so the pixels would differ. Photographs have about a tenth. Nothing below overflows within this limit.
constexpr int kMaxSum = 5792;

// Vectors of eight numbers: one per column of a block.
typedef int32_t Ints __attribute__((vector_size(32)));
typedef float Floats __attribute__((vector_size(32)));
typedef int16_t Shorts __attribute__((vector_size(16)));
typedef uint8_t Bytes __attribute__((vector_size(8)));

// Picks eight numbers of two vectors by their positions: 0 to 7 in `a`, 8 to 15 in `b`.
#ifdef __clang__
#define FASTCCSA_PICK(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define FASTCCSA_PICK(a, b, ...) __builtin_shuffle(a, b, Ints{__VA_ARGS__})
#endif

FASTCCSA_INLINE uint8_t to_byte(int value) { return uint8_t(value < 0 ? 0 : value > 255 ? 255 : value); }

FASTCCSA_INLINE Ints clamped(Ints values) {
  values = values < 0 ? 0 : values;
  return values > 255 ? 255 : values;
}

FASTCCSA_INLINE Bytes to_bytes(Ints values) { return __builtin_convertvector(clamped(values), Bytes); }

// ---- all pixels ----
//
// Loeffler, Ligtenberg and Moschytz: Practical fast 1-D DCT algorithms with 11 multiplications, ICASSP 1989. In fixed
// point, and rounded where libjpeg rounds, so the results are the same.

constexpr int kPrecision = 13;  // fractional bits of the constants
constexpr int kGuard = 2;       // fractional bits between the two passes

constexpr int fixed(double x) { return int(x * (1 << kPrecision) + 0.5); }

// Transforms the eight columns of `x` in place; the results are shifted right by `shift` with rounding.
FASTCCSA_INLINE void inverse_columns(Ints* x, int shift) {
  // Even part: a rotation by 3 pi / 8, and a butterfly.
  const Ints rotated = (x[2] + x[6]) * fixed(0.541196100);
  const Ints low = rotated - x[6] * fixed(1.847759065), high = rotated + x[2] * fixed(0.765366865);
  const Ints sum = (x[0] + x[4]) * (1 << kPrecision), difference = (x[0] - x[4]) * (1 << kPrecision);
  const Ints even[4] = {sum + high, difference + low, difference - low, sum - high};
  // Odd part.
  const Ints far = x[7] + x[1], near = x[5] + x[3], a = x[7] + x[3], b = x[5] + x[1];
  const Ints both = (a + b) * fixed(1.175875602);
  const Ints far_part = far * -fixed(0.899976223), near_part = near * -fixed(2.562915447);
  const Ints a_part = both - a * fixed(1.961570560), b_part = both - b * fixed(0.390180644);
  const Ints odd[4] = {
      x[1] * fixed(1.501321110) + far_part + b_part,
      x[3] * fixed(3.072711026) + near_part + a_part,
      x[5] * fixed(2.053119869) + near_part + b_part,
      x[7] * fixed(0.298631336) + far_part + a_part,
  };
  const int half = 1 << (shift - 1);
  for (int k = 0; k < 4; ++k) {
    x[k] = (even[k] + odd[k] + half) >> shift;
    x[7 - k] = (even[k] - odd[k] + half) >> shift;
  }
}

FASTCCSA_INLINE void transpose(Ints* x) {
  Ints pairs[kSide], fours[kSide];
  for (int i = 0; i < kSide; i += 2) {
    pairs[i] = FASTCCSA_PICK(x[i], x[i + 1], 0, 8, 1, 9, 4, 12, 5, 13);
    pairs[i + 1] = FASTCCSA_PICK(x[i], x[i + 1], 2, 10, 3, 11, 6, 14, 7, 15);
  }
  for (int i = 0; i < kSide; i += 4) {
    for (int half = 0; half < 2; ++half) {
      fours[i + 2 * half] = FASTCCSA_PICK(pairs[i + half], pairs[i + half + 2], 0, 1, 8, 9, 4, 5, 12, 13);
      fours[i + 2 * half + 1] = FASTCCSA_PICK(pairs[i + half], pairs[i + half + 2], 2, 3, 10, 11, 6, 7, 14, 15);
    }
  }
  for (int i = 0; i < 4; ++i) {
    x[i] = FASTCCSA_PICK(fours[i], fours[i + 4], 0, 1, 2, 3, 8, 9, 10, 11);
    x[i + 4] = FASTCCSA_PICK(fours[i], fours[i + 4], 4, 5, 6, 7, 12, 13, 14, 15);
  }
}

FASTCCSA_INLINE void inverse(const int16_t* block, uint8_t* to, int64_t stride) {
  Ints x[kSide];
  for (int row = 0; row < kSide; ++row) {
    Shorts shorts;
    std::memcpy(&shorts, block + kSide * row, sizeof shorts);
    x[row] = __builtin_convertvector(shorts, Ints);
  }
  inverse_columns(x, kPrecision - kGuard);
  transpose(x);
  inverse_columns(x, kPrecision + kGuard + 3);
  transpose(x);
  for (int row = 0; row < kSide; ++row) {
    const Bytes bytes = to_bytes(x[row] + 128);
    std::memcpy(to + row * stride, &bytes, sizeof bytes);
  }
}

// ---- means ----

// `at[k][n]` is the weight of coefficient k in the n-th mean of 8 / kCount pixels along an axis; 0 from n = kCount on.
template <int kCount>
struct Means {
  float at[kSide][kSide];

  Means() : at{} {
    constexpr int kPixels = kSide / kCount;
    const double pi = std::acos(-1.0);
    for (int n = 0; n < kCount; ++n) {
      for (int k = 0; k < kSide; ++k) {
        double sum = 0;
        for (int i = 0; i < kPixels; ++i) sum += std::cos((2 * (n * kPixels + i) + 1) * k * pi / (2 * kSide));
        at[k][n] = float(sum / kPixels * (k == 0 ? std::sqrt(1.0 / kSide) : std::sqrt(2.0 / kSide)));
      }
    }
  }
};

template <int kCount>
inline const Means<kCount> kMeans{};

// Computes kDown x kAcross means of a block. `rows` is a bit mask of the rows of the block that are not zero.
template <int kDown, int kAcross>
FASTCCSA_INLINE void inverse_means(const int16_t* block, int rows, uint8_t* to, int64_t stride) {
  const auto& down = kMeans<kDown>.at;
  const auto& across = kMeans<kAcross>.at;
  Floats columns[kDown] = {};
  for (int k = 0; k < kSide; ++k) {
    if ((rows >> k & 1) == 0) continue;
    Shorts shorts;
    std::memcpy(&shorts, block + kSide * k, sizeof shorts);
    const Floats row = __builtin_convertvector(shorts, Floats);
    for (int n = 0; n < kDown; ++n) columns[n] += down[k][n] * row;
  }
  for (int n = 0; n < kDown; ++n) {
    float column[kSide];
    std::memcpy(column, &columns[n], sizeof column);
    Floats sums = {};
    for (int k = 0; k < kSide; ++k) {
      Floats weights;
      std::memcpy(&weights, across[k], sizeof weights);
      sums += column[k] * weights;
    }
    const Bytes bytes = to_bytes(__builtin_convertvector(sums + (128.5f + 2048), Ints) - 2048);  // also rounds down below 0
    std::memcpy(to + n * stride, &bytes, kAcross);
  }
}

}  // namespace fastccsa::jpeg

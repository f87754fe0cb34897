// How CUDA multiplies features: in which parts, by dtype and by the precision that the caller chooses for float32.
#pragma once

#include "all_pairs/cuda/parts.h"

#include <type_traits>

namespace fastccsa::all_pairs::cuda {

// `ieee` promises errors of at most twice those of differences in float32.
enum class Precision { kIeee, kBf16x3, kTf32 };
constexpr const char* kPrecisions[] = {"ieee", "bf16x3", "tf32"};  // their names, in the same order

// Whether rows are centred before they are multiplied. Features of 16 bits are not: tensor cores multiply them exactly
// as they are.
template <typename T>
constexpr bool kCentred = sizeof(T) >= 4;

// Calls use(parts) with the parts for features of type T. The precision matters only for float32.
template <typename T, typename Use>
void with_parts(Precision precision, Use use) {
  if constexpr (std::is_same_v<T, double>) {
    use(Float64());
  } else if constexpr (std::is_same_v<T, bfloat16>) {
    use(Bfloat16());
  } else if constexpr (std::is_same_v<T, half>) {
    use(Bf16x3());
  } else {
    switch (precision) {
      case Precision::kIeee: return use(Bf16x6());
      case Precision::kBf16x3: return use(Bf16x3());
      case Precision::kTf32: return use(Tf32());
    }
  }
}

}  // namespace fastccsa::all_pairs::cuda

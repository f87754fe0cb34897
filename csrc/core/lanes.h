// What mathematics that is written once needs to know about its values: numbers, or vectors with one number per lane.
//
// Arithmetic and comparisons are the compiler's own for both. A comparison gives a mask: a bool, or a vector of integers.
// Masks combine by & and |, and `mask ? a : b` selects.
#pragma once

#include "core/macros.h"

#include <cmath>

namespace fastccsa {

// A number: a vector of one lane. core/simd.h has the vectors.
template <typename Value>
struct Lanes {
  using Scalar = Value;

  static FASTCCSA_HOST_DEVICE Value square_root(Value x) { return std::sqrt(x); }

  // Whether to skip what only the lanes outside `mask` need. Numbers skip it; the lanes of a vector rarely agree, so
  // that vectors compute it without looking at the mask.
  static FASTCCSA_HOST_DEVICE bool may_skip(bool mask) { return mask; }
};

}  // namespace fastccsa

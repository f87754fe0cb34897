// What code needs that is written once for numbers and for vectors with one number per lane.
//
// The compiler provides arithmetic and comparisons for both. A comparison gives a mask: a bool, or a vector of
// integers. The operators !, & and | combine masks, and `mask ? a : b` selects.
#pragma once

#include "core/macros.h"

#include <cmath>

namespace fastccsa {

// For a number, which is a vector of one lane; core/simd.h specialises it for vectors.
template <typename Value>
struct Lanes {
  using Scalar = Value;

  static FASTCCSA_HOST_DEVICE Value square_root(Value x) { return std::sqrt(x); }

  // Whether to skip a computation whose result counts only where `mask` is false. Always false for vectors, whose lanes
  // rarely agree.
  static FASTCCSA_HOST_DEVICE bool may_skip(bool mask) { return mask; }
};

}  // namespace fastccsa

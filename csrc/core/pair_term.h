// The mathematics of one pair, which all kernels share.
//
// A pair has features z1, z2 in R^D, labels y1, y2 and the weight W = W[y1,y2]. With d = |z1 - z2| and the margin m,
//
//   alignment     W * d^2                where y1 == y2    paper, equations (5) and (8)
//   separation    W * max(0, m - d)^2    where y1 != y2    equations (6) and (8)
//
// A `Value` is a number, or a vector with one pair per lane: see core/lanes.h.
#pragma once

#include "core/lanes.h"

namespace fastccsa {

// The gradient of a term with respect to z1 is coefficient * (z1 - z2); with respect to z2, its negative.
template <typename Value>
struct Term {
  Value value;
  Value coefficient;
};

template <typename Value>
FASTCCSA_HOST_DEVICE Term<Value> alignment_term(Value squared_distance, Value weight) {
  using Scalar = typename Lanes<Value>::Scalar;
  return {weight * squared_distance, Scalar(2) * weight};
}

// At d = 0 the gradient has no direction: it is 0.
template <typename Value>
FASTCCSA_HOST_DEVICE Term<Value> separation_term(Value squared_distance, Value weight,
                                                 typename Lanes<Value>::Scalar margin) {
  using Scalar = typename Lanes<Value>::Scalar;
  const Value zero{}, distance = Lanes<Value>::square_root(squared_distance), difference = margin - distance;
  const auto within = !(difference <= zero);  // true for NaN, which must reach the loss
  if (Lanes<Value>::may_skip(!within)) return {zero, zero};
  const Value gap = within ? difference : zero, pull = weight * gap;
  return {pull * gap, (within & (distance != zero)) ? Scalar(-2) * pull / distance : zero};
}

// Both terms of a pair, of which one is 0, and the coefficient of the other one.
template <typename Value>
struct PairTerm {
  Value alignment;
  Value separation;
  Value coefficient;
};

template <typename Value, typename Mask>
FASTCCSA_HOST_DEVICE PairTerm<Value> pair_term(Value squared_distance, Mask same_class, Value weight,
                                               typename Lanes<Value>::Scalar margin) {
  const Value zero{};
  const Term<Value> alignment = alignment_term(squared_distance, weight);
  if (Lanes<Value>::may_skip(same_class)) return {alignment.value, zero, alignment.coefficient};
  const Term<Value> separation = separation_term(squared_distance, weight, margin);
  return {same_class ? alignment.value : zero, same_class ? zero : separation.value,
          same_class ? alignment.coefficient : separation.coefficient};
}

}  // namespace fastccsa

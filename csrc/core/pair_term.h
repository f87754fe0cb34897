// The mathematics of one pair: from its squared distance to its terms and the coefficient of its gradients.
#pragma once

#include "core/macros.h"

#include <cmath>

namespace fastccsa {

template <typename Acc>
struct PairTerm {
  Acc alignment;
  Acc separation;
  Acc coefficient;  // gradient of the term with respect to z1 is coefficient * (z1 - z2); to z2, its negative
};

// d^2 is `squared_distance`. At d = 0 the separation term has no direction to push in: its gradient is 0.
template <typename Acc>
FASTCCSA_HOST_DEVICE PairTerm<Acc> pair_term(Acc squared_distance, bool same_class, Acc weight, Acc margin) {
  if (same_class) return {weight * squared_distance, Acc(0), Acc(2) * weight};
  const Acc distance = std::sqrt(squared_distance);
  const Acc gap = margin - distance;
  // Written so that a NaN distance is not taken for one beyond the margin.
  if (gap <= Acc(0)) return {Acc(0), Acc(0), Acc(0)};
  const Acc pull = distance == Acc(0) ? Acc(0) : Acc(-2) * weight * gap / distance;
  return {Acc(0), weight * gap * gap, pull};
}

}  // namespace fastccsa

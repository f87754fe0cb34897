// The type in which sums over values of another type are kept.
#pragma once

namespace fastccsa {

template <typename T>
struct AccOf {
  using type = float;
};
template <>
struct AccOf<double> {
  using type = double;
};

// double for double, float for all others. The loss, its terms, the weights and the saved values have this type too.
template <typename T>
using acc_t = typename AccOf<T>::type;

}  // namespace fastccsa

// The type of sums over values of another type.
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

// double for double, and float for all other types. The loss, its terms, the weights and the saved values have this
// type too.
template <typename T>
using acc_t = typename AccOf<T>::type;

}  // namespace fastccsa

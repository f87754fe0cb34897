// Replaces CUDA's header of this name.
#pragma once

#include <limits>

constexpr double CUDART_INF = std::numeric_limits<double>::infinity();
constexpr double CUDART_NAN = std::numeric_limits<double>::quiet_NaN();

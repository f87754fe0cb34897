// A random permutation of [0, size), a pure function of (size, seed, epoch).
//
// It is computed element by element, not stored. A position is a cell (left, right) of a grid of rows x columns
// that just covers [0, size). A Feistel network permutes the cells: each round adds to one coordinate a random
// function of the other. A cell outside [0, size) is permuted again until it lies inside (cycle walking: Black and
// Rogaway, "Ciphers with arbitrary finite domains", 2002). The grid exceeds size by less than a row and a column, so
// this is rare.
//
// On a grid of a few cells the network would need very many rounds to reach every permutation equally often. For small
// sizes, a Fisher-Yates shuffle into a table is exact and equally cheap.

#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <numeric>
#include <utility>

#include "sampler/draws.h"

namespace fastccsa::sampler {

class Permutation {
 public:
  // Coordinates stay below 2^24, which `bounded` relies on.
  static constexpr std::uint64_t kMaxSize = std::uint64_t{1} << 46;

  Permutation(std::uint64_t size, std::uint64_t seed, std::uint32_t epoch) : size_(size) {
    const Draws draws(seed, kPermutationStream, epoch);
    if (size <= kTableSize) {
      shuffle_table(draws);
    } else {
      choose_grid();
      for (int pair = 0; pair < kRounds / 2; ++pair) {
        const auto words = draws.block(static_cast<std::uint64_t>(pair), 0);
        keys_[2 * pair] = words[0];
        keys_[2 * pair + 1] = words[1];
      }
    }
  }

  // Writes the elements [begin, end).
  void elements(std::uint64_t begin, std::uint64_t end, std::int64_t* out) const {
    if (size_ <= kTableSize) {
      std::copy(table_.begin() + static_cast<std::ptrdiff_t>(begin), table_.begin() + static_cast<std::ptrdiff_t>(end),
                out);
      return;
    }
    // The rounds of one element are a chain of multiplications, each of which waits for the one before it. A core has
    // time for other elements meanwhile.
    constexpr int kAtOnce = 8;
    for (; end - begin >= kAtOnce; begin += kAtOnce, out += kAtOnce) compute<kAtOnce>(begin, out);
    for (; begin < end; ++begin, ++out) compute<1>(begin, out);
  }

 private:
  static constexpr std::uint64_t kTableSize = 64;
  // After two rounds, any two positions are mapped as by a random permutation up to an error of 1 / size, and each
  // further pair of rounds multiplies that error by 1 / size. The remaining rounds improve the joint distribution
  // of many positions.
  static constexpr int kRounds = 12;

  // Writes the elements [position, position + kCount).
  template <int kCount>
  void compute(std::uint64_t position, std::int64_t* out) const {
    std::array<std::uint64_t, kCount> left, right;
    for (int i = 0; i < kCount; ++i) {
      left[i] = (position + i) / columns_;
      right[i] = (position + i) % columns_;
    }
    permute_cells(left, right);
    for (int i = 0; i < kCount; ++i) {
      std::array<std::uint64_t, 1> row{left[i]}, column{right[i]};
      while (row[0] * columns_ + column[0] >= size_) permute_cells(row, column);
      out[i] = static_cast<std::int64_t>(row[0] * columns_ + column[0]);
    }
  }

  template <std::size_t kCount>
  void permute_cells(std::array<std::uint64_t, kCount>& left, std::array<std::uint64_t, kCount>& right) const {
    for (int round = 0; round < kRounds; round += 2) {
      for (std::size_t i = 0; i < kCount; ++i) {
        left[i] = add(left[i], bounded(mix(keys_[round], right[i]), rows_), rows_);
      }
      for (std::size_t i = 0; i < kCount; ++i) {
        right[i] = add(right[i], bounded(mix(keys_[round + 1], left[i]), columns_), columns_);
      }
    }
  }

  void shuffle_table(const Draws& draws) {
    std::iota(table_.begin(), table_.begin() + static_cast<std::ptrdiff_t>(size_), std::uint8_t{0});
    for (std::uint64_t last = size_; last > 1; --last) {
      std::swap(table_[last - 1], table_[below(draws.block(last, 0)[0], last)]);
    }
  }

  void choose_grid() {
    rows_ = static_cast<std::uint64_t>(std::sqrt(static_cast<double>(size_)));
    // With odd numbers of rows and columns, every round would be an even permutation of the grid.
    rows_ += rows_ % 2;
    columns_ = (size_ + rows_ - 1) / rows_;
  }

  // Returns output `value` of the SplitMix64 generator (Steele, Lea and Flood, 2014) started at `key`.
  static std::uint64_t mix(std::uint64_t key, std::uint64_t value) {
    std::uint64_t word = key + (value + 1) * 0x9E3779B97F4A7C15;
    word = (word ^ (word >> 30)) * 0xBF58476D1CE4E5B9;
    word = (word ^ (word >> 27)) * 0x94D049BB133111EB;
    return word ^ (word >> 31);
  }

  // Scales the 40 leading bits of a word to [0, bound).
  static std::uint64_t bounded(std::uint64_t word, std::uint64_t bound) {
    return ((word >> 24) * bound) >> 40;
  }

  static std::uint64_t add(std::uint64_t value, std::uint64_t shift, std::uint64_t modulus) {
    const std::uint64_t sum = value + shift;
    return sum < modulus ? sum : sum - modulus;
  }

  std::uint64_t size_;
  std::uint64_t rows_ = 0;
  std::uint64_t columns_ = 0;
  std::array<std::uint64_t, kRounds> keys_{};
  std::array<std::uint8_t, kTableSize> table_{};
};

}  // namespace fastccsa::sampler

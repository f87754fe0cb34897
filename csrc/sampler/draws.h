// The random words of an epoch, addressed by position. Each purpose ("stream") has its own words.

#pragma once

#include <array>
#include <cstdint>

#include "sampler/philox.h"

namespace fastccsa::sampler {

// Callers may use all streams except the last, which provides the keys of the epoch's permutation.
constexpr std::uint32_t kPairStream = 0;
constexpr std::uint32_t kPermutationStream = 0xFFFF;

// The number of a block has 16 bits, and each block has two words.
constexpr std::uint64_t kMaxWords = 2 * (std::uint64_t{1} << 16);

class Draws {
 public:
  Draws(std::uint64_t seed, std::uint32_t stream, std::uint32_t epoch)
      : key_{static_cast<std::uint32_t>(seed), static_cast<std::uint32_t>(seed >> 32)},
        epoch_(epoch),
        stream_(stream << 16) {}

  // Returns the words 2 * block and 2 * block + 1 of a position.
  std::array<std::uint64_t, 2> block(std::uint64_t position, std::uint32_t block) const {
    const PhiloxCounter words = philox4x32({static_cast<std::uint32_t>(position),
                                            static_cast<std::uint32_t>(position >> 32),
                                            epoch_, stream_ | block},
                                           key_);
    return {words[0] | std::uint64_t{words[1]} << 32, words[2] | std::uint64_t{words[3]} << 32};
  }

 private:
  PhiloxKey key_;
  std::uint32_t epoch_;
  std::uint32_t stream_;
};

// Maps a random word to an integer in [0, bound). Taking the high half of the product needs no division,
// and the bias of at most bound / 2^64 is too small to measure.
inline std::uint64_t below(std::uint64_t word, std::uint64_t bound) {
  __extension__ using Wide = unsigned __int128;
  return static_cast<std::uint64_t>((static_cast<Wide>(word) * bound) >> 64);
}

// Maps a random word to a double in [0, 1): its 53 leading bits, so that 1 is never reached.
inline double unit(std::uint64_t word) { return static_cast<double>(word >> 11) * 0x1.0p-53; }

}  // namespace fastccsa::sampler

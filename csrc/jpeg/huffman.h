// Huffman decoding of blocks of 8 x 8 coefficients with lookup tables, which decode one coefficient at a time, or
// several at a time in blocks that are skipped.
#pragma once

#include "jpeg/scan.h"

#include <array>
#include <cstdint>
#include <cstdlib>

namespace fastccsa::jpeg {

constexpr int kLookup = 11;   // bits that index a lookup table
constexpr int kLongest = 16;  // maximum bits of a code

// The row-major position in a block of the k-th coefficient.
constexpr std::array<uint8_t, 64> zigzag() {
  std::array<uint8_t, 64> place{};
  int row = 0, column = 0;
  for (int k = 0; k < 64; ++k) {
    place[k] = uint8_t(8 * row + column);
    const bool up = (row + column) % 2 == 0;
    if (up ? column == 7 : row == 7) {
      (up ? row : column) += 1;
    } else if (up ? row == 0 : column == 0) {
      (up ? column : row) += 1;
    } else {
      row += up ? -1 : 1;
      column += up ? 1 : -1;
    }
  }
  return place;
}
inline constexpr std::array<uint8_t, 64> kZigzag = zigzag();

// The signed value that `size` bits of a stream encode.
inline int extend(uint32_t bits, int size) {
  return bits >> (size - 1) ? int(bits) : int(bits) - (1 << size) + 1;
}

// A symbol and the length of its code in bits; length 0 if no code has this prefix.
struct Symbol {
  uint8_t value, length;
};

// The coefficient that the next kLookup bits encode.
struct Coefficient {
  int16_t value;   // 0 if the bits of the value do not fit; `run` is then the symbol
  uint8_t run;     // zeros before the coefficient
  uint8_t length;  // total bits; 0 if the code is longer than kLookup
};

// All coefficients that the next kLookup bits encode, for blocks that are skipped.
struct Skip {
  uint8_t length;   // total bits; 0 if the first code is longer than kLookup
  uint8_t advance;  // coefficients, counting the end of the block as one
  uint8_t first_length, first_advance;  // the same for the first symbol only
  bool ends, first_ends;                // whether the block ends
};

class Table {
 public:
  // counts: number of codes of each length from 1 to 16 bits; symbols: in the order of their codes. Returns false if
  // the codes are invalid.
  bool set(const uint8_t* counts, const uint8_t* symbols, bool ac);

  void clear() { defined_ = false; }
  bool defined() const { return defined_; }

  Symbol at(const Bits& bits) const {
    const Symbol symbol = first_[bits.peek(kLookup)];
    return symbol.length != 0 ? symbol : longer(bits.peek(kLongest));
  }

  const Coefficient& coefficient(const Bits& bits) const { return coefficients_[bits.peek(kLookup)]; }
  const Skip& skip_entry(const Bits& bits) const { return skips_[bits.peek(kLookup)]; }

 private:
  Symbol longer(uint32_t bits) const {
    for (int length = kLookup + 1; length <= kLongest; ++length) {
      const int code = int(bits >> (kLongest - length));
      if (code < end_[length]) return {symbols_[uint8_t(code + offset_[length])], uint8_t(length)};
    }
    return {0, 0};
  }

  void set_coefficients();
  void set_skips();

  bool defined_ = false;
  std::array<uint8_t, 256> symbols_{};
  std::array<int, kLongest + 1> end_{};     // one past the last code of each length
  std::array<int, kLongest + 1> offset_{};  // what to add to a code to get the index of its symbol
  std::array<Symbol, 1 << kLookup> first_{};
  std::array<Coefficient, 1 << kLookup> coefficients_{};
  std::array<Skip, 1 << kLookup> skips_{};
};

// Reads the difference between the DC coefficients of a block and the previous one. Returns false for an invalid code.
FASTCCSA_INLINE bool read_difference(Bits& bits, const Table& dc, int& difference) {
  bits.refill();
  const Symbol symbol = dc.at(bits);
  if (symbol.length == 0) return false;
  bits.skip(symbol.length);
  difference = 0;
  if (symbol.value != 0) {
    difference = extend(bits.peek(symbol.value), symbol.value);
    bits.skip(symbol.value);
  }
  return true;
}

// Writes the AC coefficients times `scale` into a block of zeros. Returns a bit mask of the rows with a coefficient, or
// -1 if a code is invalid, a coefficient is beyond the block, or the sum of magnitudes is above `allowed`.
FASTCCSA_INLINE int read_block(Bits& bits, const Table& ac, const int16_t* scale, int64_t allowed, int16_t* block) {
  int rows = 0;
  for (int k = 1; k < 64; ++k) {
    bits.refill();
    const Coefficient& entry = ac.coefficient(bits);
    int value = entry.value;
    if (value != 0) {
      k += entry.run;
      bits.skip(entry.length);
    } else {
      const Symbol symbol = entry.length != 0 ? Symbol{entry.run, entry.length} : ac.at(bits);
      if (symbol.length == 0) return -1;
      bits.skip(symbol.length);
      const int run = symbol.value >> 4, size = symbol.value & 15;
      if (size == 0 && run != 15) break;
      k += run;
      if (size != 0) {
        value = extend(bits.peek(size), size);
        bits.skip(size);
      }
    }
    if (k > 63) return -1;
    const int position = kZigzag[k];
    value *= scale[position];
    allowed -= std::abs(value);
    block[position] = int16_t(value);
    rows |= 1 << (position >> 3);
  }
  return allowed < 0 ? -1 : rows;
}

// Skips the AC coefficients of a block. Returns false if a code is invalid or a coefficient is beyond the block.
FASTCCSA_INLINE bool skip_block(Bits& bits, const Table& ac) {
  int k = 1;
  while (k < 64) {
    bits.refill();
    const Skip& entry = ac.skip_entry(bits);
    if (entry.length != 0) {
      // Codes after the last coefficient of a block belong to the next block. A branch, because it is predictable.
      if (__builtin_expect(k + entry.advance <= 64, 1)) {
        bits.skip(entry.length);
        if (entry.ends) return true;
        k += entry.advance;
      } else {
        bits.skip(entry.first_length);
        if (entry.first_ends) return true;
        k += entry.first_advance;
      }
      continue;
    }
    const Symbol symbol = ac.at(bits);
    if (symbol.length == 0) return false;
    const int run = symbol.value >> 4, size = symbol.value & 15;
    bits.skip(symbol.length + size);
    if (size == 0 && run != 15) return true;
    k += run + 1;
  }
  return k == 64;
}

}  // namespace fastccsa::jpeg

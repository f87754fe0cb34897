// Huffman decoding of blocks of 8 x 8 coefficients, by tables that answer for several bits, and for blocks that nobody
// looks at several coefficients, at a time.
#pragma once

#include "jpeg/scan.h"

#include <array>
#include <cstdint>

namespace fastccsa::jpeg {

constexpr int kLookup = 11;  // bits that a table answers for
constexpr int kLongest = 16;  // bits of a code

// The place in a block (row by row) of the k-th coefficient; those that a broken file has beyond 63 go to the last.
constexpr std::array<uint8_t, 80> zigzag() {
  std::array<uint8_t, 80> place{};
  int row = 0, column = 0;
  for (int k = 0; k < 80; ++k) {
    place[k] = uint8_t(k < 64 ? 8 * row + column : 63);
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
inline constexpr std::array<uint8_t, 80> kZigzag = zigzag();

// The number that the `size` highest bits of a stream stand for.
inline int extend(uint32_t bits, int size) {
  return bits >> (size - 1) ? int(bits) : int(bits) - (1 << size) + 1;
}

// A code's symbol, and its length in bits; length 0 where no code begins so.
struct Symbol {
  uint8_t value, length;
};

// What the next kLookup bits hold, a coefficient of the block being looked at.
struct Coefficient {
  int16_t value;   // 0: `run` is a symbol, and its bits are yet to be read
  uint8_t run;     // zeros before it
  uint8_t length;  // bits in all; 0: the code is longer than kLookup
};

// What they hold of a block that is passed over.
struct Stretch {
  uint8_t length;    // bits in all; 0: the code is longer than kLookup
  uint8_t advance;   // coefficients, the end of the block counting as one
  uint8_t one_length, one_advance;  // the same of the first symbol alone
  bool ends, one_ends;
};

class Table {
 public:
  // counts: of the codes of 1 to 16 bits; symbols: in the order of their codes. False: they are no code.
  bool set(const uint8_t* counts, const uint8_t* symbols, bool ac);

  void forget() { there_ = false; }
  bool there() const { return there_; }

  Symbol at(const Bits& bits) const {
    const Symbol symbol = first_[bits.peek(kLookup)];
    return symbol.length != 0 ? symbol : longer(bits);
  }

  const Coefficient& coefficient(const Bits& bits) const { return coefficients_[bits.peek(kLookup)]; }
  const Stretch& stretch(const Bits& bits) const { return stretches_[bits.peek(kLookup)]; }

 private:
  Symbol longer(const Bits& bits) const {
    for (int length = kLookup + 1; length <= kLongest; ++length) {
      const int code = int(bits.peek(length));
      if (code < end_[length]) return {symbols_[uint8_t(code + offset_[length])], uint8_t(length)};
    }
    return {0, 0};
  }

  void set_coefficients();
  void set_stretches();

  bool there_ = false;
  std::array<uint8_t, 256> symbols_{};
  std::array<int, kLongest + 1> end_{};     // the code after the last of each length
  std::array<int, kLongest + 1> offset_{};  // from a code to the number of its symbol
  std::array<Symbol, 1 << kLookup> first_{};
  std::array<Coefficient, 1 << kLookup> coefficients_{};
  std::array<Stretch, 1 << kLookup> stretches_{};
};

// The difference of a block's mean to that of the block before; false: no such code.
FASTCCSA_INLINE bool read_difference(Bits& bits, const Table& dc, int& difference) {
  bits.refill();
  const Symbol symbol = dc.at(bits);
  if (symbol.length == 0 || symbol.value > 15) return false;
  bits.skip(symbol.length);
  difference = 0;
  if (symbol.value != 0) {
    difference = extend(bits.peek(symbol.value), symbol.value);
    bits.skip(symbol.value);
  }
  return true;
}

// Writes the coefficients from the second on, times `scale`, into a block of zeros; returns the rows of the block that
// have one, a bit each, or -1 where there is no such code.
FASTCCSA_INLINE int read_block(Bits& bits, const Table& ac, const int16_t* scale, int16_t* block) {
  int rows = 0;
  const auto put = [&](int k, int value) {
    const int place = kZigzag[k];
    block[place] = int16_t(value * scale[place]);
    rows |= 1 << (place >> 3);
  };
  for (int k = 1; k < 64; ++k) {
    bits.refill();
    const Coefficient& known = ac.coefficient(bits);
    if (known.value != 0) {
      k += known.run;
      put(k, known.value);
      bits.skip(known.length);
      continue;
    }
    const Symbol symbol = known.length != 0 ? Symbol{known.run, known.length} : ac.at(bits);
    if (symbol.length == 0) return -1;
    bits.skip(symbol.length);
    const int run = symbol.value >> 4, size = symbol.value & 15;
    if (size == 0) {
      if (run != 15) break;
      k += 15;
      continue;
    }
    k += run;
    put(k, extend(bits.peek(size), size));
    bits.skip(size);
  }
  return rows;
}

// Passes over a block's coefficients from the second on; false: no such code.
FASTCCSA_INLINE bool skip_block(Bits& bits, const Table& ac) {
  for (int k = 1; k < 64;) {
    bits.refill();
    const Stretch& known = ac.stretch(bits);
    if (known.length != 0) {
      // What follows a block's last coefficient belongs to the next block. A branch, so that it can be foreseen.
      if (__builtin_expect(k + known.advance <= 64, 1)) {
        bits.skip(known.length);
        if (known.ends) break;
        k += known.advance;
      } else {
        bits.skip(known.one_length);
        if (known.one_ends) break;
        k += known.one_advance;
      }
      continue;
    }
    const Symbol symbol = ac.at(bits);
    if (symbol.length == 0) return false;
    const int run = symbol.value >> 4, size = symbol.value & 15;
    bits.skip(symbol.length + size);
    if (size == 0 && run != 15) break;
    k += run + 1;
  }
  return true;
}

}  // namespace fastccsa::jpeg

// Builds the Huffman tables.
#include "jpeg/huffman.h"

#include <cstring>

namespace fastccsa::jpeg {

bool Table::set(const uint8_t* counts, const uint8_t* symbols, bool ac) {
  defined_ = false;
  first_.fill({0, 0});
  int code = 0, number = 0;
  for (int length = 1; length <= kLongest; ++length) {
    const int count = counts[length - 1];
    // No code may consist of ones only.
    if (number + count > 256 || (count > 0 && code + count >= 1 << length)) return false;
    offset_[length] = number - code;
    for (int i = 0; i < count; ++i, ++code, ++number) {
      if (!ac && symbols[number] > 15) return false;  // bits of a difference
      symbols_[uint8_t(number)] = symbols[number];
      if (length > kLookup) continue;
      const int begin = code << (kLookup - length), end = (code + 1) << (kLookup - length);
      for (int prefix = begin; prefix < end; ++prefix) first_[prefix] = {symbols[number], uint8_t(length)};
    }
    end_[length] = count > 0 ? code : 0;
    code <<= 1;
  }
  if (ac) {
    set_coefficients();
    set_skips();
  }
  defined_ = true;
  return true;
}

void Table::set_coefficients() {
  for (int prefix = 0; prefix < 1 << kLookup; ++prefix) {
    const Symbol symbol = first_[prefix];
    const int size = symbol.value & 15, left = kLookup - symbol.length - size;
    Coefficient& entry = coefficients_[prefix];
    if (symbol.length == 0 || size == 0 || left < 0) {
      entry = {0, symbol.value, symbol.length};
    } else {
      const int bits = (prefix >> left) & ((1 << size) - 1);
      entry = {int16_t(extend(uint32_t(bits), size)), uint8_t(symbol.value >> 4), uint8_t(symbol.length + size)};
    }
  }
}

void Table::set_skips() {
  for (int prefix = 0; prefix < 1 << kLookup; ++prefix) {
    Skip entry{};
    for (int used = 0; used < kLookup && !entry.ends;) {
      // The bits after the prefix are unknown and read as zeros, so a code that extends into them is rejected.
      const Symbol symbol = first_[(prefix << used) & ((1 << kLookup) - 1)];
      if (symbol.length == 0 || used + symbol.length > kLookup) break;
      const int run = symbol.value >> 4, size = symbol.value & 15;
      const bool ends = size == 0 && run != 15;
      used += symbol.length + size;
      const int advance = entry.advance + (ends ? 1 : run + 1);
      if (advance > 64) break;
      entry.length = uint8_t(used);
      entry.advance = uint8_t(advance);
      entry.ends = ends;
      if (entry.first_length == 0) {
        entry.first_length = entry.length;
        entry.first_advance = entry.advance;
        entry.first_ends = ends;
      }
    }
    skips_[prefix] = entry;
  }
}

}  // namespace fastccsa::jpeg

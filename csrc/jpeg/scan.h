// The compressed data of a JPEG's scan as a bit stream, without the zero byte after each 0xff and without the restart
// markers, whose positions are recorded.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

// Inlined everywhere, so that the code is compiled for the instruction set of the caller.
#define FASTCCSA_INLINE inline __attribute__((always_inline))

namespace fastccsa::jpeg {

// How many bytes the decoder may read beyond the end before it checks its position. This exceeds the longest block.
constexpr std::size_t kPadding = 512;

struct Scan {
  std::vector<uint8_t> bytes;          // followed by kPadding zeros
  std::size_t size = 0;                // without the padding
  std::vector<std::size_t> intervals;  // offset of each restart interval
  std::size_t in_order = 0;            // intervals before the first restart marker that is out of sequence
  bool surprising = false;             // whether anything but the end of the image or of the file follows

  // Where an interval ends.
  std::size_t end(std::size_t interval) const {
    return interval + 1 < intervals.size() ? intervals[interval + 1] : size;
  }

  // Takes the data up to the first marker that ends a scan.
  void take(const uint8_t* data, std::size_t length) {
    bytes.resize(length + kPadding);
    intervals.assign(1, 0);
    in_order = 1;
    surprising = false;
    uint8_t* to = bytes.data();
    const uint8_t *from = data, *end = data + length;
    while (from < end) {
      const auto* marker = static_cast<const uint8_t*>(std::memchr(from, 0xff, std::size_t(end - from)));
      const std::size_t run = std::size_t((marker == nullptr ? end : marker) - from);
      std::memcpy(to, from, run);
      to += run;
      if (marker == nullptr) break;
      const uint8_t* next = marker + 1;
      while (next < end && *next == 0xff) ++next;  // fill bytes
      if (next == end) break;
      if (*next == 0) {
        *to++ = 0xff;
      } else if (*next >= 0xd0 && *next <= 0xd7) {
        if (in_order == intervals.size() && std::size_t(*next - 0xd0) == (in_order - 1) % 8) ++in_order;
        intervals.push_back(std::size_t(to - bytes.data()));
      } else {
        surprising = *next != 0xd9;
        break;
      }
      from = next + 1;
    }
    size = std::size_t(to - bytes.data());
    std::memset(to, 0, kPadding);
  }
};

// A position in a restart interval of a scan. The next bits are the highest bits of `window_`.
class Bits {
 public:
  void seek(const Scan& scan, std::size_t interval) {
    next_ = scan.bytes.data() + scan.intervals[interval];
    end_ = scan.bytes.data() + scan.end(interval);
    window_ = 0;
    valid_ = 0;
  }

  // Ensures that at least 56 bits are available.
  void refill() {
    uint64_t word;
    std::memcpy(&word, next_, sizeof word);
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    word = __builtin_bswap64(word);
#endif
    window_ |= word >> valid_;
    next_ += (63 - valid_) >> 3;
    valid_ |= 56;
  }

  // Returns the next 1 to 32 bits without consuming them.
  uint32_t peek(int count) const { return uint32_t(window_ >> (64 - count)); }

  void skip(int count) {
    window_ <<= count;
    valid_ -= count;
  }

  // Whether bits beyond the end of the interval were consumed.
  bool beyond_end() const { return position() > end_; }

  // Whether all of the interval's bytes were consumed, the last one at least in part.
  bool at_end() const { return position() == end_; }

 private:
  // The first byte of which no bit was consumed.
  const uint8_t* position() const { return next_ - (valid_ >> 3); }

  const uint8_t* next_ = nullptr;
  const uint8_t* end_ = nullptr;
  uint64_t window_ = 0;
  int valid_ = 0;
};

}  // namespace fastccsa::jpeg

// Reads the segments of a JPEG file up to its scan. Everything a file says is checked before it is used.
#include "jpeg/header.h"

#include <algorithm>
#include <numeric>

namespace fastccsa::jpeg {
namespace {

enum Marker : uint8_t {
  kFrameBaseline = 0xc0,
  kFrameExtended = 0xc1,
  kHuffman = 0xc4,
  kArithmetic = 0xcc,
  kLastFrame = 0xcf,
  kStart = 0xd8,
  kEnd = 0xd9,
  kScan = 0xda,
  kQuantisation = 0xdb,
  kInterval = 0xdd,
  kJfif = 0xe0,
  kAdobe = 0xee,
};

// The rest of a segment; reading beyond its end gives zeros and is remembered.
class Reader {
 public:
  Reader(const uint8_t* data, std::size_t length) : at_(data), end_(data + length) {}

  int byte() {
    if (at_ == end_) {
      short_ = true;
      return 0;
    }
    return *at_++;
  }
  int word() {
    const int high = byte();
    return high << 8 | byte();
  }
  const uint8_t* take(std::size_t count) {
    if (std::size_t(end_ - at_) < count) {
      short_ = true;
      return nullptr;
    }
    at_ += count;
    return at_ - count;
  }
  bool empty() const { return at_ == end_; }
  bool was_short() const { return short_; }

 private:
  const uint8_t* at_;
  const uint8_t* end_;
  bool short_ = false;
};

// Which colours three components are, as libjpeg guesses it.
struct Colours {
  bool jfif = false, adobe = false;
  int transform = 0;

  bool ycbcr(const Header& header) const {
    if (jfif) return true;
    if (adobe) return transform == 1;
    const auto id = [&](int k) { return header.component[k].id; };
    return !(id(0) == 'R' && id(1) == 'G' && id(2) == 'B');
  }
};

bool read_quantisation(Reader segment, Tables& tables) {
  while (!segment.empty()) {
    const int what = segment.byte();
    if ((what & 15) > 3 || what >> 4 > 1) return false;
    for (int k = 0; k < 64; ++k) {
      tables.quantisation[what & 3][kZigzag[k]] = uint16_t(what >> 4 ? segment.word() : segment.byte());
    }
    tables.quantisation_there[what & 3] = true;
  }
  return !segment.was_short();
}

bool read_huffman(Reader segment, Tables& tables) {
  while (!segment.empty()) {
    const int what = segment.byte();
    const uint8_t* counts = segment.take(kLongest);
    if (counts == nullptr || (what & 15) > 3 || what >> 4 > 1) return false;
    const uint8_t* symbols = segment.take(std::accumulate(counts, counts + kLongest, std::size_t(0)));
    if (symbols == nullptr) return false;
    const bool ac = what >> 4 == 1;
    if (!(ac ? tables.ac : tables.dc)[what & 3].set(counts, symbols, ac)) return false;
  }
  return true;
}

// `quantisation`: which table each component uses.
Status read_frame(Reader segment, Header& header, std::array<int, kMaxComponents>& quantisation) {
  const int precision = segment.byte();
  header.height = segment.word();
  header.width = segment.word();
  header.components = segment.byte();
  if (segment.was_short() || header.width == 0) return Status::kBroken;
  if (precision != 8 || header.height == 0) return Status::kUnsupported;
  if (header.components != 1 && header.components != 3) return Status::kUnsupported;
  for (int k = 0; k < header.components; ++k) {
    Component& component = header.component[k];
    component.id = segment.byte();
    const int sampling = segment.byte();
    component.across = sampling >> 4;
    component.down = sampling & 15;
    quantisation[k] = segment.byte();
    if (quantisation[k] > 3) return Status::kBroken;
  }
  if (segment.was_short()) return Status::kBroken;
  Component& first = header.component[0];
  if (header.components == 1) {
    first.across = first.down = 1;  // of one component each block is an MCU, whatever it says
    return Status::kDone;
  }
  const auto once = [](const Component& c) { return c.across == 1 && c.down == 1; };
  const auto usual = [](int sampling) { return sampling == 1 || sampling == 2; };
  const bool supported = usual(first.across) && usual(first.down) && once(header.component[1]) && once(header.component[2]);
  return supported ? Status::kDone : Status::kUnsupported;
}

Status read_scan(Reader segment, const Tables& tables, Header& header, const std::array<int, kMaxComponents>& quantisation) {
  if (segment.byte() != header.components) return Status::kUnsupported;
  for (int k = 0; k < header.components; ++k) {
    Component& component = header.component[k];
    if (segment.byte() != component.id) return Status::kUnsupported;
    const int which = segment.byte();
    if (which >> 4 > 3 || (which & 15) > 3) return Status::kBroken;
    component.dc = &tables.dc[which >> 4];
    component.ac = &tables.ac[which & 15];
    if (!component.dc->there() || !component.ac->there() || !tables.quantisation_there[quantisation[k]]) {
      return Status::kBroken;
    }
    const auto& steps = tables.quantisation[quantisation[k]];
    std::transform(steps.begin(), steps.end(), component.scale.begin(), [](uint16_t step) { return int16_t(step); });
  }
  const int first = segment.byte(), last = segment.byte(), approximation = segment.byte();
  if (segment.was_short()) return Status::kBroken;
  return first == 0 && last == 63 && approximation == 0 ? Status::kDone : Status::kUnsupported;
}

}  // namespace

Status read_header(const uint8_t* data, std::size_t length, Tables& tables, Header& header) {
  if (length < 2 || data[0] != 0xff || data[1] != kStart) return Status::kUnsupported;
  std::array<int, kMaxComponents> quantisation{};
  Colours colours;
  for (std::size_t at = 2;;) {
    while (at + 1 < length && data[at] == 0xff && data[at + 1] == 0xff) ++at;  // fill bytes
    if (at + 4 > length || data[at] != 0xff) return Status::kBroken;
    const int marker = data[at + 1];
    const std::size_t size = std::size_t(data[at + 2]) << 8 | data[at + 3];
    if (size < 2 || at + 2 + size > length) return Status::kBroken;
    Reader segment(data + at + 4, size - 2);
    at += 2 + size;
    Status status = Status::kDone;
    switch (marker) {
      case kQuantisation: status = read_quantisation(segment, tables) ? Status::kDone : Status::kBroken; break;
      case kHuffman: status = read_huffman(segment, tables) ? Status::kDone : Status::kBroken; break;
      case kInterval: header.interval = segment.word(); break;
      case kFrameBaseline:
      case kFrameExtended:
        status = header.components == 0 ? read_frame(segment, header, quantisation) : Status::kBroken;
        break;
      case kJfif: {
        const uint8_t* name = segment.take(5);
        colours.jfif |= name != nullptr && std::equal(name, name + 5, "JFIF");
        break;
      }
      case kAdobe: {
        const uint8_t* name = segment.take(12);
        if (name != nullptr && std::equal(name, name + 5, "Adobe")) {
          colours.adobe = true;
          colours.transform = name[11];
        }
        break;
      }
      case kScan:
        if (header.components == 0) return Status::kBroken;
        if (header.components == 3 && !colours.ycbcr(header)) return Status::kUnsupported;
        header.scan = data + at;
        header.scan_length = length - at;
        return read_scan(segment, tables, header, quantisation);
      case kEnd: return Status::kBroken;
      default:
        if (marker > kFrameExtended && marker <= kLastFrame) return Status::kUnsupported;
        break;
    }
    if (status != Status::kDone) return status;
  }
}

}  // namespace fastccsa::jpeg

// Reads the segments of a JPEG file up to its scan. Every value in the file is validated before it is used, and whatever
// another decoder might read differently is unsupported: markers without a length, those that libjpeg refuses, segments
// that are longer or shorter than their content.
#include "jpeg/header.h"

#include <algorithm>
#include <numeric>

namespace fastccsa::jpeg {
namespace {

enum Marker : uint8_t {
  kFrameBaseline = 0xc0,
  kFrameExtended = 0xc1,
  kHuffman = 0xc4,
  kStart = 0xd8,
  kScan = 0xda,
  kQuantisation = 0xdb,
  kInterval = 0xdd,
  kJfif = 0xe0,
  kAdobe = 0xee,
  kLastApplication = 0xef,
  kComment = 0xfe,
};

// A cursor in a segment. Reading beyond the end gives zeros and sets a flag.
class Reader {
 public:
  Reader(const uint8_t* data, std::size_t length) : at_(data), end_(data + length) {}

  int byte() {
    if (at_ == end_) {
      overrun_ = true;
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
      overrun_ = true;
      return nullptr;
    }
    at_ += count;
    return at_ - count;
  }
  bool empty() const { return at_ == end_; }
  bool overrun() const { return overrun_; }

 private:
  const uint8_t* at_;
  const uint8_t* end_;
  bool overrun_ = false;
};

// Determines the colour space of three components by the rules of libjpeg.
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

constexpr int kMaxStep = 0x7fff;  // libjpeg keeps it in 16 bits with a sign

bool read_quantisation(Reader segment, Tables& tables) {
  while (!segment.empty()) {
    const int info = segment.byte(), precision = info >> 4, id = info & 15;
    if (id > 3 || precision > 1) return false;
    for (int k = 0; k < 64; ++k) {
      const int step = precision == 1 ? segment.word() : segment.byte();
      if (step == 0 || step > kMaxStep) return false;
      tables.quantisation[id][kZigzag[k]] = uint16_t(step);
    }
    tables.has_quantisation[id] = true;
  }
  return !segment.overrun();
}

bool read_huffman(Reader segment, Tables& tables) {
  while (!segment.empty()) {
    const int info = segment.byte(), kind = info >> 4, id = info & 15;
    const uint8_t* counts = segment.take(kLongest);
    if (counts == nullptr || id > 3 || kind > 1) return false;
    const uint8_t* symbols = segment.take(std::accumulate(counts, counts + kLongest, std::size_t(0)));
    if (symbols == nullptr) return false;
    const bool ac = kind == 1;
    if (!(ac ? tables.ac : tables.dc)[id].set(counts, symbols, ac)) return false;
  }
  return true;
}

// `quantisation` receives the table of each component.
Status read_frame(Reader segment, Header& header, std::array<int, kMaxComponents>& quantisation) {
  const int precision = segment.byte();
  header.height = segment.word();
  header.width = segment.word();
  header.components = segment.byte();
  if (segment.overrun() || header.width == 0) return Status::kBroken;
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
  if (segment.overrun() || !segment.empty()) return Status::kBroken;
  Component& first = header.component[0];
  if (header.components == 1) {
    first.across = first.down = 1;  // with one component, each block is an MCU regardless of the sampling factors
    return Status::kDone;
  }
  for (int k = 0; k < 3; ++k) {
    if (header.component[k].id == header.component[(k + 1) % 3].id) return Status::kBroken;
  }
  const auto single = [](const Component& c) { return c.across == 1 && c.down == 1; };
  const auto one_or_two = [](int sampling) { return sampling == 1 || sampling == 2; };
  const bool supported =
      one_or_two(first.across) && one_or_two(first.down) && single(header.component[1]) && single(header.component[2]);
  return supported ? Status::kDone : Status::kUnsupported;
}

Status read_scan(Reader segment, const Tables& tables, Header& header,
                 const std::array<int, kMaxComponents>& quantisation) {
  if (segment.byte() != header.components) return Status::kUnsupported;
  for (int k = 0; k < header.components; ++k) {
    Component& component = header.component[k];
    if (segment.byte() != component.id) return Status::kUnsupported;
    const int ids = segment.byte(), dc = ids >> 4, ac = ids & 15;
    if (dc > 3 || ac > 3) return Status::kBroken;
    component.dc = &tables.dc[dc];
    component.ac = &tables.ac[ac];
    if (!component.dc->defined() || !component.ac->defined() || !tables.has_quantisation[quantisation[k]]) {
      return Status::kBroken;
    }
    const auto& steps = tables.quantisation[quantisation[k]];
    std::transform(steps.begin(), steps.end(), component.scale.begin(), [](uint16_t step) { return int16_t(step); });
  }
  const int first = segment.byte(), last = segment.byte(), approximation = segment.byte();
  if (segment.overrun() || !segment.empty()) return Status::kBroken;
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
    if (marker < kFrameBaseline || (marker > kHuffman && marker < kScan)) return Status::kUnsupported;
    const std::size_t size = std::size_t(data[at + 2]) << 8 | data[at + 3];
    if (size < 2 || at + 2 + size > length) return Status::kBroken;
    Reader segment(data + at + 4, size - 2);
    at += 2 + size;
    Status status = Status::kDone;
    switch (marker) {
      case kQuantisation: status = read_quantisation(segment, tables) ? Status::kDone : Status::kBroken; break;
      case kHuffman: status = read_huffman(segment, tables) ? Status::kDone : Status::kBroken; break;
      case kInterval:
        header.interval = segment.word();
        if (segment.overrun() || !segment.empty()) status = Status::kBroken;
        break;
      case kFrameBaseline:
      case kFrameExtended:
        status = header.components == 0 ? read_frame(segment, header, quantisation) : Status::kBroken;
        break;
      case kJfif: {
        const uint8_t* name = segment.take(14);
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
      default:
        if ((marker < kJfif || marker > kLastApplication) && marker != kComment) return Status::kUnsupported;
        break;
    }
    if (status != Status::kDone) return status;
  }
}

}  // namespace fastccsa::jpeg

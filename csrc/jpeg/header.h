// The header of a JPEG file: everything before the compressed pixels.
#pragma once

#include "jpeg/huffman.h"

#include <array>
#include <cstddef>
#include <cstdint>

namespace fastccsa::jpeg {

enum class Status {
  kDone,
  kUnsupported,  // not a baseline JPEG in grey or YCbCr with common subsampling and a single scan
  kBroken,
};

constexpr int kMaxComponents = 3;

struct Component {
  int id = 0;
  int across = 1, down = 1;         // blocks per MCU along each axis
  std::array<int16_t, 64> scale{};  // quantisation steps in row-major order
  const Table* dc = nullptr;
  const Table* ac = nullptr;
};

struct Header {
  int width = 0, height = 0;
  int components = 0;
  std::array<Component, kMaxComponents> component;
  int interval = 0;  // MCUs between restart markers; 0 if there are none
  const uint8_t* scan = nullptr;
  std::size_t scan_length = 0;

  // Blocks per MCU along each axis of the first component, which has the highest resolution.
  int across() const { return component[0].across; }
  int down() const { return component[0].down; }
};

// The tables that a header points to.
struct Tables {
  std::array<std::array<uint16_t, 64>, 4> quantisation{};
  std::array<bool, 4> has_quantisation{};
  std::array<Table, 4> dc, ac;
};

// `header` points into `data` and `tables`.
Status read_header(const uint8_t* data, std::size_t length, Tables& tables, Header& header);

}  // namespace fastccsa::jpeg

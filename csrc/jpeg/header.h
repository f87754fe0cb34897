// What a JPEG file says before its pixels.
#pragma once

#include "jpeg/huffman.h"

#include <array>
#include <cstddef>
#include <cstdint>

namespace fastccsa::jpeg {

enum class Status {
  kDone,
  kUnsupported,  // not a baseline JPEG in grey or YCbCr, of the usual sampling, in one scan
  kBroken,
};

constexpr int kMaxComponents = 3;

struct Component {
  int id = 0;
  int across = 1, down = 1;             // blocks of an MCU
  std::array<int16_t, 64> scale{};      // quantisation steps, row by row
  const Table* dc = nullptr;
  const Table* ac = nullptr;
};

struct Header {
  int width = 0, height = 0;
  int components = 0;
  std::array<Component, kMaxComponents> component;
  int interval = 0;  // MCUs between two restart markers; 0: none
  const uint8_t* scan = nullptr;
  std::size_t scan_length = 0;

  int across() const { return component[0].across; }  // of an MCU, in blocks of the first component: it is the finest
  int down() const { return component[0].down; }
};

// Tables that a header points into.
struct Tables {
  std::array<std::array<uint16_t, 64>, 4> quantisation{};
  std::array<bool, 4> quantisation_there{};
  std::array<Table, 4> dc, ac;
};

Status read_header(const uint8_t* data, std::size_t length, Tables& tables, Header& header);

}  // namespace fastccsa::jpeg

// How blocks of threads of the fused kernels find their work.
#pragma once

#include "all_pairs/cuda/fused/params.h"

namespace fastccsa::all_pairs::cuda {

// A block of rows. If all its rows are of one class, sorted columns of that class are left out: column v of the rest is
// column v < skip_from ? v : v + skip of the side.
struct RowBlock {
  int side, first, rows;
  int skip_from, skip, columns;

  FASTCCSA_HOST_DEVICE int column(int v) const { return v < skip_from ? v : v + skip; }
  // Whether columns [v, v + count) exist and are contiguous.
  FASTCCSA_HOST_DEVICE bool contiguous(int v, int count) const {
    return v + count <= columns && (v >= skip_from || v + count <= skip_from);
  }
};

// `label(side, row)` is the class of a row.
template <typename T, typename Label>
FASTCCSA_HOST_DEVICE RowBlock row_block(const Fused<T>& p, int block, Label label) {
  RowBlock b;
  b.side = block >= p.side[0].blocks;
  const FusedSide<T>&own = p.side[b.side], &others = p.side[1 - b.side];
  b.first = (b.side ? block - p.side[0].blocks : block) * p.shape.rows;
  b.rows = own.count - b.first < p.shape.rows ? own.count - b.first : p.shape.rows;
  b.skip_from = b.skip = 0;
  if (others.offset != nullptr) {
    const auto first = label(b.side, b.first), last = label(b.side, b.first + b.rows - 1);
    if (first == last) {
      b.skip_from = int(others.offset[first]);
      b.skip = int(others.offset[first + 1]) - b.skip_from;
    }
  }
  b.columns = others.count - b.skip;
  return b;
}

template <typename T>
FASTCCSA_HOST_DEVICE RowBlock row_block(const Fused<T>& p, int block) {
  return row_block(p, block, [&](int side, int row) { return p.side[side].label[row]; });
}

template <typename T>
FASTCCSA_HOST_DEVICE int units_of(const Fused<T>& p, const RowBlock& b) {
  return (b.columns + p.shape.unit - 1) / p.shape.unit;
}

// Returns the largest k with values[k] <= value, where values[0] <= value < values[count].
FASTCCSA_HOST_DEVICE int find(const int32_t* values, int count, int value) {
  int low = 0, high = count;
  while (high - low > 1) {
    const int middle = (low + high) / 2;
    (values[middle] <= value ? low : high) = middle;
  }
  return low;
}

// ---- the plan ----
//
// `of` numbers the blocks of rows that may be cut, from split_from() on, and `unit` their units.

// The units of blocks of rows before `block`, if rows are not sorted.
template <typename T>
FASTCCSA_HOST_DEVICE int64_t units_before(const Fused<T>& p, int block) {
  const auto per_block = [&](int side) { return int64_t(ceil_divide(p.side[1 - side].count, p.shape.unit)); };
  const int first = block < p.side[0].blocks ? block : p.side[0].blocks;
  return first * per_block(0) + (block - first) * per_block(1);
}

template <typename T>
FASTCCSA_HOST_DEVICE int first_unit(const Fused<T>& p, int of) {
  if (p.plan.first_unit != nullptr) return p.plan.first_unit[of];
  return int(units_before(p, p.split_from() + of) - units_before(p, p.split_from()));
}

template <typename T>
FASTCCSA_HOST_DEVICE int block_of_unit(const Fused<T>& p, int unit) {
  const int split = p.row_blocks() - p.split_from();
  if (p.plan.first_unit != nullptr) return find(p.plan.first_unit, split, unit);
  const int64_t before = units_before(p, p.split_from()) + unit, of_side = units_before(p, p.side[0].blocks);
  const int side = before >= of_side;
  const int64_t per_block = ceil_divide(p.side[1 - side].count, p.shape.unit);
  return int((before - side * of_side) / per_block + side * p.side[0].blocks) - p.split_from();
}

// The first unit of a block of threads, or the number of units.
template <typename T>
FASTCCSA_HOST_DEVICE int share(const Fused<T>& p, int thread_block) {
  if (p.plan.share != nullptr) return p.plan.share[thread_block];
  return int(int64_t(first_unit(p, p.row_blocks() - p.split_from())) * thread_block / p.plan.threads_blocks);
}

template <typename T>
FASTCCSA_HOST_DEVICE int thread_block_of_unit(const Fused<T>& p, int unit) {
  if (p.plan.share != nullptr) return find(p.plan.share, p.plan.threads_blocks, unit);
  const int64_t units = first_unit(p, p.row_blocks() - p.split_from());
  return int(((unit + int64_t(1)) * p.plan.threads_blocks - 1) / units);
}

// A range of units of a block of rows, and where the sum of its gradients goes.
struct Segment {
  int block;
  int begin, end;  // units
  int slot;        // of the partial sums; -1: the segment is the whole block of rows
};

// Goes through the segments of a block of threads. All its threads compute the same.
template <typename T>
class Segments {
 public:
  FASTCCSA_HOST_DEVICE Segments(const Fused<T>& p, int thread_block)
      : p_(p), me_(thread_block), wave_(0), unit_(share(p, thread_block)), end_(share(p, thread_block + 1)) {}

  FASTCCSA_HOST_DEVICE bool next(Segment& s) {
    if (wave_ < p_.plan.waves) {
      s.block = wave_++ * p_.plan.threads_blocks + me_;
      s.begin = 0;
      s.end = units_of(p_, row_block(p_, s.block));
      s.slot = -1;
      return true;
    }
    if (unit_ >= end_) return false;
    const int of = block_of_unit(p_, unit_), first = first_unit(p_, of), units = first_unit(p_, of + 1) - first;
    s.block = p_.split_from() + of;
    s.begin = unit_ - first;
    s.end = end_ - first < units ? end_ - first : units;
    s.slot = s.begin > 0 ? 2 * me_ : s.end < units ? 2 * me_ + 1 : -1;
    unit_ += s.end - s.begin;
    return true;
  }

 private:
  const Fused<T>& p_;
  const int me_;
  int wave_, unit_;
  const int end_;
};

}  // namespace fastccsa::all_pairs::cuda

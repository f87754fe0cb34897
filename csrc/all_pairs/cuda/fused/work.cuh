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
// `of` numbers the blocks of rows that may be cut, from split_from() on, and `unit` their units. Divisions are of 32
// bits, because those of 64 bits take a GPU longer than reading memory.

template <typename T>
FASTCCSA_HOST_DEVICE int first_unit(const Fused<T>& p, int of) {
  if (p.plan.first_unit != nullptr) return p.plan.first_unit[of];
  const int of_first = p.side[0].blocks - p.split_from();  // blocks of rows of side 0; less than 0: there are none
  if (of_first <= 0) return of * p.plan.units[1];
  return of < of_first ? of * p.plan.units[0] : of_first * p.plan.units[0] + (of - of_first) * p.plan.units[1];
}

template <typename T>
FASTCCSA_HOST_DEVICE int block_of_unit(const Fused<T>& p, int unit) {
  if (p.plan.first_unit != nullptr) return find(p.plan.first_unit, p.row_blocks() - p.split_from(), unit);
  const int of_first = p.side[0].blocks - p.split_from() > 0 ? p.side[0].blocks - p.split_from() : 0;
  const int units = of_first * p.plan.units[0];
  return unit < units ? unit / p.plan.units[0] : of_first + (unit - units) / p.plan.units[1];
}

// The first unit of a block of threads, or the number of units. Unsorted: the first ones have one unit more.
template <typename T>
FASTCCSA_HOST_DEVICE int share(const Fused<T>& p, int thread_block) {
  if (p.plan.share != nullptr) return p.plan.share[thread_block];
  const int each = p.plan.split_units / p.plan.threads_blocks, more = p.plan.split_units % p.plan.threads_blocks;
  return thread_block * each + (thread_block < more ? thread_block : more);
}

template <typename T>
FASTCCSA_HOST_DEVICE int thread_block_of_unit(const Fused<T>& p, int unit) {
  if (p.plan.share != nullptr) return find(p.plan.share, p.plan.threads_blocks, unit);
  const int each = p.plan.split_units / p.plan.threads_blocks, more = p.plan.split_units % p.plan.threads_blocks;
  const int of_more = more * (each + 1);
  return unit < of_more ? unit / (each + 1) : more + (unit - of_more) / each;
}

// A range of units of a block of rows, and where the sum of its gradients goes.
struct Segment {
  int block;
  int begin, end;  // units
  int first;       // the unit to begin with; after the last one follows `begin`
  int slot;        // of the partial sums; -1: the segment is the whole block of rows

  // The unit after `unit`.
  FASTCCSA_HOST_DEVICE int after(int unit) const { return unit + 1 < end ? unit + 1 : begin; }
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
      s.first = p_.plan.window > 0 && s.end > p_.plan.window ? me_ % p_.plan.window : 0;
      s.slot = -1;
      return true;
    }
    if (unit_ >= end_) return false;
    const int of = block_of_unit(p_, unit_), first = first_unit(p_, of), units = first_unit(p_, of + 1) - first;
    s.block = p_.split_from() + of;
    s.begin = s.first = unit_ - first;
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

// Augmentation on CUDA. A block computes a few tiles of one image that lie below each other, each of up to kRows rows
// and kColumns columns. It finds out once which part of the crop that takes, and with which weights.
//
// For each tile it first blends the crop's rows under each row of the tile: a thread reads four bytes at a time and
// writes four floats to shared memory. Then each thread resamples one column of half of the rows. If the result is not
// contiguous along the rows of the tile, it goes through shared memory as well, so that the block always writes whole
// sectors of 32 bytes.
#pragma once

#include "augment/cuda_write.cuh"

#include <type_traits>

namespace fastccsa::augment::cuda {

constexpr int kFewTaps = 3;  // per pixel, along one axis: enough up to a shrink of 1.5
constexpr int kGroups = 4;   // of rows that are blended together
constexpr int kRowsOfGroup = kRows / kGroups;
constexpr int kSpan = 176;  // the maximum number of the crop's columns under one tile
constexpr int kPitch = kChannels * kSpan + 4;  // the distance of two blended rows in shared memory

// The maximum number of tiles of a block. Many taps fill the shared memory with those of one tile.
template <int kTaps>
constexpr int kMostTiles = kTaps == kFewTaps ? 4 : 1;

// Calls `function(k)` for all taps: in an unrolled loop over kFewTaps, or else for the `count` that there are.
template <int kTaps, typename Function>
__device__ void for_each_tap(int count, Function function) {
  if constexpr (kTaps == kFewTaps) {
#pragma unroll
    for (int k = 0; k < kTaps; ++k) function(k);
  } else {
    for (int k = 0; k < count; ++k) function(k);
  }
}

static_assert(kPitch * kRows * sizeof(float) >= kStage, "the results also fit into the memory of the blended rows");

// The weights of a pixel's taps, with a sum of 1.
template <int kTaps>
struct Weights {
  float of[kTaps];
  int first, count;

  __device__ static Weights at(const Filter& filter, int position) {
    const Taps taps = filter.at(position);
    Weights weights;
    weights.first = taps.first;
    weights.count = taps.count;
    float sum = 0;
    for_each_tap<kTaps>(taps.count, [&](int k) {
      weights.of[k] = k < taps.count ? filter.weight(taps, k) : 0.0f;
      sum += weights.of[k];
    });
    const float normaliser = 1 / sum;
    for_each_tap<kTaps>(taps.count, [&](int k) { weights.of[k] *= normaliser; });
    return weights;
  }

  // The sample of a tap. A tap that this pixel does not have repeats the last one, with the weight 0.
  __device__ int sample(int k) const { return first + (k < count ? k : count - 1); }
};

// ---- blending ----

// The bytes of the crop under a tile.
struct Region {
  const uint8_t* corner;  // of the window's first row
  const uint8_t* end;     // of the store
  int words;              // of four bytes per row; the last one may reach beyond the row
};

// How a region can be read.
enum class Access : int {
  kWords,    // in words: all of its rows begin at multiples of 4 bytes
  kShifted,  // in pairs of words, which are within the store
  kBytes,    // only byte by byte, at the end of the store
};

template <Access access>
__device__ inline uint32_t four_bytes(const uint8_t* from, const uint8_t* end) {
  if constexpr (access == Access::kWords) {
    return *reinterpret_cast<const uint32_t*>(from);
  } else if constexpr (access == Access::kShifted) {
    const unsigned shift = unsigned(reinterpret_cast<uintptr_t>(from) % 4);
    const uint32_t* words = reinterpret_cast<const uint32_t*>(from - shift);
    return uint32_t(((uint64_t(words[1]) << 32) | words[0]) >> (8 * shift));
  } else {
    uint32_t value = 0;
    for (int j = 0; j < 4; ++j) value |= from + j < end ? uint32_t(from[j]) << (8 * j) : 0u;
    return value;
  }
}

// sums += weight * byte j of `bytes`. A byte in the lowest bits of 2^23 is quicker than a conversion.
__device__ inline void add_bytes(float weight, uint32_t bytes, float (&sums)[4]) {
  constexpr float kTwoTo23 = 8388608.0f;
#pragma unroll
  for (int j = 0; j < 4; ++j) {
    const uint32_t bits = __byte_perm(bytes, 0x4b000000u, 0x7440u + j);
    float value;
    memcpy(&value, &bits, sizeof value);
    sums[j] += weight * (value - kTwoTo23);
  }
}

// The taps of a row of the tile, with the distances in bytes of their samples from the window's first row.
template <int kTaps>
struct alignas(16) RowTaps {
  float of[kTaps];
  int count;
  // Few taps are used only if no distance in a crop exceeds an int: see launch.cuh.
  std::conditional_t<kTaps == kFewTaps, int, int64_t> distance[kTaps];

  __device__ void set(const Weights<kTaps>& weights, int64_t stride) {
    count = weights.count;
    for_each_tap<kTaps>(count, [&](int k) {
      of[k] = weights.of[k];
      distance[k] = weights.sample(k) * stride;
    });
  }
};

// Blends the window's rows under each row of the tile. `blended` begins at the region's corner. If kUsed is not 0, no
// row has more taps than that. A thread takes a word of each row of a group; the groups follow each other without a
// gap, so that nearly all threads are busy whatever the number of words.
template <int kUsed, Access access, int kTaps>
__device__ void blend_rows(const RowTaps<kTaps>* rows, const Region& region, float* blended) {
  for (int item = threadIdx.x; item < kGroups * region.words; item += kThreads) {
    int group = 0, word = item;
#pragma unroll
    for (int g = 1; g < kGroups; ++g) {
      if (word < region.words) break;
      word -= region.words;
      ++group;
    }
    const RowTaps<kTaps>* own = rows + group * kRowsOfGroup;
    const uint8_t* from = region.corner + 4 * word;
    float sums[kRowsOfGroup][4] = {};
    if constexpr (kUsed > 0) {
      uint32_t bytes[kRowsOfGroup][kUsed];  // all loads are under way before the first one is used
#pragma unroll
      for (int r = 0; r < kRowsOfGroup; ++r) {
#pragma unroll
        for (int k = 0; k < kUsed; ++k) bytes[r][k] = four_bytes<access>(from + own[r].distance[k], region.end);
      }
#pragma unroll
      for (int r = 0; r < kRowsOfGroup; ++r) {
#pragma unroll
        for (int k = 0; k < kUsed; ++k) {
          if (k < 2 || k < own[r].count) add_bytes(own[r].of[k], bytes[r][k], sums[r]);
        }
      }
    } else {
#pragma unroll
      for (int r = 0; r < kRowsOfGroup; ++r) {
        for (int k = 0; k < own[r].count; ++k) {
          add_bytes(own[r].of[k], four_bytes<access>(from + own[r].distance[k], region.end), sums[r]);
        }
      }
    }
#pragma unroll
    for (int r = 0; r < kRowsOfGroup; ++r) {
      Words words;
      memcpy(&words, sums[r], sizeof words);
      *reinterpret_cast<Words*>(blended + (group * kRowsOfGroup + r) * kPitch + 4 * word) = words;
    }
  }
}

template <Access access, int kTaps>
__device__ void blend_as(const RowTaps<kTaps>* rows, const Region& region, float* blended) {
  if constexpr (kTaps != kFewTaps) {
    blend_rows<0, access>(rows, region, blended);
  } else if (__ballot_sync(0xffffffffu, rows[threadIdx.x % kRows].count > 2) == 0) {
    blend_rows<2, access>(rows, region, blended);
  } else {
    blend_rows<kFewTaps, access>(rows, region, blended);
  }
}

template <int kTaps>
__device__ void blend(Access access, const RowTaps<kTaps>* rows, const Region& region, float* blended) {
  if (access == Access::kWords) {
    blend_as<Access::kWords>(rows, region, blended);
  } else if (access == Access::kShifted) {
    blend_as<Access::kShifted>(rows, region, blended);
  } else {
    blend_as<Access::kBytes>(rows, region, blended);
  }
}

// ---- resampling ----

// Resamples one column of kRowsOfThread rows, the first of which is `blended`.
template <int kTaps>
__device__ void resample(const Weights<kTaps>& column, int first_column, const float* blended, Pixels& sums) {
#pragma unroll
  for (int c = 0; c < kChannels; ++c) {
#pragma unroll
    for (int r = 0; r < kRowsOfThread; ++r) sums.of[c][r] = 0;
  }
  const bool two_taps = kTaps == kFewTaps && __ballot_sync(0xffffffffu, column.count > 2) == 0;
  for_each_tap<kTaps>(column.count, [&](int k) {
    if (k == 2 && two_taps) return;
    const float weight = column.of[k];
    const float* from = blended + kChannels * (column.sample(k) - first_column);
#pragma unroll
    for (int r = 0; r < kRowsOfThread; ++r) {
#pragma unroll
      for (int c = 0; c < kChannels; ++c) sums.of[c][r] += weight * from[r * kPitch + c];
    }
  });
}

// ---- the kernel ----

template <typename T>
__device__ void write_nan(const Batch<T>& p, T* image, const Tile& tile) {
  for (int x = tile.begin + int(threadIdx.x); x < tile.end; x += kThreads) {
    for (int r = 0; r < tile.rows * kChannels; ++r) {
      store(image[r % kChannels * p.channel_stride + (tile.y + r / kChannels) * p.row_stride + x * p.column_stride],
            float(CUDART_NAN));
    }
  }
}

// What all threads of a block need to know.
struct Plan {
  bool good;  // the view is within bounds
  View view;
  Filter horizontal;
  int first;       // the first column of the crop under the tiles
  int words;       // per row of the region
  int64_t corner;  // of the region, in bytes of the store
};

template <typename T>
__device__ Plan plan_of(const Batch<T>& p, int64_t i, const Tile& tile) {
  const Request request = request_of(p, i);
  Plan plan;
  plan.good = check_view(p, request) == Fault::kNone;
  if (!plan.good) return plan;
  plan.view = view_of(request);
  plan.horizontal = plan.view.horizontal(p.size);
  // The crop's columns under the tile. The first one is a multiple of 4, and so is then its byte in the row.
  const Taps a = plan.horizontal.at(tile.begin), b = plan.horizontal.at(tile.end - 1);
  const int a_last = a.first + a.count, b_last = b.first + b.count;
  const int left = plan.view.window.left, last = left + (a_last > b_last ? a_last : b_last);
  plan.first = (left + (a.first < b.first ? a.first : b.first)) / 4 * 4;
  plan.words = (kChannels * (last - plan.first) + 3) / 4;
  plan.corner = kChannels * ((plan.view.row * p.side + plan.view.window.top) * p.side + plan.first);
  return plan;
}

// The grid: tiles across, groups of `tiles` tiles down, images. Tiles have `columns` columns. `aligned_rows` says that
// rows of the store begin at multiples of 4 bytes.
template <typename T, int kTaps>
__global__ void __launch_bounds__(kThreads, 4)
    augment_kernel(Batch<T> p, int columns, int tiles, Layout layout, bool aligned_rows) {
  alignas(16) __shared__ float blended[kRows * kPitch];
  __shared__ RowTaps<kTaps> rows[kMostTiles<kTaps> * kRows];
  __shared__ Weights<kTaps> of_columns[kColumns];
  __shared__ Plan plan;
  const int64_t i = blockIdx.z;
  const int first_tile = blockIdx.y * tiles, all_tiles = (p.size + kRows - 1) / kRows;
  const int end_tile = first_tile + tiles < all_tiles ? first_tile + tiles : all_tiles;
  const Tile first = tile_of(blockIdx.x, first_tile, p.size, columns);
  T* image = p.image(i);
  const int64_t stride = int64_t(kChannels) * p.side;
  if (int(threadIdx.x) < tiles * kRows) {
    const Plan own = plan_of(p, i, first);
    if (own.good) {  // behind the image's last row, that row is computed again
      const int y = first.y + int(threadIdx.x), last = p.size - 1;
      rows[threadIdx.x].set(Weights<kTaps>::at(own.view.vertical(p.size), y < last ? y : last), stride);
    }
    if (threadIdx.x == 0) plan = own;
  }
  __syncthreads();
  if (!plan.good) {
    for (int down = first_tile; down < end_tile; ++down) {
      write_nan(p, image, tile_of(blockIdx.x, down, p.size, columns));
    }
    return;
  }
  const Region region{p.store + plan.corner, p.store + p.crops * p.side * stride, plan.words};
  const Access access =
      aligned_rows ? Access::kWords
      : region.corner + (plan.view.window.height - 1) * stride + 4 * region.words + 4 <= region.end ? Access::kShifted
                                                                                                    : Access::kBytes;
  const int column = threadIdx.x % kColumns, group = threadIdx.x / kColumns, x = first.begin + column;
  if (group == 0) of_columns[column] = Weights<kTaps>::at(plan.horizontal, x < first.end ? x : first.begin);
  for (int down = first_tile; down < end_tile; ++down) {
    const Tile tile = tile_of(blockIdx.x, down, p.size, columns);
    if (down > first_tile) __syncthreads();  // the last tile was written from `blended`
    blend(access, rows + (down - first_tile) * kRows, region, blended);
    __syncthreads();
    Pixels pixels;
    resample(of_columns[column], plan.first - plan.view.window.left, blended + group * kRowsOfThread * kPitch, pixels);
    const bool transposed = plan.view.transposed;
    finish(p, transposed, plan.view.cutout, tile.y + group * kRowsOfThread, x, pixels);
    write(p, layout, transposed, image, tile, column, group, pixels, blended);
  }
}

}  // namespace fastccsa::augment::cuda

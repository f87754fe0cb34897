#include "emulator/tensor_core.h"

#include "core/half.h"

#include <algorithm>
#include <cstring>
#include <limits>

// These loops over registers and tiles need no checks, which would slow them down many times.
#define EMULATOR_INNER_LOOP __attribute__((no_sanitize("address", "thread", "undefined")))

namespace emulator {
namespace {

constexpr uint32_t kAllLanes = 0xffffffffu;
constexpr int kDepth = 16;  // of every product
constexpr int kRows = 16;   // of a warp

// Values are passed on as their bits.
using Bits = uint16_t;

float to_float(Bits bits, bool is_half) {
  return is_half ? fastccsa::to_float(fastccsa::half{bits}) : fastccsa::to_float(fastccsa::bfloat16{bits});
}

// D += A B: A is [kRows, kDepth], B is [kDepth, columns], D is [kRows, columns], columns is a multiple of 8.
EMULATOR_INNER_LOOP void multiply_and_add(const float* a, const float* b, float* d, int columns) {
  for (int row = 0; row < kRows; ++row) {
    for (int first = 0; first < columns; first += 8) {
      float sum[8];
      for (int j = 0; j < 8; ++j) sum[j] = d[row * columns + first + j];
      for (int k = 0; k < kDepth; ++k) {
        const float factor = a[row * kDepth + k];
        for (int j = 0; j < 8; ++j) sum[j] += factor * b[k * columns + first + j];
      }
      for (int j = 0; j < 8; ++j) d[row * columns + first + j] = sum[j];
    }
  }
}

// The lane's part of A, a fragment of four registers, goes to or comes from its place in the matrix.
EMULATOR_INNER_LOOP void unpack_a(const uint32_t* registers, unsigned lane, bool is_half, float* a) {
  const unsigned g = lane / 4, t = lane % 4;
  for (unsigned i = 0; i < 4; ++i) {
    float* const to = a + (g + i % 2 * 8) * kDepth + 2 * t + i / 2 * 8;
    to[0] = to_float(Bits(registers[i]), is_half);
    to[1] = to_float(Bits(registers[i] >> 16), is_half);
  }
}

// Calls visit(i, row, column) for each accumulator i of a lane.
template <typename Visit>
EMULATOR_INNER_LOOP void for_each_accumulator(unsigned lane, int columns, Visit visit) {
  const int g = int(lane / 4), t = int(lane % 4);
  for (int i = 0; i < columns / 2; ++i) visit(i, g + i / 2 % 2 * 8, i / 4 * 8 + 2 * t + i % 2);
}

struct Multiplication {
  float* d;
  const uint32_t *a, *b;
  bool is_half;
};

EMULATOR_INNER_LOOP const char* multiply_warp(void* const* arguments, uint32_t) {
  constexpr int kColumns = 8;
  float a[kRows * kDepth], b[kDepth * kColumns], d[kRows * kColumns];
  for (unsigned lane = 0; lane < kWarpSize; ++lane) {
    const Multiplication& own = *static_cast<const Multiplication*>(arguments[lane]);
    const unsigned g = lane / 4, t = lane % 4;
    unpack_a(own.a, lane, own.is_half, a);
    for (unsigned i = 0; i < 2; ++i) {
      float* const to = b + (2 * t + i * 8) * kColumns + g;
      to[0] = to_float(Bits(own.b[i]), own.is_half);
      to[kColumns] = to_float(Bits(own.b[i] >> 16), own.is_half);
    }
    for_each_accumulator(lane, kColumns, [&](int i, int row, int column) { d[row * kColumns + column] = own.d[i]; });
  }
  multiply_and_add(a, b, d, kColumns);
  for (unsigned lane = 0; lane < kWarpSize; ++lane) {
    const Multiplication& own = *static_cast<const Multiplication*>(arguments[lane]);
    for_each_accumulator(lane, kColumns, [&](int i, int row, int column) { own.d[i] = d[row * kColumns + column]; });
  }
  return nullptr;
}

struct Distribution {
  const void* row;
  uint32_t* r;
  bool transposed;
};

EMULATOR_INNER_LOOP const char* distribute(void* const* arguments, uint32_t) {
  Bits matrices[4][8][8];
  for (unsigned lane = 0; lane < kWarpSize; ++lane) {
    std::memcpy(matrices[lane / 8][lane % 8], static_cast<const Distribution*>(arguments[lane])->row, 16);
  }
  for (unsigned lane = 0; lane < kWarpSize; ++lane) {
    const Distribution& own = *static_cast<const Distribution*>(arguments[lane]);
    const unsigned g = lane / 4, t = lane % 4;
    for (unsigned i = 0; i < 4; ++i) {
      const auto& m = matrices[i];
      const Bits low = own.transposed ? m[2 * t][g] : m[g][2 * t];
      const Bits high = own.transposed ? m[2 * t + 1][g] : m[g][2 * t + 1];
      own.r[i] = uint32_t(high) << 16 | low;
    }
  }
  return nullptr;
}

struct Collection {
  const uint32_t* r;
  void* row;
};

EMULATOR_INNER_LOOP const char* collect(void* const* arguments, uint32_t) {
  Bits matrices[4][8][8];
  for (unsigned lane = 0; lane < kWarpSize; ++lane) {
    const Collection& own = *static_cast<const Collection*>(arguments[lane]);
    for (unsigned i = 0; i < 4; ++i) {
      matrices[i][lane / 4][lane % 4 * 2] = Bits(own.r[i]);
      matrices[i][lane / 4][lane % 4 * 2 + 1] = Bits(own.r[i] >> 16);
    }
  }
  for (unsigned lane = 0; lane < kWarpSize; ++lane) {
    std::memcpy(static_cast<const Collection*>(arguments[lane])->row, matrices[lane / 8][lane % 8], 16);
  }
  return nullptr;
}

// ---- products of a warpgroup ----

// A matrix in shared memory: see core/matrix_descriptor.h.
class Matrix {
 public:
  explicit Matrix(uint64_t descriptor) : descriptor_(descriptor) {}

  bool is_swizzled_by_128_bytes() const { return descriptor_ >> 62 == 1; }

  // The address of eight values: of a row, and columns k to k + 7 of the inner dimension.
  uint32_t k_major(uint32_t row, uint32_t k) const {
    return swizzle(start() + row / 8 * stride() + row % 8 * 128 + k * 2);
  }

  // The address of eight values: of columns `column` to `column` + 7, and row k of the inner dimension.
  uint32_t mn_major(uint32_t column, uint32_t k) const {
    return swizzle(start() + column / 64 * leading() + k / 8 * stride() + k % 8 * 128 + column % 64 * 2);
  }

 private:
  uint32_t start() const { return uint32_t(descriptor_ & 0x3fff) << 4; }
  uint32_t leading() const { return uint32_t(descriptor_ >> 16 & 0x3fff) << 4; }
  uint32_t stride() const { return uint32_t(descriptor_ >> 32 & 0x3fff) << 4; }
  static uint32_t swizzle(uint32_t address) { return address ^ (address >> 3 & 0x70); }

  uint64_t descriptor_;
};

constexpr uint32_t kChunk = 8;  // values that are neighbours in memory
constexpr size_t kChunkBytes = kChunk * sizeof(Bits);

// Calls visit(address, first, k) for each chunk of B; `first` is its column, or that of its first value.
template <typename Visit>
void for_each_chunk_of_b(const Product& product, Visit visit) {
  const Matrix b(product.b);
  if (product.b_mn_major) {
    for (uint32_t k = 0; k < kDepth; ++k) {
      for (uint32_t n = 0; n < uint32_t(product.columns); n += kChunk) visit(b.mn_major(n, k), n, k);
    }
  } else {
    for (uint32_t n = 0; n < uint32_t(product.columns); ++n) {
      for (uint32_t k = 0; k < kDepth; k += kChunk) visit(b.k_major(n, k), n, k);
    }
  }
}

// Calls visit(address, row, k) for each chunk of the warp's 16 rows of A in shared memory; `row` and `k` are those of
// its first value.
template <typename Visit>
void for_each_chunk_of_a(const Product& product, uint32_t first_row, Visit visit) {
  const Matrix a(product.a);
  if (product.a_mn_major) {
    for (uint32_t k = 0; k < kDepth; ++k) {
      for (uint32_t row = 0; row < kRows; row += kChunk) visit(a.mn_major(first_row + row, k), row, k);
    }
    return;
  }
  for (uint32_t row = 0; row < kRows; ++row) {
    for (uint32_t k = 0; k < kDepth; k += kChunk) visit(a.k_major(first_row + row, k), row, k);
  }
}

// The first of the warp's rows of A and D.
uint32_t first_row() { return coordinates().thread.x / kWarpSize % 4 * kRows; }

// Notes that a product reads its matrices; the lanes of a warp share them.
void note_reads(const Product& product, Site site) {
  const SharedMemory& shared = shared_memory();
  unsigned chunk = 0;
  const auto note = [&](uint32_t address, uint32_t, uint32_t) {
    if (chunk++ % kWarpSize == lane()) read_by_proxy(shared.at(address, kChunkBytes, site), kChunkBytes);
  };
  if (!product.a_in_registers) for_each_chunk_of_a(product, first_row(), note);
  for_each_chunk_of_b(product, note);
}

struct Finish {
  Started* started;
  const SharedMemory* shared;
  uint32_t first_row;  // of the warp
  size_t count;        // products to complete
  Site site;
};

bool same(const Product& p, const Product& q) {
  return p.columns == q.columns && p.is_half == q.is_half && p.a_in_registers == q.a_in_registers &&
         p.a_mn_major == q.a_mn_major && p.b_mn_major == q.b_mn_major && p.accumulate == q.accumulate && p.b == q.b &&
         (p.a_in_registers || p.a == q.a);
}

EMULATOR_INNER_LOOP void load_chunk(const SharedMemory& shared, uint32_t address, Site site, bool is_half, float* to,
                                    size_t step) {
  Bits chunk[kChunk];
  std::memcpy(chunk, shared.at(address, kChunkBytes, site), sizeof chunk);
  for (size_t j = 0; j < kChunk; ++j) to[j * step] = to_float(chunk[j], is_half);
}

EMULATOR_INNER_LOOP const char* finish_warp(void* const* arguments, uint32_t) {
  constexpr int kMostColumns = 256;
  static thread_local float a[kRows * kDepth], b[kDepth * kMostColumns], d[kRows * kMostColumns];
  const Finish& first = *static_cast<const Finish*>(arguments[0]);
  for (size_t p = 0; p < first.count; ++p) {
    const Product& model = first.started->products[p];
    const int columns = model.columns;
    for (unsigned lane = 0; lane < kWarpSize; ++lane) {
      const Finish& own = *static_cast<const Finish*>(arguments[lane]);
      if (own.count != first.count || !same(own.started->products[p], model)) {
        return "the lanes of a warp started different products";
      }
      const Product& product = own.started->products[p];
      if (product.a_in_registers) unpack_a(product.registers, lane, product.is_half, a);
      const float* const values = own.started->accumulators.at(product.d).values.data();
      for_each_accumulator(lane, columns, [&](int i, int row, int column) {
        d[row * columns + column] = product.accumulate ? values[i] : 0;
      });
    }
    if (!model.a_in_registers) {
      for_each_chunk_of_a(model, first.first_row, [&](uint32_t address, uint32_t row, uint32_t k) {
        const size_t step = model.a_mn_major ? kDepth : 1;
        load_chunk(*first.shared, address, first.site, model.is_half, a + row * kDepth + k, step);
      });
    }
    for_each_chunk_of_b(model, [&](uint32_t address, uint32_t n, uint32_t k) {
      const size_t step = model.b_mn_major ? 1 : size_t(columns);
      load_chunk(*first.shared, address, first.site, model.is_half, b + k * columns + n, step);
    });
    multiply_and_add(a, b, d, columns);
    for (unsigned lane = 0; lane < kWarpSize; ++lane) {
      Started& started = *static_cast<const Finish*>(arguments[lane])->started;
      float* const values = started.accumulators.at(started.products[p].d).values.data();
      for_each_accumulator(lane, columns, [&](int i, int row, int column) { values[i] = d[row * columns + column]; });
    }
  }
  return nullptr;
}

}  // namespace

void distribute_matrices(const void* row, bool transposed, uint32_t* r, Site site) {
  Distribution own{row, r, transposed};
  collective(kAllLanes, distribute, &own, site);
}

void collect_matrices(const uint32_t* r, void* row, Site site) {
  Collection own{r, row};
  collective(kAllLanes, collect, &own, site);
}

void multiply(bool is_half, float* d, const uint32_t* a, const uint32_t* b, Site site) {
  Multiplication own{d, a, b, is_half};
  collective(kAllLanes, multiply_warp, &own, site);
}

void start_product(Product product, Site site) {
  Started& own = started();
  const bool swizzled = Matrix(product.b).is_swizzled_by_128_bytes() &&
                        (product.a_in_registers || Matrix(product.a).is_swizzled_by_128_bytes());
  if (!swizzled) fail("only descriptors with a swizzle of 128 bytes are emulated", site);
  note_reads(product, site);  // it may read from now on until the thread has waited
  Accumulators& accumulators = own.accumulators[product.d];
  if (accumulators.pending == 0) {
    if (!own.fenced) fail("wgmma_fence() must precede the first product, and the first after a wait", site);
    accumulators.values.assign(product.d, product.d + product.columns / 2);
    std::fill_n(product.d, product.columns / 2, std::numeric_limits<float>::quiet_NaN());
  }
  ++accumulators.pending;
  product.group = own.product_group;
  own.products.push_back(product);
  ++own.issued;
}

void finish_products(unsigned pending, Site site) {
  Started& own = started();
  size_t count = 0;
  while (count < own.products.size() && own.products[count].group + pending < own.product_group) ++count;
  for (size_t p = 0; p < count; ++p) note_reads(own.products[p], site);
  Finish finish{&own, &shared_memory(), first_row(), count, site};
  collective(kAllLanes, finish_warp, &finish, site);
  for (size_t p = 0; p < count; ++p) {
    const auto found = own.accumulators.find(own.products[p].d);
    if (--found->second.pending > 0) continue;
    std::copy(found->second.values.begin(), found->second.values.end(), found->first);
    own.accumulators.erase(found);
  }
  own.products.erase(own.products.begin(), own.products.begin() + std::ptrdiff_t(count));
  if (count > 0) own.fenced = false;
}

}  // namespace emulator

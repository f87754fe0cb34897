// What a thread has started and not yet waited for: asynchronous copies and products of its warpgroup.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <vector>

namespace emulator {

// A copy to shared memory. It has read its source, and writes when the thread waits for it.
struct Copy {
  unsigned char* to;
  unsigned char content[16];
  size_t bytes;
  unsigned group;
};

// D += A B or D = A B, of 64 rows, 16 products each. Each warp computes 16 rows.
struct Product {
  float* d;
  int columns;
  bool is_half;            // not bfloat16
  bool a_in_registers;     // else in shared memory
  bool a_mn_major;         // else K-major
  bool b_mn_major;         // else K-major
  bool accumulate;
  uint32_t registers[4];   // A
  uint64_t a, b;           // descriptors
  unsigned group;
};

// The values of a thread's accumulators while products are pending. The variable itself is NaN until then.
struct Accumulators {
  std::vector<float> values;
  int pending = 0;
};

struct Started {
  std::vector<Copy> copies;
  unsigned copy_group = 0;  // the number of the group that is still open

  std::vector<Product> products;
  std::map<float*, Accumulators> accumulators;
  unsigned product_group = 0;
  bool fenced = false;     // since the thread last waited for products
  unsigned issued = 0;     // products so far
};

}  // namespace emulator

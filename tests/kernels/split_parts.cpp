// Reads floats from stdin. Writes the parts of each: one and two of TF32, and one, two and three of bfloat16, all as
// floats.
#include "emulator/device.h"
#include "all_pairs/cuda/split_kernel.cuh"

#include <cstdio>

using namespace fastccsa::all_pairs::cuda;

namespace {

template <typename P>
void write_parts(float value) {
  const P parts = split<P>(value);
  for (const auto& part : parts.part) {
    const float number = load(part);
    std::fwrite(&number, sizeof number, 1, stdout);
  }
  std::fwrite(&value, sizeof value, 1, stdout);  // now the sum of the parts
}

}  // namespace

int main() {
  for (float value; std::fread(&value, sizeof value, 1, stdin) == 1;) {
    write_parts<Tf32>(value);
    write_parts<Tf32x3>(value);
    write_parts<Bfloat16>(value);
    write_parts<Bf16x3>(value);
    write_parts<Bf16x6>(value);
  }
}

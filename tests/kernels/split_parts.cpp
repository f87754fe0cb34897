// Reads floats from stdin. Writes the parts of each: one and two of TF32, and one, two and three of bfloat16, all as
// floats.
#include "emulator/device.h"
#include "all_pairs/cuda/split_kernel.cuh"

#include <cstdio>

using namespace fastccsa::all_pairs::cuda;

namespace {

// Parts are made for two values at once; the second is another one.
template <typename P>
void write_parts(float value) {
  float values[2] = {value, 1.5f};
  Several<typename P::Part, 2> parts[P::kParts];
  split<P>(values, parts);
  for (const auto& part : parts) {
    typename P::Part first;
    std::memcpy(&first, &part, sizeof first);
    const float number = load(first);
    std::fwrite(&number, sizeof number, 1, stdout);
  }
  std::fwrite(values, sizeof *values, 1, stdout);  // now the sum of the parts
}

}  // namespace

int main() {
  for (float value; std::fread(&value, sizeof value, 1, stdin) == 1;) {
    write_parts<Tf32>(value);
    write_parts<Bfloat16>(value);
    write_parts<Bf16x3>(value);
    write_parts<Bf16x6>(value);
  }
}

// Reads floats from stdin. Writes them as bfloat16 and as half, then all 65536 bfloat16 and all halves as floats.
#include "core/half.h"

#include <cstdio>
#include <vector>

using namespace fastccsa;

int main() {
  std::vector<float> input;
  for (float value; std::fread(&value, sizeof value, 1, stdin) == 1;) input.push_back(value);
  for (float value : input) {
    const bfloat16 converted = to_bfloat16(value);
    std::fwrite(&converted, sizeof converted, 1, stdout);
  }
  for (float value : input) {
    const half converted = to_half(value);
    std::fwrite(&converted, sizeof converted, 1, stdout);
  }
  for (uint32_t bits = 0; bits < 65536; ++bits) {
    const float converted = to_float(bfloat16{uint16_t(bits)});
    std::fwrite(&converted, sizeof converted, 1, stdout);
  }
  for (uint32_t bits = 0; bits < 65536; ++bits) {
    const float converted = to_float(half{uint16_t(bits)});
    std::fwrite(&converted, sizeof converted, 1, stdout);
  }
}

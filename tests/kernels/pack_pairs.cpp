// Reads floats from stdin. Writes, as bfloat16 and then as half, each pair of them packed and the rounded values; and
// then the reciprocal square root of each.
#include "core/tensor_core.cuh"

#include <cstdio>
#include <vector>

using namespace fastccsa;

template <typename T>
void write_pairs(const std::vector<float>& values) {
  for (size_t i = 0; i + 1 < values.size(); i += 2) {
    float low = values[i], high = values[i + 1];
    const uint32_t packed = cuda::pack_pair<T>(low, high);
    std::fwrite(&packed, sizeof packed, 1, stdout);
    std::fwrite(&low, sizeof low, 1, stdout);
    std::fwrite(&high, sizeof high, 1, stdout);
  }
}

int main() {
  std::vector<float> values;
  for (float value; std::fread(&value, sizeof value, 1, stdin) == 1;) values.push_back(value);
  write_pairs<bfloat16>(values);
  write_pairs<half>(values);
  for (float value : values) {
    const float root = cuda::reciprocal_square_root(value);
    std::fwrite(&root, sizeof root, 1, stdout);
  }
}

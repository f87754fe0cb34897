// Reads floats from stdin. Writes the two TF32 parts of each.
#include "all_pairs/cuda/tf32.h"

#include <cstdio>

int main() {
  for (float value; std::fread(&value, sizeof value, 1, stdin) == 1;) {
    const auto parts = fastccsa::all_pairs::cuda::split_tf32(value);
    std::fwrite(&parts, sizeof parts, 1, stdout);
  }
}

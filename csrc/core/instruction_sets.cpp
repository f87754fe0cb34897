#include "core/instruction_sets.h"

#include <cstdlib>
#include <string_view>

namespace fastccsa {
namespace {

Isa detect() {
#if defined(FASTCCSA_X86)
  const char* variable = std::getenv("FASTCCSA_ISA");
  const std::string_view requested = variable != nullptr ? variable : "";
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  if (requested == "portable" || !avx2) return Isa::portable;
  return avx512 && requested != "avx2" ? Isa::avx512 : Isa::avx2;
#else
  return Isa::portable;
#endif
}

}  // namespace

Isa isa() {
  static const Isa detected = detect();
  return detected;
}

const char* name_of(Isa isa) { return isa == Isa::avx512 ? "avx512" : isa == Isa::avx2 ? "avx2" : "portable"; }

}  // namespace fastccsa

// The instruction sets that the CPU kernels are compiled for, and the choice among them at run time.
#pragma once

#include <type_traits>

namespace fastccsa {

// When a kernel is compiled, FASTCCSA_ISA is one of these names.
enum class Isa { portable, avx2, avx512 };

// Returns the best one that the processor supports, or a lesser one that the environment variable FASTCCSA_ISA names.
Isa isa();

// "portable", "avx2" or "avx512".
const char* name_of(Isa isa);

// Calls `choose` with isa() as a std::integral_constant, and returns its result.
template <typename Choose>
auto for_this_processor(Choose choose) {
#if defined(FASTCCSA_X86)
  if (isa() == Isa::avx512) return choose(std::integral_constant<Isa, Isa::avx512>());
  if (isa() == Isa::avx2) return choose(std::integral_constant<Isa, Isa::avx2>());
#endif
  return choose(std::integral_constant<Isa, Isa::portable>());
}

}  // namespace fastccsa

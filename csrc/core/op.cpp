// Binds what all ops on the CPU share to torch: the instruction set, and recycled memory for large tensors.
#include "core/instruction_sets.h"
#include "core/recycled_memory.h"
#include "core/torch_binding.h"
#include "core/torch_large_tensor.h"

namespace fastccsa {
namespace {

Tensor large_empty_like(Tensor like) {
  return with_type(like, "like", [&](auto t) {
    return large_empty({like.size(0), like.size(1)}, like.scalar_type(), sizeof(t), like);
  });
}

std::string instruction_set() { return name_of(isa()); }

int64_t set_cpu_cache_limit(int64_t bytes) { return int64_t(recycled::set_limit(std::size_t(bytes))); }

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(fastccsa, CPU, m) { m.impl("large_empty_like", TORCH_BOX(&large_empty_like)); }

STABLE_TORCH_LIBRARY_IMPL(fastccsa, CompositeExplicitAutograd, m) {
  m.impl("instruction_set", TORCH_BOX(&instruction_set));
  m.impl("set_cpu_cache_limit", TORCH_BOX(&set_cpu_cache_limit));
}

}  // namespace fastccsa

// The functions that fastccsa/sampling/_sampler.py calls. It allocates the results and converts the arguments;
// fastccsa.sampling validates them. The checks here only keep memory accesses in bounds.

#include <cstdint>
#include <memory>
#include <utility>

#include "core/c_interface.h"
#include "sampler/pair_sampler.h"

namespace fastccsa::sampler {
namespace {

constexpr const char* kOutsideTheEpoch = "positions [begin, end) must lie in the epoch";

bool lies_in(std::uint64_t begin, std::uint64_t end, std::uint64_t size) { return begin <= end && end <= size; }

}  // namespace

FASTCCSA_C_FUNCTION std::uint64_t fastccsa_sampler_max_size() { return Permutation::kMaxSize; }

// Writes one block of Philox4x32-10: four words from a counter (4 words) and a key (2 words).
FASTCCSA_C_FUNCTION void fastccsa_sampler_philox(const std::uint32_t* counter, const std::uint32_t* key,
                                                 std::uint32_t* words) {
  const PhiloxCounter block = philox4x32({counter[0], counter[1], counter[2], counter[3]}, {key[0], key[1]});
  for (int word = 0; word < 4; ++word) words[word] = block[word];
}

// Writes uniform numbers in [0, 1): [rows, count].
FASTCCSA_C_FUNCTION const char* fastccsa_sampler_uniforms(std::uint64_t seed, std::uint32_t stream,
                                                          std::uint32_t epoch, const std::int64_t* positions,
                                                          std::uint64_t rows, std::uint64_t count, double* out) {
  if (stream >= kPermutationStream) return "stream must be below 65535";
  if (count > kMaxWords) return "count must be at most 131072";
  const Draws draws(seed, stream, epoch);
  for (std::uint64_t row = 0; row < rows; ++row) {
    for (std::uint64_t column = 0; column < count; column += 2) {
      const auto words = draws.block(static_cast<std::uint64_t>(positions[row]), static_cast<std::uint32_t>(column / 2));
      *out++ = unit(words[0]);
      if (column + 1 < count) *out++ = unit(words[1]);
    }
  }
  return nullptr;
}

// Writes the elements [begin, end) of the epoch's permutation of 0..size-1.
FASTCCSA_C_FUNCTION const char* fastccsa_sampler_permute(std::uint64_t size, std::uint64_t seed, std::uint32_t epoch,
                                                         std::uint64_t begin, std::uint64_t end, std::int64_t* out) {
  if (size > Permutation::kMaxSize) return "size must be at most MAX_SIZE";
  if (!lies_in(begin, end, size)) return kOutsideTheEpoch;
  Permutation(size, seed, epoch).elements(begin, end, out);
  return nullptr;
}

// Makes a sampler, which the caller must delete.
FASTCCSA_C_FUNCTION const char* fastccsa_sampler_new(const std::uint32_t* group_of, std::uint64_t images,
                                                     std::uint64_t domains, std::uint64_t classes,
                                                     std::uint64_t primary, double match_probability, bool different,
                                                     PairSampler** sampler) {
  if (domains == 0 || classes == 0 || primary >= domains) return "primary must be one of the domains";
  const std::uint64_t groups = domains * classes;
  for (std::uint64_t image = 0; image < images; ++image) {
    if (group_of[image] >= groups) return "group_of must be below domains * classes";
  }
  return reason_of_failure([&] {
    CompactArray compact(images, groups - 1);
    for (std::uint64_t image = 0; image < images; ++image) compact.set(image, group_of[image]);
    const Policy policy{primary, match_probability, different ? Negatives::kDifferent : Negatives::kAny};
    *sampler = new PairSampler(ImageGroups(std::move(compact), groups), classes, policy);
  });
}

FASTCCSA_C_FUNCTION void fastccsa_sampler_delete(PairSampler* sampler) { delete sampler; }

// Writes the pairs at the positions [begin, end) of an epoch: [2, end - begin].
FASTCCSA_C_FUNCTION const char* fastccsa_sampler_pairs(const PairSampler* sampler, std::uint64_t seed,
                                                       std::uint32_t epoch, std::uint64_t begin, std::uint64_t end,
                                                       std::int64_t* pairs) {
  if (!lies_in(begin, end, sampler->groups().images())) return kOutsideTheEpoch;
  return reason_of_failure([&] { sampler->pairs(seed, epoch, begin, end, pairs, pairs + (end - begin)); });
}

// Writes the number of images of each group.
FASTCCSA_C_FUNCTION void fastccsa_sampler_counts(const PairSampler* sampler, std::int64_t* counts) {
  const ImageGroups& groups = sampler->groups();
  for (std::uint64_t group = 0; group < groups.groups(); ++group) {
    counts[group] = static_cast<std::int64_t>(groups.count({group, group + 1}));
  }
}

// Writes the group of each image.
FASTCCSA_C_FUNCTION void fastccsa_sampler_groups(const PairSampler* sampler, std::uint32_t* group_of) {
  const ImageGroups& groups = sampler->groups();
  for (std::uint64_t image = 0; image < groups.images(); ++image) {
    group_of[image] = static_cast<std::uint32_t>(groups.group_of(image));
  }
}

FASTCCSA_C_FUNCTION std::uint64_t fastccsa_sampler_nbytes(const PairSampler* sampler) {
  return sampler->groups().nbytes();
}

}  // namespace fastccsa::sampler

// Draws the two images of the pair at each position of an epoch.
//
// The first image, x1, follows a permutation of all images. The second, x2, comes from a secondary domain
// that is drawn in proportion to its size: with the match probability it is an image of x1's class, else an
// image of another class (or of any class). x2 is x1 itself only if no other image qualifies.

#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "sampler/draws.h"
#include "sampler/image_groups.h"
#include "sampler/permutation.h"

namespace fastccsa::sampler {

enum class Negatives { kDifferent, kAny };

struct Policy {
  std::uint64_t primary;  // domain
  double match_probability;
  Negatives negatives;
};

class PairSampler {
 public:
  // Group d * classes + y has the images of class y in domain d. Drawing pairs needs images in the primary domain and
  // in another domain, and images of two classes unless every pair is a match or negatives may be of any class.
  PairSampler(ImageGroups groups, std::uint64_t classes, Policy policy);

  const ImageGroups& groups() const { return groups_; }
  std::uint64_t classes() const { return classes_; }
  const Policy& policy() const { return policy_; }

  // Writes the pairs at the positions [begin, end) of an epoch: a pure function of its arguments.
  void pairs(std::uint64_t seed, std::uint32_t epoch, std::uint64_t begin, std::uint64_t end,
             std::int64_t* first, std::int64_t* second) const;

 private:
  class Candidates;

  std::uint64_t draw_secondary(std::uint64_t word) const;
  void gather_match(std::uint64_t secondary, std::uint64_t label, Candidates& candidates) const;
  void gather_different(std::uint64_t secondary, std::uint64_t label, Candidates& candidates) const;
  void gather_any(std::uint64_t secondary, Candidates& candidates) const;

  GroupRange of_class(std::uint64_t domain, std::uint64_t label) const {
    return {domain * classes_ + label, domain * classes_ + label + 1};
  }
  GroupRange of_domain(std::uint64_t domain) const {
    return {domain * classes_, (domain + 1) * classes_};
  }

  ImageGroups groups_;
  std::uint64_t classes_;
  std::uint64_t domains_;
  Policy policy_;
  std::vector<std::uint64_t> secondary_ends_;  // [domains] images of the secondary domains up to and including each
};

}  // namespace fastccsa::sampler

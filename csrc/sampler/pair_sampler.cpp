#include "sampler/pair_sampler.h"

#include <algorithm>
#include <utility>

namespace fastccsa::sampler {

// The images from which x2 is drawn: ranges of groups, without x1.
class PairSampler::Candidates {
 public:
  explicit Candidates(const ImageGroups& groups) : groups_(groups) {}

  // Empties the candidates, for another x1.
  void start(std::uint64_t first, std::uint64_t group) {
    first_ = first;
    first_group_ = group;
    clear();
  }

  void clear() {
    ranges_.clear();
    total_ = 0;
    with_first_ = 0;
  }

  void add(GroupRange range) {
    ranges_.push_back(range);
    total_ += groups_.count(range);
    with_first_ += range.contains(first_group_) ? 1 : 0;
  }

  bool empty() const { return total_ == with_first_; }

  // If x1 is one of n candidates, a place is drawn among the first n - 1, and if it is the place of x1, the last image
  // is taken instead. All other images are equally likely, and the place of x1 need not be known.
  std::uint64_t draw(std::uint64_t word) const {
    const std::uint64_t image = at(below(word, total_ - with_first_));
    return with_first_ == 1 && image == first_ ? at(total_ - 1) : image;
  }

 private:
  std::uint64_t at(std::uint64_t place) const {
    auto range = ranges_.begin();
    while (place >= groups_.count(*range)) {
      place -= groups_.count(*range++);
    }
    return groups_.image(*range, place);
  }

  const ImageGroups& groups_;
  std::vector<GroupRange> ranges_;
  std::uint64_t first_ = 0;
  std::uint64_t first_group_ = 0;
  std::uint64_t total_ = 0;
  std::uint64_t with_first_ = 0;  // 1 if x1 is counted in total_
};

PairSampler::PairSampler(ImageGroups groups, std::uint64_t classes, Policy policy)
    : groups_(std::move(groups)),
      classes_(classes),
      domains_(groups_.groups() / classes),
      policy_(policy) {
  std::uint64_t end = 0;
  for (std::uint64_t domain = 0; domain < domains_; ++domain) {
    end += domain == policy_.primary ? 0 : groups_.count(of_domain(domain));
    secondary_ends_.push_back(end);
  }
}

void PairSampler::pairs(std::uint64_t seed, std::uint32_t epoch, std::uint64_t begin, std::uint64_t end,
                        std::int64_t* first, std::int64_t* second) const {
  Permutation(groups_.images(), seed, epoch).elements(begin, end, first);
  const Draws draws(seed, kPairStream, epoch);
  Candidates candidates(groups_);
  for (std::uint64_t position = begin; position < end; ++position) {
    const auto x1 = static_cast<std::uint64_t>(*first++);
    const auto [domain_word, match_word] = draws.block(position, 0);
    const std::uint64_t image_word = draws.block(position, 1)[0];
    const std::uint64_t secondary = draw_secondary(domain_word);

    const std::uint64_t group = groups_.group_of(x1);
    candidates.start(x1, group);
    if (unit(match_word) < policy_.match_probability) {
      gather_match(secondary, group % classes_, candidates);
    } else if (policy_.negatives == Negatives::kDifferent) {
      gather_different(secondary, group % classes_, candidates);
    } else {
      gather_any(secondary, candidates);
    }
    const std::uint64_t x2 = candidates.empty() ? x1 : candidates.draw(image_word);
    *second++ = static_cast<std::int64_t>(x2);
  }
}

// Draws the domain of an image, uniformly over the images of all secondary domains.
std::uint64_t PairSampler::draw_secondary(std::uint64_t word) const {
  const std::uint64_t place = below(word, secondary_ends_.back());
  const auto found = std::upper_bound(secondary_ends_.begin(), secondary_ends_.end(), place);
  return static_cast<std::uint64_t>(found - secondary_ends_.begin());
}

// Adds the class in the secondary domain, else in the primary, else in any domain; x1 may be its only image.
void PairSampler::gather_match(std::uint64_t secondary, std::uint64_t label,
                               Candidates& candidates) const {
  candidates.add(of_class(secondary, label));
  if (candidates.empty()) {
    candidates.clear();
    candidates.add(of_class(policy_.primary, label));
  }
  if (candidates.empty()) {
    candidates.clear();
    for (std::uint64_t domain = 0; domain < domains_; ++domain) {
      candidates.add(of_class(domain, label));
    }
  }
}

// Adds the other classes in the secondary domain, else in the primary, else in any domain.
void PairSampler::gather_different(std::uint64_t secondary, std::uint64_t label,
                                   Candidates& candidates) const {
  const auto add_others = [&](std::uint64_t domain) {
    candidates.add({of_domain(domain).begin, of_class(domain, label).begin});
    candidates.add({of_class(domain, label).end, of_domain(domain).end});
  };
  add_others(secondary);
  if (candidates.empty()) {
    candidates.clear();
    add_others(policy_.primary);
  }
  if (candidates.empty()) {
    candidates.clear();
    for (std::uint64_t domain = 0; domain < domains_; ++domain) {
      add_others(domain);
    }
  }
}

// Adds the secondary domain or, if x1 is its only image, the primary.
void PairSampler::gather_any(std::uint64_t secondary, Candidates& candidates) const {
  candidates.add(of_domain(secondary));
  if (candidates.empty()) {
    candidates.clear();
    candidates.add(of_domain(policy_.primary));
  }
}

}  // namespace fastccsa::sampler

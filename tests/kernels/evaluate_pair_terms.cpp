// Evaluates core/pair_term.h. Reads pairs of four doubles from stdin: squared distance, whether the classes are equal,
// weight and margin. Writes alignment, separation and coefficient of all pairs: one by one and then in vectors, both in
// float32, then both in float64.
#define FASTCCSA_ISA portable
#include "core/pair_term.h"
#include "core/simd.h"

#include <cstdio>
#include <vector>

using namespace fastccsa;

namespace {

struct Pair {
  double squared_distance, same_class, weight, margin;
};

template <typename Acc>
void write(Acc alignment, Acc separation, Acc coefficient) {
  const Acc values[] = {alignment, separation, coefficient};
  std::fwrite(values, sizeof values, 1, stdout);
}

template <typename Acc>
void one_by_one(const std::vector<Pair>& pairs) {
  for (const Pair& pair : pairs) {
    const auto term = pair_term(Acc(pair.squared_distance), pair.same_class != 0, Acc(pair.weight), Acc(pair.margin));
    write(term.alignment, term.separation, term.coefficient);
  }
}

// One lane of each vector is the pair itself; the other lanes are its neighbours.
template <typename Acc>
void in_vectors(const std::vector<Pair>& pairs) {
  constexpr int kLanes = portable::Simd<Acc>::kLanes;
  for (size_t i = 0; i < pairs.size(); ++i) {
    const size_t own = i % kLanes;
    portable::vector_t<Acc> squared_distance{}, same_class{}, weight{};
    for (size_t lane = 0; lane < kLanes; ++lane) {
      const Pair& pair = pairs[(i + lane + pairs.size() - own) % pairs.size()];
      squared_distance[lane] = Acc(pair.squared_distance);
      same_class[lane] = Acc(pair.same_class);
      weight[lane] = Acc(pair.weight);
    }
    const auto term = pair_term(squared_distance, same_class > Acc(0), weight, Acc(pairs[i].margin));
    write<Acc>(term.alignment[own], term.separation[own], term.coefficient[own]);
  }
}

}  // namespace

int main() {
  std::vector<Pair> pairs;
  for (Pair pair; std::fread(&pair, sizeof pair, 1, stdin) == 1;) pairs.push_back(pair);
  one_by_one<float>(pairs);
  in_vectors<float>(pairs);
  one_by_one<double>(pairs);
  in_vectors<double>(pairs);
}

// The Python module fastccsa.sampling._sampler, which takes and returns numpy arrays and does not use torch.
// fastccsa.sampling validates the arguments; the checks here only keep memory accesses in bounds.

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstdint>
#include <stdexcept>
#include <utility>

#include "sampler/pair_sampler.h"

namespace py = pybind11;

namespace fastccsa::sampler {
namespace {

using IndexArray = py::array_t<std::int64_t>;
using ContiguousIndexArray = py::array_t<std::int64_t, py::array::c_style | py::array::forcecast>;
using GroupArray = py::array_t<std::uint32_t, py::array::c_style | py::array::forcecast>;

void require(bool condition, const char* message) {
  if (!condition) throw std::invalid_argument(message);
}

void require_span(std::uint64_t begin, std::uint64_t end, std::uint64_t size) {
  require(begin <= end && end <= size, "positions [begin, end) must lie in the epoch");
}

py::array_t<double> uniforms(std::uint64_t seed, std::uint32_t stream, std::uint32_t epoch,
                             const ContiguousIndexArray& positions, std::uint64_t count) {
  require(positions.ndim() == 1, "positions must be one-dimensional");
  require(stream < kPermutationStream, "stream must be below 65535");
  require(count <= kMaxWords, "count must be at most 131072");
  const auto rows = static_cast<std::uint64_t>(positions.size());
  py::array_t<double> result({rows, count});
  const std::int64_t* position = positions.data();
  double* out = result.mutable_data();
  {
    py::gil_scoped_release release;
    const Draws draws(seed, stream, epoch);
    for (std::uint64_t row = 0; row < rows; ++row) {
      for (std::uint64_t column = 0; column < count; column += 2) {
        const auto words = draws.block(static_cast<std::uint64_t>(position[row]),
                                       static_cast<std::uint32_t>(column / 2));
        *out++ = unit(words[0]);
        if (column + 1 < count) *out++ = unit(words[1]);
      }
    }
  }
  return result;
}

IndexArray permute(std::uint64_t size, std::uint64_t seed, std::uint32_t epoch, std::uint64_t begin,
                   std::uint64_t end) {
  require(size <= Permutation::kMaxSize, "size must be at most MAX_SIZE");
  require_span(begin, end, size);
  IndexArray result(static_cast<py::ssize_t>(end - begin));
  std::int64_t* out = result.mutable_data();
  {
    py::gil_scoped_release release;
    const Permutation permutation(size, seed, epoch);
    for (std::uint64_t position = begin; position < end; ++position) {
      *out++ = static_cast<std::int64_t>(permutation(position));
    }
  }
  return result;
}

PairSampler make_pair_sampler(const GroupArray& group_of, std::uint64_t domains, std::uint64_t classes,
                              std::uint64_t primary, double match_probability, bool different) {
  require(group_of.ndim() == 1, "group_of must be one-dimensional");
  require(domains > 0 && classes > 0 && primary < domains, "primary must be one of the domains");
  const std::uint64_t groups = domains * classes;
  const auto images = static_cast<std::size_t>(group_of.size());
  const std::uint32_t* group = group_of.data();
  py::gil_scoped_release release;
  CompactArray compact(images, groups - 1);
  for (std::size_t image = 0; image < images; ++image) {
    require(group[image] < groups, "group_of must be below domains * classes");
    compact.set(image, group[image]);
  }
  const Policy policy{primary, match_probability, different ? Negatives::kDifferent : Negatives::kAny};
  return PairSampler(ImageGroups(std::move(compact), groups), classes, policy);
}

std::pair<IndexArray, IndexArray> pairs(const PairSampler& sampler, std::uint64_t seed,
                                        std::uint32_t epoch, std::uint64_t begin, std::uint64_t end) {
  require_span(begin, end, sampler.groups().images());
  const auto size = static_cast<py::ssize_t>(end - begin);
  IndexArray first(size);
  IndexArray second(size);
  std::int64_t* first_out = first.mutable_data();
  std::int64_t* second_out = second.mutable_data();
  {
    py::gil_scoped_release release;
    sampler.pairs(seed, epoch, begin, end, first_out, second_out);
  }
  return {std::move(first), std::move(second)};
}

// Counts the images of each domain and class, [domains, classes].
IndexArray counts(const PairSampler& sampler) {
  const ImageGroups& groups = sampler.groups();
  IndexArray result({groups.groups() / sampler.classes(), sampler.classes()});
  for (std::uint64_t group = 0; group < groups.groups(); ++group) {
    result.mutable_data()[group] = static_cast<std::int64_t>(groups.count({group, group + 1}));
  }
  return result;
}

// Returns the arguments of make_pair_sampler, for pickling.
py::tuple arguments(const PairSampler& sampler) {
  const ImageGroups& groups = sampler.groups();
  GroupArray group_of(static_cast<py::ssize_t>(groups.images()));
  for (std::uint64_t image = 0; image < groups.images(); ++image) {
    group_of.mutable_data()[image] = static_cast<std::uint32_t>(groups.group_of(image));
  }
  const Policy& policy = sampler.policy();
  return py::make_tuple(group_of, groups.groups() / sampler.classes(), sampler.classes(), policy.primary,
                        policy.match_probability, policy.negatives == Negatives::kDifferent);
}

PairSampler from_arguments(const py::tuple& state) {
  return make_pair_sampler(state[0].cast<GroupArray>(), state[1].cast<std::uint64_t>(),
                           state[2].cast<std::uint64_t>(), state[3].cast<std::uint64_t>(),
                           state[4].cast<double>(), state[5].cast<bool>());
}

}  // namespace

PYBIND11_MODULE(_sampler, module) {
  module.attr("MAX_SIZE") = Permutation::kMaxSize;
  module.doc() = "Counter-based random numbers and the core of the pair sampler.";

  module.def("philox4x32", &philox4x32, py::arg("counter"), py::arg("key"),
             "One block of Philox4x32-10: four 32-bit words from a counter (4 words) and a key (2 words).");
  module.def("uniforms", &uniforms, py::arg("seed"), py::arg("stream"), py::arg("epoch"),
             py::arg("positions"), py::arg("count"),
             "Uniform numbers in [0, 1), float64 [len(positions), count], a pure function of the arguments.\n\n"
             "Each row depends only on (seed, stream, epoch, its position), and a larger count only adds columns.\n"
             "stream is the purpose: 0 for pairs, 1 and 2 for the augmentation of first and second images.");
  module.def("permute", &permute, py::arg("size"), py::arg("seed"), py::arg("epoch"), py::arg("begin"),
             py::arg("end"),
             "Elements [begin, end) of the epoch's permutation of 0..size-1, int64.");

  py::class_<PairSampler>(module, "PairSampler", "The core of fastccsa.sampling.PairSampler.")
      .def(py::init(&make_pair_sampler), py::arg("group_of"), py::arg("domains"), py::arg("classes"),
           py::arg("primary"), py::arg("match_probability"), py::arg("different"))
      .def("pairs", &pairs, py::arg("seed"), py::arg("epoch"), py::arg("begin"), py::arg("end"),
           "The pairs at positions [begin, end) of an epoch: two int64 arrays of image indices.")
      .def("counts", &counts, "Images of each domain and class, int64 [domains, classes].")
      .def(py::pickle(&arguments, &from_arguments))
      .def_property_readonly(
          "nbytes", [](const PairSampler& sampler) { return sampler.groups().nbytes(); },
          "The number of bytes that the sampler keeps for all images.");
}

}  // namespace fastccsa::sampler

// Binds the loss over all pairs to torch: checks the tensors, allocates the results, and runs the kernels of their
// device.
#include "all_pairs/cpu/cpu.h"
#include "all_pairs/cuda/precision.h"
#include "all_pairs/values.h"
#include "core/torch_check.h"
#include "core/torch_fault.h"
#include "core/torch_large_tensor.h"
#include "core/torch_parallel.h"
#include "core/torch_views.h"
#if defined(FASTCCSA_CUDA)
#include "all_pairs/cuda/cuda.h"
#include "all_pairs/cuda/fused/fused.h"
#include "all_pairs/cuda/fused/parts_cuda.h"
#include "all_pairs/cuda/fused/parts_run.h"
#include "all_pairs/cuda/fused/run.h"
#include "all_pairs/cuda/sweep.h"
#include "core/torch_blas.h"
#include "core/torch_stream.h"
#endif

#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <limits>
#include <tuple>
#include <type_traits>

namespace fastccsa::all_pairs {
namespace {

// ---- what the caller passed ----

struct Arguments {
  Tensor features[2], target[2];
  MaybeTensor weight;
  int64_t labels;
  double margin;
  bool mean;
  int64_t output_mask;
  bool per_term;
  std::string precision, method;

  bool needs_gradient(int side) const { return output_mask >> side & 1; }
};

// Returns the position of `value` in `choices`.
template <size_t kCount>
int64_t choice(const char* name, const std::string& value, const char* const (&choices)[kCount]) {
  std::string known;
  for (size_t k = 0; k < kCount; ++k) {
    if (value == choices[k]) return int64_t(k);
    known += (k == 0 ? "'" : ", '") + std::string(choices[k]) + "'";
  }
  fail(name, " is '", value, "'; choose one of ", known);
}

// Checks everything except the tensors' values.
template <typename T>
void check(const Arguments& a) {
  const Tensor& first = a.features[0];
  const ScalarType type = first.scalar_type();
#if defined(FASTCCSA_CUDA)
  const bool supported = first.is_cpu() || first.is_cuda();
#else
  const bool supported = first.is_cpu();
#endif
  if (!supported) fail("features1 is on ", device_of(first), ", but this build has no kernels for pairs='all' there");
  check_tensor("features1", first, first, type, 2);
  check_tensor("features2", a.features[1], first, type, 2);
  for (int side = 0; side < 2; ++side) check_tensor(kTarget[side], a.target[side], first, ScalarType::Long, 1);
  if (a.weight) check_tensor("pair_weight", *a.weight, first, kAccType<T>, 2);
  check_size("features2", a.features[1], 1, first.size(1), "the width of features1");
  check_size("target1", a.target[0], 0, first.size(0), "one label per row of features1");
  check_size("target2", a.target[1], 0, a.features[1].size(0), "one label per row of features2");
  if (!a.weight) return;
  if (a.weight->numel() == 0) fail("pair_weight has shape ", shape_of(*a.weight), ": there must be at least one class");
  for (int d = 0; d < 2; ++d) {
    check_size("pair_weight", *a.weight, d, a.labels > 0 ? a.labels : a.weight->size(0), "the number of classes");
  }
}

// ---- results and scratch ----

// The loss [], both terms [2], and the gradient of each side: [1, N, D] of the loss, [2, N, D] of the terms, or
// [0, N, D] if it was not requested.
using Result = std::tuple<Tensor, Tensor, Tensor, Tensor>;

template <typename T>
Tensor scratch(const Tensor& like, int64_t rows, int64_t columns) {
  return large_empty({rows, columns}, kAccType<T>, sizeof(acc_t<T>), like);
}

template <typename T>
Result make_result(const Arguments& a) {
  const auto gradient = [&](int side) {
    const Tensor& features = a.features[side];
    const int64_t planes = !a.needs_gradient(side) ? 0 : a.per_term ? 2 : 1;
    return large_empty({planes, features.size(0), features.size(1)}, kAccType<T>, sizeof(acc_t<T>), features);
  };
  return {empty({}, kAccType<T>, a.features[0]), empty({2}, kAccType<T>, a.features[0]), gradient(0), gradient(1)};
}

template <typename T>
Problem<T> problem_of(const Arguments& a, const Result& result) {
  using Acc = acc_t<T>;
  const auto& [loss, terms, gradient1, gradient2] = result;
  // A gradient has no elements if it was not requested, or if features have no columns.
  const auto needed = [](const Tensor& gradient) { return gradient.numel() == 0 ? nullptr : data_of<Acc>(gradient); };
  const int64_t rows[] = {a.features[0].size(0), a.features[1].size(0)};
  Problem<T> p{{matrix_view<const T>(a.features[0]), matrix_view<const T>(a.features[1])},
               {vector_view<const int64_t>(a.target[0]), vector_view<const int64_t>(a.target[1])},
               {rows[0], rows[1]},
               a.features[0].size(1),
               {},
               a.labels,
               Acc(a.margin),
               a.mean ? 1 / (double(rows[0]) * double(rows[1])) : 1.0,
               a.per_term,
               data_of<Acc>(loss),
               data_of<Acc>(terms),
               {needed(gradient1), needed(gradient2)}};
  if (a.weight) {
    p.weight = matrix_view<const Acc>(*a.weight);
    p.labels = a.weight->size(0);
  }
  return p;
}

// Without pairs: sums are 0, and means are NaN.
void fill_without_pairs(const Arguments& a, const Result& result) {
  const auto& [loss, terms, gradient1, gradient2] = result;
  const double value = a.mean ? std::numeric_limits<double>::quiet_NaN() : 0.0;
  torch::stable::fill_(loss, value);
  torch::stable::fill_(terms, value);
  torch::stable::fill_(gradient1, 0.0);
  torch::stable::fill_(gradient2, 0.0);
}

// ---- ways to compute it ----

constexpr const char* kMethods[] = {"auto",      "direct",       "products",        "fused",
                                    "fused_mma", "fused_sorted", "fused_mma_sorted", "stored",
                                    "stored_sorted", "streamed"};
enum class Method : int64_t {
  kAuto, kDirect, kProducts, kFused, kFusedMma, kFusedSorted, kFusedMmaSorted, kStored, kStoredSorted,
  kStreamed
};

// The largest number of pairs that `method` computes pair by pair, if this is faster for up to `few` pairs.
int64_t few_pairs(Method method, int64_t few) {
  return method == Method::kAuto ? few : method == Method::kDirect ? std::numeric_limits<int64_t>::max() : 0;
}

// Computes pair by pair on the CPU. The kernel needs contiguous features of the type of sums, so others are copied.
template <typename T>
void compute_pair_by_pair(const Problem<T>& p, const Tensor& like) {
  using Acc = acc_t<T>;
  const Problem<Acc> problem{{},       {p.label[0], p.label[1]}, {p.rows[0], p.rows[1]}, p.width, p.weight, p.labels,
                             p.margin, p.scale,                  p.per_term,             p.loss,  p.terms,
                             {p.gradient[0], p.gradient[1]}};
  Direct<Acc> direct{problem, nullptr, nullptr};
  MaybeTensor copies[2];
  for (int side = 0; side < 2; ++side) {
    const Matrix<const T>& features = p.features[side];
    if constexpr (std::is_same_v<T, Acc>) {
      direct.features[side] = features;
      if (features.column_stride == 1 && features.row_stride == p.width) continue;
    }
    copies[side] = scratch<T>(like, p.rows[side], p.width);
    Acc* const copy = data_of<Acc>(*copies[side]);
    cpu::copy_features(features, p.rows[side], p.width, copy, &parallel_for);
    direct.features[side] = {copy, p.width, 1};
  }
  const Tensor coefficient = scratch<T>(like, p.rows[0], p.rows[1]);
  const Tensor sums = empty({2, p.rows[0]}, ScalarType::Double, like);
  direct.coefficient = data_of<Acc>(coefficient);
  direct.sums = data_of<double>(sums);
  cpu::direct(direct, &parallel_for);
}

// Computes by matrix products on the CPU.
template <typename T>
void compute_in_panels(const Problem<T>& problem, const Tensor& like) {
  using Acc = acc_t<T>;
  const Problem<T> p = cpu::larger_side_first(problem);
  const cpu::PanelSizes sizes = cpu::panel_sizes(p);
  const Tensor packed1 = scratch<T>(like, 1, sizes.packed[0]), packed2 = scratch<T>(like, 1, sizes.packed[1]);
  const Tensor transposed = scratch<T>(like, 1, sizes.transposed), values = scratch<T>(like, 1, sizes.values);
  const bool needed1 = p.gradient[0] != nullptr, needed2 = p.gradient[1] != nullptr;
  const Tensor product1 = scratch<T>(like, needed1 ? p.rows[0] : 0, p.width);
  const Tensor product2 = scratch<T>(like, needed2 ? p.rows[1] : 0, p.width);
  cpu::panels(p,
              {{data_of<Acc>(packed1), data_of<Acc>(packed2)},
               data_of<Acc>(transposed),
               data_of<Acc>(values),
               {needed1 ? data_of<Acc>(product1) : nullptr, needed2 ? data_of<Acc>(product2) : nullptr}},
              &parallel_for);
}

template <typename T>
void compute_on_cpu(const Arguments& a, const Result& result, Method method) {
  const Problem<T> p = problem_of<T>(a, result);
  const FaultReport fault = first_fault(p.label, p.rows, p.labels, p.weight);
  if (fault.fault != Fault::kNone) fail_on(fault, p.labels, "");
  const int64_t pairs = p.rows[0] * p.rows[1];
  if (pairs == 0) return fill_without_pairs(a, result);
  if (pairs <= few_pairs(method, cpu::kFewPairs)) return compute_pair_by_pair(p, a.features[0]);
  compute_in_panels(p, a.features[0]);
}

#if defined(FASTCCSA_CUDA)
// The GPU that the sweep uses: the device of `like`, which must be the current one, with torch's current stream, memory
// and sort.
class TorchDevice {
 public:
  explicit TorchDevice(const Tensor& like) : like_(like), stream_(current_cuda_stream(like.get_device_index())) {}

  template <typename U>
  struct Buffer {
    MaybeTensor tensor;
    U* data() const { return tensor ? static_cast<U*>(tensor->data_ptr()) : nullptr; }
  };

  struct Sorted {
    Buffer<int64_t> values, order;
  };

  template <typename U>
  Buffer<U> allocate(int64_t count) const {
    if constexpr (std::is_same_v<U, int64_t>) return {empty({count}, ScalarType::Long, like_)};
    return {empty({count * int64_t(sizeof(U))}, ScalarType::Byte, like_)};
  }

  template <typename U>
  Buffer<U> zeros(int64_t count) const {
    const Buffer<U> buffer = allocate<U>(count);
    cuda::set_to_zero(buffer.data(), size_t(count) * sizeof(U), stream_);
    return buffer;
  }

  Sorted sort(const Buffer<int64_t>& labels, int64_t) const {
    using torch::stable::detail::from, torch::stable::detail::to;
    const std::optional<bool> stable = true;
    const int64_t dimension = 0;
    const bool descending = false;
    StableIValue stack[] = {from(*labels.tensor), from(stable), from(dimension), from(descending)};
    STABLE_TORCH_ERROR_CODE_CHECK(torch_call_dispatcher("aten::sort", "stable", stack, TORCH_ABI_VERSION));
    return {{to<Tensor>(stack[0])}, {to<Tensor>(stack[1])}};
  }

  template <typename Parameters>
  void run(const Parameters& p) const {
    cuda::run(p, stream_);
  }

  template <typename T>
  cuda::FusedVariant fused_variant(int64_t width, cuda::FusedChoice choice) const {
    return cuda::fused_variant<T>(width, choice);
  }
  template <typename T>
  void run_fused_prepare(const cuda::Fused<T>& p) const {
    cuda::run_fused_prepare(p, stream_);
  }
  template <typename T>
  void run_fused_ranks(const cuda::Fused<T>& p) const {
    cuda::run_fused_ranks(p, stream_);
  }
  template <typename T>
  void run_fused_main(const cuda::Fused<T>& p, cuda::FusedKernel kernel) const {
    cuda::run_fused_main(p, kernel, stream_);
  }
  template <typename T>
  void run_coefficients(const cuda::Fused<T>& p, const cuda::Stored<T>& part, cuda::FusedKernel kernel) const {
    cuda::run_coefficients(p, part, kernel, stream_);
  }
  template <typename T>
  void run_gradients(const cuda::Fused<T>& p, const cuda::Stored<T>& part, cuda::FusedKernel kernel,
                     int at_once) const {
    cuda::run_gradients(p, part, kernel, at_once, stream_);
  }
  template <typename T>
  void run_streamed(const cuda::Fused<T>& p) const {
    cuda::run_streamed(p, stream_);
  }
  template <typename T>
  void run_fused_finish(const cuda::Fused<T>& p) const {
    cuda::run_fused_finish(p, stream_);
  }

  int parts_multiprocessors() const { return cuda::parts_multiprocessors(); }
  template <typename P>
  void run_parts_coefficients(const cuda::PairsInBlocks<P>& p) const {
    cuda::run_parts_coefficients(p, stream_);
  }
  template <typename P>
  void run_parts_gradients(const cuda::PairsInBlocks<P>& p) const {
    cuda::run_parts_gradients(p, stream_);
  }

  Blas blas() {
    if (!blas_) blas_.emplace();
    return blas_->get();
  }

 private:
  const Tensor& like_;
  void* const stream_;
  std::optional<TorchBlas> blas_;
};

cuda::FusedOptions fused_options(Method method) {
  cuda::FusedOptions options;
  const bool mma = method == Method::kFusedMma || method == Method::kFusedMmaSorted;
  const bool stored = method == Method::kStored || method == Method::kStoredSorted;
  const bool sorted =
      method == Method::kFusedSorted || method == Method::kFusedMmaSorted || method == Method::kStoredSorted;
  if (stored) options.choice = cuda::FusedChoice::kStored;
  if (method == Method::kStreamed) options.choice = cuda::FusedChoice::kStreamed;
  if (mma) options.choice = cuda::FusedChoice::kMma;
  if (method != Method::kAuto) options.order = sorted ? cuda::FusedOrder::kSorted : cuda::FusedOrder::kAsGiven;
  return options;
}

template <typename T>
void compute_on_cuda(const Arguments& a, const Result& result, Method method, cuda::Precision precision) {
  const Problem<T> p = problem_of<T>(a, result);
  const torch::stable::accelerator::DeviceGuard guard(a.features[0].get_device_index());
  fail_on_earlier_fault(p.labels);
  if (p.rows[0] * p.rows[1] == 0) return fill_without_pairs(a, result);
  cuda::Options options;
  options.precision = precision;
  options.few_pairs = few_pairs(method, options.few_pairs);
  TorchDevice device(a.features[0]);
  if constexpr (sizeof(T) == 2) {
    const bool many = p.rows[0] * p.rows[1] > cuda::kFewPairsOf16Bits;
    const cuda::FusedOptions fused = fused_options(method);
    if ((method >= Method::kFused || (method == Method::kAuto && many)) && cuda::uses_fused_kernels(p, fused)) {
      return cuda::FusedLoss<T, TorchDevice>(device, p, fused).run();
    }
  }
  if constexpr (std::is_same_v<T, float>) {
    const bool many = method == Method::kAuto && std::min(p.rows[0], p.rows[1]) >= cuda::least_parts_rows(p.width);
    const bool stored = method == Method::kStored || method == Method::kStoredSorted;
    if ((many || stored) && cuda::has_parts_kernels(p.width, device.parts_multiprocessors())) {
      return cuda::compute_in_parts(device, p, precision);
    }
  }
  cuda::compute(device, p, options);
}
#endif

// ---- the op ----

Result all_pairs(Tensor features1, Tensor features2, Tensor target1, Tensor target2, MaybeTensor pair_weight,
                 int64_t labels, double margin, bool mean, int64_t output_mask, bool per_term, std::string precision,
                 std::string method) {
  const Arguments a{{features1, features2}, {target1, target2}, pair_weight, labels,    margin,
                    mean,                   output_mask,        per_term,    precision, method};
  return with_type(features1, "features1", [&](auto t) {
    using T = decltype(t);
    check<T>(a);
    [[maybe_unused]] const int64_t code = choice("precision", precision, cuda::kPrecisions);
    const Method way = Method(choice("method", method, kMethods));
    const Result result = make_result<T>(a);
    if (features1.is_cpu()) {
      compute_on_cpu<T>(a, result, way);
    } else {
#if defined(FASTCCSA_CUDA)
      compute_on_cuda<T>(a, result, way, cuda::Precision(code));
#endif
    }
    return result;
  });
}

}  // namespace

// One kernel serves every device; its checks raise an error for a device that this build does not support.
STABLE_TORCH_LIBRARY_IMPL(fastccsa, CompositeExplicitAutograd, m) {
  m.impl("all_pairs", TORCH_BOX(&all_pairs));
}

}  // namespace fastccsa::all_pairs

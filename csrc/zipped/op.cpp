// Binds the zipped loss to torch: checks the tensors, allocates the results, and calls the kernels of their device.
#include "core/torch_fault.h"
#include "core/torch_large_tensor.h"
#include "core/torch_parallel.h"
#include "zipped/cpu.h"
#if defined(FASTCCSA_CUDA)
#include "core/torch_stream.h"
#include "zipped/cuda.h"
#endif

#include <cstddef>
#include <tuple>
#include <type_traits>

namespace fastccsa::zipped {
namespace {

// ---- what the caller passed ----

struct Arguments {
  MaybeTensor logits[2], features[2], target[2], class_weight[2], pair_weight;
  double margin, alpha;
  int64_t reduction;
};

const char* const kLogits[] = {"logits1", "logits2"};
const char* const kFeatures[] = {"features1", "features2"};

// The first of logits and features that is there decides dtype and device.
const Tensor& leading(const Arguments& arguments) {
  for (const MaybeTensor* group : {arguments.logits, arguments.features}) {
    if (group[0]) return *group[0];
  }
  fail("neither logits1 nor features1 was given; pass at least one of them");
}

void check_tensor(const char* name, const Tensor& tensor, const Tensor& like, ScalarType type, int64_t dim) {
  if (tensor.dim() != dim) fail(name, " must have ", dim, dim == 1 ? " dimension" : " dimensions", ", but its shape is ", shape_of(tensor));
  if (tensor.scalar_type() != type) fail(name, " must be ", name_of(type), ", but it is ", name_of(tensor.scalar_type()));
  if (!on_one_device(tensor, like)) {
    fail(name, " is on ", device_of(tensor), ", but the other tensors are on ", device_of(like), "; move it there");
  }
}

void check_size(const char* name, const Tensor& tensor, int64_t d, int64_t expected, const char* why) {
  if (tensor.size(d) != expected) {
    fail(name, " has shape ", shape_of(tensor), ", but dimension ", d, " must be ", expected, " (", why, ")");
  }
}

// Kernels take nullptr for absent. A tensor without elements may have no memory either, but it is there: it gets an
// address that nobody reads.
template <typename T>
T* data_of(const Tensor& tensor) {
  void* data = tensor.data_ptr();
  return data != nullptr ? static_cast<T*>(data) : reinterpret_cast<T*>(alignof(std::max_align_t));
}

template <typename T>
Matrix<T> matrix(const Tensor& tensor) {
  return {data_of<T>(tensor), tensor.stride(0), tensor.stride(1)};
}

template <typename T>
Vector<T> vector(const Tensor& tensor) {
  return {data_of<T>(tensor), tensor.stride(0)};
}

template <typename T>
ScalarType acc_type_of() {
  return std::is_same_v<acc_t<T>, double> ? ScalarType::Double : ScalarType::Float;
}

// Checks everything that does not need the tensors' values.
template <typename T>
Inputs<T> inputs_of(const Arguments& arguments) {
  using Acc = acc_t<T>;
  const Tensor& first = leading(arguments);
  const ScalarType type = first.scalar_type(), acc_type = acc_type_of<T>();
  Inputs<T> in;
  in.pairs = first.dim() > 0 ? first.size(0) : 0;
  in.margin = Acc(arguments.margin);
  in.alpha = Acc(arguments.alpha);
  in.reduction = Reduction(arguments.reduction);

  for (int k = 0; k < 2; ++k) {
    if (!arguments.logits[k]) continue;
    const Tensor& logits = *arguments.logits[k];
    check_tensor(kLogits[k], logits, first, type, 2);
    check_size(kLogits[k], logits, 0, in.pairs, "a row a pair");
    if (k == 1) check_size(kLogits[k], logits, 1, in.classes, "as many classes as logits1");
    in.classes = in.labels = logits.size(1);
    if (in.classes == 0) fail(kLogits[k], " has shape ", shape_of(logits), ": there must be at least one class");
    in.logits[k] = matrix<const T>(logits);
  }
  if (bool(arguments.features[0]) != bool(arguments.features[1])) fail("features1 and features2 go together; only one was given");
  for (int k = 0; k < 2; ++k) {
    if (!arguments.features[k]) continue;
    const Tensor& features = *arguments.features[k];
    check_tensor(kFeatures[k], features, first, type, 2);
    check_size(kFeatures[k], features, 0, in.pairs, "a row a pair; streams of different lengths are for pairs='all'");
    if (k == 1) check_size(kFeatures[k], features, 1, in.width, "the width of features1");
    in.width = features.size(1);
    in.features[k] = matrix<const T>(features);
  }
  if (arguments.pair_weight) {
    const Tensor& weight = *arguments.pair_weight;
    check_tensor("pair_weight", weight, first, acc_type, 2);
    if (in.labels == 0) in.labels = weight.size(0);
    check_size("pair_weight", weight, 0, in.labels, "the number of classes");
    check_size("pair_weight", weight, 1, in.labels, "the number of classes");
    if (arguments.features[0]) in.pair_weight = matrix<const Acc>(weight);
  }
  for (int k = 0; k < 2; ++k) {
    const bool needed = arguments.logits[k] || arguments.features[0];
    if (needed && !arguments.target[k]) fail(kTarget[k], " is missing");
    if (!arguments.target[k]) continue;
    check_tensor(kTarget[k], *arguments.target[k], first, ScalarType::Long, 1);
    check_size(kTarget[k], *arguments.target[k], 0, in.pairs, "a label a pair");
    in.target[k] = vector<const int64_t>(*arguments.target[k]);
    if (!arguments.class_weight[k] || !arguments.logits[k]) continue;
    check_tensor(kClassWeight[k], *arguments.class_weight[k], first, acc_type, 1);
    check_size(kClassWeight[k], *arguments.class_weight[k], 0, in.classes, "the number of classes");
    in.class_weight[k] = vector<const Acc>(*arguments.class_weight[k]);
  }
  return in;
}

// ---- the ops ----

using ForwardResult = std::tuple<Tensor, Tensor, Tensor>;
using BackwardResult = std::tuple<Tensor, Tensor, Tensor, Tensor>;

template <typename T>
ForwardResult forward(const Arguments& arguments, const Tensor& first) {
  using Acc = acc_t<T>;
  const Inputs<T> in = inputs_of<T>(arguments);
  const ScalarType acc_type = acc_type_of<T>();
  const bool each = in.reduction == Reduction::kNone;
  Tensor loss = each ? empty({in.pairs}, acc_type, first) : empty({}, acc_type, first);
  Tensor terms = each ? empty({kTerms, in.pairs}, acc_type, first) : empty({kTerms}, acc_type, first);
  Tensor saved = empty({saved_size(in.pairs)}, acc_type, first);
  const Forward<T> p{in, static_cast<Acc*>(loss.data_ptr()), static_cast<Acc*>(terms.data_ptr()),
                     {static_cast<Acc*>(saved.data_ptr()), in.pairs}};
  if (first.is_cpu()) {
    const FaultReport report = cpu::forward(p, &parallel_for);
    if (report.fault != Fault::kNone) fail_on(report, in.labels, "");
  } else {
#if defined(FASTCCSA_CUDA)
    fail_on_earlier_fault(in.labels);
    const torch::stable::accelerator::DeviceGuard guard(first.get_device_index());
    cuda::forward(p, current_cuda_stream(first.get_device_index()));
#endif
  }
  return {loss, terms, saved};
}

template <typename T>
BackwardResult backward(const Arguments& arguments, const Tensor& first, const MaybeTensor& grad_loss,
                        const MaybeTensor& grad_terms, const Tensor& saved, int64_t wanted) {
  using Acc = acc_t<T>;
  const Inputs<T> in = inputs_of<T>(arguments);
  const ScalarType type = first.scalar_type(), acc_type = acc_type_of<T>();
  Backward<T> p{in, {}, {}, {static_cast<const Acc*>(saved.data_ptr()), in.pairs}, {}, {}};
  const bool each = in.reduction == Reduction::kNone;
  if (grad_loss) {
    check_tensor("grad_loss", *grad_loss, first, acc_type, each ? 1 : 0);
    p.grad_loss = {static_cast<const Acc*>(grad_loss->data_ptr()), each ? grad_loss->stride(0) : 0};
  }
  if (grad_terms) {
    check_tensor("grad_terms", *grad_terms, first, acc_type, each ? 2 : 1);
    p.grad_terms = {static_cast<const Acc*>(grad_terms->data_ptr()), grad_terms->stride(0), each ? grad_terms->stride(1) : 0};
  }
  const auto gradient = [&](int bit, const MaybeTensor& of, int64_t columns, T** data) {
    if (!of || !(wanted >> bit & 1)) return empty({0}, type, first);
    MaybeTensor recycled;
    if (first.is_cpu()) recycled = recycled_matrix(in.pairs, columns, number_of(type), sizeof(T));
    Tensor result = recycled ? *recycled : empty({in.pairs, columns}, type, first);
    *data = static_cast<T*>(result.data_ptr());
    return result;
  };
  Tensor logits1 = gradient(0, arguments.logits[0], in.classes, &p.grad_logits[0]);
  Tensor logits2 = gradient(1, arguments.logits[1], in.classes, &p.grad_logits[1]);
  Tensor features1 = gradient(2, arguments.features[0], in.width, &p.grad_features[0]);
  Tensor features2 = gradient(3, arguments.features[1], in.width, &p.grad_features[1]);
  if (first.is_cpu()) {
    cpu::backward(p, &parallel_for);
  } else {
#if defined(FASTCCSA_CUDA)
    const torch::stable::accelerator::DeviceGuard guard(first.get_device_index());
    cuda::backward(p, current_cuda_stream(first.get_device_index()));
#endif
  }
  return {logits1, logits2, features1, features2};
}

ForwardResult zipped_ccsa(MaybeTensor logits1, MaybeTensor logits2, MaybeTensor features1, MaybeTensor features2,
                          Tensor target1, MaybeTensor target2, MaybeTensor class_weight1, MaybeTensor class_weight2,
                          MaybeTensor pair_weight, double margin, double alpha, int64_t reduction) {
  const Arguments arguments{{logits1, logits2}, {features1, features2}, {target1, target2}, {class_weight1, class_weight2},
                            pair_weight, margin, alpha, reduction};
  const Tensor& first = leading(arguments);
  return with_type(first, logits1 ? kLogits[0] : kFeatures[0], [&](auto t) { return forward<decltype(t)>(arguments, first); });
}

BackwardResult zipped_ccsa_backward(MaybeTensor grad_loss, MaybeTensor grad_terms, Tensor saved, MaybeTensor logits1,
                                    MaybeTensor logits2, MaybeTensor features1, MaybeTensor features2, Tensor target1,
                                    MaybeTensor target2, MaybeTensor class_weight1, MaybeTensor class_weight2,
                                    MaybeTensor pair_weight, double margin, double alpha, int64_t reduction,
                                    int64_t wanted) {
  const Arguments arguments{{logits1, logits2}, {features1, features2}, {target1, target2}, {class_weight1, class_weight2},
                            pair_weight, margin, alpha, reduction};
  const Tensor& first = leading(arguments);
  return with_type(first, logits1 ? kLogits[0] : kFeatures[0], [&](auto t) {
    return backward<decltype(t)>(arguments, first, grad_loss, grad_terms, saved, wanted);
  });
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(fastccsa, CPU, m) {
  m.impl("zipped_ccsa", TORCH_BOX(&zipped_ccsa));
  m.impl("zipped_ccsa_forward", TORCH_BOX(&zipped_ccsa));
  m.impl("zipped_ccsa_backward", TORCH_BOX(&zipped_ccsa_backward));
}

#if defined(FASTCCSA_CUDA)
STABLE_TORCH_LIBRARY_IMPL(fastccsa, CUDA, m) {
  m.impl("zipped_ccsa", TORCH_BOX(&zipped_ccsa));
  m.impl("zipped_ccsa_forward", TORCH_BOX(&zipped_ccsa));
  m.impl("zipped_ccsa_backward", TORCH_BOX(&zipped_ccsa_backward));
}
#endif

}  // namespace fastccsa::zipped

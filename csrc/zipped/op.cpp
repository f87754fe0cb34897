// Binds the zipped loss to torch: checks the tensors, allocates the results, and calls the kernels of their device.
#include "core/torch_check.h"
#include "core/torch_fault.h"
#include "core/torch_large_tensor.h"
#include "core/torch_parallel.h"
#include "core/torch_views.h"
#include "zipped/cpu.h"
#if defined(FASTCCSA_CUDA)
#include "core/torch_stream.h"
#include "zipped/cuda.h"
#endif

#include <tuple>

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
const char* const kLeft[] = {"gradient1", "gradient2"};

// Returns the tensor that determines dtype and device: the first one of logits and features.
const Tensor& leading(const Arguments& arguments) {
  for (const MaybeTensor* group : {arguments.logits, arguments.features}) {
    if (group[0]) return *group[0];
  }
  fail("neither logits1 nor features1 was given; pass at least one of them");
}

// Checks everything except the tensors' values.
template <typename T>
Inputs<T> inputs_of(const Arguments& arguments) {
  using Acc = acc_t<T>;
  const Tensor& first = leading(arguments);
  const ScalarType type = first.scalar_type();
  Inputs<T> in;
  in.pairs = first.dim() > 0 ? first.size(0) : 0;
  in.margin = Acc(arguments.margin);
  in.alpha = Acc(arguments.alpha);
  in.reduction = Reduction(arguments.reduction);

  for (int k = 0; k < 2; ++k) {
    if (!arguments.logits[k]) continue;
    const Tensor& logits = *arguments.logits[k];
    check_tensor(kLogits[k], logits, first, type, 2);
    check_size(kLogits[k], logits, 0, in.pairs, "one row per pair");
    if (k == 1) check_size(kLogits[k], logits, 1, in.classes, "the number of classes of logits1");
    in.classes = in.labels = logits.size(1);
    if (in.classes == 0) fail(kLogits[k], " has shape ", shape_of(logits), ": there must be at least one class");
    in.logits[k] = matrix_view<const T>(logits);
  }
  if (bool(arguments.features[0]) != bool(arguments.features[1])) {
    fail("only one of features1 and features2 was given; pass both or neither");
  }
  for (int k = 0; k < 2; ++k) {
    if (!arguments.features[k]) continue;
    const Tensor& features = *arguments.features[k];
    check_tensor(kFeatures[k], features, first, type, 2);
    check_size(kFeatures[k], features, 0, in.pairs, "one row per pair; streams of different lengths need pairs='all'");
    if (k == 1) check_size(kFeatures[k], features, 1, in.width, "the width of features1");
    in.width = features.size(1);
    in.features[k] = matrix_view<const T>(features);
  }
  if (arguments.pair_weight) {
    const Tensor& weight = *arguments.pair_weight;
    check_tensor("pair_weight", weight, first, kAccType<T>, 2);
    if (in.labels == 0) in.labels = weight.size(0);
    check_size("pair_weight", weight, 0, in.labels, "the number of classes");
    check_size("pair_weight", weight, 1, in.labels, "the number of classes");
    if (arguments.features[0]) in.pair_weight = matrix_view<const Acc>(weight);
  }
  for (int k = 0; k < 2; ++k) {
    const bool needed = arguments.logits[k] || arguments.features[0];
    if (needed && !arguments.target[k]) fail(kTarget[k], " is missing");
    if (!arguments.target[k]) continue;
    check_tensor(kTarget[k], *arguments.target[k], first, ScalarType::Long, 1);
    check_size(kTarget[k], *arguments.target[k], 0, in.pairs, "one label per pair");
    in.target[k] = vector_view<const int64_t>(*arguments.target[k]);
    if (!arguments.class_weight[k] || !arguments.logits[k]) continue;
    check_tensor(kClassWeight[k], *arguments.class_weight[k], first, kAccType<T>, 1);
    check_size(kClassWeight[k], *arguments.class_weight[k], 0, in.classes, "the number of classes");
    in.class_weight[k] = vector_view<const Acc>(*arguments.class_weight[k]);
  }
  return in;
}

// ---- the ops ----

using ForwardResult = std::tuple<Tensor, Tensor, Tensor>;
using BackwardResult = std::tuple<Tensor, Tensor, Tensor, Tensor>;

// Bit k of `features_mask` asks for the gradient of features k + 1, which `left` gets.
template <typename T>
ForwardResult forward(const Arguments& arguments, const Tensor& first, int64_t features_mask = 0,
                      Tensor* left = nullptr) {
  using Acc = acc_t<T>;
  const Inputs<T> in = inputs_of<T>(arguments);
  const bool each = in.reduction == Reduction::kNone;
  Tensor loss = each ? empty({in.pairs}, kAccType<T>, first) : empty({}, kAccType<T>, first);
  Tensor terms = each ? empty({kTerms, in.pairs}, kAccType<T>, first) : empty({kTerms}, kAccType<T>, first);
  Tensor saved = empty({saved_size(in.pairs)}, kAccType<T>, first);
  Forward<T> p{in, data_of<Acc>(loss), data_of<Acc>(terms), {data_of<Acc>(saved), in.pairs}};
  for (int k = 0; k < 2; ++k) {
    if (!(features_mask >> k & 1)) continue;
    left[k] = empty({in.pairs, in.width}, first.scalar_type(), first);
    p.grad_features[k] = data_of<T>(left[k]);
  }
  if (first.is_cpu()) {
    const FaultReport report = cpu::forward(p, &parallel_for);
    if (report.fault != Fault::kNone) fail_on(report, in.labels, "");
  } else {
#if defined(FASTCCSA_CUDA)
    const torch::stable::accelerator::DeviceGuard guard(first.get_device_index());
    fail_on_earlier_fault(in.labels);
    cuda::forward(p, current_cuda_stream(first.get_device_index()));
#endif
  }
  return {loss, terms, saved};
}

// What the backward pass gets in addition to the arguments of the forward pass.
struct Upstream {
  const MaybeTensor &grad_loss, &grad_terms;
  const Tensor& saved;
  int64_t output_mask;
  MaybeTensor left[2] = {};  // gradients of the features, which the forward pass left
};

template <typename T>
BackwardResult backward(const Arguments& arguments, const Tensor& first, const Upstream& upstream) {
  using Acc = acc_t<T>;
  const Inputs<T> in = inputs_of<T>(arguments);
  const ScalarType type = first.scalar_type();
  Backward<T> p{in, {}, {}, {data_of<const Acc>(upstream.saved), in.pairs}, {}, {}};
  const bool each = in.reduction == Reduction::kNone;
  if (upstream.grad_loss) {
    const Tensor& loss = *upstream.grad_loss;
    check_tensor("grad_loss", loss, first, kAccType<T>, each ? 1 : 0);
    p.grad_loss = {data_of<const Acc>(loss), each ? loss.stride(0) : 0};
  }
  if (upstream.grad_terms) {
    const Tensor& terms = *upstream.grad_terms;
    check_tensor("grad_terms", terms, first, kAccType<T>, each ? 2 : 1);
    p.grad_terms = {data_of<const Acc>(terms), terms.stride(0), each ? terms.stride(1) : 0};
  }
  const auto gradient = [&](int bit, const MaybeTensor& of, int64_t columns, T** data) {
    if (!of || !(upstream.output_mask >> bit & 1)) return empty({0}, type, first);
    Tensor result = large_empty({in.pairs, columns}, type, sizeof(T), first);
    *data = data_of<T>(result);
    return result;
  };
  Tensor logits1 = gradient(0, arguments.logits[0], in.classes, &p.grad_logits[0]);
  Tensor logits2 = gradient(1, arguments.logits[1], in.classes, &p.grad_logits[1]);
  Tensor features1 = gradient(2, arguments.features[0], in.width, &p.grad_features[0]);
  Tensor features2 = gradient(3, arguments.features[1], in.width, &p.grad_features[1]);
  for (int k = 0; k < 2; ++k) {
    if (!upstream.left[k]) continue;
    const Tensor& left = *upstream.left[k];
    check_tensor(kLeft[k], left, first, type, 2);
    check_size(kLeft[k], left, 0, in.pairs, "one row per pair");
    check_size(kLeft[k], left, 1, in.width, "the width of the features");
    p.grad_features[k] = data_of<T>(left);
    p.left = true;
  }
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

// Calls `function(first, t)` with the leading tensor and a value of its element type.
template <typename Function>
auto with_leading(const Arguments& arguments, Function function) {
  const Tensor& first = leading(arguments);
  const char* name = arguments.logits[0] ? kLogits[0] : kFeatures[0];
  return with_type(first, name, [&](auto t) { return function(first, t); });
}

ForwardResult zipped_ccsa(MaybeTensor logits1, MaybeTensor logits2, MaybeTensor features1, MaybeTensor features2,
                          Tensor target1, MaybeTensor target2, MaybeTensor class_weight1, MaybeTensor class_weight2,
                          MaybeTensor pair_weight, double margin, double alpha, int64_t reduction) {
  const Arguments arguments{{logits1, logits2},
                            {features1, features2},
                            {target1, target2},
                            {class_weight1, class_weight2},
                            pair_weight,
                            margin,
                            alpha,
                            reduction};
  return with_leading(arguments, [&](const Tensor& first, auto t) { return forward<decltype(t)>(arguments, first); });
}

BackwardResult zipped_ccsa_backward(MaybeTensor grad_loss, MaybeTensor grad_terms, Tensor saved, MaybeTensor logits1,
                                    MaybeTensor logits2, MaybeTensor features1, MaybeTensor features2, Tensor target1,
                                    MaybeTensor target2, MaybeTensor class_weight1, MaybeTensor class_weight2,
                                    MaybeTensor pair_weight, double margin, double alpha, int64_t reduction,
                                    int64_t output_mask) {
  const Arguments arguments{{logits1, logits2},
                            {features1, features2},
                            {target1, target2},
                            {class_weight1, class_weight2},
                            pair_weight,
                            margin,
                            alpha,
                            reduction};
  const Upstream upstream{grad_loss, grad_terms, saved, output_mask};
  return with_leading(arguments,
                      [&](const Tensor& first, auto t) { return backward<decltype(t)>(arguments, first, upstream); });
}

#if defined(FASTCCSA_CUDA)

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> zipped_ccsa_forward_and_gradients(
    MaybeTensor logits1, MaybeTensor logits2, MaybeTensor features1, MaybeTensor features2, Tensor target1,
    MaybeTensor target2, MaybeTensor class_weight1, MaybeTensor class_weight2, MaybeTensor pair_weight, double margin,
    double alpha, int64_t reduction, int64_t features_mask) {
  const Arguments arguments{{logits1, logits2},
                            {features1, features2},
                            {target1, target2},
                            {class_weight1, class_weight2},
                            pair_weight,
                            margin,
                            alpha,
                            reduction};
  return with_leading(arguments, [&](const Tensor& first, auto t) {
    if (!features1 || first.size(0) <= cuda::kFewPairs || Reduction(reduction) == Reduction::kNone) {
      fail("gradients can only be left by a reduced loss of more than ", cuda::kFewPairs, " pairs with features");
    }
    Tensor left[] = {empty({0}, first.scalar_type(), first), empty({0}, first.scalar_type(), first)};
    const auto [loss, terms, saved] = forward<decltype(t)>(arguments, first, features_mask, left);
    return std::make_tuple(loss, terms, saved, left[0], left[1]);
  });
}

std::tuple<Tensor, Tensor> zipped_ccsa_finish(MaybeTensor gradient1, MaybeTensor gradient2, Tensor grad_loss,
                                              Tensor saved, MaybeTensor logits1, MaybeTensor logits2,
                                              MaybeTensor features1, MaybeTensor features2, Tensor target1,
                                              MaybeTensor target2, MaybeTensor class_weight1,
                                              MaybeTensor class_weight2, MaybeTensor pair_weight, double margin,
                                              double alpha, int64_t reduction, int64_t output_mask) {
  const Arguments arguments{{logits1, logits2},
                            {features1, features2},
                            {target1, target2},
                            {class_weight1, class_weight2},
                            pair_weight,
                            margin,
                            alpha,
                            reduction};
  const MaybeTensor of_loss(grad_loss), of_terms;
  const Upstream upstream{of_loss, of_terms, saved, output_mask & 3, {gradient1, gradient2}};
  return with_leading(arguments, [&](const Tensor& first, auto t) {
    const BackwardResult result = backward<decltype(t)>(arguments, first, upstream);
    return std::make_tuple(std::get<0>(result), std::get<1>(result));
  });
}

#endif

// The constants of saved_size.
std::tuple<int64_t, int64_t, int64_t, int64_t> zipped_saved_layout() {
  return {kSavedRows, kWeightSums, kSums, kMaxPartials};
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
  m.impl("zipped_ccsa_forward_and_gradients", TORCH_BOX(&zipped_ccsa_forward_and_gradients));
  m.impl("zipped_ccsa_finish", TORCH_BOX(&zipped_ccsa_finish));
}
#endif

STABLE_TORCH_LIBRARY_IMPL(fastccsa, CompositeExplicitAutograd, m) {
  m.impl("zipped_saved_layout", TORCH_BOX(&zipped_saved_layout));
}

}  // namespace fastccsa::zipped

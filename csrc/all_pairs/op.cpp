// Binds the kernels of the loss over all pairs to torch. fastccsa/ops/all_pairs.py and _all_pairs_tiles.py are their only
// callers: they check what the user gave, sort it by class, and make the products of tiles with torch's own.
#include "all_pairs/cpu/cpu.h"
#include "core/torch_fault.h"
#include "core/torch_large_tensor.h"
#include "core/torch_parallel.h"
#if defined(FASTCCSA_CUDA)
#include "all_pairs/cuda/cuda.h"
#include "core/torch_stream.h"
#endif

#include <tuple>
#include <type_traits>

namespace fastccsa::all_pairs {
namespace {

template <typename T>
T* data(const Tensor& tensor) {
  return static_cast<T*>(tensor.data_ptr());
}

template <typename T>
Matrix<T> matrix(const Tensor& tensor) {
  return {data<T>(tensor), tensor.stride(0), tensor.stride(1)};
}

template <typename T>
Vector<T> vector(const Tensor& tensor) {
  return {data<T>(tensor), tensor.stride(0)};
}

template <typename T>
Side<T> side_of(const Tensor& features, const Tensor& order, const Tensor& label) {
  return {matrix<const T>(features), data<const int64_t>(order), data<const int64_t>(label)};
}

template <typename T>
T* data_or_null(const MaybeTensor& tensor) {
  return tensor ? data<T>(*tensor) : nullptr;
}

#if defined(FASTCCSA_CUDA)
void all_pairs_labels(Tensor target1, Tensor target2, int64_t classes, Tensor label1, Tensor label2, Tensor doubt) {
  fail_on_earlier_fault(classes);
  with_type(doubt, "doubt", [&](auto t) {
    using Acc = acc_t<decltype(t)>;
    const Labels<Acc> p{{vector<const int64_t>(target1), vector<const int64_t>(target2)},
                        {target1.size(0), target2.size(0)},
                        classes,
                        {data<int64_t>(label1), data<int64_t>(label2)},
                        data<Acc>(doubt)};
    const torch::stable::accelerator::DeviceGuard guard(target1.get_device_index());
    cuda::labels(p, current_cuda_stream(target1.get_device_index()));
  });
}
#endif

void all_pairs_classes(Tensor features, Tensor order, Tensor label, Tensor offset, Tensor mean, Tensor spread) {
  with_type(features, "features", [&](auto t) {
    using T = decltype(t);
    const Classes<T> p{side_of<T>(features, order, label), data<const int64_t>(offset), mean.size(0), mean.size(1),
                       data<double>(mean), data<double>(spread)};
    if (features.is_cpu()) return cpu::classes(p, &parallel_for);
#if defined(FASTCCSA_CUDA)
    const torch::stable::accelerator::DeviceGuard guard(features.get_device_index());
    cuda::classes(p, current_cuda_stream(features.get_device_index()));
#endif
  });
}

void all_pairs_align(Tensor mean1, Tensor mean2, Tensor spread1, Tensor spread2, Tensor offset1, Tensor offset2,
                     MaybeTensor weight, Tensor alignment, Tensor coefficient1, Tensor coefficient2, Tensor centre,
                     MaybeTensor doubt) {
  with_type(centre, "centre", [&](auto t) {
    using Acc = acc_t<decltype(t)>;
    const Align<Acc> p{{data<const double>(mean1), data<const double>(mean2)},
                       {data<const double>(spread1), data<const double>(spread2)},
                       spread1.size(1),
                       {data<const int64_t>(offset1), data<const int64_t>(offset2)},
                       mean1.size(0),
                       mean1.size(1),
                       data_or_null<const Acc>(weight),
                       data<double>(alignment),
                       {data<double>(coefficient1), data<double>(coefficient2)},
                       data<Acc>(centre),
                       data_or_null<Acc>(doubt)};
    if (centre.is_cpu()) {
      cpu::find_centre(p);
      return cpu::align_classes(p);
    }
#if defined(FASTCCSA_CUDA)
    const torch::stable::accelerator::DeviceGuard guard(centre.get_device_index());
    cuda::align(p, current_cuda_stream(centre.get_device_index()));
#endif
  });
}

void all_pairs_centre(Tensor features, Tensor order, Tensor label, Tensor centre, Tensor rows, Tensor norms) {
  with_type(features, "features", [&](auto t) {
    using T = decltype(t);
    using Acc = acc_t<T>;
    const Centre<T> p{side_of<T>(features, order, label), features.size(0), features.size(1), data<const Acc>(centre),
                      data<Acc>(rows), data<Acc>(norms)};
    if (features.is_cpu()) return cpu::centre(p, &parallel_for);
#if defined(FASTCCSA_CUDA)
    const torch::stable::accelerator::DeviceGuard guard(features.get_device_index());
    cuda::centre(p, current_cuda_stream(features.get_device_index()));
#endif
  });
}

void all_pairs_tile(Tensor features1, Tensor features2, Tensor order1, Tensor order2, Tensor label1, Tensor label2,
                    Tensor norm1, Tensor norm2, MaybeTensor weight, double margin, int64_t begin1, int64_t begin2,
                    Tensor values, Tensor sums1, Tensor sums2, MaybeTensor gradient1, MaybeTensor gradient2,
                    Tensor loss, Tensor close, Tensor partial, MaybeTensor doubt) {
  with_type(features1, "features1", [&](auto t) {
    using T = decltype(t);
    using Acc = acc_t<T>;
    const Tile<T> p{{side_of<T>(features1, order1, label1), side_of<T>(features2, order2, label2)},
                    {begin1, begin2},
                    values.size(0),
                    values.size(1),
                    features1.size(1),
                    data<Acc>(values),
                    values.stride(0),
                    {data<const Acc>(norm1), data<const Acc>(norm2)},
                    data_or_null<const Acc>(weight),
                    weight ? weight->size(0) : 0,
                    Acc(margin),
                    {data<double>(sums1), data<double>(sums2)},
                    {data_or_null<Acc>(gradient1), data_or_null<Acc>(gradient2)},
                    data<double>(loss),
                    data<int32_t>(close),
                    data<double>(partial),
                    data_or_null<Acc>(doubt)};
    if (features1.is_cpu()) return cpu::tile(p, &parallel_for);
#if defined(FASTCCSA_CUDA)
    const torch::stable::accelerator::DeviceGuard guard(features1.get_device_index());
    cuda::tile(p, current_cuda_stream(features1.get_device_index()));
#endif
  });
}

void all_pairs_finish(Tensor features, Tensor order, Tensor label, Tensor other_mean, Tensor coefficient,
                      Tensor centre, Tensor sums, Tensor separation, double scale, MaybeTensor doubt, Tensor gradient) {
  with_type(features, "features", [&](auto t) {
    using T = decltype(t);
    using Acc = acc_t<T>;
    const Finish<T> p{side_of<T>(features, order, label), features.size(0),         features.size(1),
                      data<const double>(other_mean),     data<const double>(coefficient), data<const Acc>(centre),
                      data<const double>(sums),           data<const Acc>(separation), scale,
                      data_or_null<const Acc>(doubt),     data<Acc>(gradient),         gradient.size(0) == 2};
    if (features.is_cpu()) return cpu::finish(p, &parallel_for);
#if defined(FASTCCSA_CUDA)
    const torch::stable::accelerator::DeviceGuard guard(features.get_device_index());
    cuda::finish(p, current_cuda_stream(features.get_device_index()));
#endif
  });
}

void all_pairs_terms(Tensor alignment, Tensor separation, double scale, MaybeTensor doubt, Tensor loss, Tensor terms) {
  with_type(loss, "loss", [&](auto t) {
    using Acc = acc_t<decltype(t)>;
    const Terms<Acc> p{data<const double>(alignment),
                       alignment.size(0),
                       data<const double>(separation),
                       separation.size(0),
                       scale,
                       data_or_null<const Acc>(doubt),
                       data<Acc>(loss),
                       data<Acc>(terms)};
    if (loss.is_cpu()) return cpu::terms(p);
#if defined(FASTCCSA_CUDA)
    const torch::stable::accelerator::DeviceGuard guard(loss.get_device_index());
    cuda::terms(p, current_cuda_stream(loss.get_device_index()));
#endif
  });
}

// What the ops for a whole loss return: the loss [], both terms [2], and the gradients [planes * N, width].
using Result = std::tuple<Tensor, Tensor, Tensor, Tensor>;

template <typename T>
constexpr ScalarType kAccType = std::is_same_v<T, double> ? ScalarType::Double : ScalarType::Float;

// An uninitialised matrix of the type of sums; on the CPU, where it is large, in memory that an earlier one gave back.
template <typename T>
Tensor matrix_beside(const Tensor& like, int64_t rows, int64_t columns) {
  MaybeTensor recycled;
  if (like.is_cpu()) recycled = recycled_matrix(rows, columns, number_of(kAccType<T>), sizeof(acc_t<T>));
  return recycled ? *recycled : empty({rows, columns}, kAccType<T>, like);
}

template <typename T>
Result make_result(const Tensor& features1, const Tensor& features2, int64_t wanted, bool apart) {
  const int64_t planes = apart ? 2 : 1;
  const auto gradient = [&](const Tensor& features, bool is_wanted) {
    return matrix_beside<T>(features, is_wanted ? planes * features.size(0) : 0, features.size(1));
  };
  return {empty({}, kAccType<T>, features1), empty({2}, kAccType<T>, features1), gradient(features1, wanted & 1),
          gradient(features2, wanted & 2)};
}

template <typename T>
Problem<T> problem_of(const Tensor& features1, const Tensor& features2, const Tensor& target1, const Tensor& target2,
                      const MaybeTensor& weight, double margin, double scale, int64_t wanted, bool apart,
                      const Result& result) {
  using Acc = acc_t<T>;
  const auto& [loss, terms, gradient1, gradient2] = result;
  Problem<T> p{{matrix<const T>(features1), matrix<const T>(features2)},
               {vector<const int64_t>(target1), vector<const int64_t>(target2)},
               {features1.size(0), features2.size(0)},
               features1.size(1),
               {},
               0,
               Acc(margin),
               scale,
               apart,
               data<Acc>(loss),
               data<Acc>(terms),
               {wanted & 1 ? data<Acc>(gradient1) : nullptr, wanted & 2 ? data<Acc>(gradient2) : nullptr}};
  if (weight) {
    p.weight = matrix<const Acc>(*weight);
    p.labels = weight->size(0);
  }
  return p;
}

Result all_pairs_direct(Tensor features1, Tensor features2, Tensor target1, Tensor target2, MaybeTensor weight,
                        double margin, double scale, int64_t wanted, bool apart) {
  return with_type(features1, "features1", [&](auto t) {
    using T = decltype(t);
    using Acc = acc_t<T>;
    Result result = make_result<T>(features1, features2, wanted, apart);
    const Problem<T> p =
        problem_of<T>(features1, features2, target1, target2, weight, margin, scale, wanted, apart, result);
    const int64_t blocks = features1.is_cpu() ? p.rows[0] : direct_blocks(p.rows[0], p.rows[1]);
    const Tensor coefficient = empty({p.rows[0], p.rows[1]}, kAccType<T>, features1);
    const Tensor sums = empty({2, blocks}, ScalarType::Double, features1);
    const Direct<T> direct{p, data<Acc>(coefficient), data<double>(sums)};
    if constexpr (std::is_same_v<T, Acc>) {
      if (features1.is_cpu()) cpu::direct(direct, &parallel_for);
    }
#if defined(FASTCCSA_CUDA)
    if (!features1.is_cpu()) {
      fail_on_earlier_fault(p.labels);
      const torch::stable::accelerator::DeviceGuard guard(features1.get_device_index());
      cuda::direct(direct, current_cuda_stream(features1.get_device_index()));
    }
#endif
    return result;
  });
}

Result all_pairs_panels(Tensor features1, Tensor features2, Tensor target1, Tensor target2, MaybeTensor weight,
                        double margin, double scale, int64_t wanted, bool apart) {
  return with_type(features1, "features1", [&](auto t) {
    using T = decltype(t);
    using Acc = acc_t<T>;
    Result result = make_result<T>(features1, features2, wanted, apart);
    const Problem<T> p = cpu::larger_side_first(
        problem_of<T>(features1, features2, target1, target2, weight, margin, scale, wanted, apart, result));
    const cpu::PanelSizes sizes = cpu::panel_sizes(p);
    const Tensor packed1 = matrix_beside<T>(features1, 1, sizes.packed[0]);
    const Tensor packed2 = matrix_beside<T>(features1, 1, sizes.packed[1]);
    const Tensor transposed = matrix_beside<T>(features1, 1, sizes.transposed);
    const Tensor values = matrix_beside<T>(features1, 1, sizes.values);
    const bool wanted1 = p.gradient[0] != nullptr, wanted2 = p.gradient[1] != nullptr;
    const Tensor product1 = matrix_beside<T>(features1, wanted1 ? p.rows[0] : 0, p.width);
    const Tensor product2 = matrix_beside<T>(features1, wanted2 ? p.rows[1] : 0, p.width);
    cpu::panels(p,
                {{data<Acc>(packed1), data<Acc>(packed2)},
                 data<Acc>(transposed),
                 data<Acc>(values),
                 {wanted1 ? data<Acc>(product1) : nullptr, wanted2 ? data<Acc>(product2) : nullptr}},
                &parallel_for);
    return result;
  });
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(fastccsa, CPU, m) {
  m.impl("all_pairs_direct", TORCH_BOX(&all_pairs_direct));
  m.impl("all_pairs_panels", TORCH_BOX(&all_pairs_panels));
  m.impl("all_pairs_classes", TORCH_BOX(&all_pairs_classes));
  m.impl("all_pairs_align", TORCH_BOX(&all_pairs_align));
  m.impl("all_pairs_centre", TORCH_BOX(&all_pairs_centre));
  m.impl("all_pairs_tile", TORCH_BOX(&all_pairs_tile));
  m.impl("all_pairs_finish", TORCH_BOX(&all_pairs_finish));
  m.impl("all_pairs_terms", TORCH_BOX(&all_pairs_terms));
}

#if defined(FASTCCSA_CUDA)
STABLE_TORCH_LIBRARY_IMPL(fastccsa, CUDA, m) {
  m.impl("all_pairs_direct", TORCH_BOX(&all_pairs_direct));
  m.impl("all_pairs_labels", TORCH_BOX(&all_pairs_labels));
  m.impl("all_pairs_classes", TORCH_BOX(&all_pairs_classes));
  m.impl("all_pairs_align", TORCH_BOX(&all_pairs_align));
  m.impl("all_pairs_centre", TORCH_BOX(&all_pairs_centre));
  m.impl("all_pairs_tile", TORCH_BOX(&all_pairs_tile));
  m.impl("all_pairs_finish", TORCH_BOX(&all_pairs_finish));
  m.impl("all_pairs_terms", TORCH_BOX(&all_pairs_terms));
}
#endif

}  // namespace fastccsa::all_pairs

// The CUDA kernels for all pairs, in the emulator: one call after the other from stdin, each with its tensors; what the
// kernels wrote goes to stdout. The other side is test_all_pairs_kernels.py.
#include "emulator/device.h"
#include "emulator/gpu.h"
#include "all_pairs/cuda/launch.cuh"

#include "wire.h"

#include <cstring>
#include <exception>

namespace fastccsa::all_pairs::testing {
namespace {

using fastccsa::testing::Dtype;
using fastccsa::testing::read_bytes;
using fastccsa::testing::read_value;
using fastccsa::testing::View;

enum class Op : int64_t { kLabels, kClasses, kAlign, kCentre, kTile, kFinish, kTerms, kDirect };

std::vector<View> read_views(int count) {
  std::vector<View> views(count);
  for (View& view : views) view.read();
  return views;
}

template <typename T>
Side<T> side_of(const View& features, const View& order, const View& label) {
  return {features.matrix<T>(), order.data<const int64_t>(), label.data<const int64_t>()};
}

void write_back(const std::vector<const View*>& views) {
  for (const View* view : views) view->write_back();
  std::fflush(stdout);
}

// What a kernel reported goes into three numbers.
void decode_into(const View& found, FaultWord fault) {
  const FaultReport report = fault == 0 ? FaultReport() : decode(fault);
  const int64_t numbers[] = {int64_t(report.fault), report.row, report.value};
  std::memcpy(found.data<int64_t>(), numbers, sizeof numbers);
}

template <typename T, typename Launch>
void labels(Launch launch) {
  using Acc = acc_t<T>;
  int64_t sizes[3];  // rows of both sides, classes
  for (int64_t& size : sizes) size = read_value<int64_t>();
  const std::vector<View> v = read_views(6);
  FaultWord fault = 0;
  cuda::launch_labels(Labels<Acc>{{v[0].vector<int64_t>(), v[1].vector<int64_t>()},
                                  {sizes[0], sizes[1]},
                                  sizes[2],
                                  {v[2].data<int64_t>(), v[3].data<int64_t>()},
                                  v[4].data<Acc>()},
                      &fault, launch);
  decode_into(v[5], fault);
  write_back({&v[2], &v[3], &v[4], &v[5]});
}

template <typename T, typename Launch>
void align(Launch launch) {
  using Acc = acc_t<T>;
  int64_t sizes[3];  // classes, width, parts of the spread
  for (int64_t& size : sizes) size = read_value<int64_t>();
  const std::vector<View> v = read_views(13);
  FaultWord fault = 0;
  cuda::launch_align(Align<Acc>{{v[0].data<const double>(), v[1].data<const double>()},
                                {v[2].data<const double>(), v[3].data<const double>()},
                                sizes[2],
                                {v[4].data<const int64_t>(), v[5].data<const int64_t>()},
                                sizes[0],
                                sizes[1],
                                v[6].data<const Acc>(),
                                v[7].data<double>(),
                                {v[8].data<double>(), v[9].data<double>()},
                                v[10].data<Acc>(),
                                v[11].data<Acc>()},
                     &fault, launch);
  decode_into(v[12], fault);
  write_back({&v[7], &v[8], &v[9], &v[10], &v[11], &v[12]});
}

template <typename T, typename Launch>
void classes(Launch launch) {
  const auto count = read_value<int64_t>(), width = read_value<int64_t>();
  const std::vector<View> v = read_views(6);
  cuda::launch_classes(Classes<T>{side_of<T>(v[0], v[1], v[2]), v[3].data<const int64_t>(), count, width,
                                  v[4].data<double>(), v[5].data<double>()},
                       launch);
  write_back({&v[4], &v[5]});
}

template <typename T, typename Launch>
void centre(Launch launch) {
  using Acc = acc_t<T>;
  const auto rows = read_value<int64_t>(), width = read_value<int64_t>();
  const std::vector<View> v = read_views(6);
  cuda::launch_centre(Centre<T>{side_of<T>(v[0], v[1], v[2]), rows, width, v[3].data<const Acc>(), v[4].data<Acc>(),
                                v[5].data<Acc>()},
                      launch);
  write_back({&v[4], &v[5]});
}

template <typename T, typename Launch>
void tile(Launch launch) {
  using Acc = acc_t<T>;
  int64_t sizes[6];  // begins of both sides, rows, columns, width, classes
  for (int64_t& size : sizes) size = read_value<int64_t>();
  const auto margin = read_value<double>();
  const std::vector<View> v = read_views(19);
  FaultWord fault = 0;
  const Tile<T> p{{side_of<T>(v[0], v[2], v[4]), side_of<T>(v[1], v[3], v[5])},
                  {sizes[0], sizes[1]},
                  sizes[2],
                  sizes[3],
                  sizes[4],
                  v[9].data<Acc>(),
                  sizes[3],
                  {v[6].data<const Acc>(), v[7].data<const Acc>()},
                  v[8].data<const Acc>(),
                  sizes[5],
                  Acc(margin),
                  {v[10].data<double>(), v[11].data<double>()},
                  {v[12].data<Acc>(), v[13].data<Acc>()},
                  v[14].data<double>(),
                  v[15].data<int32_t>(),
                  v[16].data<double>(),
                  v[17].data<Acc>()};
  cuda::launch_tile(p, &fault, launch);
  decode_into(v[18], fault);
  write_back({&v[9], &v[10], &v[11], &v[12], &v[13], &v[14], &v[15], &v[16], &v[17], &v[18]});
}

template <typename T, typename Launch>
void finish(Launch launch) {
  using Acc = acc_t<T>;
  const auto rows = read_value<int64_t>(), width = read_value<int64_t>(), apart = read_value<int64_t>();
  const auto scale = read_value<double>();
  const std::vector<View> v = read_views(10);
  cuda::launch_finish(Finish<T>{side_of<T>(v[0], v[1], v[2]), rows, width, v[3].data<const double>(),
                                v[4].data<const double>(), v[5].data<const Acc>(), v[6].data<const double>(),
                                v[7].data<const Acc>(), scale, v[8].data<const Acc>(), v[9].data<Acc>(), apart != 0},
                      launch);
  write_back({&v[9]});
}

template <typename T, typename Launch>
void terms(Launch launch) {
  using Acc = acc_t<T>;
  const auto count = read_value<int64_t>(), rows = read_value<int64_t>();
  const auto scale = read_value<double>();
  const std::vector<View> v = read_views(5);
  cuda::launch_terms(Terms<Acc>{v[0].data<const double>(), count, v[1].data<const double>(), rows, scale,
                                v[2].data<const Acc>(), v[3].data<Acc>(), v[4].data<Acc>()},
                     launch);
  write_back({&v[3], &v[4]});
}

template <typename T, typename Launch>
void direct(Launch launch) {
  using Acc = acc_t<T>;
  int64_t sizes[5];  // rows of both sides, width, labels, apart
  for (int64_t& size : sizes) size = read_value<int64_t>();
  const auto margin = read_value<double>(), scale = read_value<double>();
  const std::vector<View> v = read_views(12);
  FaultWord fault = 0;
  const Problem<T> problem{{v[0].matrix<T>(), v[1].matrix<T>()},
                           {v[2].vector<int64_t>(), v[3].vector<int64_t>()},
                           {sizes[0], sizes[1]},
                           sizes[2],
                           v[4].matrix<Acc>(),
                           sizes[3],
                           Acc(margin),
                           scale,
                           sizes[4] != 0,
                           v[7].data<Acc>(),
                           v[8].data<Acc>(),
                           {v[9].data<Acc>(), v[10].data<Acc>()}};
  cuda::launch_direct(Direct<T>{problem, v[5].data<Acc>(), v[6].data<double>()}, &fault, launch);
  decode_into(v[11], fault);
  write_back({&v[7], &v[8], &v[9], &v[10], &v[11]});
}

template <typename T>
void answer(Op op, emulator::Gpu& gpu) {
  const auto launch = [&](auto kernel, emulator::dim3 blocks, const auto&... parameters) {
    gpu.launch(blocks, cuda::kThreads, kernel, parameters...);
  };
  switch (op) {
    case Op::kLabels: return labels<T>(launch);
    case Op::kClasses: return classes<T>(launch);
    case Op::kAlign: return align<T>(launch);
    case Op::kCentre: return centre<T>(launch);
    case Op::kTile: return tile<T>(launch);
    case Op::kFinish: return finish<T>(launch);
    case Op::kTerms: return terms<T>(launch);
    case Op::kDirect: return direct<T>(launch);
  }
}

int serve() {
  try {
    const auto order = read_value<int64_t>(), seed = read_value<int64_t>(), processors = read_value<int64_t>();
    emulator::Gpu gpu({emulator::Order(order), uint32_t(seed), unsigned(processors)});
    for (Op op; read_bytes(&op, sizeof op);) {
      switch (read_value<Dtype>()) {
        case Dtype::kFloat64: answer<double>(op, gpu); break;
        case Dtype::kFloat32: answer<float>(op, gpu); break;
        case Dtype::kBFloat16: answer<bfloat16>(op, gpu); break;
        case Dtype::kFloat16: answer<half>(op, gpu); break;
      }
    }
    return 0;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}

}  // namespace
}  // namespace fastccsa::all_pairs::testing

int main() { return fastccsa::all_pairs::testing::serve(); }

// Computes the loss over all pairs of random problems on the CPU in panels: run_cpu_panels SEED PROBLEMS THREADS. Each
// buffer has its exact size and is initially NaN, so that values that are read before they are written, or are never
// written, are noticed.
#include "all_pairs/cpu/cpu.h"

#include "threads.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <memory>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

namespace fastccsa::all_pairs::testing {
namespace {

using fastccsa::testing::parallel_for;
using fastccsa::testing::threads;

template <typename Acc>
struct Buffer {
  explicit Buffer(int64_t size) : size(size), data(new Acc[size]) {
    std::fill_n(data.get(), size, std::numeric_limits<Acc>::quiet_NaN());
  }
  Acc* get() const { return size == 0 ? nullptr : data.get(); }
  bool all_written() const { return std::none_of(data.get(), data.get() + size, [](Acc x) { return std::isnan(x); }); }

  int64_t size;
  std::unique_ptr<Acc[]> data;
};

template <typename T>
class Random {
 public:
  using Acc = acc_t<T>;

  // `large` is the number of sides with more rows than a panel has.
  Random(std::mt19937& engine, int large) : engine_(engine) {
    for (int side = 0; side < 2; ++side) rows_[side] = (side < large ? 2100 : 0) + upto(200);
    width_ = upto(large > 0 ? 4 : 100);
    classes_ = upto(upto(2) == 1 ? 8 : 150);
    for (int side = 0; side < 2; ++side) {
      z_[side].resize(rows_[side] * width_);
      const float spread = upto(4) == 1 ? 1e-4f : 1.0f;  // near pairs
      for (T& x : z_[side]) x = T(spread * normal_(engine_));
      y_[side].resize(rows_[side]);
      for (int64_t& label : y_[side]) label = std::min(upto(classes_), upto(classes_)) - 1;  // some classes are large
    }
    weight_.assign(classes_ * classes_, Acc(0.5));
  }

  void run() {
    const bool per_term = upto(2) == 1, weighted = upto(2) == 1;
    const int64_t output_mask = upto(4) - 1, planes = per_term ? 2 : 1;
    const auto of_side = [&](int side, int64_t planes) {
      return Buffer<Acc>(output_mask >> side & 1 ? planes * rows_[side] * width_ : 0);
    };
    const Buffer<Acc> gradient[] = {of_side(0, planes), of_side(1, planes)}, product[] = {of_side(0, 1), of_side(1, 1)};
    const Buffer<Acc> result(3);
    Problem<T> p{{{z_[0].data(), width_, 1}, {z_[1].data(), width_, 1}},
                 {{y_[0].data(), 1}, {y_[1].data(), 1}},
                 {rows_[0], rows_[1]},
                 width_,
                 {},
                 0,
                 Acc(std::sqrt(2.0 * double(width_))),
                 1.0,
                 per_term,
                 result.get(),
                 result.get() + 1,
                 {gradient[0].get(), gradient[1].get()}};
    if (weighted) {
      p.weight = {weight_.data(), classes_, 1};
      p.labels = classes_;
    }
    const cpu::PanelSizes sizes = cpu::panel_sizes(p);
    const Buffer<Acc> packed[] = {Buffer<Acc>(sizes.packed[0]), Buffer<Acc>(sizes.packed[1])};
    const Buffer<Acc> transposed(sizes.transposed), values(sizes.values);
    const PanelScratch<Acc> scratch{
        {packed[0].get(), packed[1].get()}, transposed.get(), values.get(), {product[0].get(), product[1].get()}};
    cpu::panels(p, scratch, &parallel_for);
    const double expected = (weighted ? 0.5 : 1.0) * loss(double(p.margin));
    const bool correct = std::abs(double(result.data[0]) - expected) <= 1e-5 * expected;
    if (correct && gradient[0].all_written() && gradient[1].all_written()) return;
    throw std::runtime_error(std::to_string(rows_[0]) + " x " + std::to_string(rows_[1]) + " rows of width " +
                             std::to_string(width_) + ", " + std::to_string(classes_) + " classes: " +
                             (correct ? "a gradient was not written, or is NaN" : "the loss is wrong"));
  }

 private:
  int64_t upto(int64_t most) { return 1 + int64_t(engine_() % uint64_t(most)); }

  double loss(double margin) const {
    double sum = 0;
    for (int64_t i = 0; i < rows_[0]; ++i) {
      for (int64_t j = 0; j < rows_[1]; ++j) {
        double squares = 0;
        for (int64_t d = 0; d < width_; ++d) {
          const double difference = double(z_[0][i * width_ + d]) - double(z_[1][j * width_ + d]);
          squares += difference * difference;
        }
        const double gap = std::max(0.0, margin - std::sqrt(squares));
        sum += y_[0][i] == y_[1][j] ? squares : gap * gap;
      }
    }
    return sum;
  }

  std::mt19937& engine_;
  std::normal_distribution<float> normal_;
  int64_t rows_[2], width_, classes_;
  std::vector<T> z_[2];
  std::vector<int64_t> y_[2];
  std::vector<Acc> weight_;
};

}  // namespace
}  // namespace fastccsa::all_pairs::testing

int main(int count, char** arguments) {
  using namespace fastccsa::all_pairs::testing;
  if (count != 4) return 2;
  std::mt19937 engine(unsigned(std::atoi(arguments[1])));
  threads = std::atoi(arguments[3]);
  try {
    for (int k = 0; k < std::atoi(arguments[2]); ++k) {
      Random<float>(engine, std::max(0, 2 - k)).run();
      Random<double>(engine, 0).run();
    }
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
  std::puts(fastccsa::name_of(fastccsa::isa()));
}

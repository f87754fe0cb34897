// How a bad label or weight that a kernel found is reported to the host.
//
// A CPU kernel returns its report. A GPU kernel cannot raise an error without stopping the stream: it stores the report
// as one 64-bit word in host memory, which the host reads at its next call. A single store is never torn, so the
// host always reads a complete report.
#pragma once

#include "core/macros.h"

#include <cstdint>
#include <limits>

namespace fastccsa {

// The argument that holds the bad value.
enum class Fault : int32_t { kNone = 0, kTarget1, kTarget2, kClassWeight1, kClassWeight2, kPairWeight };

// Whether a weight is finite and 0 or more; NaN is neither.
template <typename Acc>
FASTCCSA_HOST_DEVICE bool is_weight(Acc value) {
  return value >= Acc(0) && value <= std::numeric_limits<Acc>::max();
}

struct FaultReport {
  Fault fault = Fault::kNone;
  int64_t row = 0;
  int64_t value = 0;  // the label; for a pair weight, label 1 * labels + label 2
};

using FaultWord = unsigned long long;  // 0: no fault
constexpr int kValueBits = 24, kRowBits = 36;
constexpr int64_t kValueLimit = int64_t(1) << (kValueBits - 1);  // values beyond it are clamped

FASTCCSA_HOST_DEVICE FaultWord encode(const FaultReport& report) {
  const int64_t value = report.value < -kValueLimit   ? -kValueLimit
                        : report.value >= kValueLimit ? kValueLimit - 1
                                                      : report.value;
  const FaultWord row = FaultWord(report.row) & ((FaultWord(1) << kRowBits) - 1);
  return FaultWord(report.fault) << (kValueBits + kRowBits) | row << kValueBits | FaultWord(value + kValueLimit);
}

FASTCCSA_HOST_DEVICE FaultReport decode(FaultWord word) {
  FaultReport report;
  report.fault = Fault(word >> (kValueBits + kRowBits));
  report.row = int64_t(word >> kValueBits & ((FaultWord(1) << kRowBits) - 1));
  report.value = int64_t(word & ((FaultWord(1) << kValueBits) - 1)) - kValueLimit;
  return report;
}

}  // namespace fastccsa

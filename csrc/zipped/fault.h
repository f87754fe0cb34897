// How a kernel on a GPU reports a bad label without stopping the stream: one 64-bit word in host memory that the device
// can write. A single store cannot be torn, so the first report read is whole. The host looks at the next call.
#pragma once

#include "zipped/params.h"

namespace fastccsa::zipped {

using FaultWord = unsigned long long;
constexpr int kValueBits = 24, kRowBits = 36;
constexpr int64_t kValueLimit = int64_t(1) << (kValueBits - 1);  // values are reported up to here, and clamped beyond

FASTCCSA_HOST_DEVICE FaultWord encode(const FaultReport& report) {
  const int64_t value = report.value < -kValueLimit      ? -kValueLimit
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

}  // namespace fastccsa::zipped

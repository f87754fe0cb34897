// The errors that users see for a bad label or weight that a kernel found.
#pragma once

#include "core/fault.h"
#include "core/torch_binding.h"
#if defined(FASTCCSA_CUDA)
#include "core/cuda_fault.h"
#endif

namespace fastccsa {

constexpr const char* kTarget[] = {"target1", "target2"};
constexpr const char* kClassWeight[] = {"class_weight1", "class_weight2"};

// Labels must be in [0, labels), or may be any numbers if `labels` is 0. `when` names the call if it is an earlier one.
[[noreturn]] inline void fail_on(const FaultReport& report, int64_t labels, const char* when) {
  const bool second = report.fault == Fault::kTarget2 || report.fault == Fault::kClassWeight2;
  if (report.fault == Fault::kTarget1 || report.fault == Fault::kTarget2) {
    const char* target = kTarget[second];
    if (labels == 0) fail(target, "[", report.row, "] is ", report.value, when, ", which is not a class");
    fail(target, "[", report.row, "] is ", report.value, when, ", but labels must be in [0, ", labels, ")");
  }
  const std::string rest = std::string(when) + "; weights must be 0 or more";
  if (report.fault == Fault::kPairWeight) {
    if (labels == 0) fail("pair_weight holds a negative or non-finite value", rest);
    fail("pair_weight[", report.value / labels, ", ", report.value % labels, "] is negative or not finite", rest);
  }
  fail(kClassWeight[second], "[", report.value, "] is negative or not finite", rest);
}

#if defined(FASTCCSA_CUDA)
// Raises the error that a kernel of an earlier call reported.
inline void fail_on_earlier_fault(int64_t labels) {
  const FaultReport report = cuda::take_fault();
  if (report.fault != Fault::kNone) fail_on(report, labels, " in an earlier call on this GPU, whose loss was NaN");
}
#endif

}  // namespace fastccsa

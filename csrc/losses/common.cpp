#include "losses/common.h"

#include <ATen/ops/aminmax.h>

#include "core/check.h"

namespace vpd::losses {

Reduction parse_reduction(const std::string& word) {
  if (word == "none") return Reduction::kNone;
  if (word == "mean") return Reduction::kMean;
  if (word == "sum") return Reduction::kSum;
  fail("reduction must be 'none', 'mean' or 'sum', got '", word, "'");
}

at::Tensor reduce(const at::Tensor& values, Reduction reduction) {
  switch (reduction) {
    case Reduction::kMean:
      return values.mean();
    case Reduction::kSum:
      return values.sum();
    default:
      return values;
  }
}

void check_pixel_target(const char* name, const at::Tensor& logits, const at::Tensor& target,
                        std::optional<int64_t> classes) {
  VPD_CHECK(logits.dim() == 4 && logits.is_floating_point() &&
                logits.size(1) == classes.value_or(logits.size(1)),
            name, ": logits must be floating point [B, ", classes ? std::to_string(*classes) : "K",
            ", H, W], got ", logits.dtype(), " ", logits.sizes());
  VPD_CHECK(target.dim() == 3 && target.scalar_type() == at::kLong &&
                target.size(0) == logits.size(0) &&
                target.sizes().slice(1) == logits.sizes().slice(2),
            name, ": target must be int64 [", logits.size(0), ", ", logits.size(2), ", ",
            logits.size(3), "], got ", target.dtype(), " ", target.sizes());
  if (!has_values(target)) return;
  const auto [least, most] = at::aminmax(target);
  const int64_t lowest = least.item<int64_t>(), highest = most.item<int64_t>();
  VPD_CHECK(lowest >= 0 && highest < logits.size(1), name, ": target classes must be in [0, ",
            logits.size(1), "), got ", lowest < 0 ? lowest : highest);
}

at::Tensor widened(const at::Tensor& values) {
  return values.scalar_type() == at::kDouble ? values : values.to(at::kFloat);
}

}  // namespace vpd::losses

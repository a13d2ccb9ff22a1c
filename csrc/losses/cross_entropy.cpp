#include "losses/cross_entropy.h"

#include <ATen/core/Reduction.h>
#include <ATen/ops/cross_entropy_loss.h>

#include "core/check.h"
#include "core/constant.h"

namespace vpd::losses {

namespace {

constexpr const char* kName = "weighted_cross_entropy";

int64_t aten_reduction(Reduction reduction) {
  switch (reduction) {
    case Reduction::kMean:
      return at::Reduction::Mean;
    case Reduction::kSum:
      return at::Reduction::Sum;
    default:
      return at::Reduction::None;
  }
}

}  // namespace

at::Tensor weighted_cross_entropy(const at::Tensor& logits, const at::Tensor& target,
                                  const std::vector<double>& weight, Reduction reduction) {
  check_pixel_target(kName, logits, target);
  VPD_CHECK(static_cast<int64_t>(weight.size()) == logits.size(1), kName, ": expected ",
            logits.size(1), " class weights, got ", weight.size());
  const at::Tensor wide = widened(logits);
  return at::cross_entropy_loss(wide, target, constant(weight, wide.options()),
                                aten_reduction(reduction));
}

}  // namespace vpd::losses

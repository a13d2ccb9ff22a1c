#include "losses/dice.h"

#include <ATen/ops/sigmoid.h>

namespace vpd::losses {

at::Tensor dice_loss(const at::Tensor& logits, const at::Tensor& target, Reduction reduction) {
  check_pixel_target("dice_loss", logits, target, 2);
  const at::Tensor wide = widened(logits);
  const at::Tensor p = at::sigmoid(wide.select(1, 1) - wide.select(1, 0)).flatten(1);  // [B, HW]
  const at::Tensor y = target.flatten(1).to(p.scalar_type());
  return reduce(1.0 - (2.0 * (p * y).sum(1) + 1.0) / (p.sum(1) + y.sum(1) + 1.0), reduction);
}

}  // namespace vpd::losses

#include "losses/contrastive.h"

#include <ATen/ops/log_softmax.h>
#include <ATen/ops/matmul.h>

#include "core/check.h"
#include "ops/unit.h"

namespace vpd::losses {

at::Tensor contrastive_loss(const at::Tensor& image, const at::Tensor& text,
                            const at::Tensor& scale) {
  VPD_CHECK(image.dim() == 2 && image.size(0) > 0 && image.is_floating_point(),
            "contrastive_loss: image must be floating point [B, D], got ", image.dtype(), " ",
            image.sizes());
  VPD_CHECK(text.sizes() == image.sizes() && text.is_floating_point(),
            "contrastive_loss: text must be floating point ", image.sizes(), ", got ", text.dtype(),
            " ", text.sizes());
  VPD_CHECK(scale.dim() == 0 && scale.is_floating_point(),
            "contrastive_loss: scale must be a floating-point scalar, got ", scale.dtype(), " ",
            scale.sizes());
  const at::Tensor cosines = at::matmul(ops::unit(widened(image)), ops::unit(widened(text)).t());
  const at::Tensor logits = widened(scale) * cosines;  // [B images, B texts]
  const auto own = [&](int64_t dim) { return at::log_softmax(logits, dim).diagonal().mean(); };
  return -0.5 * (own(0) + own(1));
}

}  // namespace vpd::losses

#include "nn/norm.h"

#include <ATen/ops/batch_norm.h>
#include <ATen/ops/layer_norm.h>

#include "core/check.h"
#include "ops/batch_norm_relu.h"
#include "ops/group_norm_silu.h"

namespace vpd::nn {

GroupNorm::GroupNorm(Scope scope, int64_t groups, int64_t channels, double eps)
    : groups_(groups),
      eps_(eps),
      weight_(scope.declare("weight", {channels}, Init::ones())),
      bias_(scope.declare("bias", {channels}, Init::zeros())) {
  VPD_CHECK(groups > 0 && channels % groups == 0, "config: ", channels,
            " channels do not divide into ", groups, " normalisation groups (norm_groups)");
}

Tensor GroupNorm::operator()(const Params& p, const Tensor& x) const {
  return ops::group_norm_silu(x, p[weight_], p[bias_], groups_, eps_, /*silu=*/false);
}

Tensor GroupNorm::silu(const Params& p, const Tensor& x) const {
  return ops::group_norm_silu(x, p[weight_], p[bias_], groups_, eps_, /*silu=*/true);
}

LayerNorm::LayerNorm(Scope scope, int64_t channels, double eps)
    : channels_(channels),
      eps_(eps),
      weight_(scope.declare("weight", {channels}, Init::ones())),
      bias_(scope.declare("bias", {channels}, Init::zeros())) {}

Tensor LayerNorm::operator()(const Params& p, const Tensor& x) const {
  return at::layer_norm(x, {channels_}, p[weight_], p[bias_], eps_);
}

BatchNorm2d::BatchNorm2d(Scope scope, int64_t channels)
    : weight_(scope.declare("weight", {channels}, Init::ones())),
      bias_(scope.declare("bias", {channels}, Init::zeros())),
      running_mean_(scope.buffer("running_mean", {channels}, Init::zeros())),
      running_var_(scope.buffer("running_var", {channels}, Init::ones())),
      num_batches_tracked_(scope.buffer("num_batches_tracked", {}, Init::zeros(), at::kLong)) {}

// A batch more.
void BatchNorm2d::count(const Params& p, const Tensor& x, const ops::ProcessGroup* group) const {
  VPD_CHECK(group || x.numel() > x.size(1),
            "batch_norm: training takes more than one value per channel, got ", x.sizes(),
            " (a larger batch or image, or batch norms that share rows across processes)");
  at::NoGradGuard no_grad;
  Tensor count = p[num_batches_tracked_];
  count.add_(1);
}

Tensor BatchNorm2d::operator()(const Params& p, const Tensor& x, bool training,
                               const ops::ProcessGroup* group) const {
  if (training) count(p, x, group);
  const Tensor &mean = p[running_mean_], &var = p[running_var_];
  if (training && group) {
    return ops::synchronized_batch_norm(x, p[weight_], p[bias_], mean, var, kMomentum, kEps,
                                        *group);
  }
  return at::batch_norm(x, p[weight_], p[bias_], mean, var, training, kMomentum, kEps,
                        /*cudnn_enabled=*/true);
}

Tensor BatchNorm2d::relu(const Params& p, const Tensor& x, bool training,
                         const ops::ProcessGroup* group) const {
  if (!training || group) return (*this)(p, x, training, group).relu_();
  count(p, x, group);
  return ops::batch_norm_relu(x, p[weight_], p[bias_], p[running_mean_], p[running_var_], kMomentum,
                              kEps);
}

}  // namespace vpd::nn

#include "ops/batch_norm.h"

#include <ATen/autocast_mode.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/full.h>
#include <ATen/ops/var_mean.h>
#include <ATen/ops/zeros.h>
#include <torch/csrc/autograd/custom_function.h>

#include "core/check.h"
#include "ops/collectives.h"

namespace vpd::ops {
namespace {
using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

at::ScalarType wide_type(const Tensor& x) {
  return x.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
}

// All dimensions but the channels'.
std::vector<int64_t> other_dims(const Tensor& x) {
  std::vector<int64_t> dims{0};
  for (int64_t dim = 2; dim < x.dim(); ++dim) dims.push_back(dim);
  return dims;
}

// [C] -> [1, C, 1, ...], in the dtype that x is computed in.
Tensor beside(const Tensor& x, const Tensor& per_channel) {
  std::vector<int64_t> shape(static_cast<size_t>(x.dim()), 1);
  shape[1] = -1;
  return per_channel.to(wide_type(x)).view(shape);
}

struct Statistics {
  Tensor mean;      // float64 [C]
  Tensor variance;  // float64 [C], biased
  Tensor count;     // float64 [], values of a channel: a tensor, since reading it would stop a GPU
};

// Of all processes: each takes mean and variance of its own rows, which then are merged (Chan et
// al. 1979), so that a large mean costs no digits.
Statistics statistics(const Tensor& x, const ProcessGroup& group) {
  const int64_t channels = x.size(1);
  const auto options = x.options().dtype(at::kDouble);
  Tensor own = at::zeros({2 * channels + 1}, options);
  if (x.numel() > 0) {
    const int64_t count = x.numel() / channels;
    const auto [variance, mean] =
        at::var_mean(x.to(wide_type(x)), other_dims(x), /*correction=*/0, /*keepdim=*/false);
    own = at::cat(
        {mean.to(at::kDouble), variance.to(at::kDouble) * count, at::full({1}, count, options)});
  }
  const std::vector<Tensor> all =
      gather(own, group).split_with_sizes({channels, channels, 1}, /*dim=*/1);
  const Tensor &means = all[0], &squares = all[1], &counts = all[2];
  Statistics found;
  found.count = counts.sum();
  found.mean = (counts * means).sum(0) / found.count;
  found.variance = (squares + counts * (means - found.mean).square()).sum(0) / found.count;
  return found;
}

void move(Tensor running, const Tensor& towards, double momentum) {
  running.lerp_(towards.to(running.scalar_type()), momentum);
}

class SynchronizedBatchNorm : public torch::autograd::Function<SynchronizedBatchNorm> {
 public:
  static Tensor forward(AutogradContext* ctx, const Tensor& x, const Tensor& weight,
                        const Tensor& bias, const Tensor& running_mean, const Tensor& running_var,
                        double momentum, double eps, const ProcessGroup& group) {
    // Under autocast too, sums are float32 and the result has the input's dtype.
    const c10::impl::ExcludeDispatchKeyGuard no_autocast(c10::autocast_dispatch_keyset);
    const Statistics found = statistics(x, group);
    const Tensor inverse_std = (found.variance + eps).rsqrt();
    move(running_mean, found.mean, momentum);
    move(running_var, found.variance * (found.count / (found.count - 1)), momentum);
    ctx->save_for_backward({x, weight, found.mean, inverse_std, found.count});
    ctx->saved_data["group"] = group.name;
    const Tensor scale = inverse_std * weight;
    const Tensor y = (x.to(wide_type(x)) - beside(x, found.mean)) * beside(x, scale);
    return (y + beside(x, bias)).to(x.scalar_type());
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    VPD_CHECK(!at::GradMode::is_enabled(),
              "batch_norm: second derivatives are not supported where statistics are "
              "synchronised across processes (create_graph=True was given)");
    const c10::impl::ExcludeDispatchKeyGuard no_autocast(c10::autocast_dispatch_keyset);
    const variable_list saved = ctx->get_saved_variables();
    const Tensor &x = saved[0], &weight = saved[1], &mean = saved[2], &inverse_std = saved[3];
    const Tensor grad = grads[0].to(wide_type(x));
    const Tensor normal =
        (x.to(wide_type(x)) - beside(x, mean)) * beside(x, inverse_std);  // before the affine map
    const Tensor own =
        at::cat({grad.sum(other_dims(x)), (grad * normal).sum(other_dims(x))}).to(at::kDouble);
    const std::vector<Tensor> own_sums = own.chunk(2);
    variable_list result(8);
    if (ctx->needs_input_grad(0)) {
      const Tensor& count = saved[4];
      const Tensor means = sum_over(own, ctx->saved_data["group"].toStringRef()) / count;
      const std::vector<Tensor> of = means.chunk(2);
      const Tensor centered = grad - beside(x, of[0]) - normal * beside(x, of[1]);
      result[0] = (centered * beside(x, inverse_std * weight)).to(x.scalar_type());
    }
    result[1] = own_sums[1].to(weight.scalar_type());
    result[2] = own_sums[0].to(weight.scalar_type());
    return result;
  }
};

}  // namespace

Tensor synchronized_batch_norm(const Tensor& x, const Tensor& weight, const Tensor& bias,
                               const Tensor& running_mean, const Tensor& running_var,
                               double momentum, double eps, const ProcessGroup& group) {
  VPD_CHECK(x.dim() >= 2 && x.is_floating_point() && x.size(1) == weight.numel(),
            "batch_norm: x must be floating point [B, ", weight.numel(), ", ...], got ", x.dtype(),
            " ", x.sizes());
  VPD_CHECK(group.size >= 1, "batch_norm: a process group has at least 1 process, got ",
            group.size);
  return SynchronizedBatchNorm::apply(x, weight, bias, running_mean, running_var, momentum, eps,
                                      group);
}

}  // namespace vpd::ops

#include "losses/mask_losses.h"

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/sigmoid.h>
#include <ATen/ops/softplus.h>
#include <ATen/ops/stack.h>
#include <torch/csrc/autograd/custom_function.h>

#include "core/check.h"
#include "ops/resize_bilinear.h"

namespace vpd::losses {

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

namespace {

constexpr const char* kName = "mask_losses";

// Sums over the pixels of a sample, with p = sigmoid(d) and y its target.
enum Sum : int64_t { kCrossEntropy, kBoth /* p y */, kPredicted /* p */, kTrue /* y */, kSums };

struct Weights {
  double background, object;
};

// d [B, H, W] -> [B, kSums], from ATen's operators.
Tensor composed_sums(const Tensor& d, const Tensor& target, Weights weight) {
  const Tensor y = target.to(d.scalar_type()), p = at::sigmoid(d);
  const Tensor cross_entropy =
      weight.object * y * at::softplus(-d) + weight.background * (1 - y) * at::softplus(d);
  const auto sum = [](const Tensor& t) { return t.flatten(1).sum(1); };
  return at::stack({sum(cross_entropy), sum(p * y), sum(p), sum(y)}, 1);
}

// The same for contiguous float32 on the CPU; keeps p alone for the backward.
class Sums : public torch::autograd::Function<Sums> {
 public:
  static Tensor forward(AutogradContext* ctx, const Tensor& d, const Tensor& target,
                        double background, double object) {
    const int64_t batch = d.size(0), pixels = d.size(1) * d.size(2);
    const Tensor p = at::sigmoid(d);
    const Tensor log1p = d.abs().neg_().exp_().log1p_();  // softplus(x) = max(x, 0) + this
    const Tensor sums = at::empty({batch, kSums}, d.options());
    const float *d_ = d.const_data_ptr<float>(), *p_ = p.const_data_ptr<float>(),
                *l_ = log1p.const_data_ptr<float>();
    const int64_t* y_ = target.const_data_ptr<int64_t>();
    float* sums_ = sums.mutable_data_ptr<float>();
    at::parallel_for(0, batch, 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        double cross_entropy = 0, both = 0, predicted = 0, truth = 0;
        for (int64_t k = i * pixels; k < (i + 1) * pixels; ++k) {
          const bool y = y_[k] != 0;
          const float x = y ? -d_[k] : d_[k];
          cross_entropy += (y ? object : background) * ((x > 0 ? x : 0) + l_[k]);
          both += y ? p_[k] : 0;
          predicted += p_[k];
          truth += y;
        }
        float* row = sums_ + i * kSums;
        row[kCrossEntropy] = static_cast<float>(cross_entropy);
        row[kBoth] = static_cast<float>(both);
        row[kPredicted] = static_cast<float>(predicted);
        row[kTrue] = static_cast<float>(truth);
      }
    });
    ctx->save_for_backward({p, target});
    ctx->saved_data["background"] = background;
    ctx->saved_data["object"] = object;
    return sums;
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    VPD_CHECK(!at::GradMode::is_enabled(), kName, ": second derivatives are not supported");
    const variable_list saved = ctx->get_saved_variables();
    const Tensor &p = saved[0], &target = saved[1];
    const Tensor grad = grads[0].contiguous(), grad_d = at::empty_like(p);
    const int64_t batch = p.size(0), pixels = p.size(1) * p.size(2);
    const float background = static_cast<float>(ctx->saved_data["background"].toDouble()),
                object = static_cast<float>(ctx->saved_data["object"].toDouble());
    const float *p_ = p.const_data_ptr<float>(), *grad_ = grad.const_data_ptr<float>();
    const int64_t* y_ = target.const_data_ptr<int64_t>();
    float* grad_d_ = grad_d.mutable_data_ptr<float>();
    at::parallel_for(0, batch, 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const float* g = grad_ + i * kSums;
        const float on = g[kBoth] + g[kPredicted], off = g[kPredicted];
        for (int64_t k = i * pixels; k < (i + 1) * pixels; ++k) {
          const float q = p_[k], slope = q * (1 - q);
          grad_d_[k] = y_[k] != 0 ? g[kCrossEntropy] * object * (q - 1) + on * slope
                                  : g[kCrossEntropy] * background * q + off * slope;
        }
      }
    });
    return {grad_d, {}, {}, {}};
  }
};

}  // namespace

MaskLosses mask_losses(const Tensor& scores, const Tensor& target,
                       const std::vector<double>& weight) {
  VPD_CHECK(scores.dim() == 4 && scores.is_floating_point() && scores.size(1) == 2, kName,
            ": scores must be floating point [B, 2, h, w], got ", scores.dtype(), " ",
            scores.sizes());
  VPD_CHECK(target.dim() == 3, kName, ": target must be int64 [B, H, W], got ", target.dtype(), " ",
            target.sizes());
  VPD_CHECK(weight.size() == 2, kName, ": expected 2 class weights, got ", weight.size());
  const Tensor wide = widened(scores);
  Tensor d = (wide.select(1, 1) - wide.select(1, 0)).unsqueeze(1).contiguous();
  if (d.sizes().slice(2) != target.sizes().slice(1)) {
    d = ops::resize_bilinear(d, target.sizes().slice(1), /*align_corners=*/true);
  }
  check_pixel_target(kName, d.expand({-1, 2, -1, -1}), target, 2);
  d = d.squeeze(1).contiguous();
  const bool fused = has_values(d) && d.scalar_type() == at::kFloat;
  const Tensor sums = fused ? Sums::apply(d, target.contiguous(), weight[0], weight[1])
                            : composed_sums(d, target, {weight[0], weight[1]});
  const auto of = [&](Sum which) { return sums.select(1, which); };
  const Tensor dice = 1.0 - (2.0 * of(kBoth) + 1.0) / (of(kPredicted) + of(kTrue) + 1.0);
  return {of(kCrossEntropy).sum(), dice.sum()};
}

}  // namespace vpd::losses

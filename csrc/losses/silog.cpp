#include "losses/silog.h"

#include <ATen/Parallel.h>
#include <ATen/ops/div.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/scalar_tensor.h>
#include <ATen/ops/where.h>
#include <torch/csrc/autograd/custom_function.h>

#include <cmath>
#include <limits>

#include "core/check.h"

namespace vpd::losses {

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

namespace {

constexpr const char* kName = "silog_loss";
constexpr float kInfinity = std::numeric_limits<float>::infinity();

// Whether a true depth counts; written so that NaN does not.
struct Counts {
  float min_depth;
  explicit Counts(double least) : min_depth(static_cast<float>(least)) {}
  bool operator()(float depth) const { return depth > min_depth && depth < kInfinity; }
};

// Contiguous float32 on the CPU. The backward wants d, which is kept, and one division.
class Sums : public torch::autograd::Function<Sums> {
 public:
  static variable_list forward(AutogradContext* ctx, const Tensor& prediction, const Tensor& target,
                               double min_depth) {
    const Tensor d = at::div(target, prediction).log_();  // anything where the target is no depth
    const int64_t batch = d.size(0), pixels = d.numel() / batch;
    const float *d_ = d.const_data_ptr<float>(), *t_ = target.const_data_ptr<float>();
    std::vector<double> sums(3 * batch);
    const Counts counts{min_depth};
    at::parallel_for(0, batch, 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        double n = 0, sum = 0, squares = 0;
        for (int64_t k = i * pixels; k < (i + 1) * pixels; ++k) {
          const bool valid = counts(t_[k]);
          const double value = valid ? d_[k] : 0;
          n += valid;
          sum += value;
          squares += value * value;
        }
        sums[3 * i] = n;
        sums[3 * i + 1] = sum;
        sums[3 * i + 2] = squares;
      }
    });
    double total[3] = {};
    for (size_t i = 0; i < sums.size(); ++i) total[i % 3] += sums[i];
    ctx->save_for_backward({prediction, target, d});
    ctx->saved_data["min_depth"] = min_depth;
    const auto scalar = [&](double value) {
      return at::scalar_tensor(value, prediction.options().dtype(at::kDouble));
    };
    variable_list outputs = {scalar(total[0]), scalar(total[1]), scalar(total[2])};
    ctx->mark_non_differentiable({outputs[0]});
    return outputs;
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    VPD_CHECK(!at::GradMode::is_enabled(), kName, ": second derivatives are not supported");
    const variable_list saved = ctx->get_saved_variables();
    const Tensor &prediction = saved[0], &target = saved[1], &d = saved[2];
    Tensor to = at::empty_like(prediction);
    const float *p_ = prediction.const_data_ptr<float>(), *t_ = target.const_data_ptr<float>(),
                *d_ = d.const_data_ptr<float>();
    float* to_ = to.mutable_data_ptr<float>();
    // NaN and infinity stay what they are.
    const float of_sum = static_cast<float>(grads[1].item<double>()),
                of_squares = 2 * static_cast<float>(grads[2].item<double>());
    const Counts counts{ctx->saved_data["min_depth"].toDouble()};
    at::parallel_for(0, to.numel(), 1 << 15, [&](int64_t begin, int64_t end) {
      for (int64_t k = begin; k < end; ++k) {
        to_[k] = counts(t_[k]) ? -(of_sum + of_squares * d_[k]) / p_[k] : 0;
      }
    });
    return {to, {}, {}};
  }
};

SilogSums composed(const Tensor& prediction, const Tensor& target, double min_depth) {
  const Tensor valid = (target > min_depth).logical_and(target < kInfinity);
  const Tensor d = (at::where(valid, target, 1.0) / at::where(valid, prediction, 1.0)).log();
  return {valid.sum().to(at::kDouble), d.sum(at::kDouble), d.square().sum(at::kDouble)};
}

}  // namespace

SilogSums silog_sums(const Tensor& prediction, const Tensor& target, double min_depth) {
  VPD_CHECK((prediction.dim() == 3 || (prediction.dim() == 4 && prediction.size(1) == 1)) &&
                prediction.is_floating_point(),
            kName, ": prediction must be floating point [B, H, W] or [B, 1, H, W], got ",
            prediction.dtype(), " ", prediction.sizes());
  VPD_CHECK(target.sizes() == prediction.sizes() && target.is_floating_point() &&
                target.device() == prediction.device(),
            kName, ": target must be floating point ", prediction.sizes(), " on ",
            prediction.device(), ", got ", target.dtype(), " ", target.sizes(), " on ",
            target.device());
  VPD_CHECK(min_depth >= 0, kName, ": min_depth must be at least 0, got ", min_depth);
  const Tensor wide = widened(prediction).contiguous();
  const Tensor depth = target.to(wide.scalar_type()).contiguous();
  if (has_values(wide) && has_values(depth) && wide.scalar_type() == at::kFloat) {
    const variable_list sums = Sums::apply(wide, depth, min_depth);
    return {sums[0], sums[1], sums[2]};
  }
  return composed(wide, depth, min_depth);
}

Tensor silog_of(const SilogSums& sums, double variance_focus) {
  VPD_CHECK(variance_focus >= 0 && variance_focus <= 1, kName,
            ": variance_focus must be in [0, 1], got ", variance_focus);
  const Tensor n = sums.n.clamp_min(1);
  const Tensor square = sums.squares / n - variance_focus * (sums.sum / n).square();
  // The root has no slope at 0. NaN is not flat and comes through.
  const Tensor flat = square <= 0;
  return at::where(flat, 0.0, at::where(flat, 1.0, square).sqrt());
}

Tensor silog_loss(const Tensor& prediction, const Tensor& target, double variance_focus,
                  double min_depth) {
  return silog_of(silog_sums(prediction, target, min_depth), variance_focus)
      .to(prediction.scalar_type() == at::kDouble ? at::kDouble : at::kFloat);
}

}  // namespace vpd::losses

// A head of one's own on a frozen U-Net: declared like the core's networks, trained by autograd.
#include <ATen/core/grad_mode.h>
#include <ATen/ops/binary_cross_entropy_with_logits.h>
#include <ATen/ops/rand.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/scalar_tensor.h>
#include <ATen/ops/sigmoid.h>

#include <iostream>

#include "core/check.h"
#include "models/unet.h"
#include "nn/conv.h"
#include "nn/feature_maps.h"

namespace {

// One score for each position of the finest map, from all maps: each through a 1x1 convolution,
// resized and added.
class SumHead {
 public:
  explicit SumHead(const std::vector<int64_t>& channels) : channels_(channels) {
    const vpd::Scope root(table_);
    for (size_t i = 0; i < channels.size(); ++i) {
      levels_.emplace_back(root / "levels" / static_cast<int64_t>(i), channels[i], 1);
    }
  }
  SumHead(const SumHead&) = delete;

  const vpd::ParamTable& table() const { return table_; }

  // [B, channels[i], H_i, W_i] -> [B, 1, H_0, W_0]
  at::Tensor forward(const vpd::Params& p, const std::vector<at::Tensor>& maps) const {
    vpd::nn::check_maps("sum_head", maps, channels_);
    at::Tensor sum = levels_.front()(p, maps.front());
    for (size_t i = 1; i < maps.size(); ++i) {
      sum = sum + vpd::nn::resized(levels_[i](p, maps[i]), sum.sizes().slice(2));
    }
    return sum;
  }

 private:
  std::vector<int64_t> channels_;
  vpd::ParamTable table_;
  std::vector<vpd::nn::Conv1x1> levels_;
};

}  // namespace

int main() {
  using namespace vpd;
  const models::UNet net({.model_channels = 32, .num_heads = 4, .context_dim = 64});
  const std::vector<at::Tensor> frozen = net.table().initialise(at::kCPU, at::kFloat);
  models::UNetInputs inputs;
  inputs.latents = at::randn({1, 4, 16, 16});
  inputs.timesteps = at::scalar_tensor(1, at::kLong);
  inputs.context = at::randn({1, 8, 64});
  std::vector<at::Tensor> maps;
  {
    const at::NoGradGuard guard;
    maps = net.forward(Params(net.table(), frozen), inputs, models::UNetTaps{}).features;
  }

  const SumHead head(net.feature_channels());
  std::vector<at::Tensor> weights = head.table().initialise(at::kCPU, at::kFloat);
  for (at::Tensor& weight : weights) weight.requires_grad_();
  const at::Tensor target = (at::rand({1, 1, 16, 16}) > 0.5).to(at::kFloat);
  double first = 0, last = 0;
  for (int step = 0; step < 50; ++step) {
    const at::Tensor logits = head.forward(Params(head.table(), weights), maps);
    const at::Tensor loss = at::binary_cross_entropy_with_logits(logits, target);
    loss.backward();
    last = loss.item<double>();
    if (step == 0) first = last;
    const at::NoGradGuard guard;
    for (at::Tensor& weight : weights) {  // plain gradient descent
      weight.sub_(weight.grad(), 0.05);
      weight.mutable_grad() = at::Tensor();
    }
  }
  std::cout << "loss " << first << " -> " << last << "\n";
  return last < first ? 0 : 1;
}

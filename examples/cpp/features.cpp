// The features and attention maps that VPD's heads see, from a random U-Net.
#include <ATen/ops/randn.h>
#include <ATen/ops/scalar_tensor.h>
#include <c10/core/InferenceMode.h>

#include <iostream>

#include "models/unet.h"

int main() {
  using namespace vpd;
  const c10::InferenceMode guard;  // no graph
  const models::UNet net({.model_channels = 32, .num_heads = 4, .context_dim = 64});
  // The network holds no tensors: they are the program's, in the order of its table.
  const std::vector<at::Tensor> tensors = net.table().initialise(at::kCPU, at::kFloat);

  models::UNetInputs inputs;
  inputs.latents = at::randn({1, 4, 32, 32});
  inputs.timesteps = at::scalar_tensor(1, at::kLong);
  inputs.context = at::randn({1, 77, 64});
  const models::UNetOutput out =
      net.forward(Params(net.table(), tensors), inputs, models::UNetTaps{});

  for (const at::Tensor& feature : out.features) std::cout << "feature " << feature.sizes() << "\n";
  for (const auto& [stride, map] : out.attention) {
    std::cout << "map at stride " << stride << " " << map.sizes() << "\n";
  }
}

#pragma once
#include "core/params.h"

namespace vpd {

// The tensors of a network, with the weights of linear layers and convolutions packed
// (ops/packed.h). On other devices, and in types that oneDNN does not take on this processor, they
// stay as they are. `gradients`: behind them as many again, what the backward pass of each packed
// weight reads, an empty tensor for others.
std::vector<Tensor> packed(const ParamTable& table, at::TensorList tensors, bool gradients);

}  // namespace vpd

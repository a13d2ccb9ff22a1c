#pragma once
#include "core/params.h"

namespace vpd {

// The tensors of a network, with the weights of linear layers and convolutions packed
// (ops/packed.h). On other devices, and in types that oneDNN does not take on this processor, they
// stay as they are.
std::vector<Tensor> packed(const ParamTable& table, at::TensorList tensors);

}  // namespace vpd

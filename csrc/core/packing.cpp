#include "core/packing.h"

#include <ATen/ops/empty.h>

#include "ops/packed.h"

namespace vpd {

std::vector<Tensor> packed(const ParamTable& table, at::TensorList tensors, bool gradients) {
  const Params params(table, tensors);
  std::vector<Tensor> result, backward(params.size(), at::empty({0}));
  for (size_t i = 0; i < params.size(); ++i) {
    const WeightUse& as = table.specs()[i].use;
    const Tensor plain = tensors[i].detach();
    if (as.use == Use::kOther || !ops::can_pack(plain)) {
      result.push_back(plain);
    } else if (as.use == Use::kLinear) {
      result.push_back(ops::packed_linear_weight(plain.flatten(1)));
      if (gradients) backward[i] = ops::packed_linear_weight(plain.flatten(1).t());
    } else {
      result.push_back(ops::packed_conv2d_weight(plain, as.stride, as.padding));
      if (gradients) backward[i] = ops::conv2d_weight_backward(plain, as.stride, as.padding);
    }
  }
  if (gradients) result.insert(result.end(), backward.begin(), backward.end());
  return result;
}

}  // namespace vpd

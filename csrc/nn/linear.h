#pragma once
#include "core/params.h"

namespace vpd::nn {

// y = x W^T + b over the last dimension. [..., in] -> [..., out]
class Linear {
 public:
  Linear(Scope scope, int64_t in, int64_t out, bool bias = true);
  Linear(Scope scope, int64_t in, int64_t out, bool bias, Init weight_init, Init bias_init);
  Tensor operator()(const Params& p, const Tensor& x) const;

 private:
  Slot weight_;
  std::optional<Slot> bias_;
};

}  // namespace vpd::nn

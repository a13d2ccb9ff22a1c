#pragma once
#include "core/params.h"
#include "nn/linear.h"

namespace vpd::models {

// VPD's text adapter (Zhao et al. 2023, equation 4): states + gamma * MLP(states), MLP = Linear,
// exact GELU, Linear. Keys: gamma, fc.0.*, fc.2.*
class TextAdapter {
 public:
  explicit TextAdapter(int64_t dim);
  TextAdapter(const TextAdapter&) = delete;

  const ParamTable& table() const { return table_; }
  Tensor forward(const Params& p, const Tensor& states) const;  // [..., dim] -> [..., dim]

 private:
  int64_t dim_;
  ParamTable table_;
  Slot gamma_;
  nn::Linear in_;
  nn::Linear out_;
};

}  // namespace vpd::models

#pragma once
#include "core/params.h"
#include "nn/linear.h"

namespace vpd::nn {

// Multi-head attention with the names and the start of PyTorch's nn.MultiheadAttention:
// in_proj_weight and in_proj_bias are those of queries, keys and values, one below the other;
// out_proj.*. Scale head_dim^-0.5.
class MultiheadAttention {
 public:
  MultiheadAttention(Scope scope, int64_t channels, int64_t heads);
  // query [B, M, C], key and value [B, N, C], mask bool [B, 1, M, N] (true = attend; every row has
  // one) -> [B, M, C]. No [M, N] matrix of each head is held.
  Tensor operator()(const Params& p, const Tensor& query, const Tensor& key, const Tensor& value,
                    const std::optional<Tensor>& mask = std::nullopt) const;

 private:
  int64_t heads_;
  double scale_;
  Slot in_proj_weight_;
  Slot in_proj_bias_;
  Linear out_proj_;
};

}  // namespace vpd::nn

#include "nn/multihead_attention.h"

#include <ATen/ops/linear.h>

#include <cmath>

#include "nn/init.h"
#include "ops/sdpa.h"

namespace vpd::nn {

MultiheadAttention::MultiheadAttention(Scope scope, int64_t channels, int64_t heads)
    : heads_(heads),
      scale_(1.0 / std::sqrt(static_cast<double>(channels / heads))),
      in_proj_weight_(scope.declare("in_proj_weight", {3 * channels, channels},
                                    xavier(channels, 3 * channels))),
      in_proj_bias_(scope.declare("in_proj_bias", {3 * channels}, Init::zeros())),
      out_proj_(scope / "out_proj", channels, channels, /*bias=*/true, xavier(channels, channels),
                Init::zeros()) {}

Tensor MultiheadAttention::operator()(const Params& p, const Tensor& query, const Tensor& key,
                                      const Tensor& value,
                                      const std::optional<Tensor>& mask) const {
  const std::vector<Tensor> weights = p[in_proj_weight_].chunk(3);
  const std::vector<Tensor> biases = p[in_proj_bias_].chunk(3);
  const auto heads = [&](const Tensor& x, size_t part) {  // [B, heads, *, D]
    return at::linear(x, weights[part], biases[part]).unflatten(2, {heads_, -1}).transpose(1, 2);
  };
  const Tensor read = ops::sdpa(heads(query, 0), heads(key, 1), heads(value, 2), mask,
                                /*causal=*/false, scale_);
  return out_proj_(p, read.transpose(1, 2).flatten(2));
}

}  // namespace vpd::nn

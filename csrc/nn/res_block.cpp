#include "nn/res_block.h"

namespace vpd::nn {

ResBlock::ResBlock(Scope scope, int64_t in, int64_t out, int64_t embedding, int64_t groups)
    : norm_in_(scope / "in_layers" / 0, groups, in, 1e-5),
      conv_in_(scope / "in_layers" / 2, in, out),
      embedding_(scope / "emb_layers" / 1, embedding, out),
      norm_out_(scope / "out_layers" / 0, groups, out, 1e-5),
      conv_out_(scope / "out_layers" / 3, out, out, {.init = Init::zeros()}) {
  if (in != out) skip_.emplace(scope / "skip_connection", in, out);
}

Tensor ResBlock::operator()(const Params& p, const Tensor& x, const Tensor& silu_embedding) const {
  Tensor h = conv_in_(p, norm_in_.silu(p, x));
  h = h + embedding_(p, silu_embedding).unsqueeze(-1).unsqueeze(-1);
  h = conv_out_(p, norm_out_.silu(p, h));
  return (skip_ ? (*skip_)(p, x) : x) + h;
}

}  // namespace vpd::nn

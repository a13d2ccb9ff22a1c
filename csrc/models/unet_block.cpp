#include "models/unet_block.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/upsample_nearest2d.h>

namespace vpd::models {

Tensor UNetBlock::joined(const Tensor& h, const Tensor& skip, const std::optional<Tensor>& repeat) {
  return at::cat({h, skip.size(0) == h.size(0) ? skip : skip.index_select(0, *repeat)}, 1);
}

std::vector<Tensor> UNetBlock::operator()(const Params& p, const Tensor& h, const Tensor& skip,
                                          const Call& call, nn::MapRequest request) const {
  // Both functions may run a second time during the backward: they hold all they need.
  const PureFunction attend = [this, request, mask = call.context_mask, repeat = call.repeat,
                               owner = call.owner, control = call.control,
                               hidden_again = call.recompute == Recompute::kFeedForward](
                                  const Params& p, const auto& in) {
    std::vector<Tensor> out(1);
    std::vector<Tensor> maps;
    const nn::Context context{in[1], mask, repeat, control.get(), hidden_again};
    out[0] = (*transformer)(p, in[0], context, request, &maps);
    out.insert(out.end(), maps.begin(), maps.end());
    return out;
  };
  const PureFunction whole = [this, attend, repeat = call.repeat, recompute = call.recompute](
                                 const Params& p, const auto& in) {
    const Tensor &embedding = in[1], &context = in[2];
    const auto told = [&](const Tensor& h) {
      const bool fits = embedding.size(0) == 1 || embedding.size(0) == h.size(0);
      return fits ? embedding : embedding.index_select(0, *repeat);
    };
    Tensor h = in.size() > 3 ? joined(in[0], in[3], repeat) : in[0];
    if (conv) h = (*conv)(p, h);
    if (res) h = (*res)(p, h, told(h));
    std::vector<Tensor> out = {h};
    if (transformer) {
      out = recompute == Recompute::kAttention ? vpd::recompute(attend, p, own, {h, context})
                                               : attend(p, {h, context});
    }
    if (res2) out[0] = (*res2)(p, out[0], told(out[0]));
    return out;
  };
  std::vector<Tensor> in = {h, call.embedding, call.context};
  if (skip.defined()) in.push_back(skip);
  return call.recompute == Recompute::kAll ? vpd::recompute(whole, p, own, in) : whole(p, in);
}

Tensor UNetBlock::upsampled(const Params& p, const Tensor& h, const Call& call) const {
  const PureFunction f = [this, owner = call.owner](const Params& p, const auto& in) {
    const Tensor& h = in[0];
    return std::vector<Tensor>{(*up)(p, at::upsample_nearest2d(h, {2 * h.size(2), 2 * h.size(3)}))};
  };
  return call.recompute == Recompute::kAll ? vpd::recompute(f, p, own, {h})[0] : f(p, {h})[0];
}

}  // namespace vpd::models

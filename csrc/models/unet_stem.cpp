#include "models/unet_stem.h"

#include <ATen/ops/zeros.h>

#include <bit>
#include <map>
#include <utility>

#include "core/constant.h"

namespace vpd::models {

namespace {

// Numbers of the distinct (latent, timestep) pairs in order of appearance: of each row its pair's,
// and of each pair its first row.
std::pair<std::vector<int64_t>, std::vector<int64_t>> pairs_of(const Tensor& index,
                                                               const Tensor& timesteps) {
  const Tensor images = index.to(at::kCPU).contiguous();
  const Tensor steps = timesteps.to(at::kCPU, at::kDouble).contiguous();
  std::map<std::pair<int64_t, int64_t>, int64_t> known;
  std::vector<int64_t> pairs, firsts;
  for (int64_t row = 0; row < images.size(0); ++row) {
    // By its bits: a NaN equals itself.
    const auto step = std::bit_cast<int64_t>(steps.const_data_ptr<double>()[row]);
    const auto [place, added] =
        known.try_emplace({images.const_data_ptr<int64_t>()[row], step}, known.size());
    if (added) firsts.push_back(row);
    pairs.push_back(place->second);
  }
  return {pairs, firsts};
}

}  // namespace

UNetStem shared_stem(const UNetInputs& in) {
  const int64_t rows = in.context.size(0), images = in.latents.size(0);
  const Tensor timesteps = in.timesteps.reshape({-1});
  if (!in.image_index && images == rows) return {in.latents, timesteps, std::nullopt};
  const Tensor index =
      in.image_index ? *in.image_index : at::zeros({rows}, in.context.options().dtype(at::kLong));
  // Rows that look as others do are needed one by one before the text is met.
  const bool apart = in.time_bias || (in.control && in.control->self_source);
  if (!apart && timesteps.size(0) == 1 && images < rows) {
    return {in.latents, timesteps, index};
  }
  if (!apart && timesteps.size(0) > 1) {
    const auto [pairs, firsts] = pairs_of(index, timesteps);
    if (firsts.size() < pairs.size()) {
      const auto options = at::TensorOptions(at::kLong).device(index.device());
      const Tensor first = constant(firsts, options);
      return {in.latents.index_select(0, index.index_select(0, first)),
              timesteps.index_select(0, first.to(timesteps.device())), constant(pairs, options)};
    }
  }
  return {in.latents.index_select(0, index), timesteps, std::nullopt};
}

}  // namespace vpd::models

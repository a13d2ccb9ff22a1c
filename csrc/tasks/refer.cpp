#include "tasks/refer.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/scalar_tensor.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/upsample_bilinear2d.h>
#include <c10/core/InferenceMode.h>

#include <algorithm>
#include <bit>
#include <filesystem>

#include "core/check.h"
#include "io/state.h"

namespace vpd::tasks {
namespace {

namespace fs = std::filesystem;

models::ReferDecoderConfig decoder_config(const ReferConfig& config, const models::UNet& unet) {
  std::vector<int64_t> dims = unet.feature_channels();
  const std::vector<int64_t> strides = config.map_strides();
  for (size_t level = 0; level < dims.size(); ++level) {
    const bool mapped = std::count(strides.begin(), strides.end(), int64_t{1} << level) > 0;
    if (mapped) dims[level] += config.token_length;
  }
  return {std::move(dims), config.hidden};
}

// Where a model's parts may be: its own folder, the one around it, the zoo.
std::vector<std::string> places_of(const std::string& folder, const std::string& zoo) {
  const fs::path own = fs::weakly_canonical(folder);
  std::vector<std::string> places = {own.string(), own.parent_path().string()};
  if (!zoo.empty()) places.push_back(zoo);
  return places;
}

std::string foundation_file(const std::string& name, const std::vector<std::string>& places) {
  for (const std::string& place : places) {
    const fs::path file = fs::path(place) / name / "model.safetensors";
    if (fs::is_regular_file(file)) return file.string();
  }
  fail(places.front(), ": expected its foundation '", name, "' in ", places.back(), ", got none");
}

}  // namespace

ReferSegmenter::ReferSegmenter(const std::string& folder, const std::string& zoo,
                               const std::string& vocabulary)
    : ReferSegmenter(read_refer_model((fs::path(folder) / "config.json").string()),
                     places_of(folder, zoo), vocabulary) {}

ReferSegmenter::ReferSegmenter(const ReferModel& model, const std::vector<std::string>& places,
                               const std::string& vocabulary)
    : config_(model.config),
      vae_(config_.vae),
      text_(config_.text),
      unet_(config_.unet),
      adapter_(config_.unet.context_dim),
      decoder_(decoder_config(config_, unet_)),
      tokenizer_(text::find_merges(vocabulary.empty() ? places : std::vector{vocabulary})) {
  io::State state;
  if (!model.foundation.empty()) state.add(foundation_file(model.foundation, places));
  const std::string own = (fs::path(places.front()) / "model.safetensors").string();
  state.add(own);
  vae_weights_ = state.take(vae_.table(), "vae.");
  text_weights_ = state.take(text_.table(), "text.");
  unet_weights_ = state.take(unet_.table(), "unet.");
  adapter_weights_ = state.take(adapter_.table(), "adapter.");
  decoder_weights_ = state.take(decoder_.table(), "decoder.");
  for (const std::string& name : state.rest(own)) {
    fail(own, ": its config has no place for the tensor '", name, "'");
  }
}

Tensor ReferSegmenter::logits(const Tensor& image, const std::vector<std::string>& texts) const {
  VPD_CHECK(!texts.empty(), "refer: expected at least one sentence, got none");
  VPD_CHECK(image.dim() == 4 && image.size(0) == 1 && image.is_floating_point(),
            "refer: image must be floats [1, 3, H, W], got ", image.sizes());
  const c10::InferenceMode guard;
  const Tensor pixels = config_.image_in_minus_one_to_one ? image : (image + 1) / 2;
  const Params vae(vae_.table(), vae_weights_);
  const Tensor latents = vae_.encode(vae, pixels).posterior.mean() * config_.latent_scale;

  const Tensor ids = tokenizer_(texts, config_.token_length).ids;
  Tensor context = text_.forward(Params(text_.table(), text_weights_), ids, {}).hidden;
  if (config_.text_adapter) {
    context = adapter_.forward(Params(adapter_.table(), adapter_weights_), context);
  }

  models::UNetInputs inputs;
  inputs.latents = latents;
  inputs.timesteps = at::scalar_tensor(config_.timestep, at::kLong);
  inputs.context = context;
  models::UNetTaps taps;
  taps.attention = config_.map_strides();
  taps.fusion = config_.attn_fusion;
  const models::UNetOutput out = unet_.forward(Params(unet_.table(), unet_weights_), inputs, taps);

  std::vector<Tensor> levels = out.features;
  for (const auto& [stride, map] : out.attention) {
    Tensor& level = levels.at(static_cast<size_t>(std::countr_zero(static_cast<uint64_t>(stride))));
    level = at::cat({level, map * config_.map_scale}, 1);
  }
  const Tensor scores = decoder_.forward(Params(decoder_.table(), decoder_weights_), levels,
                                         /*training=*/false);
  return at::upsample_bilinear2d(scores.to(at::kFloat), image.sizes().slice(2),
                                 /*align_corners=*/true);
}

Tensor probability(const Tensor& logits, at::IntArrayRef size) {
  return at::upsample_bilinear2d(at::softmax(logits, 1).slice(1, 1), size,
                                 /*align_corners=*/false)
      .squeeze(1);
}

}  // namespace vpd::tasks

#include "models/implicit_captioner.h"

#include <ATen/ops/gelu.h>
#include <ATen/ops/tanh.h>

#include "core/check.h"

namespace vpd::models {

namespace {

constexpr const char* kName = "implicit_captioner";
constexpr double kPositionStd = 0.02;

ImplicitCaptionerConfig checked(ImplicitCaptionerConfig config) {
  VPD_CHECK(config.dim > 0 && config.image_dim > 0 && config.tokens > 0 &&
                config.time_dim.value_or(1) > 0 && config.time_steps > 0,
            "ImplicitCaptionerConfig: dim, image_dim, tokens, time_dim and time_steps must be "
            "positive, got ",
            config.dim, ", ", config.image_dim, ", ", config.tokens, ", ",
            config.time_dim.value_or(1), " and ", config.time_steps);
  return config;
}

}  // namespace

Tensor ImplicitCaptioner::Gate::operator()(const Params& p, const Tensor& image) const {
  return at::tanh(p[alpha]) * (linear(p, image) + p[positions]);
}

ImplicitCaptioner::Gate ImplicitCaptioner::gate(const char* alpha, std::vector<int64_t> alpha_shape,
                                                const char* project, int64_t tokens, int64_t dim) {
  const Scope root(table_), own = root / project;
  const Slot opening = root.declare(alpha, std::move(alpha_shape), Init::zeros());
  nn::Linear linear(own / "linear", config_.image_dim, dim);
  return {opening, linear,
          own.declare("positional_embedding", {1, tokens, dim}, Init::normal(kPositionStd))};
}

ImplicitCaptioner::ImplicitCaptioner(ImplicitCaptionerConfig config) : config_(checked(config)) {
  const auto [dim, image_dim, tokens, time_dim, gated, time_steps] = config_;
  if (gated) {
    context_ = gate("alpha_cond", {1, tokens, dim}, "clip_project", tokens, dim);
  } else {
    const Scope mlp = Scope(table_) / "mlp";
    fc1_.emplace(mlp / "fc1", image_dim, dim);
    fc2_.emplace(mlp / "fc2", dim, dim);
    positions_ = mlp.declare("positional_embedding", {1, tokens, dim}, Init::normal(kPositionStd));
  }
  if (time_dim) {
    time_ = gate("alpha_cond_time_embed", {*time_dim}, "time_embed_project", time_steps, *time_dim);
  }
}

ImplicitCaption ImplicitCaptioner::forward(const Params& p, const Tensor& image,
                                           const std::optional<Tensor>& empty) const {
  VPD_CHECK(image.dim() == 2 && image.size(1) == config_.image_dim && image.is_floating_point(),
            kName, ": image must be floating point [B, ", config_.image_dim, "], got ",
            image.dtype(), " ", image.sizes());
  VPD_CHECK(empty.has_value() == config_.gated, kName, ": empty, the states of an empty sentence, ",
            config_.gated ? "is expected with the gate, got none"
                          : "belongs to the gate, which this one has not");
  ImplicitCaption out;
  const at::ScalarType type =
      (config_.gated ? p[context_->positions] : p[*positions_]).scalar_type();
  const Tensor v = image.to(type).unsqueeze(1);  // [B, 1, image_dim]
  if (config_.gated) {
    const Tensor base = empty->dim() == 2 ? empty->unsqueeze(0) : *empty;
    VPD_CHECK(base.dim() == 3 && (base.size(0) == 1 || base.size(0) == image.size(0)) &&
                  base.size(1) == config_.tokens && base.size(2) == config_.dim &&
                  base.is_floating_point(),
              kName, ": empty must be floating point [", config_.tokens, ", ", config_.dim,
              "], alone or for each of ", image.size(0), " images, got ", empty->dtype(), " ",
              empty->sizes());
    out.context = base.to(type) + (*context_)(p, v);
  } else {
    out.context = (*fc2_)(p, at::gelu((*fc1_)(p, v))) + p[*positions_];
  }
  if (time_) out.time_bias = (*time_)(p, v).squeeze(1);  // of several timesteps it stays
  return out;
}

}  // namespace vpd::models

#include "tasks/refer_config.h"

#include "core/check.h"
#include "io/json_fields.h"

namespace vpd::tasks {
namespace {

void read_unet(io::JsonFields fields, models::UNetConfig& config) {
  fields("in_channels", config.in_channels)("out_channels", config.out_channels)(
      "model_channels", config.model_channels)("channel_mult", config.channel_mult)(
      "num_res_blocks", config.num_res_blocks)("attention_resolutions",
                                               config.attention_resolutions);
  fields("num_heads", config.num_heads)("transformer_depth", config.transformer_depth)(
      "context_dim", config.context_dim)("norm_groups", config.norm_groups);
  fields.finish();
}

void read_autoencoder(io::JsonFields fields, models::AutoencoderConfig& config) {
  models::ImageCoderConfig& coder = config.coder;
  fields("ch", coder.ch)("ch_mult", coder.ch_mult)("num_res_blocks", coder.num_res_blocks)(
      "z_channels", coder.z_channels)("in_channels", coder.in_channels)("out_ch", coder.out_ch);
  fields("norm_groups", coder.norm_groups)("mid_attention", coder.mid_attention)("embed_dim",
                                                                                 config.embed_dim);
  fields.take("encode_only");
  config.encode_only = true;
  fields.finish();
}

void read_text(io::JsonFields fields, models::CLIPTextConfig& config) {
  fields("vocab_size", config.vocab_size)("hidden_size", config.hidden_size)(
      "intermediate_size", config.intermediate_size)("num_hidden_layers", config.num_hidden_layers);
  fields("num_attention_heads", config.num_attention_heads)(
      "max_position_embeddings", config.max_position_embeddings)("hidden_act", config.hidden_act);
  fields("layer_norm_eps", config.layer_norm_eps)("eos_token_id", config.eos_token_id)(
      "vocab_subset", config.vocab_subset);
  const io::Json* projection = fields.take("projection_dim");
  if (projection != nullptr && !projection->is_null()) {
    fields("projection_dim", config.projection_dim);
  }
  for (const char* of_the_tokenizer : {"bos_token_id", "pad_token_id"}) {
    fields.take(of_the_tokenizer);
  }
  fields.finish();
}

void read_noise(io::JsonFields fields, ReferConfig& config) {
  std::string space = "none", mode = "mode";
  fields("noise_space", space)("latent_mode", mode)("latent_scale", config.latent_scale);
  const std::string place = fields.place("noise_space");
  VPD_CHECK(space == "none" && mode == "mode", place,
            ": only noise_space 'none' with latent_mode 'mode' run without Python, got '", space,
            "' with '", mode, "'");
  const io::Json* told = fields.take("embed_t");
  const bool match = told != nullptr && told->get_if<std::string>() != nullptr &&
                     *told->get_if<std::string>() == "match";
  fields.take("noise_t");
  fields(match ? "noise_t" : "embed_t", config.timestep);
  // Without noise these say nothing.
  for (const char* idle : {"t0_is_clean", "noise_key", "seed"}) fields.take(idle);
  fields.finish();
}

// A field of two values: whether it has the second.
bool is_second(io::JsonFields& fields, const char* name, const char* first, const char* second) {
  std::string value = first;
  fields(name, value);
  VPD_CHECK(value == first || value == second, fields.place(name), " must be '", first, "' or '",
            second, "', got '", value, "'");
  return value == second;
}

void read_config(io::JsonFields fields, ReferConfig& config) {
  read_unet(fields.object("unet"), config.unet);
  read_autoencoder(fields.object("vae"), config.vae);
  read_text(fields.object("text"), config.text);
  read_noise(fields.object("noise"), config);
  fields("image_size", config.image_size)("token_length", config.token_length)(
      "hidden", config.hidden)("attention", config.attention);
  fields("map_scale", config.map_scale)("text_adapter", config.text_adapter);
  config.attn_fusion = is_second(fields, "attn_fusion", "mean", "daam") ? models::MapFusion::kDaam
                                                                        : models::MapFusion::kMean;
  config.image_in_minus_one_to_one = !is_second(fields, "image_norm", "half", "none");
  // Of training alone; latents without noise are not scaled there and back.
  for (const char* idle : {"map_grad", "scale_factor"}) fields.take(idle);
  std::vector<int64_t> ensemble;
  fields("attn_t_ensemble", ensemble);
  const io::Json* denoise = fields.take("denoise");
  VPD_CHECK(ensemble.empty() && (denoise == nullptr || denoise->is_null()),
            fields.place("attn_t_ensemble"), " and denoise must be unset: they need Python");
  fields.finish();
  VPD_CHECK(config.image_size > 0, fields.place("image_size"), " must be positive, got ",
            config.image_size);
}

}  // namespace

std::vector<int64_t> ReferConfig::map_strides() const {
  if (attn_fusion == models::MapFusion::kMean) return attention;
  std::vector<int64_t> strides;
  for (size_t level = 0; level + 1 < unet.channel_mult.size(); ++level) {
    strides.push_back(int64_t{1} << level);
  }
  return strides;
}

ReferModel read_refer_model(const std::string& path) {
  const io::Json json = io::read_json(path);
  io::JsonFields fields(json, path);
  std::string task;
  fields("task", task);
  VPD_CHECK(task == "refer", path, ": expected a model of task 'refer', got '", task, "'");
  ReferModel model;
  if (const io::Json* base = fields.take("foundation"); base != nullptr && !base->is_null()) {
    fields("foundation", model.foundation);
  }
  read_config(fields.object("config"), model.config);
  return model;
}

}  // namespace vpd::tasks

#include "io/layouts.h"

#include <algorithm>
#include <array>
#include <set>

#include "core/check.h"
#include "io/mask2former_names.h"
#include "io/openai_clip.h"
#include "io/task_names.h"

namespace vpd::io {
namespace {

using Names = std::vector<std::string_view>;

// A network is where its anchor is; its entries are the names below the same prefix that begin with
// one of the roots.
struct Signature {
  NetworkKind kind;
  Naming naming;
  std::string_view anchor;
  Names roots;
};

const std::vector<Signature> kSignatures = {
    {NetworkKind::kUNet,
     Naming::kOriginal,
     "input_blocks.0.0.weight",
     {"time_embed.", "input_blocks.", "middle_block.", "output_blocks.", "out.", "label_emb."}},
    {NetworkKind::kUNet,
     Naming::kDiffusers,
     "time_embedding.linear_1.weight",
     {"time_embedding.", "conv_in.", "down_blocks.", "mid_block.", "up_blocks.", "conv_norm_out.",
      "conv_out.", "add_embedding.", "class_embedding."}},
    {NetworkKind::kVAE,
     Naming::kOriginal,
     "encoder.down.0.block.0.norm1.weight",
     {"encoder.", "decoder.", "quant_conv.", "post_quant_conv.", "quantize."}},
    {NetworkKind::kVAE,
     Naming::kDiffusers,
     "encoder.down_blocks.0.resnets.0.norm1.weight",
     {"encoder.", "decoder.", "quant_conv.", "post_quant_conv.", "quantize."}},
    {NetworkKind::kCLIPText,
     Naming::kOriginal,
     "embeddings.token_embedding.weight",
     {"embeddings.", "encoder.layers.", "final_layer_norm."}},
    {NetworkKind::kCLIPVision,
     Naming::kOriginal,
     "embeddings.patch_embedding.weight",
     {"embeddings.", "pre_layrnorm.", "encoder.layers.", "post_layernorm."}},
};

// The projection of a CLIP tower stands beside the tower: text_model.* and text_projection.weight.
std::string_view tower_of(NetworkKind kind) {
  return kind == NetworkKind::kCLIPText ? "text_model." : "vision_model.";
}
std::string_view projection_of(NetworkKind kind) {
  return kind == NetworkKind::kCLIPText ? "text_projection.weight" : "visual_projection.weight";
}
bool is_clip(NetworkKind kind) {
  return kind == NetworkKind::kCLIPText || kind == NetworkKind::kCLIPVision;
}

// The depth checkpoint keeps a head named "decoder." beside "encoder.encoder_vq."; only names an
// autoencoder can have count.
bool is_vae_name(std::string_view name) {
  if (!name.starts_with("encoder.") && !name.starts_with("decoder.")) return true;
  constexpr std::array<std::string_view, 9> kParts = {"conv_in.",     "conv_out.",  "norm_out.",
                                                      "down.",        "up.",        "mid.",
                                                      "down_blocks.", "up_blocks.", "mid_block."};
  const std::string_view part = name.substr(8);
  return part.starts_with("conv_norm_out.") ||
         std::any_of(kParts.begin(), kParts.end(),
                     [&](auto known) { return part.starts_with(known); });
}

bool belongs(const Signature& signature, std::string_view name) {
  return std::any_of(signature.roots.begin(), signature.roots.end(),
                     [&](std::string_view root) { return name.starts_with(root); }) &&
         (signature.kind != NetworkKind::kVAE || is_vae_name(name));
}

Network collect(const Signature& signature, const std::string& prefix, const Entries& entries) {
  Network network{signature.kind, signature.naming, prefix, {}};
  std::vector<size_t> positions;
  std::vector<std::string> keys;
  for (size_t i = 0; i < entries.size(); ++i) {
    const std::string_view name = entries[i].name;
    if (!name.starts_with(prefix) || !belongs(signature, name.substr(prefix.size()))) continue;
    positions.push_back(i);
    keys.emplace_back(name.substr(prefix.size()));
  }
  NewNames names(keys.begin(), keys.end());
  if (signature.naming == Naming::kDiffusers) names = to_original(signature.kind, keys);
  for (size_t k = 0; k < keys.size(); ++k) {
    // A name without a partner stays itself: it will match nothing and be reported.
    network.names[positions[k]] = names[k].value_or(keys[k]);
  }
  if (is_clip(signature.kind)) {
    std::string_view outer = prefix;
    if (outer.ends_with(tower_of(signature.kind)))
      outer.remove_suffix(tower_of(signature.kind).size());
    const std::string projection = std::string(outer) + std::string(projection_of(signature.kind));
    for (size_t i = 0; i < entries.size(); ++i) {
      if (entries[i].name == projection) network.names[i] = projection_of(signature.kind);
    }
  }
  return network;
}

bool any_starts_with(const Entries& entries, std::string_view prefix) {
  return std::any_of(entries.begin(), entries.end(),
                     [&](const Entry& entry) { return entry.name.starts_with(prefix); });
}

bool any_contains(const Entries& entries, std::string_view part) {
  return std::any_of(entries.begin(), entries.end(), [&](const Entry& entry) {
    return entry.name.find(part) != std::string::npos;
  });
}

// Width of the text states that a U-Net of Stable Diffusion's own size attends to; 0 if there is
// none.
int64_t full_size_context(const Entries& entries) {
  bool full_size = false;
  int64_t context = 0;
  for (const Entry& entry : entries) {
    const bool first =
        entry.name.ends_with("input_blocks.0.0.weight") || entry.name.ends_with("conv_in.weight");
    full_size = full_size || (first && entry.shape.size() == 4 && entry.shape[0] == 320);
    if (entry.name.ends_with("transformer_blocks.0.attn2.to_k.weight") && entry.shape.size() == 2) {
      context = entry.shape[1];
    }
  }
  return full_size ? context : 0;
}

}  // namespace

std::vector<Network> find_networks(const Entries& entries) {
  std::vector<Network> networks;
  for (const Signature& signature : kSignatures) {
    std::set<std::string> prefixes;
    for (const Entry& entry : entries) {
      if (!entry.name.ends_with(signature.anchor)) continue;
      const std::string prefix = entry.name.substr(0, entry.name.size() - signature.anchor.size());
      if (prefix.empty() || prefix.back() == '.') prefixes.insert(prefix);
    }
    for (const std::string& prefix : prefixes) {
      networks.push_back(collect(signature, prefix, entries));
    }
  }
  return networks;
}

std::string detect_layout(const Entries& entries, const std::vector<Network>& networks) {
  if (any_starts_with(entries, "model.diffusion_model.")) return "sd";
  if (any_contains(entries, "unet.unet.diffusion_model.") || any_contains(entries, "encoder_vq.")) {
    if (any_contains(entries, "decode_head.")) return "vpd-seg";
    if (any_contains(entries, "last_layer_depth.")) return "vpd-depth";
    if (any_contains(entries, "classifier.")) return "vpd-refer";
  }
  if (networks.empty()) {
    if (has_transformers_upernet(entries)) return "transformers-upernet";
    if (any_contains(entries, "decode_head.")) return "mmseg";
    if (any_contains(entries, "sem_seg_head.predictor.post_mask_embed.")) return "odise";
    if (any_contains(entries, "pixel_decoder.transformer.level_embed")) return "mask2former";
    std::vector<std::string> names;
    for (const Entry& entry : entries) names.push_back(entry.name);
    if (has_transformers_mask2former(names)) return "transformers-mask2former";
    return has_openai_clip(names) ? "openai-clip" : "unknown";
  }
  const bool diffusers = std::any_of(networks.begin(), networks.end(), [](const Network& n) {
    return n.naming == Naming::kDiffusers;
  });
  if (networks.size() == 1) {
    const Network& only = networks.front();
    switch (only.kind) {
      case NetworkKind::kUNet:
        return diffusers ? "diffusers-unet" : "ldm-unet";
      case NetworkKind::kVAE:
        return diffusers ? "diffusers-vae" : "ldm-vae";
      case NetworkKind::kCLIPText:
        return "clip-text";
      case NetworkKind::kCLIPVision:
        return "clip-vision";
    }
  }
  if (diffusers) return "diffusers";
  const bool only_clip = std::all_of(networks.begin(), networks.end(),
                                     [](const Network& n) { return is_clip(n.kind); });
  return only_clip ? "clip" : "vpd";
}

bool leaves_out(std::string_view layout, NetworkKind kind) {
  return layout == "odise" || (layout.starts_with("vpd-") && kind == NetworkKind::kCLIPText);
}

bool leaves_out(std::string_view layout, std::string_view parameter) {
  return layout == "odise" && (parameter == "empty_states" || parameter == "clip.logit_scale");
}

void refuse_other_models(const Entries& entries, const std::string& path) {
  constexpr std::string_view kExpected =
      "vpd has the networks of Stable Diffusion v1 (v1-5 and its fine-tunes)";
  VPD_CHECK(!any_starts_with(entries, "conditioner.embedders.") &&
                !any_contains(entries, "label_emb.") && !any_contains(entries, "add_embedding."),
            path, ": ", kExpected, ", got a Stable Diffusion XL checkpoint");
  const int64_t context = full_size_context(entries);
  VPD_CHECK(!any_starts_with(entries, "cond_stage_model.model.") && context != 1024, path, ": ",
            kExpected,
            ", got a Stable Diffusion 2.x checkpoint (OpenCLIP text encoder, context width 1024)");
}

bool is_ignorable(std::string_view name) {
  static const std::set<std::string_view> kNumbers = {"betas",
                                                      "alphas_cumprod",
                                                      "alphas_cumprod_prev",
                                                      "sqrt_alphas_cumprod",
                                                      "sqrt_one_minus_alphas_cumprod",
                                                      "log_one_minus_alphas_cumprod",
                                                      "sqrt_recip_alphas_cumprod",
                                                      "sqrt_recipm1_alphas_cumprod",
                                                      "posterior_variance",
                                                      "posterior_log_variance_clipped",
                                                      "posterior_mean_coef1",
                                                      "posterior_mean_coef2",
                                                      "lvlb_weights",
                                                      "logvar",
                                                      "scale_factor",
                                                      "logit_scale",
                                                      "input_resolution",
                                                      "context_length",
                                                      "vocab_size"};
  if (name.starts_with("model_ema.") || name.starts_with("first_stage_model.loss.")) return true;
  if (name.ends_with("embeddings.position_ids")) return true;
  for (const std::string_view prefix : {"module.", "sd_model."}) {
    if (name.starts_with(prefix)) name.remove_prefix(prefix.size());
  }
  return kNumbers.contains(name);
}

}  // namespace vpd::io

#include "io/mask2former_names.h"

#include <ATen/ops/cat.h>

#include <algorithm>
#include <array>
#include <optional>
#include <string_view>
#include <unordered_map>

#include "core/check.h"

namespace vpd::io {
namespace {

// transformers' beginning of a name and the original's; '#' stands for a number, kept.
struct Pair {
  std::string_view theirs;
  std::string_view ours;
};

constexpr auto kPairs = std::to_array<Pair>({
    {"pixel_level_module.decoder.input_projections.#.", "pixel_decoder.input_proj.#."},
    {"pixel_level_module.decoder.level_embed", "pixel_decoder.transformer.level_embed"},
    {"pixel_level_module.decoder.encoder.layers.#.self_attn.",
     "pixel_decoder.transformer.encoder.layers.#.self_attn."},
    {"pixel_level_module.decoder.encoder.layers.#.self_attn_layer_norm.",
     "pixel_decoder.transformer.encoder.layers.#.norm1."},
    {"pixel_level_module.decoder.encoder.layers.#.fc1.",
     "pixel_decoder.transformer.encoder.layers.#.linear1."},
    {"pixel_level_module.decoder.encoder.layers.#.fc2.",
     "pixel_decoder.transformer.encoder.layers.#.linear2."},
    {"pixel_level_module.decoder.encoder.layers.#.final_layer_norm.",
     "pixel_decoder.transformer.encoder.layers.#.norm2."},
    {"pixel_level_module.decoder.adapter_#.0.", "pixel_decoder.adapter_#."},
    {"pixel_level_module.decoder.adapter_#.1.", "pixel_decoder.adapter_#.norm."},
    {"pixel_level_module.decoder.layer_#.0.", "pixel_decoder.layer_#."},
    {"pixel_level_module.decoder.layer_#.1.", "pixel_decoder.layer_#.norm."},
    {"pixel_level_module.decoder.mask_projection.", "pixel_decoder.mask_features."},
    {"transformer_module.queries_embedder.", "predictor.query_embed."},
    {"transformer_module.queries_features.", "predictor.query_feat."},
    {"transformer_module.level_embed.", "predictor.level_embed."},
    {"transformer_module.input_projections.#.", "predictor.input_proj.#."},
    {"transformer_module.decoder.layernorm.", "predictor.decoder_norm."},
    {"transformer_module.decoder.mask_predictor.mask_embedder.#.0.",
     "predictor.mask_embed.layers.#."},
    {"transformer_module.decoder.layers.#.cross_attn.",
     "predictor.transformer_cross_attention_layers.#.multihead_attn."},
    {"transformer_module.decoder.layers.#.cross_attn_layer_norm.",
     "predictor.transformer_cross_attention_layers.#.norm."},
    {"transformer_module.decoder.layers.#.self_attn.",
     "predictor.transformer_self_attention_layers.#.self_attn."},
    {"transformer_module.decoder.layers.#.self_attn_layer_norm.",
     "predictor.transformer_self_attention_layers.#.norm."},
    {"transformer_module.decoder.layers.#.fc1.", "predictor.transformer_ffn_layers.#.linear1."},
    {"transformer_module.decoder.layers.#.fc2.", "predictor.transformer_ffn_layers.#.linear2."},
    {"transformer_module.decoder.layers.#.final_layer_norm.",
     "predictor.transformer_ffn_layers.#.norm."},
});
constexpr Pair kClassifier = {"class_predictor.", "predictor.class_embed."};
constexpr std::string_view kAnchor = "pixel_level_module.decoder.mask_projection.weight";
constexpr std::string_view kModel = "model.";  // between the prefix and all but the classifier
constexpr std::string_view kSelfAttention = "predictor.transformer_self_attention_layers.";
constexpr std::string_view kQuery = ".q_proj.", kKey = ".k_proj.", kValue = ".v_proj.";

// The original's name for `name`, if it begins as `pair` says.
std::optional<std::string> renamed(const Pair& pair, std::string_view name) {
  const size_t hole = pair.theirs.find('#');
  const std::string_view head = pair.theirs.substr(0, hole);
  if (!name.starts_with(head)) return std::nullopt;
  name.remove_prefix(head.size());
  std::string ours(pair.ours);
  if (hole != pair.theirs.npos) {
    const std::string_view tail = pair.theirs.substr(hole + 1);
    const size_t digits = std::min(name.find_first_not_of("0123456789"), name.size());
    if (digits == 0 || !name.substr(digits).starts_with(tail)) return std::nullopt;
    ours.replace(ours.find('#'), 1, name.substr(0, digits));
    name.remove_prefix(digits + tail.size());
  }
  return ours.append(name);
}

std::optional<std::string> renamed(std::string_view name) {
  for (const Pair& pair : kPairs) {
    if (auto ours = renamed(pair, name)) return ours;
  }
  return std::nullopt;
}

// Prefixes of the heads, "model." included where it is there.
std::vector<std::string> find_heads(const std::vector<std::string>& names) {
  std::vector<std::string> prefixes;
  for (const std::string& name : names) {
    if (!name.ends_with(kAnchor)) continue;
    std::string prefix = name.substr(0, name.size() - kAnchor.size());
    if (prefix.empty() || prefix.back() == '.') prefixes.push_back(std::move(prefix));
  }
  return prefixes;
}

// The original's name of a tensor of one of the heads, their prefix without "model." kept.
std::optional<std::string> renamed(const std::vector<std::string>& heads, std::string_view name) {
  for (const std::string& prefix : heads) {
    const bool model = prefix.ends_with(kModel);
    const std::string outer = prefix.substr(0, prefix.size() - (model ? kModel.size() : 0));
    std::optional<std::string> ours;
    if (name.starts_with(prefix)) ours = renamed(name.substr(prefix.size()));
    if (!ours && name.starts_with(outer)) ours = renamed(kClassifier, name.substr(outer.size()));
    if (ours) return outer + *ours;
  }
  return std::nullopt;
}

// `name` with the last `from` in it replaced; empty if there is none.
std::string replaced(std::string name, std::string_view from, std::string_view into) {
  const size_t at = name.rfind(from);
  return at == name.npos ? "" : name.replace(at, from.size(), into);
}

// Puts queries, keys and values of each self-attention into one tensor, at the queries' place.
NamedTensors stacked(NamedTensors file, const std::string& path) {
  std::unordered_map<std::string, size_t> places;
  for (size_t i = 0; i < file.size(); ++i) {
    if (file[i].first.find(kSelfAttention) != std::string::npos) places[file[i].first] = i;
  }
  std::vector<bool> used(file.size(), false);
  for (const auto& [name, place] : places) {
    const std::string whole = replaced(name, kQuery, ".in_proj_");
    const auto key = places.find(replaced(name, kQuery, kKey));
    const auto value = places.find(replaced(name, kQuery, kValue));
    if (whole.empty() || key == places.end() || value == places.end()) continue;
    const at::Tensor& query = file[place].second;
    for (const auto& part : {key, value}) {
      const at::Tensor& tensor = file[part->second].second;
      VPD_CHECK(query.dim() > 0 && tensor.sizes() == query.sizes() &&
                    tensor.scalar_type() == query.scalar_type(),
                path, ": '", part->first, "' must be ", query.dtype(), " ", query.sizes(),
                " like the queries', got ", tensor.dtype(), " ", tensor.sizes());
      used[part->second] = true;
    }
    file[place] = {whole, at::cat({query, file[key->second].second, file[value->second].second})};
  }
  NamedTensors result;
  for (size_t i = 0; i < file.size(); ++i) {
    if (!used[i]) result.push_back(std::move(file[i]));
  }
  return result;
}

}  // namespace

bool has_transformers_mask2former(const std::vector<std::string>& names) {
  return !find_heads(names).empty();
}

NamedTensors mask2former_from_transformers(const NamedTensors& file, const std::string& path) {
  std::vector<std::string> names;
  for (const auto& entry : file) names.push_back(entry.first);
  const std::vector<std::string> heads = find_heads(names);
  if (heads.empty()) return file;
  NamedTensors result = file;
  for (auto& [name, tensor] : result) name = renamed(heads, name).value_or(name);
  return stacked(std::move(result), path);
}

}  // namespace vpd::io

#include "io/openai_clip.h"

#include <array>
#include <charconv>
#include <optional>
#include <set>
#include <string_view>
#include <unordered_set>

#include "core/check.h"

namespace vpd::io {
namespace {

// OpenAI's name and transformers'. A name that ends in a dot stands for all that begin with it.
using Pair = std::pair<std::string_view, std::string_view>;
using Pairs = std::vector<Pair>;

constexpr std::string_view kLayers = "transformer.resblocks.";
constexpr std::string_view kFirstInput = "transformer.resblocks.0.attn.in_proj_weight";
constexpr std::string_view kVisual = "visual.";

struct TowerNames {
  std::string_view anchor;  // with `beside` and kFirstInput below one prefix this is the tower
  std::string_view beside;
  std::string_view layers;
  Pairs pairs;
  Pair projection;
};

const TowerNames kImage = {
    "conv1.weight",
    "class_embedding",
    "vision_model.encoder.layers.",
    {{"class_embedding", "vision_model.embeddings.class_embedding"},
     {"positional_embedding", "vision_model.embeddings.position_embedding.weight"},
     {"conv1.weight", "vision_model.embeddings.patch_embedding.weight"},
     {"ln_pre.", "vision_model.pre_layrnorm."},
     {"ln_post.", "vision_model.post_layernorm."}},
    {"proj", "visual_projection.weight"},
};
const TowerNames kText = {
    "token_embedding.weight",
    "positional_embedding",
    "text_model.encoder.layers.",
    {{"token_embedding.weight", "text_model.embeddings.token_embedding.weight"},
     {"positional_embedding", "text_model.embeddings.position_embedding.weight"},
     {"ln_final.", "text_model.final_layer_norm."}},
    {"text_projection", "text_projection.weight"},
};
const Pairs kLayerPairs = {
    {"attn.out_proj.", "self_attn.out_proj."},
    {"ln_1.", "layer_norm1."},
    {"ln_2.", "layer_norm2."},
    {"mlp.c_fc.", "mlp.fc1."},
    {"mlp.c_proj.", "mlp.fc2."},
};
constexpr std::string_view kStacked = "attn.in_proj_";  // "weight" or "bias" behind it
constexpr std::array<std::string_view, 3> kParts = {"q_proj", "k_proj", "v_proj"};  // in this order

struct Tower {
  const TowerNames* names;
  std::string prefix;  // "visual." of an image tower included
  // Whether everything below the prefix is the tower's, not only what it has names for.
  bool owns_prefix() const { return names == &kImage && prefix.ends_with(kVisual); }
  std::string outer() const {
    return owns_prefix() ? prefix.substr(0, prefix.size() - kVisual.size()) : prefix;
  }
};

std::vector<Tower> find_towers(const std::vector<std::string>& names) {
  const std::unordered_set<std::string_view> all(names.begin(), names.end());
  std::vector<Tower> towers;
  for (const std::string& name : names) {
    for (const TowerNames* tower : {&kImage, &kText}) {
      if (!name.ends_with(tower->anchor)) continue;
      const std::string prefix = name.substr(0, name.size() - tower->anchor.size());
      if (!prefix.empty() && prefix.back() != '.') continue;
      if (all.contains(prefix + std::string(tower->beside)) &&
          all.contains(prefix + std::string(kFirstInput))) {
        towers.push_back({tower, prefix});
      }
    }
  }
  return towers;
}

std::optional<std::string> swap(const Pairs& pairs, std::string_view name) {
  for (const auto& [from, into] : pairs) {
    if (from.ends_with('.') ? name.starts_with(from) : name == from) {
      return std::string(into) + std::string(name.substr(from.size()));
    }
  }
  return std::nullopt;
}

// The number and dot that `name` begins with; empty if it begins otherwise.
std::string_view layer_number(std::string_view name) {
  unsigned value = 0;
  const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), value);
  const auto digits = static_cast<size_t>(end - name.data());
  const bool fits = error == std::errc() && digits < name.size() && name[digits] == '.';
  return fits ? name.substr(0, digits + 1) : std::string_view();
}

// The tensors that `name`, given below the tower's prefix, becomes; none if it is not the tower's.
NamedTensors convert(const TowerNames& tower, std::string_view name, const at::Tensor& tensor,
                     const std::string& shown) {
  if (name == tower.projection.first) {
    VPD_CHECK(tensor.dim() == 2, shown, " must be a matrix, got ", tensor.sizes());
    return {{std::string(tower.projection.second), tensor.t()}};
  }
  if (const auto renamed = swap(tower.pairs, name)) return {{*renamed, tensor}};
  if (!name.starts_with(kLayers)) return {};
  name.remove_prefix(kLayers.size());
  const std::string_view number = layer_number(name);
  name.remove_prefix(number.size());
  const std::string layer = std::string(tower.layers) + std::string(number);
  if (const auto renamed = swap(kLayerPairs, name)) return {{layer + *renamed, tensor}};
  const bool bias = name.ends_with("bias");
  if (number.empty() || name != std::string(kStacked) + (bias ? "bias" : "weight")) return {};
  VPD_CHECK(tensor.dim() == (bias ? 1 : 2) && tensor.size(0) % 3 == 0, shown,
            " must stack query, key and value, got ", tensor.sizes());
  NamedTensors parts;
  const int64_t rows = tensor.size(0) / 3;
  for (size_t i = 0; i < kParts.size(); ++i) {
    parts.emplace_back(layer + "self_attn." + std::string(kParts[i]) + (bias ? ".bias" : ".weight"),
                       tensor.narrow(0, static_cast<int64_t>(i) * rows, rows));
  }
  return parts;
}

std::vector<std::string> names_of(const NamedTensors& file) {
  std::vector<std::string> names;
  for (const auto& entry : file) names.push_back(entry.first);
  return names;
}

}  // namespace

bool has_openai_clip(const std::vector<std::string>& names) { return !find_towers(names).empty(); }

NamedTensors openai_clip_to_transformers(const NamedTensors& file, const std::string& path) {
  const std::vector<Tower> towers = find_towers(names_of(file));
  if (towers.empty()) return file;
  NamedTensors result;
  std::set<std::string> taken;
  for (const auto& [name, tensor] : file) {
    NamedTensors converted;
    for (const Tower& tower : towers) {
      if (!converted.empty() || !name.starts_with(tower.prefix)) continue;
      const std::string_view rest = std::string_view(name).substr(tower.prefix.size());
      converted = convert(*tower.names, rest, tensor, path + ": '" + name + "'");
      // Leaving a part of a tower out would change what it computes.
      VPD_CHECK(!converted.empty() || !(tower.owns_prefix() || rest.starts_with(kLayers)), path,
                ": '", name, "' has no place in CLIP's ", tower.names == &kImage ? "image" : "text",
                " encoder, a plain vision or text transformer");
      for (auto& entry : converted) entry.first.insert(0, tower.outer());
    }
    if (converted.empty()) converted.emplace_back(name, tensor);
    for (auto& entry : converted) {
      VPD_CHECK(taken.insert(entry.first).second, path, ": '", name, "' is there twice, also as '",
                entry.first, "'");
      result.push_back(std::move(entry));
    }
  }
  return result;
}

}  // namespace vpd::io

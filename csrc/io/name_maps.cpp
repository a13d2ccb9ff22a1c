#include "io/name_maps.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <map>
#include <set>
#include <utility>

namespace vpd::io {
namespace {

using Pairs = std::vector<std::pair<std::string_view, std::string_view>>;  // original, diffusers

const Pairs kUNetEnds = {
    {"time_embed.0.", "time_embedding.linear_1."},
    {"time_embed.2.", "time_embedding.linear_2."},
    {"input_blocks.0.0.", "conv_in."},
    {"out.0.", "conv_norm_out."},
    {"out.2.", "conv_out."},
};
const Pairs kUNetResBlock = {
    {"in_layers.0.", "norm1."},          {"in_layers.2.", "conv1."},
    {"emb_layers.1.", "time_emb_proj."}, {"out_layers.0.", "norm2."},
    {"out_layers.3.", "conv2."},         {"skip_connection.", "conv_shortcut."},
};
const Pairs kVAEEnds = {
    {"conv_in.", "conv_in."},
    {"norm_out.", "conv_norm_out."},
    {"conv_out.", "conv_out."},
};
const Pairs kVAEResBlock = {
    {"norm1.", "norm1."},
    {"conv1.", "conv1."},
    {"norm2.", "norm2."},
    {"conv2.", "conv2."},
    {"nin_shortcut.", "conv_shortcut."},
};
// The first name is written; files of 2022 and 2023 have the second.
const Pairs kVAEAttention = {
    {"norm.", "group_norm."},    {"q.", "to_q."},  {"k.", "to_k."}, {"v.", "to_v."},
    {"proj_out.", "to_out.0."},  {"q.", "query."}, {"k.", "key."},  {"v.", "value."},
    {"proj_out.", "proj_attn."},
};
const Pairs kVAEWhole = {
    {"quant_conv.", "quant_conv."},
    {"post_quant_conv.", "post_quant_conv."},
    {"quantize.", "quantize."},
};

// Reads a key from the left: literal pieces and numbers.
class Reader {
 public:
  explicit Reader(std::string_view rest) : rest_(rest) {}
  bool literal(std::string_view text) {
    if (!rest_.starts_with(text)) return false;
    rest_.remove_prefix(text.size());
    return true;
  }
  // A number of at most three digits and the dot behind it.
  bool number(int& value) {
    const auto [end, error] = std::from_chars(rest_.data(), rest_.data() + rest_.size(), value);
    const auto digits = static_cast<size_t>(end - rest_.data());
    if (error != std::errc() || value < 0 || digits > 3 || digits == rest_.size() || *end != '.')
      return false;
    rest_.remove_prefix(digits + 1);
    return true;
  }
  std::string_view rest() const { return rest_; }

 private:
  std::string_view rest_;
};

// Replaces the beginning of `rest` by its partner.
std::optional<std::string> swap(const Pairs& pairs, std::string_view rest, Naming to) {
  for (const auto& [original, diffusers] : pairs) {
    const auto [from, into] =
        to == Naming::kOriginal ? std::pair(diffusers, original) : std::pair(original, diffusers);
    if (rest.starts_with(from)) return std::string(into) + std::string(rest.substr(from.size()));
  }
  return std::nullopt;
}

template <typename... Parts>
std::string join(const Parts&... parts) {
  std::string name;
  const auto add = [&name](const auto& part) {
    if constexpr (std::is_integral_v<std::decay_t<decltype(part)>>) {
      name += std::to_string(part);
    } else {
      name += part;
    }
  };
  (add(parts), ...);
  return name;
}

std::optional<std::string> prefixed(const std::string& prefix, std::optional<std::string> name) {
  if (name) name->insert(0, prefix);
  return name;
}

// How the numbered blocks of a U-Net pair up: (level, block in level) in diffusers, one running
// number in the original.
struct UNetBlocks {
  struct Place {
    int level = 0;
    int block = 0;  // residual block; `count` of the level for its down- or upsampler
  };
  std::map<int, Place> places;                 // original number -> place
  std::map<std::pair<int, int>, int> numbers;  // place -> original number
  std::map<int, int> count;                    // residual blocks of each level
  std::set<int> attended;                      // original numbers with a transformer

  void add(int number, int level, int block) {
    places[number] = {level, block};
    numbers[{level, block}] = number;
  }
};

// Numbering from diffusers keys. A down level is its blocks and then its downsampler, an up level
// only its blocks.
UNetBlocks blocks_from_diffusers(const std::vector<std::string>& keys, std::string_view side) {
  const bool down = side == "down";
  std::map<int, int> count;
  std::set<std::pair<int, int>> attended;
  for (const std::string& key : keys) {
    Reader reader(key);
    int level = 0, block = 0;
    if (!reader.literal(side) || !reader.literal("_blocks.") || !reader.number(level)) continue;
    if (reader.literal("resnets.") && reader.number(block)) {
      count[level] = std::max(count[level], block + 1);
    } else if (reader.literal("attentions.") && reader.number(block)) {
      attended.emplace(level, block);
    }
  }
  UNetBlocks blocks{.places = {}, .numbers = {}, .count = count, .attended = {}};
  int number = down ? 1 : 0;
  for (const auto& [level, blocks_of_level] : count) {
    for (int block = 0; block < blocks_of_level; ++block, ++number) {
      blocks.add(number, level, block);
      if (attended.contains({level, block})) blocks.attended.insert(number);
    }
    if (down) blocks.add(number++, level, blocks_of_level);
  }
  return blocks;
}

// Numbering from original keys: a down level ends with its downsampler, an up level with the block
// that upsamples.
UNetBlocks blocks_from_original(const std::vector<std::string>& keys, std::string_view side) {
  const bool down = side == "input";
  std::map<int, bool> ends_level;
  UNetBlocks blocks;
  for (const std::string& key : keys) {
    Reader reader(key);
    int number = 0, part = 0;
    if (!reader.literal(side) || !reader.literal("_blocks.") || !reader.number(number) ||
        !reader.number(part))
      continue;
    if (down && number == 0) continue;  // the first convolution
    ends_level[number] |= reader.rest().starts_with(down ? "op." : "conv.");
    if (part == 1 && reader.rest().starts_with("transformer_blocks."))
      blocks.attended.insert(number);
  }
  int level = 0, block = 0;
  for (const auto& [number, last] : ends_level) {
    blocks.add(number, level, block++);
    if (!last) continue;
    blocks.count[level++] = down ? block - 1 : block;
    block = 0;
  }
  if (block > 0) blocks.count[level] = block;
  return blocks;
}

std::optional<std::string> unet_to_original(std::string_view key, const UNetBlocks& down,
                                            const UNetBlocks& up) {
  if (auto name = swap(kUNetEnds, key, Naming::kOriginal)) return name;
  Reader reader(key);
  int level = 0, block = 0;
  if (reader.literal("mid_block.")) {
    if (reader.literal("resnets.") && reader.number(block) && block < 2) {
      return prefixed(join("middle_block.", 2 * block, "."),
                      swap(kUNetResBlock, reader.rest(), Naming::kOriginal));
    }
    if (reader.literal("attentions.0.")) return join("middle_block.1.", reader.rest());
    return std::nullopt;
  }
  const bool is_down = reader.literal("down_blocks.");
  if (!is_down && !reader.literal("up_blocks.")) return std::nullopt;
  if (!reader.number(level)) return std::nullopt;
  const UNetBlocks& blocks = is_down ? down : up;
  const std::string stem = is_down ? "input_blocks." : "output_blocks.";
  const auto number_of = [&](int index) { return blocks.numbers.find({level, index}); };
  if (reader.literal(is_down ? "downsamplers.0.conv." : "upsamplers.0.conv.")) {
    const auto count = blocks.count.find(level);
    if (count == blocks.count.end()) return std::nullopt;
    const int number = number_of(is_down ? count->second : count->second - 1)->second;
    if (is_down) return join(stem, number, ".0.op.", reader.rest());
    return join(stem, number, ".", blocks.attended.contains(number) ? 2 : 1, ".conv.",
                reader.rest());
  }
  const bool resnet = reader.literal("resnets.");
  if (!resnet && !reader.literal("attentions.")) return std::nullopt;
  if (!reader.number(block) || number_of(block) == blocks.numbers.end()) return std::nullopt;
  const int number = number_of(block)->second;
  if (!resnet) return join(stem, number, ".1.", reader.rest());
  return prefixed(join(stem, number, ".0."), swap(kUNetResBlock, reader.rest(), Naming::kOriginal));
}

std::optional<std::string> unet_to_diffusers(std::string_view key, const UNetBlocks& down,
                                             const UNetBlocks& up) {
  if (auto name = swap(kUNetEnds, key, Naming::kDiffusers)) return name;
  Reader reader(key);
  int number = 0, part = 0;
  if (reader.literal("middle_block.")) {
    if (!reader.number(part) || part > 2) return std::nullopt;
    if (part == 1) return join("mid_block.attentions.0.", reader.rest());
    return prefixed(join("mid_block.resnets.", part / 2, "."),
                    swap(kUNetResBlock, reader.rest(), Naming::kDiffusers));
  }
  const bool is_down = reader.literal("input_blocks.");
  if (!is_down && !reader.literal("output_blocks.")) return std::nullopt;
  const UNetBlocks& blocks = is_down ? down : up;
  if (!reader.number(number) || !reader.number(part)) return std::nullopt;
  const auto place = blocks.places.find(number);
  if (place == blocks.places.end()) return std::nullopt;
  const std::string stem = join(is_down ? "down_blocks." : "up_blocks.", place->second.level, ".");
  if (reader.literal(is_down ? "op." : "conv.")) {
    return join(stem, is_down ? "downsamplers" : "upsamplers", ".0.conv.", reader.rest());
  }
  if (part == 1) return join(stem, "attentions.", place->second.block, ".", reader.rest());
  if (part != 0) return std::nullopt;
  return prefixed(join(stem, "resnets.", place->second.block, "."),
                  swap(kUNetResBlock, reader.rest(), Naming::kDiffusers));
}

// Levels of the decoder, which diffusers counts from the coarsest.
int vae_levels(const std::vector<std::string>& keys, std::string_view stem) {
  int levels = 0;
  for (const std::string& key : keys) {
    Reader reader(key);
    int level = 0;
    if (reader.literal(stem) && reader.number(level)) levels = std::max(levels, level + 1);
  }
  return levels;
}

std::optional<std::string> vae_rename(std::string_view key, Naming to, int decoder_levels) {
  if (auto name = swap(kVAEWhole, key, to)) return name;
  const bool original = to == Naming::kOriginal;
  Reader reader(key);
  const bool encoder = reader.literal("encoder.");
  if (!encoder && !reader.literal("decoder.")) return std::nullopt;
  const std::string tower = encoder ? "encoder." : "decoder.";
  if (auto name = swap(kVAEEnds, reader.rest(), to)) return prefixed(tower, std::move(name));

  int level = 0, block = 0;
  if (reader.literal(original ? "mid_block." : "mid.")) {
    const std::string stem = tower + (original ? "mid." : "mid_block.");
    if (reader.literal(original ? "attentions.0." : "attn_1.")) {
      return prefixed(stem + (original ? "attn_1." : "attentions.0."),
                      swap(kVAEAttention, reader.rest(), to));
    }
    if (!reader.literal(original ? "resnets." : "block_") || !reader.number(block))
      return std::nullopt;
    if (original ? block > 1 : block < 1 || block > 2)
      return std::nullopt;  // counted from 0, and from 1
    const std::string name =
        original ? join("block_", block + 1, ".") : join("resnets.", block - 1, ".");
    return prefixed(stem + name, swap(kVAEResBlock, reader.rest(), to));
  }

  const std::string side = encoder ? "down" : "up";
  if (!reader.literal(side + (original ? "_blocks." : ".")) || !reader.number(level))
    return std::nullopt;
  if (!encoder) level = decoder_levels - 1 - level;
  const std::string stem = join(tower, side, original ? "." : "_blocks.", level, ".");
  const std::string plain = side + "sample.conv.", listed = side + "samplers.0.conv.";
  if (reader.literal(original ? listed : plain))
    return join(stem, original ? plain : listed, reader.rest());
  const bool attention = reader.literal(original ? "attentions." : "attn.");
  if (!attention && !reader.literal(original ? "resnets." : "block.")) return std::nullopt;
  if (!reader.number(block)) return std::nullopt;
  if (attention) {
    return prefixed(join(stem, original ? "attn." : "attentions.", block, "."),
                    swap(kVAEAttention, reader.rest(), to));
  }
  return prefixed(join(stem, original ? "block." : "resnets.", block, "."),
                  swap(kVAEResBlock, reader.rest(), to));
}

NewNames rename(NetworkKind kind, const std::vector<std::string>& keys, Naming to) {
  const bool original = to == Naming::kOriginal;
  NewNames names;
  names.reserve(keys.size());
  if (kind == NetworkKind::kUNet) {
    const UNetBlocks down =
        original ? blocks_from_diffusers(keys, "down") : blocks_from_original(keys, "input");
    const UNetBlocks up =
        original ? blocks_from_diffusers(keys, "up") : blocks_from_original(keys, "output");
    for (const std::string& key : keys) {
      names.push_back(original ? unet_to_original(key, down, up)
                               : unet_to_diffusers(key, down, up));
    }
  } else if (kind == NetworkKind::kVAE) {
    const int levels = vae_levels(keys, original ? "decoder.up_blocks." : "decoder.up.");
    for (const std::string& key : keys) names.push_back(vae_rename(key, to, levels));
  } else {
    names.assign(keys.begin(), keys.end());
  }
  return names;
}

// A projection of an attention block of the VAE, by its original name.
bool is_vae_projection(std::string_view key) {
  if (!key.ends_with(".weight") || key.find(".attn") == std::string_view::npos) return false;
  constexpr std::array<std::string_view, 4> kEnds = {".q.weight", ".k.weight", ".v.weight",
                                                     ".proj_out.weight"};
  return std::any_of(kEnds.begin(), kEnds.end(),
                     [&](std::string_view end) { return key.ends_with(end); });
}

}  // namespace

std::string_view to_string(NetworkKind kind) {
  switch (kind) {
    case NetworkKind::kUNet:
      return "unet";
    case NetworkKind::kVAE:
      return "vae";
    case NetworkKind::kCLIPText:
      return "clip_text";
    case NetworkKind::kCLIPVision:
      return "clip_vision";
  }
  return "";
}

NewNames to_original(NetworkKind kind, const std::vector<std::string>& diffusers_keys) {
  return rename(kind, diffusers_keys, Naming::kOriginal);
}

NewNames to_diffusers(NetworkKind kind, const std::vector<std::string>& original_keys) {
  return rename(kind, original_keys, Naming::kDiffusers);
}

std::vector<int64_t> shape_in(Naming naming, NetworkKind kind, std::string_view original_key,
                              const std::vector<int64_t>& shape) {
  if (kind != NetworkKind::kVAE || !is_vae_projection(original_key)) return shape;
  if (naming == Naming::kOriginal && shape.size() == 2) return {shape[0], shape[1], 1, 1};
  if (naming == Naming::kDiffusers && shape.size() == 4 && shape[2] == 1 && shape[3] == 1) {
    return {shape[0], shape[1]};
  }
  return shape;
}

}  // namespace vpd::io

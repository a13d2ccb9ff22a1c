#include "models/unet_plan.h"

#include <ATen/ops/avg_pool2d.h>
#include <ATen/ops/upsample_bilinear2d.h>

#include <algorithm>
#include <sstream>

#include "core/check.h"
#include "core/constant.h"
#include "models/daam.h"

namespace vpd::models {

namespace {

std::set<std::string> split_selector(const std::string& selector) {
  std::set<std::string> places;
  std::stringstream stream(selector);
  for (std::string word; std::getline(stream, word, '+');) {
    VPD_CHECK(word == "up_cross" || word == "down_cross" || word == "mid_cross",
              "taps: selector must join up_cross, down_cross, mid_cross with '+', got '", selector,
              "'");
    places.insert(word.substr(0, word.find('_')));
  }
  VPD_CHECK(!places.empty(), "taps: selector must not be empty");
  return places;
}

std::string joined(const std::set<int64_t>& values) {
  std::string text;
  for (const int64_t value : values) text += (text.empty() ? "" : ", ") + std::to_string(value);
  return text;
}

// "output_blocks.3.1.transformer_blocks.0.attn2" -> "output_blocks.3"; "middle_block.1. ..." ->
// "middle_block"
std::string block_of(const std::string& layer) {
  const std::string transformer = layer.substr(0, layer.find(".transformer_blocks"));
  return transformer.substr(0, transformer.rfind('.'));
}

}  // namespace

UNetPlan::UNetPlan(const UNetTaps& taps, const std::vector<AttentionLayer>& layers,
                   int64_t down_blocks, int64_t up_blocks, int64_t num_res_blocks, int64_t levels)
    : inputs_(taps.block_inputs.begin(), taps.block_inputs.end()),
      outputs_(taps.block_outputs.begin(), taps.block_outputs.end()) {
  const auto position = [&](const std::string& block) -> int64_t {
    const auto parse = [&](const std::string& prefix, int64_t count, int64_t offset) -> int64_t {
      if (block.rfind(prefix, 0) != 0) return -1;
      const std::string digits = block.substr(prefix.size());
      const bool numeric =
          !digits.empty() && digits.size() < 4 &&
          std::all_of(digits.begin(), digits.end(), [](char c) { return c >= '0' && c <= '9'; });
      if (!numeric || std::stoll(digits) >= count) return -1;
      return offset + std::stoll(digits);
    };
    if (block == "middle_block") return down_blocks;
    const int64_t down = parse("input_blocks.", down_blocks, 0);
    const int64_t up = parse("output_blocks.", up_blocks, down_blocks + 1);
    VPD_CHECK(down >= 0 || up >= 0, "taps: no block '", block, "'; there are input_blocks.0..",
              down_blocks - 1, ", middle_block and output_blocks.0..", up_blocks - 1);
    return std::max(down, up);
  };
  int64_t last_run = -1;
  const auto need = [&](int64_t at) { last_run = std::max(last_run, at); };
  for (const std::string& block : inputs_) last = std::max(last, position(block));
  for (const std::string& block : outputs_) need(position(block));
  if (taps.features) need(down_blocks + 1 + levels * (num_res_blocks + 1) - 1);
  if (taps.noise) need(down_blocks + up_blocks);
  plan_maps(taps, layers, levels);
  for (const auto& [name, strides] : strides_) need(position(block_of(name)));
  last = std::max(last, last_run);
  runs_last = last == last_run;
}

// An explicit list of layers wins over the selector.
void UNetPlan::plan_maps(const UNetTaps& taps, const std::vector<AttentionLayer>& layers,
                         int64_t levels) {
  const std::set<std::string> named(taps.layers.begin(), taps.layers.end());
  for (const std::string& name : taps.layers) {
    VPD_CHECK(
        std::any_of(layers.begin(), layers.end(), [&](const auto& l) { return l.name == name; }),
        "taps: no cross-attention layer '", name, "'; see attention_layers()");
  }
  if (taps.attention.empty()) return;
  const std::set<std::string> places = split_selector(taps.selector);
  std::vector<AttentionLayer> selected;
  for (const AttentionLayer& layer : layers) {
    if (named.empty() ? places.count(layer.place) > 0 : named.count(layer.name) > 0)
      selected.push_back(layer);
  }
  if (taps.fusion == MapFusion::kDaam) {
    plan_daam(taps, selected, levels);
  } else {
    plan_means(taps, selected);
  }
}

void UNetPlan::plan_means(const UNetTaps& taps, const std::vector<AttentionLayer>& selected) {
  std::set<int64_t> available;
  for (const AttentionLayer& layer : selected) available.insert(layer.stride);
  for (const int64_t stride : taps.attention) {
    VPD_CHECK(available.count(stride) > 0, "taps: no selected cross-attention layer at stride ",
              stride, "; this network has them at ", joined(available));
  }
  for (const AttentionLayer& layer : selected) {
    // The middle layer sits on the coarsest grid: when selected beside others it is resized to
    // each level asked for.
    const bool resized = taps.layers.empty() && layer.place == "mid";
    for (const int64_t stride : std::set(taps.attention.begin(), taps.attention.end())) {
      if (layer.stride == stride || resized) strides_[layer.name].push_back(stride);
    }
  }
}

void UNetPlan::plan_daam(const UNetTaps& taps, const std::vector<AttentionLayer>& selected,
                         int64_t levels) {
  const int64_t coarsest = int64_t{1} << (levels - 1);
  std::set<int64_t> grids;
  for (int64_t stride = 1; stride <= coarsest; stride *= 2) grids.insert(stride);
  for (const int64_t stride : taps.attention) {
    VPD_CHECK(grids.count(stride) > 0, "taps: attribution maps (fusion daam) come at strides ",
              joined(grids), ", got ", stride);
  }
  for (const AttentionLayer& layer : selected) {
    if (layer.stride < coarsest) strides_[layer.name] = {1};
  }
  VPD_CHECK(!strides_.empty(),
            "taps: attribution maps (fusion daam) leave out the coarsest grid, and no other "
            "cross-attention layer is selected");
}

std::vector<std::pair<int64_t, std::vector<int64_t>>> UNetPlan::map_layers(
    const std::string& transformer) const {
  std::vector<std::pair<int64_t, std::vector<int64_t>>> found;
  const std::string prefix = transformer + ".transformer_blocks.";
  for (const auto& [name, strides] : strides_) {
    if (name.rfind(prefix, 0) == 0)
      found.emplace_back(std::stoll(name.substr(prefix.size())), strides);
  }
  return found;
}

void MapAccumulator::add(const Tensor& map, const std::vector<int64_t>& strides, int64_t stride) {
  Tensor own = taps_.map_grad ? map : map.detach();
  if (taps_.rows) {
    VPD_CHECK(*taps_.rows >= 1 && *taps_.rows <= own.size(0), "taps: rows must be in 1..",
              own.size(0), ", got ", *taps_.rows);
    own = own.narrow(0, 0, *taps_.rows);
  }
  if (!taps_.tokens.empty()) {
    const int64_t tokens = own.size(-3);
    for (const int64_t token : taps_.tokens) {
      VPD_CHECK(token >= 0 && token < tokens, "taps: token ", token, " out of range, context has ",
                tokens);
    }
    own = own.index_select(-3, constant(taps_.tokens, own.options().dtype(at::kLong)));
  }
  for (const int64_t target : strides) {
    const Tensor seen = resized(own, stride, target);
    auto& [sum, count] = sums_[target];
    sum = count == 0 ? seen : sum + seen;
    ++count;
  }
}

Tensor MapAccumulator::resized(const Tensor& map, int64_t stride, int64_t target) const {
  const int64_t height = map.size(-2) * stride / target, width = map.size(-1) * stride / target;
  if (taps_.fusion == MapFusion::kDaam) {
    if (map.dim() == 4) return daam_layer(map.unsqueeze(1), {height, width});
    if (!taps_.per_head) return daam_layer(map, {height, width});
    return daam_layer(map.flatten(0, 1).unsqueeze(1), {height, width})
        .unflatten(0, map.sizes().slice(0, 2));
  }
  if (target == stride) return map;
  return at::upsample_bilinear2d(map.flatten(0, -4), {height, width}, /*align_corners=*/false)
      .unflatten(0, map.sizes().slice(0, map.dim() - 3));
}

std::map<int64_t, Tensor> MapAccumulator::means() const {
  std::map<int64_t, Tensor> means;
  for (const auto& [stride, entry] : sums_) means[stride] = entry.first / entry.second;
  if (taps_.fusion == MapFusion::kMean || means.empty()) return means;
  const Tensor finest = means[1];
  std::map<int64_t, Tensor> pooled;
  for (const int64_t stride : taps_.attention) {
    pooled[stride] = stride == 1 ? finest
                                 : at::avg_pool2d(finest.flatten(0, -4), {stride, stride})
                                       .unflatten(0, finest.sizes().slice(0, finest.dim() - 3));
  }
  return pooled;
}

}  // namespace vpd::models

#include "io/task_names.h"

#include <algorithm>
#include <array>
#include <utility>

namespace vpd::io {
namespace {

using Renaming = std::pair<std::string_view, std::string_view>;  // prefix of theirs, of ours

constexpr auto kHeads = std::to_array<Renaming>({
    {"decode_head.", "head."},
    {"auxiliary_head.", "aux_head."},
    {"encoder.layer1.", "head.encoder.layer1."},
    {"encoder.layer2.", "head.encoder.layer2."},
    {"encoder.out_layer.", "head.encoder.out_layer."},
    {"decoder.deconv_layers.", "head.decoder.deconv_layers."},
    {"decoder.conv_layers.", "head.decoder.conv_layers."},
    {"last_layer_depth.", "head.last_layer_depth."},
    {"sem_seg_head.", "head."},
    {"category_head.", "words."},
    {"word_head.", "words."},
    {"backbone.feature_extractor.", "adapter."},
});

// Mask2Former's first files.
constexpr std::string_view kOldQueries = "predictor.static_query.";
constexpr std::string_view kQueries = "predictor.query_feat.";

// The scale of CLIP's similarities, beside its towers.
constexpr std::string_view kTheirScale = "logit_scale", kScale = "clip.logit_scale";

constexpr std::string_view kTheirNorm = ".batch_norm.", kNorm = ".bn.";
constexpr std::string_view kTheirClassifier = "classifier.", kClassifier = "conv_seg.";

std::string_view without(std::string_view prefix, std::string_view name) {
  return name.starts_with(prefix) ? name.substr(prefix.size()) : name;
}

std::string from_transformers(std::string name) {
  if (const size_t at = name.find(kTheirNorm); at != name.npos) {
    name.replace(at, kTheirNorm.size(), kNorm);
  }
  for (const std::string_view head : {"", "head.", "aux_head."}) {
    if (without(head, name).starts_with(kTheirClassifier) && name.starts_with(head)) {
      return name.replace(head.size(), kTheirClassifier.size(), kClassifier);
    }
  }
  return name;
}

}  // namespace

bool has_transformers_upernet(const Entries& entries) {
  return std::any_of(entries.begin(), entries.end(), [](const Entry& entry) {
    return entry.name.find("psp_modules.") != std::string::npos &&
           entry.name.find(kTheirNorm) != std::string::npos;
  });
}

std::string TaskNames::operator()(std::string_view name) const {
  name = without("module.", name);
  const std::string_view inner = without("encoder.", name);
  if (inner == "gamma") return "text_adapter.gamma";
  if (name == kTheirScale) return std::string(kScale);
  if (inner == "class_embeddings" || inner.starts_with("text_adapter.")) {
    return std::string(inner);
  }
  std::string ours(name);
  if (const size_t at = ours.find(kOldQueries); at != ours.npos) {
    ours.replace(at, kOldQueries.size(), kQueries);
  }
  for (const auto& [theirs, prefix] : kHeads) {
    if (name.starts_with(theirs)) ours = std::string(prefix) + ours.substr(theirs.size());
  }
  return transformers_ ? from_transformers(std::move(ours)) : ours;
}

}  // namespace vpd::io

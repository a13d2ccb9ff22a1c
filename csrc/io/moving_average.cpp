#include "io/moving_average.h"

#include <algorithm>
#include <string_view>
#include <unordered_map>

#include "core/check.h"

namespace vpd::io {
namespace {

constexpr std::string_view kModel = "model.", kUNet = "model.diffusion_model.";
constexpr std::string_view kAverage = "model_ema.";
constexpr std::string_view kFirst = "model.diffusion_model.input_blocks.0.0.weight";
constexpr int64_t kEditorChannels = 8;

std::string average_of(std::string_view name) {
  std::string found(name.substr(kModel.size()));
  std::erase(found, '.');
  return std::string(kAverage) + found;
}

bool is_editor(const NamedTensors& file) {
  return std::any_of(file.begin(), file.end(), [](const auto& entry) {
    const auto& [name, tensor] = entry;
    return name == kFirst && tensor.dim() == 4 && tensor.size(1) == kEditorChannels;
  });
}

}  // namespace

NamedTensors with_moving_average(const NamedTensors& file, std::optional<bool> wanted,
                                 const std::string& path) {
  if (!wanted.value_or(is_editor(file))) return file;
  std::unordered_map<std::string_view, const at::Tensor*> averages;
  for (const auto& [name, tensor] : file) {
    if (name.starts_with(kAverage)) averages.emplace(name, &tensor);
  }
  NamedTensors found = file;
  size_t weights = 0, replaced = 0;
  for (auto& [name, tensor] : found) {
    if (!name.starts_with(kUNet)) continue;
    ++weights;
    const auto average = averages.find(average_of(name));
    if (average == averages.end()) continue;
    ++replaced;
    tensor = *average->second;
  }
  VPD_CHECK(replaced == weights || (replaced == 0 && !wanted), path,
            ": expected the moving average (model_ema.*) of each of ", weights,
            " weights below model.diffusion_model., found ", replaced);
  VPD_CHECK(
      weights > 0 || !wanted, path,
      ": expected weights below model.diffusion_model. with their moving average, found none");
  return found;
}

}  // namespace vpd::io

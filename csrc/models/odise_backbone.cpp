#include "models/odise_backbone.h"

#include <algorithm>
#include <array>
#include <map>
#include <set>

#include "core/check.h"
#include "core/recompute.h"
#include "nn/feature_maps.h"

namespace vpd::models {
namespace {

constexpr const char* kName = "odise_backbone";

OdiseBackboneConfig checked(OdiseBackboneConfig config) {
  VPD_CHECK(nn::are_channels(config.in_channels) && nn::are_channels(config.in_strides) &&
                config.in_channels.size() == config.in_strides.size(),
            "OdiseBackboneConfig: in_channels and in_strides must be as many positive numbers, at "
            "least one, got ",
            at::IntArrayRef(config.in_channels), " and ", at::IntArrayRef(config.in_strides));
  VPD_CHECK(
      config.projection_dim > 0 && config.projection_dim % 4 == 0 && config.num_res_blocks > 0,
      "OdiseBackboneConfig: projection_dim must be a positive multiple of 4 and "
      "num_res_blocks positive, got ",
      config.projection_dim, " and ", config.num_res_blocks);
  VPD_CHECK(config.min_stride > 0 && config.min_stride <= config.max_stride,
            "OdiseBackboneConfig: expected 1 <= min_stride <= max_stride, got ", config.min_stride,
            " and ", config.max_stride);
  return config;
}

}  // namespace

OdiseBackbone::OdiseBackbone(OdiseBackboneConfig config) : config_(checked(std::move(config))) {
  const int64_t out = config_.projection_dim;
  std::set<int64_t> strides;
  for (size_t i = 0; i < config_.in_channels.size(); ++i) {
    const Scope scope = Scope(table_) / "feature_projections" / static_cast<int64_t>(i);
    Projection projection;
    projection.stride = std::clamp(config_.in_strides[i], config_.min_stride, config_.max_stride);
    projection.own.begin = table_.size();
    for (int64_t block = 0; block < config_.num_res_blocks; ++block) {
      projection.blocks.emplace_back(scope / block, block == 0 ? config_.in_channels[i] : out,
                                     out / 4, out, config_.norm_groups);
    }
    projection.own.end = table_.size();
    strides.insert(projection.stride);
    projections_.push_back(std::move(projection));
  }
  strides_.assign(strides.begin(), strides.end());
  for (const int64_t stride : strides_) {
    VPD_CHECK(strides_.back() % stride == 0,
              "OdiseBackboneConfig: strides must divide the coarsest of them, got ",
              at::IntArrayRef(strides_));
  }
}

Tensor OdiseBackbone::Projection::operator()(const Params& p, Tensor x,
                                             at::IntArrayRef size) const {
  for (const nn::Bottleneck& block : blocks) x = block(p, x, size);
  return x;
}

std::vector<Tensor> OdiseBackbone::forward(const Params& p, const std::vector<Tensor>& features,
                                           int64_t height, int64_t width, bool recompute) const {
  const std::vector<Tensor> maps =
      nn::prepare_maps(kName, features, config_.in_channels, p[Slot(0)]);
  const int64_t coarsest = strides_.back();
  VPD_CHECK(height > 0 && width > 0 && height % coarsest == 0 && width % coarsest == 0, kName,
            ": height and width must be positive multiples of ", coarsest, ", got ", height, " x ",
            width);
  std::map<int64_t, Tensor> sums;  // stride -> map
  for (size_t i = 0; i < maps.size(); ++i) {
    const Projection& projection = projections_[i];
    const std::array<int64_t, 2> size{height / projection.stride, width / projection.stride};
    // May run a second time during the backward: holds all it needs.
    const PureFunction project = [&projection, size, owner = weak_from_this().lock()](
                                     const Params& p, const std::vector<Tensor>& in) {
      return std::vector<Tensor>{projection(p, in[0], size)};
    };
    const Tensor found = recompute ? vpd::recompute(project, p, projection.own, {maps[i]})[0]
                                   : project(p, {maps[i]})[0];
    Tensor& sum = sums[projection.stride];
    sum = sum.defined() ? sum + found : found;
  }
  std::vector<Tensor> pyramid;
  for (auto& [stride, map] : sums) pyramid.push_back(std::move(map));
  return pyramid;
}

}  // namespace vpd::models
